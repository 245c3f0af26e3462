"""Columns of lists, of every library: the sizes of the lists and all their elements."""

from itertools import chain
from typing import NamedTuple

import numpy as np

from sk_pwiser._labels import is_missing
from sk_pwiser._table._cells import first_known

# List is the only kind of Python object that is one: tuples and frozensets can be
# category values themselves.
_LISTS = list, np.ndarray


class Lists(NamedTuple):
    """The lists of a column.

    Parameters
    ----------
    sizes : int64 ndarray of shape (n_samples,)
        Number of elements of each list; -1 for missing lists.
    elements : column
        The elements of all lists, one list after the other: a pandas or polars Series,
        or an array of objects.
    """

    sizes: np.ndarray
    elements: object

    def row_of(self, element):
        """Return the row of an element, by its index."""
        ends = np.maximum(self.sizes, 0).cumsum()
        return int(np.searchsorted(ends, element, side="right"))


def has_lists(column):
    """Return whether a column contains lists, or arrays in its cells."""
    if column.dtype == object:
        return isinstance(first_known(column), _LISTS)
    return _dtype_name(column).startswith(("list", "array", "large_list", "fixed_size"))


def has_numeric_lists(column):
    """Return whether lists are numeric inputs rather than categories, by their dtype.

    They are if they have a fixed size and contain numbers, by their dtype, or if they
    contain floats.
    """
    if column.dtype == object:
        elements = chain.from_iterable(c for c in column if isinstance(c, _LISTS))
        types = {cls for cls in set(map(type, elements)) if cls is not type(None)}
        are_numbers = all(issubclass(c, int | float | np.number) for c in types)
        return are_numbers and any(issubclass(c, float | np.floating) for c in types)
    is_fixed = _dtype_name(column).startswith(("array", "fixed_size"))
    if not hasattr(column, "iloc"):
        inner = column.dtype.inner
        return inner.is_numeric() if is_fixed else inner.is_float()
    import pyarrow.types as pt  # installed, since the column is one of Arrow

    inner = column.dtype.pyarrow_dtype.value_type
    is_number = pt.is_floating(inner) or (is_fixed and pt.is_integer(inner))
    return bool(is_number or pt.is_decimal(inner))


def _dtype_name(column):
    return str(column.dtype).lower()


def read_lists(column, name):
    """Return the lists of a column.

    Raises
    ------
    TypeError
        If a row contains something else, or a list of lists.
    """
    if not has_lists(column) and _first_row(column) is not None:
        row, value = _first_row(column)
        raise TypeError(
            f"Column {name!r} contained lists in fit; row {row} contains {value!r}, "
            "which is not a list."
        )
    if column.dtype == object or not has_lists(column):
        return _read_objects(column, name)
    if hasattr(column, "iloc"):
        return _read_arrow(column, name)
    return _read_polars(column, name)


def _first_row(column):
    return next(((r, v) for r, v in enumerate(column) if not is_missing(v)), None)


def _read_objects(column, name):
    # Iteration gives the values themselves.
    cells = [None if is_missing(cell) else cell for cell in column]
    types = set(map(type, cells)) - {type(None)}
    if not all(issubclass(cls, _LISTS) for cls in types):
        row, value = next(
            (row, cell)
            for row, cell in enumerate(cells)
            if cell is not None and not isinstance(cell, _LISTS)
        )
        raise TypeError(
            f"Column {name!r} contains lists; row {row} contains {value!r}, which is "
            "not a list."
        )
    sizes = np.fromiter(
        (-1 if cell is None else len(cell) for cell in cells), np.int64, len(cells)
    )
    known = (cell for cell in cells if cell is not None)
    elements = np.fromiter(
        chain.from_iterable(known), dtype=object, count=int(np.maximum(sizes, 0).sum())
    )
    if any(issubclass(cls, (*_LISTS, tuple)) for cls in set(map(type, elements))):
        row = next(
            row
            for row, cell in enumerate(cells)
            if cell is not None and any(isinstance(v, (*_LISTS, tuple)) for v in cell)
        )
        raise _nested_error(name, row, cells[row])
    return Lists(sizes, elements)


def _read_polars(column, name):
    import polars as pl  # installed, since the column is one of polars

    if isinstance(column.dtype, pl.Array):
        column = column.arr.to_list()
    if column.dtype.inner.is_nested():
        row, value = _first_row(column) or (0, column.dtype)
        raise _nested_error(name, row, getattr(value, "to_list", lambda: value)())
    sizes = column.list.len().cast(pl.Int64).fill_null(-1).to_numpy()
    return Lists(sizes, column.filter(sizes > 0).explode())


def _read_arrow(column, name):
    import pandas as pd
    import pyarrow as pa  # installed, since the column is one of Arrow
    import pyarrow.compute as pc

    array = pa.array(column.array)
    if pa.types.is_nested(array.type.value_type):
        row, value = _first_row(column) or (0, array.type)
        raise _nested_error(name, row, value)
    sizes = pc.fill_null(pc.list_value_length(array), -1).to_numpy()
    elements = pc.list_flatten(array.drop_null())
    return Lists(
        sizes.astype(np.int64), pd.Series(pd.arrays.ArrowExtensionArray(elements))
    )


def _nested_error(name, row, value):
    text = repr(value)
    text = text if len(text) <= 80 else text[:77] + "..."
    return TypeError(
        f"Column {name!r} contains lists of lists, which cannot be encoded; row {row} "
        f"contains {text}."
    )

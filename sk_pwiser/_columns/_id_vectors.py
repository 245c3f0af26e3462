"""Tables of vectors by id, as users pass them."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from sk_pwiser._columns import _frames
from sk_pwiser._columns._row_fields import as_column

# Stands for the table in a file, whose encoding has the scaled vectors.
IN_FILE = "learnt; a file does not hold the table"

# Numbers of a row that are written at a time: as many as the cache of a processor
# writes together.
COPIED_COLUMNS = 16


class IdVectors:
    """The vectors of the ids of a column: a DataFrame, or a mapping of id to vector.

    Settings and encoders hold the table of the user itself, which may be large: neither
    copies nor pickles of this object copy it.
    """

    def __init__(self, table: Any) -> None:
        self.table = table
        # A table that grows in place is another one.
        self.n_rows = _length_of(table)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return IdVectors, (IN_FILE,)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, IdVectors):
            return NotImplemented
        if self.is_in_file or other.is_in_file:
            return self.is_in_file and other.is_in_file
        return self.table is other.table and self.n_rows == other.n_rows

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"IdVectors(n_ids={self.n_rows})"

    @property
    def is_in_file(self) -> bool:
        """Whether this is a table that a file or a pickle has left out."""
        return isinstance(self.table, str) and self.table == IN_FILE

    def read(self, name: Any) -> tuple[Any, np.ndarray]:
        """Return the ids as a column, and their vectors, float32 `(n_ids + 1, size)`.

        The vectors are a new array. Its first row is 0, for ids without a vector: to
        add it later would copy a large table.
        """
        place = f"vectors[{name!r}] in encoding_params"
        if self.is_in_file:
            raise ValueError(
                f"{place} must be passed again: a file or a pickle of an estimator "
                "holds the vectors of its last fit, but not the table."
            )
        table = _frames.collected(self.table)
        if isinstance(table, Mapping):
            ids = as_column(list(table))
            vectors = _stack(table.values(), ids, place)
        elif _frames.is_dataframe(table):
            ids, vectors = _read_frame(table, name, place)
        else:
            raise TypeError(
                f"{place} must be a DataFrame, or a mapping of id to vector; got "
                f"{type(table).__name__}."
            )
        n_ids = len(vectors) - 1  # the first one is that of ids without a vector
        size = vectors.shape[1]
        if not n_ids or not size:
            raise ValueError(
                f"{place} must have at least one id, and one number per id; its shape "
                f"is ({n_ids}, {size})."
            )
        is_finite = np.isfinite(vectors[1:].sum(axis=1))
        if not is_finite.all():
            row = int(np.argmin(is_finite))
            raise ValueError(
                f"{place} must be finite; the vector of {_id_at(ids, row)!r} has NaN "
                "or an infinite number. Leave out ids without a vector."
            )
        return ids, vectors


def _length_of(table):
    """Return the number of rows of a table, None if it has none."""
    try:
        return len(table)
    except TypeError:  # of a query, which is read later
        return None


def _id_at(ids, row):
    value = ids[row]
    return value.item() if isinstance(value, np.generic) else value


def _read_frame(table, name, place):
    """Return the ids and the vectors of a DataFrame, whose index may be the ids."""
    labels = list(getattr(table, "column_names", None) or table.columns)
    columns = dict(zip(labels, _frames.list_columns(table), strict=True))
    if name in columns:
        ids = columns.pop(name)
    elif hasattr(table, "index"):
        ids = table.index.to_series().reset_index(drop=True)
    else:
        raise ValueError(
            f"{place} must have a column {name!r} with the ids; its columns are "
            f"{labels}."
        )
    ids = ids.reset_index(drop=True) if hasattr(ids, "reset_index") else ids
    cells = list(columns.values())
    if len(cells) == 1 and _frames.content_of(cells[0]) in ("lists", "arrays"):
        lists = _frames.read_lists(cells[0], labels[0])
        return ids, _stack_lists(lists, ids, place)
    vectors = np.zeros((len(ids) + 1, len(cells)), dtype=np.float32)
    for start in range(0, len(cells), COPIED_COLUMNS):
        copied = [
            _frames.read_numbers(column, f"{place}: column {label!r}").astype("f4")
            for label, column in list(columns.items())[start : start + COPIED_COLUMNS]
        ]
        vectors[1:, start : start + COPIED_COLUMNS] = np.stack(copied, axis=1)
    return ids, vectors


def _stack_lists(lists, ids, place):
    """Return lists of numbers of one size as an array."""
    size = int(lists.sizes[0]) if len(lists.sizes) else 0
    _check_sizes(lists.sizes, ids, place)
    numbers = _frames.read_numbers(lists.elements, place)
    vectors = np.zeros((len(ids) + 1, size), dtype=np.float32)
    vectors[1:] = np.reshape(numbers, (-1, size))
    return vectors


def _stack(vectors, ids, place):
    """Return vectors of one size as an array."""
    arrays = []
    for row, vector in enumerate(vectors):
        try:
            array = np.asarray(vector, dtype=np.float32)
        except (TypeError, ValueError):
            array = np.empty(())
        if array.ndim != 1:
            raise TypeError(
                f"{place} must hold one-dimensional vectors of numbers; the vector of "
                f"{_id_at(ids, row)!r} is {vector!r}."
            )
        arrays.append(array)
    _check_sizes(np.array([len(array) for array in arrays]), ids, place)
    size = len(arrays[0]) if arrays else 0
    stacked = np.zeros((len(arrays) + 1, size), dtype=np.float32)
    for row, array in enumerate(arrays, start=1):
        stacked[row] = array
    return stacked


def _check_sizes(sizes, ids, place):
    """Raise if the vectors have different sizes."""
    differs = sizes != sizes[:1]
    if differs.any():
        row = int(differs.argmax())
        raise ValueError(
            f"{place} must hold vectors of one size; that of {_id_at(ids, 0)!r} has "
            f"{max(sizes[0], 0)} numbers, that of {_id_at(ids, row)!r} has "
            f"{max(sizes[row], 0)}."
        )

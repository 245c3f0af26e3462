"""Tables of any library: their columns, and new columns beside them."""

from collections.abc import Mapping
from itertools import pairwise
from numbers import Integral
from typing import NamedTuple

import numpy as np

from sk_pwiser._table._frames import as_table, collected, refuse_parts


class ListOutput(NamedTuple):
    """A column of lists: sizes, and elements, which are places in `values` if given."""

    sizes: np.ndarray
    elements: np.ndarray
    values: list | None = None


def kind_of(X):
    """Return "pandas", "polars", "arrow" or "dict"; arrays, without names, are none."""
    if isinstance(X, Mapping):
        return "dict"
    library = type(X).__module__.partition(".")[0]
    if library == "pyarrow" and hasattr(X, "column_names"):
        return "arrow"
    if library == "polars" and hasattr(X, "columns"):
        return "polars"
    if hasattr(X, "iloc") and getattr(X, "ndim", 0) == 2:
        return "pandas"
    raise TypeError(
        "X must be a table whose columns have names: a DataFrame of pandas or polars, "
        f"a table of Arrow, or a dict of arrays; got {type(X).__name__}."
    )


class Table:
    """A table of any kind; an error if it has no names of columns."""

    def __init__(self, X):
        refuse_parts(X)
        X = collected(X)
        self.kind = kind_of(X)
        if self.kind == "dict":
            X = {name: _as_array(name, column) for name, column in X.items()}
            lengths = {name: len(column) for name, column in X.items()}
            if len(set(lengths.values())) > 1:
                raise ValueError(f"The columns of X differ in length: {lengths}.")
            self.n_rows, self.names = next(iter(lengths.values()), 0), list(X)
        else:
            self.n_rows = len(X)
            self.names = list(X.column_names if self.kind == "arrow" else X.columns)
        self.X = X

    def column(self, name):
        if name not in self.names:
            raise ValueError(
                f"{name!r} is not a column of X; its columns are {self.names}."
            )
        if self.kind == "arrow":
            return as_table(self.X.select([name]))[name]
        return self.X[name]

    def with_features(self, kept, features, kind):
        """Return the columns `kept`, and new ones behind them, as a table of a kind."""
        X = _converted(self.X, self.kind, kind, kept)
        new = {name: _new_column(column, kind) for name, column in features.items()}
        if kind == "dict":
            return X | new
        if kind == "arrow":
            for name, column in new.items():
                X = X.append_column(name, column)
            return X
        if kind == "polars":
            return X.with_columns(**new) if X.width else type(X)(new)
        import pandas as pd

        # Tables of other libraries without columns have no length.
        index = X.index if X.shape[1] or self.kind == "pandas" else None
        # Without a copy, as one array per column.
        columns = {n: pd.Series(column, index=index) for n, column in new.items()}
        frame = pd.DataFrame(columns, index=index, copy=False)
        return pd.concat([X, frame], axis=1) if X.shape[1] else frame


def _as_array(name, column):
    array = column if hasattr(column, "dtype") else np.asarray(column)
    if array is not column and array.ndim == 1 and array.dtype.kind == "f":
        # NaN, and integers from 2^63 on, turn all into floats, which hold 2^53 exactly.
        is_rounded = any(isinstance(v, Integral) and abs(v) > 2**53 for v in column)
        array = np.array(column, dtype=object) if is_rounded else array
    if len(getattr(array, "shape", ())) != 1:
        raise ValueError(
            f"Column {name!r} of X must hold one value per row; got "
            f"{type(column).__name__}. A single row is a dict for transform_row."
        )
    return array


def _converted(X, kind, wanted, kept):
    if kind == "dict":
        X = {name: X[name] for name in kept}
    else:
        X = X[kept] if kind == "pandas" else X.select(kept)
    if kind == wanted:
        return X
    if wanted == "pandas":
        import pandas as pd

        return pd.DataFrame(X) if kind == "dict" else X.to_pandas()
    import polars as pl

    readers = {"dict": pl.DataFrame, "arrow": pl.from_arrow, "pandas": pl.from_pandas}
    return readers[kind](X)


def _new_column(new, kind):
    """Return a new column in the form that tables of a kind take."""
    arrays = None
    if isinstance(new, ListOutput):
        arrays = None if kind == "dict" else _arrow_lists(new)
        new = _python_lists(new) if arrays is None else arrays
    if kind == "polars":
        import polars as pl

        if arrays is not None:
            import pyarrow as pa

            # As a table: polars up to 1.40 crashes on arrays of long lists of text.
            return pl.DataFrame(pa.table([arrays], [""])).to_series()
        return pl.Series(new.tolist() if new.dtype == object else new)
    if kind == "arrow" and arrays is None:
        import pyarrow as pa  # installed, since the table is one of its objects

        return pa.array(new)
    if kind == "pandas" and arrays is not None:
        import pandas as pd

        return pd.arrays.ArrowExtensionArray(arrays)
    return new


def _arrow_lists(new):
    """Return lists as an array of Arrow; None if it cannot hold them."""
    try:
        import pyarrow as pa
    except ImportError:
        return None
    elements = new.elements
    if new.values is None:
        elements = pa.array(elements)
    else:
        try:
            elements = arrow_array(new.values).take(pa.array(elements))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            return None
    offsets = pa.array(np.append(0, new.sizes.cumsum()))
    return pa.LargeListArray.from_arrays(offsets, elements)


def arrow_array(values):
    """Return values as an array of Arrow, which reads integers as signed by itself."""
    import pyarrow as pa  # installed

    try:
        return pa.array(values)
    except OverflowError:
        return pa.array(values, type=pa.uint64())


def _python_lists(new):
    elements = new.elements.tolist()
    if new.values is not None:
        elements = [new.values[place] for place in elements]
    ends = new.sizes.cumsum().tolist()
    lists = np.empty(len(ends), dtype=object)
    for row, (start, end) in enumerate(pairwise([0, *ends])):
        lists[row] = elements[start:end]
    return lists

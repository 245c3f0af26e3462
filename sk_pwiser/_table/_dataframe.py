"""Uniform access to the columns of pandas, polars and numpy tables.

Neither pandas nor polars is imported here: columns are read through their own methods.
"""

import numpy as np

from sk_pwiser._labels import is_missing
from sk_pwiser._table._cells import (
    ADVICE_FOR_DATES,
    DATES,
    check_numbers,
    contains_text,
    first_known,
    has_date_dtype,
)
from sk_pwiser._table._read_lists import has_lists, has_numeric_lists

# Number of rows that are processed at a time: few enough that temporary arrays need
# little memory.
CHUNK_ROWS = 32_768


def is_dataframe(X):
    """Return whether `X` is a pandas or polars DataFrame."""
    return len(getattr(X, "shape", ())) == 2 and (hasattr(X, "iloc") or is_polars(X))


def is_polars(X):
    """Return whether `X` is an object of polars."""
    return type(X).__module__.partition(".")[0] == "polars"


def describe(name, column):
    """Return the name of a column for messages.

    A column of a DataFrame whose names are not all text goes by its index. The label,
    which may be a tuple or a number, then follows.
    """
    label = getattr(column, "name", None)
    if isinstance(name, str) or label is None or not hasattr(column, "iloc"):
        return repr(name)
    return f"{name!r} (labelled {label!r})"


def list_columns(X):
    """Return the columns of a DataFrame or of a 2-D array, without copies."""
    if hasattr(X, "iloc"):
        return [column for _, column in X.items()]
    return X.get_columns() if is_polars(X) else list(X.T)


def slice_rows(column, rows):
    """Return the rows of a column in a slice, without a copy."""
    if rows.start == 0 and rows.stop >= len(column):
        return column
    return column.iloc[rows] if hasattr(column, "iloc") else column[rows]


def row_chunks(n_rows, min_size=0):
    """Yield consecutive slices of rows: of `min_size` rows or more, except the last."""
    size = max(CHUNK_ROWS, min_size)
    for start in range(0, n_rows, size):
        yield slice(start, start + size)


def has_category_dtype(column):
    """Return whether the dtype of a column stands for categories.

    These dtypes are category, string, object and bool of pandas, including those of
    Arrow, and Categorical, Enum, String and Boolean of polars. Columns of objects that
    begin with a date do not count, and a column of an array counts if it has text.
    Lists count, except those of floats and arrays of numbers of a fixed size.
    """
    if has_lists(column):
        return not has_numeric_lists(column)
    if isinstance(column, np.ndarray):
        is_object = column.dtype == object
        return contains_text(column) if is_object else _is_text_dtype(column.dtype)
    if is_polars(column):
        return str(column.dtype).startswith(("Categorical", "Enum", "String", "Bool"))
    if column.dtype == object:
        return not isinstance(first_known(column), DATES)
    return (
        column.dtype.kind == "b"
        or column.dtype.name.startswith(("category", "dictionary"))
        or _is_text_dtype(column.dtype)
    )


def _is_text_dtype(dtype):
    """Return whether a dtype of numpy or pandas is one of text."""
    name = dtype.name  # Arrow's have a suffix in brackets: string[pyarrow]
    return dtype.kind in "SUT" or name == "str" or "string" in name.partition("[")[0]


def to_float(column):
    """Return a numeric column as float64, with missing values as NaN.

    The result may share memory with the column.

    Raises
    ------
    TypeError or ValueError
        If the column is not numeric.
    """
    dtype = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "fiub":
        return np.asarray(column, dtype=np.float64)
    if has_date_dtype(column):
        raise TypeError(
            f"its dtype is {dtype}, which is not numeric. {ADVICE_FOR_DATES}"
        )
    if is_polars(column):
        if not (dtype.is_numeric() or str(dtype) in ("Boolean", "Null")):
            raise TypeError(f"its dtype is {dtype}, which is not numeric")
        return column.cast(float).to_numpy().astype(np.float64)
    # numpy would convert "7" to 7.
    if dtype.kind == "c" or _is_text_dtype(dtype):
        raise TypeError(f"its dtype is {dtype}, which is not numeric")
    if dtype.kind == "O":
        check_numbers(column)
    if isinstance(column, np.ndarray):
        numbers = (np.nan if is_missing(value) else value for value in column)
        return np.fromiter(numbers, dtype=np.float64, count=len(column))
    return column.to_numpy(dtype=np.float64, na_value=np.nan)

"""Columns of pandas, polars and numpy tables, read the same way.

Nothing here imports pandas or polars: a column is asked through its own methods.
"""

import numpy as np


def is_dataframe(X):
    """Tell whether `X` is a pandas or polars DataFrame."""
    return len(getattr(X, "shape", ())) == 2 and (hasattr(X, "iloc") or _is_polars(X))


def _is_polars(X):
    return type(X).__module__.partition(".")[0] == "polars"


def column_of(X, index):
    """Return one column of a DataFrame or of a 2-D array."""
    if hasattr(X, "iloc"):
        return X.iloc[:, index]
    return X.to_series(index) if _is_polars(X) else X[:, index]


def rows_of(column, start, stop):
    """Return some rows of a column, without a copy."""
    return column.iloc[start:stop] if hasattr(column, "iloc") else column[start:stop]


def has_category_dtype(column):
    """Tell whether a column's dtype says that it holds categories.

    These are category, string, object and bool of pandas, those of Arrow included, and
    Categorical, Enum, String and Boolean of polars. Arrays hold numbers, whatever
    their dtype.
    """
    if isinstance(column, np.ndarray):
        return False
    if _is_polars(column):
        return str(column.dtype).startswith(("Categorical", "Enum", "String", "Bool"))
    return (
        column.dtype.kind == "b"
        or column.dtype == object
        or column.dtype.name.startswith(("category", "dictionary"))
        or _holds_text(column.dtype)
    )


def _holds_text(dtype):
    """Tell whether a dtype of numpy or pandas is one of text."""
    name = dtype.name  # Arrow's say more in brackets: string[pyarrow]
    return dtype.kind in "SUT" or name == "str" or "string" in name.partition("[")[0]


def to_float(column):
    """Return a column of numbers as float64, missing values as NaN.

    Raises
    ------
    TypeError or ValueError
        If the column does not hold numbers.
    """
    dtype = column.dtype
    if _is_polars(column):
        if not (dtype.is_numeric() or str(dtype) in ("Boolean", "Null")):
            raise TypeError(f"its dtype {dtype} holds no numbers")
        return column.cast(float).to_numpy().astype(np.float64)
    # Both would be converted: dates to days or nanoseconds, and "7" to 7.
    if dtype.kind in "mMc" or _holds_text(dtype):
        raise TypeError(f"its dtype {dtype} holds no numbers")
    if dtype.kind == "O":
        text = next((value for value in column if isinstance(value, str | bytes)), None)
        if text is not None:
            raise TypeError(f"it holds text, such as {text!r}")
    if isinstance(column, np.ndarray):
        if dtype.kind != "O":
            return column.astype(np.float64)
        known = (np.nan if _is_missing(value) else value for value in column)
        return np.fromiter(known, dtype=np.float64, count=len(column))
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def factorize(column):
    """Return codes of a column's values and the values that they stand for.

    Returns
    -------
    codes : int64 ndarray of shape (n_samples,)
        Position of each row's value in `values`; -1 where it is missing.
    values : list
        The distinct values in the column, as Python objects that compare alike across
        libraries.

    Raises
    ------
    TypeError, ValueError or NotImplementedError
        If the column holds what cannot be told apart, such as lists.
    """
    if isinstance(column, np.ndarray):
        return _factorize_array(column)
    if _is_polars(column):
        return _factorize_polars(column)
    if column.dtype.name == "category":
        return _factorize_pandas_categories(column.cat)
    if column.dtype.kind == "f":
        # To nullable dtypes NaN is not missing, and to Arrow -0.0 is not 0.0.
        column = column.mask(column != column) + 0.0
    codes, values = column.factorize()
    return codes.astype(np.int64), values.tolist()


def _factorize_pandas_categories(column):
    codes = column.codes.to_numpy().astype(np.int64)
    # A single row may come with the categories of millions.
    used = np.zeros(len(column.categories), dtype=bool)
    used[codes[codes >= 0]] = True
    positions = np.append(used.cumsum() - 1, -1)
    return positions[codes], column.categories[used].tolist()


def _factorize_polars(column):
    name = str(column.dtype)
    if name == "Object":
        return _factorize_objects(column)
    if column.dtype.is_nested():
        raise TypeError(f"its dtype {name} holds no single values")
    if name.startswith(("Categorical", "Enum")):
        import polars as pl  # the caller holds a polars column, so it is there

        column = column.cast(pl.String)
    elif column.dtype.is_float():
        column = column.fill_nan(None)
    values = column.drop_nulls().unique().sort()
    codes = column.replace_strict(values, np.arange(len(values)), default=-1)
    return codes.to_numpy().astype(np.int64), values.to_list()


def _factorize_array(column):
    if column.dtype.kind not in "biufU":
        return _factorize_objects(column)
    values, codes = np.unique(column, return_inverse=True)
    codes = codes.astype(np.int64)
    if column.dtype.kind == "f" and len(values) and np.isnan(values[-1]):
        codes[codes == len(values) - 1] = -1
        values = values[:-1]
    return codes, values.tolist()


def _factorize_objects(column):
    # Objects need not be sortable: hashing takes any mixture.
    positions = {}
    codes = np.fromiter(
        (
            -1 if _is_missing(value) else positions.setdefault(value, len(positions))
            for value in column
        ),
        dtype=np.int64,
        count=len(column),
    )
    return codes, list(positions)


def _is_missing(value):
    if value is None:
        return True
    different = value != value
    if isinstance(different, bool | np.bool_):
        return bool(different)
    # pandas.NA answers comparisons with itself.
    return different is value

"""Columns of pandas, polars and numpy tables, read the same way.

Nothing here imports pandas or polars: a column is asked through its own methods.
"""

import numpy as np

# Kinds of a pandas or numpy dtype that hold numbers.
_NUMBER_KINDS = "iuf"


def is_dataframe(X):
    """Tell whether `X` is a pandas or polars DataFrame."""
    return hasattr(X, "iloc") or _is_polars(X)


def _is_polars(X):
    return type(X).__module__.partition(".")[0] == "polars"


def column_of(X, index):
    """Return one column of a DataFrame or of a 2-D array."""
    if hasattr(X, "iloc"):
        return X.iloc[:, index]
    return X.to_series(index) if _is_polars(X) else X[:, index]


def has_category_dtype(column):
    """Tell whether a column's dtype says that it holds categories.

    These are category, string, object and bool of pandas and Categorical, Enum, String
    and Boolean of polars. Arrays hold numbers, whatever their dtype.
    """
    if isinstance(column, np.ndarray):
        return False
    if _is_polars(column):
        return str(column.dtype).startswith(("Categorical", "Enum", "String", "Bool"))
    return column.dtype.kind in "bOU" or column.dtype.name in ("category", "string")


def to_float(column):
    """Return a column of numbers as float64, missing values as NaN.

    Raises
    ------
    TypeError or ValueError
        If the column does not hold numbers.
    """
    if isinstance(column, np.ndarray):
        return column.astype(np.float64)
    if _is_polars(column):
        if not (column.dtype.is_numeric() or str(column.dtype) in ("Boolean", "Null")):
            raise TypeError(f"its dtype {column.dtype} holds no numbers")
        return column.cast(float).to_numpy().astype(np.float64)
    if column.dtype.kind in "mMc":
        raise TypeError(f"its dtype {column.dtype} holds no numbers")
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def factorize(column):
    """Return codes of a column's values and the values that they stand for.

    Returns
    -------
    codes : int64 ndarray of shape (n_samples,)
        Position of each row's value in `values`; -1 where it is missing.
    values : list
        The distinct values, as Python objects that compare alike across libraries.
    """
    if isinstance(column, np.ndarray):
        return _factorize_array(column)
    if _is_polars(column):
        return _factorize_polars(column)
    if column.dtype.name == "category":
        return (
            column.cat.codes.to_numpy().astype(np.int64),
            column.cat.categories.tolist(),
        )
    codes, values = column.factorize()
    return codes.astype(np.int64), values.tolist()


def _factorize_polars(column):
    name = str(column.dtype)
    if name.startswith(("Categorical", "Enum")):
        import polars as pl  # the caller holds a polars column, so it is there

        column = column.cast(pl.String)
    elif column.dtype.is_float():
        column = column.fill_nan(None)
    values = column.drop_nulls().unique().sort()
    if name == "Boolean":
        column = column.cast(int)
    # The dense rank counts the distinct values in their order, from 1 on.
    codes = column.rank("dense").fill_null(0).to_numpy().astype(np.int64) - 1
    return codes, values.to_list()


def _factorize_array(column):
    if column.dtype.kind in "biufU":
        values, codes = np.unique(column, return_inverse=True)
        codes = codes.astype(np.int64)
        if column.dtype.kind == "f" and len(values) and np.isnan(values[-1]):
            codes[codes == len(values) - 1] = -1
            values = values[:-1]
        return codes, values.tolist()
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
    # pandas.NA answers comparisons with itself, which is neither true nor false.
    return different is value or different is True or different is np.True_

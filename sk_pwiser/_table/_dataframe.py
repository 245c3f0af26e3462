"""Columns of pandas, polars and numpy tables, read the same way.

Nothing here imports pandas or polars: a column is asked through its own methods.
"""

import numpy as np

# Rows gone through at a time: few enough that what is made on the way takes no memory
# to speak of.
ROWS_AT_A_TIME = 32_768


def is_dataframe(X):
    """Tell whether `X` is a pandas or polars DataFrame."""
    return len(getattr(X, "shape", ())) == 2 and (hasattr(X, "iloc") or _is_polars(X))


def _is_polars(X):
    return type(X).__module__.partition(".")[0] == "polars"


def columns_of(X):
    """Return the columns of a DataFrame or of a 2-D array, without copies."""
    if hasattr(X, "iloc"):
        return [column for _, column in X.items()]
    return X.get_columns() if _is_polars(X) else list(X.T)


def rows_of(column, rows):
    """Return some rows of a column, a slice, without a copy."""
    if rows.start == 0 and rows.stop >= len(column):
        return column
    return column.iloc[rows] if hasattr(column, "iloc") else column[rows]


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

    It may be the column's own memory.

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
    if isinstance(dtype, np.dtype) and dtype.kind != "O":
        return np.asarray(column, dtype=np.float64)
    if isinstance(column, np.ndarray):
        known = (np.nan if _is_missing(value) else value for value in column)
        return np.fromiter(known, dtype=np.float64, count=len(column))
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def factorize(column):
    """Return codes of a column's values and the values that they stand for.

    Returns
    -------
    codes : integer ndarray of shape (n_samples,)
        Position of each row's value in `values`; -1 where it is missing. It may be
        the column's own memory.
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
    return _compact(codes, len(values)), values.tolist()


def _compact(codes, n_values):
    """Return codes in the smallest integer type that holds them."""
    return codes.astype(np.min_scalar_type(-max(1, n_values)), copy=False)


def _factorize_pandas_categories(column):
    codes = column.codes.to_numpy()
    # A single row may come with the categories of millions.
    is_used = count(codes, len(column.categories))[:-1] > 0
    if is_used.all():
        return codes, column.categories.tolist()
    # Position -1, a missing value, takes the last entry.
    positions = _compact(np.append(is_used.cumsum() - 1, -1), is_used.sum())
    used = np.empty(len(codes), dtype=positions.dtype)
    for rows in blocks(len(codes)):
        used[rows] = positions[codes[rows]]
    return used, column.categories[is_used].tolist()


def count(codes, n_values):
    """Count the rows of each value, and in the last place the missing ones.

    Parameters
    ----------
    codes : integer ndarray of shape (n_samples,)
        Positions of values; -1 where they are missing.
    n_values : int
        Number of values.

    Returns
    -------
    int64 ndarray of shape (n_values + 1,)
    """
    counts = np.zeros(n_values + 1, dtype=np.int64)
    for rows in blocks(len(codes), n_values):
        # As many as int64, which is what numpy counts, the codes of a whole column
        # would take more memory than all else that is made of it.
        block = codes[rows].astype(np.int64)
        block[block < 0] = n_values
        counts += np.bincount(block, minlength=n_values + 1)
    return counts


def blocks(n_rows, smallest=0):
    """Yield slices that go through the rows, `smallest` or more at a time."""
    size = max(ROWS_AT_A_TIME, smallest)
    for start in range(0, n_rows, size):
        yield slice(start, start + size)


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
    return _compact(codes.to_numpy(), len(values)), values.to_list()


def _factorize_array(column):
    if column.dtype.kind not in "biufU":
        return _factorize_objects(column)
    values, codes = np.unique(column, return_inverse=True)
    codes = _compact(codes, len(values))
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
    return _compact(codes, len(positions)), list(positions)


def _is_missing(value):
    if value is None:
        return True
    different = value != value
    if isinstance(different, bool | np.bool_):
        return bool(different)
    # pandas.NA answers comparisons with itself.
    return different is value

"""Distinct values of a column, and the index of each row's value among them."""

import numpy as np

from sk_pwiser._table._dataframe import is_missing, is_polars, row_chunks

# Up to this number of rows, a dict is faster than sorting or expressions of polars.
FEW_ROWS = 64


def factorize(column):
    """Return the distinct values of a column and their index in every row.

    Returns
    -------
    indices : integer ndarray of shape (n_samples,)
        Index of each row's value in `values`; -1 for missing values. The array may
        share memory with the column.
    values : list
        The distinct values, in an order that depends on the kind of column. They are
        Python objects that compare equal across libraries.

    Raises
    ------
    TypeError, ValueError or NotImplementedError
        If the values cannot be compared, for example lists.
    """
    if isinstance(column, np.ndarray):
        return _factorize_array(column)
    if is_polars(column):
        return _factorize_polars(column)
    if column.dtype.name == "category":
        return _factorize_pandas_categories(column.array)
    if column.dtype.kind == "f":
        # Nullable dtypes do not treat NaN as missing; Arrow treats -0.0 and 0.0 as two
        # values.
        column = column.mask(column != column) + 0.0
    indices, values = column.factorize()
    return _compact(indices, len(values)), values.tolist()


def count_values(indices, n_values):
    """Count the rows of each value and, as the last entry, the missing values.

    Parameters
    ----------
    indices : integer ndarray of shape (n_samples,)
        Indices of values; -1 for missing values.
    n_values : int
        Number of values.

    Returns
    -------
    int64 ndarray of shape (n_values + 1,)
    """
    counts = np.zeros(n_values + 1, dtype=np.int64)
    for rows in row_chunks(len(indices), n_values):
        # bincount needs int64: converting the whole column at once would need more
        # memory than the rest of the encoding.
        chunk = indices[rows].astype(np.int64)
        chunk[chunk < 0] = n_values
        counts += np.bincount(chunk, minlength=n_values + 1)
    return counts


def _compact(indices, n_values):
    """Return indices in the smallest integer type that can represent them."""
    return indices.astype(np.min_scalar_type(-max(1, n_values)), copy=False)


def _factorize_pandas_categories(column):
    codes = column.codes
    # A single row may have a dtype with millions of categories.
    if len(codes) < len(column.categories):
        used, indices = np.unique(codes, return_inverse=True)
        if len(used) and used[0] < 0:  # a missing value
            used, indices = used[1:], indices - 1
        return _compact(indices, len(used)), column.categories[used].tolist()
    is_used = count_values(codes, len(column.categories))[:-1] > 0
    if is_used.all():
        return codes, column.categories.tolist()
    # The last entry is the one that code -1, a missing value, selects.
    new_indices = _compact(np.append(is_used.cumsum() - 1, -1), is_used.sum())
    indices = np.empty(len(codes), dtype=new_indices.dtype)
    for rows in row_chunks(len(codes)):
        indices[rows] = new_indices[codes[rows]]
    return indices, column.categories[is_used].tolist()


def _factorize_polars(column):
    name = str(column.dtype)
    if name == "Object":
        return _factorize_objects(column)
    if column.dtype.is_nested():
        raise TypeError(f"its dtype is {name}, which is nested")
    if name.startswith(("Categorical", "Enum")):
        import polars as pl  # installed, since the column is one of polars

        column = column.cast(pl.String)
    elif column.dtype.is_float():
        column = column.fill_nan(None)
    if len(column) <= FEW_ROWS:
        return _factorize_objects(column.to_list())
    # `unique` alone returns the values in random order.
    values = column.drop_nulls().unique().sort()
    indices = column.replace_strict(values, np.arange(len(values)), default=-1)
    return _compact(indices.to_numpy(), len(values)), values.to_list()


def _factorize_array(column):
    if column.dtype.kind not in "biufU":
        return _factorize_objects(column)
    if len(column) <= FEW_ROWS:
        return _factorize_objects(column.tolist())
    values, indices = np.unique(column, return_inverse=True)
    indices = _compact(indices, len(values))
    if column.dtype.kind == "f" and len(values) and np.isnan(values[-1]):
        indices[indices == len(values) - 1] = -1
        values = values[:-1]
    return indices, values.tolist()


def _factorize_objects(column):
    # np.unique sorts, which fails for objects of mixed types; a dict only hashes.
    known = {}
    indices = np.fromiter(
        (
            -1 if is_missing(value) else known.setdefault(value, len(known))
            for value in column
        ),
        dtype=np.int64,
        count=len(column),
    )
    return _compact(indices, len(known)), list(known)

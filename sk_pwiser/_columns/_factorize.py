"""The distinct values of a column of any library, and the value of each row."""

import numpy as np

from sk_pwiser._columns import _frames

# Up to this number of rows, a dict is faster than sorting or a polars expression.
FEW_ROWS = 64


def factorize(column):
    """Return the index of each row's value, -1 if missing, and the distinct values.

    These are Python objects that compare equal across libraries, in no set order. The
    indices may share memory with the column.
    """
    if isinstance(column, np.ndarray):
        return _factorize_array(column)
    if _frames.is_polars(column):
        return _factorize_polars(column)
    if column.dtype.name == "category":
        return _factorize_pandas_categories(column.array)
    if column.dtype.kind == "f":
        # Nullable dtypes do not treat NaN as missing, and Arrow distinguishes -0.0 from
        # 0.0.
        column = column.mask(column != column) + 0.0
    indices, values = column.factorize()
    return _compact(indices, len(values)), values.tolist()


def _compact(indices, n_values):
    return indices.astype(np.min_scalar_type(-max(1, n_values)), copy=False)


def _factorize_pandas_categories(column):
    codes = column.codes
    if len(codes) <= FEW_ROWS:
        indices, used = _factorize_objects(
            [c if c >= 0 else None for c in codes.tolist()]
        )
        values = (column.categories[code] for code in used)
        return indices, [v.item() if isinstance(v, np.generic) else v for v in values]
    # A few rows may have a dtype with millions of categories.
    if len(codes) < len(column.categories):
        used, indices = np.unique(codes, return_inverse=True)
        if len(used) and used[0] < 0:  # a missing value
            used = used[1:]
            indices = indices - 1
        return _compact(indices, len(used)), column.categories[used].tolist()
    is_used = np.zeros(len(column.categories) + 1, dtype=bool)
    is_used[codes] = True  # the last entry by code -1, a missing value
    is_used = is_used[:-1]
    if is_used.all():
        return codes, column.categories.tolist()
    # The last entry is selected by code -1, a missing value.
    new_indices = _compact(np.append(is_used.cumsum() - 1, -1), is_used.sum())
    return new_indices[codes], column.categories[is_used].tolist()


def _factorize_polars(column):
    name = str(column.dtype)
    if name == "Object":
        return _factorize_objects(column)
    if column.dtype.is_nested():
        raise TypeError(f"its dtype is {name}, which is nested")
    if name.startswith(("Categorical", "Enum")):
        import polars as pl  # installed, since the column is a polars Series

        column = column.cast(pl.String)
    elif column.dtype.is_float():
        column = column.fill_nan(None)
    if len(column) <= FEW_ROWS:
        return _factorize_objects(column.to_list())
    # Without `sort`, the order of the values would be random.
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
    # Objects of mixed types cannot be sorted, but they can be keys of a dict.
    index_of = {}
    indices = np.fromiter(
        (
            -1
            if _frames.is_missing(value)
            else index_of.setdefault(value, len(index_of))
            for value in column
        ),
        dtype=np.int64,
        count=len(column),
    )
    # Scalars of numpy are not comparable with a Decimal.
    values = [v.item() if isinstance(v, np.number) else v for v in index_of]
    return _compact(indices, len(index_of)), values

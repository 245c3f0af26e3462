"""Growth of a fitted encoder: codes of its own for category values of further rows."""

import copy

import numpy as np

from sk_pwiser._table._categories import FIRST_VALUE, CategoryColumn, sort_values


def grow_encoder(encoder, X):
    """Return an encoder that also has codes for the frequent new values of a table.

    A value is new if it has no embedding: it did not occur in fit, or was rare. It gets
    one if it occurs in `min_frequency` rows of `X` or more. Codes that have an
    embedding stay. Columns with `max_categories` or `n_hash_buckets` do not grow.

    Parameters
    ----------
    encoder : TableEncoder
        The fitted encoder, which is not changed.
    X : {DataFrame, array-like} of shape (n_samples, n_features)
        The table.

    Returns
    -------
    grown : TableEncoder
        The new encoder.
    origins : list of int64 ndarray of shape (n_codes,)
        One array per category column: the code that each code had before, -1 for new
        values.

    Raises
    ------
    ValueError or TypeError
        If columns differ from those seen in fit, or cannot be encoded.
    """
    grown = copy.copy(encoder)
    grown.columns_ = list(encoder.columns_)
    origins = []
    columns = dict(encoder.category_columns(X))
    for index, column in enumerate(encoder.columns_):
        if isinstance(column, CategoryColumn):
            grown.columns_[index], origin = grow_column(column, columns[column])
            origins.append(origin)
    return grown, origins


def grow_column(column, data):
    """Return a category column with codes for new values, and the codes before."""
    column.transform(data)  # raises if the values are of another kind
    if column.vocabulary.max_values is not None:
        return column, np.arange(column.n_codes)
    values, counts, kinds, _ = column.count(data)
    known, limit = column.codes_, column.cardinality
    promoted, rare = [], []
    for value, n_rows in zip(values, counts, strict=True):
        if known.get(value, limit) >= limit:
            is_frequent = n_rows >= column.vocabulary.min_frequency
            (promoted if is_frequent else rare).append(value)
    promoted, old_rare = sort_values(promoted), list(known)[column.n_frequent_ :]
    frequent = [*list(known)[: column.n_frequent_], *promoted]
    kept = list(frequent)
    if column.keeps_rare:
        moved = set(promoted)
        kept += [value for value in old_rare if value not in moved]
        kept += sort_values([value for value in rare if value not in known])
    grown = copy.copy(column)
    grown.n_frequent_ = len(frequent)
    grown.codes_ = {value: code for code, value in enumerate(kept, FIRST_VALUE)}
    grown.kinds_ = column.kinds_ | kinds
    origin = [*range(FIRST_VALUE), *(known.get(value, -1) for value in kept)]
    return grown, np.array(origin, dtype=np.int64)

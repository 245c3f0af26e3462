"""A warning about category values that did not occur in the earlier fit."""

import numpy as np

from sk_pwiser._table._categories import UNSEEN
from sk_pwiser._utils import warn_user


def warn_about_new_values(encoder, codes, X):
    """Warn, once for all columns, about values that are encoded as unseen.

    Parameters
    ----------
    encoder : TableEncoder
        The fitted encoder.
    codes : integer ndarray of shape (n_samples, n_category_columns)
        Codes of the table, those of rare values included.
    X : {DataFrame, array-like} of shape (n_samples, n_features)
        The table.
    """
    n_samples, parts = len(codes), []
    n_unseen = [np.count_nonzero(column == UNSEEN) for column in codes.T]
    if not any(n_unseen):
        return
    for n_rows, (column, values) in zip(
        n_unseen, encoder.category_columns(X), strict=True
    ):
        if n_rows and column.missing_code_ == UNSEEN:
            # Missing values have the code of unseen ones if fit had none.
            n_known = sum(column.count(values)[1])
            n_rows -= n_samples - n_known
        if n_rows:
            share = n_rows / n_samples
            parts.append(f"{column.name!r} in {n_rows} of {n_samples} ({share:.1%})")
    if parts:
        warn_user(
            f"Rows with new category values: {', '.join(parts)}. These are encoded as "
            "unseen values; encoding_params={'grow_vocabulary': True} adds new values "
            "to the vocabulary."
        )

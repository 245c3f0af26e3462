"""Tables of another layout than in fit: columns by name, and values never seen."""

import numpy as np

from sk_pwiser._table._categories import UNSEEN
from sk_pwiser._table._dataframe import is_dataframe
from sk_pwiser._table._factorize import count_values
from sk_pwiser._utils import warn_user

# A warning about values that were not seen in fit needs this share of the rows with a
# value, this many rows, and this many distinct values ...
UNSEEN_SHARE, UNSEEN_ROWS, UNSEEN_VALUES = 0.95, 20, 2
# ... and a column in which new values are not usual: at most this share of the rows of
# fit had a value that occurred once or was rare.
USUAL_SHARE = 0.5


def align_columns(X, names):
    """Return a DataFrame with the columns of fit, in their order.

    Parameters
    ----------
    X : {DataFrame, array-like} of shape (n_samples, n_features)
        The table. Columns that were not seen in fit are ignored, with one warning.
    names : sequence of str or None
        Names of the columns in fit, if it saw any.

    Returns
    -------
    {DataFrame, array-like}
        The same object if it is not a DataFrame or if a column is missing.
    """
    if names is None or not is_dataframe(X) or has_columns(X, names):
        return X
    found, names = list(X.columns), list(names)
    if len(set(found)) < len(found) or not set(names) <= set(found):
        return X
    extra = [column for column in found if column not in set(names)]
    if extra:
        warn_user(
            f"X has {len(extra)} column(s) not seen in fit, which are ignored: "
            f"{', '.join(map(repr, extra[:5]))}{', ...' if len(extra) > 5 else ''}."
        )
    return X.select(names) if hasattr(X, "select") else X[names]


def has_columns(X, names):
    """Return whether a DataFrame has exactly some columns, in their order."""
    return names is not None and list(X.columns) == names.tolist()


def has_form(X, encoder):
    """Return whether an array of numbers has the number of columns of fit.

    Such an array needs no further validation, which takes longer than to encode a row.
    """
    return (
        type(X) is np.ndarray
        and X.dtype.kind in "fiu"
        and X.ndim == 2
        and len(X) > 0
        and X.shape[1] == encoder.n_features_in_
        and not hasattr(encoder, "feature_names_in_")
    )


def warn_about_unseen(columns):
    """Warn once about columns almost all of whose values were not seen in fit.

    Parameters
    ----------
    columns : iterable of (CategoryColumn, Codes)
        The columns and their codes.
    """
    found = [
        f"{column.name!r} ({share:.0%})"
        for column, codes in columns
        if column.usual_share_ <= USUAL_SHARE
        and (share := _unseen_share(codes)) >= UNSEEN_SHARE
    ]
    if found:
        warn_user(
            "Almost all rows have a value that was not seen in fit in "
            f"{', '.join(found)}: check the spelling, blanks and the case of the "
            "values. They count as unseen values."
        )


def _unseen_share(codes):
    """Return the share of unseen values; 0 if too few to judge."""
    is_unseen = codes.table[:-1] == UNSEEN
    if np.count_nonzero(is_unseen) < UNSEEN_VALUES:
        return 0.0
    n_rows = count_values(codes.indices, len(is_unseen))[:-1]
    total = n_rows.sum()
    return n_rows[is_unseen].sum() / total if total >= UNSEEN_ROWS else 0.0

"""Rows of a table as numbers, for any regressor of scikit-learn."""

import numpy as np
from sklearn.preprocessing import OrdinalEncoder
from sklearn.utils import check_array


class StateEncoder:
    """Codes of category columns, followed by numeric columns.

    Parameters
    ----------
    X : DataFrame or array of shape (n_samples, n_features)
        The rows whose categories are encoded. In a DataFrame, columns that are not
        numbers are categories; an array has none.

    Attributes
    ----------
    n_categories : int
        Number of category columns, which come first.
    """

    def __init__(self, X):
        names = list(X.columns) if hasattr(X, "columns") else []
        self.categories = [name for name in names if not _is_number(X[name].dtype)]
        self.numbers = [name for name in names if name not in self.categories]
        self.n_categories = len(self.categories)
        if self.categories:
            self.encoder = OrdinalEncoder(
                handle_unknown="use_encoded_value", unknown_value=np.nan
            ).fit(X[self.categories])

    def __call__(self, X):
        """Return the rows as a float array; missing and new values are NaN."""
        if not self.categories:
            return _as_floats(X)
        codes = self.encoder.transform(X[self.categories])
        if not self.numbers:
            return codes
        return np.hstack([codes, _as_floats(X[self.numbers])])


def _is_number(dtype):
    """Return whether a dtype of pandas, numpy or polars is an integer or a float."""
    kind = getattr(dtype, "kind", None)
    return dtype.is_numeric() if kind is None else kind in "iuf"


def _as_floats(X):
    return check_array(X, dtype=np.float64, ensure_all_finite="allow-nan")

"""Metadata columns of X, such as the market, and the levels that they have."""

import numpy as np
from scipy import sparse
from sklearn.preprocessing import OrdinalEncoder


def split_columns(X, group_modes):
    """Return the metadata columns as objects, and the other columns of X.

    Parameters
    ----------
    X : DataFrame, array-like or sparse matrix of shape (n_samples, n_features)
        Metadata and features.
    group_modes : sequence of str or int
        Names of columns of a DataFrame, or positions.

    Returns
    -------
    levels : ndarray of object of shape (n_samples, n_group_modes)
        The metadata.
    features : of the type of X, or an array
        The other columns.

    Raises
    ------
    ValueError
        If a column is missing or named twice.
    """
    if not group_modes:
        return None, X
    if not (sparse.issparse(X) or hasattr(X, "columns")):
        X = np.asarray(X)
        if X.ndim != 2:
            raise ValueError(f"Expected 2D array, got {X.ndim}D array instead.")
    positions = [find_column(X, mode) for mode in group_modes]
    if len(set(positions)) < len(positions):
        raise ValueError(f"group_modes must be distinct columns; got {group_modes}.")
    others = np.setdiff1d(np.arange(X.shape[1]), positions)
    if hasattr(X, "columns"):
        names = list(X.columns)
        columns = [np.asarray(X[names[j]], dtype=object) for j in positions]
        return np.column_stack(columns), X[[names[j] for j in others]]
    if sparse.issparse(X):
        X = X.tocsc()
        return X[:, positions].toarray().astype(object), X[:, others]
    return X[:, positions].astype(object), X[:, others]


def find_column(X, mode):
    """Return the position of a column given by name or position."""
    if isinstance(mode, str):
        if not hasattr(X, "columns"):
            raise ValueError(
                f"group_modes names the column {mode!r}, but X has no column names. "
                "Pass a DataFrame, or the position of the column."
            )
        names = [str(name) for name in X.columns]
        if mode not in names:
            raise ValueError(
                f"group_modes names the column {mode!r}, which X does not have; its "
                f"columns are {names[:20]}."
            )
        return names.index(mode)
    if not -X.shape[1] <= mode < X.shape[1]:
        raise ValueError(
            f"group_modes has the position {mode}, but X has {X.shape[1]} columns."
        )
    return int(mode) % X.shape[1]


class GroupModes:
    """Codes of the levels of metadata columns; -1 for unseen and missing ones.

    Parameters
    ----------
    names : sequence of str or int
        The columns.
    """

    def __init__(self, names):
        self.names = list(names)
        self._encoder = OrdinalEncoder(
            dtype=np.int64, handle_unknown="use_encoded_value", unknown_value=-1
        )

    def fit(self, levels):
        """Learn the levels.

        Raises
        ------
        ValueError
            If a column has missing values or one level only.
        """
        if not self.names:
            return self
        for name, column in zip(self.names, levels.T, strict=True):
            # A missing value differs from itself, or is None or pandas.NA.
            n_missing = sum(v is None or (v == v) is not True for v in column.tolist())
            if n_missing:
                raise ValueError(
                    f"The column {name!r} of group_modes has {n_missing} missing "
                    "values."
                )
            if len(set(column)) < 2:
                raise ValueError(
                    f"The column {name!r} of group_modes must have two levels or more; "
                    f"it has one, {column[0]!r}."
                )
        self._encoder.fit(levels)
        return self

    @property
    def levels(self):
        """Map the columns to their levels, in the order of the codes."""
        if not self.names:
            return {}
        found = self._encoder.categories_
        return {
            name: np.array(values.tolist())
            for name, values in zip(self.names, found, strict=True)
        }

    def encode(self, levels, n_samples):
        """Return int codes of shape (n_samples, n_group_modes)."""
        if not self.names:
            return np.empty((n_samples, 0), dtype=np.int64)
        return self._encoder.transform(levels)

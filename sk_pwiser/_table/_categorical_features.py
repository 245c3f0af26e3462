"""The parameter `categorical_features`: which columns of a table are categories."""

from numbers import Integral

import numpy as np

from sk_pwiser._table._dataframe import has_category_dtype, list_columns


def find_category_columns(categorical_features, X, names):
    """Return a list of bools, one per column: whether it is a category column.

    Parameters
    ----------
    categorical_features : "from_dtype", array-like or None
        The estimator's parameter.
    X : DataFrame or 2-D ndarray
        The table.
    names : list of str or int
        Names of its columns.

    Raises
    ------
    ValueError
        If the parameter does not match the columns.
    """
    if categorical_features is None:
        return [False] * len(names)
    if isinstance(categorical_features, str):
        if categorical_features != "from_dtype":
            raise ValueError(
                "categorical_features must be 'from_dtype', None, or a list of names, "
                f"indices or booleans; got {categorical_features!r}."
            )
        return [has_category_dtype(column) for column in list_columns(X)]
    chosen = np.asarray(categorical_features).tolist()
    return _as_mask(chosen if isinstance(chosen, list) else [chosen], names)


def refuse_chosen_columns(categorical_features):
    """Raise if the parameter selects columns of a sparse table.

    Raises
    ------
    ValueError
        If it does.
    """
    is_default = categorical_features is None or isinstance(categorical_features, str)
    if not is_default and len(categorical_features):
        raise ValueError(
            "categorical_features must be 'from_dtype' or None if X is sparse, since "
            f"its columns are numbers; got {categorical_features!r}."
        )


def _as_mask(chosen, names):
    if chosen and all(isinstance(c, bool) for c in chosen):
        if len(chosen) != len(names):
            raise ValueError(
                "categorical_features as a mask must have one entry per column of X, "
                f"{len(names)}; it has {len(chosen)}."
            )
        return chosen
    mask = [False] * len(names)
    for column in chosen:
        mask[_index(column, names)] = True
    return mask


def _index(column, names):
    if isinstance(column, str):
        if column not in names:
            raise ValueError(
                f"categorical_features contains {column!r}, which is not a column of "
                f"X; its columns are {names}."
            )
        return names.index(column)
    if not isinstance(column, Integral) or not -len(names) <= column < len(names):
        raise ValueError(
            f"categorical_features contains {column!r}, which is neither a name nor an "
            f"index of the {len(names)} columns of X."
        )
    return int(column)

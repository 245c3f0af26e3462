"""The number of rows of a table, and their groups."""

from collections.abc import Hashable
from reprlib import repr as short_repr

import numpy as np

from sk_pwiser._labels import refuse_unreadable
from sk_pwiser._table._factorize import factorize


def n_rows(X):
    """Return the number of rows of a table, before it is validated or encoded.

    Parameters
    ----------
    X : DataFrame, array-like or sequence
        The table.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If `X` has no rows to count, for example None, a scalar or a LazyFrame.
    """
    shape = getattr(X, "shape", None)
    if shape is None and hasattr(X, "__array__"):
        shape = np.asarray(X).shape
    if shape:
        return int(shape[0])
    try:
        return len(X)
    except TypeError as error:
        raise ValueError(
            "Expected 2D array or DataFrame as X, of shape (n_samples, n_features); "
            f"got {type(X).__name__}."
        ) from error


def check_groups(groups, n_samples):
    """Return the index of each row's group, or None if there are no groups.

    Parameters
    ----------
    groups : array-like of shape (n_samples,) or None
        Group of each row: numbers, text or other hashable values.
    n_samples : int
        Number of rows.

    Returns
    -------
    int64 ndarray of shape (n_samples,) or None

    Raises
    ------
    ValueError
        If the groups have another shape or are missing in a row.
    TypeError
        If they cannot be compared, for example lists.
    """
    if groups is None:
        return None
    if not hasattr(groups, "to_numpy"):
        groups = _as_array(groups)
    if groups.shape != (n_samples,):
        raise ValueError(f"groups must have shape ({n_samples},); got {groups.shape}.")
    try:
        indices, _ = factorize(groups)
    except Exception as error:
        raise TypeError(
            f"groups must contain one value per row: {error}{_first_list(groups)}."
        ) from error
    is_missing = indices < 0
    if is_missing.any():
        raise ValueError(
            f"groups must not be missing; {is_missing.sum()} are, the first in row "
            f"{is_missing.argmax()}."
        )
    return indices.astype(np.int64)


def _as_array(groups):
    refuse_unreadable(groups, "groups")
    try:
        return np.asarray(groups)
    except ValueError as error:
        rows = groups if isinstance(groups, list | tuple) else ()
        raise ValueError(
            f"groups must contain one value per row: {error}{_first_list(rows)}"
        ) from error


def _first_list(groups):
    """Describe the first group that is a list or something like it."""
    for row, value in enumerate(groups):
        if not isinstance(value, Hashable):
            value = getattr(value, "to_list", lambda value=value: value)()
            return f"; row {row} contains {short_repr(value)}"
    return ""

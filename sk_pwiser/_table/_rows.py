"""The number of rows of a table, and their groups."""

import numpy as np

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
    except (TypeError, ValueError, NotImplementedError) as error:
        raise TypeError(f"groups must contain one value per row: {error}.") from error
    is_missing = indices < 0
    if is_missing.any():
        raise ValueError(
            f"groups must not be missing; {is_missing.sum()} are, the first in row "
            f"{is_missing.argmax()}."
        )
    return indices.astype(np.int64)


def _as_array(groups):
    try:
        return np.asarray(groups)
    except ValueError as error:
        raise ValueError(f"groups must contain one value per row: {error}") from error

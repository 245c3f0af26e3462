"""The groups of rows: checked, and as numbers."""

from collections.abc import Hashable
from reprlib import repr as short_repr

import numpy as np

from sk_pwiser._columns._factorize import factorize
from sk_pwiser._columns._frames import collected, is_polars, refuse_unreadable


def check_groups(groups, n_samples):
    """Return the index of each row's group, int64, or None if there are no groups."""
    if groups is None:
        return None
    groups = collected(groups)
    if not hasattr(groups, "iloc") and not is_polars(groups):
        refuse_unreadable(groups, "groups")
        # numpy would convert NaN beside text to text.
        is_list = isinstance(groups, list | tuple)
        groups = np.asarray(groups, dtype=object if is_list else None)
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


def number_groups(indices):
    """Renumber groups in the order of their first rows, as those of files are.

    The numbers then depend neither on the library nor on rows that follow.
    """
    _, first, inverse = np.unique(indices, return_index=True, return_inverse=True)
    return first.argsort().argsort()[inverse]


def sort_groups(groups, n_samples):
    """Return each row's group as a number, in the order of values if they have one."""
    indices = check_groups(groups, n_samples)
    if isinstance(groups, list | tuple):  # numpy would convert numbers to text
        groups = np.array([*groups, None], dtype=object)[:-1]
    try:
        return np.unique(groups, return_inverse=True)[1]
    except TypeError:  # numbers beside text
        return number_groups(indices)


def _first_list(groups):
    """Describe the first group that is not hashable, such as a list."""
    for row, value in enumerate(groups):
        if not isinstance(value, Hashable):
            value = getattr(value, "to_list", lambda value=value: value)()
            return f"; row {row} contains {short_repr(value)}"
    return ""

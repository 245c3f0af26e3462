"""Splits that keep the share of every funnel depth.

A funnel with a conversion rate of one in ten thousand leaves folds without any
conversion when it is split at random. :class:`FunnelStratifiedKFold` stratifies on
how far each impression went, :func:`funnel_depth`.
"""

import math
import warnings

import numpy as np
from sklearn.model_selection import StratifiedKFold
from sklearn.utils import check_array, check_random_state
from sklearn.utils.random import sample_without_replacement

__all__ = ["FunnelStratifiedKFold", "funnel_depth", "funnel_holdout"]


def funnel_depth(Y):
    """Count the leading tasks that are 1 in every row.

    Parameters
    ----------
    Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
        Labels, 0 or 1; the tasks in funnel order, the click first.

    Returns
    -------
    depth : ndarray of int of shape (n_samples,)
        From 0 (the first task did not happen) to ``n_tasks`` (all the way). A label
        behind a 0 does not count, so a conversion without a click has depth 0.

    Raises
    ------
    ValueError
        If ``Y`` is neither 1-D nor 2-D, or holds anything but 0 and 1.

    Examples
    --------
    >>> from sk_pwiser.model_selection import funnel_depth
    >>> funnel_depth([[0, 0], [1, 0], [1, 1], [0, 1]]).tolist()
    [0, 1, 2, 0]
    """
    return _depth(Y, input_name="Y")


class FunnelStratifiedKFold(StratifiedKFold):
    """Stratified K-fold over the funnel depth of a multi-task ``y``.

    Every fold receives the same share of rows of each depth (see
    :func:`funnel_depth`) as the whole, as nearly as whole rows allow.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.

    shuffle : bool, default=True
        Whether to shuffle the rows of each depth before they are dealt to the
        folds. Logs are ordered by time or by user, hence the default, which
        differs from that of :class:`~sklearn.model_selection.StratifiedKFold`.

    random_state : int, RandomState instance or None, default=None
        Seeds the shuffling; an int gives the same folds at every call. Must be
        None when ``shuffle=False``.

    See Also
    --------
    sklearn.model_selection.StratifiedKFold : The same over the classes of a 1-D ``y``.

    Notes
    -----
    A depth with fewer rows than folds cannot be in every fold. It is stratified
    together with the next shallower depth that has rows (the shallowest one with the
    next deeper), and one ``UserWarning`` names it and its number of rows.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_pwiser.model_selection import FunnelStratifiedKFold
    >>> Y = np.array([[0, 0]] * 6 + [[1, 0]] * 4 + [[1, 1]] * 2)
    >>> X = np.zeros((12, 1))
    >>> cv = FunnelStratifiedKFold(n_splits=2, random_state=0)
    >>> for train, test in cv.split(X, Y):
    ...     print(Y[test].sum(axis=0).tolist())
    [3, 1]
    [3, 1]
    """

    def __init__(self, n_splits=5, *, shuffle=True, random_state=None):
        super().__init__(n_splits=n_splits, shuffle=shuffle, random_state=random_state)

    def split(self, X, y, groups=None):
        """Generate the row indices of every training and test set.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Only its length is read; ``np.zeros(n_samples)`` will do.

        y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            Labels, 0 or 1; the tasks in funnel order.

        groups : object, default=None
            Ignored; here for compatibility.

        Returns
        -------
        splits : iterator of (ndarray, ndarray)
            Training and test indices, ``n_splits`` pairs.

        Raises
        ------
        ValueError
            If ``y`` holds anything but 0 and 1, if its length differs from that of
            ``X``, or if there are fewer rows than folds.
        """
        # Not a generator itself, so that a bad y is refused at the call.
        depth = _depth(y, input_name="y")
        strata, rare = _merge_rare(depth, min_rows=self.n_splits)
        # With fewer rows than folds the parent class raises: no warning before it.
        if rare and len(depth) >= self.n_splits:
            counts = ", ".join(f"depth {d} ({n} rows)" for d, n in rare)
            warnings.warn(
                f"Fewer rows than n_splits={self.n_splits} in {counts}: too few to be "
                "in every fold, so stratified together with a neighbouring depth.",
                UserWarning,
                stacklevel=2,
            )
        return super().split(X, strata, groups)


def funnel_holdout(Y, *, test_size, random_state):
    """Split once by funnel depth into sorted training and validation indices.

    Unlike ``StratifiedShuffleSplit`` it neither raises nor warns on rare depths, and
    it makes no Python list of all rows. Each depth gives its share of the validation
    rows, rounded by largest remainder; a depth of a single row joins its neighbour.

    Parameters
    ----------
    Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
        Labels, 0 or 1.
    test_size : float
        Fraction of validation rows in (0, 1), rounded up; at least one row stays on
        each side.
    random_state : int, RandomState instance or None
        Seeds the choice.

    Returns
    -------
    train, valid : ndarray of int
        Sorted row indices.

    Raises
    ------
    ValueError
        If ``test_size`` is outside (0, 1), or ``Y`` has fewer than two rows.
    """
    if not 0.0 < test_size < 1.0:
        raise ValueError(f"test_size must be in (0, 1), got {test_size!r}.")
    strata, _ = _merge_rare(_depth(Y, input_name="Y"), min_rows=2)
    n_samples = len(strata)
    if n_samples < 2:
        raise ValueError(
            f"Y must have at least 2 rows to hold some out, got {n_samples}."
        )
    rng = check_random_state(random_state)
    n_valid = min(math.ceil(test_size * n_samples), n_samples - 1)
    is_valid = np.zeros(n_samples, dtype=bool)
    for stratum, n_rows in enumerate(_largest_remainder(np.bincount(strata), n_valid)):
        rows = np.flatnonzero(strata == stratum)
        chosen = sample_without_replacement(len(rows), n_rows, random_state=rng)
        is_valid[rows[chosen]] = True
    return np.flatnonzero(~is_valid), np.flatnonzero(is_valid)


def _largest_remainder(counts, total):
    """Share out ``total`` over groups in proportion to their ``counts``.

    No group receives more than it has, as long as ``total <= counts.sum()``.
    """
    # In whole numbers, so that equal remainders are seen to be equal.
    shares, remainders = np.divmod(counts * total, counts.sum())
    left = total - shares.sum()
    # A tie goes to the deeper group, which is the rarer one.
    winners = np.lexsort((np.arange(len(counts)), remainders))[::-1][:left]
    shares[winners] += 1
    return shares


def _merge_rare(depth, *, min_rows):
    """Return strata of rows: the depths, those under ``min_rows`` rows joined.

    Returns
    -------
    strata : ndarray of int of shape (n_samples,)
        0, 1, ... from the shallowest stratum on, without gaps.
    rare : list of (int, int)
        Depths, with their number of rows, that had too few.
    """
    counts = np.bincount(depth)
    groups = [[d] for d in np.flatnonzero(counts).tolist()]
    rare = [(d, int(counts[d])) for [d] in groups if counts[d] < min_rows]

    def is_rare(group):
        return counts[group].sum() < min_rows

    for i in range(len(groups) - 1, 0, -1):
        if is_rare(groups[i]):
            groups[i - 1] += groups.pop(i)
    if len(groups) > 1 and is_rare(groups[0]):
        groups[0] += groups.pop(1)

    # A narrow type: sorting and comparing 10^8 rows is several times faster.
    stratum_of = np.zeros(len(counts), dtype=np.min_scalar_type(len(groups)))
    for stratum, group in enumerate(groups):
        stratum_of[group] = stratum
    return stratum_of[depth], rare


def _depth(Y, *, input_name):
    """Check that ``Y`` holds 0 and 1 only, and return each row's funnel depth."""
    if Y is None:
        raise ValueError(f"{input_name} must hold the labels, got None.")
    names = getattr(Y, "columns", None)
    labels = check_array(Y, ensure_2d=False, input_name=input_name)
    labels = labels.reshape(len(labels), -1)
    # One pass a column: a cumulative product along short rows is far slower.
    depth = np.zeros(len(labels), dtype=np.intp)
    reached = np.ones(len(labels), dtype=bool)
    for k in range(labels.shape[1]):
        happened = labels[:, k] == 1
        other = ~happened & (labels[:, k] != 0)
        if other.any():
            name = k if names is None else repr(names[k])
            raise ValueError(
                f"{input_name} must hold 0 and 1 only, but column {name} has "
                f"{labels[other.argmax(), k].item()!r}."
            )
        reached &= happened
        depth += reached
    return depth

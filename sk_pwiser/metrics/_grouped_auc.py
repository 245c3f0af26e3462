"""The AUC within groups of rows, such as all impressions of a user."""

import warnings

import numpy as np
from scipy.stats import rankdata
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils import check_consistent_length, column_or_1d


def grouped_auc(y_true, y_score, groups, *, return_share=False):
    """Compute the mean ROC AUC within groups, weighted by the sizes of the groups.

    Impressions are usually ranked within a user, a page or an auction, where it does
    not help to distinguish users. Groups with only one class have no AUC and are left
    out.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Labels, 0 or 1.
    y_score : array-like of shape (n_samples,)
        Predicted scores: probabilities or logits.
    groups : array-like of shape (n_samples,)
        Group of each row.
    return_share : bool, default=False
        Whether to also return the share of rows in groups with both classes. If it is
        small, the AUC only describes a few, untypical groups.

    Returns
    -------
    auc : float
        The mean AUC. NaN, with an ``UndefinedMetricWarning``, if no group has both
        classes.
    share : float
        Share of rows in groups with both classes, in [0, 1]. Only returned if
        ``return_share=True``.

    Raises
    ------
    ValueError
        If the lengths differ, if a label is neither 0 nor 1, if a score is NaN, or if a
        group is missing.

    See Also
    --------
    make_task_scorer : Makes scorers of metrics without groups. For this metric, write a
        function of estimator, ``X`` and ``Y`` that reads the groups from a column of
        ``X``.

    References
    ----------
    Zhu et al. (2017). "Optimized cost per click in Taobao display advertising." KDD.
    :doi:`10.1145/3097983.3098134`

    Examples
    --------
    >>> from sk_pwiser.metrics import grouped_auc
    >>> y, score = [0, 1, 0, 1, 0, 0], [0.1, 0.2, 0.9, 0.8, 0.3, 0.4]
    >>> grouped_auc(y, score, ["a", "a", "b", "b", "c", "c"], return_share=True)
    (0.5, 0.6666666666666666)
    """
    y, score, codes = _check(y_true, y_score, groups)
    # Ranks over all rows have the same order and ties within each group as the scores.
    ranks = rankdata(score, method="dense")
    order = np.lexsort([ranks, codes])
    codes, ranks, y = codes[order], ranks[order], y[order]
    # Rows of a group with equal scores are consecutive, and share their mean position.
    starts = np.flatnonzero(np.r_[True, (np.diff(codes) != 0) | (np.diff(ranks) != 0)])
    lengths = np.diff(np.r_[starts, len(codes)])
    position = np.repeat(starts + (lengths - 1) / 2, lengths)
    size = np.bincount(codes)
    first = np.cumsum(size) - size
    positives = np.bincount(codes, weights=y)
    # The Mann-Whitney statistic, with positions in the group counted from 0.
    total = np.bincount(codes, weights=y * (position - first[codes]))
    total -= positives * (positives - 1) / 2
    mixed = (positives > 0) & (positives < size)
    share = float(size[mixed].sum() / size.sum())
    if mixed.any():
        aucs = total[mixed] / (positives * (size - positives))[mixed]
        auc = float(np.average(aucs, weights=size[mixed]))
    else:
        auc = np.nan
        warnings.warn(
            "grouped_auc is undefined and set to nan: no group has both classes.",
            UndefinedMetricWarning,
            stacklevel=2,
        )
    return (auc, share) if return_share else auc


def _check(y_true, y_score, groups):
    """Return labels, scores and the group of each row as an index."""
    y = column_or_1d(y_true, dtype=np.float64)
    score = column_or_1d(y_score, dtype=np.float64)
    groups = column_or_1d(groups)
    check_consistent_length(y, score, groups)
    if len(y) == 0:
        raise ValueError("y_true must have at least one row, got 0.")
    is_wrong = (y != 0) & (y != 1)
    if is_wrong.any():
        raise ValueError(f"y_true must be 0 or 1, got {y[is_wrong.argmax()]:g}.")
    if np.isnan(score).any():
        raise ValueError(f"y_score must not be NaN; row {np.isnan(score).argmax()} is.")
    is_missing = np.array([g is None or g != g for g in groups.tolist()], dtype=bool)
    if is_missing.any():
        raise ValueError(f"groups must not be missing; row {is_missing.argmax()} is.")
    return y, score, np.unique(groups, return_inverse=True)[1]

"""Figures of predicted probabilities: AUC, log loss, calibration error, grouped AUC.

The labels of the functions may also be true probabilities in [0, 1]. AUC and log loss
are then expectations over the labels that each row could have had.
"""

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

N_BINS = 20


def auc(y, p, weights=None):
    """Return the ROC AUC; NaN if there is one class only."""
    weights = np.ones(len(y)) if weights is None else weights
    labels = np.repeat([1, 0], len(y))
    both = np.concatenate([weights * y, weights * (1 - y)])
    if both[labels == 1].sum() == 0 or both[labels == 0].sum() == 0:
        return np.nan
    present = both > 0
    return roc_auc_score(
        labels[present], np.tile(p, 2)[present], sample_weight=both[present]
    )


def binary_log_loss(y, p):
    """Return the mean cross-entropy."""
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return -np.mean(y * np.log(p) + (1 - y) * np.log1p(-p))


def expected_calibration_error(y, p, n_bins=N_BINS):
    """Return the mean distance of predictions and labels in bins of equally many rows.

    Bins of equal width would hold nearly all rows in the first one at low rates.
    """
    order = np.argsort(p, kind="stable")
    bins = np.array_split(order, min(n_bins, len(order)))
    return sum(abs(p[rows].sum() - y[rows].sum()) for rows in bins) / len(order)


def grouped_auc(y, p, groups):
    """Return the mean AUC over groups, weighted by their numbers of rows.

    Groups with one class only are left out; if none is left, the result is NaN.
    """
    codes = np.unique(groups, return_inverse=True)[1]
    # The ranks of all rows keep the order and the ties inside each group.
    ranks = rankdata(p, method="dense")
    order = np.lexsort([ranks, codes])
    codes, ranks, y = codes[order], ranks[order], np.asarray(y)[order]
    # Equal predictions of a group form a run, whose rows share their mean position.
    starts = np.flatnonzero(np.r_[True, (np.diff(codes) != 0) | (np.diff(ranks) != 0)])
    lengths = np.diff(np.r_[starts, len(codes)])
    position = np.repeat(starts + (lengths - 1) / 2, lengths)
    size = np.bincount(codes)
    first = np.cumsum(size) - size
    positives = np.bincount(codes, weights=y)
    negatives = size - positives
    # Mann-Whitney: positions inside the group, counted from 0.
    total = np.bincount(codes, weights=y * (position - first[codes]))
    total -= positives * (positives - 1) / 2
    mixed = (positives > 0) & (negatives > 0)
    if not mixed.any():
        return np.nan
    aucs = total[mixed] / (positives[mixed] * negatives[mixed])
    return np.average(aucs, weights=size[mixed])


def funnel_figures(y, p, cvr, users=None):
    """Return the figures of the first task (CTR), the last (CTCVR), and CVR.

    Parameters
    ----------
    y : ndarray of shape (n_samples, n_tasks)
        Labels, or their true probabilities.
    p : ndarray of shape (n_samples, n_tasks)
        Predicted probabilities.
    cvr : ndarray of shape (n_samples,)
        Predicted probability of the last task among rows of the first task.
    users : ndarray of shape (n_samples,), default=None
        Groups of the grouped AUC, which is NaN without them.

    Returns
    -------
    dict
    """
    y, p = np.asarray(y, dtype=float), np.asarray(p, dtype=float)
    clicks, deepest = y[:, 0], y[:, -1]
    clicked = clicks > 0
    among_clicks = deepest[clicked] / clicks[clicked]
    heads = {"ctr": (clicks, p[:, 0]), "ctcvr": (deepest, p[:, -1])}
    figures = {f"{head}_auc": auc(*pair) for head, pair in heads.items()}
    figures["cvr_auc"] = auc(among_clicks, cvr[clicked], clicks[clicked])
    figures["mean_auc"] = np.mean([auc(*pair) for pair in zip(y.T, p.T, strict=True)])
    for head, pair in heads.items():
        figures[f"{head}_log_loss"] = binary_log_loss(*pair)
        figures[f"{head}_ece"] = expected_calibration_error(*pair)
        by_user = np.nan if users is None else grouped_auc(*pair, users)
        figures[f"{head}_grouped_auc"] = by_user
    return figures

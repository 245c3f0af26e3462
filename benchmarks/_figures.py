"""Figures of predicted probabilities: AUC, log loss, calibration error, grouped AUC.

The labels, but for those of the grouped AUC, may also be true probabilities in [0, 1].
AUC and log loss
are then expectations over the labels that each row could have had.
"""

import numpy as np
from sklearn.metrics import roc_auc_score

from sk_pwiser.metrics import expected_calibration_error, grouped_auc


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

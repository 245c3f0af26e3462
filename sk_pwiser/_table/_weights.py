"""Weights of the rows and tasks, in which a label that takes no part has weight 0."""

import numpy as np

from sk_pwiser._labels import check_weights
from sk_pwiser._utils import warn_user


def combine_weights(targets, sample_weight, *, is_part=False):
    """Check weights, and give the missing labels the weight 0.

    Parameters
    ----------
    targets : Targets
        The labels.
    sample_weight : array-like of shape (n_samples,) or (n_samples, n_tasks), or None
        Weights >= 0.
    is_part : bool, default=False
        Whether there are further rows, so that the weights of these may all be 0.

    Returns
    -------
    targets : Targets
        The labels, of which those with a weight of 0 for a task after the first are
        missing. Weights below 1e-38 times the largest one count as 0, with a warning:
        float32 does not represent both.
    weights : float64 ndarray of shape (n_samples,) or (n_samples, n_tasks), or None
        The weights; one per row and task if labels are missing.

    Raises
    ------
    ValueError
        If the weights are invalid, or are 0 for every label.
    """
    weights = None
    if sample_weight is not None:
        weights = check_weights(
            sample_weight, *targets.values.shape, targets.task_names
        )
        if not is_part and not weights.any():
            raise ValueError("sample_weight must not be zero for every row.")
        weights = _without_smallest(weights)
        if weights.ndim == 2:
            targets = targets.without(weights == 0)
    if targets.missing is not None:
        known = (~targets.missing).astype(np.float64)
        weights = known if weights is None else known * _per_task(weights)
        if not is_part and not weights.any():
            raise ValueError("sample_weight must not be zero for every known label.")
    return targets, weights


def scale_weights(weights):
    """Scale weights so that those above 0 have a mean of 1.

    Parameters
    ----------
    weights : float64 ndarray of shape (n_samples,) or (n_samples, n_tasks)
        Weights, at least one of them above 0.

    Returns
    -------
    float32 ndarray of shape (n_samples,) or (n_samples, n_tasks), or None
        1-D if the weights of each row are equal for all tasks, and None if all weights
        are equal, for the result without weights, to the bit.
    """
    if weights.ndim == 2 and (weights == weights[:, :1]).all():
        weights = weights[:, 0]
    weights = weights / weights.max()  # the sum of very large weights would overflow
    positive = weights > 0
    weights = weights / weights.mean(where=positive)
    if (weights[positive] == weights[positive][0]).all():
        weights = positive
        if positive.all():
            return None
    return weights.astype(np.float32)


def row_weights(weights):
    """Return one weight per row: the largest of its tasks; None if all are equal.

    Columns are encoded by these: a missing label does not change the encoding.
    """
    if weights is None or weights.ndim == 1:
        return weights
    largest = weights.max(axis=1)
    return None if (largest == largest[0]).all() else largest


def _without_smallest(weights):
    """Replace weights by 0 that float32 cannot represent beside the largest one."""
    largest = weights.max()
    is_lost = (weights > 0) & (weights / largest < np.finfo(np.float32).tiny)
    if not is_lost.any():
        return weights
    row, *_ = np.argwhere(weights == largest)[0]
    warn_user(
        f"sample_weight is {largest:g} in row {row}, more than 1e37 times as much as "
        f"{is_lost.sum()} of the other weights above 0, which count as 0."
    )
    return np.where(is_lost, 0.0, weights)


def _per_task(weights):
    return weights[:, np.newaxis] if weights.ndim == 1 else weights

"""Weights of the rows and tasks, in which a label that takes no part has weight 0."""

import numpy as np

from sk_pwiser._labels import check_weights


def combine_weights(targets, sample_weight):
    """Check weights, and give the missing labels the weight 0.

    Parameters
    ----------
    targets : Targets
        The labels.
    sample_weight : array-like of shape (n_samples,) or (n_samples, n_tasks), or None
        Weights >= 0.

    Returns
    -------
    targets : Targets
        The labels, of which those with a weight of 0 for a task after the first are
        missing.
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
        if not weights.any():
            raise ValueError("sample_weight must not be zero for every row.")
        if weights.ndim == 2:
            targets = targets.without(weights == 0)
    if targets.missing is not None:
        known = (~targets.missing).astype(np.float64)
        weights = known if weights is None else known * _per_task(weights)
        if not weights.any():
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


def _per_task(weights):
    return weights[:, np.newaxis] if weights.ndim == 1 else weights

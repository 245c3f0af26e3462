"""Base rates of the tasks, where the output biases of a network start."""

import numpy as np


def base_rates(y, weights=None):
    """Return each task's rate of ones, above 0 and below the rate of the task before.

    Half a row is added to the ones and to the zeros, both of all rows and of the rows
    where the task before happened.

    Parameters
    ----------
    y : ndarray of shape (n_samples, n_tasks)
        Labels, 0 or 1.
    weights : ndarray of shape (n_samples,) or (n_samples, n_tasks), default=None
        Weights. Of weights per task, 0 stands for a missing label, which takes no part
        in the rate of its task, or of the next task among the rows where it happened.

    Returns
    -------
    float64 ndarray of shape (n_tasks,)
    """
    rates, rate = [], 1.0
    for ones, before, total in _counts(y, weights):
        # Labels that break the funnel may have more ones in a later task.
        if ones > before:
            before, rate = total, 1.0
        rate *= (ones + 0.5) / (before + 1.0)
        rates.append(rate)
    return np.array(rates)


def _counts(y, weights):
    """Yield per task its ones, the rows where the task before happened, all rows."""
    n_samples, n_tasks = y.shape
    if weights is None or weights.ndim == 1:
        if weights is None:
            total, ones = float(n_samples), y.sum(axis=0, dtype=np.float64)
        else:
            total, ones = weights.sum(dtype=np.float64), weights.astype(float) @ y
        yield from zip(ones, [total, *ones[:-1]], [total] * n_tasks, strict=True)
        return
    for k in range(n_tasks):
        w = weights[:, k].astype(np.float64)
        if k > 1:  # the label of the first task is always known
            w *= weights[:, k - 1] > 0
        before = w @ y[:, k - 1] if k else w.sum()
        yield w @ y[:, k], before, w.sum()

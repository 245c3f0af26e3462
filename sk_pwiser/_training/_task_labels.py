"""The labels and weights that rates of the tasks are taken of."""

import numpy as np
import torch

from sk_pwiser._utils import conditional_labels


def task_labels(
    y: np.ndarray, weights: np.ndarray | None, *, conditional: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels that each task's rates are taken of, and their weights.

    Parameters
    ----------
    y : float32 ndarray of shape (n_samples, n_tasks)
        Labels, or probabilities in their place.
    weights : float32 ndarray of shape (n_samples,) or (n_samples, n_tasks), or None
        Weights of the rows.
    conditional : bool
        Whether the rate of a task is that among the rows where the task before
        happened.

    Returns
    -------
    y, weights : float32 ndarray of shape (n_samples, n_tasks)
    """
    task_weights = np.ones_like(y)
    if conditional:
        task_weights[:, 1:] = y[:, :-1]
        y = conditional_labels(torch.from_numpy(y)).numpy()
    if weights is not None:
        task_weights *= weights.reshape(len(y), -1)
    return y, task_weights

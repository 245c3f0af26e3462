"""Weights of the rows, or of the rows and tasks."""

import numpy as np

from sk_pwiser._labels._arrays import read_array
from sk_pwiser._labels._reading import names_of_columns


def check_weights(sample_weight, n_samples, n_tasks=1, task_names=None):
    """Return weights as an array.

    Parameters
    ----------
    sample_weight : array-like of shape (n_samples,) or (n_samples, n_tasks)
        Weights >= 0 of the rows, or of the rows and tasks.
    n_samples : int
        Number of rows.
    n_tasks : int, default=1
        Number of tasks.
    task_names : sequence of str, default=None
        Names of the tasks, in messages and for the order of a DataFrame's columns.

    Returns
    -------
    float64 ndarray of shape (n_samples,) or (n_samples, n_tasks)
        1-D also if the weights of each row are equal for all tasks.

    Raises
    ------
    ValueError
        If the weights are not numbers, have another shape, are negative or not finite,
        or have the names of the tasks in another order. The message contains row and
        column.
    TypeError
        If the weights are a tensor that numpy cannot read.
    """
    if getattr(getattr(sample_weight, "dtype", None), "kind", "") in ("m", "M"):
        raise ValueError(
            "sample_weight must contain one finite number per row; its dtype is "
            f"{sample_weight.dtype}."
        )
    weights = read_array(
        sample_weight,
        "sample_weight",
        "must contain one finite number per row.",
        dtype=np.float64,
        error=ValueError,
    )
    if weights.shape not in ((n_samples,), (n_samples, n_tasks)):
        allowed = f"({n_samples},)"
        if n_tasks > 1:
            allowed += f", or ({n_samples}, {n_tasks}) for weights per task"
        raise ValueError(
            f"sample_weight must have shape {allowed}; got {weights.shape}."
        )
    if weights.ndim == 2:
        _check_order(names_of_columns(sample_weight), task_names)
    for rule, is_wrong in (
        ("contain one finite number per row", ~np.isfinite(weights)),
        ("be >= 0", weights < 0),
    ):
        if is_wrong.any():
            row, *column = np.argwhere(is_wrong)[0].tolist()
            value = weights[row, *column]
            where = f"row {row}"
            if column:
                name = column[0] if task_names is None else task_names[column[0]]
                where += f" for task {name!r}"
            raise ValueError(f"sample_weight must {rule}; it is {value} in {where}.")
    if weights.ndim == 2 and (weights == weights[:, :1]).all():
        return weights[:, 0]
    return weights


def _check_order(columns, task_names):
    """Raise if the columns are the tasks in another order."""
    if columns is None or task_names is None:
        return
    expected = [str(name) for name in task_names]
    if columns != expected and sorted(columns) == sorted(expected):
        raise ValueError(
            f"The columns of sample_weight must be in the order of the tasks, "
            f"{expected}; got {columns}."
        )

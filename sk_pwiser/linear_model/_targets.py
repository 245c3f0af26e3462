"""Labels and values of the tasks, in one array of floats."""

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import _check_sample_weight

TASK_TYPES = ("binary", "regression")


@dataclass(frozen=True)
class Targets:
    """What the tasks shall predict.

    Parameters
    ----------
    values : float64 ndarray of shape (n_samples, n_tasks)
        0 or 1 for binary tasks; NaN where a task has no label.
    is_binary : bool ndarray of shape (n_tasks,)
        Which tasks are binary.
    classes : ndarray of shape (n_binary_tasks, 2) or (2,), or None
        The labels of the binary tasks; 1-D for a single task, None without any.
    task_names : list of str
        Names of the tasks.
    is_single : bool
        Whether there is one task only, whose predictions are 1-D.
    """

    values: np.ndarray
    is_binary: np.ndarray
    classes: np.ndarray | None
    task_names: list
    is_single: bool


def check_targets(y, task_types="binary"):
    """Check labels and values, and return them as :class:`Targets`.

    Parameters
    ----------
    y : array-like of shape (n_samples, n_tasks) or (n_samples,)
        Labels 0 and 1 or values, NaN where one of several tasks has no label.
    task_types : str or sequence of str, default="binary"
        "binary" or "regression", for all tasks or one per task.

    Raises
    ------
    ValueError
        If labels are not allowed, a task has none, or the numbers of tasks differ.
    """
    if y is None:
        raise ValueError(
            "This estimator requires y to be passed, but the target y is None."
        )
    names = _names_of_columns(y)
    y = check_array(
        y, ensure_2d=False, dtype=None, ensure_all_finite=False, input_name="y"
    )
    is_single = y.ndim == 1 or y.shape[1] == 1
    n_tasks = 1 if is_single else y.shape[1]
    is_binary = np.array(check_task_types(task_types, n_tasks)) == "binary"
    names = names or _default_names(n_tasks, is_binary)
    if not is_single:
        values = _several_tasks(y, is_binary, names)
        dtype = y.dtype if y.dtype.kind in "iubf" else np.dtype(int)
        classes = np.tile(np.array([0, 1]), (is_binary.sum(), 1)).astype(dtype)
        classes = classes if is_binary.any() else None
    elif is_binary[0]:
        values, classes = _single_classification(column_or_1d(y))
    else:
        y = check_array(column_or_1d(y), ensure_2d=False, dtype=float, input_name="y")
        values, classes = y[:, np.newaxis], None
    return Targets(values, is_binary, classes, names, is_single)


def check_task_types(task_types, n_tasks):
    """Return the type of each task as a list of str."""
    if isinstance(task_types, str):
        task_types = [task_types] * n_tasks
    task_types = list(task_types)
    if wrong := [t for t in task_types if t not in TASK_TYPES]:
        raise ValueError(
            f"task_types must hold 'binary' and 'regression' only; got {wrong[0]!r}."
        )
    if len(task_types) != n_tasks:
        raise ValueError(
            f"y has {n_tasks} tasks, but task_types has {len(task_types)} entries: "
            f"{task_types}."
        )
    return task_types


def check_weights(sample_weight, X, values):
    """Return weights per row and task: 0 where a task has no label.

    Raises
    ------
    ValueError
        If a weight is negative or all are zero.
    """
    weight = _check_sample_weight(sample_weight, X, dtype=float)
    if weight.min() < 0:
        raise ValueError(
            f"sample_weight must not be negative; the least weight is {weight.min()}."
        )
    if not weight.any():
        raise ValueError("sample_weight must not be zero in every row.")
    return weight[:, np.newaxis] * ~np.isnan(values)


def find_constant_tasks(targets, weights):
    """Return which binary tasks have one label only, with a warning for each.

    Raises
    ------
    ValueError
        If this is the only task.
    """
    positive = (weights * (targets.values == 1)).sum(axis=0)
    negative = (weights * (targets.values == 0)).sum(axis=0)
    is_constant = targets.is_binary & ((positive == 0) | (negative == 0))
    if targets.is_single and is_constant[0]:
        found = targets.classes[int(positive[0] > 0)]
        raise ValueError(
            "A single task needs both classes; rows with a positive weight contain "
            f"only one class: {found!r}."
        )
    for k in np.flatnonzero(is_constant):
        warnings.warn(
            f"Task {targets.task_names[k]!r} is {int(positive[k] > 0)} in every row "
            "with a label: there is nothing to learn.",
            UserWarning,
            stacklevel=2,
        )
    return is_constant


def smoothed_log_odds(targets, weights):
    """Return log-odds of the labels 1, finite by half a row more per class."""
    positive = (weights * (targets.values == 1)).sum(axis=0)
    negative = (weights * (targets.values == 0)).sum(axis=0)
    return np.log(positive + 0.5) - np.log(negative + 0.5)


def _names_of_columns(y):
    """Return the names of a DataFrame's columns or of a Series, None without any."""
    if hasattr(y, "columns"):
        return [str(name) for name in y.columns]
    name = getattr(y, "name", None)
    return None if name in (None, "") else [str(name)]


def _default_names(n_tasks, is_binary):
    if n_tasks == 2 and is_binary.all():
        return ["click", "conversion"]
    return [f"task_{k}" for k in range(n_tasks)]


def _several_tasks(y, is_binary, names):
    values = check_array(
        y, dtype=np.float64, ensure_all_finite="allow-nan", input_name="y"
    )
    has_label = ~np.isnan(values)
    for k, name in enumerate(names):
        labels = values[has_label[:, k], k]
        if len(labels) == 0:
            raise ValueError(f"Task {name!r} has no label: its column of y is all NaN.")
        wrong = labels[(labels != 0) & (labels != 1)]
        if is_binary[k] and len(wrong):
            raise ValueError(
                f"Labels of binary tasks must be 0 or 1; column {name!r} of y contains "
                f"{wrong[0]:g}."
            )
    return values


def _single_classification(labels):
    # A row without a label says nothing, so it is more likely a mistake than meant.
    check_array(
        labels, ensure_2d=False, dtype=None, ensure_all_finite=True, input_name="y"
    )
    check_classification_targets(labels)
    classes, codes = np.unique(labels, return_inverse=True)
    if len(classes) > 2:
        raise ValueError(
            "Only binary classification is supported. The type of the target is "
            f"{type_of_target(labels)}, with the labels {classes[:5].tolist()}."
        )
    if len(classes) < 2:
        raise ValueError(
            "A single task needs both classes; y contains only one class: "
            f"{classes.tolist()[0]!r}."
        )
    return codes.astype(np.float64)[:, np.newaxis], classes

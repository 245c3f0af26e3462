"""Labels and row weights: checked before training, and what they say of the tasks."""

import warnings
from dataclasses import dataclass, replace
from functools import wraps

import numpy as np
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from sk_pwiser.model_selection import funnel_depth


@dataclass
class Targets:
    """Checked labels of one or more tasks.

    Parameters
    ----------
    values : float32 ndarray of shape (n_samples, n_tasks)
        Labels, 0 or 1.
    classes : ndarray of shape (n_tasks, 2) or (2,)
        The labels as the user wrote them; 1-D for 1-D labels.
    task_names : tuple of str
        Names of the tasks.
    """

    values: np.ndarray
    classes: np.ndarray
    task_names: tuple

    def without_labels(self):
        """Return what is to be kept after training."""
        return replace(self, values=self.values[:0])

    def warn_of_oddities(self, constant_tasks=True):
        """Warn, once each, of broken funnels and of tasks with one class alone."""
        broken = int((self.values.sum(axis=1) != funnel_depth(self.values)).sum())
        if broken:
            warnings.warn(
                f"{broken} of {len(self.values)} rows break the funnel: a later task "
                "is 1 under an earlier 0. They train the tasks' own losses and join no "
                "pair.",
                UserWarning,
                stacklevel=5,
            )
        if not constant_tasks:
            return
        rates = self.values.mean(axis=0)
        for name, rate in zip(self.task_names, rates, strict=True):
            if rate in (0.0, 1.0):
                warnings.warn(
                    f"Task {name!r} is {int(rate)} in every row: its prediction is "
                    "that constant, as far as training lets it.",
                    UserWarning,
                    stacklevel=5,
                )


def check_targets(Y, task_names=None, *, default_names=None, classes=None):
    """Check labels and return them as :class:`Targets`.

    Parameters
    ----------
    Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
        Labels: 0 or 1; with one task, any two labels.
    task_names : sequence of str, default=None
        Names of the tasks; by default the columns of a DataFrame.
    default_names : sequence of str, default=None
        Names of the tasks where nothing else names them.
    classes : array-like of shape (2,), default=None
        The two labels of one task, where not both need be in `Y`.

    Raises
    ------
    ValueError
        If labels are missing, of another value or another number than `task_names`.
    """
    if Y is None:
        raise ValueError(
            "This estimator requires y to be passed, but the target y is None."
        )
    names = _names_of(Y)
    _check_known(Y)
    labels = check_array(Y, ensure_2d=False, dtype=None, input_name="Y")
    if labels.ndim == 1 or labels.shape[1] == 1:
        values, classes = _one_task(column_or_1d(labels), classes)
    else:
        values, classes = _several_tasks(labels, names)
    n_tasks = values.shape[1]
    if task_names is not None and len(task_names) != n_tasks:
        raise ValueError(
            f"Y has {n_tasks} columns, but task_names names {len(task_names)}: "
            f"{list(task_names)}."
        )
    for candidate in (task_names, names, default_names):
        if candidate is not None:
            return Targets(values, classes, tuple(map(str, candidate)))
    return Targets(values, classes, tuple(_default_names(n_tasks)))


def _names_of(Y):
    columns = getattr(Y, "columns", None)
    if columns is None:
        name = getattr(Y, "name", None)
        return None if name in (None, "") else [str(name)]
    return [str(column) for column in columns]


def _default_names(n_tasks):
    if n_tasks == 2:
        return ["click", "conversion"]
    return [f"task_{k}" for k in range(n_tasks)]


def _check_known(Y):
    """Name the first column of a DataFrame with missing labels."""
    if not hasattr(Y, "columns") or not hasattr(Y, "isna"):
        return
    for column, count in Y.isna().sum().items():
        if count:
            raise ValueError(f"Input Y contains NaN: {count} in column {column!r}.")


def _one_task(labels, classes):
    check_classification_targets(labels)
    found = np.unique(labels)
    if classes is None:
        if len(found) > 2:
            raise ValueError(
                "Only binary classification is supported. The type of the target is "
                f"{type_of_target(labels)}, with the labels {found[:5].tolist()}."
            )
        if len(found) < 2:
            raise ValueError(
                "This estimator needs both classes of its task; the data contains only "
                f"one class: {found[0]!r}."
            )
        classes = found
    classes = np.unique(classes)
    if len(classes) != 2 or not np.isin(found, classes).all():
        raise ValueError(
            "Only binary classification is supported: expected the classes "
            f"{classes.tolist()}, got the labels {found[:5].tolist()}."
        )
    return (labels == classes[1]).astype(np.float32)[:, np.newaxis], classes


def _several_tasks(labels, names):
    for k in range(labels.shape[1]):
        column = labels[:, k]
        wrong = ~np.isin(column, [0, 1])
        if wrong.any():
            raise ValueError(
                f"Labels must be 0 or 1; column {k if names is None else names[k]!r} "
                f"of Y holds {column[wrong][0]!r} in row {int(wrong.argmax())}."
            )
    dtype = np.dtype(int) if labels.dtype == object else labels.dtype
    classes = np.tile(np.array([0, 1]), (labels.shape[1], 1)).astype(dtype)
    return labels.astype(np.float32), classes


def check_row_weights(sample_weight, n_samples):
    """Return row weights of mean 1, float32 of shape (n_samples,), or None.

    Raises
    ------
    ValueError
        If they have another shape, are negative or not finite, or are all zero.
    """
    if sample_weight is None:
        return None
    weights = check_array(
        sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight"
    )
    if weights.shape != (n_samples,):
        raise ValueError(
            f"sample_weight must have shape ({n_samples},); got {weights.shape}."
        )
    if weights.min() < 0:
        raise ValueError(f"sample_weight must be >= 0; it holds {weights.min()}.")
    if not weights.any():
        raise ValueError("sample_weight must not be zero for every row.")
    return (weights / weights.mean()).astype(np.float32)


def check_groups(groups, n_samples):
    """Return a number a row for its group, int64 of shape (n_samples,), or None.

    Raises
    ------
    ValueError
        If they have another shape.
    """
    if groups is None:
        return None
    groups = column_or_1d(groups)
    if groups.shape != (n_samples,):
        raise ValueError(f"groups must have shape ({n_samples},); got {groups.shape}.")
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


def takes_lower_case_y(method):
    """Let a method with a parameter `Y` be called with `y=` as well.

    Tools around scikit-learn pass labels by that name.
    """

    @wraps(method)
    def call(self, *args, **kwargs):
        if "y" in kwargs:
            kwargs["Y"] = kwargs.pop("y")
        return method(self, *args, **kwargs)

    return call

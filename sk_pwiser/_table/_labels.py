"""Labels of the tasks: checked and converted before training."""

import sys
import warnings
from dataclasses import dataclass, replace

import numpy as np
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from sk_pwiser._table._dataframe import is_dataframe, is_missing
from sk_pwiser._table._task_names import (
    check_distinct,
    choose_task_names,
    names_of_columns,
)
from sk_pwiser.model_selection import funnel_depth

# Packages whose frames lie between the user's call and a warning.
CALLING_PACKAGES = ("sk_pwiser", "sklearn", "joblib")


@dataclass
class Targets:
    """Checked labels of one or more tasks.

    Parameters
    ----------
    values : float32 ndarray of shape (n_samples, n_tasks)
        Labels, 0 or 1.
    classes : ndarray of shape (n_tasks, 2) or (2,)
        The two labels of each task, in the user's dtype; 1-D for 1-D labels.
    task_names : tuple of str
        Names of the tasks.
    """

    values: np.ndarray
    classes: np.ndarray
    task_names: tuple

    def without_labels(self):
        """Return the classes and names alone, which are kept after training."""
        return replace(self, values=self.values[:0])

    def warn_about_labels(self, constant_tasks=True):
        """Warn about rows that break the funnel and about tasks with a single label.

        Parameters
        ----------
        constant_tasks : bool, default=True
            Whether to warn about tasks with a single label, which is usual in a small
            batch of rows.
        """
        messages = list(self._broken_funnel_messages())
        if constant_tasks:
            messages += self._constant_task_messages()
        for message in messages:
            warnings.warn(message, UserWarning, stacklevel=_stacklevel_of_user())

    def _broken_funnel_messages(self):
        n_broken = int((self.values.sum(axis=1) != funnel_depth(self.values)).sum())
        if n_broken:
            yield (
                f"{n_broken} of {len(self.values)} rows break the funnel: a later task "
                "is 1 although an earlier one is 0. These rows contribute to the loss "
                "of each task but not to the pairwise term."
            )

    def _constant_task_messages(self):
        first_row = self.values[0]
        is_constant = (self.values == first_row).all(axis=0)
        for k in np.flatnonzero(is_constant):
            yield (
                f"Task {self.task_names[k]!r} is {int(first_row[k])} in every row: the "
                "network can learn nothing but this constant."
            )


def _stacklevel_of_user():
    """Return the stack level at which the caller's warning points to user code."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None:
        if frame.f_globals.get("__name__", "").split(".")[0] not in CALLING_PACKAGES:
            break
        frame, level = frame.f_back, level + 1
    return level


def check_targets(Y, task_names=None, *, default_names=None, classes=None):
    """Check labels and return them as :class:`Targets`.

    Parameters
    ----------
    Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
        Labels: 0 or 1 for several tasks, any two labels for a single task.
    task_names : sequence of str, default=None
        Names of the tasks; by default the column names of a DataFrame.
    default_names : sequence of str, default=None
        Names of the tasks if neither `task_names` nor `Y` contains any.
    classes : array-like of shape (2,), default=None
        The two labels of a single task, needed if `Y` may contain only one of them.
        Several tasks have the labels 0 and 1.

    Returns
    -------
    Targets

    Raises
    ------
    ValueError
        If labels are missing or not allowed, if the number of `task_names` differs from
        the number of tasks, or if two tasks have the same name.
    TypeError
        If `Y` is sparse or a scalar, or if a name in `task_names` is not a string.
    """
    if Y is None:
        raise ValueError(
            "This estimator requires y to be passed, but the target y is None."
        )
    columns = names_of_columns(Y)
    check_distinct("The columns of Y", columns)
    check_distinct("task_names", task_names)
    labels = _read(Y, columns)
    if labels.ndim == 1 or labels.shape[1] == 1:
        name = 0 if columns is None else columns[0]
        values, classes = _one_task(column_or_1d(labels), classes, name)
    else:
        if classes is not None and not np.array_equal(np.unique(classes), [0, 1]):
            raise ValueError(
                "classes must be 0 and 1 for several tasks; got "
                f"{np.unique(classes).tolist()}."
            )
        values, classes = _several_tasks(labels, columns)
    names = choose_task_names(values.shape[1], task_names, columns, default_names)
    return Targets(values, classes, names)


def _read(Y, columns):
    """Return labels as an array; raise if any is missing or infinite."""
    try:
        labels = check_array(
            Y, ensure_2d=False, dtype=None, ensure_all_finite=False, input_name="Y"
        )
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"Y cannot be read as labels: {error}") from error
    if labels.dtype == object:
        missing = np.frompyfunc(is_missing, 1, 1)(labels).astype(bool)
    else:
        missing = labels != labels
    _raise_for_first(missing, columns, "NaN")
    _raise_if_infinite(labels, columns)
    return labels.astype(_original_dtype(Y, labels.dtype), copy=False)


def _raise_if_infinite(labels, columns):
    if labels.dtype.kind == "f":
        what = "infinity or a value too large for dtype('float64')"
        _raise_for_first(np.isinf(labels), columns, what)


def _raise_for_first(is_wrong, columns, what):
    """Raise for the column with the most wrong labels, if there is any."""
    if is_wrong.any():
        counts = is_wrong.reshape(len(is_wrong), -1).sum(axis=0)
        k = int(counts.argmax())
        name = k if columns is None else columns[k]
        raise ValueError(f"Input Y contains {what}: {counts[k]} in column {name!r}.")


def _original_dtype(Y, dtype):
    """Return the dtype of the user's labels: nullable integers arrive as floats."""
    dtypes = Y.dtypes if is_dataframe(Y) else [getattr(Y, "dtype", dtype)]
    plain = [getattr(one, "numpy_dtype", one) for one in dtypes]
    if all(isinstance(one, np.dtype) and one.kind in "iub" for one in plain):
        return np.result_type(*plain)
    return dtype


def _one_task(labels, classes, name):
    if labels.dtype == object:
        labels = _without_object_dtype(labels, name)
        _raise_if_infinite(labels, [name])
    try:
        check_classification_targets(labels)
    except ValueError as error:
        raise ValueError(f"{error} Found in column {name!r} of Y.") from error
    found = np.unique(labels)
    if classes is None:
        if len(found) > 2:
            raise ValueError(
                "Only binary classification is supported. The type of the target is "
                f"{type_of_target(labels)}: column {name!r} of Y contains the labels "
                f"{found[:5].tolist()}."
            )
        if len(found) < 2:
            raise ValueError(
                "This estimator needs both classes of a single task; the data contains "
                f"only one class: {found.tolist()[0]!r}, in column {name!r} of Y."
            )
        classes = found
    classes = np.unique(classes)
    if len(classes) != 2 or not np.isin(found, classes).all():
        raise ValueError(
            "Only binary classification is supported: expected the classes "
            f"{classes.tolist()}, got the labels {found[:5].tolist()} in column "
            f"{name!r} of Y."
        )
    return (labels == classes[1]).astype(np.float32)[:, np.newaxis], classes


def _without_object_dtype(labels, name):
    """Return Python objects in a dtype of numbers or dates; text is left unchanged."""
    is_text = [isinstance(label, str) for label in labels]
    if all(is_text):
        return labels
    if any(is_text):
        raise ValueError(
            f"Labels must be all text or all numbers; column {name!r} of Y contains "
            f"{labels[is_text.index(True)]!r} and {labels[is_text.index(False)]!r}."
        )
    return np.array(labels.tolist())


def _several_tasks(labels, columns):
    for k in range(labels.shape[1]):
        column = labels[:, k]
        is_wrong = ~np.isin(column, [0, 1])
        if is_wrong.any():
            row = int(is_wrong.argmax())
            name = k if columns is None else columns[k]
            raise ValueError(
                f"Labels must be 0 or 1; column {name!r} of Y contains "
                f"{column[row : row + 1].tolist()[0]!r} in row {row}."
            )
    dtype = np.dtype(int) if labels.dtype == object else labels.dtype
    classes = np.tile(np.array([0, 1]), (labels.shape[1], 1)).astype(dtype)
    return labels.astype(np.float32), classes

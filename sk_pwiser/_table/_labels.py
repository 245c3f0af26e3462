"""Labels and row weights: checked before training, and what they say of the tasks."""

import warnings
from dataclasses import dataclass, replace
from functools import wraps

import numpy as np
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from sk_pwiser._table._dataframe import factorize
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
                stacklevel=6,
            )
        if not constant_tasks:
            return
        first = self.values[0]
        constant = (self.values == first).all(axis=0)
        for name, label, is_constant in zip(
            self.task_names, first, constant, strict=True
        ):
            if is_constant:
                warnings.warn(
                    f"Task {name!r} is {int(label)} in every row: its prediction is "
                    "that constant, as far as training lets it.",
                    UserWarning,
                    stacklevel=6,
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
        If labels are missing, of another value or another number than `task_names`,
        or if two tasks have one name.
    TypeError
        If `task_names` holds anything but strings.
    """
    if Y is None:
        raise ValueError(
            "This estimator requires y to be passed, but the target y is None."
        )
    names = _names_of(Y)
    _check_names("The columns of Y", names)
    _check_names("task_names", task_names)
    labels = _read(Y, names)
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
    if _is_dataframe(Y):
        return [str(column) for column in Y.columns]
    name = getattr(Y, "name", None)
    return None if name in (None, "") else [str(name)]


def _is_dataframe(Y):
    return hasattr(Y, "columns") and hasattr(Y, "dtypes")


def _default_names(n_tasks):
    if n_tasks == 2:
        return ["click", "conversion"]
    return [f"task_{k}" for k in range(n_tasks)]


def _check_names(where, names):
    names = [] if names is None else list(names)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"{where} must be strings; got {names}.")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"{where} must differ, but {twice[0]!r} is there twice.")


def _read(Y, names):
    """Return labels as an array; refuse missing ones and name their column."""
    labels = check_array(
        Y,
        ensure_2d=False,
        dtype=None,
        ensure_all_finite="allow-nan",
        input_name="Y",
        estimator="Y",
    )
    if labels.dtype == object:
        known = np.frompyfunc(_is_known, 1, 1)(labels).astype(bool)
    else:
        known = labels == labels
    if not known.all():
        missing = (~known).reshape(len(labels), -1).sum(axis=0)
        k = int(missing.argmax())
        raise ValueError(
            f"Input Y contains NaN: {missing[k]} in column "
            f"{k if names is None else names[k]!r}."
        )
    return labels.astype(_dtype_of(Y, labels.dtype), copy=False)


def _is_known(label):
    if label is None:
        return False
    same = label == label
    # pandas.NA answers comparisons with itself.
    return isinstance(same, bool | np.bool_) and bool(same)


def _dtype_of(Y, dtype):
    """Return the dtype that labels came in: nullable ones arrive as floats."""
    dtypes = Y.dtypes if _is_dataframe(Y) else [getattr(Y, "dtype", dtype)]
    plain = [getattr(one, "numpy_dtype", one) for one in dtypes]
    if all(isinstance(one, np.dtype) and one.kind in "iub" for one in plain):
        return np.result_type(*plain)
    return dtype


def _one_task(labels, classes):
    if labels.dtype == object:
        labels = _plain(labels)
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
                f"one class: {found.tolist()[0]!r}."
            )
        classes = found
    classes = np.unique(classes)
    if len(classes) != 2 or not np.isin(found, classes).all():
        raise ValueError(
            "Only binary classification is supported: expected the classes "
            f"{classes.tolist()}, got the labels {found[:5].tolist()}."
        )
    return (labels == classes[1]).astype(np.float32)[:, np.newaxis], classes


def _plain(labels):
    """Return Python objects in a dtype of their own; text stays as it is."""
    is_text = [isinstance(label, str) for label in labels]
    if all(is_text):
        return labels
    if any(is_text):
        raise ValueError(
            "Labels must be all text or all numbers; Y holds "
            f"{labels[is_text.index(True)]!r} and {labels[is_text.index(False)]!r}."
        )
    return np.array(labels.tolist())


def _several_tasks(labels, names):
    for k in range(labels.shape[1]):
        column = labels[:, k]
        wrong = ~np.isin(column, [0, 1])
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(
                f"Labels must be 0 or 1; column {k if names is None else names[k]!r} "
                f"of Y holds {column[row : row + 1].tolist()[0]!r} in row {row}."
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
    try:
        weights = check_array(
            sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight"
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"sample_weight must hold a finite number a row. {error}"
        ) from error
    if weights.shape != (n_samples,):
        raise ValueError(
            f"sample_weight must have shape ({n_samples},); got {weights.shape}."
        )
    if weights.min() < 0:
        raise ValueError(f"sample_weight must be >= 0; it holds {weights.min()}.")
    if not weights.any():
        raise ValueError("sample_weight must not be zero for every row.")
    weights = weights / weights.max()  # the sum of the largest floats overflows
    return (weights / weights.mean()).astype(np.float32)


def check_groups(groups, n_samples):
    """Return a number a row for its group, int64 of shape (n_samples,), or None.

    Raises
    ------
    ValueError
        If they have another shape or are missing.
    """
    if groups is None:
        return None
    if np.shape(groups) != (n_samples,):
        raise ValueError(
            f"groups must have shape ({n_samples},); got {np.shape(groups)}."
        )
    numbers, _ = factorize(
        groups if hasattr(groups, "to_numpy") else np.asarray(groups)
    )
    if numbers.min() < 0:
        raise ValueError(f"groups must be known; {(numbers < 0).sum()} are missing.")
    return numbers.astype(np.int64)


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

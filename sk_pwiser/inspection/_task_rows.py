"""Labels and predictions per task and model, as the displays use them."""

import warnings
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples, check_consistent_length

from sk_pwiser._responses import (
    Predictions,
    check_rows,
    check_same_tasks,
    check_targets,
)
from sk_pwiser._table import check_weights


class TaskRows(NamedTuple):
    """Labels and predictions of one task and one model, where the label is known.

    The task is called "<last> | <first>" for the CVR; `model` is None for a single
    model without a name.
    """

    task: str
    model: str | None
    y: np.ndarray
    p: np.ndarray
    weight: np.ndarray | None

    @property
    def has_both_classes(self):
        """Whether both labels occur among the rows with a weight above 0."""
        y = self.y if self.weight is None else self.y[self.weight > 0]
        return len(y) > 0 and y.min() != y.max()

    @property
    def base_rate(self):
        """The weighted rate of label 1, NaN without rows."""
        has_rows = len(self.y) > 0 and (self.weight is None or self.weight.any())
        return float(np.average(self.y, weights=self.weight)) if has_rows else np.nan


class GivenPredictions:
    """Given probabilities, with the interface of a fitted estimator."""

    missing_labels = "ignore"

    def __init__(self, P):
        if not isinstance(P, list):
            P = np.asarray(P)
            P = P[:, np.newaxis] if P.ndim == 1 else P
        self._P = P

    def predict_proba(self, X):
        """Return the given probabilities; `X` is ignored."""
        return self._P


class Responses(NamedTuple):
    """Labels, 0 if not known, and predictions of all tasks for one model."""

    names: list
    targets: np.ndarray
    known: np.ndarray
    p: np.ndarray
    predictions: Predictions


def read_responses(estimator, X, Y, task_names=None):
    """Return the `Responses` of a fitted estimator or of `GivenPredictions`."""
    predictions = Predictions(estimator, X, {})
    targets, known, y_names = check_targets(
        Y, predictions.missing_labels(), predictions.classes()
    )
    n_tasks, fitted = targets.shape[1], predictions.task_names()
    check_same_tasks(n_tasks, y_names, fitted)
    names = _choose_names(n_tasks, task_names, y_names, fitted)
    if X is not None:
        check_rows(X, len(targets), Y=Y)
    columns = [predictions.of_task(k, targets, "predict_proba") for k in range(n_tasks)]
    for name, p in zip(names, columns, strict=True):
        _check_probabilities(p, name)
    return Responses(names, targets, known, np.column_stack(columns), predictions)


def read_estimators(estimator, X, Y, *, cvr=False, sample_weight=None):
    """Return the `TaskRows` of all tasks, and the CVR, of a model or a dict of them."""
    return [
        rows
        for name, model in _named(estimator, "estimator").items()
        for rows in _read(name, model, X, Y, None, cvr, sample_weight)
    ]


def read_folds(cv_results, X, Y, *, cvr=False, sample_weight=None):
    """Return the `TaskRows` of all tasks, and the CVR, in each test fold."""
    for key, option in (
        ("estimator", "return_estimator"),
        ("indices", "return_indices"),
    ):
        if key not in cv_results:
            raise ValueError(
                f"cv_results has no {key!r}; call cross_validate with {option}=True."
            )
    check_consistent_length(X, Y, sample_weight)
    folds = zip(cv_results["estimator"], cv_results["indices"]["test"], strict=True)
    last = max(np.max(test) for test in cv_results["indices"]["test"])
    if last >= _num_samples(X):
        raise ValueError(
            f"X has {_num_samples(X)} rows, but a test fold of cv_results has the row "
            f"{last}; pass the rows of cross_validate."
        )
    return [
        rows
        for estimator, test in folds
        for rows in _read(
            None,
            estimator,
            *(_safe_indexing(each, test) for each in (X, Y)),
            None,
            cvr,
            None if sample_weight is None else _safe_indexing(sample_weight, test),
        )
    ]


def read_predictions(Y, P, *, task_names=None, cvr=False, sample_weight=None):
    """Return the `TaskRows` of probabilities: an array, or a dict from model names."""
    return [
        rows
        for name, given in _named(P, "P").items()
        for rows in _read(
            name, GivenPredictions(given), None, Y, task_names, cvr, sample_weight
        )
    ]


def warn_about_one_class(rows, curve):
    """Warn once about all tasks with only one class, in the user's frame."""
    curves = Counter((each.task, each.model) for each in rows)
    constant = Counter(
        (
            f"{each.task!r} has only class {each.y[0]}"
            if len(each.y)
            else f"{each.task!r} has no rows",
            curves[each.task, each.model],
        )
        for each in rows
        if not each.has_both_classes
    )
    if constant:
        found = [
            what if n_folds == 1 else f"{what} in {n} of {n_folds} folds"
            for (what, n_folds), n in constant.items()
        ]
        warnings.warn(
            f"{curve} is undefined and left empty for task {', task '.join(found)}.",
            UndefinedMetricWarning,
            stacklevel=4,
        )


def _named(models, parameter):
    if not isinstance(models, Mapping):
        return {None: models}
    if not models:
        raise ValueError(
            f"{parameter} must contain at least one model, got {models!r}."
        )
    return models


def _read(model, estimator, X, Y, task_names, cvr, sample_weight):
    read = read_responses(estimator, X, Y, task_names)
    names, n_tasks = read.names, len(read.names)
    weight = None
    if sample_weight is not None:
        weight = check_weights(sample_weight, *read.targets.shape, names)
    rows = [
        _select(read, name, model, read.p[:, k], k, read.known[:, k], weight)
        for k, name in enumerate(names)
    ]
    if cvr:
        p = read.predictions.cvr(read.targets)
        first = read.predictions.first_of_cvr(n_tasks)
        clicked = read.known[:, -1] & (read.targets[:, first] == 1)
        name = f"{names[-1]} | {names[first]}"
        rows.append(_select(read, name, model, p, n_tasks - 1, clicked, weight))
    return rows


def _choose_names(n_tasks, task_names, *found):
    if task_names is None:
        numbered = [f"task {k}" for k in range(n_tasks)]
        return next((names for names in found if names), numbered)
    if len(task_names) != n_tasks or len(set(task_names)) != n_tasks:
        raise ValueError(
            f"task_names must contain {n_tasks} distinct names, one per column of Y, "
            f"got {list(task_names)!r}."
        )
    return [str(name) for name in task_names]


def _select(read, name, model, p, k, rows, weight):
    if weight is not None:
        weight = (weight if weight.ndim == 1 else weight[:, k])[rows]
    return TaskRows(name, model, read.targets[rows, k], p[rows], weight)


def _check_probabilities(p, task):
    is_wrong = ~((p >= 0) & (p <= 1))
    if is_wrong.any():
        row = int(is_wrong.argmax())
        raise ValueError(
            f"Predictions must be probabilities in [0, 1], got {p[row]:g} for task "
            f"{task!r} in row {row}."
        )

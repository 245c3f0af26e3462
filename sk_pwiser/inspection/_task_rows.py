"""Labels and predictions per task and model, for the displays."""

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
    rows_of_values,
)
from sk_pwiser._table import (
    check_match,
    check_weights,
    collected,
    column_of,
    names_of_columns,
)
from sk_pwiser._utils import warn_user

# Curves of more values of `by` could not be told apart.
MAX_VALUES = 8


class TaskRows(NamedTuple):
    """Labels and predictions of one task and one model, where the label is known."""

    task: str  # "<last> | <first>" for the CVR
    model: str | None  # with the value of `by`; None for one model without a name
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
        self._given = self._P = P = collected(P)
        # scikit-learn's classifiers of several outputs return a list of arrays, one per
        # task.
        is_per_task = isinstance(P, list) and P and np.ndim(P[0]) == 2
        if not is_per_task:
            P = np.asarray(P)
            self._P = P[:, np.newaxis] if P.ndim == 1 else P

    def check_order(self, Y, n_samples, names):
        """Raise if the predictions have the names or the index of Y in another order.

        Columns with other names are read by position.
        """
        columns = names_of_columns(self._given) or []
        if columns != names and sorted(columns) == sorted(names):
            raise ValueError(
                f"The columns of P must be in the order of the tasks, {names}; got "
                f"{columns}."
            )
        check_rows(Y, n_samples, input_name="Y", P=self._given)

    def predict_proba(self, X):
        return self._P


class Responses(NamedTuple):
    """Predictions, weights and labels (0 where missing) of all tasks for one model."""

    names: list
    targets: np.ndarray
    known: np.ndarray
    p: np.ndarray
    weight: np.ndarray | None
    predictions: Predictions


def read_responses(estimator, X, Y, task_names=None, sample_weight=None):
    """Return the `Responses` of a fitted estimator or of `GivenPredictions`."""
    X, Y = collected(X), collected(Y)
    predictions = Predictions(estimator, X, {})
    targets, known, y_names = check_targets(
        Y, predictions.missing_labels(), predictions.classes()
    )
    n_tasks, fitted = targets.shape[1], predictions.task_names()
    check_same_tasks(n_tasks, y_names, fitted)
    names = _choose_names(n_tasks, task_names, y_names, fitted)
    if isinstance(estimator, GivenPredictions):
        estimator.check_order(Y, len(targets), names)
    if X is not None:
        check_rows(X, len(targets), Y=Y)
    columns = [predictions.of_task(k, targets, "predict_proba") for k in range(n_tasks)]
    for name, p in zip(names, columns, strict=True):
        _check_probabilities(p, name)
    weight = None
    if sample_weight is not None:
        weight = check_weights(sample_weight, *targets.shape, names)
        weight = np.broadcast_to(weight.reshape(len(weight), -1), targets.shape)
    p = np.column_stack(columns)
    return Responses(names, targets, known, p, weight, predictions)


def read_models(models, X, Y, cvr, sample_weight, by, task_names=None):
    """Return the `TaskRows` of all tasks, and the CVR, of a dict of models.

    `by` is a column of `X`, or an array if `X` is None; each value has its own rows.
    """
    X, Y = collected(X), collected(Y)
    parts = None if by is None else _parts(X, Y, by)
    return [
        rows
        for name, model in models.items()
        for rows in _read(name, model, X, Y, cvr, sample_weight, task_names, parts)
    ]


def _parts(X, Y, by):
    if X is not None:
        found = rows_of_values(column_of(X, "by", by), by)
    else:
        check_consistent_length(by, Y)
        check_match(Y, _num_samples(Y), input_name="Y", by=by)
        found = rows_of_values(by, getattr(by, "name", None))
    if not 0 < len(found) <= MAX_VALUES:
        what = "a column" if X is None else f"{by!r}"
        raise ValueError(
            f"by must have at least one value and at most {MAX_VALUES}, since each has "
            f"its own curves; got {what} with {len(found):,} values."
        )
    return found


def read_folds(cv_results, X, Y, cvr, sample_weight):
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
    # Rows of another table of the same length cannot be told apart; a shorter one can.
    folds = zip(cv_results["estimator"], cv_results["indices"]["test"], strict=True)
    last = max(np.max(test) for test in cv_results["indices"]["test"])
    if last >= _num_samples(X):
        raise ValueError(
            f"X has {_num_samples(X)} rows, but a test fold of cv_results has the row "
            f"{last}; pass the rows of cross_validate."
        )
    found = []
    for estimator, test in folds:
        x, y, weight = (
            None if each is None else _safe_indexing(each, test)
            for each in (X, Y, sample_weight)
        )
        found += _read(None, estimator, x, y, cvr, weight)
    return found


def warn_about_one_class(rows, curve):
    """Warn once about all tasks with only one class, in the user's frame."""
    # Folds of one curve count together: one line per task, not one per fold.
    curves = Counter((each.task, each.model) for each in rows)
    constant = Counter(
        (
            ", ".join([repr(each.task), *filter(None, [each.model])])
            + (f" has only class {each.y[0]}" if len(each.y) else " has no rows"),
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
        warn_user(
            f"{curve} is undefined and left empty for task {', task '.join(found)}.",
            UndefinedMetricWarning,
        )


def by_name(models, parameter):
    """Return a dict of models; a single one without a name has the key None."""
    if not isinstance(models, Mapping):
        return {None: models}
    if not models:
        raise ValueError(
            f"{parameter} must contain at least one model, got {models!r}."
        )
    return models


def _read(model, estimator, X, Y, cvr, sample_weight, task_names=None, parts=None):
    read = read_responses(estimator, X, Y, task_names, sample_weight)
    names = read.names
    curves = [(name, k, read.p[:, k], read.known[:, k]) for k, name in enumerate(names)]
    if cvr:
        # The CVR is drawn over clicked rows with a known last label.
        p = read.predictions.cvr(read.targets)
        first = read.predictions.first_of_cvr(len(names))
        clicked = read.known[:, -1] & (read.targets[:, first] == 1)
        curves.append((f"{names[-1]} | {names[first]}", -1, p, clicked))
    found = []
    all_rows = {None: np.arange(len(read.targets))}
    for part, of_part in (parts or all_rows).items():
        label = ", ".join(str(each) for each in (model, part) if each is not None)
        for name, k, p, known in curves:
            rows = of_part[known[of_part]]
            # Column k = -1 of the CVR is the last task.
            weight = None if read.weight is None else read.weight[rows, k]
            y = read.targets[rows, k]
            found.append(TaskRows(name, label or None, y, p[rows], weight))
    return found


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


def _check_probabilities(p, task):
    is_wrong = ~((p >= 0) & (p <= 1))
    if is_wrong.any():
        row = int(is_wrong.argmax())
        raise ValueError(
            f"Predictions must be probabilities in [0, 1], got {p[row]:g} for task "
            f"{task!r} in row {row}."
        )

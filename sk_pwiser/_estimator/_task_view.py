"""One task of a multi-task classifier, as an ordinary binary classifier."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.special import logit
from sklearn.base import ClassifierMixin
from sklearn.metrics import roc_auc_score
from sklearn.utils.validation import check_is_fitted

from sk_pwiser._columns._frames import collected
from sk_pwiser._estimator._funnel_view import ADVICE, FunnelView
from sk_pwiser._responses import (
    Predictions,
    check_task,
    find_task,
    given_task_names,
    planned_tasks,
)
from sk_pwiser._tasks._amounts import split_columns
from sk_pwiser._tasks._labels import check_unreserved, names_of_columns, read_labels
from sk_pwiser._tasks._row_match import check_match
from sk_pwiser._tasks._tree import path_to
from sk_pwiser._utils._warnings import warn_user
from sk_pwiser.metrics import make_task_scorer

# What may stand for a task beside its index and its name, in messages.
CVR = ", or 'cvr'"


class TaskView(ClassifierMixin, FunnelView):
    """One task of a multi-task classifier, as an ordinary binary classifier.

    Tools for binary classifiers, such as partial dependence, calibration curves,
    stacking and explainers, take the view in place of the estimator.

    Probabilities are over impressions, those of "cvr" given a click.

    A view of a fitted estimator predicts at once, with the networks and the memory of
    that estimator. A view of an unfitted one, or a clone of any view, is a
    meta-estimator: its `fit` trains a clone of the estimator on all tasks.

    Parameters
    ----------
    estimator : estimator object
        A :class:`~sk_pwiser.MultiTaskCTRCVRClassifier`, fitted or not, or a
        :class:`~sk_pwiser.calibration.FunnelCalibrator`.
    task : int or str
        The task: its index, its name, or "cvr" for P(last task | first task).

    Attributes
    ----------
    estimator_ : estimator object
        The fitted clone of `estimator`, if `fit` was called on the view.

    See Also
    --------
    MultiTaskCTRCVRClassifier.task : Makes a view.
    ValueView : One value, as an ordinary regressor.

    Examples
    --------
    >>> from sklearn.model_selection import cross_val_score
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> data = make_ctr_cvr(2_000, ctr=0.3, random_state=0)
    >>> X, Y = data.data, data.target
    >>> model = MultiTaskCTRCVRClassifier(max_epochs=2, random_state=0).fit(X, Y)
    >>> conversion = model.task("conversion")
    >>> conversion.predict_proba(X).shape
    (2000, 2)

    Scikit-learn's tools pass on the labels of all tasks, from which the view learns:

    >>> view = MultiTaskCTRCVRClassifier(max_epochs=2).task("conversion")
    >>> scores = cross_val_score(
    ...     view, X, Y["conversion"], params={"tasks": Y}, scoring="roc_auc", cv=2
    ... )
    >>> scores.shape
    (2,)
    """

    def __init__(self, estimator: Any, task: int | str) -> None:
        self.estimator = estimator
        self.task = task

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: npt.ArrayLike | None = None,
        tasks: Any = None,
        **fit_params: Any,
    ) -> Self:
        """Train a clone of the estimator on all tasks.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Impressions.
        y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            Labels of all tasks; or the labels of this task, if `tasks` has those of
            all, or if it is the only one: the task 0 of an estimator without
            `task_names`, or of one with a single name.
        sample_weight : array-like of shape (n_samples,) or (n_samples, n_tasks), \
                default=None
            Weights of the rows, or of the rows and tasks.
        tasks : array-like of shape (n_samples, n_tasks), default=None
            Labels of all tasks. Tools of scikit-learn that take one column of labels
            pass it on as a parameter of `fit`, and split it like the rows.
        **fit_params : dict
            Further arguments of the estimator's `fit`, such as `groups`. With metadata
            routing, `fit` of the estimator gets those that it requests.

        Returns
        -------
        TaskView
            The fitted view.

        Raises
        ------
        ValueError
            If the view is one of a fitted estimator, if the labels of all tasks are
            missing or differ from `y`, or if there is no such task.

        Warns
        -----
        UserWarning
            If the task is "cvr", and `y` is one column with rows in which the first
            task did not happen: tools then count them as clicks without a conversion.
        """
        self._check_unfitted()
        Y = self._check_labels(y, tasks)
        self.estimator_ = self._fit_clone(X, Y, sample_weight, fit_params)
        return self

    def _check_labels(self, y: Any, tasks: Any) -> Any:
        """Return the labels of all tasks."""
        y = collected(y)
        tasks = collected(tasks)
        Y = y if tasks is None else tasks
        if np.ndim(tasks) == 2:
            tasks = self._event_labels(tasks)
        elif _n_columns(y) > 1:
            y = self._event_labels(y)
        labels_of_y = read_labels(y, "ignore", input_name="y")
        names = given_task_names(self.estimator.get_params())
        # Another index, or a name, suggests that the labels of others are forgotten.
        is_only_task = self.task == 0 if names is None else len(names) == 1
        if tasks is None and labels_of_y.values.ndim < 2 and not is_only_task:
            raise ValueError(
                "A view of one task learns from the labels of all tasks: pass them as "
                "y, of shape (n_samples, n_tasks), or as tasks=, also through tools: "
                'cross_val_score(view, X, y, params={"tasks": Y}).'
            )
        if tasks is not None and np.ndim(tasks) != 2:
            raise ValueError(
                f"tasks must be of shape (n_samples, n_tasks); got {np.shape(tasks)}."
            )
        names, parents = planned_tasks(self.estimator, y if tasks is None else tasks)
        column = task_column(self.task, names)
        if tasks is None:
            return Y
        labels_of_tasks = read_labels(tasks, "ignore", input_name="tasks")
        n_samples = len(labels_of_tasks.values)
        if labels_of_y.values.shape not in ((n_samples,), (n_samples, 1)):
            raise ValueError(
                f"{self._rule(names[column])}; y has the shape "
                f"{labels_of_y.values.shape} and tasks {labels_of_tasks.values.shape}: "
                f"{ADVICE}"
            )
        check_match(tasks, n_samples, input_name="tasks", y=y)
        self._check_same_labels(labels_of_y, labels_of_tasks, names, column)
        first = path_to(column, parents)[0]
        n_others = int((labels_of_tasks.values[:, first] != 1).sum())
        if self.task == "cvr" and first != column and n_others:
            warn_user(
                f"task='cvr' is a rate among rows with {names[first]!r}, but y has "
                f"{n_others} others, which tools take for rows with it and without "
                f"{names[column]!r}. Pass y=Y, the labels of all tasks, to tools that "
                "score this view, and calibrate FunnelCalibrator(...).task('cvr')."
            )
        return Y

    def _event_labels(self, Y: Any) -> Any:
        """Return labels of all tasks without the columns of amounts."""
        value_tasks = Predictions(self.estimator, None, {}).value_tasks()
        events, _, _ = split_columns(Y, value_tasks, names_of_columns(Y))
        return events

    def _rule(self, name: str) -> str:
        """Return the rule that y and tasks break, for messages."""
        return f"y must be the column {name!r} of tasks, that of the task {self.task!r}"

    def _check_same_labels(
        self, labels_of_y: Any, labels_of_tasks: Any, names: Sequence[str], column: int
    ) -> None:
        """Raise if the labels of the task are not its column in those of all tasks."""
        labels = labels_of_y.values.ravel()
        expected = labels_of_tasks.values[:, column]
        differs = labels != expected
        if labels_of_tasks.missing is not None:
            differs &= ~labels_of_tasks.missing[:, column]
        if differs.any():
            row = int(differs.argmax())
            # As Python's numbers, whose text is that of the user.
            label = labels.tolist()[row]
            label_of_tasks = expected.tolist()[row]
            raise ValueError(
                f"{self._rule(names[column])}; row {row} is {label!r} in y and "
                f"{label_of_tasks!r} in tasks: {ADVICE}"
            )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    @property
    def _shown(self) -> int | str:
        return self.task

    @property
    def _column(self) -> int:
        return task_column(self.task, self._fitted.task_names_)

    @property
    def task_names_(self) -> list[str]:
        """Name of the task, that of the last one for "cvr"; scorers compare it."""
        return [self._fitted.task_names_[self._column]]

    @property
    def _is_cvr(self) -> bool:
        return self.task == "cvr" and len(self._fitted.task_names_) > 1

    @property
    def classes_(self) -> np.ndarray:
        """Labels of the task, an ndarray of shape (2,)."""
        classes = self._fitted.classes_
        return classes if classes.ndim == 1 else classes[self._column]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict the probabilities of both classes.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Impressions.

        Returns
        -------
        ndarray of shape (n_samples, 2)
            Probabilities over impressions, those of "cvr" given a click, in float64, as
            scikit-learn's classifiers return them.

        Raises
        ------
        ValueError, TypeError
            If the columns of `X` are not those seen in fit.
        """
        # Read before the prediction, so that an unknown task costs no time.
        column = self._column
        estimator = self._fitted
        if estimator.classes_.ndim == 1:
            return estimator.predict_proba(X).astype(np.float64)
        if self._is_cvr:
            positive = estimator.predict_cvr(X).astype(np.float64)
        else:
            positive = estimator.predict_proba(X)[:, column].astype(np.float64)
        return np.column_stack([1 - positive, positive])

    def predict(self, X: Any) -> np.ndarray:
        """Predict labels: 1 where the probability is at least 0.5.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Impressions.

        Returns
        -------
        ndarray of shape (n_samples,)
            Labels, in the dtype of those in `fit`. At low base rates few rows or none
            reach 0.5; rank by `predict_proba` instead.
        """
        positive = self.predict_proba(X)[:, 1]
        return self.classes_[(positive >= 0.5).astype(int)]

    def decision_function(self, X: Any) -> np.ndarray:
        """Compute the logit of the task.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Impressions.

        Returns
        -------
        ndarray of shape (n_samples,)
            Log-odds of the probability; at least 0 where `predict` returns the second
            class.
        """
        column = self._column
        estimator = self._fitted
        if not self._is_cvr and hasattr(estimator, "predict_logits"):
            logits = estimator.predict_logits(X)
            return logits if logits.ndim == 1 else logits[:, column]
        positive = self.predict_proba(X)[:, 1]
        limits = np.finfo(np.float32)
        return logit(np.clip(positive, limits.tiny, 1 - limits.epsneg))

    def score(
        self, X: Any, y: Any, sample_weight: npt.ArrayLike | None = None
    ) -> float:
        """Compute the ROC AUC of the task.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Impressions.
        y : array-like of shape (n_samples,) or (n_samples, n_tasks)
            Labels of the task, or of all tasks. From the latter, "cvr" selects the
            rows of the first task; with the former, all rows count as clicked.
        sample_weight : array-like of shape (n_samples,) or, with the labels of all \
                tasks, (n_samples, n_tasks), default=None
            Weights of the rows.

        Returns
        -------
        float
            NaN, with a warning, if the labels have one class only.
        """
        check_is_fitted(self)
        y = collected(y)
        if np.ndim(y) > 1 and np.shape(y)[1] > 1:
            estimator = self._fitted
            task = "cvr" if self._is_cvr else self._column
        else:
            estimator = self
            task = 0
        scorer = make_task_scorer(roc_auc_score, task)
        return scorer(estimator, X, y, sample_weight=sample_weight)


def task_column(task: int | str, names: Sequence[str]) -> int:
    """Return the column of the labels of a task; of the last one for "cvr"."""
    task = check_task(task, CVR)
    names = list(names)
    if task == "cvr" and len(names) > 1:
        if "cvr" in names:
            check_unreserved(names)
        return len(names) - 1
    alternatives = CVR if len(names) > 1 else ""
    return find_task(task, len(names), names, alternatives=alternatives)


def _n_columns(y: Any) -> int:
    """Return the number of columns of labels, which may be lists or 1-D."""
    shape = y.shape if hasattr(y, "shape") else np.asarray(y).shape
    return int(shape[1]) if len(shape) == 2 else 1

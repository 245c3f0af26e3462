"""One task of a multi-task classifier, as an ordinary binary classifier."""

from numbers import Integral

import numpy as np
from scipy.special import logit
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from sk_pwiser._estimator._predictions import ProbabilityMixin
from sk_pwiser._table import check_unreserved, choose_task_names, names_of_columns
from sk_pwiser._utils import DocLink
from sk_pwiser.metrics import make_task_scorer


class TaskView(
    DocLink, ProbabilityMixin, ClassifierMixin, MetaEstimatorMixin, BaseEstimator
):
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

    def __init__(self, estimator, task):
        self.estimator = estimator
        self.task = task

    def fit(self, X, y, sample_weight=None, tasks=None, **fit_params):
        """Train a clone of the estimator on all tasks.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Impressions.
        y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            Labels of all tasks; or the labels of this task, if `tasks` has those of
            all.
        sample_weight : array-like of shape (n_samples,) or (n_samples, n_tasks), \
                default=None
            Weights of the rows, or of the rows and tasks.
        tasks : array-like of shape (n_samples, n_tasks), default=None
            Labels of all tasks. Tools of scikit-learn that take one column of labels
            pass it on as a parameter of `fit`, and split it like the rows.
        **fit_params : dict
            Further arguments of the estimator's `fit`, such as `eval_set`.

        Returns
        -------
        TaskView
            The fitted view.

        Raises
        ------
        ValueError
            If the view is one of a fitted estimator, if the labels of all tasks are
            missing or differ from `y`, or if there is no such task.
        """
        if _is_fitted(self.estimator):
            name = type(self.estimator).__name__
            raise ValueError(
                f"This view shows a fitted {name} and cannot be fitted itself. Fit "
                f"the {name} on all tasks instead; or fit a clone of the view "
                "(sklearn.base.clone), which trains a new estimator; or pass "
                "FrozenEstimator(view) to a tool that should use it as fitted."
            )
        Y = self._check_labels(y, tasks)
        if sample_weight is not None:
            fit_params["sample_weight"] = sample_weight
        self.estimator_ = clone(self.estimator).fit(X, Y, **fit_params)
        return self

    def _check_labels(self, y, tasks):
        """Return the labels of all tasks."""
        if tasks is None and np.ndim(y) < 2:
            raise ValueError(
                "A view of one task learns from the labels of all tasks: pass y of "
                "shape (n_samples, n_tasks), or the labels of the task as y and those "
                "of all tasks as tasks=. Tools of scikit-learn pass it on, for example "
                'cross_val_score(view, X, y, params={"tasks": Y}).'
            )
        Y = y if tasks is None else tasks
        if np.ndim(Y) != 2:
            raise ValueError(
                f"tasks must be of shape (n_samples, n_tasks); got {np.shape(Y)}."
            )
        names = choose_task_names(
            np.shape(Y)[1],
            getattr(self.estimator, "task_names", None),
            names_of_columns(Y),
            None,
        )
        column = find_column(self.task, names)
        if tasks is not None:
            labels = np.asarray(tasks)[:, column]
            is_same = np.shape(y) == labels.shape and (
                (labels == np.asarray(y)) | (labels != labels)
            )
            if not np.all(is_same):
                raise ValueError(
                    f"y must be the column {names[column]!r} of tasks, the labels of "
                    f"the task {self.task!r}."
                )
        return Y

    def __sklearn_is_fitted__(self):
        return hasattr(self, "estimator_") or _is_fitted(self.estimator)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self.estimator).input_tags
        tags.classifier_tags.multi_class = False
        return tags

    @property
    def _fitted(self):
        """The fitted estimator, or a NotFittedError, which is an AttributeError too."""
        if hasattr(self, "estimator_"):
            return self.estimator_
        if not _is_fitted(self.estimator):
            raise NotFittedError(
                f"This view of the task {self.task!r} is not fitted yet: fit it, or "
                "its estimator."
            )
        return self.estimator

    @property
    def _column(self):
        return find_column(self.task, self._fitted.task_names_)

    @property
    def classes_(self):
        """Labels of the task, an ndarray of shape (2,)."""
        classes = self._fitted.classes_
        return classes if classes.ndim == 1 else classes[self._column]

    @property
    def n_features_in_(self):
        """Number of columns of `X`."""
        return self._fitted.n_features_in_

    @property
    def feature_names_in_(self):
        """Names of the columns, if the estimator has them."""
        return self._fitted.feature_names_in_

    def _predict_positive(self, X):
        """Return P(task), or P(last | first), of shape (n_samples, 1)."""
        column, estimator = self._column, self._fitted
        if self._is_cvr:
            return estimator.predict_cvr(X)[:, np.newaxis]
        # A single task has a column per class.
        column = column if self._n_tasks > 1 else 1
        return estimator.predict_proba(X)[:, column, np.newaxis]

    @property
    def _n_tasks(self):
        return len(self._fitted.task_names_)

    @property
    def _is_cvr(self):
        return self.task == "cvr" and self._n_tasks > 1

    def decision_function(self, X):
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
        column, estimator = self._column, self._fitted
        if not self._is_cvr and hasattr(estimator, "predict_logits"):
            logits = estimator.predict_logits(X)
            return logits if logits.ndim == 1 else logits[:, column]
        positive = self._predict_positive(X)[:, 0].astype(np.float64)
        limits = np.finfo(np.float32)
        return logit(np.clip(positive, limits.tiny, 1 - limits.epsneg))

    def score(self, X, y, sample_weight=None):
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
        if np.ndim(y) > 1 and np.shape(y)[1] > 1:
            task = "cvr" if self._is_cvr else self._column
            scorer = make_task_scorer(roc_auc_score, task)
            return scorer(self._fitted, X, y, sample_weight=sample_weight)
        scorer = make_task_scorer(roc_auc_score, 0)
        return scorer(self, X, y, sample_weight=sample_weight)


def find_column(task, names):
    """Return the column of the labels of a task; of the last one for "cvr"."""
    check_task(task)
    names = list(names)
    if task == "cvr" and len(names) > 1:
        if "cvr" in names:
            check_unreserved(names)
        return len(names) - 1
    if isinstance(task, str) and task in names:
        return names.index(task)
    if not isinstance(task, str) and -len(names) <= task < len(names):
        return int(task) % len(names)
    cvr = ", or 'cvr'" if len(names) > 1 else ""
    raise ValueError(
        f"task must be one of {names}, an index in [-{len(names)}, {len(names)}){cvr}; "
        f"got {task!r}."
    )


def check_task(task):
    """Raise a TypeError if a task is neither an integer nor a string."""
    if isinstance(task, bool) or not isinstance(task, Integral | str):
        raise TypeError(
            "task must be the index or the name of a task, or 'cvr'; got "
            f"{task!r} of type {type(task).__name__}."
        )


def _is_fitted(estimator):
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return False
    return True

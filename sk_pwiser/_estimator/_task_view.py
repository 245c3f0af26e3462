"""Predictions of all tasks, and one task as an ordinary binary classifier."""

from numbers import Integral
from typing import ClassVar

import numpy as np
from scipy.special import logit
from sklearn import get_config
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.utils import get_tags
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    process_routing,
)
from sklearn.utils.validation import check_is_fitted

from sk_pwiser._responses import given_task_names, planned_tasks
from sk_pwiser._table import (
    check_match,
    check_unreserved,
    collected,
    probability_frame,
    read_labels,
)
from sk_pwiser._utils import (
    DocLink,
    accept_any_case_of_y,
    did_you_mean,
    ends_of_path,
    path_to,
    warn_user,
)
from sk_pwiser.metrics import make_task_scorer, mean_auc_scorer


class ProbabilityMixin:
    """Mixin class of classifiers that define the two methods below.

    `_predict_positive(X)` returns one column per task, and `_predict_proba(X)` those of
    both classes if `classes_` is 1-D.
    """

    def predict_proba(self, X):
        """Predict probabilities over impressions.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Impressions.

        Returns
        -------
        ndarray of shape (n_samples, n_tasks)
            Column k is P(Y_k = 1 | impression), in float32. For a single task, and for
            a view of one, the ordinary `(n_samples, 2)` with the probabilities of both
            classes. A view returns them in float64, as scikit-learn's classifiers do.

        Raises
        ------
        ValueError, TypeError
            If the columns of `X` are not those seen in fit.
        """
        return self._predict_proba(X)

    def predict(self, X):
        """Predict labels: 1 where the probability is at least 0.5.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Impressions.

        Returns
        -------
        ndarray of shape (n_samples, n_tasks) or (n_samples,)
            Labels, in the dtype of those in `fit`. At low base rates few rows or none
            reach 0.5; rank by `predict_proba` instead.
        """
        positive = (self._predict_positive(X) >= 0.5).astype(int)
        if self.classes_.ndim == 1:
            return self.classes_[positive[:, 0]]
        return np.take_along_axis(self.classes_, positive.T, axis=1).T


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

    # Always needed, so that routing passes them without being told.
    __metadata_request__fit: ClassVar[dict] = {"tasks": True}

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
        if get_config()["enable_metadata_routing"]:
            fit_params = process_routing(self, "fit", **fit_params).estimator.fit
        self.estimator_ = clone(self.estimator).fit(X, Y, **fit_params)
        return self

    def get_metadata_routing(self):
        """Return the metadata that the view and its estimator request.

        Returns
        -------
        MetadataRouter
            The requests of `fit` and `score`.
        """
        return (
            MetadataRouter(owner=type(self).__name__)
            .add_self_request(self)
            .add(
                estimator=self.estimator,
                method_mapping=MethodMapping().add(caller="fit", callee="fit"),
            )
        )

    def _check_labels(self, y, tasks):
        """Return the labels of all tasks."""
        y, tasks = collected(y), collected(tasks)
        given = read_labels(y, "any", input_name="y")
        if tasks is None and given.values.ndim < 2 and not self._is_only_task:
            raise ValueError(
                "A view of one task learns from the labels of all tasks: pass y of "
                "shape (n_samples, n_tasks), or the labels of the task as y and those "
                "of all tasks as tasks=. Tools of scikit-learn pass it on, for example "
                'cross_val_score(view, X, y, params={"tasks": Y}).'
            )
        if tasks is not None and np.ndim(tasks) != 2:
            raise ValueError(
                f"tasks must be of shape (n_samples, n_tasks); got {np.shape(tasks)}."
            )
        names, parents = planned_tasks(self.estimator, y if tasks is None else tasks)
        column = task_column(self.task, names)
        if tasks is None:
            return y
        known = read_labels(tasks, "any", input_name="tasks")
        self._check_same_labels(y, tasks, given, known, names[column], column)
        first = path_to(column, parents)[0]
        n_others = int((known.values[:, first] != 1).sum())
        if self.task == "cvr" and first != column and n_others:
            warn_user(
                f"task='cvr' is a rate among rows with {names[first]!r}, but y has "
                f"{n_others} others. Tools that score or calibrate this view by y take "
                f"them for rows with {names[first]!r} and without {names[column]!r}. "
                "Pass y=Y, the labels of all tasks, to tools that score it, and "
                "calibrate FunnelCalibrator(...).task('cvr') instead."
            )
        return tasks

    @property
    def _is_only_task(self):
        """Whether labels of one column may be those of all tasks of the estimator."""
        names = given_task_names(self.estimator.get_params())
        # Another index, or a name, suggests that the labels of others are forgotten.
        return self.task == 0 if names is None else len(names) == 1

    def _check_same_labels(self, y, tasks, given, known, name, column):
        """Raise if the labels of the task are not its column in those of all tasks."""
        rule = f"y must be the column {name!r} of tasks, the labels of the "
        rule += f"task {self.task!r}"
        advice = "pass y=Y, the labels of all tasks, to tools that draw or permute y."
        values = given.values.reshape(len(given.values), -1)
        texts = values.flat if values.dtype.kind in "UO" else ()
        text = next((each for each in texts if isinstance(each, str)), None)
        if known.values.shape[1] > 1 and text is not None:
            raise ValueError(
                f"{rule}, as 0 and 1, which tools compare with the predictions of the "
                f"view; y has text, such as {text!r}. Convert it, for example by "
                "y = (y == 'yes').astype(int)."
            )
        if values.shape != (len(known.values), 1):
            raise ValueError(
                f"{rule}; y has the shape {given.values.shape} and tasks "
                f"{known.values.shape}: {advice}"
            )
        check_match(tasks, len(values), input_name="tasks", y=y)
        differs = values[:, 0] != known.values[:, column]
        if known.missing is not None:
            differs &= ~known.missing[:, column]
        if differs.any():
            row = int(differs.argmax())
            found, expected = (
                each[row : row + 1].tolist()[0]
                for each in (values[:, 0], known.values[:, column])
            )
            raise ValueError(
                f"{rule}; row {row} is {found!r} in y and {expected!r} in tasks: "
                f"{advice}"
            )

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
        return task_column(self.task, self._fitted.task_names_)

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
        """Return P(task), or P(last | first): float64 of shape (n_samples, 1)."""
        column, estimator = self._column, self._fitted
        if self._is_cvr:
            return estimator.predict_cvr(X).astype(np.float64)[:, np.newaxis]
        # A single task has a column per class.
        column = column if self._n_tasks > 1 else 1
        return estimator.predict_proba(X)[:, [column]].astype(np.float64)

    def _predict_proba(self, X):
        if self._n_tasks == 1:
            return self._fitted.predict_proba(X).astype(np.float64)
        positive = self._predict_positive(X)
        return np.hstack([1 - positive, positive])

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
        positive = self._predict_positive(X)[:, 0]
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
        estimator, task, y = self, 0, collected(y)
        if np.ndim(y) > 1 and np.shape(y)[1] > 1:
            estimator, task = self._fitted, "cvr" if self._is_cvr else self._column
        scorer = make_task_scorer(roc_auc_score, task)
        return scorer(estimator, X, y, sample_weight=sample_weight)


class PredictionMixin(ProbabilityMixin):
    """Mixin class of classifiers of a funnel, fitted with the names of its tasks.

    A class defines `_predict_logits(X)`, an array of shape (n_samples, n_tasks),
    `_positive(logits)`, their probabilities as float32, and `_conditional(X, first,
    last)`, the probability of one task given another.
    """

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        tags.classifier_tags.multi_class = False
        tags.target_tags.multi_output = True
        return tags

    def _predict_positive(self, X):
        """Return P(Y_k = 1), inside (0, 1): float32 of shape (n_samples, n_tasks)."""
        return self._positive(self._predict_logits(X))

    def _predict_proba(self, X):
        logits = self._predict_logits(X)
        if self.classes_.ndim == 1:
            # Not 1 - p, of which float32 keeps few digits if p is near 1.
            logits = np.hstack([-logits, logits])
        return self._positive(logits)

    def predict_cvr(self, X, task=None):
        """Predict P(last task | first task): the conversion rate of a click.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Impressions.
        task : int or str, default=None
            Index or name of the task, by default the last one. The first task is that
            which it presupposes, directly or through others.

        Returns
        -------
        ndarray of shape (n_samples,)
            Probabilities: P(task) / P(first), at most 1.

        Raises
        ------
        ValueError
            If there is no such task, or if it presupposes no other one.
        """
        check_is_fitted(self)
        return self._conditional(X, *ends_of_path(task, self.task_parents_))

    @accept_any_case_of_y
    def score(self, X, Y, sample_weight=None):
        """Compute the mean ROC AUC over the tasks.

        Not the accuracy: at a click rate of 1 %, predicting no click at all has an
        accuracy of 99 %.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Impressions.
        Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            True labels. With `missing_labels="ignore"`, and in a calibrator, labels of
            tasks after the first may be missing; the AUC of that task then leaves out
            the row.
        sample_weight : array-like of shape (n_samples,) or (n_samples, n_tasks), \
                default=None
            Weights of the rows, or of the rows and tasks, >= 0.

        Returns
        -------
        float
            Mean of the tasks' AUC; NaN, with a warning, if a task has only one class.

        Raises
        ------
        ValueError, TypeError
            If labels or weights are invalid, as in `fit`.
        """
        check_is_fitted(self)
        return mean_auc_scorer(self, X, Y, sample_weight=sample_weight)

    def predict_logits(self, X):
        """Predict log-odds over impressions, which do not saturate near 0 and 1.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Impressions.

        Returns
        -------
        float32 ndarray of shape (n_samples, n_tasks) or (n_samples,)
            Column k is log(p / (1 - p)) of p = P(Y_k = 1 | impression), also with
            `task_space="conditional"`. 1-D for a single task.
        """
        logits = self._predict_logits(X).astype(np.float32, copy=False)
        return logits[:, 0] if self.classes_.ndim == 1 else logits

    def predict_frame(self, X):
        """Predict probabilities over impressions as a DataFrame.

        The values are those of `predict_proba`, which returns an array: `set_output` of
        scikit-learn is for transformers, and its scorers and meta-estimators take the
        columns of probabilities by position.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Impressions.

        Returns
        -------
        DataFrame of shape (n_samples, n_tasks)
            One column per task, named as in `task_names_`, with P(task = 1 |
            impression), also for a single task. A polars DataFrame if `X` is one;
            otherwise a pandas DataFrame, with the index of `X` if it has one.

        Raises
        ------
        ImportError
            If pandas is not installed, and `X` is not a polars DataFrame.
        """
        X = collected(X)
        return probability_frame(self._predict_positive(X), X, self.task_names_)

    def task(self, task):
        """Return one task as an ordinary binary classifier.

        Parameters
        ----------
        task : int or str
            The task: its index, its name, or "cvr" for P(last task | first task).

        Returns
        -------
        TaskView
            Of a fitted estimator it predicts at once; of an unfitted one, `fit` trains
            a clone of the estimator on all tasks. See
            :class:`~sk_pwiser.TaskView`.

        Raises
        ------
        ValueError
            If the fitted estimator has no such task. A view of an unfitted estimator
            raises it in `fit`.
        TypeError
            If `task` is neither an int nor a str.
        """
        check_task(task)
        if hasattr(self, "task_names_"):
            task_column(task, self.task_names_)
        return TaskView(self, task)


def task_column(task, names):
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
        f"got {task!r}.{did_you_mean(task, names)}"
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

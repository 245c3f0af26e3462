"""Predictions of all tasks from their log-odds, by the estimator and its calibrator."""

from contextlib import AbstractContextManager, nullcontext
from copy import copy
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted

from sk_pwiser import _responses
from sk_pwiser._columns import _frames
from sk_pwiser._estimator._task_view import CVR, TaskView, task_column
from sk_pwiser._estimator._value_view import ValueView
from sk_pwiser._responses import check_task, find_task
from sk_pwiser._tasks import _amounts, _tree
from sk_pwiser._utils import _checks, _extras
from sk_pwiser.metrics import mean_auc_scorer


class PredictionMixin:
    """Mixin class of classifiers of a funnel, fitted with the names of its tasks.

    A class defines `_predict_logits(X)`, an array of log-odds over impressions of shape
    (n_samples, n_tasks).
    """

    classes_: np.ndarray
    task_names_: list[str]
    task_parents_: dict[str, str | None]
    n_tasks_: int
    _is_shown = False  # whether predictions are those of the rows as they were shown

    def _exposure(self) -> AbstractContextManager[None]:
        """Return the context of predictions, which say how rows were shown."""
        return _responses.exposure_as("shown") if self._is_shown else nullcontext()

    def _predict_logits(self, X: Any) -> np.ndarray:
        raise NotImplementedError

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc] # of scikit-learn
        tags.classifier_tags.multi_label = True
        tags.classifier_tags.multi_class = False
        tags.target_tags.multi_output = True
        return tags

    @staticmethod
    def _positive(logits: np.ndarray) -> np.ndarray:
        """Return the probabilities of log-odds, also of permuted rows."""
        # Not at the top: it loads torch.
        from sk_pwiser._training._net import probabilities

        return probabilities(logits)

    def _predict_positive(self, X: Any) -> np.ndarray:
        """Return P(Y_k = 1), inside (0, 1): float32 of shape (n_samples, n_tasks)."""
        return self._positive(self._predict_logits(X))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict probabilities over impressions.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Impressions.

        Returns
        -------
        ndarray of shape (n_samples, n_tasks)
            Column k is P(Y_k = 1 | impression), in float32. For a single task, the
            ordinary `(n_samples, 2)` with the probabilities of both classes.

        Raises
        ------
        ValueError, TypeError
            If the columns of `X` are not those seen in fit.
        """
        logits = self._predict_logits(X)
        if self.classes_.ndim == 1:
            # Not 1 - p, of which float32 keeps few digits if p is near 1.
            logits = np.hstack([-logits, logits])
        return self._positive(logits)

    def predict(self, X: Any) -> np.ndarray:
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

    def predict_cvr(self, X: Any, task: int | str | None = None) -> np.ndarray:
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
        import torch

        check_is_fitted(self)
        names = self.task_names_
        last = self.n_tasks_ - 1
        if task is not None:
            task = check_task(task, alternatives="")
            last = find_task(task, len(names), names, alternatives="")
        parents = _tree.read_task_parents(self.task_parents_, names)
        first = _tree.path_to(last, parents)[0]
        if first == last:
            raise ValueError(
                "predict_cvr needs two tasks or more, and a task that presupposes "
                f"another one; {names[last]!r} does not. The tasks are {names}."
            )
        # By logarithms, which are exact where both probabilities are small.
        logits = torch.from_numpy(self._predict_logits(X))
        log_p = torch.nn.functional.logsigmoid(logits)
        cvr = (log_p[:, last] - log_p[:, first]).clamp(max=0).exp()
        return cvr.float().numpy()

    @_checks.accept_any_case_of_y
    def score(
        self, X: Any, Y: Any, sample_weight: npt.ArrayLike | None = None
    ) -> float:
        """Compute the mean ROC AUC over the tasks.

        Not the accuracy: at a click rate of 1 %, predicting no click at all has an
        accuracy of 99 %.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Impressions.
        Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            True labels. With `missing_labels="ignore"`, and in a calibrator, labels may
            be missing; the AUC of that task then leaves out the row.
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

    def predict_logits(self, X: Any) -> np.ndarray:
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

    def predict_frame(self, X: Any) -> Any:
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
        X = _frames.collected(X)
        positive = self._predict_positive(X)
        if _frames.is_polars(X):
            return type(X)(positive, schema=self.task_names_)
        pandas = _extras.import_extra("pandas", "predict_frame")
        index = X.index if isinstance(X, pandas.DataFrame) else None
        return pandas.DataFrame(positive, index=index, columns=self.task_names_)

    def as_shown(self) -> Self:
        """Return a copy that predicts rows as they were shown, not at the reference.

        Predictions of the copy read the columns of `exposure_features`, which `X` must
        then have: the probabilities are those of the log, which its labels are compared
        with. The copy shares the fitted network with the estimator.

        Returns
        -------
        estimator
            A shallow copy, which predicts as the estimator does if it was fitted
            without `exposure_features`.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        """
        check_is_fitted(self)
        shown = copy(self)
        shown._is_shown = True
        return shown

    def task(self, task: int | str) -> "TaskView | Any":
        """Return one task as an ordinary binary classifier, or a value as a regressor.

        Parameters
        ----------
        task : int or str
            The task: its index, its name, or "cvr" for P(last task | first task); or
            the name of a value of `value_tasks`.

        Returns
        -------
        TaskView or ValueView
            Of a fitted estimator it predicts at once; of an unfitted one, `fit` trains
            a clone of the estimator on all tasks. See
            :class:`~sk_pwiser.TaskView` and :class:`~sk_pwiser.ValueView`.

        Raises
        ------
        ValueError
            If the fitted estimator has no such task. A view of an unfitted estimator
            raises it in `fit`.
        TypeError
            If `task` is neither an int nor a str.
        """
        check_task(task, CVR)
        if isinstance(task, str) and task in self._names_of_values():
            return ValueView(self, task)
        if hasattr(self, "task_names_"):
            task_column(task, self.task_names_)
        return TaskView(self, task)

    def _names_of_values(self) -> list[str]:
        """Return the names of the values, of an unfitted estimator as far as known."""
        if hasattr(self, "value_names_"):
            return self.value_names_
        return _amounts.planned_names(getattr(self, "value_tasks", None))

"""Predictions of linear models, with the meaning that the package gives to tasks."""

import numpy as np
from scipy.special import log_expit
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from sk_pwiser.linear_model._targets import check_targets


def _has_binary_tasks(estimator):
    """Raise AttributeError, as for an absent method, if no task is binary."""
    if "binary" not in estimator._task_types():
        raise AttributeError("Only binary tasks have probabilities.")
    return True


class TaskPredictions:
    """Predictions from the linear predictors of the tasks.

    Subclasses have a method `_linear_predictors` that returns logits or values of shape
    (n_samples, n_tasks), and set `_is_binary`, `_is_single` and `classes_` in `fit`.
    """

    def _task_types(self):
        """Return the type of all tasks, or the types of each of them."""
        return "binary"

    def _log_probabilities(self, linear):
        """Return log P(Y_k = 1) from the linear predictors of binary tasks."""
        return log_expit(linear)

    def _binary_log_probabilities(self, X):
        check_is_fitted(self)
        linear = self._linear_predictors(X)
        return self._log_probabilities(linear[:, self._is_binary])

    def predict(self, X):
        """Predict labels of binary tasks, and values of regression tasks.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Features.

        Returns
        -------
        ndarray of shape (n_samples, n_tasks) or (n_samples,)
            Labels where the probability is above 0.5, and values, in the units of `y`
            in `fit`. With tasks of both types all are floats.
        """
        check_is_fitted(self)
        linear = self._linear_predictors(X)
        b = self._is_binary
        is_positive = self._log_probabilities(linear[:, b]) > np.log(0.5)
        if self._is_single:
            return (
                self.classes_[is_positive[:, 0].astype(int)] if b[0] else linear[:, 0]
            )
        if b.all():
            return is_positive.astype(self.classes_.dtype)
        linear[:, b] = is_positive
        return linear

    @available_if(_has_binary_tasks)
    def predict_proba(self, X):
        """Predict probabilities of the binary tasks.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Features.

        Returns
        -------
        ndarray of shape (n_samples, n_binary_tasks)
            Column k is P(Y = 1) for binary task k, in the order of `y`. For a single
            task, the ordinary `(n_samples, 2)` with both classes.
        """
        limits = np.finfo(np.float64)
        p = np.exp(self._binary_log_probabilities(X))
        p = np.clip(p, limits.tiny, 1.0 - limits.epsneg)
        return np.hstack([1.0 - p, p]) if self._is_single else p

    @available_if(_has_binary_tasks)
    def predict_cvr(self, X):
        """Predict P(last task | first task), of the binary tasks.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Features.

        Returns
        -------
        ndarray of shape (n_samples,)
            Probabilities: P(last) / P(first), at most 1.

        Raises
        ------
        ValueError
            If there is only one binary task.
        """
        log_p = self._binary_log_probabilities(X)
        if log_p.shape[1] < 2:
            raise ValueError("predict_cvr needs two binary tasks or more; got 1.")
        return np.exp(np.minimum(log_p[:, -1] - log_p[:, 0], 0.0))

    def score(self, X, y, sample_weight=None):
        """Compute the mean over the tasks of ROC AUC, or R2 of regression tasks.

        Not the accuracy: at a click rate of 1 %, predicting no click at all has an
        accuracy of 99 %.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Features.
        y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            True labels and values; rows with NaN are left out of their task.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        float
            The mean; NaN, with a warning, if a binary task has only one class.
        """
        check_is_fitted(self)
        if self._is_single and self._is_binary[0]:
            y = np.asarray(y).reshape(len(y)) == self.classes_[1]
            values = y[:, np.newaxis].astype(float)
        else:
            types = np.where(self._is_binary, "binary", "regression").tolist()
            values = check_targets(y, types).values
        linear = self._linear_predictors(X)
        return float(
            np.mean(task_scores(values, linear, self._is_binary, sample_weight))
        )


def task_scores(values, linear, is_binary, sample_weight=None):
    """Return ROC AUC of binary tasks and R2 of regression tasks, one per task."""
    scores = []
    for k, binary in enumerate(is_binary):
        rows = ~np.isnan(values[:, k])
        weight = None if sample_weight is None else np.asarray(sample_weight)[rows]
        metric = roc_auc_score if binary else r2_score
        scores.append(metric(values[rows, k], linear[rows, k], sample_weight=weight))
    return np.array(scores)

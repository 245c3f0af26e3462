"""Probabilities, labels and a score from a fitted network."""

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from sk_pwiser._estimator._dataset_predictions import (
    iter_logits,
    probabilities,
    write_predictions,
)
from sk_pwiser._table import reads_in_parts
from sk_pwiser._utils import accept_any_case_of_y, limited_threads
from sk_pwiser.metrics import mean_auc_scorer


class Predictions:
    """The estimator's predictions, all from the one result of its last fit."""

    def _predict_logits(self, X):
        """Return the logits of a table, float32 Tensor of shape (n, n_tasks)."""
        if not hasattr(self, "_result"):
            check_is_fitted(self)
        # Read once: a fit in another thread may set another result meanwhile.
        result = self._result
        with limited_threads():
            if reads_in_parts(X):
                return torch.cat(list(iter_logits(result, X)))
            return result.net.forward(result.schema.transform(X).impressions())

    def _predict_positive(self, X):
        """Return P(Y_k = 1), inside (0, 1): float32 of shape (n_samples, n_tasks)."""
        return probabilities(self._predict_logits(X))

    def predict_proba(self, X, *, output=None):
        """Predict probabilities over impressions.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix, ParquetImpressions} of shape \
                (n_samples, n_features)
            Impressions. The rows of a
            :class:`~sk_pwiser.datasets.ParquetImpressions` are read in parts.
        output : str or os.PathLike, default=None
            Folder for the probabilities of a dataset that is read in parts: one Parquet
            file per file, under the same name and with the same order of rows, with
            one column of P(Y_k = 1 | impression) per task. A file appears when it is
            complete. Files that are there already, from the same fit and rows, are
            kept, so that an interrupted call can be repeated; others are replaced.

        Returns
        -------
        ndarray of shape (n_samples, n_tasks)
            Column k is P(Y_k = 1 | impression). For a single task, the ordinary
            `(n_samples, 2)` with the probabilities of both classes. With `output`, the
            `pathlib.Path` of the folder instead.

        Raises
        ------
        ValueError, TypeError
            If the columns of `X` are not those seen in fit.
        """
        if output is not None:
            check_is_fitted(self)
            with limited_threads():
                return write_predictions(self._result, X, output)
        positive = self._predict_positive(X)
        if self.classes_.ndim == 1:
            return np.hstack([1 - positive, positive])
        return positive

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

    def predict_cvr(self, X):
        """Predict P(last task | first task): the conversion rate of a click.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Impressions.

        Returns
        -------
        ndarray of shape (n_samples,)
            Probabilities: P(last) / P(first), at most 1.

        Raises
        ------
        ValueError
            If the estimator was fitted with a single task.
        """
        check_is_fitted(self)
        if self.n_tasks_ < 2:
            raise ValueError(
                f"predict_cvr needs two tasks or more; this fit has {self.n_tasks_}."
            )
        log_p = torch.nn.functional.logsigmoid(self._predict_logits(X))
        return (log_p[:, -1] - log_p[:, 0]).clamp(max=0).exp().numpy()

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
            True labels. With `missing_labels="ignore"`, those of tasks after the first
            may be missing, and the row takes no part in the AUC of that task.
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

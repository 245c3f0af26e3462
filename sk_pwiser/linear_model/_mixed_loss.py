"""The loss of binary and regression tasks, summed over the tasks."""

import numpy as np
from scipy.special import expit


class MixedLoss:
    """Logistic loss of binary tasks and squared error of regression tasks.

    The sum over the tasks of 2 * mean(logistic loss) or mean(squared error) / 2, each
    mean over the rows of its task. At coefficients of 0 the gradient of both is minus
    the mean product of feature and target, with -1 and 1 as targets of binary tasks:
    the factors 2 and 1/2 make the penalty equally strong for both types.

    Parameters
    ----------
    values : ndarray of shape (n_samples, n_tasks)
        Labels 0 and 1, or values; NaN where the weight is 0.
    weights : ndarray of shape (n_samples, n_tasks)
        Weights of the rows in the mean of each task.
    is_binary : bool ndarray of shape (n_tasks,)
        Which tasks are binary.
    """

    def __init__(self, values, weights, is_binary):
        # Tasks without any weight have a loss of 0.
        totals = weights.sum(axis=0)
        self.weights = weights / np.where(totals > 0, totals, 1.0)
        self.values = np.nan_to_num(values)
        self.is_binary = is_binary
        self._by_type = [
            (function, columns, self.values[:, columns], self.weights[:, columns])
            for function, columns in (
                (log_loss, _columns_where(is_binary)),
                (half_squares, _columns_where(~is_binary)),
            )
            if columns is not None
        ]

    def value(self, linear):
        """Return the loss of logits or predicted values, (n_samples, n_tasks)."""
        return sum(
            np.vdot(weights, function(linear[:, columns], values))
            for function, columns, values, weights in self._by_type
        )

    def gradient(self, linear):
        """Return the derivative in `linear`, of the same shape."""
        residual = np.empty_like(linear)
        for function, columns, values, weights in self._by_type:
            part = DERIVATIVES[function](linear[:, columns], values)
            residual[:, columns] = part * weights
        return residual

    def best_constants(self):
        """Return the logits or values that minimise the loss without features."""
        mean = (self.weights * self.values).sum(axis=0)
        constants = mean.copy()
        b = self.is_binary
        with np.errstate(divide="ignore"):
            constants[b] = np.log(mean[b]) - np.log1p(-mean[b])
        return constants


def log_loss(logits, labels):
    """Return twice the logistic loss."""
    # As fast as possible: half of the time of a fit. log1p(exp(-|z|)) + max(z, 0) is
    # log(1 + exp(z)), without overflow.
    losses = np.abs(logits)
    np.negative(losses, out=losses)
    np.exp(losses, out=losses)
    np.log1p(losses, out=losses)
    losses += np.maximum(logits, 0.0)
    losses -= labels * logits
    losses *= 2.0
    return losses


def half_squares(predicted, values):
    """Return half the squared errors."""
    return 0.5 * (predicted - values) ** 2


DERIVATIVES = {
    log_loss: lambda logits, labels: 2.0 * (expit(logits) - labels),
    half_squares: lambda predicted, values: predicted - values,
}


def _columns_where(chosen):
    """Return what selects columns, a slice without a copy for all, None for none."""
    if chosen.all():
        return slice(None)
    return np.flatnonzero(chosen) if chosen.any() else None

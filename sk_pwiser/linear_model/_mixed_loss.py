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

    def value(self, linear):
        """Return the loss of logits or predicted values, (n_samples, n_tasks)."""
        b, r = self.is_binary, ~self.is_binary
        logistic = np.logaddexp(0.0, linear[:, b]) - self.values[:, b] * linear[:, b]
        squared = (linear[:, r] - self.values[:, r]) ** 2
        return 2.0 * np.vdot(self.weights[:, b], logistic) + 0.5 * np.vdot(
            self.weights[:, r], squared
        )

    def gradient(self, linear):
        """Return the derivative in `linear`, of the same shape."""
        residual = linear - self.values
        b = self.is_binary
        residual[:, b] = 2.0 * (expit(linear[:, b]) - self.values[:, b])
        return self.weights * residual

    def best_constants(self):
        """Return the logits or values that minimise the loss without features."""
        mean = (self.weights * self.values).sum(axis=0)
        constants = mean.copy()
        b = self.is_binary
        with np.errstate(divide="ignore"):
            constants[b] = np.log(mean[b]) - np.log1p(-mean[b])
        return constants

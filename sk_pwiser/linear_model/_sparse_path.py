"""From features and targets to coefficients along a path of penalties."""

from dataclasses import dataclass

import numpy as np
from sklearn.utils import check_array, check_consistent_length

from sk_pwiser.linear_model._columns import Columns, weighted_moments
from sk_pwiser.linear_model._mixed_loss import MixedLoss
from sk_pwiser.linear_model._sparse_solver import Objective, SparseSolver
from sk_pwiser.linear_model._targets import (
    check_targets,
    check_weights,
    find_constant_tasks,
    smoothed_log_odds,
)


@dataclass(frozen=True)
class Settings:
    """Parameters of the problem and of the solver; see `MultiTaskSparseLinear`."""

    l2: float = 0.0
    mean_reg: float = 0.0
    fit_intercept: bool = True
    scale_targets: bool = False
    max_iter: int = 2000
    tol: float = 1e-4


class SparseProblem:
    """Coefficients of given features and targets, for any alpha.

    Parameters
    ----------
    X : ndarray or CSC matrix of shape (n_samples, n_features)
        The features.
    targets : Targets
        What the tasks shall predict.
    weights : ndarray of shape (n_samples, n_tasks)
        Weights of the rows; 0 where a task has no label.
    settings : Settings
        Parameters of the problem and of the solver.
    """

    def __init__(self, X, targets, weights, settings):
        self.is_constant = find_constant_tasks(targets, weights)
        self.task_scale = _task_scale(targets, weights, settings.scale_targets)
        values = targets.values / self.task_scale
        # A constant binary task has its minimum at an infinite intercept. It takes no
        # part, and its intercept is set to log-odds with half a row more per class.
        loss = MixedLoss(values, weights * ~self.is_constant, targets.is_binary)
        start = np.zeros(values.shape[1])
        if settings.fit_intercept:
            odds = smoothed_log_odds(targets, weights)
            start = np.where(self.is_constant, odds, loss.best_constants())
        self.columns = _scaled_columns(X, loss.weights, settings)
        objective = Objective(
            self.columns,
            loss,
            settings.l2,
            settings.mean_reg,
            settings.fit_intercept,
        )
        self.solver = SparseSolver(
            objective, tol=settings.tol, max_iter=settings.max_iter, start=start
        )
        self._scaled = self.solver.null

    def alphas(self, alphas, eps):
        """Return penalties in descending order, a logarithmic grid for an int."""
        if not isinstance(alphas, int | np.integer):
            return np.sort(np.asarray(alphas, dtype=float))[::-1]
        largest = self.solver.alpha_max
        # Without any signal all alphas give the same, empty model.
        largest = largest if largest > 0 else 1.0
        return np.geomspace(largest, eps * largest, alphas)

    def solve(self, alpha):
        """Return the coefficients, the intercepts and the number of steps.

        The solver starts at the solution of the call before.
        """
        self._scaled, n_iter = self.solver.solve(alpha, self._scaled)
        W = self._scaled[:-1] / self.columns.scale[:, np.newaxis]
        intercept = self._scaled[-1] - self.columns.mean @ W
        coef = np.ascontiguousarray(W.T) * self.task_scale[:, np.newaxis]
        if self.is_constant.any():
            coef[self.is_constant] = 0.0
            intercept[self.is_constant] = self._scaled[-1, self.is_constant]
        return coef, intercept * self.task_scale, n_iter


def _task_scale(targets, weights, scale_targets):
    """Return what the values are divided by: 1 for binary tasks."""
    n_tasks = targets.values.shape[1]
    if not scale_targets:
        return np.ones(n_tasks)
    values = np.nan_to_num(targets.values)
    totals = np.maximum(weights.sum(axis=0), np.finfo(float).tiny)
    mean = (weights * values).sum(axis=0) / totals
    deviation = np.sqrt((weights * (values - mean) ** 2).sum(axis=0) / totals)
    return np.where(targets.is_binary | (deviation == 0), 1.0, deviation)


def _scaled_columns(X, weights, settings):
    """Return columns whose curvatures are alike, which FISTA needs to be fast."""
    mean, variance = weighted_moments(X, weights.sum(axis=1) + np.finfo(float).tiny)
    if not settings.fit_intercept:
        variance, mean = variance + mean**2, np.zeros_like(mean)
    square = variance + settings.l2 + settings.mean_reg
    return Columns(X, mean, np.sqrt(np.where(square > 0, square, 1.0)))


def multi_task_sparse_path(
    X,
    y,
    *,
    alphas=10,
    eps=0.01,
    task_types="binary",
    l2=0.0,
    mean_reg=0.0,
    fit_intercept=True,
    scale_targets=False,
    sample_weight=None,
    max_iter=2000,
    tol=1e-4,
):
    """Compute the coefficients of :class:`MultiTaskSparseLinear` for several alphas.

    The alphas are taken from the largest to the smallest, each from the solution of the
    one before.

    Parameters
    ----------
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Features.
    y : array-like of shape (n_samples, n_tasks) or (n_samples,)
        Labels 0 and 1 of binary tasks, values of regression tasks; NaN where one of
        several tasks has no label.
    alphas : int or array-like of shape (n_alphas,), default=10
        The penalties, or their number: then they are spread evenly in the logarithm,
        from the smallest one at which all coefficients are 0 down to `eps` times it.
    eps : float, default=0.01
        The smallest alpha over the largest one, if `alphas` is a number.
    task_types : {"binary", "regression"} or sequence of str, default="binary"
        Type of all tasks, or of each task.
    l2 : float, default=0.0
        Strength of the squared penalty.
    mean_reg : float, default=0.0
        Strength of the penalty on differences between the tasks.
    fit_intercept : bool, default=True
        Whether the tasks have intercepts, which are not penalised.
    scale_targets : bool, default=False
        Whether the values of regression tasks are divided by their standard deviation.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows, >= 0.
    max_iter : int, default=2000
        Largest number of steps per alpha.
    tol : float, default=1e-4
        Tolerance of the optimality conditions.

    Returns
    -------
    alphas : ndarray of shape (n_alphas,)
        The penalties, in descending order.
    coefs : ndarray of shape (n_tasks, n_features, n_alphas)
        The coefficients.
    intercepts : ndarray of shape (n_tasks, n_alphas)
        The intercepts.

    Raises
    ------
    ValueError
        If data or parameters are invalid.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_pwiser.linear_model import multi_task_sparse_path
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((200, 5))
    >>> Y = (X[:, :1] + rng.standard_normal((200, 2)) > 0).astype(int)
    >>> alphas, coefs, _ = multi_task_sparse_path(X, Y, alphas=3, eps=0.04)
    >>> (coefs != 0).any(axis=0).sum(axis=0)  # number of features at each alpha
    array([0, 1, 5])
    """
    X = check_array(X, accept_sparse="csc", dtype=np.float64)
    targets = check_targets(y, task_types)
    check_consistent_length(X, targets.values)
    weights = check_weights(sample_weight, X, targets.values)
    settings = Settings(l2, mean_reg, fit_intercept, scale_targets, max_iter, tol)
    problem = SparseProblem(X, targets, weights, settings)
    alphas = problem.alphas(alphas, eps)
    solutions = [problem.solve(alpha) for alpha in alphas]
    coefs = np.stack([coef for coef, _, _ in solutions], axis=-1)
    return alphas, coefs, np.stack([b for _, b, _ in solutions], axis=-1)

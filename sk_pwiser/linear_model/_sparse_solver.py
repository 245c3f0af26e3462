"""Proximal gradient descent for joint feature selection, on a growing set of features.

The solvers of other packages, such as celer and skglm, do not mix logistic and squared
losses, nor tasks with different labelled rows. FISTA (Beck and Teboulle, 2009) consists
of two matrix products per step, which numpy and scipy compute at full speed.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from scipy.sparse import issparse
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning

from sk_pwiser._utils._warnings import warn_user
from sk_pwiser.linear_model._linear_base import (
    Array,
    Columns,
    LinearTargets,
    find_constant_tasks,
    smoothed_log_odds,
    weighted_moments,
)

# Smallest number of features that the solver starts with.
MIN_WORKING_SET = 64
# A weight or gradient of 0 becomes this one where it is divided by.
TINY = float(np.finfo(float).tiny)


class SparseSettings(Protocol):
    """The parameters of the penalty and of the solver."""

    l2: float
    mean_reg: float
    fit_intercept: bool
    scale_targets: bool
    max_iter: int
    tol: float


class SparseProblem:
    """Coefficients of given features and targets, for any alpha.

    `settings` is an estimator with the parameters of the penalty and of the solver. `V`
    is the last solution for the tasks that are not constant: scaled coefficients, and
    the intercepts in the last row. It starts with coefficients of 0; `alpha_max` is the
    smallest alpha for which they stay 0. The tolerance is relative to the largest
    violation at this start.
    """

    def __init__(
        self, X: Any, targets: LinearTargets, weights: Array, settings: SparseSettings
    ) -> None:
        # The loss of a constant binary task has its minimum at an infinite intercept.
        # Such tasks are left out of the problem: their coefficients are 0, and their
        # intercepts the log-odds with half a row added to each class.
        self.is_solved = ~find_constant_tasks(targets, weights)
        self.task_scale = _task_scale(targets, weights, settings.scale_targets)
        self.constants = np.zeros(len(self.is_solved))
        if settings.fit_intercept:
            totals = np.maximum(weights.sum(axis=0), TINY)
            per_row = (weights > 0).sum(axis=0) / totals  # only their ratios matter
            odds = smoothed_log_odds(targets, weights * per_row)
            self.constants = np.where(self.is_solved, 0.0, odds)
        loss = MixedLoss(
            (targets.values / self.task_scale)[:, self.is_solved],
            weights[:, self.is_solved],
            targets.is_binary[self.is_solved],
        )
        self.columns, self.shift = _scaled_columns(X, loss.weights, settings)
        self.objective = Objective(self.columns, loss, settings)
        self.V = np.zeros((self.columns.n_features + 1, int(self.is_solved.sum())))
        if settings.fit_intercept:
            self.V[-1] = loss.best_constants()
        gradient = self.objective.gradient(self.V, self.objective.predict(self.V))
        # A row of coefficients stays 0 as long as its gradient is at most as long as
        # the threshold alpha / scale.
        norms = np.linalg.norm(gradient[:-1], axis=1)
        self.alpha_max = float(np.max(norms * self.columns.scale, initial=0.0))
        largest = max(float(norms.max(initial=0.0)), TINY)
        self.tol = settings.tol * largest
        self.max_iter = settings.max_iter
        # The bound of FISTA is kept from alpha to alpha: it rarely changes.
        self.curvature = 1.0

    def alphas(self, alphas: int | Sequence[float] | Array, eps: float) -> Array:
        """Return penalties in descending order, a logarithmic grid for an int."""
        if not isinstance(alphas, int | np.integer):
            descending = np.sort(np.asarray(alphas, dtype=float))[::-1]
            is_vector = descending.ndim == 1 and len(descending) > 0
            if not is_vector or not (descending >= 0).all():
                raise ValueError(
                    f"alphas must be numbers >= 0; got {descending.tolist()}."
                )
            return descending
        # If no feature has an effect, all alphas give the same, empty model.
        largest = self.alpha_max if self.alpha_max > 0 else 1.0
        return np.geomspace(largest, eps * largest, alphas)

    def solve(self, alpha: float) -> tuple[Array, Array, int]:
        """Return coefficients, intercepts and steps, starting at the last solution."""
        # The coefficients are divided by the scale, and so are the rows' penalties.
        thresholds = np.append(alpha / self.columns.scale, 0.0)
        n_iter = 0
        linear = self.objective.predict(self.V)
        while True:
            gradient = self.objective.gradient(self.V, linear)
            # Over all features, so that the stopping rule does not depend on the
            # working set.
            violation = optimality_violation(self.V, gradient, thresholds)
            worst = violation.max()
            if worst <= self.tol:
                break
            if n_iter >= self.max_iter:
                warn_user(
                    f"After max_iter={self.max_iter} steps the optimality conditions "
                    f"are violated by {worst / self.tol:.1f} times the tolerance. "
                    "Increase max_iter or tol.",
                    ConvergenceWarning,
                )
                break
            # Early sets of features are too small to be worth an exact solution.
            inner_tol = max(0.1 * worst, 0.3 * self.tol)
            features = working_set(self.V, violation)
            objective = self.objective
            rows: slice | Array = slice(None)
            if len(features) < self.columns.n_features:
                objective = self.objective.select(features)
                rows = np.append(features, len(self.V) - 1)
            self.V[rows], linear, n_steps, self.curvature = fista(
                objective,
                self.V[rows],
                thresholds=thresholds[rows],
                curvature=self.curvature,
                tol=inner_tol,
                max_iter=self.max_iter - n_iter,
            )
            n_iter += n_steps
        W = self.V[:-1] / self.columns.scale[:, np.newaxis]
        intercept = self.constants.copy()
        # From centred columns back to the columns of the user.
        intercept[self.is_solved] = self.V[-1] - (self.columns.mean + self.shift) @ W
        coef = np.zeros((len(intercept), self.columns.n_features))
        coef[self.is_solved] = W.T
        scale = self.task_scale
        return coef * scale[:, np.newaxis], intercept * scale, n_iter


def _task_scale(targets: LinearTargets, weights: Array, scale_targets: bool) -> Array:
    """Return the divisors of the values: 1 for binary tasks."""
    n_tasks = targets.values.shape[1]
    if not scale_targets:
        return np.ones(n_tasks)
    values = np.nan_to_num(targets.values)
    totals = np.maximum(weights.sum(axis=0), TINY)
    mean = (weights * values).sum(axis=0) / totals
    deviation = np.sqrt((weights * (values - mean) ** 2).sum(axis=0) / totals)
    return np.where(targets.is_binary | (deviation == 0), 1.0, deviation)


def _scaled_columns(
    X: Any, weights: Array, settings: SparseSettings
) -> tuple[Columns, Array]:
    """Return columns of similar curvatures, with which FISTA converges fast.

    The second result is what was subtracted from the columns: the mean, where it is a
    thousand deviations or more. Otherwise its rounding errors would exceed small steps.
    """
    mean, variance = weighted_moments(X, weights.sum(axis=1) + TINY)
    if not settings.fit_intercept:
        variance = variance + mean**2
        mean = np.zeros_like(mean)
    shift = np.zeros_like(mean)
    if not issparse(X):
        is_far = (variance > 0) & (mean**2 > 1e6 * variance)
        shift = np.where(is_far, mean, 0.0)
        mean = mean - shift
        if is_far.any():
            X = X - shift
    # The curvature of a column: that of the loss and of the squared penalties.
    square = variance + settings.l2 + settings.mean_reg
    return Columns(X, mean, np.sqrt(np.where(square > 0, square, 1.0))), shift


class MixedLoss:
    """Logistic loss of binary tasks and squared error of regression tasks.

    It is the sum over the tasks of 2 * mean(logistic loss) or mean(squared error) / 2.
    At coefficients of 0 both have the same gradient, minus the mean product of feature
    and target, so that the penalty is equally strong for both types.
    """

    def __init__(self, values: Array, weights: Array, is_binary: Array) -> None:
        # The loss of a task whose weights are all 0 is 0.
        totals = weights.sum(axis=0)
        self.weights = weights / np.where(totals > 0, totals, 1.0)
        self.values = np.nan_to_num(values)
        self.binary = _columns_of_type(is_binary)
        self.regression = _columns_of_type(~is_binary)

    def value(self, linear: Array) -> Any:
        """Return the loss of logits or predicted values, (n_samples, n_tasks)."""
        b = self.binary
        r = self.regression
        losses = np.empty_like(linear)
        losses[:, b] = log_loss(linear[:, b], self.values[:, b])
        losses[:, r] = 0.5 * (linear[:, r] - self.values[:, r]) ** 2
        return np.vdot(self.weights, losses)

    def gradient(self, linear: Array) -> Array:
        """Return the derivative in `linear`, of the same shape."""
        b = self.binary
        residual = linear - self.values
        residual[:, b] = 2.0 * (expit(linear[:, b]) - self.values[:, b])
        return residual * self.weights

    def best_constants(self) -> Array:
        """Return the logits or values that minimise the loss without features."""
        mean = (self.weights * self.values).sum(axis=0)
        constants = mean.copy()
        b = self.binary
        with np.errstate(divide="ignore"):
            constants[b] = np.log(mean[b]) - np.log1p(-mean[b])
        return constants


def _columns_of_type(is_of_type: Array) -> slice | Array:
    """Return the columns of a type of task; a slice of all makes no copy."""
    return slice(None) if is_of_type.all() else np.flatnonzero(is_of_type)


def log_loss(logits: Array, labels: Array) -> Array:
    """Return twice the logistic loss."""
    # In place, since half of the time of a fit is spent here.
    # log1p(exp(-|z|)) + max(z, 0) is log(1 + exp(z)), without overflow.
    losses: Array = np.abs(logits)
    np.negative(losses, out=losses)
    np.exp(losses, out=losses)
    np.log1p(losses, out=losses)
    losses += np.maximum(logits, 0.0)
    losses -= labels * logits
    losses *= 2.0
    return losses


class Objective:
    """The differentiable part of the problem, in scaled coefficients.

    V, (n_features + 1, n_tasks), has ``scale * W`` and the intercepts in the last row.
    """

    def __init__(
        self, columns: Columns, loss: MixedLoss, settings: SparseSettings
    ) -> None:
        self.columns = columns
        self.loss = loss
        self.settings = settings

    def predict(self, V: Array) -> Array:
        """Return the logits or values of the tasks, (n_samples, n_tasks)."""
        linear: Array = self.columns.dot(V[:-1]) + V[-1]
        return linear

    def value(self, V: Array, linear: Array) -> Any:
        """Return the value at V, where `linear` is ``predict(V)``."""
        W, difference = self._penalised(V)
        l2_penalty = self.settings.l2 * np.vdot(W, W)
        mean_penalty = self.settings.mean_reg * np.vdot(difference, difference)
        return self.loss.value(linear) + 0.5 * (l2_penalty + mean_penalty)

    def gradient(self, V: Array, linear: Array) -> Array:
        """Return the gradient at V, of the shape of V."""
        settings = self.settings
        residual = self.loss.gradient(linear)
        W, difference = self._penalised(V)
        scale = self.columns.scale[:, np.newaxis]
        gradient = np.empty_like(V)
        gradient[:-1] = self.columns.transposed_dot(residual)
        gradient[:-1] += (settings.l2 * W + settings.mean_reg * difference) / scale
        gradient[-1] = residual.sum(axis=0) if settings.fit_intercept else 0.0
        return gradient

    def select(self, features: Array) -> "Objective":
        return Objective(self.columns.select(features), self.loss, self.settings)

    def _penalised(self, V: Array) -> tuple[Array, Array]:
        """Return the coefficients, and their differences from the mean of the tasks."""
        W = V[:-1] / self.columns.scale[:, np.newaxis]
        # Without a task that can be solved, `mean` would warn.
        mean = W.sum(axis=1, keepdims=True) / max(1, W.shape[1])
        return W, W - mean


def optimality_violation(V: Array, gradient: Array, thresholds: Array) -> Array:
    """Return, per row, the distance of minus the gradient to the subdifferential.

    For a row v with threshold t this is ``||g + t v / ||v||||`` if v is not 0, and
    ``max(||g|| - t, 0)`` otherwise.
    """
    norms: Array = np.linalg.norm(V, axis=1)
    is_active = norms > 0
    direction = V[is_active] / norms[is_active, np.newaxis]
    violation = np.linalg.norm(gradient, axis=1) - thresholds
    violation[is_active] = np.linalg.norm(
        gradient[is_active] + thresholds[is_active, np.newaxis] * direction, axis=1
    )
    return np.asarray(np.maximum(violation, 0.0))


def working_set(V: Array, violation: Array) -> Array:
    """Return the features to optimise: all in use, and the worst violations."""
    is_active = np.any(V[:-1], axis=1)
    n_features = len(is_active)
    # Twice the features in use, so that few rounds add all that are needed.
    size = max(2 * int(is_active.sum()), MIN_WORKING_SET)
    if 2 * size > n_features:
        return np.arange(n_features)
    order = np.argsort(np.where(is_active, np.inf, violation[:-1]), kind="stable")
    chosen = order[-size:]
    return np.sort(chosen[is_active[chosen] | (violation[chosen] > 0)])


def shrink_rows(V: Array, thresholds: Array) -> Array:
    """Shorten each row by its threshold, at most to 0: the proximal operator."""
    norms: Array = np.linalg.norm(V, axis=1)
    shortened = np.maximum(norms - thresholds, 0.0)
    factor = np.divide(shortened, norms, out=np.zeros_like(norms), where=norms > 0)
    return V * factor[:, np.newaxis]


def fista(
    objective: Objective,
    V: Array,
    *,
    thresholds: Array,
    curvature: float,
    tol: float,
    max_iter: int,
) -> tuple[Array, Array, int, float]:
    """Minimise by accelerated proximal gradient steps with adaptive restarts.

    The bound of the curvature is doubled until it holds. The momentum is set to 0
    whenever it points uphill (O'Donoghue and Candes, 2015). Returns the coefficients,
    their predictions, the number of steps and the bound.
    """
    linear = objective.predict(V)
    point = V
    point_linear = linear
    momentum = 1.0
    n_steps = 0
    while n_steps < max_iter:
        n_steps += 1
        value = objective.value(point, point_linear)
        gradient = objective.gradient(point, point_linear)
        # Differences below the rounding error are noise.
        slack = 1e-13 * abs(value)
        while True:
            new = shrink_rows(point - gradient / curvature, thresholds / curvature)
            new_linear = objective.predict(new)
            step = new - point
            square = np.vdot(step, step)
            # The quadratic model that must lie above the objective, equation 2.6 there.
            model = value + np.vdot(gradient, step) + 0.5 * curvature * square
            bound = model + slack
            if objective.value(new, new_linear) <= bound:
                break
            curvature *= 2.0
        move = new - V
        linear_move = new_linear - linear
        V = new
        linear = new_linear
        if curvature * np.linalg.norm(step, axis=1).max() <= tol:
            break
        if np.vdot(step, move) < 0:
            momentum = 1.0
            weight = 0.0
        else:
            # Equations 4.2 and 4.3 of Beck and Teboulle (2009).
            next_momentum = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * momentum**2))
            weight = (momentum - 1.0) / next_momentum
            momentum = next_momentum
        point = V + weight * move
        point_linear = linear + weight * linear_move
    return V, linear, n_steps, curvature

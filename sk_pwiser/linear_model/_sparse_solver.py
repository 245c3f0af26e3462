"""Proximal gradient descent for joint feature selection, on a growing set of features.

The solvers of other packages do not cover this problem. celer and the multi-task solver
of skglm minimise squared errors of tasks that share all rows. The losses that skglm has
for groups of coefficients take one type of target for the whole problem, so that they
cannot mix logistic and squared losses; a further loss would have to be compiled with
numba, which would be a new dependency. FISTA (Beck and Teboulle, 2009) consists of two
matrix products per step, which numpy and scipy compute at full speed.
"""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning

# Smallest number of features that the solver starts with.
MIN_WORKING_SET = 64


class Objective:
    """The differentiable part of the problem, in scaled coefficients.

    The coefficients V of shape (n_features + 1, n_tasks) are those of the scaled
    columns, with the intercepts in the last row: ``V[:-1] = scale * W``.

    Parameters
    ----------
    columns : Columns
        Centred and scaled features.
    loss : MixedLoss
        The loss of the tasks.
    l2 : float
        Penalty ``l2 / 2 * ||W||^2``.
    mean_reg : float
        Penalty ``mean_reg / 2 * ||W - mean over the tasks||^2``.
    fit_intercept : bool
        Whether the intercepts change.
    """

    def __init__(self, columns, loss, l2=0.0, mean_reg=0.0, fit_intercept=True):
        self.columns, self.loss = columns, loss
        self.l2, self.mean_reg = l2, mean_reg
        self.fit_intercept = fit_intercept

    def predict(self, V):
        """Return the logits or values of the tasks, (n_samples, n_tasks)."""
        return self.columns.dot(V[:-1]) + V[-1]

    def value(self, V, linear):
        """Return the value at V, where `linear` is ``predict(V)``."""
        W, apart = self._penalised(V)
        penalty = self.l2 * np.vdot(W, W) + self.mean_reg * np.vdot(apart, apart)
        return self.loss.value(linear) + 0.5 * penalty

    def gradient(self, V, linear):
        """Return the gradient at V, of the shape of V."""
        residual = self.loss.gradient(linear)
        W, apart = self._penalised(V)
        scale = self.columns.scale[:, np.newaxis]
        gradient = np.empty_like(V)
        gradient[:-1] = self.columns.transposed_dot(residual)
        gradient[:-1] += (self.l2 * W + self.mean_reg * apart) / scale
        gradient[-1] = residual.sum(axis=0) if self.fit_intercept else 0.0
        return gradient

    def select(self, features):
        """Return the objective of some of the features."""
        columns = self.columns.select(features)
        return Objective(columns, self.loss, self.l2, self.mean_reg, self.fit_intercept)

    def _penalised(self, V):
        W = V[:-1] / self.columns.scale[:, np.newaxis]
        return W, W - W.mean(axis=1, keepdims=True)


class SparseSolver:
    """Minimises an objective plus ``alpha`` times the sum of the rows' norms.

    Parameters
    ----------
    objective : Objective
        The differentiable part.
    tol : float
        Largest violation of the optimality conditions, in the scale of V, relative to
        the largest one at coefficients of 0.
    max_iter : int
        Largest number of steps of one call of `solve`.

    Attributes
    ----------
    alpha_max : float
        The least alpha at which all coefficients are 0.
    """

    def __init__(self, objective, *, tol, max_iter, start):
        self.objective = objective
        self.max_iter = max_iter
        self.null = np.zeros((objective.columns.n_features + 1, len(start)))
        self.null[-1] = start
        gradient = objective.gradient(self.null, objective.predict(self.null))[:-1]
        norms = np.linalg.norm(gradient, axis=1)
        self.alpha_max = float(np.max(norms * objective.columns.scale, initial=0.0))
        self.tol = tol * max(float(norms.max(initial=0.0)), np.finfo(float).tiny)
        self.curvature = 1.0

    def solve(self, alpha, V):
        """Return the minimiser and the number of steps.

        Parameters
        ----------
        alpha : float
            Strength of the penalty.
        V : ndarray of shape (n_features + 1, n_tasks)
            Where to start.

        Warns
        -----
        ConvergenceWarning
            If `max_iter` steps do not suffice.
        """
        # Coefficients are divided by the scale, and so is the penalty of a row.
        thresholds = np.append(alpha / self.objective.columns.scale, 0.0)
        n_iter = 0
        linear = self.objective.predict(V)
        while True:
            gradient = self.objective.gradient(V, linear)
            violation = optimality_violation(V, gradient, thresholds)
            worst = violation.max()
            if worst <= self.tol:
                return V, n_iter
            if n_iter >= self.max_iter:
                warnings.warn(
                    f"After max_iter={self.max_iter} steps the optimality conditions "
                    f"are violated by {worst / self.tol:.1f} times the tolerance. "
                    "Increase max_iter or tol.",
                    ConvergenceWarning,
                    stacklevel=2,
                )
                return V, n_iter
            # Exact solutions of early, too small sets of features would be in vain.
            inner_tol = max(0.1 * worst, 0.3 * self.tol)
            features = working_set(V, violation)
            V, linear, n_steps = self._solve_for(
                features, V, thresholds, inner_tol, self.max_iter - n_iter
            )
            n_iter += n_steps

    def _solve_for(self, features, V, thresholds, tol, max_iter):
        """Run FISTA on some features; those outside are 0."""
        if len(features) == len(V) - 1:
            part, rows = self.objective, slice(None)
        else:
            part = self.objective.select(features)
            rows = np.append(features, len(V) - 1)
        V = V.copy()
        V[rows], linear, n_steps, self.curvature = fista(
            part, V[rows], thresholds[rows], self.curvature, tol, max_iter
        )
        return V, linear, n_steps


def optimality_violation(V, gradient, thresholds):
    """Return, per row, the distance of minus the gradient to the subdifferential.

    For a row v with threshold t this is ``||g + t v / ||v||||`` if v is not 0, and
    ``max(||g|| - t, 0)`` otherwise.
    """
    norms = np.linalg.norm(V, axis=1)
    is_active = norms > 0
    direction = V[is_active] / norms[is_active, np.newaxis]
    violation = np.linalg.norm(gradient, axis=1) - thresholds
    violation[is_active] = np.linalg.norm(
        gradient[is_active] + thresholds[is_active, np.newaxis] * direction, axis=1
    )
    return np.maximum(violation, 0.0)


def working_set(V, violation):
    """Return the features to optimise: those in use and the worst violations."""
    is_active = V[:-1].any(axis=1)
    n_features = len(is_active)
    size = max(2 * int(is_active.sum()), MIN_WORKING_SET)
    if 2 * size > n_features:
        return np.arange(n_features)
    order = np.argsort(np.where(is_active, np.inf, violation[:-1]), kind="stable")
    chosen = order[-size:]
    return np.sort(chosen[is_active[chosen] | (violation[chosen] > 0)])


def shrink_rows(V, thresholds):
    """Shorten each row by its threshold, to 0 at least: the proximal operator."""
    norms = np.linalg.norm(V, axis=1)
    kept = np.maximum(norms - thresholds, 0.0)
    factor = np.divide(kept, norms, out=np.zeros_like(norms), where=norms > 0)
    return V * factor[:, np.newaxis]


def fista(objective, V, thresholds, curvature, tol, max_iter):
    """Minimise by accelerated proximal gradient steps with adaptive restarts.

    The step length is the inverse of a bound of the curvature, which is doubled until
    it holds. The momentum is dropped whenever it points uphill (O'Donoghue and Candes,
    2015).

    Returns
    -------
    V, linear, n_steps, curvature
        The coefficients, their predictions, the number of steps and the bound.
    """
    linear = objective.predict(V)
    point, point_linear, momentum = V, linear, 1.0
    n_steps = 0
    while n_steps < max_iter:
        n_steps += 1
        value = objective.value(point, point_linear)
        gradient = objective.gradient(point, point_linear)
        # Differences of values below the rounding error mean nothing.
        slack = 1e-13 * abs(value)
        while True:
            new = shrink_rows(point - gradient / curvature, thresholds / curvature)
            new_linear = objective.predict(new)
            step = new - point
            square = np.vdot(step, step)
            bound = value + np.vdot(gradient, step) + 0.5 * curvature * square + slack
            if objective.value(new, new_linear) <= bound:
                break
            curvature *= 2.0
        move, linear_move = new - V, new_linear - linear
        V, linear = new, new_linear
        if curvature * np.linalg.norm(step, axis=1).max() <= tol:
            break
        if np.vdot(step, move) < 0:
            momentum, weight = 1.0, 0.0
        else:
            following = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * momentum**2))
            momentum, weight = following, (momentum - 1.0) / following
        point, point_linear = V + weight * move, linear + weight * linear_move
    return V, linear, n_steps, curvature

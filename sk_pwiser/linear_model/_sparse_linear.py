"""Joint feature selection for binary and regression tasks.

The solvers of other packages, such as celer and skglm, do not mix logistic and squared
losses, nor tasks with different labelled rows. FISTA (Beck and Teboulle, 2009) consists
of two matrix products per step, which numpy and scipy compute at full speed. It runs on
a growing set of features.
"""

from dataclasses import replace
from functools import partial
from numbers import Integral, Real
from typing import ClassVar

import numpy as np
from scipy.sparse import issparse
from scipy.special import expit
from sklearn.base import BaseEstimator, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, check_cv
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import (
    Interval,
    StrOptions,
    validate_parameter_constraints,
)
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import validate_data

from sk_pwiser._table._frames import collected
from sk_pwiser._table._labels import MISSING_LABELS, names_of_columns
from sk_pwiser._utils import accept_any_case_of_y, warn_user
from sk_pwiser.linear_model._linear_base import (
    TASK_TYPES,
    Columns,
    LinearPredictions,
    find_constant_tasks,
    label_weights,
    read_features,
    read_targets,
    smoothed_log_odds,
    task_scores,
    weighted_moments,
)
from sk_pwiser.model_selection import FunnelStratifiedKFold

# Smallest number of features that the solver starts with.
MIN_WORKING_SET = 64


class SparseProblem:
    """Coefficients of given features and targets, for any alpha.

    `settings` is an estimator with the parameters of the penalty and of the solver. `V`
    is the last solution for the tasks that are not constant: scaled coefficients, and
    the intercepts in the last row. It starts with coefficients of 0; `alpha_max` is the
    smallest alpha for which they stay 0. The tolerance is relative to the largest
    violation at this start.
    """

    def __init__(self, X, targets, weights, settings):
        # The loss of a constant binary task has its minimum at an infinite intercept.
        # Such tasks are left out of the problem: their coefficients are 0, and their
        # intercepts the log-odds with half a row added to each class.
        self.is_solved = ~find_constant_tasks(targets, weights)
        self.task_scale = _task_scale(targets, weights, settings.scale_targets)
        self.constants = np.zeros(len(self.is_solved))
        if settings.fit_intercept:
            odds = smoothed_log_odds(targets, weights)
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
        largest = max(float(norms.max(initial=0.0)), np.finfo(float).tiny)
        self.tol, self.max_iter = settings.tol * largest, settings.max_iter
        # The bound of FISTA is kept from alpha to alpha: it rarely changes.
        self.curvature = 1.0

    def alphas(self, alphas, eps):
        """Return penalties in descending order, a logarithmic grid for an int."""
        if not isinstance(alphas, int | np.integer):
            alphas = np.sort(np.asarray(alphas, dtype=float))[::-1]
            if alphas.ndim != 1 or not len(alphas) or not (alphas >= 0).all():
                raise ValueError(f"alphas must be numbers >= 0; got {alphas.tolist()}.")
            return alphas
        # If no feature has an effect, all alphas give the same, empty model.
        largest = self.alpha_max if self.alpha_max > 0 else 1.0
        return np.geomspace(largest, eps * largest, alphas)

    def solve(self, alpha):
        """Return coefficients, intercepts and steps, starting at the last solution."""
        n_iter = self._minimise(alpha)
        W = self.V[:-1] / self.columns.scale[:, np.newaxis]
        intercept = self.constants.copy()
        # From centred columns back to the columns of the user.
        intercept[self.is_solved] = self.V[-1] - (self.columns.mean + self.shift) @ W
        coef = np.zeros((len(intercept), self.columns.n_features))
        coef[self.is_solved] = W.T
        scale = self.task_scale
        return coef * scale[:, np.newaxis], intercept * scale, n_iter

    def _minimise(self, alpha):
        """Set the minimiser for an alpha, and return the number of steps."""
        # The coefficients are divided by the scale, and so are the rows' penalties.
        thresholds = np.append(alpha / self.columns.scale, 0.0)
        n_iter, linear = 0, self.objective.predict(self.V)
        while True:
            gradient = self.objective.gradient(self.V, linear)
            # Over all features, so that the stopping rule does not depend on the
            # working set.
            violation = optimality_violation(self.V, gradient, thresholds)
            worst = violation.max()
            if worst <= self.tol:
                return n_iter
            if n_iter >= self.max_iter:
                warn_user(
                    f"After max_iter={self.max_iter} steps the optimality conditions "
                    f"are violated by {worst / self.tol:.1f} times the tolerance. "
                    "Increase max_iter or tol.",
                    ConvergenceWarning,
                )
                return n_iter
            # Early sets of features are too small to be worth an exact solution.
            inner_tol = max(0.1 * worst, 0.3 * self.tol)
            features = working_set(self.V, violation)
            part, rows = self.objective, slice(None)
            if len(features) < self.columns.n_features:
                part = self.objective.select(features)
                rows = np.append(features, len(self.V) - 1)
            start = self.V[rows], thresholds[rows], self.curvature
            self.V[rows], linear, n_steps, self.curvature = fista(
                part, *start, inner_tol, self.max_iter - n_iter
            )
            n_iter += n_steps


def _task_scale(targets, weights, scale_targets):
    """Return the divisors of the values: 1 for binary tasks."""
    n_tasks = targets.values.shape[1]
    if not scale_targets:
        return np.ones(n_tasks)
    values = np.nan_to_num(targets.values)
    totals = np.maximum(weights.sum(axis=0), np.finfo(float).tiny)
    mean = (weights * values).sum(axis=0) / totals
    deviation = np.sqrt((weights * (values - mean) ** 2).sum(axis=0) / totals)
    return np.where(targets.is_binary | (deviation == 0), 1.0, deviation)


def _scaled_columns(X, weights, settings):
    """Return columns of similar curvatures, with which FISTA converges fast.

    The second result is what was subtracted from the columns: the mean, where it is a
    thousand deviations or more. Otherwise its rounding errors would exceed small steps.
    """
    mean, variance = weighted_moments(X, weights.sum(axis=1) + np.finfo(float).tiny)
    if not settings.fit_intercept:
        variance, mean = variance + mean**2, np.zeros_like(mean)
    shift = np.zeros_like(mean)
    if not issparse(X):
        is_far = (variance > 0) & (mean**2 > 1e6 * variance)
        shift = np.where(is_far, mean, 0.0)
        X, mean = X - shift if shift.any() else X, mean - shift
    # The curvature of a column: that of the loss and of the squared penalties.
    square = variance + settings.l2 + settings.mean_reg
    return Columns(X, mean, np.sqrt(np.where(square > 0, square, 1.0))), shift


class MixedLoss:
    """Logistic loss of binary tasks and squared error of regression tasks.

    It is the sum over the tasks of 2 * mean(logistic loss) or mean(squared error) / 2.
    At coefficients of 0 both have the same gradient, minus the mean product of feature
    and target, so that the penalty is equally strong for both types.
    """

    def __init__(self, values, weights, is_binary):
        # The loss of a task whose weights are all 0 is 0.
        totals = weights.sum(axis=0)
        self.weights = weights / np.where(totals > 0, totals, 1.0)
        self.values = np.nan_to_num(values)
        # The columns of each type; a slice of all makes no copy.
        self.binary, self.regression = (
            slice(None) if chosen.all() else np.flatnonzero(chosen)
            for chosen in (is_binary, ~is_binary)
        )

    def value(self, linear):
        """Return the loss of logits or predicted values, (n_samples, n_tasks)."""
        b, r, losses = self.binary, self.regression, np.empty_like(linear)
        losses[:, b] = log_loss(linear[:, b], self.values[:, b])
        losses[:, r] = 0.5 * (linear[:, r] - self.values[:, r]) ** 2
        return np.vdot(self.weights, losses)

    def gradient(self, linear):
        """Return the derivative in `linear`, of the same shape."""
        residual, b = linear - self.values, self.binary
        residual[:, b] = 2.0 * (expit(linear[:, b]) - self.values[:, b])
        return residual * self.weights

    def best_constants(self):
        """Return the logits or values that minimise the loss without features."""
        mean = (self.weights * self.values).sum(axis=0)
        constants = mean.copy()
        b = self.binary
        with np.errstate(divide="ignore"):
            constants[b] = np.log(mean[b]) - np.log1p(-mean[b])
        return constants


def log_loss(logits, labels):
    """Return twice the logistic loss."""
    # In place, since half of the time of a fit is spent here.
    # log1p(exp(-|z|)) + max(z, 0) is log(1 + exp(z)), without overflow.
    losses = np.abs(logits)
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

    def __init__(self, columns, loss, settings):
        self.columns, self.loss, self.settings = columns, loss, settings

    def predict(self, V):
        """Return the logits or values of the tasks, (n_samples, n_tasks)."""
        return self.columns.dot(V[:-1]) + V[-1]

    def value(self, V, linear):
        """Return the value at V, where `linear` is ``predict(V)``."""
        W, apart = self._penalised(V)
        l2, mean_reg = self.settings.l2, self.settings.mean_reg
        penalty = l2 * np.vdot(W, W) + mean_reg * np.vdot(apart, apart)
        return self.loss.value(linear) + 0.5 * penalty

    def gradient(self, V, linear):
        """Return the gradient at V, of the shape of V."""
        settings, residual = self.settings, self.loss.gradient(linear)
        W, apart = self._penalised(V)
        scale = self.columns.scale[:, np.newaxis]
        gradient = np.empty_like(V)
        gradient[:-1] = self.columns.transposed_dot(residual)
        gradient[:-1] += (settings.l2 * W + settings.mean_reg * apart) / scale
        gradient[-1] = residual.sum(axis=0) if settings.fit_intercept else 0.0
        return gradient

    def select(self, features):
        return Objective(self.columns.select(features), self.loss, self.settings)

    def _penalised(self, V):
        W = V[:-1] / self.columns.scale[:, np.newaxis]
        # Without a task that can be solved, `mean` would warn.
        return W, W - W.sum(axis=1, keepdims=True) / max(1, W.shape[1])


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
    """Return the features to optimise: all in use, and the worst violations."""
    is_active = V[:-1].any(axis=1)
    n_features = len(is_active)
    # Twice the features in use, so that few rounds add all that are needed.
    size = max(2 * int(is_active.sum()), MIN_WORKING_SET)
    if 2 * size > n_features:
        return np.arange(n_features)
    order = np.argsort(np.where(is_active, np.inf, violation[:-1]), kind="stable")
    chosen = order[-size:]
    return np.sort(chosen[is_active[chosen] | (violation[chosen] > 0)])


def shrink_rows(V, thresholds):
    """Shorten each row by its threshold, at most to 0: the proximal operator."""
    norms = np.linalg.norm(V, axis=1)
    kept = np.maximum(norms - thresholds, 0.0)
    factor = np.divide(kept, norms, out=np.zeros_like(norms), where=norms > 0)
    return V * factor[:, np.newaxis]


def fista(objective, V, thresholds, curvature, tol, max_iter):
    """Minimise by accelerated proximal gradient steps with adaptive restarts.

    The bound of the curvature is doubled until it holds. The momentum is set to 0
    whenever it points uphill (O'Donoghue and Candes, 2015). Returns the coefficients,
    their predictions, the number of steps and the bound.
    """
    linear = objective.predict(V)
    point, point_linear, momentum = V, linear, 1.0
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
            # Equations 4.2 and 4.3 of Beck and Teboulle (2009).
            following = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * momentum**2))
            momentum, weight = following, (momentum - 1.0) / following
        point, point_linear = V + weight * move, linear + weight * linear_move
    return V, linear, n_steps, curvature


NOT_NEGATIVE = Interval(Real, 0, None, closed="left")
SPARSE_CONSTRAINTS = {
    "task_types": [StrOptions(set(TASK_TYPES)), "array-like"],
    "missing_labels": [StrOptions(set(MISSING_LABELS))],
    "l2": [NOT_NEGATIVE],
    "mean_reg": [NOT_NEGATIVE],
    "fit_intercept": ["boolean"],
    "scale_targets": ["boolean"],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "tol": [Interval(Real, 0, None, closed="neither")],
}
PATH_CONSTRAINTS = {
    "alphas": [Interval(Integral, 1, None, closed="left"), "array-like"],
    "eps": [Interval(Real, 0, 1, closed="neither")],
}


class SparseLinearBase(LinearPredictions, BaseEstimator):
    """The common part of the estimators with a given and a cross-validated alpha."""

    _min_samples = 1

    @accept_any_case_of_y
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        """Fit the coefficients of all tasks.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Features.
        y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            Labels 0 and 1 of binary tasks, or any two labels of a single one; values of
            regression tasks.
        sample_weight : array-like of shape (n_samples,) or (n_samples, n_tasks), \
                default=None
            Weights of the rows, or of the rows and tasks, >= 0. Only the ratios within
            a task matter, since its loss is a mean. A row of weight 0 takes no part in
            the task. A choice of alpha weights the scores, too.

        Returns
        -------
        estimator : object of this class
            The fitted estimator.

        Raises
        ------
        ValueError, TypeError
            If data or parameters are invalid, or if alpha is to be chosen and no fold
            has a score. An earlier fit stays usable.

        Warns
        -----
        ConvergenceWarning
            If `max_iter` is reached.
        """
        X, y = collected(X), collected(y)
        rows = self._read_rows(X, y, sample_weight)
        (coef, intercept, n_iter), found = self._fit(*rows, X, y)
        # Attributes are set after the fit has succeeded.
        validate_data(self, X, skip_check_array=True)
        self._set_targets(rows[1])
        self.coef_, self.intercept_ = coef, intercept
        self.n_iter_ = max(n_iter, 1)
        vars(self).update(found)
        return self

    def _read_rows(self, X, y, sample_weight):
        """Return features, targets and weights, checked."""
        features = read_features(
            X, ensure_min_samples=self._min_samples, estimator=self
        )
        targets = read_targets(y, self.task_types, self.missing_labels)
        return features, targets, label_weights(sample_weight, X, y, targets)

    def _linear_predictors(self, X):
        features = self._read(X, partial(read_features, accept_sparse=("csr", "csc")))
        return features @ self.coef_.T + self.intercept_


class MultiTaskSparseLinear(SparseLinearBase):
    """Linear model of several tasks that use the same few features.

    The loss is logistic for binary tasks, such as click and conversion, and the squared
    error for regression tasks, such as the order value. A feature has a coefficient for
    every task or for none, since the penalty is the sum over the features of the
    Euclidean norm of their coefficients. Let w_k be the coefficients of task k, n_k its
    number of labelled rows and w^j the coefficients of feature j. The objective is

        sum over binary k of (2 / n_k) sum_i log(1 + exp(-y_ik x_i'w_k))
        + sum over regression k of (1 / (2 n_k)) sum_i (y_ik - x_i'w_k)^2
        + alpha sum_j ||w^j|| + (mean_reg / 2) sum_k ||w_k - mean_l w_l||^2
        + (l2 / 2) sum_k ||w_k||^2,

    where y is -1 or 1 in the logistic loss. With the factors 2 and 1/2, features of
    both types of task enter the model at the same alpha. Intercepts are not penalised.

    Parameters
    ----------
    alpha : float, default=0.01
        Strength of the penalty that selects features, >= 0. Above a limit all
        coefficients are 0; :func:`multi_task_sparse_path` starts there.
    task_types : {"binary", "regression"} or sequence of str, default="binary"
        Type of all tasks, or of each task.
    missing_labels : {"error", "ignore"}, default="error"
        Whether labels and values may be missing (NaN in `y`), in any task but a single
        one. With "ignore" such rows take no part in the task.
    l2 : float, default=0.0
        Strength of the squared penalty, >= 0.
    mean_reg : float, default=0.0
        Strength of the penalty on differences between the tasks, >= 0.
    fit_intercept : bool, default=True
        Whether the tasks have intercepts.
    scale_targets : bool, default=False
        Whether the values of regression tasks are divided by their standard deviation
        during the fit. Without it the choice of features depends on the units of the
        values: an order value in cents outweighs all binary tasks. Coefficients and
        predictions are in the units of `y` in both cases.
    max_iter : int, default=2000
        Largest number of steps of the solver.
    tol : float, default=1e-4
        Largest violation of the optimality conditions, relative to the gradient at
        coefficients of 0.

    Attributes
    ----------
    coef_ : ndarray of shape (n_tasks, n_features)
        Coefficients, for logits of binary tasks and values of regression tasks.
        Features that are not selected have exact zeros.
    intercept_ : ndarray of shape (n_tasks,)
        Intercepts.
    n_iter_ : int
        Number of steps of the solver.
    classes_ : ndarray of shape (n_binary_tasks, 2) or (2,)
        The labels of the binary tasks; 1-D for a single task. Absent without any.
    task_names_ : list of str
        Names of the tasks: the columns of a DataFrame `y`.
    n_tasks_ : int
        Number of tasks.
    n_features_in_ : int
        Number of columns of `X`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if `X` has column names that are all strings.

    See Also
    --------
    MultiTaskSparseLinearCV : Chooses alpha by cross-validation.
    sklearn.linear_model.MultiTaskLasso : The same for regression tasks in which every
        row has a value.

    Notes
    -----
    Differences from the paper: intercepts are not penalised, so that predictions do not
    depend on the origin of the features; and all tasks share one table, though not
    every row needs a label of every task.

    Columns should have similar scales, as for any penalised model. Inside
    :class:`~sklearn.feature_selection.SelectFromModel`, pass ``threshold=1e-10``; its
    default drops features below the mean norm.

    With tasks of both types, scorers that expect one column of probabilities per task
    do not apply: `predict_proba` has the columns of the binary tasks.

    References
    ----------
    Cao et al. (2024). "MTLComb: multi-task learning combining regression and
    classification tasks for joint feature selection." :arxiv:`2405.09886`

    Beck and Teboulle (2009). "A Fast Iterative Shrinkage-Thresholding Algorithm for
    Linear Inverse Problems." SIAM Journal on Imaging Sciences 2(1).
    :doi:`10.1137/080716542`

    Examples
    --------
    Click and conversion on all rows, the order value on converted rows:

    >>> import numpy as np
    >>> from sk_pwiser.linear_model import MultiTaskSparseLinear
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((1000, 20))
    >>> click = X[:, 0] + rng.standard_normal(1000) > 0
    >>> conversion = click & (X[:, 0] + rng.standard_normal(1000) > 1)
    >>> value = 50 + 5 * X[:, 1] + rng.standard_normal(1000)
    >>> value[~conversion] = np.nan
    >>> model = MultiTaskSparseLinear(
    ...     alpha=0.3,
    ...     task_types=["binary", "binary", "regression"],
    ...     missing_labels="ignore",
    ...     scale_targets=True,
    ... )
    >>> model.fit(X, np.column_stack([click, conversion, value])).coef_.any(axis=0)[:5]
    array([ True,  True, False, False, False])
    >>> model.predict_proba(X).shape
    (1000, 2)
    """

    _parameter_constraints: ClassVar[dict] = {
        "alpha": [NOT_NEGATIVE],
        **SPARSE_CONSTRAINTS,
    }

    def __init__(
        self,
        *,
        alpha=0.01,
        task_types="binary",
        missing_labels="error",
        l2=0.0,
        mean_reg=0.0,
        fit_intercept=True,
        scale_targets=False,
        max_iter=2000,
        tol=1e-4,
    ):
        self.alpha = alpha
        self.task_types = task_types
        self.missing_labels = missing_labels
        self.l2 = l2
        self.mean_reg = mean_reg
        self.fit_intercept = fit_intercept
        self.scale_targets = scale_targets
        self.max_iter = max_iter
        self.tol = tol

    def _fit(self, X, targets, weights, given_X, given_y):
        return SparseProblem(X, targets, weights, self).solve(self.alpha), {}


@accept_any_case_of_y
def multi_task_sparse_path(X, y, *, alphas=10, eps=0.01, sample_weight=None, **params):
    """Compute the coefficients of :class:`MultiTaskSparseLinear` for several alphas.

    The alphas are solved in descending order, and each solution is the start of the
    next.

    Parameters
    ----------
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Features.
    y : array-like of shape (n_samples, n_tasks) or (n_samples,)
        Labels 0 and 1 of binary tasks, values of regression tasks.
    alphas : int or array-like of shape (n_alphas,), default=10
        The penalties, or their number. In the latter case their logarithms are evenly
        spaced, from the smallest penalty at which all coefficients are 0 down to `eps`
        times it.
    eps : float, default=0.01
        The smallest alpha over the largest one, in (0, 1), if `alphas` is a number.
    sample_weight : array-like of shape (n_samples,) or (n_samples, n_tasks), \
            default=None
        Weights of the rows, or of the rows and tasks, >= 0.
    **params : dict
        Parameters of :class:`MultiTaskSparseLinear` other than `alpha`, such as
        `task_types`. `max_iter` is the largest number of steps per alpha.

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
    TypeError
        If a parameter is unknown.

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
    # `alpha` is no parameter of a path: giving it twice is an error.
    settings = MultiTaskSparseLinear(alpha=0.0, **params)
    settings._validate_params()
    given = {"alphas": alphas, "eps": eps}
    validate_parameter_constraints(PATH_CONSTRAINTS, given, "multi_task_sparse_path")
    rows = settings._read_rows(collected(X), collected(y), sample_weight)
    problem = SparseProblem(*rows, settings)
    alphas = problem.alphas(alphas, eps)
    coefs, intercepts, _ = zip(*map(problem.solve, alphas), strict=True)
    return alphas, np.stack(coefs, axis=-1), np.stack(intercepts, axis=-1)


class MultiTaskSparseLinearCV(SparseLinearBase):
    """MultiTaskSparseLinear with alpha chosen by cross-validation.

    In each fold the model is fitted along the path of alphas in descending order; each
    solution is the start of the next. The alpha with the best mean AUC of the binary
    tasks and the one with the best mean R2 of the regression tasks are averaged,
    weighted by the numbers of tasks, and the model is fitted to all rows.

    Parameters
    ----------
    alphas : int or array-like of shape (n_alphas,), default=10
        The penalties, or their number. In the latter case their logarithms are evenly
        spaced, from the smallest penalty at which all coefficients are 0 down to `eps`
        times it.
    eps : float, default=0.01
        The smallest alpha over the largest one, in (0, 1), if `alphas` is a number.
    cv : int, cross-validation generator or iterable, default=5
        The folds. An int is a number of folds of shuffled rows, stratified by the
        depth in the funnel of the binary tasks.
    task_types : {"binary", "regression"} or sequence of str, default="binary"
        Type of all tasks, or of each task.
    missing_labels : {"error", "ignore"}, default="error"
        Whether labels and values may be missing (NaN in `y`), in any task but a single
        one. With "ignore" such rows take no part in the task.
    l2 : float, default=0.0
        Strength of the squared penalty, >= 0.
    mean_reg : float, default=0.0
        Strength of the penalty on differences between the tasks, >= 0.
    fit_intercept : bool, default=True
        Whether the tasks have intercepts.
    scale_targets : bool, default=False
        Whether the values of regression tasks are divided by their standard deviation
        during the fit; see :class:`MultiTaskSparseLinear`.
    max_iter : int, default=2000
        Largest number of steps of the solver per alpha.
    tol : float, default=1e-4
        Largest violation of the optimality conditions, relative to the gradient at
        coefficients of 0.
    n_jobs : int, default=None
        Number of folds that are computed in parallel.
    random_state : int, RandomState instance or None, default=None
        Seed of the shuffling, if `cv` is an int.

    Attributes
    ----------
    alpha_ : float
        The chosen penalty.
    alphas_ : ndarray of shape (n_alphas,)
        The penalties, in descending order.
    best_alphas_ : dict
        The best penalty of each type of task, "binary" and "regression".
    scores_ : ndarray of shape (n_alphas, n_folds, n_tasks)
        AUC of binary tasks and R2 of regression tasks; NaN where undefined.
    coef_ : ndarray of shape (n_tasks, n_features)
        Coefficients, for logits of binary tasks and values of regression tasks.
    intercept_ : ndarray of shape (n_tasks,)
        Intercepts.
    n_iter_ : int
        Number of steps of the solver at the chosen alpha.
    classes_ : ndarray of shape (n_binary_tasks, 2) or (2,)
        The labels of the binary tasks; 1-D for a single task. Absent without any.
    task_names_ : list of str
        Names of the tasks: the columns of a DataFrame `y`.
    n_tasks_ : int
        Number of tasks.
    n_features_in_ : int
        Number of columns of `X`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if `X` has column names that are all strings.

    See Also
    --------
    MultiTaskSparseLinear : The same with a given alpha.

    Notes
    -----
    Differences from the paper: 5 folds instead of 10, and R2 instead of the mean
    squared error, which cannot be averaged over tasks of different units.

    References
    ----------
    Cao et al. (2024). "MTLComb: multi-task learning combining regression and
    classification tasks for joint feature selection." :arxiv:`2405.09886`

    Examples
    --------
    >>> import numpy as np
    >>> from sk_pwiser.linear_model import MultiTaskSparseLinearCV
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((300, 8))
    >>> Y = (X[:, :1] + rng.standard_normal((300, 2)) > 0).astype(int)
    >>> model = MultiTaskSparseLinearCV(random_state=0).fit(X, Y)
    >>> model.scores_.shape
    (10, 5, 2)
    """

    _min_samples = 2
    _parameter_constraints: ClassVar[dict] = {
        **PATH_CONSTRAINTS,
        "cv": ["cv_object"],
        **SPARSE_CONSTRAINTS,
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        alphas=10,
        eps=0.01,
        cv=5,
        task_types="binary",
        missing_labels="error",
        l2=0.0,
        mean_reg=0.0,
        fit_intercept=True,
        scale_targets=False,
        max_iter=2000,
        tol=1e-4,
        n_jobs=None,
        random_state=None,
    ):
        self.alphas = alphas
        self.eps = eps
        self.cv = cv
        self.task_types = task_types
        self.missing_labels = missing_labels
        self.l2 = l2
        self.mean_reg = mean_reg
        self.fit_intercept = fit_intercept
        self.scale_targets = scale_targets
        self.max_iter = max_iter
        self.tol = tol
        self.n_jobs = n_jobs
        self.random_state = random_state

    def _fit(self, X, targets, weights, given_X, given_y):
        problem = SparseProblem(X, targets, weights, self)
        alphas = problem.alphas(self.alphas, self.eps)
        rows = X.tocsr() if hasattr(X, "tocsr") else X
        folds = Parallel(n_jobs=self.n_jobs)(
            delayed(fold_scores)(rows, targets, weights, train, test, alphas, self)
            for train, test in self._splits(given_X, given_y, targets)
        )
        scores = np.stack(folds, axis=1)
        best = best_alphas(alphas, scores, targets)
        n_binary = int(targets.is_binary.sum())
        shares = {"binary": n_binary, "regression": len(targets.is_binary) - n_binary}
        # AUC and R2 have no common scale, so the alphas are averaged, not the scores.
        alpha = sum(shares[kind] * best[kind] for kind in best) / len(targets.is_binary)
        # Down the path, as in the folds: each solution is a good start of the next.
        for larger in alphas[alphas > alpha]:
            problem.solve(larger)
        found = {"alpha_": float(alpha), "alphas_": alphas}
        found |= {"best_alphas_": best, "scores_": scores}
        return problem.solve(alpha), found

    def _splits(self, X, y, targets):
        values, binary = targets.values, np.flatnonzero(targets.is_binary)
        labels = np.nan_to_num(values[:, binary]).astype(int)
        if not isinstance(self.cv, Integral):
            cv = check_cv(self.cv)
            # Splitters read labels, not values, where there are any.
            used = values[:, binary] if labels.size else values
            if used.shape[1] == 1:
                used = used[:, 0]
            elif hasattr(cv, "task_parents") and names_of_columns(y):
                # Those of this package find the tasks by name.
                is_mixed = len(binary) < values.shape[1]
                used = _safe_indexing(y, binary, axis=1) if is_mixed else y
            return cv.split(X, used)
        kind = FunnelStratifiedKFold if labels.size else KFold
        folds = kind(self.cv, shuffle=True, random_state=self.random_state)
        return folds.split(X, labels)


def fold_scores(X, targets, weights, train, test, alphas, settings):
    """Return the scores of one fold, ndarray of shape (n_alphas, n_tasks)."""
    rows = X[train].tocsc() if hasattr(X, "tocsc") else X[train]
    # The grid of alphas comes from all rows, the solutions from the training rows.
    part = replace(targets, values=targets.values[train])
    problem = SparseProblem(rows, part, weights[train], settings)
    values, weights = targets.values[test], weights[test]
    # A task with one label only has no score.
    is_defined = [
        len(np.unique(labels[weight > 0])) > 1
        for labels, weight in zip(values.T, weights.T, strict=True)
    ]
    scores = np.full((len(alphas), len(is_defined)), np.nan)
    for row, alpha in zip(scores, alphas, strict=True):
        coef, intercept, _ = problem.solve(alpha)
        linear = X[test] @ coef.T + intercept
        parts = values, linear, targets.is_binary, weights
        row[is_defined] = task_scores(*(part[..., is_defined] for part in parts))
    return scores


def best_alphas(alphas, scores, targets):
    """Return the best alpha of each type of task, the largest one in a tie."""
    best, of_types = {}, (targets.is_binary, ~targets.is_binary)
    for kind, chosen in zip(TASK_TYPES, of_types, strict=True):
        if not chosen.any():
            continue
        is_known = ~np.isnan(scores[0][:, chosen])
        if not is_known.any(axis=0).all():
            k = np.flatnonzero(chosen)[~is_known.any(axis=0)][0]
            raise ValueError(
                f"Task {targets.task_names[k]!r} has no score in any fold: its test "
                "rows have one label only. Use fewer folds, or choose alpha yourself."
            )
        # Mean over the folds of each task, then over the tasks.
        mean = np.nanmean(scores[:, :, chosen], axis=1).mean(axis=1)
        best[kind] = float(alphas[np.argmax(mean)])
    return best

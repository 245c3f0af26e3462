"""The objective of tasks whose coefficients are products of factors.

The logit of task k in a row x with levels m_2, ..., m_D of the group modes is

    f = ((L' x) o U_2[m_2] o ... o U_D[m_D])' U_1[k] + offset_k + b[k, m_2, ..., m_D],

where o is the elementwise product. If all but one of the blocks L, U_1, ..., U_D and b
are fixed, f is linear in this block, plus a constant. `block_map` returns the linear
map and its transpose. Gradients and least-squares steps are computed from these. The
solvers are L-BFGS over all factors at once, and alternating least squares.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator, cg
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning

from sk_pwiser._utils import warn_user
from sk_pwiser.linear_model._linear_base import (
    Columns,
    smoothed_log_odds,
    weighted_moments,
)

# Relative residual at which conjugate gradients end, so that steps are nearly exact.
CG_TOLERANCE = 1e-12
# Steps of L-BFGS before the factors are first balanced and scaled again; doubled every
# time.
FIRST_ROUND = 20


@dataclass
class Factors:
    """The loadings L, the modes U_1 to U_D, and the intercepts b.

    L has shape (n_features, rank). A mode has shape (n_levels, rank), and U_1 is the
    mode of the tasks. b has shape (n_tasks, n_cells), and is relative to the offset of
    the task; a cell is a combination of levels.
    """

    loadings: np.ndarray
    modes: list
    intercepts: np.ndarray
    projected: np.ndarray | None = None

    @classmethod
    def of(cls, blocks, projected=None):
        """Return factors of the arrays that `blocks` returns."""
        return cls(blocks[0], blocks[1:-1], blocks[-1], projected)

    @property
    def blocks(self):
        """Return all arrays: the loadings, the modes and the intercepts."""
        return [self.loadings, *self.modes, self.intercepts]

    def replaced(self, position, block):
        """Return factors in which one block is replaced."""
        blocks = self.blocks
        blocks[position] = block
        return Factors.of(blocks, self.projected if position > 0 else None)

    def balanced(self):
        """Return factors with the same predictions and equal norms.

        Among all factors with these predictions, their penalty is the smallest.
        """
        parts = [self.loadings, *self.modes]
        norms = np.array([np.linalg.norm(part, axis=0) for part in parts])
        is_used = (norms > 0).all(axis=0)
        # A component with a factor of 0 has no effect, and no scale to balance.
        norms[:, ~is_used] = 1.0
        mean = np.exp(np.log(norms).mean(axis=0))
        parts = [part * (mean / norm) for part, norm in zip(parts, norms, strict=True)]
        return Factors.of([*parts, self.intercepts])


def flatten(arrays):
    """Return all numbers of some arrays in one vector."""
    return np.concatenate([array.ravel() for array in arrays])


def unflatten(vector, arrays):
    """Return arrays of the same shapes with the numbers of a vector."""
    parts = np.split(vector, np.cumsum([array.size for array in arrays])[:-1])
    return [p.reshape(a.shape) for p, a in zip(parts, arrays, strict=True)]


class CPProblem:
    """The objective: loss of the given rows plus penalties of the factors.

    `codes` are the levels of the group modes, (n_samples, n_group_modes), and
    `settings` is an estimator with the loss and the strengths of the penalties.
    """

    def __init__(self, X, targets, weights, codes, n_levels, settings):
        mean, self.variances = weighted_moments(
            X, weights.sum(axis=1) + np.finfo(float).tiny
        )
        self.columns = Columns(X, mean, np.ones_like(mean))
        self.weights, self.codes = weights, codes
        self.labels = np.nan_to_num(targets.values)
        self.loss, self.n_levels = settings.loss, tuple(n_levels)
        # The penalty of the intercepts then draws rare cells to the rate of the event,
        # not to 1/2.
        self.offsets = smoothed_log_odds(targets, weights)
        if self.loss == "squared_error":
            self.offsets = np.tanh(self.offsets / 2)  # 2 p - 1
        # In the order of the blocks: the loadings, the modes and the intercepts.
        n_modes = 1 + len(self.n_levels)
        self.penalties = [settings.alpha] * (1 + n_modes) + [settings.intercept_alpha]
        self.cells = cell_of(codes, self.n_levels)
        n_cells = int(np.prod(self.n_levels, dtype=int))
        self._sum_cells = indicators(self.cells, n_cells)
        self._sum_levels = [
            indicators(codes[:, d], n) for d, n in enumerate(self.n_levels)
        ]

    def linear(self, factors):
        """Return the linear predictors, (n_samples, n_tasks)."""
        apply, _ = self.block_map(factors, 1)
        constants = self.offsets + factors.intercepts[:, self.cells].T
        return constants + apply(factors.modes[0])

    def value(self, factors, linear):
        """Return the objective, where `linear` is ``linear(factors)``."""
        if self.loss == "log_loss":
            losses = np.logaddexp(0.0, linear) - self.labels * linear
        else:
            # Labels of -1 and 1 in the squared error.
            losses = 0.5 * (linear - (2.0 * self.labels - 1.0)) ** 2
        penalty = sum(
            0.5 * alpha * np.vdot(block, block)
            for alpha, block in zip(self.penalties, factors.blocks, strict=True)
        )
        return np.vdot(self.weights, losses) + penalty

    def residual(self, linear):
        """Return the derivative of the loss in the linear predictors."""
        if self.loss == "log_loss":
            return self.weights * (expit(linear) - self.labels)
        return self.weights * (linear - (2.0 * self.labels - 1.0))

    def gradient(self, factors, linear):
        """Return the gradient of the objective as a vector."""
        residual = self.residual(linear)
        return flatten(
            self.block_map(factors, i)[1](residual) + self.penalties[i] * block
            for i, block in enumerate(factors.blocks)
        )

    def curvatures(self, factors):
        """Return rough second derivatives, whose orders of magnitude differ."""
        # The largest second derivative of the loss of a row.
        of_loss = 0.25 if self.loss == "log_loss" else 1.0
        # Sums over the tasks of weight times squared factor, (n_samples, rank).
        by_row = self.weights @ factors.modes[0] ** 2
        product, projected = self._product(factors), self._projected(factors)
        blocks = [
            np.outer(self.variances, (by_row * product**2).sum(axis=0)),
            self.weights.T @ (projected * product) ** 2,
        ]
        for d, sums in enumerate(self._sum_levels):
            inputs = projected * self._product(factors, without=d)
            blocks.append(sums @ (by_row * inputs**2))
        blocks.append((self._sum_cells @ self.weights).T)
        curvatures = flatten(
            alpha + of_loss * block
            for alpha, block in zip(self.penalties, blocks, strict=True)
        )
        # Intercepts without rows and without a penalty stay where they are.
        return np.where(curvatures > 0, curvatures, 1.0)

    def block_map(self, factors, position):
        """Return the linear map of a block to the predictors, and its transpose."""
        if position == len(factors.blocks) - 1:
            return (
                lambda b: b[:, self.cells].T,
                lambda residual: (self._sum_cells @ residual).T,
            )
        tasks = factors.modes[0]
        if position == 0:
            product = self._product(factors)
            return (
                lambda L: (self.columns.dot(L) * product) @ tasks.T,
                lambda r: self.columns.transposed_dot((r @ tasks) * product),
            )
        projected = self._projected(factors)
        if position == 1:
            inputs = projected * self._product(factors)
            return (lambda U: inputs @ U.T, lambda r: r.T @ inputs)
        d = position - 2
        inputs = projected * self._product(factors, without=d)
        codes, sums = self.codes[:, d], self._sum_levels[d]
        return (
            lambda U: (inputs * U[codes]) @ tasks.T,
            lambda r: sums @ (inputs * (r @ tasks)),
        )

    def _projected(self, factors):
        if factors.projected is None:
            factors.projected = self.columns.dot(factors.loadings)
        return factors.projected

    def _product(self, factors, without=None):
        """Return the product of the group modes' factors, (n_samples, rank)."""
        product = np.ones((len(self.labels), factors.loadings.shape[1]))
        for d, U in enumerate(factors.modes[1:]):
            if d != without:
                product *= U[self.codes[:, d]]
        return product


def cell_of(codes, n_levels):
    """Return the index of each row's combination of levels."""
    if not n_levels:
        return np.zeros(len(codes), dtype=np.int64)
    return np.ravel_multi_index(tuple(codes.T), n_levels)


def indicators(codes, n_levels):
    """Return a matrix (n_levels, n_samples) whose product sums rows by level."""
    n = len(codes)
    return sparse.csr_array((np.ones(n), (codes, np.arange(n))), shape=(n_levels, n))


def solve_lbfgs(problem, factors, *, max_iter, tol):
    """Minimise over all factors at once by L-BFGS.

    Between rounds the norms of the factors are made equal: L-BFGS would take many short
    steps along the curved valleys of equal predictions. Returns factors, the objective
    at the start and after every round, and the iterations.
    """
    values = [problem.value(factors, problem.linear(factors))]
    n_iter, n_steps = 0, FIRST_ROUND
    while n_iter < max_iter:
        factors, value, n_done, has_converged = lbfgs_round(
            problem, factors.balanced(), min(n_steps, max_iter - n_iter), tol
        )
        values.append(value)
        n_iter += n_done
        n_steps *= 2
        if has_converged:
            return factors, values, n_iter
    warn_not_converged(max_iter)
    return factors, values, n_iter


def lbfgs_round(problem, factors, max_iter, tol):
    """Take some steps of L-BFGS in parameters whose second derivatives are near 1."""
    total = problem.weights.sum()
    scale = np.sqrt(problem.curvatures(factors) / total)

    def evaluate(vector):
        current = Factors.of(unflatten(vector / scale, factors.blocks))
        linear = problem.linear(current)
        gradient = problem.gradient(current, linear) / scale
        return problem.value(current, linear) / total, gradient / total

    result = minimize(
        evaluate,
        flatten(factors.blocks) * scale,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_iter, "maxfun": 10 * max_iter, "gtol": tol, "ftol": 0},
    )
    # Status 1 is the limit of iterations; with any other the search has ended.
    factors = Factors.of(unflatten(result.x / scale, factors.blocks))
    return factors, result.fun * total, max(result.nit, 1), result.status != 1


def solve_als(problem, factors, *, max_iter, tol):
    """Minimise the squared error over the loadings, then over each mode, and repeat."""
    last = len(factors.blocks) - 1
    values = [problem.value(factors, problem.linear(factors))]
    for n_iter in range(1, max_iter + 1):
        before = flatten(factors.modes)
        for positions in [(0, last), *((i, last) for i in range(1, last))]:
            factors = minimise_blocks(problem, factors, positions)
            values.append(problem.value(factors, problem.linear(factors)))
        change = np.linalg.norm(flatten(factors.modes) - before)
        if change <= tol * max(np.linalg.norm(before), np.finfo(float).tiny):
            return factors, values, n_iter
    warn_not_converged(max_iter)
    return factors, values, max_iter


def minimise_blocks(problem, factors, positions):
    """Solve the ridge regression in blocks of the factors by conjugate gradients."""
    chosen = [factors.blocks[i] for i in positions]
    maps = [problem.block_map(factors, i) for i in positions]
    penalties = [problem.penalties[i] for i in positions]

    def transpose(residual, parts):
        return flatten(
            transposed(residual) + penalty * part
            for (_, transposed), penalty, part in zip(
                maps, penalties, parts, strict=True
            )
        )

    def hessian(vector):
        parts = unflatten(vector, chosen)
        linear = sum(apply(part) for (apply, _), part in zip(maps, parts, strict=True))
        return transpose(problem.weights * linear, parts)

    # A quadratic has its minimum at the end of the Newton step.
    gradient = transpose(problem.residual(problem.linear(factors)), chosen)
    n = len(gradient)
    operator = LinearOperator((n, n), matvec=hessian, dtype=float)
    step, _ = cg(operator, -gradient, rtol=CG_TOLERANCE, maxiter=10 * n)
    for i, change in zip(positions, unflatten(step, chosen), strict=True):
        factors = factors.replaced(i, factors.blocks[i] + change)
    return factors


def warn_not_converged(max_iter):
    warn_user(
        f"The factors did not converge within max_iter={max_iter}. Increase max_iter "
        "or tol.",
        ConvergenceWarning,
    )

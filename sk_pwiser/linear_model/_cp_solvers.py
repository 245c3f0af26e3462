"""Two ways to minimise a CP problem: all factors at once, or one after the other."""

import warnings

import numpy as np
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator, cg
from sklearn.exceptions import ConvergenceWarning

# Conjugate gradients end at this relative residual: the steps are exact in effect.
CG_TOLERANCE = 1e-12
# Steps of L-BFGS until the factors are balanced and scaled anew, doubled every time.
FIRST_ROUND = 20


def solve_lbfgs(problem, factors, *, max_iter, tol):
    """Minimise over all factors at once by L-BFGS.

    Between rounds of steps the norms of the factors are made equal: they are so at a
    minimum, but steps along curved valleys of equal predictions are short.

    Returns
    -------
    factors : Factors
        The minimiser, a local one.
    values : list of float
        The objective at the start and after every round.
    n_iter : int
        Number of iterations.

    Warns
    -----
    ConvergenceWarning
        If `max_iter` is reached.
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
    """Take some steps of L-BFGS in parameters whose second derivatives are near 1.

    In these parameters rare columns take no longer than frequent ones, and `tol` is a
    distance. The scale is that of the factors at the start of the round.
    """
    total = problem.weights.sum()
    scale = np.sqrt(problem.curvatures(factors) / total)

    def evaluate(vector):
        current = factors.unflatten(vector / scale)
        linear = problem.linear(current)
        gradient = problem.gradient(current, linear) / scale
        return problem.value(current, linear) / total, gradient / total

    result = minimize(
        evaluate,
        factors.flatten() * scale,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_iter, "maxfun": 10 * max_iter, "gtol": tol, "ftol": 0},
    )
    # Status 1 is the end of the iterations; others leave nothing to gain.
    factors = factors.unflatten(result.x / scale)
    return factors, result.fun * total, max(result.nit, 1), result.status != 1


def solve_als(problem, factors, *, max_iter, tol):
    """Minimise the squared error over one block after the other.

    The loadings are fitted together with the intercepts, then each mode. Every step
    minimises the objective over its block, so that it never rises. The rounds end if
    the modes change by less than `tol`, relative to their norm.

    Returns
    -------
    factors : Factors
        The last factors.
    values : list of float
        The objective after every step.
    n_iter : int
        Number of rounds.

    Warns
    -----
    ConvergenceWarning
        If `max_iter` is reached.
    """
    last = len(factors.blocks) - 1
    values = [problem.value(factors, problem.linear(factors))]
    for n_iter in range(1, max_iter + 1):
        before = np.concatenate([U.ravel() for U in factors.modes])
        for positions in [(0, last), *((i, last) for i in range(1, last))]:
            factors = minimise_blocks(problem, factors, positions)
            values.append(problem.value(factors, problem.linear(factors)))
        after = np.concatenate([U.ravel() for U in factors.modes])
        change = np.linalg.norm(after - before)
        if change <= tol * max(np.linalg.norm(before), np.finfo(float).tiny):
            return factors, values, n_iter
    warn_not_converged(max_iter)
    return factors, values, max_iter


def minimise_blocks(problem, factors, positions):
    """Minimise the squared error over blocks in which the predictors are linear.

    The loadings or one mode, together with the intercepts, form a ridge regression. It
    is solved by conjugate gradients from the current values, in products with X only.
    """
    blocks = factors.blocks
    chosen = [blocks[i] for i in positions]
    maps = [problem.block_map(factors, i) for i in positions]
    penalties = [problem.penalty_of(i, len(blocks)) for i in positions]
    ends = np.cumsum([block.size for block in chosen])[:-1]

    def unpack(vector):
        parts = np.split(vector, ends)
        return [p.reshape(b.shape) for p, b in zip(parts, chosen, strict=True)]

    def transpose(residual, parts):
        return np.concatenate(
            [
                (transposed(residual) + penalty * part).ravel()
                for (_, transposed), penalty, part in zip(
                    maps, penalties, parts, strict=True
                )
            ]
        )

    def hessian(vector):
        parts = unpack(vector)
        linear = sum(apply(part) for (apply, _), part in zip(maps, parts, strict=True))
        return transpose(problem.weights * linear, parts)

    # The Newton step of a quadratic leads to its minimum.
    gradient = transpose(problem.residual(problem.linear(factors)), chosen)
    n = len(gradient)
    operator = LinearOperator((n, n), matvec=hessian, dtype=float)
    step, _ = cg(operator, -gradient, rtol=CG_TOLERANCE, maxiter=10 * n)
    for i, block, change in zip(positions, chosen, unpack(step), strict=True):
        factors = factors.replaced(i, block + change)
    return factors


def warn_not_converged(max_iter):
    """Warn that the iterations ended early."""
    warnings.warn(
        f"The factors did not converge within max_iter={max_iter}. Increase max_iter "
        "or tol.",
        ConvergenceWarning,
        stacklevel=3,
    )

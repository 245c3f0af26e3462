"""Objective, gradient and least-squares steps against loops and each other."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from scipy.optimize import check_grad

from sk_pwiser.linear_model import CPMultiTaskLogistic
from sk_pwiser.linear_model._cp_logistic import (
    CPProblem,
    flatten,
    minimise_blocks,
    solve_als,
    solve_lbfgs,
    unflatten,
)
from sk_pwiser.linear_model._linear_base import read_targets

N, P, RANK, LEVELS = 60, 5, 2, (3, 2)


def make_problem(
    loss="squared_error", *, intercept_alpha=0.5, levels=LEVELS, storage=np.asarray
):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, P))
    codes = np.column_stack([rng.integers(0, n, N) for n in levels]).astype(int)
    labels = (X[:, :2] + rng.standard_normal((N, 2)) > 0).astype(float)
    weights = rng.uniform(0.5, 2.0, (N, 2))
    weights[rng.random((N, 2)) < 0.2] = 0.0
    targets = read_targets(np.where(weights > 0, labels, np.nan), "binary", "ignore")
    settings = CPMultiTaskLogistic(
        loss=loss, alpha=0.7, intercept_alpha=intercept_alpha
    )
    return CPProblem(
        storage(X),
        targets,
        weights=weights,
        codes=codes,
        n_levels=levels,
        settings=settings,
    )


def make_factors(levels=LEVELS, seed=1):
    rng = np.random.default_rng(seed)
    return [
        rng.standard_normal((P, RANK)),
        *[rng.uniform(size=(n, RANK)) for n in (2, *levels)],
        rng.standard_normal((2, int(np.prod(levels)))),
    ]


def loop_value(problem, factors):
    """Return the objective by a loop over rows, tasks and components."""
    X = np.asarray(problem.columns.X) - problem.columns.mean
    total = 0.0
    for i in range(N):
        for k in range(2):
            weight = problem.weights[i, k]
            if weight == 0:
                continue
            m, device = problem.codes[i]
            f = problem.offsets[k] + factors[-1][k, m * LEVELS[1] + device]
            for r in range(RANK):
                u = factors[1][k, r] * factors[2][m, r]
                f += X[i] @ factors[0][:, r] * u * factors[3][device, r]
            s = 2 * problem.labels[i, k] - 1
            log_loss = np.log1p(np.exp(-s * f))
            total += weight * (
                log_loss if problem.loss == "log_loss" else (s - f) ** 2 / 2
            )
    squares = [(block**2).sum() for block in factors]
    return total + 0.35 * sum(squares[:-1]) + 0.25 * squares[-1]


@pytest.mark.parametrize("loss", ["log_loss", "squared_error"])
def test_the_objective_equals_a_loop(loss):
    problem, factors = make_problem(loss), make_factors()
    value = problem.value(factors, problem.linear(factors))
    assert_allclose(value, loop_value(problem, factors))


@pytest.mark.parametrize("loss", ["log_loss", "squared_error"])
@pytest.mark.parametrize("storage", [np.asarray, sparse.csc_array])
def test_the_gradient_is_that_of_the_objective(loss, storage):
    problem, factors = make_problem(loss, storage=storage), make_factors()

    def value(vector):
        current = unflatten(vector, factors)
        return problem.value(current, problem.linear(current))

    def gradient(vector):
        current = unflatten(vector, factors)
        return problem.gradient(current, problem.linear(current))

    start = flatten(factors)
    scale = np.linalg.norm(gradient(start))
    assert check_grad(value, gradient, start) < 1e-5 * scale


@pytest.mark.parametrize("positions", [(0, 4), (1, 4), (1,), (2,), (3,)])
def test_a_step_minimises_its_blocks(positions):
    """The objective is convex in these blocks: its gradient is 0 at the minimum."""
    problem, factors = make_problem(), make_factors()
    step = minimise_blocks(problem, factors, positions)
    gradient = unflatten(problem.gradient(step, problem.linear(step)), step)
    for i, (old, new) in enumerate(zip(factors, step, strict=True)):
        if i in positions:
            assert_allclose(gradient[i], 0, atol=1e-8)
        else:
            assert_array_equal(new, old)


def test_no_step_raises_the_objective():
    problem = make_problem()
    solution = solve_als(problem, make_factors(), max_iter=200, tol=1e-6)
    factors = solution.blocks
    values = solution.objectives
    assert len(values) == 1 + 4 * solution.n_iter
    assert np.diff(values).max() <= 1e-9 * values[0]
    assert values[-1] < 0.8 * values[0]
    gradient = problem.gradient(factors, problem.linear(factors))
    assert np.abs(gradient).max() < 1e-3


def test_both_solvers_find_the_same_minimum():
    problem = make_problem()
    by_steps = solve_als(problem, make_factors(), max_iter=5000, tol=1e-9)
    at_once = solve_lbfgs(problem, by_steps.blocks, max_iter=5000, tol=1e-10)
    assert_allclose(by_steps.objectives[-1], at_once.objectives[-1], rtol=1e-9)
    linear_by_steps = problem.linear(by_steps.blocks)
    assert_allclose(problem.linear(at_once.blocks), linear_by_steps, atol=1e-4)

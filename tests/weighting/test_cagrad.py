import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from quadratics import CURVATURES, OPTIMA, descend, shortest_mean
from scipy.optimize import minimize

from sk_pwiser.weighting import CAGrad


def step_of(g, **params):
    """Return the step at the scale of the mean gradient."""
    weighting = CAGrad(len(g), rescale=0, **params)
    (step,) = weighting.combine([torch.as_tensor(g)])
    return step.numpy() / len(g)


def primal(g, c):
    """Return the largest minimal gain in the ball, by another solver."""
    g0 = g.mean(axis=0)
    result = minimize(
        lambda x: -x[-1],
        np.append(g0, (g @ g0).min()),
        constraints=[
            {"type": "ineq", "fun": lambda x: g @ x[:-1] - x[-1]},
            {
                "type": "ineq",
                "fun": lambda x: c**2 * g0 @ g0 - (x[:-1] - g0) @ (x[:-1] - g0),
            },
        ],
        options={"ftol": 1e-12, "maxiter": 500},
    )
    return result.x[-1]


@pytest.mark.parametrize("c", [0.1, 0.4, 0.9])
@pytest.mark.parametrize("n_tasks", [2, 3, 5])
def test_no_step_in_the_ball_has_a_larger_minimal_gain(n_tasks, c):
    rng = np.random.default_rng(n_tasks)
    for shift in (0.0, 1.3):
        g = rng.normal(size=(n_tasks, 4)) * rng.uniform(0.3, 3, size=(n_tasks, 1))
        g -= shift * g.mean(axis=0)
        step = step_of(g, c=c)
        g0 = g.mean(axis=0)
        radius = np.linalg.norm(step - g0) / np.linalg.norm(g0)
        assert_allclose(radius, c, rtol=1e-6)
        assert_allclose((g @ step).min(), primal(g, c), rtol=1e-4, atol=1e-6)


def test_two_cases_computed_by_hand():
    # The second task gains less everywhere in the ball: the step moves in the direction
    # of its gradient.
    assert_allclose(
        step_of(np.array([[3.0, 0.0], [0.0, 1.0]]), c=0.4),
        [1.5, 0.5 + 0.4 * np.sqrt(2.5)],
    )
    # By symmetry, the step is a multiple of the mean gradient.
    assert_allclose(step_of(np.eye(2), c=0.5), [0.75, 0.75])


@pytest.mark.parametrize(("rescale", "divisor"), [(0, 1), (1, 1.25), (2, 1.5)])
def test_rescaling(rescale, divisor):
    gram = torch.tensor([[2.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    plain = CAGrad(2, c=0.5, rescale=0).weigh(gram)
    assert_allclose(CAGrad(2, c=0.5, rescale=rescale).weigh(gram), plain / divisor)


def test_c_of_0_is_the_plain_sum():
    gram = torch.tensor([[2.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    assert CAGrad(2, c=0).weigh(gram).tolist() == [1, 1]


def test_scaling_all_gradients_scales_the_step():
    g = np.random.default_rng(0).normal(size=(3, 5))
    for scale in (1e-12, 1e12):
        assert_allclose(step_of(g * scale, c=0.4), step_of(g, c=0.4) * scale, rtol=1e-6)


@pytest.mark.parametrize(
    "gradients",
    [
        [[1.0, 2.0], [1.0, 2.0]],
        [[1.0, 2.0], [-1.0, -2.0]],
        [[1.0, 2.0], [-2.0, -4.0]],
        [[1.0, 2.0], [0.0, 0.0]],
        [[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]],
        [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]],
        [[2.0, 0.0], [0.0, 1.0], [-1.0, -1.0]],
    ],
)
def test_degenerate_gradients(gradients):
    g = np.array(gradients)
    step = step_of(g, c=0.4)
    g0 = g.mean(axis=0)
    # The step is in the ball, and its minimal gain is at least that of the mean.
    slack = 1e-6 * np.linalg.norm(g)
    assert np.linalg.norm(step - g0) <= 0.4 * np.linalg.norm(g0) + slack
    assert (g @ step).min() >= (g @ g0).min() - slack


def test_it_reaches_the_minimum_of_the_mean_loss():
    # Guaranteed by the paper for c < 1. The minimum is a Pareto-stationary point.
    path = descend(CAGrad(2), n_steps=400, lr=0.3)
    optimum = torch.linalg.solve(
        CURVATURES.sum(0), torch.einsum("kij,kj->i", CURVATURES, OPTIMA)
    )
    torch.testing.assert_close(path[-1], optimum, rtol=0, atol=1e-3)
    assert shortest_mean(path[0]) > 0.1
    assert shortest_mean(path[-1]) < 1e-3


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"c": 1.0}, ValueError, r"c must be finite and >= 0 and < 1; got 1\.0"),
        ({"c": -0.1}, ValueError, r"c must be finite and >= 0 and < 1; got -0\.1"),
        ({"rescale": 3}, ValueError, "rescale must be 0, 1 or 2; got 3"),
        ({"rescale": [1]}, TypeError, r"rescale must be an integer .* got \[1\]"),
        ({"rescale": True}, TypeError, "rescale must be an integer .* got True"),
    ],
)
def test_invalid_parameters_are_named(params, error, message):
    with pytest.raises(error, match=message):
        CAGrad(2, **params)


def test_a_task_whose_gradient_is_0_does_not_change_the_step():
    two = torch.tensor([[1.0, 0.2, 0.0], [-0.6, 0.1, 0.4]])
    three = torch.cat([two, torch.zeros(1, 3)])
    [expected], [found] = CAGrad(2).combine([two]), CAGrad(3).combine([three])
    torch.testing.assert_close(found, expected)

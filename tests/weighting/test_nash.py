"""The bargaining solution against its equations, in float64."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sk_pwiser.weighting import Nash


def gradients(n_tasks, n_entries=40, spread=0.0):
    scales = 10.0 ** torch.linspace(-spread, spread, n_tasks, dtype=torch.float64)
    return torch.randn(n_tasks, n_entries, dtype=torch.float64) * scales.unsqueeze(1)


@pytest.mark.parametrize("spread", [0.0, 3.0])
@pytest.mark.parametrize("n_tasks", [2, 3, 5, 10])
def test_it_solves_the_bargaining_equations(n_tasks, spread):
    for _ in range(5):
        g = gradients(n_tasks, n_entries=n_tasks, spread=spread)
        gram = g @ g.t()
        alpha = Nash(n_tasks, max_norm=None).weigh(gram)
        assert (alpha > 0).all()
        torch.testing.assert_close(
            alpha * (gram @ alpha), torch.ones(n_tasks).double(), rtol=0, atol=1e-6
        )
        step = alpha @ g
        assert_allclose(step @ step, n_tasks, rtol=1e-6)
        # The gain of each task is the reciprocal of its weight.
        assert_allclose(g @ step, 1 / alpha, rtol=1e-6)


def test_max_norm_limits_only_the_length():
    g = gradients(3)
    free = Nash(3, max_norm=None).weigh(g @ g.t())
    cut = Nash(3, max_norm=0.5).weigh(g @ g.t())
    assert_allclose((cut @ g).norm(), 0.5)
    assert_allclose(cut / cut.sum(), free / free.sum())
    assert_allclose(Nash(3, max_norm=5.0).weigh(g @ g.t()), free)


def test_weights_of_opposite_gradients_are_finite():
    opposite = torch.tensor([[4.0, -2.0], [-2.0, 1.0]], dtype=torch.float64)
    alpha = Nash(2, max_norm=None).weigh(opposite)
    # The solution for a cosine of -1 + 1e-6.
    assert_allclose(alpha, [0.5e3, 1e3])
    # Three gradients with a sum of 0, without an opposite pair.
    g = torch.tensor([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]]).double()
    alpha = Nash(3, max_norm=None).weigh(g @ g.t())
    assert alpha.isfinite().all()
    assert_allclose(alpha, np.full(3, alpha[0]), rtol=1e-6)


def test_tasks_whose_gradients_are_0_are_ignored():
    g = gradients(3)
    g[1] = 0
    alpha = Nash(3, max_norm=None).weigh(g @ g.t())
    others = g[[0, 2]]
    expected = Nash(2, max_norm=None).weigh(others @ others.t())
    assert_allclose(alpha[[0, 2]], expected)
    assert alpha[1] == 0
    # With one task left, the step is a unit vector.
    g[2] = 0
    assert_allclose(Nash(3).weigh(g @ g.t()), [1 / g[0].norm(), 0, 0])

import itertools

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from quadratics import descend, shortest_mean

from sk_pwiser._utils import Generators, active
from sk_pwiser.weighting import PCGrad


def project(g, orders):
    """The paper's algorithm, on the gradients instead of their inner products."""
    total = np.zeros(g.shape[1])
    for k, order in enumerate(orders):
        mine = g[k].copy()
        for j in order:
            product = mine @ g[j]
            if j != k and product < 0:
                mine -= product / (g[j] @ g[j]) * g[j]
        total += mine
    return total


@pytest.mark.parametrize("seed", range(4))
def test_two_tasks_have_a_closed_form(seed):
    rng = np.random.default_rng(seed)
    g = rng.normal(size=(2, 5))
    g[1] -= 2 * g[0]  # makes the product negative
    (step,) = PCGrad(2).combine([torch.from_numpy(g)])
    product = g[0] @ g[1]
    assert product < 0
    expected = g[0] * (1 - product / (g[0] @ g[0])) + g[1] * (
        1 - product / (g[1] @ g[1])
    )
    assert_allclose(step, expected)


def test_without_conflict_it_is_the_sum():
    g = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 1.0]])
    (step,) = PCGrad(2).combine([g])
    assert step.tolist() == [1.0, 3.0, 1.0]


def test_opposite_gradients_cancel():
    (step,) = PCGrad(2).combine([torch.tensor([[2.0, -4.0], [-1.0, 2.0]])])
    assert step.tolist() == [0.0, 0.0]


def conflicting(n_tasks):
    g = np.random.default_rng(0).normal(size=(n_tasks, 6))
    return g - 1.2 * g.mean(axis=0)


def test_the_steps_of_three_tasks_are_those_of_all_orders():
    g = conflicting(3)
    orders = list(itertools.permutations(range(3)))
    possible = [project(g, three) for three in itertools.product(orders, repeat=3)]
    seen = set()
    for _ in range(200):
        (step,) = PCGrad(3).combine([torch.from_numpy(g)])
        gaps = [np.abs(step.numpy() - p).max() for p in possible]
        assert min(gaps) < 1e-12
        seen.add(tuple(np.round(step.numpy(), 9)))
    assert seen == {tuple(np.round(p, 9)) for p in possible}
    assert len(seen) > 1


def test_the_order_is_drawn_from_the_active_generators():
    g = [torch.from_numpy(conflicting(4))]
    steps = []
    state = torch.get_rng_state()
    for seed in (7, 7, 8):
        with active(Generators(seed)):
            steps.append(torch.stack([PCGrad(4).combine(g)[0] for _ in range(10)]))
    assert torch.equal(steps[0], steps[1])
    assert not torch.equal(steps[0], steps[2])
    assert torch.equal(torch.get_rng_state(), state)


def test_torchjd_agrees():
    aggregation = pytest.importorskip("torchjd.aggregation")
    for _ in range(5):
        g = torch.randn(2, 3)
        g[1] -= g[0]
        torch.testing.assert_close(
            PCGrad(2).combine([g])[0], aggregation.PCGrad()(g), rtol=1e-4, atol=1e-5
        )


def test_it_reaches_a_pareto_stationary_point():
    path = descend(PCGrad(2), n_steps=800)
    assert shortest_mean(path[0]) > 0.1
    assert shortest_mean(path[-1]) < 1e-4

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sk_pwiser.weighting import GradCraft
from sk_pwiser.weighting._gradient_weightings import without_conflicts


def projected(g, k, epsilon):
    """Return task k's projected gradient, by the pseudo-inverse of the gradients."""
    conflicting = g[g @ g[k] < 0]
    norms = np.linalg.norm(conflicting, axis=1)
    wanted = epsilon * np.linalg.norm(g[k]) * norms
    return g[k] + np.linalg.pinv(conflicting) @ (wanted - conflicting @ g[k])


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
@pytest.mark.parametrize("n_tasks", [2, 3, 5])
def test_the_step_is_the_sum_of_projected_gradients(n_tasks, epsilon):
    g = np.random.default_rng(0).normal(size=(n_tasks, 8))
    g -= 1.5 * g.mean(axis=0)
    parts = [projected(g, k, epsilon) for k in range(n_tasks)]
    n_conflicts = 0
    for k, part in enumerate(parts):
        for other in g[g @ g[k] < 0]:
            n_conflicts += 1
            wanted = epsilon * np.linalg.norm(g[k]) * np.linalg.norm(other)
            assert_allclose(part @ other, wanted, atol=1e-12)
    assert n_conflicts
    weights = without_conflicts(torch.from_numpy(g @ g.T), epsilon)
    assert_allclose(weights.numpy() @ g, np.sum(parts, axis=0))


def test_parallel_gradients_among_the_conflicting():
    # The last two gradients are parallel, so that their Gram matrix is singular.
    g = np.array([[1.0, 0.0, 0.0], [-1.0, 1.0, 0.0], [-2.0, 2.0, 0.0]])
    weights = without_conflicts(torch.from_numpy(g @ g.T), 0.0)
    expected = np.sum([projected(g, k, 0.0) for k in range(3)], axis=0)
    assert_allclose(weights.numpy() @ g, expected, atol=1e-12)


def test_lengths_are_brought_closer_together():
    g = torch.tensor([[4.0, 0.0], [0.0, 1.0]])
    for relax, expected in [(0.0, [4, 1]), (0.5, [4, 2.5]), (1.0, [4, 4])]:
        weighting = GradCraft(2, relax=relax, decay=0.0)
        assert_allclose(weighting.combine([g])[0], expected)


def test_the_moving_averages_of_the_lengths():
    weighting = GradCraft(2, relax=1.0, decay=0.9)
    weighting.weigh(torch.tensor([[4.0, 0.0], [0.0, 1.0]]).double())
    weights = weighting.weigh(torch.tensor([[1.0, 0.0], [0.0, 9.0]]).double())
    # 0.9 * (2, 1) + 0.1 * (1, 3), from the next step on
    assert_allclose(weighting.lengths, [1.9, 1.2], rtol=1e-6)
    assert_allclose(weights, [1, 2], rtol=1e-6)
    weights = weighting.weigh(torch.eye(2).double())
    assert_allclose(weights, [1, 19 / 12], rtol=1e-6)


def test_a_task_whose_gradient_was_always_0():
    gram = torch.tensor([[4.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    assert GradCraft(2).weigh(gram).tolist() == [1, 1]


def test_without_conflict_and_relaxation_it_is_the_sum():
    gram = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    assert GradCraft(2, relax=0.0).weigh(gram).tolist() == [1, 1]

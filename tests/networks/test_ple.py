import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from rewrites import WIDTH, batch, dense_input, make, mixed, mlp, tower, weights_of

from sk_pwiser.networks import PLE


def written_out(p, x, n_tasks, n_own, n_shared, n_levels):
    owners = [k for k in range(n_tasks) for _ in range(n_own)] + [n_tasks] * n_shared
    streams = [x] * (n_tasks + 1)
    for level in range(n_levels):
        name = f"levels.{level}"
        experts = [
            mlp(streams[owner], p, f"{name}.experts", j)
            for j, owner in enumerate(owners)
        ]
        new = []
        for k in range(n_tasks):
            seen = [
                experts[j] for j, owner in enumerate(owners) if owner in (k, n_tasks)
            ]
            new.append(mixed(streams[k], p, f"{name}.task_gates", k, seen))
        if level < n_levels - 1:
            new.append(mixed(streams[-1], p, f"{name}.shared_gate", 0, experts))
        streams = new
    return np.stack([tower(streams[k], p, k) for k in range(n_tasks)], 1)


@pytest.mark.parametrize("n_levels", [1, 3])
@pytest.mark.parametrize(("n_own", "n_shared"), [(1, 1), (3, 1), (1, 4), (2, 3)])
@pytest.mark.parametrize("n_tasks", [1, 2, 3])
def test_equals_the_formula_written_out_in_numpy(n_tasks, n_own, n_shared, n_levels):
    network = make(
        PLE,
        n_tasks,
        n_experts=n_own,
        n_shared_experts=n_shared,
        n_levels=n_levels,
        expert_units=(8, 7),
        tower_units=(6,),
    )
    codes, numeric = batch()
    p = weights_of(network)
    x = dense_input(p, codes, numeric)
    expected = written_out(p, x, n_tasks, n_own, n_shared, n_levels)
    logits = network(codes, numeric).logits.detach()
    assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def trained_experts(network, task, level):
    """Return which experts of a level have a gradient from the logit of a task."""
    network.zero_grad()
    network(*batch(50)).logits[:, task].sum().backward()
    groups = network.levels[level].experts
    gradient = torch.cat([group.layers[0].weight.grad for group in groups])
    return gradient.flatten(1).any(dim=1).tolist()


@pytest.mark.parametrize("n_levels", [1, 2])
def test_a_task_trains_its_own_and_the_shared_experts_of_the_last_level(n_levels):
    network = make(PLE, n_experts=2, n_shared_experts=3, n_levels=n_levels)
    own, other, shared = [True] * 2, [False] * 2, [True] * 3
    assert trained_experts(network, 0, -1) == own + other + shared
    assert trained_experts(network, 1, -1) == other + own + shared


def test_the_shared_stream_passes_on_the_experts_of_all_tasks():
    network = make(PLE, n_experts=2, n_shared_experts=3, n_levels=2)
    assert all(trained_experts(network, 0, 0))
    assert all(trained_experts(network, 1, 0))


def test_the_last_level_has_no_shared_gate():
    # No layer would read its output. Those of earlier levels mix all experts.
    levels = make(PLE, 3, n_experts=2, n_shared_experts=1, n_levels=3).levels
    assert levels[-1].shared_gate is None
    for level in levels[:-1]:
        assert level.shared_gate[0].out_features == 3 * 2 + 1
    streams = torch.randn(4, 5, levels[1].n_out)
    assert levels[1](streams).shape[0] == 4
    assert levels[2](streams).shape[0] == 3


@pytest.mark.parametrize("n_levels", [1, 3])
def test_number_of_parameters(n_levels):
    network = make(
        PLE,
        3,
        n_experts=1,
        n_shared_experts=4,
        n_levels=n_levels,
        expert_units=(8,),
        tower_units=(),
    )
    n_expected = (4 + 6) * 5 + 3 * (8 + 1)
    for level in range(n_levels):
        n_in = 8 if level else WIDTH
        n_expected += (3 + 4) * (n_in + 1) * 8 + 3 * (n_in + 1) * (1 + 4)
        n_expected += (n_in + 1) * (3 + 4) if level < n_levels - 1 else 0
    assert sum(parameter.numel() for parameter in network.parameters()) == n_expected

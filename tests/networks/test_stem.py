import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from rewrites import DIM, batch, dense_input, make, mixed, mlp, tower, weights_of

from sk_pwiser.networks import STEM


@pytest.mark.parametrize("n_tasks", [1, 2, 3])
@pytest.mark.parametrize(("n_own", "n_shared"), [(1, 1), (3, 1), (1, 2)])
def test_equals_the_formula_written_out_in_numpy(n_tasks, n_own, n_shared):
    network = make(
        STEM,
        n_tasks,
        n_experts=n_own,
        n_shared_experts=n_shared,
        expert_units=(8, 7),
        tower_units=(6,),
    )
    codes, numeric = batch()
    p = weights_of(network)
    inputs = [dense_input(p, codes, numeric, t) for t in range(n_tasks + 1)]
    owners = [k for k in range(n_tasks) for _ in range(n_own)] + [n_tasks] * n_shared
    experts = [mlp(inputs[owner], p, "experts", j) for j, owner in enumerate(owners)]
    expected = np.empty((len(codes), n_tasks))
    for k in range(n_tasks):
        read = (inputs[k] + inputs[-1]) / 2
        expected[:, k] = tower(mixed(read, p, "gates", k, experts), p, k)
    logits = network(codes, numeric).logits.detach()
    assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_a_task_leaves_the_tables_of_others_alone_but_reads_them():
    network, (codes, numeric) = make(STEM, 3), batch(50)
    weight = network.input_layer.embedding.weight
    for task in range(3):
        network.zero_grad()
        logits = network(codes, numeric).logits[:, task]
        logits.square().sum().backward()
        moved = weight.grad.unflatten(1, (4, DIM)).any(dim=2).any(dim=0)
        assert moved.tolist() == [table in (task, 3) for table in range(4)]
        for table in range(4):
            before = weight.detach().clone()
            with torch.no_grad():
                weight[:, DIM * table : DIM * (table + 1)] += 1
                assert not torch.allclose(
                    network(codes, numeric).logits[:, task], logits
                )
                weight.copy_(before)


def test_a_task_trains_its_own_and_the_shared_experts():
    network = make(STEM, n_experts=2, n_shared_experts=3)
    network(*batch(50)).logits[:, 1].sum().backward()
    gradient = network.experts.layers[0].weight.grad.flatten(1).any(dim=1)
    assert gradient.tolist() == [False] * 2 + [True] * 5
    # Its gate weighs all of them, and learns to.
    gates = network.gates.linear.weight.grad
    assert not gates[0].any()
    assert gates[1].any(dim=0).all()

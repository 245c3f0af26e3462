import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from rewrites import (
    batch,
    dense_input,
    dependencies,
    make,
    mixed,
    mlp,
    tower,
    weights_of,
)

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


def test_a_task_reads_all_tables_and_trains_its_own_and_the_shared_one():
    network, (codes, numeric) = make(STEM, 3), batch(50)
    logits = network(codes, numeric).logits
    found = dependencies(network, codes, numeric)
    for task in range(3):
        for table, embedding in enumerate(network.input_layer.embeddings):
            is_trained = f"input_layer.embeddings.{table}.weight" in found[task]
            assert is_trained == (table in (task, 3))
            before = embedding.weight.detach().clone()
            with torch.no_grad():
                embedding.weight += 1
                changed = network(codes, numeric).logits
                embedding.weight.copy_(before)
            assert not torch.allclose(changed[:, task], logits[:, task])


def test_a_task_trains_its_own_and_the_shared_experts():
    network = make(STEM, n_experts=2, n_shared_experts=3)
    masks = dependencies(network, *batch(50))[1]
    assert {n.split(".")[1] for n in masks if n.startswith("experts")} == {"1", "2"}
    assert [group.n_stacked for group in network.experts] == [2, 2, 3]
    # The gate of the task has a gradient for the weights of all experts.
    network(*batch(50)).logits[:, 1].sum().backward()
    other, own = network.gates
    assert not other.weight.grad.any()
    assert own.weight.grad.any(dim=1).tolist() == [True] * 7

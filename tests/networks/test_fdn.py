"""FDN, written out in numpy, and its penalties."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from rewrites import (
    batch,
    dense_input,
    dependencies,
    elu,
    make,
    mlp,
    tower,
    weights_of,
)

from sk_pwiser.networks import FDN
from sk_pwiser.networks._fdn import PENALTIES

UNITS = {"expert_units": (8, 7), "tower_units": (6,)}


# FDN.


def cosine(s, h):
    lengths = np.linalg.norm(s, axis=1) * np.linalg.norm(h, axis=1)
    return (s * h).sum(axis=1) / lengths


def squared_correlation(s, h):
    s, h = s - s.mean(axis=0), h - h.mean(axis=0)
    s, h = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (s, h))
    return np.linalg.norm(s.T @ h) ** 2 / len(s) ** 2


def mean_length_of_outer_products(s, h):
    return np.mean([np.linalg.norm(np.outer(a, b)) for a, b in zip(s, h, strict=True)])


WRITTEN_OUT = {
    "row": lambda s, h: np.mean(cosine(s, h) ** 2),
    "batch": squared_correlation,
    "norm_product": mean_length_of_outer_products,
}


@pytest.mark.parametrize("orthogonality", sorted(PENALTIES))
@pytest.mark.parametrize(
    ("n_tasks", "n_pairs", "tower_units"), [(1, 2, ()), (2, 1, (6,)), (3, 2, ())]
)
def test_fdn_equals_the_formula(n_tasks, n_pairs, tower_units, orthogonality):
    network = make(
        FDN,
        n_tasks,
        n_pairs=n_pairs,
        expert_units=(8, 7),
        tower_units=tower_units,
        aux_weight=0.7,
        orthogonality=orthogonality,
        orthogonality_weight=0.4,
    )
    inputs, p = batch(), weights_of(network)
    x, n_each = dense_input(p, *inputs), n_tasks * n_pairs
    experts = [mlp(x, p, "experts", j, elu) for j in range(2 * n_each)]
    specific, shared = experts[:n_each], experts[n_each:]
    output = network(*inputs)
    logits, aux = output.logits, output.aux_logits
    for k in range(n_tasks):
        own = specific[k * n_pairs : (k + 1) * n_pairs]
        expected = tower(np.hstack([*own, *shared]), p, k)
        assert_allclose(logits[:, k].detach(), expected, rtol=1e-4, atol=1e-5)
        for j, s in enumerate(own):
            expected = tower(s, p, k * n_pairs + j, "aux_heads")
            assert_allclose(aux[j][:, k].detach(), expected, rtol=1e-4, atol=1e-5)
    assert len(aux) == n_pairs
    assert output.aux_weight == 0.7
    of_pair = WRITTEN_OUT[orthogonality]
    total = sum(of_pair(s, h) for s, h in zip(specific, shared, strict=True))
    assert_allclose(output.extra_losses["orthogonality"].item(), 0.4 * total, rtol=1e-4)
    # Workers may add up means of rows, but not the penalty of a whole batch.
    assert network.extra_losses_are_means == (orthogonality == "row")


@pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
@pytest.mark.parametrize("shape", [(2, 1, 4), (2, 5, 4)])
def test_penalties_have_gradients_at_zero_and_for_one_row(penalty, shape):
    for start in (torch.zeros(shape), torch.ones(shape), torch.randn(shape)):
        s, h = start.clone().requires_grad_(), start.clone().requires_grad_()
        penalty(s, h).sum().backward()
        assert s.grad.isfinite().all()
        assert h.grad.isfinite().all()


def test_an_auxiliary_loss_trains_only_its_expert_and_head():
    network = make(FDN, n_pairs=2, expert_units=(8,))
    for pair in range(2):
        found = dependencies(network, *batch(50), lambda o, j=pair: o.aux_logits[j])
        for task, masks in enumerate(found):
            assert masks.keys() == {
                "input_layer.embeddings.0.weight",
                f"experts.{task}.layers.0.weight",
                f"experts.{task}.layers.0.bias",
                f"aux_heads.{2 * task + pair}.output.linear.weight",
                f"aux_heads.{2 * task + pair}.output.linear.bias",
            }
            # Of the two experts of the task, the one of the pair.
            experts = masks[f"experts.{task}.layers.0.bias"].flatten(1).any(dim=1)
            assert experts.tolist() == [pair == 0, pair == 1]


def test_auxiliary_heads_start_at_the_rates_of_their_tasks():
    network = FDN(make(FDN, 3).spec, n_pairs=2)
    biases = torch.cat([head.output.linear.bias for head in network.aux_heads])
    torch.testing.assert_close(biases, network.base_logits.repeat_interleave(2))

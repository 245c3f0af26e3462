import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from rewrites import batch, dense_input, make, mixed, mlp, tower, weights_of

from sk_pwiser.networks import MMoE

PARAMS = {"n_experts": 3, "expert_units": (8, 7), "tower_units": (6,)}


@pytest.mark.parametrize("n_tasks", [1, 2, 3])
def test_equals_the_formula_written_out_in_numpy(n_tasks):
    network, (codes, numeric) = make(MMoE, n_tasks, **PARAMS), batch()
    p = weights_of(network)
    x = dense_input(p, codes, numeric)
    experts = [mlp(x, p, "experts", j) for j in range(3)]
    expected = [tower(mixed(x, p, "gates", k, experts), p, k) for k in range(n_tasks)]
    logits = network(codes, numeric).logits.detach()
    assert_allclose(logits, np.stack(expected, 1), rtol=1e-4, atol=1e-5)


def test_gate_weights_sum_to_one():
    network = make(MMoE, **PARAMS)
    weights = network.gates.weights(torch.randn(11, network.width)).detach()
    assert weights.shape == (11, 2, 3)
    assert_allclose(weights.sum(2), 1, rtol=1e-6)
    assert (weights > 0).all()


def test_bad_number_of_experts():
    with pytest.raises(ValueError, match="n_experts must be an integer >= 1; got 0"):
        make(MMoE, n_experts=0)

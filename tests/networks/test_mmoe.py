import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from rewrites import weights_of

from sk_pwiser.networks import MMoE, NetworkSpec


@pytest.fixture
def network():
    torch.manual_seed(0)
    spec = NetworkSpec([4, 6], 3, 5, [0.2, 0.01])
    network = MMoE(spec, n_experts=3, expert_units=(8, 7), tower_units=(6,)).eval()
    for weight in network.gates.linear.weight:
        torch.nn.init.normal_(weight)
    return network


def test_equals_the_formula_written_out_in_numpy(network):
    codes = torch.stack([torch.randint(4, (9,)), torch.randint(6, (9,))], 1)
    numeric = torch.randn(9, 3)
    p = weights_of(network)
    table = p["input_layer.embeddings.0.weight"]
    x = np.hstack([table[codes[:, 0]], table[4 + codes[:, 1]], numeric.numpy()])

    def mlp(x, prefix, index):
        layer = 0
        while f"{prefix}.layers.{layer}.weight" in p:
            weight = p[f"{prefix}.layers.{layer}.weight"][index]
            x = np.maximum(x @ weight + p[f"{prefix}.layers.{layer}.bias"][index], 0)
            layer += 1
        return x

    experts = [mlp(x, "experts", j) for j in range(3)]
    logits = np.empty((9, 2))
    for k in range(2):
        gate = np.exp(x @ p["gates.linear.weight"][k] + p["gates.linear.bias"][k])
        gate /= gate.sum(axis=1, keepdims=True)
        mixed = sum(gate[:, [j]] * experts[j] for j in range(3))
        hidden = mlp(mixed, "towers.hidden", k)
        output = hidden @ p["towers.output.weight"][k] + p["towers.output.bias"][k]
        logits[:, k] = output[:, 0]
    assert_allclose(network(codes, numeric).logits.detach(), logits, rtol=1e-4)


def test_gate_weights_sum_to_one_and_experts_differ(network):
    x = torch.randn(11, network.width)
    weights = network.gates.weights(x)
    assert weights.shape == (11, 2, 3)
    assert_allclose(weights.sum(2).detach(), 1, rtol=1e-6)
    one, two, three = network.experts(x)
    assert not torch.allclose(one, two)
    assert not torch.allclose(two, three)


def test_bad_number_of_experts():
    with pytest.raises(ValueError, match="n_experts must be an integer >= 1; got 0"):
        MMoE(NetworkSpec([], 1, 1, [0.5]), n_experts=0)

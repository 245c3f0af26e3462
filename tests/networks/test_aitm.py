import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from rewrites import batch, dense_input, make, mlp, relu, softmax, tower, weights_of

from sk_pwiser.networks import AITM
from sk_pwiser.networks._aitm import Transfer


def transfer(p, name, own, before):
    weight, bias = p[f"{name}.information.weight"], p[f"{name}.information.bias"]
    vectors = np.stack([own, relu(before @ weight.T + bias)])
    w1, w2, w3 = (
        vectors @ p[f"{name}.attention.weight"][i] + p[f"{name}.attention.bias"][i]
        for i in range(3)
    )
    scores = (w1 * w2).sum(axis=2) / np.sqrt(own.shape[1])
    return (softmax(scores, axis=0)[:, :, np.newaxis] * w3).sum(axis=0)


@pytest.mark.parametrize("n_tasks", [1, 2, 3])
def test_equals_the_formula_written_out_in_numpy(n_tasks):
    network, (codes, numeric) = make(AITM, n_tasks, tower_units=(8, 7)), batch()
    p = weights_of(network)
    x = dense_input(p, codes, numeric)
    found = mlp(x, p, "bottoms", 0)
    expected = [tower(found, p, 0)]
    for k in range(1, n_tasks):
        found = transfer(p, f"transfers.{k - 1}", mlp(x, p, "bottoms", k), found)
        expected.append(tower(found, p, k))
    logits = network(codes, numeric).logits.detach()
    assert_allclose(logits, np.stack(expected, 1), rtol=1e-4, atol=1e-5)


def test_equal_vectors_give_their_value():
    # The weights of two equal vectors do not matter: what is left is W3 v.
    unit = Transfer(6)
    torch.nn.init.eye_(unit.information.weight)
    torch.nn.init.zeros_(unit.information.bias)
    torch.nn.init.normal_(unit.attention.bias)
    v = torch.rand(11, 6)
    value = v @ unit.attention.weight[2] + unit.attention.bias[2]
    torch.testing.assert_close(unit(v, v), value)
    assert not torch.allclose(unit(v, torch.rand(11, 6)), value)


def test_every_hop_has_a_transfer_of_its_own_and_none_reads_later_tasks():
    network, inputs = make(AITM, 3, tower_units=(8,)), batch(50)

    def reached(task):
        network.zero_grad()
        network(*inputs).logits[:, task].sum().backward()
        return {
            name
            for name, parameter in network.named_parameters()
            if name.startswith("transfers")
            and parameter.grad is not None
            and parameter.grad.any()
        }, network.bottoms.layers[0].weight.grad.flatten(1).any(dim=1).tolist()

    first = {
        f"transfers.0.{part}.{kind}"
        for part in ("information", "attention")
        for kind in ("weight", "bias")
    }
    second = {name.replace("0", "1") for name in first}
    assert reached(0) == (set(), [True, False, False])
    assert reached(1) == (first, [True, True, False])
    assert reached(2) == (first | second, [True, True, True])


def test_towers_need_a_layer():
    with pytest.raises(ValueError, match="tower_units must hold at least one width"):
        make(AITM, tower_units=())

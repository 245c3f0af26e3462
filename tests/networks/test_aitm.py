"""AITM, written out in numpy."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from rewrites import (
    batch,
    dense_input,
    make,
    mlp,
    relu,
    softmax,
    tower,
    weights_of,
)

from sk_pwiser.networks import AITM, NetworkSpec


def transfer(p, name, own, previous):
    weight, bias = p[f"{name}.information.weight"], p[f"{name}.information.bias"]
    vectors = np.stack([own, relu(previous @ weight.T + bias)])
    w1, w2, w3 = (
        vectors @ p[f"{name}.attention.weight"][i] + p[f"{name}.attention.bias"][i]
        for i in range(3)
    )
    scores = (w1 * w2).sum(axis=2) / np.sqrt(own.shape[1])
    return (softmax(scores, axis=0)[:, :, np.newaxis] * w3).sum(axis=0)


@pytest.mark.parametrize("n_tasks", [1, 2, 3])
def test_aitm_equals_the_formula(n_tasks):
    network, (codes, numeric) = make(AITM, n_tasks, tower_units=(8, 7)), batch()
    p = weights_of(network)
    x = dense_input(p, codes, numeric)
    hidden = mlp(x, p, "bottoms.0")
    expected = [tower(hidden, p, 0)]
    for k in range(1, n_tasks):
        hidden = transfer(p, f"transfers.{k - 1}", mlp(x, p, f"bottoms.{k}"), hidden)
        expected.append(tower(hidden, p, k))
    logits = network(codes, numeric).logits.detach()
    assert_allclose(logits, np.stack(expected, 1), rtol=1e-4, atol=1e-5)


def test_the_penalty_has_a_weight_by_default():
    assert make(AITM).monotonicity_weight == 0.6
    spec = NetworkSpec([3], 1, 2, [0.5, 0.1], monotonicity_weight=0.0)
    assert AITM(spec).monotonicity_weight == 0.0

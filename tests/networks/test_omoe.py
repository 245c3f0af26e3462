import numpy as np
import torch
from numpy.testing import assert_allclose
from rewrites import batch, dense_input, make, mixed, mlp, tower, weights_of

from sk_pwiser.networks import MMoE, OMoE

PARAMS = {"n_experts": 3, "expert_units": (8, 7), "tower_units": (6,)}


def test_equals_the_formula_written_out_in_numpy():
    network, (codes, numeric) = make(OMoE, 3, **PARAMS), batch()
    p = weights_of(network)
    x = dense_input(p, codes, numeric)
    u = mixed(x, p, "gates", 0, [mlp(x, p, "experts", j) for j in range(3)])
    expected = np.stack([tower(u, p, k) for k in range(3)], 1)
    logits = network(codes, numeric).logits.detach()
    assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_is_mmoe_with_equal_gates():
    one, many, inputs = make(OMoE, **PARAMS), make(MMoE, **PARAMS), batch()
    state = one.state_dict()
    for name in ("weight", "bias"):
        state[f"gates.1.{name}"] = state[f"gates.0.{name}"]
    many.load_state_dict(state)
    torch.testing.assert_close(one(*inputs).logits, many(*inputs).logits)

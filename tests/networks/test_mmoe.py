import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from rewrites import batch, dense_input, make, mixed, mlp, tower, weights_of

from sk_pwiser.networks import MMoE, OMoE

PARAMS = {"n_experts": 3, "expert_units": (8, 7), "tower_units": (6,)}


@pytest.mark.parametrize("kind", [MMoE, OMoE])
@pytest.mark.parametrize("n_tasks", [1, 2, 3])
def test_equals_the_formula_written_out_in_numpy(n_tasks, kind):
    network, (codes, numeric) = make(kind, n_tasks, **PARAMS), batch()
    p = weights_of(network)
    x = dense_input(p, codes, numeric)
    experts = [mlp(x, p, "experts", j) for j in range(3)]
    # OMoE has one gate for all tasks.
    gates = range(n_tasks) if kind is MMoE else [0] * n_tasks
    expected = [
        tower(mixed(x, p, "gates", gate, experts), p, k) for k, gate in enumerate(gates)
    ]
    logits = network(codes, numeric).logits.detach()
    assert_allclose(logits, np.stack(expected, 1), rtol=1e-4, atol=1e-5)


def test_omoe_is_mmoe_with_equal_gates():
    one, many, inputs = make(OMoE, **PARAMS), make(MMoE, **PARAMS), batch()
    state = one.state_dict()
    for name in ("weight", "bias"):
        state[f"gates.1.{name}"] = state[f"gates.0.{name}"]
    many.load_state_dict(state)
    torch.testing.assert_close(one(*inputs).logits, many(*inputs).logits)

"""MMoE and OMoE, written out in numpy."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from rewrites import (
    batch,
    dense_input,
    make,
    mixed,
    mlp,
    tower,
    weights_of,
)

from sk_pwiser.networks import MMoE, OMoE

UNITS = {"expert_units": (8, 7), "tower_units": (6,)}


def mmoe(p, inputs, n_tasks, n_experts):
    x = dense_input(p, *inputs)
    experts = [mlp(x, p, "experts", j) for j in range(n_experts)]
    # OMoE has one gate for all tasks.
    gates = [k if f"gates.{k}.weight" in p else 0 for k in range(n_tasks)]
    return [tower(mixed(x, p, "gates", g, experts), p, k) for k, g in enumerate(gates)]


@pytest.mark.parametrize("n_tasks", [1, 2, 3])
@pytest.mark.parametrize("kind", [MMoE, OMoE])
def test_equals_the_formula_written_out_in_numpy(kind, n_tasks):
    network = make(kind, n_tasks, n_experts=3, **UNITS)
    inputs = batch()
    expected = mmoe(weights_of(network), inputs, n_tasks, n_experts=3)
    found = network(*inputs).logits.detach()
    assert_allclose(found, np.stack(expected, 1), rtol=1e-4, atol=1e-5)

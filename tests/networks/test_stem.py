"""STEM, written out in numpy."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from rewrites import (
    batch,
    dense_input,
    make,
    mixed,
    mlp,
    owners,
    tower,
    weights_of,
)

from sk_pwiser.networks import STEM

UNITS = {"expert_units": (8, 7), "tower_units": (6,)}


def stem(p, inputs, n_tasks, **counts):
    x = [dense_input(p, *inputs, table) for table in range(n_tasks + 1)]
    of = owners(n_tasks, **counts)
    experts = [mlp(x[own], p, "experts", j) for j, own in enumerate(of)]
    read = [(x[k] + x[-1]) / 2 for k in range(n_tasks)]
    return [tower(mixed(r, p, "gates", k, experts), p, k) for k, r in enumerate(read)]


@pytest.mark.parametrize("n_tasks", [1, 2, 3])
@pytest.mark.parametrize("values", [[1, 1], [3, 1], [1, 2]])
def test_equals_the_formula_written_out_in_numpy(values, n_tasks):
    params = dict(zip(["n_experts", "n_shared_experts"], values, strict=True))
    network, inputs = make(STEM, n_tasks, **params, **UNITS), batch()
    expected = stem(weights_of(network), inputs, n_tasks, **params)
    found = network(*inputs).logits.detach()
    assert_allclose(found, np.stack(expected, 1), rtol=1e-4, atol=1e-5)

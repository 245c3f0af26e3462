"""PLE, written out in numpy."""

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

from sk_pwiser.networks import PLE

UNITS = {"expert_units": (8, 7), "tower_units": (6,)}


def ple(p, inputs, n_tasks, n_levels, **counts):
    streams = [dense_input(p, *inputs)] * (n_tasks + 1)
    for level in range(n_levels):
        name, of = f"levels.{level}", owners(n_tasks, **counts)
        experts = [
            mlp(streams[own], p, f"{name}.experts", j) for j, own in enumerate(of)
        ]
        new = []
        for k in range(n_tasks):
            seen = [experts[j] for j, own in enumerate(of) if own in (k, n_tasks)]
            new.append(mixed(streams[k], p, f"{name}.task_gates", k, seen))
        # No layer reads a shared stream of the last level.
        if level < n_levels - 1:
            new.append(mixed(streams[-1], p, f"{name}.shared_gate", 0, experts))
        else:
            assert not any(f"{name}.shared_gate" in key for key in p)
        streams = new
    return [tower(streams[k], p, k) for k in range(n_tasks)]


@pytest.mark.parametrize("n_tasks", [1, 2, 3])
@pytest.mark.parametrize("values", [[1, 1, 1], [3, 1, 3], [1, 4, 1], [2, 3, 3]])
def test_equals_the_formula_written_out_in_numpy(values, n_tasks):
    params = dict(
        zip(["n_experts", "n_shared_experts", "n_levels"], values, strict=True)
    )
    network, inputs = make(PLE, n_tasks, **params, **UNITS), batch()
    expected = ple(weights_of(network), inputs, n_tasks, **params)
    found = network(*inputs).logits.detach()
    assert_allclose(found, np.stack(expected, 1), rtol=1e-4, atol=1e-5)

"""Sums of task vectors."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from sk_pwiser.transfer._merge import combine


def states(n_members, seed=0):
    """Return a base and members; a member has tiny weights where the base has not."""
    rng = np.random.default_rng(seed)
    shapes = {"table": (7, 3), "weight": (4, 5), "bias": (4,)}
    base, *members = (
        {
            name: torch.from_numpy(rng.standard_normal(shape).astype(np.float32))
            for name, shape in shapes.items()
        }
        for _ in range(n_members + 1)
    )
    members[0]["table"] *= 1e-20
    return base, members


def for_all(base, values):
    return dict.fromkeys(base, np.asarray(values, dtype=float))


@pytest.mark.parametrize("index", range(3))
def test_a_single_coefficient_of_1_gives_the_member_to_the_bit(index):
    base, members = states(3)
    merged = combine(base, members, for_all(base, np.eye(3)[index]))
    for name in base:
        assert_array_equal(merged[name], members[index][name])
        assert merged[name] is not members[index][name]


def test_unit_coefficients_give_the_sum_of_task_arithmetic_to_the_bit():
    base, members = states(3)
    merged = combine(base, members, for_all(base, [1.0, 1.0, 1.0]))
    for name in base:
        start = base[name].numpy().astype(np.float64)
        total = start.copy()
        for member in members:
            total += member[name].numpy().astype(np.float64) - start
        assert_array_equal(merged[name].numpy(), total.astype(np.float32))


def test_each_tensor_has_coefficients_of_its_own():
    base, members = states(2)
    merged = combine(base, members, {"bias": np.array([0.0, 1.0])})
    assert_array_equal(merged["bias"], members[1]["bias"])
    assert_array_equal(merged["weight"], base["weight"])

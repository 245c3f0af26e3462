"""Sums of task vectors, and what trimming keeps of them."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from sk_pwiser.transfer._task_vectors import combine, trim_vectors


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


def test_coefficients_of_0_give_the_base_to_the_bit():
    base, members = states(2)
    for coefficients in ({}, for_all(base, [0.0, 0.0])):
        merged = combine(base, members, coefficients)
        for name in base:
            assert_array_equal(merged[name], base[name])
            assert merged[name] is not base[name]


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


def brute_force_ties(base, members, share, names):
    """Trim and elect signs over the flattened vectors in numpy."""
    vectors = np.array(
        [
            np.concatenate([(m[n] - base[n]).numpy().ravel() for n in names])
            for m in members
        ]
    )
    n_removed = int(share * vectors.shape[1])
    for vector in vectors:
        smallest = sorted(range(len(vector)), key=lambda i: abs(vector[i]))[:n_removed]
        vector[smallest] = 0
    for entry in vectors.T:
        elected = np.sign(entry.astype(np.float64).sum())
        entry[np.sign(entry) != elected] = 0
    return vectors


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_trimming_keeps_large_entries_of_the_elected_sign(share):
    base, members = states(3, seed=1)
    names = ["weight", "table"]
    trimmed = trim_vectors(base, members, share, names)
    expected = brute_force_ties(base, members, share, names)
    for member, original, vector in zip(trimmed, members, expected, strict=True):
        found = np.concatenate([member[n].numpy().ravel() for n in names])
        whole = np.concatenate([original[n].numpy().ravel() for n in names])
        start = np.concatenate([base[n].numpy().ravel() for n in names])
        # Entries are those of the member or of the base, to the bit.
        assert_array_equal(found, np.where(vector != 0, whole, start))
        assert_array_equal(member["bias"], original["bias"])
    assert (expected != 0).any()
    assert (expected == 0).any()

"""Rows with equal inputs, and groups, are units that are not parted."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sk_pwiser._rows._row_units import (
    MOST_EQUAL_ROWS,
    UnitKeys,
    equal_row_units,
    has_group_column,
    row_hashes,
    split_large_units,
)


def table(n_rows=500, seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 4, (n_rows, 3)).astype(np.int16)
    numeric = rng.integers(0, 3, (n_rows, 2)).astype(np.float32)
    return codes, numeric


def numbers_of(rows):
    """Number rows by the order in which they first occur."""
    seen = {}
    return np.array([seen.setdefault(row, len(seen)) for row in rows])


def test_units_are_the_distinct_rows_in_their_order():
    codes, numeric = table()
    units = equal_row_units(row_hashes(codes, numeric), most_rows=500)
    expected = numbers_of([*map(tuple, np.hstack([codes, numeric]).tolist())])
    assert 100 < expected.max() < 400
    assert_array_equal(units, expected)


def test_units_of_distinct_rows_are_none():
    codes, numeric = table()
    numeric[:, 0] = np.arange(500)
    assert equal_row_units(row_hashes(codes, numeric), most_rows=2) is None


def test_lists_are_equal_if_their_elements_are():
    codes, numeric = np.zeros((4, 1), np.int8), np.zeros((4, 0), np.float32)
    offsets = np.array([0, 2, 4, 5, 7])
    indices = np.array([1, 2, 2, 1, 3, 1, 2])
    weights = np.array([1, 1, 1, 1, 1, 1, 0.5], dtype=np.float32)
    hashes = row_hashes(codes, numeric, (offsets, indices, None))
    assert_array_equal(numbers_of(hashes.tolist()), [0, 0, 1, 0])
    hashes = row_hashes(codes, numeric, (offsets, indices, weights))
    assert_array_equal(numbers_of(hashes.tolist()), [0, 0, 1, 2])


def test_more_rows_than_a_unit_holds_are_several_units():
    """Later rows do not change the units of earlier ones."""
    hashes = np.array([7, 7, 5, 7, 7, 7, 5], dtype=np.uint64)
    assert_array_equal(equal_row_units(hashes, 2), [0, 0, 1, 2, 2, 3, 1])
    assert_array_equal(equal_row_units(hashes[:5], 2), [0, 0, 1, 2, 2])


def test_rows_of_large_units_are_alone():
    units = np.array([0, 1, 1, 1, 2, 2])
    split, (largest, size) = split_large_units(units, 2)
    assert (largest, size) == (1, 3)
    assert split[0] == 0
    assert split[4] == split[5] == 2
    assert len(set(split.tolist())) == 5
    assert split_large_units(units, 3) == (units, None)


def test_a_column_of_the_groups_is_found():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 50, 1_000)
    users = rng.permutation(50)[groups] + 2
    ages = (users % 5).astype(np.int64)  # of each group, and of many groups
    orders = np.arange(1_000)  # in a group each, and many of each group
    assert has_group_column(np.stack([ages, users], axis=1), groups)
    assert not has_group_column(np.stack([ages, orders], axis=1), groups)
    assert not has_group_column(np.zeros((1_000, 0), int), groups)


@pytest.mark.parametrize("size", [50, 4_000])
def test_keys_in_parts_are_those_of_pieces_of_equal_rows(size):
    rng = np.random.default_rng(0)
    hashes = row_hashes(rng.integers(0, 200, (4_000, 1)), np.zeros((4_000, 0), "f4"))
    keys = UnitKeys(4_000)
    parts = np.split(hashes, np.arange(size, 4_000, size))
    joined = np.concatenate([keys.of(part) for part in parts])
    units = equal_row_units(hashes, MOST_EQUAL_ROWS)
    pairs = {*zip(units.tolist(), joined.tolist(), strict=True)}
    # A few hashes share a counter with another one.
    assert len(pairs) < 1.15 * (units.max() + 1)
    assert keys.share_of_repeats() == 1 - 200 / 4_000


def test_counters_of_many_rows_begin_again():
    keys = UnitKeys(10)
    hashes = np.zeros(1_000, dtype=np.uint64)
    assert len(np.unique(keys.of(hashes))) == 256 // MOST_EQUAL_ROWS

"""Validation rows and blocks of rows in parts, against those of all rows at once."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sk_pwiser._streaming import _split
from sk_pwiser._streaming._split import Blocks, HoldOut, TimeEdges
from sk_pwiser._table import assign_blocks, check_targets
from sk_pwiser.model_selection import funnel_holdout

PARTS = [slice(0, 30), slice(30, 31), slice(31, 200), slice(200, 300)]


def rare_labels(n_rows, n_clicks, n_conversions, seed=0):
    y = np.zeros((n_rows, 2))
    rows = np.random.default_rng(seed).permutation(n_rows)
    y[rows[:n_clicks], 0] = 1
    y[rows[:n_conversions], 1] = 1
    return y


def hold_out(y, groups=None, seed=0, fraction=0.1, size=300):
    """Return which rows are held out, in parts of `size` rows."""
    drawn = HoldOut(fraction)
    starts = range(0, len(y), size)
    targets = [check_targets(y[i : i + size], missing_labels="ignore") for i in starts]
    of_parts = [None if groups is None else groups[i : i + size] for i in starts]
    pairs = list(zip(targets, of_parts, strict=True))
    for pair in pairs:
        drawn.count(*pair)
    drawn.start(seed)
    return np.concatenate([drawn.draw(*pair) for pair in pairs])


def shares(y, is_valid):
    """Return the numbers of validation rows of depth 0, 1 and 2."""
    return np.bincount(y[is_valid].sum(axis=1).astype(int), minlength=3)


@pytest.mark.parametrize("size", [1, 300, 4_000])
def test_as_many_of_each_depth_are_held_out_as_in_memory(size):
    """12 conversions among 4,000 rows: none at all for some seeds, if drawn by row."""
    y = rare_labels(4_000, 300, 12)
    _, valid = funnel_holdout(y, test_size=0.1, random_state=0)
    expected = np.bincount(y[valid].sum(axis=1).astype(int))
    for seed in range(20 if size > 1 else 2):
        is_valid = hold_out(y, seed=seed, size=size)
        assert_array_equal(shares(y, is_valid), expected)
        assert shares(y, is_valid)[2] == 1


def test_missing_labels_are_strata_of_their_own():
    y = rare_labels(1_000, 500, 200)
    y[y[:, 0] == 1, 1] = np.where(np.arange(500) < 100, np.nan, y[y[:, 0] == 1, 1])
    found = [hold_out(y, seed=seed, fraction=0.2) for seed in range(5)]
    assert {np.isnan(y[is_valid, 1]).sum() for is_valid in found} == {20}


def test_every_row_has_the_same_chance():
    y = rare_labels(60, 20, 5)
    counts = sum(hold_out(y, seed=s, fraction=0.2, size=7) for s in range(2_000))
    expected = np.array([8 / 40, 3 / 15, 1 / 5])[y.sum(axis=1).astype(int)]
    deviation = np.sqrt(2_000 * expected * (1 - expected))
    assert (np.abs(counts - 2_000 * expected) < 4.5 * deviation).all()


def test_pairs_of_rows_are_drawn_independently_of_the_parts():
    """Without replacement, two rows are held out together as often as any other two."""
    y = np.zeros((20, 2))
    drawn = np.array([hold_out(y, seed=s, fraction=0.3, size=5) for s in range(3_000)])
    together = drawn.T.astype(float) @ drawn / 3_000
    pairs = together[~np.eye(20, dtype=bool)]
    assert_allclose(pairs, 6 * 5 / (20 * 19), atol=4.5 * np.sqrt(0.08 * 0.92 / 3_000))


def test_more_rows_than_numpy_draws_from(monkeypatch):
    monkeypatch.setattr(_split, "LARGEST_POPULATION", 50)
    y = rare_labels(4_000, 300, 12)
    for seed in range(20):
        assert_array_equal(shares(y, hold_out(y, seed=seed)), [370, 29, 1])


@pytest.mark.parametrize("size", [1, 7, 300])
def test_groups_are_held_out_as_a_whole(size):
    y = rare_labels(4_000, 300, 12)
    groups = np.repeat(np.arange(1_000), 4)
    for seed in range(20 if size > 1 else 2):
        is_valid = hold_out(y, groups, seed, size=size)
        held = is_valid.reshape(1_000, 4)
        assert_array_equal(held.all(axis=1), held.any(axis=1))
        assert held.any(axis=1).sum() == 100
        if size > 1:  # otherwise a group is judged by its first row
            assert 1 <= shares(y, is_valid)[2] <= 2


def test_something_stays_on_both_sides():
    for groups in (None, np.array([0, 0, 1, 1])):
        for seed in range(5):
            is_valid = hold_out(np.zeros((4, 2)), groups, seed, fraction=0.9)
            assert 0 < is_valid.sum() < 4
    assert not hold_out(np.zeros((4, 2)), np.zeros(4, int)).any()


@pytest.mark.parametrize("ends", [[0, 140, 300], [0, 30, 31, 200, 300]])
@pytest.mark.parametrize("has_groups", [False, True])
def test_blocks_of_consecutive_rows(has_groups, ends):
    """The second ends cut groups of seven rows."""
    groups = np.arange(300) // 7 if has_groups else None
    blocks = Blocks(300, 4, TimeEdges(None, 4, 300, None), None)
    table = pa.table({"a": np.arange(300)})
    found = [
        blocks.assign(
            table.slice(start, stop - start),
            None if groups is None else groups[start:stop],
        )
        for start, stop in pairwise(ends)
    ]
    assert_array_equal(np.concatenate(found), assign_blocks(300, 4, groups=groups))


@pytest.mark.parametrize("has_groups", [False, True])
def test_blocks_of_time(has_groups):
    rng = np.random.default_rng(0)
    groups = np.arange(300) // 7 if has_groups else None
    table = pa.table({"a": np.arange(300), "time": rng.permutation(300) * 1.0})
    times = TimeEdges("time", 5, 300, rng)
    for rows in PARTS:
        times.add(table.slice(rows.start, rows.stop - rows.start))
    blocks = Blocks(300, 5, times, times.finish())
    found = blocks.assign(table, groups)
    time = table["time"].to_numpy()
    assert_array_equal(found, assign_blocks(300, 5, times=time, groups=groups))
    with pytest.raises(ValueError, match="time_column='time' must not have missing"):
        times.add(pa.table({"time": [1.0, None]}))

"""Rows in parts against all rows at once: validation rows, blocks, labels, samples."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._rows import _hold_out
from sk_pwiser._rows._blocks import Blocks, assign_blocks
from sk_pwiser._rows._checked_rows import CheckedRows
from sk_pwiser._rows._group_numbers import GroupNumbers
from sk_pwiser._rows._hold_out import HeldOutOfParts, hold_out
from sk_pwiser._rows._row_sample import RowSample
from sk_pwiser._rows._row_summary import RowSummary
from sk_pwiser._settings import Settings
from sk_pwiser._tasks._labels import check_targets
from sk_pwiser._tasks._weights import base_rates, combine_weights, scale_weights
from sk_pwiser.model_selection import funnel_holdout

PARTS = [slice(0, 30), slice(30, 31), slice(31, 200), slice(200, 300)]


def rare_labels(n_rows, n_clicks, n_conversions, seed=0):
    y = np.zeros((n_rows, 2))
    rows = np.random.default_rng(seed).permutation(n_rows)
    y[rows[:n_clicks], 0] = 1
    y[rows[:n_conversions], 1] = 1
    return y


def hold_outs(y, groups=None, n_seeds=1, fraction=0.1, size=300):
    """Yield which rows are held out, in parts of `size` rows, for some seeds."""
    settings = Settings.of(
        vars(MultiTaskCTRCVRClassifier(validation_fraction=fraction))
    )
    starts = range(0, len(y), size)
    targets = [check_targets(y[i : i + size], missing_labels="ignore") for i in starts]
    of_parts = [None if groups is None else groups[i : i + size] for i in starts]
    pairs = zip(targets, of_parts, strict=True)
    parts = [CheckedRows(X=None, targets=own, groups=numbers) for own, numbers in pairs]
    for seed in range(n_seeds):
        random_state = np.random.RandomState(seed)
        if len(parts) == 1:
            yield hold_out(settings, parts[0], None, random_state)[0]
            continue
        drawn = HeldOutOfParts(settings, Blocks(10, by_time=False), random_state)
        for rows in parts:
            drawn.count(rows)
        drawn.start()
        yield np.concatenate([drawn.draw(rows, None) for rows in parts])


def shares(y, is_valid):
    """Return the numbers of validation rows of depth 0, 1 and 2."""
    return np.bincount(y[is_valid].sum(axis=1).astype(int), minlength=3)


@pytest.mark.parametrize("size", [9, 300, 4_000])
def test_as_many_of_each_depth_are_held_out_as_in_memory(size):
    """12 conversions among 4,000 rows: none at all for some seeds, if drawn by row."""
    y = rare_labels(4_000, 300, 12)
    _, valid = funnel_holdout(y, test_size=0.1, random_state=0)
    expected = np.bincount(y[valid].sum(axis=1).astype(int))
    assert expected[2] == 1
    for is_valid in hold_outs(y, n_seeds=5, size=size):
        assert_array_equal(shares(y, is_valid), expected)


def test_missing_labels_are_strata_of_their_own():
    y = rare_labels(1_000, 500, 200)
    y[y[:, 0] == 1, 1] = np.where(np.arange(500) < 100, np.nan, y[y[:, 0] == 1, 1])
    found = hold_outs(y, n_seeds=5, fraction=0.2)
    assert {np.isnan(y[is_valid, 1]).sum() for is_valid in found} == {20}


def test_rows_of_different_parts_are_drawn_like_rows_of_one():
    """Without replacement, any two rows are held out together equally often."""
    y = np.zeros((20, 2))
    drawn = np.array([*hold_outs(y, n_seeds=1_000, fraction=0.3, size=10)])
    together = drawn.T.astype(float) @ drawn / 1_000
    pairs = together[~np.eye(20, dtype=bool)]
    assert_allclose(pairs, 6 * 5 / (20 * 19), atol=4.5 * np.sqrt(0.08 * 0.92 / 1_000))


def test_more_rows_than_numpy_draws_from(monkeypatch):
    monkeypatch.setattr(_hold_out, "LARGEST_POPULATION", 50)
    y = rare_labels(4_000, 300, 12)
    for is_valid in hold_outs(y, n_seeds=5):
        assert_array_equal(shares(y, is_valid), [370, 29, 1])


def test_both_sides_have_rows():
    y = np.zeros((4, 2))
    for groups in (None, np.array([0, 0, 1, 1])):
        for is_valid in hold_outs(y, groups, 5, fraction=0.9):
            assert 0 < is_valid.sum() < 4
    of_one_group = hold_outs(y, np.zeros(4, int), size=2)
    assert not any(is_valid.any() for is_valid in of_one_group)


def blocks_of(n_rows, n_blocks, times=None, parts=PARTS, **kwargs):
    """Return blocks after their first pass."""
    blocks = Blocks(n_blocks, times is not None, **kwargs)
    for part in parts:
        blocks.add(len(range(n_rows)[part]), None if times is None else times[part])
    blocks.finish()
    return blocks


def assigned(blocks, parts, times=None, groups=None, n_rows=300):
    return np.concatenate(
        [
            blocks.assign(
                len(range(n_rows)[part]),
                None if times is None else times[part],
                None if groups is None else groups[part],
            )
            for part in parts
        ]
    )


@pytest.mark.parametrize("ends", [[0, 300], [0, 140, 300], [0, 30, 31, 200, 300]])
@pytest.mark.parametrize("has_groups", [False, True])
def test_blocks_of_consecutive_rows(has_groups, ends):
    """The last ends cut groups of seven rows."""
    groups = np.arange(300) // 7 if has_groups else None
    parts = [slice(*pair) for pair in pairwise(ends)]
    found = assigned(blocks_of(300, 4, parts=parts), parts, groups=groups)
    assert_array_equal(found, assign_blocks(300, 4, groups=groups))


@pytest.mark.parametrize("n_times", [300, 40, 3, 2, 1])
@pytest.mark.parametrize("has_groups", [False, True])
def test_blocks_of_time(has_groups, n_times):
    """Few times, such as days, have several blocks each."""
    rng = np.random.default_rng(0)
    groups = np.arange(300) // 7 if has_groups else None
    times = rng.permutation(300) % n_times * 1.0
    parts = [slice(0, 154), slice(154, 300)] if has_groups else PARTS  # no group is cut
    blocks = blocks_of(300, 5, times, parts, sample=RowSample(300, rng))
    found = assigned(blocks, parts, times, groups)
    expected = assign_blocks(300, 5, times=times)
    if not has_groups:
        assert_array_equal(found, expected)
    else:  # a group has the block of one of its rows
        assert len(set(zip(groups, found, strict=True))) == groups.max() + 1
        pairs = {*zip(groups, expected, strict=True)}
        assert pairs.issuperset(zip(groups, found, strict=True))


@pytest.mark.parametrize("by_time", [False, True])
@pytest.mark.parametrize("seed", [None, 0])
def test_groups_that_come_back_are_spread_over_the_blocks(by_time, seed):
    """Users with rows in all of a file, and in both parts of it."""
    rng = np.random.default_rng(0)
    users, parts = rng.integers(0, 200, 20_000), [slice(0, 16_384), slice(16_384, None)]
    times = np.arange(20_000.0) if by_time else None
    blocks = blocks_of(20_000, 10, times, parts, sample=RowSample(20_000, rng))
    blocks.start(seed)
    found = assigned(blocks, parts, times, users, 20_000)
    assert len(set(zip(users, found, strict=True))) == 200
    # Those of a file are known when its first part is read.
    sizes = np.bincount(found, minlength=10)
    assert (sizes > 1_000).sum() >= 8
    assert sizes.max() < 4_000
    assert blocks.n_largest == np.bincount(users).max()


@pytest.mark.parametrize("parts", [PARTS, [slice(0, 300)]])
def test_random_blocks_share_each_time(parts):
    """Two weeks of 150 rows, each sorted by labels."""
    weeks, rng = np.arange(300) // 150 * 1.0, np.random.default_rng(0)
    blocks = blocks_of(300, 4, weeks, parts, sample=RowSample(300, rng))
    assert blocks.have_order
    in_order = assigned(blocks, parts, weeks)
    found = []
    for _ in range(2):
        blocks.start(seed=1)
        found.append(assigned(blocks, parts, weeks))
    assert_array_equal(*found)
    assert (found[0] != in_order).any()
    assert_array_equal(found[0] // 2, np.arange(300) // 150)
    assert np.bincount(found[0]).min() > 50


@pytest.mark.parametrize("parts", [PARTS, [slice(0, 300)]])
def test_distinct_times_need_no_other_blocks(parts):
    rng = np.random.default_rng(0)
    blocks = blocks_of(300, 4, np.arange(300.0), parts, sample=RowSample(300, rng))
    assert not blocks.have_order


def draw(kind):
    """Return labels and weights; of some parts all weights are equal."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (300, 3)).astype(float)
    y[:, 1] *= y[:, 0]
    weights = None
    if kind == "rows":
        weights = rng.random(300) + 0.1
    elif kind == "equal":
        weights = np.full(300, 2.0)
    elif kind == "tasks":
        weights = rng.integers(0, 3, (300, 3)).astype(float)
        weights[:, 0] = 1
        weights[:30] = 2
    elif kind == "missing":
        y[100:150, 1:] = np.nan
    elif kind == "selected":  # clicks in the first part, labels missing in others
        y[:] = 0
        y[:30, 0] = 1
        y[31:290, 1:] = np.nan
    return y, weights


@pytest.mark.parametrize(
    "kind", ["none", "rows", "equal", "tasks", "missing", "selected"]
)
def test_labels_and_weights_are_summed_up_as_a_whole(kind):
    y, given = draw(kind)
    summary, parts = RowSummary(), []
    for rows in PARTS:
        targets = check_targets(y[rows], missing_labels="ignore")
        own = None if given is None else given[rows]
        targets, weights = combine_weights(targets, own, is_part=True)
        summary.add(targets, weights)
        parts.append(weights)
    targets, weights = combine_weights(check_targets(y, missing_labels="ignore"), given)
    scaled = None if weights is None else scale_weights(weights)
    assert summary.n_rows == 300
    assert_allclose(summary.base_rates(), base_rates(targets.values, scaled), rtol=1e-6)
    sizes = [len(y[rows]) for rows in PARTS]
    found = [summary.scale(w, n) for w, n in zip(parts, sizes, strict=True)]
    if scaled is None:
        assert found == [None] * 4
    else:
        assert_allclose(np.concatenate(found), scaled, rtol=1e-6)
    assert summary.labels()[0].problems() == targets.problems() != []


def test_a_sample_of_all_rows_is_in_their_order():
    sample = RowSample(300, np.random.default_rng(0))
    table = pa.table({"a": np.arange(300)})
    for rows in PARTS:
        sample.add(table.slice(rows.start, rows.stop - rows.start), None)
    found, weights = sample.finish()
    assert_array_equal(found["a"], np.arange(300))
    assert_array_equal(weights, np.ones((300, 1)))


def test_every_row_has_the_same_chance_to_be_in_the_sample():
    counts = np.zeros(300)
    for seed in range(400):
        sample = RowSample(30, np.random.default_rng(seed))
        for start in range(0, 300, 20):
            part = pa.table({"a": np.arange(start, start + 20)})
            sample.add(part, np.arange(start, start + 20, dtype=float))
        found, weights = sample.finish()
        weights = weights[:, 0]
        assert_array_equal(found["a"], weights)
        assert len(set(weights)) == 30
        counts[weights.astype(int)] += 1
    # 400 draws with a chance of 0.1 each: a standard deviation of 6.
    assert counts.min() > 40 - 5 * 6
    assert counts.max() < 40 + 5 * 6
    assert_allclose(counts.reshape(3, 100).sum(axis=1) / counts.sum(), 1 / 3, atol=0.02)


@pytest.mark.parametrize("n_days", [3, 300])
def test_groups_in_parts_are_held_out_by_their_first_times(n_days):
    groups = np.repeat(np.arange(30), 10)
    times = np.random.default_rng(0).permutation(np.arange(300.0)) // (300 // n_days)
    settings = Settings.of(vars(MultiTaskCTRCVRClassifier()))
    blocks = Blocks(10, by_time=True)
    drawn, parts = HeldOutOfParts(settings, blocks, np.random.RandomState(0)), []
    for part in (slice(0, 100), slice(100, 300)):
        rows = CheckedRows(
            X=None, targets=check_targets(np.zeros((300, 2))[part]), groups=groups[part]
        )
        parts.append((rows, times[part]))
        blocks.add(len(rows), times[part])
        drawn.count(*parts[-1])
    blocks.finish()
    drawn.start()
    found = np.concatenate([drawn.draw(*part) for part in parts])
    assert 10 <= found.sum() < 60
    begins = np.repeat(times.reshape(30, 10).min(axis=1), 10)
    if n_days == 3:  # almost all groups begin on the first day
        assert (begins == 0).sum() > 200
        assert (found.reshape(30, 10).all(axis=1) | ~found.reshape(30, 10).any(1)).all()
    else:
        assert_array_equal(found, begins >= np.quantile(begins, 0.9, method="higher"))


def test_groups_keep_their_numbers_over_the_border_of_parts():
    numbers = GroupNumbers()
    first = numbers.of(pd.DataFrame({"s": ["a", "a", "b"]}))
    second = numbers.of(pd.DataFrame({"s": ["b", "c", "c", "d"]}))
    assert_array_equal(first, [0, 0, 1])
    assert_array_equal(second, [1, 2, 2, 3])
    with pytest.raises(ValueError, match="'s' has no value in row 1"):
        numbers.of(pd.DataFrame({"s": ["b", None]}))

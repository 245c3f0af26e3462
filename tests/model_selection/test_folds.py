"""Splits by funnel depth against brute force."""

import math

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal
from sklearn.model_selection import StratifiedKFold

from sk_pwiser._tasks._stratify import depth_in_tree
from sk_pwiser.model_selection import (
    FunnelGroupKFold,
    FunnelStratifiedKFold,
    FunnelTimeSplit,
    funnel_depth,
    funnel_holdout,
)

BAD_LABELS = [
    ([[0, 2], [1, 0]], "must be 0 or 1; column 1 of [yY] contains 2 in row 0"),
    ([0, -1, 1], "must be 0 or 1; column 0 of [yY] contains -1 in row 1"),
    ([[0.0, 1.0], [np.nan, 3.0]], "column 1 of [yY] contains 3.0 in row 1"),
    (np.zeros((2, 2, 2)), "dim 3"),
    (None, "must hold the labels, got None"),
]
labels = st.tuples(st.integers(2, 40), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.integers(0, 1))
)


def rows_of_depths(counts, n_tasks):
    """Return labels with the given number of rows per depth, shuffled."""
    depth = np.repeat(list(counts), list(counts.values()))
    depth = np.random.default_rng(0).permutation(depth)
    return (np.arange(n_tasks) < depth[:, None]).astype(int)


def slow_depth(row):
    depth = 0
    for label in row:
        if label != 1:
            break
        depth += 1
    return depth


@given(labels)
def test_depth_by_brute_force(Y):
    expected = [slow_depth(row) for row in Y.tolist()]
    for form in (Y, Y.astype(bool), Y.astype(np.float32), Y.tolist()):
        depth = funnel_depth(form)
        assert depth.dtype.kind == "i"
        assert depth.tolist() == expected
    assert funnel_depth(Y[:, 0]).tolist() == Y[:, 0].tolist()


@given(labels, st.integers(0, 2**16))
def test_an_unknown_label_counts_unless_a_later_task_was_reached(Y, seed):
    """Tasks that presuppose nothing, against all values of the unknown labels."""
    is_missing = np.random.default_rng(seed).random(Y.shape) < 0.4
    is_missing[:, 0] = False
    depth = depth_in_tree(np.where(is_missing, np.nan, Y), None)
    for row, unknown, found in zip(Y, is_missing, depth, strict=True):
        filled = [np.where(unknown, value, row) for value in (0, 1)]
        lowest, highest = (max(np.flatnonzero(f) + 1, default=0) for f in filled)
        assert found == (lowest if lowest == highest else -1)


@pytest.mark.parametrize(("bad", "match"), BAD_LABELS)
def test_bad_labels(bad, match):
    with pytest.raises(ValueError, match=match):
        funnel_depth(bad)
    # The error comes at the call, not at the first fold.
    with pytest.raises(ValueError, match=match):
        FunnelStratifiedKFold().split(np.zeros((2, 1)), bad)


def test_folds_keep_the_share_of_every_depth():
    counts = {0: 61, 1: 23, 2: 12, 3: 7}
    Y = rows_of_depths(counts, n_tasks=3)
    cv = FunnelStratifiedKFold(n_splits=4, random_state=0)
    tests = []
    for train, test in cv.split(np.zeros((len(Y), 1)), Y):
        assert sorted([*train, *test]) == list(range(len(Y)))
        tests += test.tolist()
        found = np.bincount([slow_depth(row) for row in Y[test]], minlength=4)
        # Rounding to whole rows changes each share by less than one row.
        assert (np.abs(found - np.array([*counts.values()]) / 4) < 1).all()
    assert sorted(tests) == list(range(len(Y)))


@pytest.mark.parametrize("params", [{"random_state": 3}, {"shuffle": False}])
def test_folds_are_those_of_stratified_k_fold(params):
    Y = rows_of_depths({0: 30, 1: 9, 2: 6}, n_tasks=2)
    X = np.zeros((len(Y), 1))
    plain = StratifiedKFold(3, **{"shuffle": True, **params})
    cv = FunnelStratifiedKFold(3, **params)
    for y, depth in ((Y, Y.sum(axis=1)), (Y[:, 0], Y[:, 0]), (Y.tolist(), Y.sum(1))):
        for found, expected in zip(cv.split(X, y), plain.split(X, depth), strict=True):
            assert_array_equal(found[0], expected[0])
            assert_array_equal(found[1], expected[1])


def folds(cv, Y):
    return [test.tolist() for _, test in cv.split(np.zeros((len(Y), 1)), Y)]


def test_folds_of_data_frames():
    Y = rows_of_depths({0: 30, 1: 9, 2: 6}, n_tasks=2)
    cv = FunnelStratifiedKFold(random_state=0)
    columns = {"click": Y[:, 0], "buy": Y[:, 1]}
    frame = pd.DataFrame(columns, index=np.arange(len(Y))[::-1])
    for form in (frame, frame.astype("boolean"), pl.DataFrame(columns)):
        assert folds(cv, form) == folds(cv, Y)
    with pytest.raises(ValueError, match="0 or 1; column 'buy' of y contains 5"):
        folds(cv, frame * [1, 5])


@pytest.mark.parametrize(
    ("counts", "strata", "named"),
    [
        ({0: 40, 1: 10, 2: 3}, [[0], [1, 2]], "depth 2 (3 rows)"),
        # Still rare together: merged with the next depth too.
        ({0: 40, 1: 11, 2: 2, 3: 2}, [[0], [1, 2, 3]], "depth 2 (2 rows), depth 3 (2"),
        # Frequent enough together.
        ({0: 40, 1: 11, 2: 3, 3: 4}, [[0], [1], [2, 3]], "depth 2 (3 rows), depth 3"),
        # The next shallower one that has rows.
        ({0: 40, 3: 1}, [[0, 3]], "depth 3 (1 rows)"),
        # Nothing is shallower than depth 0.
        ({0: 2, 1: 20, 2: 10}, [[0, 1], [2]], "depth 0 (2 rows)"),
        ({0: 3, 1: 3}, [[0, 1]], "depth 0 (3 rows), depth 1 (3 rows)"),
    ],
)
def test_rare_depths_are_merged_with_one_warning(counts, strata, named):
    Y = rows_of_depths(counts, n_tasks=3)
    cv = FunnelStratifiedKFold(n_splits=5, random_state=0)
    with pytest.warns(UserWarning, match="Fewer rows than n_splits=5") as caught:
        found = folds(cv, Y)
    assert len(caught) == 1
    assert named in str(caught[0].message)
    assert caught[0].filename == __file__
    depth = Y.sum(axis=1)
    for stratum in strata:
        inside = np.isin(depth, stratum)
        sizes = [inside[test].sum() for test in found]
        assert sum(sizes) == inside.sum()
        assert max(sizes) - min(sizes) <= 1


def test_too_few_rows_and_unequal_lengths_raise_without_a_warning():
    with pytest.raises(ValueError, match="n_splits=5"):
        folds(FunnelStratifiedKFold(), rows_of_depths({0: 2, 2: 2}, n_tasks=2))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        list(FunnelStratifiedKFold().split(np.zeros((9, 1)), np.zeros((10, 2))))


@pytest.mark.parametrize("cv", [FunnelStratifiedKFold(2), FunnelGroupKFold(2)])
def test_labels_in_another_order_than_the_rows(cv):
    """Within folds, the indices have different labels, and are not compared."""
    X, groups = pd.DataFrame({"a": range(30)}), np.arange(30) // 3
    with pytest.raises(ValueError, match="X and y have the same index labels in diff"):
        cv.split(X, X.loc[::-1, "a"] % 2, groups)


@given(labels, st.floats(0.01, 0.99), st.integers(0, 2**32 - 1))
def test_holdout_is_a_stratified_partition(Y, test_size, seed):
    n = len(Y)
    train, valid = funnel_holdout(Y, test_size=test_size, random_state=seed)
    assert len(valid) == min(math.ceil(test_size * n), n - 1)
    assert sorted([*train, *valid]) == list(range(n))
    assert (np.diff(train) > 0).all()
    assert (np.diff(valid) > 0).all()
    depth = np.array([slow_depth(row) for row in Y])
    for d in np.unique(depth):
        share = (depth == d).sum() * len(valid) / n
        rare = (np.bincount(depth)[np.unique(depth)] < 2).any()
        # A depth with one row is merged, which changes the other shares slightly.
        slack = 1 + (4 if rare else 0)
        assert abs((depth[valid] == d).sum() - share) < slack
    again = funnel_holdout(Y, test_size=test_size, random_state=seed)
    state = np.random.RandomState(seed)
    other = funnel_holdout(Y, test_size=test_size, random_state=state)
    for found in (again, other):
        assert [part.tolist() for part in found] == [train.tolist(), valid.tolist()]


def test_holdout_by_largest_remainder():
    # 5 of 20 rows: shares 3.25, 1.25, 0.5, so the deepest receives the last row.
    Y = rows_of_depths({0: 13, 1: 5, 2: 2}, n_tasks=2)
    for seed in range(5):
        _, valid = funnel_holdout(Y, test_size=0.25, random_state=seed)
        assert np.bincount(Y[valid].sum(axis=1)).tolist() == [3, 1, 1]
    # Shares 1.5 and 0.5: with equal remainders the deeper depth wins.
    _, valid = funnel_holdout([[0], [0], [1], [0]] * 2, test_size=0.25, random_state=0)
    assert valid.size == 2
    assert (valid % 4 == 2).sum() == 1
    # A single conversion is sampled among the clicks: both sides occur over seeds.
    Y = rows_of_depths({0: 6, 1: 3, 2: 1}, n_tasks=2)
    sides = set()
    for seed in range(20):
        _, valid = funnel_holdout(Y, test_size=0.5, random_state=seed)
        assert Y[valid, 0].sum() == 2
        sides.add(int(Y[valid, 1].sum()))
    assert sides == {0, 1}


def test_holdout_choice_is_random_and_uniform():
    Y = np.zeros((10, 1), dtype=int)
    state = np.random.RandomState(0)
    counts = np.zeros(10)
    for _ in range(500):
        counts[funnel_holdout(Y, test_size=0.2, random_state=state)[1]] += 1
    # 100 expected per row, standard deviation 9.
    assert (np.abs(counts - 100) < 45).all()


def test_holdout_checks_groups():
    Y = pd.DataFrame({"click": [0, 0, 1, 1]})
    groups = pd.Series(["a", "b", "c", "d"])
    with pytest.raises(ValueError, match="Y and groups have the same index labels in"):
        funnel_holdout(Y, groups=groups[::-1])
    for missing in (None, np.nan, pd.NA):
        groups[2] = missing
        for form in (groups, groups.astype("string"), groups.tolist()):
            with pytest.raises(ValueError, match=r"not be missing; 1 .* row 2"):
                funnel_holdout(Y, groups=form)


def test_holdout_of_groups_of_text_and_of_their_sorted_numbers_are_equal():
    Y, numbers = np.arange(30) % 3 == 0, np.arange(30)[::-1] // 3
    texts = [f"user {number}" for number in numbers]
    for form in (texts, pl.Series(texts), pd.Series(texts, dtype="category")):
        found = funnel_holdout(Y, groups=form, random_state=0)
        expected = funnel_holdout(Y, groups=numbers, random_state=0)
        assert_array_equal(found[1], expected[1])
    mixed = [number if number % 2 else str(number) for number in numbers]
    holdout = funnel_holdout(Y, groups=mixed, random_state=0)
    for _, test in (holdout, *FunnelGroupKFold(3).split(Y, Y, mixed)):
        assert np.isin(numbers, numbers[test]).sum() == len(test)


@pytest.mark.parametrize("test_size", [0, 1, 0.0, 1.0, -0.1, 3, np.nan, None, "half"])
def test_holdout_raises_on_a_bad_test_size(test_size):
    with pytest.raises(ValueError, match=r"test_size must be in \(0, 1\), got"):
        funnel_holdout(np.zeros((9, 2)), test_size=test_size, random_state=0)


def test_holdout_has_a_row_on_each_side():
    for test_size in (0.01, 0.99):
        train, valid = funnel_holdout([0, 1], test_size=test_size, random_state=0)
        assert (len(train), len(valid)) == (1, 1)
    with pytest.raises(ValueError, match=r"at least 2 rows .* got 1"):
        funnel_holdout([[0, 1]], test_size=0.5, random_state=0)


@pytest.mark.parametrize("labels", [["no", "yes"], [-1, 1], [2.0, 7.0]])
@pytest.mark.parametrize("dtype", [None, object])
def test_any_two_labels_of_a_single_task(labels, dtype):
    click = (np.arange(40) % 4 == 0).astype(int)
    y = np.array(labels, dtype=dtype)[click]
    assert_array_equal(funnel_depth(y), click)
    cv = FunnelStratifiedKFold(4, random_state=0)
    expected = list(cv.split(np.zeros(40), click))
    for made, other in zip(cv.split(np.zeros(40), y), expected, strict=True):
        assert_array_equal(made[1], other[1])
    parts = [funnel_holdout(each, random_state=0) for each in (y, click)]
    assert_array_equal(*(np.concatenate(each) for each in parts))


@pytest.mark.parametrize("cv", [FunnelStratifiedKFold, FunnelGroupKFold])
def test_lazy_frames_are_collected(cv):
    """They have no length."""
    Y = np.tile([[0, 0], [1, 0], [1, 1]], (20, 1))
    groups = np.arange(60) // 2
    table, labels = pl.DataFrame({"a": groups}), pl.DataFrame(Y, schema=["a", "b"])
    groups = groups if cv is FunnelGroupKFold else None
    cv = cv(3, random_state=0)
    expected = list(cv.split(table, labels, groups))
    found = list(cv.split(table.lazy(), labels.lazy(), groups))
    for one, other in zip(found, expected, strict=True):
        assert_array_equal(one[1], other[1])


AMOUNTS = np.random.default_rng(0).gamma(2, 20, 240)
EVENTS = pd.DataFrame(rows_of_depths({0: 150, 1: 60, 2: 30}, 2), columns=["a", "b"])
WITH_AMOUNTS = EVENTS.assign(spend=AMOUNTS * EVENTS["b"])
# Columns of amounts may stand between those of events.
MIXED = WITH_AMOUNTS[["a", "spend", "b"]]
USERS = np.arange(240) // 4


def folds_with(value_columns):
    """Return folds of every kind, and their groups."""
    shuffled = {"random_state": 0, "value_columns": value_columns}
    return [
        (FunnelStratifiedKFold(3, **shuffled), None),
        (FunnelGroupKFold(3, **shuffled), USERS),
        (FunnelTimeSplit(3, time=np.arange(240), value_columns=value_columns), None),
    ]


@pytest.mark.parametrize(
    ("labels", "value_columns"),
    [
        (WITH_AMOUNTS, ["spend"]),
        (MIXED, {"spend": "b"}),
        (MIXED, (1,)),
        (MIXED.where(MIXED > 0).assign(a=EVENTS["a"], b=EVENTS["b"]), ["spend"]),
        (MIXED.to_numpy(), [1]),
        (WITH_AMOUNTS.to_numpy().tolist(), [-1]),
        (pl.from_pandas(MIXED), ["spend"]),
        (pa.Table.from_pandas(MIXED), ["spend"]),
        (MIXED.assign(spend=MIXED["spend"].map("{:.2f}".format)), ["spend"]),
    ],
)
def test_columns_of_amounts_are_no_labels(labels, value_columns):
    X = np.zeros((240, 1))
    pairs = zip(folds_with(value_columns), folds_with(None), strict=True)
    for (cv, groups), (expected_cv, _) in pairs:
        folds = list(cv.split(X, labels, groups))
        expected_folds = list(expected_cv.split(X, EVENTS, groups))
        for (train, test), expected in zip(folds, expected_folds, strict=True):
            assert_array_equal(train, expected[0])
            assert_array_equal(test, expected[1])
    _, test = funnel_holdout(labels, random_state=0, value_columns=value_columns)
    assert_array_equal(test, funnel_holdout(EVENTS, random_state=0)[1])


@pytest.mark.parametrize(
    ("value_columns", "error", "message"),
    [
        (
            None,
            ValueError,
            "column 'spend' of [yY].* Name columns of amounts in",
        ),
        (["spent"], ValueError, "value_columns has the column 'spent', which Y lacks"),
        ([4], ValueError, "value_columns has column 4, but Y has 3 columns"),
        ([2, "spend"], ValueError, "value_columns names column 2 of Y twice"),
        ("spend", TypeError, "value_columns must be a list.*; got 'spend'"),
        ([True], TypeError, "Each of value_columns must be a name .*; got True"),
        (["a", "b", "spend"], ValueError, "an event beside those of value_columns"),
    ],
)
def test_wrong_columns_of_amounts_are_refused(value_columns, error, message):
    X = np.zeros((240, 1))
    for cv, groups in folds_with(value_columns):
        with pytest.raises(error, match=message):
            cv.split(X, WITH_AMOUNTS, groups)
    with pytest.raises(error, match=message):
        funnel_holdout(WITH_AMOUNTS, value_columns=value_columns)

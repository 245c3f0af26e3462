"""Numbers of rows, order of rows, groups, weights of rows and tasks, base rates."""

from itertools import permutations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sk_pwiser._tasks._groups import check_groups
from sk_pwiser._tasks._labels import check_targets
from sk_pwiser._tasks._row_match import check_match
from sk_pwiser._tasks._weights import (
    WeightScale,
    base_rates,
    check_weights,
    combine_weights,
    row_weights,
    scale_weights,
)


def match(index, other):
    X, Y = (pd.DataFrame({"a": 0}, index=each) for each in (index, other))
    check_match(X, len(X), Y=Y)


def levels(*columns):
    return pd.MultiIndex.from_arrays(columns)


DATES = pd.date_range("2026-01-01", periods=4)
TIMES = DATES.tz_localize("UTC")
ARROW_TEXT = pd.ArrowDtype(pa.string())


def indexes(values, *dtypes):
    return [pd.Index(values, dtype=dtype) for dtype in dtypes]


# Equal labels in each row, in different forms.
SAME_LABELS = [
    [
        pd.RangeIndex(4),
        *indexes(range(4), "int8", "Int64", "float", "Float64", "object", "category"),
        *indexes(range(4), "int64[pyarrow]"),
    ],
    indexes([0, 1, 2, None], "Int64", "float", "object", "int64[pyarrow]"),
    indexes([0, 1, 2, pd.NA], "Int64", "object"),
    indexes(list("abcd"), "str", "object", "string", "category", ARROW_TEXT),
    indexes(["a", "b", "c", None], "str", "object", "string", ARROW_TEXT),
    indexes([0, 1, 1, 2], "int64", "Int64", "object"),
    [DATES, DATES.as_unit("s"), DATES.astype("timestamp[ns][pyarrow]")],
    [TIMES, TIMES.tz_convert("Asia/Tokyo"), TIMES.astype(object)],
    indexes(np.array(["9998", "9999", "9997", "NaT"], "M8[s]"), None, "object"),
    [pd.interval_range(0, 4), pd.interval_range(0, 4).astype(object)],
    [pd.period_range("2026", periods=4), pd.period_range("2026", periods=4)],
    [
        levels([0, 0, 1, 1], list("abab")),
        levels(pd.array([0, 0, 1, 1], "Int64"), pd.array(list("abab"), "string")),
        pd.Index([(0, "a"), (0, "b"), (1, "a"), (1, "b")], tupleize_cols=False),
    ],
    [
        levels([0, 0, 1, np.nan], list("abab")),
        levels(pd.array([0, 0, 1, None], "Int64"), list("abab")),
    ],
]


@pytest.mark.parametrize("forms", SAME_LABELS)
def test_labels_in_equal_and_in_different_orders(forms):
    for index in forms:
        for other in forms:
            match(index, other)
            with pytest.raises(ValueError, match="in different orders: row 1 is"):
                match(index, other[[0, 3, 2, 1]])


def test_unrelated_labels_match_by_position():
    firsts = [forms[0] for forms in SAME_LABELS]
    firsts += [levels([0, 0, 1, 1], list("abab"), range(4)), pd.Index([0, "a", 1, "b"])]
    for index, other in permutations(firsts, 2):
        match(index, other)


# Neighbours that are equal in float64.
CLOSE = [2**53, 2**53 + 1, 2**53]


@pytest.mark.parametrize(
    "groups",
    [
        *(CLOSE, np.array(CLOSE), pd.Series(CLOSE), pd.Series(CLOSE, dtype="Int64")),
        *(pl.Series(CLOSE), ["u", "v", "u"], pd.Series(["u", "v", "u"])),
        *(pd.Series(["u", "v", "u"], dtype="category"), pl.Series(["u", "v", "u"])),
        *(np.array(["u", 1, "u"], dtype=object), ["u", 1, "u"]),
        *(pa.chunked_array([["u", "v"], ["u"]]), pd.Index([0.5, 1.5, 0.5])),
        pd.array(["u", "v", "u"], dtype="string"),
    ],
)
def test_rows_of_one_group_have_one_index(groups):
    indices = check_groups(groups, 3)
    assert indices.dtype == np.int64
    assert indices[0] == indices[2] != indices[1]


def test_missing_groups():
    assert check_groups(None, 3) is None
    for groups in (
        [1, np.nan, np.nan],
        pd.Series(["u", None, None]),
        pd.Series([1, None, None], dtype="Int64"),
        pl.Series(["u", None, None]),
        np.array([1, None, None]),
        ["u", np.nan, np.nan],
        pd.array(["u", pd.NA, None], dtype="string"),
    ):
        with pytest.raises(
            ValueError, match="groups must not be missing; 2 are, the first in row 1"
        ):
            check_groups(groups, 3)


Y = np.array([[0, 0], [1, 0], [1, 1], [1, 0]])
NAN = np.nan


@pytest.mark.parametrize(
    "weights",
    [
        np.array([1.0, 2, 3, 2]),
        np.array([5e305, 1e306, 1.5e306, 1e306]),
        np.array([1, 2, 3, 2]) * 1e-310,
    ],
)
def test_scaled_weights_have_mean_1_whatever_their_scale(weights):
    found = scale_weights(weights)
    assert found.dtype == np.float32
    assert_allclose(found, [0.5, 1.0, 1.5, 1.0], rtol=1e-5)


def test_weights_whose_sum_is_infinite_are_refused():
    with pytest.raises(ValueError, match="sum of sample_weight must be finite"):
        scale_weights(np.array([1e308, 1.5e308]))


def test_weights_of_0_take_no_part_in_the_mean():
    assert scale_weights(np.array([[3.0, 0.0], [1.0, 2.0]])).tolist() == [
        [1.5, 0.0],
        [0.5, 1.0],
    ]


@pytest.mark.parametrize(
    ("weights", "are_counts"),
    [
        ([1.0, 4.0, 7.0], True),
        ([[3.0, 0.0], [1.0, 2.0]], True),  # of which one label is missing
        ([1.0, 2.0, 1.0], False),  # a copy now and then
        ([1.0, 4.0, 7.5], False),
        ([5.0, 5.0, 5.0], False),  # equal weights are no weights
        ([1e300, 3e300], False),
    ],
)
def test_whole_numbers_of_two_and_more_in_the_mean_are_counts(weights, are_counts):
    scale = WeightScale(n_tasks=2)
    scale.add(np.array(weights))
    assert scale.are_counts == are_counts


@pytest.mark.parametrize("weights", [[1.0, 1.0], [2.5, 0.5], [4.0, 1.0]])
def test_the_first_rows_decide_whether_weights_are_counts(weights):
    for mean, are_counts in [(4.0, True), (0.7, False)]:
        scale = WeightScale(n_tasks=2, earlier_mean=mean, earlier_are_counts=are_counts)
        scale.add(np.array(weights))
        assert scale.are_counts == are_counts


def test_after_rows_without_weights_later_ones_may_have_counts():
    scale = WeightScale(n_tasks=2, earlier_mean=1.0)
    scale.add(np.array([4.0, 1.0]))
    assert scale.are_counts


def test_equal_weights_are_no_weights_or_zeros_and_ones():
    assert scale_weights(np.full(3, 0.3)) is None
    assert scale_weights(np.full((3, 2), 0.3)) is None
    found = scale_weights(np.array([[0.3, 0.0], [0.3, 0.3]]))
    assert found.tolist() == [[1.0, 0.0], [1.0, 1.0]]


def test_a_weight_of_0_is_a_missing_label_of_any_task():
    targets, weights = combine_weights(check_targets(Y), np.array([[0.0, 1.0]] * 4))
    assert_array_equal(targets.missing, [[True, False]] * 4)
    assert_array_equal(weights, [[0, 1]] * 4)
    assert_array_equal(targets.values[:, 0], np.zeros(4))


def test_row_weights_apply_to_the_known_labels():
    targets = check_targets(np.array([[0, 0], [1, NAN]]), missing_labels="ignore")
    _, weights = combine_weights(targets, [2.0, 3.0])
    assert weights.tolist() == [[2, 2], [3, 0]]


def test_weights_must_not_be_0_for_all_labels():
    with pytest.raises(ValueError, match="must not be zero for every known label"):
        combine_weights(check_targets(Y), np.zeros(4))
    targets = check_targets([[0, NAN], [1, NAN]], missing_labels="ignore")
    with pytest.raises(ValueError, match="must not be zero for every known label"):
        combine_weights(targets, [[0.0, 1.0], [0.0, 1.0]])


@pytest.mark.parametrize("shape", [(4,), (4, 2)])
def test_a_part_of_the_rows_may_have_no_weight(shape):
    _, weights = combine_weights(check_targets(Y), np.zeros(shape), is_part=True)
    assert_array_equal(weights, np.zeros(4))


def test_columns_are_encoded_by_the_largest_weight_of_a_row():
    assert row_weights(np.array([[1.0, 0.0], [1.0, 1.0]])) is None
    assert row_weights(np.array([[1.0, 3.0], [2.0, 0.0]])).tolist() == [3, 2]


PER_TASK = np.array([[1.0, 2.0], [0.0, 1.0], [3.0, 0.5]])


@pytest.mark.parametrize(
    "weights",
    [
        [1, 0, 2],
        np.array([1, 0, 2], dtype=np.float32),
        pd.Series([1, 0, 2], index=[9, 8, 7]),
        pd.Series([1, 0, 2], dtype="Int64"),
        pl.Series([1, 0, 2]),
        np.array([[1, 1], [0, 0], [2, 2]]),
    ],
)
def test_one_weight_per_row(weights):
    found = check_weights(weights, 3, 2)
    assert found.dtype == np.float64
    assert_array_equal(found, [1, 0, 2])


@pytest.mark.parametrize(
    "weights",
    [
        PER_TASK,
        PER_TASK.tolist(),
        pd.DataFrame(PER_TASK),
        pd.DataFrame(PER_TASK, columns=["a", "b"]),
        pd.DataFrame(PER_TASK, columns=["click", "buy"]),
        pl.DataFrame(PER_TASK, schema=["click", "buy"]),
        pl.LazyFrame(PER_TASK, schema=["click", "buy"]),
    ],
)
def test_weights_per_task(weights):
    assert_array_equal(check_weights(weights, 3, 2, ["click", "buy"]), PER_TASK)


@pytest.mark.parametrize(
    "rows",
    [
        [(0, 0, 0)] * 90 + [(1, 0, 0)] * 10,  # no click has a second event
        [(0, 0, 0)] * 90 + [(1, 1, 1)] * 10,  # every click has all events
        [(0, 0, 0)] * 20,
        [(1, 1, 1)] * 20,
    ],
)
def test_each_rate_is_between_0_and_that_of_the_previous_task(rows):
    y = np.array(rows, dtype=np.float32)
    before = [len(y), *y.sum(axis=0)[:-1]]
    expected = np.cumprod((y.sum(axis=0) + 0.5) / (np.array(before) + 1.0))
    assert_allclose(base_rates(y, None), expected)
    assert_allclose(base_rates(y, np.ones(len(y), np.float32)), expected)


def test_base_rates_of_labels_that_break_the_funnel():
    y = np.array([[0, 1]] * 30 + [[1, 0]] * 10 + [[0, 0]] * 60, dtype=np.float32)
    assert_allclose(base_rates(y, None), [10.5 / 101, 30.5 / 101])


def test_missing_labels_take_no_part():
    """With labels that lack at random, the rates are those of the known ones."""
    rng = np.random.default_rng(0)
    y = np.logical_and.accumulate(rng.random((200_000, 3)) < 0.4, axis=1)
    y = y.astype(np.float32)
    known = np.ones_like(y)
    # A conversion is known less often after a click, which must not matter.
    known[:, 1] = rng.random(len(y)) < np.where(y[:, 0] == 1, 0.3, 0.9)
    known[:, 2] = rng.random(len(y)) < 0.5
    found = base_rates(y * known, known)
    assert_allclose(found, [0.4, 0.16, 0.064], rtol=0.03)
    # The counts by hand.
    first = known[:, 1] * y[:, 0]
    rate = (y[:, 0].sum() + 0.5) / (len(y) + 1)
    rate *= ((first * y[:, 1]).sum() + 0.5) / (first.sum() + 1)
    assert_allclose(found[1], rate, rtol=1e-6)


def test_equal_weights_per_task_change_nothing():
    y = np.array([[0, 0, 0]] * 60 + [[1, 0, 0]] * 30 + [[1, 1, 0]] * 9 + [[1, 1, 1]])
    y = y.astype(np.float32)
    assert_allclose(base_rates(y, np.ones_like(y)), base_rates(y))
    broken = np.array([[0, 1]] * 30 + [[1, 0]] * 10 + [[0, 0]] * 60, dtype=np.float32)
    assert_allclose(base_rates(broken, np.ones_like(broken)), base_rates(broken))


@pytest.mark.parametrize(
    "parents", [(-1, 0, 0), (-1, -1, -1)], ids=["tree", "siblings"]
)
def test_siblings_whose_labels_are_known_in_different_rows(parents):
    """The rate of a task follows from its own rows and those of its parent."""
    y = np.zeros((1_000, 3), dtype=np.float32)
    y[::2, 0] = 1
    y[::10, 1] = y[::250, 2] = 1  # in 10 % and in 0.4 % of the rows
    known = np.ones_like(y)
    known[:500, 2] = known[500:, 1] = 0
    found = base_rates(y * known, known, parents)
    assert_allclose(found, [0.5, 0.1, 0.004], rtol=0.3)
    # The counts by hand.
    rate, n_rows = (500.5 / 1_001, 251) if parents[2] == 0 else (1.0, 501)
    assert_allclose(found[2], rate * 2.5 / n_rows)
    assert_allclose(
        base_rates(y, None, parents), base_rates(y, np.ones_like(y), parents)
    )

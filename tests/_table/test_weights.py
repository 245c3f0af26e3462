"""Weights of rows and tasks: their forms, scales, and missing labels."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sk_pwiser._table import (
    check_targets,
    check_weights,
    combine_weights,
    row_weights,
    scale_weights,
)

Y = np.array([[0, 0], [1, 0], [1, 1], [1, 0]])
NAN = np.nan


@pytest.mark.parametrize(
    "weights",
    [
        np.array([1.0, 2, 3, 2]),
        np.array([5e307, 1e308, 1.5e308, 1e308]),
        np.array([1, 2, 3, 2]) * 1e-310,
    ],
)
def test_scaled_weights_have_mean_1_whatever_their_scale(weights):
    found = scale_weights(weights)
    assert found.dtype == np.float32
    assert_allclose(found, [0.5, 1.0, 1.5, 1.0], rtol=1e-5)


def test_weights_of_0_take_no_part_in_the_mean():
    assert scale_weights(np.array([[3.0, 0.0], [1.0, 2.0]])).tolist() == [
        [1.5, 0.0],
        [0.5, 1.0],
    ]


def test_equal_weights_are_no_weights_or_zeros_and_ones():
    assert scale_weights(np.full(3, 0.3)) is None
    assert scale_weights(np.full((3, 2), 0.3)) is None
    found = scale_weights(np.array([[0.3, 0.0], [0.3, 0.3]]))
    assert found.tolist() == [[1.0, 0.0], [1.0, 1.0]]


def test_a_weight_of_0_is_a_missing_label():
    weight = np.ones((4, 2))
    weight[[1, 2], 1] = 0
    by_weight, weights = combine_weights(check_targets(Y), weight)
    labels = Y.astype(float)
    labels[[1, 2], 1] = NAN
    by_label, same = combine_weights(
        check_targets(labels, missing_labels="ignore"), None
    )
    assert_array_equal(by_weight.missing, by_label.missing)
    assert_array_equal(by_weight.values, by_label.values)
    assert_array_equal(weights, same)
    assert_array_equal(by_weight.with_nan(), labels)


def test_the_first_label_is_known_whatever_its_weight():
    targets, weights = combine_weights(check_targets(Y), np.array([[0.0, 1.0]] * 4))
    assert targets.missing is None
    assert_array_equal(weights, [[0, 1]] * 4)
    assert_array_equal(targets.values, Y)


def test_row_weights_apply_to_the_known_labels():
    labels = np.array([[0, 0], [1, NAN]])
    targets = check_targets(labels, missing_labels="ignore")
    _, weights = combine_weights(targets, [2.0, 3.0])
    assert weights.tolist() == [[2, 2], [3, 0]]


def test_weights_must_not_be_0_for_all_labels():
    with pytest.raises(ValueError, match="must not be zero for every row"):
        combine_weights(check_targets(Y), np.zeros(4))
    targets = check_targets([[0, NAN], [1, NAN]], missing_labels="ignore")
    with pytest.raises(ValueError, match="must not be zero for every known label"):
        combine_weights(targets, [[0.0, 1.0], [0.0, 1.0]])


@pytest.mark.parametrize("shape", [(4,), (4, 2)])
def test_a_part_of_the_rows_may_have_no_weight(shape):
    _, weights = combine_weights(check_targets(Y), np.zeros(shape), is_part=True)
    assert_array_equal(weights, np.zeros(4))


def test_columns_are_encoded_by_the_largest_weight_of_a_row():
    assert row_weights(None) is None
    assert row_weights(np.array([1.0, 2.0])).tolist() == [1, 2]
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


def test_a_single_task_has_row_weights():
    assert_array_equal(check_weights(np.ones((3, 1)), 3), np.ones(3))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, None, 1], r"must contain one finite number per row; it is nan in row 1"),
        (pd.Series([1, None, 1], dtype="Float64"), "one finite number .* nan in row 1"),
        (np.where(PER_TASK == 0.5, np.nan, 1), "nan in row 2 for task 'buy'"),
        ("balanced", "must contain one finite number per row.* 'balanced'"),
        ([1j, 1, 1], "must contain one finite number per row"),
        (
            pa.Table.from_pandas(pd.DataFrame(PER_TASK, columns=["buy", "click"])),
            r"order of the tasks, \['click', 'buy'\]; got \['buy', 'click'\]",
        ),
    ],
)
def test_wrong_weights(weights, message):
    with pytest.raises(ValueError, match=f"sample_weight.*{message}"):
        check_weights(weights, 3, 2, ["click", "buy"])

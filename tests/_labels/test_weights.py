"""Weights of rows and tasks: shapes, values, and messages with row and task."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal

from sk_pwiser._table import check_weights

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
        ([1, 1], r"must have shape \(3,\), or \(3, 2\) .* per task; got \(2,\)"),
        ([[1], [1], [1]], r"must have shape .*; got \(3, 1\)"),
        (np.ones((2, 3)), r"must have shape .*; got \(2, 3\)"),
        ([1, -0.5, 1], r"must be >= 0; it is -0\.5 in row 1\."),
        (-PER_TASK, r"must be >= 0; it is -1\.0 in row 0 for task 'click'"),
        ([1, np.nan, 1], r"must contain one finite number per row; it is nan in row 1"),
        ([1, None, 1], r"must contain one finite number per row; it is nan in row 1"),
        (pd.Series([1, None, 1], dtype="Float64"), "one finite number .* nan in row 1"),
        ([1, np.inf, 1], "one finite number per row; it is inf in row 1"),
        (np.where(PER_TASK == 0.5, np.nan, 1), "nan in row 2 for task 'buy'"),
        (["a", "b", "c"], "must contain one finite number per row.* 'a'"),
        ("balanced", "must contain one finite number per row.* 'balanced'"),
        (2.0, "must contain one finite number per row"),
        ([1j, 1, 1], "must contain one finite number per row"),
        (
            pa.Table.from_pandas(pd.DataFrame(PER_TASK, columns=["buy", "click"])),
            r"order of the tasks, \['click', 'buy'\]; got \['buy', 'click'\]",
        ),
        (
            pd.DataFrame(PER_TASK, columns=["buy", "click"]),
            r"order of the tasks, \['click', 'buy'\]; got \['buy', 'click'\]",
        ),
    ],
)
def test_wrong_weights(weights, message):
    with pytest.raises(ValueError, match=f"sample_weight.*{message}"):
        check_weights(weights, 3, 2, ["click", "buy"])

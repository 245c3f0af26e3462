"""Values per row besides labels: their number, sample weights, groups."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import torch
from numpy.testing import assert_allclose

from sk_pwiser._table import check_groups, check_row_weights, n_rows


class OnlyArray:
    """An array-like without a shape or a length."""

    def __array__(self, dtype=None, copy=None):
        return np.zeros((3, 2), dtype=dtype)


@pytest.mark.parametrize(
    "X",
    [
        np.zeros((3, 2)),
        np.zeros(3),
        [[1, 2]] * 3,
        ((1, "a"),) * 3,
        [[1], [1, 2], []],
        pd.DataFrame({"a": [1, 2, 3]}, index=[7, 8, 9]),
        pl.DataFrame({"a": [1, 2, 3]}),
        pd.DataFrame(index=range(3)),
        sp.csr_array((3, 2)),
        torch.zeros(3, 2),
        OnlyArray(),
    ],
)
def test_number_of_rows(X):
    result = n_rows(X)
    assert type(result) is int
    assert result == 3


def test_number_of_rows_of_empty_tables():
    for X in ([], np.zeros((0, 2)), pd.DataFrame({"a": []}), pl.DataFrame({"a": []})):
        assert n_rows(X) == 0


@pytest.mark.parametrize(
    "X", [None, 5, np.float64(1), np.array(1), pl.LazyFrame({"n": [1]}), iter([1])]
)
def test_objects_without_rows_are_an_error(X):
    message = rf"Expected 2D array .* as X, .*; got {type(X).__name__}\."
    with pytest.raises(ValueError, match=message):
        n_rows(X)


@pytest.mark.parametrize(
    "weights",
    [
        [1, 2, 3, 2],
        np.array([0.5, 1.0, 1.5, 1.0], dtype=np.float32),
        pd.Series([1, 2, 3, 2], index=[9, 8, 7, 6]),
        pd.Series([1, 2, 3, 2], dtype="Int64"),
        pl.Series([1, 2, 3, 2]),
        np.array([5e307, 1e308, 1.5e308, 1e308]),
        np.array([1, 2, 3, 2]) * 1e-310,
    ],
)
def test_row_weights_have_mean_1_whatever_their_scale(weights):
    result = check_row_weights(weights, 4)
    assert result.dtype == np.float32
    assert_allclose(result, [0.5, 1.0, 1.5, 1.0], rtol=1e-5)


def test_row_weights_may_be_none_bool_or_partly_zero():
    assert check_row_weights(None, 3) is None
    assert check_row_weights([True, False, True], 3).tolist() == [1.5, 0.0, 1.5]
    assert check_row_weights([0, 0, 3], 3).tolist() == [0.0, 0.0, 3.0]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 1], r"must have shape \(3,\); got \(2,\)"),
        ([[1], [1], [1]], r"must have shape \(3,\); got \(3, 1\)"),
        (pd.DataFrame({"w": [1, 1, 1]}), r"must have shape \(3,\); got \(3, 1\)"),
        ([1, -0.5, 1], "must be >= 0; it is -0.5 in row 1"),
        ([0, 0, 0], "must not be zero for every row"),
        ([1, np.nan, 1], "must contain one finite number per row.* NaN"),
        ([1, None, 1], "must contain one finite number per row.* NaN"),
        (
            pd.Series([1, None, 1], dtype="Float64"),
            "must contain one finite number per row.* NaN",
        ),
        ([1, np.inf, 1], "must contain one finite number per row.* infinity"),
        (["a", "b", "c"], "must contain one finite number per row.* 'a'"),
        ("balanced", "must contain one finite number per row.* 'balanced'"),
        (2.0, "must contain one finite number per row"),
        ([1j, 1, 1], "must contain one finite number per row"),
    ],
)
def test_wrong_row_weights(weights, message):
    with pytest.raises(ValueError, match=f"sample_weight {message}"):
        check_row_weights(weights, 3)


# Neighbours that are equal in float64.
CLOSE = [2**53, 2**53 + 1, 2**53]


@pytest.mark.parametrize(
    "groups",
    [
        CLOSE,
        np.array(CLOSE),
        pd.Series(CLOSE),
        pd.Series(CLOSE, dtype="Int64"),
        pl.Series(CLOSE),
        ["u", "v", "u"],
        pd.Series(["u", "v", "u"]),
        pd.Series(["u", "v", "u"], dtype="category"),
        pl.Series(["u", "v", "u"]),
        np.array(["u", 1, "u"], dtype=object),
    ],
)
def test_rows_of_one_group_have_one_index(groups):
    indices = check_groups(groups, 3)
    assert indices.dtype == np.int64
    assert indices[0] == indices[2] != indices[1]


def test_wrong_groups():
    assert check_groups(None, 3) is None
    for groups in ([1, 2], [[1], [2], [3]], 5, "abc", np.eye(3)):
        shape = str(np.shape(groups)).replace("(", r"\(").replace(")", r"\)")
        with pytest.raises(ValueError, match=rf"groups .* shape \(3,\); got {shape}"):
            check_groups(groups, 3)
    for groups in (
        [1, np.nan, np.nan],
        pd.Series(["u", None, None]),
        pd.Series([1, None, None], dtype="Int64"),
        pl.Series(["u", None, None]),
        np.array([1, None, None]),
    ):
        with pytest.raises(
            ValueError, match="groups must not be missing; 2 are, the first in row 1"
        ):
            check_groups(groups, 3)


@pytest.mark.parametrize(
    ("groups", "error"),
    [
        ([[1], [1, 2], [3]], ValueError),
        (np.array([[1], [1, 2], None], dtype=object), TypeError),
        (pl.Series([[1], [2], [3]]), TypeError),
        (pd.Series([[1], [2], [3]]), TypeError),
    ],
)
def test_nested_groups_are_an_error(groups, error):
    with pytest.raises(error, match="groups must contain one value per row: "):
        check_groups(groups, 3)

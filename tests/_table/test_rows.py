"""The number of rows of a table, and their groups."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
import torch

from sk_pwiser._table import check_groups, n_rows


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
        ["u", 1, "u"],
        pa.chunked_array([["u", "v"], ["u"]]),
        pd.Index([0.5, 1.5, 0.5]),
        pd.array(["u", "v", "u"], dtype="string"),
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
        ["u", np.nan, np.nan],
        pd.array(["u", pd.NA, None], dtype="string"),
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

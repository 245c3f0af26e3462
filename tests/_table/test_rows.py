"""The number of rows of a table, and their groups."""

from itertools import permutations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
import torch

from sk_pwiser._table import check_groups, check_match, n_rows


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
    for groups in ([[1], [2], [3]], 5, "abc", np.eye(3)):
        with pytest.raises(ValueError, match=r"groups must have shape \(3,\); got"):
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

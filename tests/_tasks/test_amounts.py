"""Amounts beside labels: which columns they are, how they are read, what is refused."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from numpy.testing import assert_array_equal

from sk_pwiser._tasks._labels import check_targets

EVENTS = {"click": [1, 1, 0, 1], "conversion": [1, 0, 0, 1]}
SPEND = [12.5, 0, 0, 30]
VALUE_TASKS = {"spend": "conversion"}
NAN = np.nan


def table(**changes):
    return pd.DataFrame({**EVENTS, "spend": SPEND, **changes})


def read(Y, value_tasks=VALUE_TASKS, **kwargs):
    return check_targets(Y, value_tasks=value_tasks, **kwargs)


def test_amounts_are_those_of_rows_with_the_event():
    targets = read(table())
    assert_array_equal(targets.values, np.column_stack(list(EVENTS.values())))
    assert targets.task_names == ("click", "conversion")
    assert targets.learnt_values.names == ("spend",)
    assert targets.learnt_values.parents == (1,)
    assert_array_equal(targets.amounts[:, 0], [12.5, NAN, NAN, 30])


@pytest.mark.parametrize("blank", [0, NAN, None, "", " ", pd.NA])
def test_without_the_event_an_amount_may_be_blank(blank):
    spend = pd.Series([12.5, blank, blank, 30], dtype=object)
    assert_array_equal(read(table(spend=spend)).amounts[:, 0], [12.5, NAN, NAN, 30])


@pytest.mark.parametrize("blank", [NAN, None, "", pd.NA])
def test_a_missing_amount_of_an_event_is_unknown(blank):
    targets = read(table(spend=pd.Series([12.5, 0, 0, blank], dtype=object)))
    assert_array_equal(targets.amounts[:, 0], [12.5, NAN, NAN, NAN])
    assert_array_equal(targets.values[:, 1], EVENTS["conversion"])


@pytest.mark.parametrize(
    "spend",
    [
        [12, 0, 0, 30],
        ["12", "0", "", "30.0"],
        [Decimal("12.00"), Decimal(0), None, Decimal(30)],
        pd.array([12, 0, None, 30], dtype="Int64"),
        np.array([12, 0, 0, 30], dtype=np.float32),
        [True + 11, False, False, 30],
    ],
)
def test_amounts_are_read_as_numbers(spend):
    assert_array_equal(read(table(spend=spend)).amounts[:, 0], [12, NAN, NAN, 30])


def test_tables_of_all_kinds():
    polars = pytest.importorskip("polars")
    pyarrow = pytest.importorskip("pyarrow")
    expected = read(table())
    by_index = {2: 1}
    for Y, value_tasks in (
        (polars.from_pandas(table()), VALUE_TASKS),
        (pyarrow.Table.from_pandas(table()), VALUE_TASKS),
        (table().to_numpy(), by_index),
        (table().to_numpy().tolist(), {-1: -1}),
        (scipy.sparse.csr_array(table().to_numpy()), by_index),
        (table()[["spend", "click", "conversion"]], {0: "conversion"}),
    ):
        targets = read(Y, value_tasks)
        assert_array_equal(targets.amounts, expected.amounts)
        assert_array_equal(targets.values, expected.values)


def test_a_value_per_impression_has_no_event():
    targets = read(table(watch=[3, NAN, 0, 1]), {"watch": None, "spend": 1})
    assert targets.learnt_values.parents == (-1, 1)
    assert_array_equal(targets.amounts[:, 0], [3, NAN, 0, 1])
    assert_array_equal(targets.amounts[:, 1], [12.5, NAN, NAN, 30])


def test_an_unknown_event_has_no_known_amount():
    targets = read(table(conversion=[1, 0, 0, NAN]), missing_labels="ignore")
    assert_array_equal(targets.amounts[:, 0], [12.5, NAN, NAN, NAN])


@pytest.mark.parametrize(
    ("changes", "value_tasks", "error", "message"),
    [
        (
            {"spend": [-1, 0, 0, 3]},
            None,
            ValueError,
            "'spend' of Y contains -1 in row 0",
        ),
        ({"spend": ["x", 0, 0, 3]}, None, ValueError, "'spend' .* 'x' in row 0"),
        ({"spend": ["1,000", 0, 0, 3]}, None, ValueError, "separators of thousands"),
        ({"spend": ["$5", 0, 0, 3]}, None, ValueError, "Remove currencies"),
        ({"spend": [[1], 0, 0, 3]}, None, ValueError, "must be numbers; .* row 0"),
        ({"spend": [1j, 0, 0, 3]}, None, ValueError, "must be numbers"),
        ({"spend": [b"1", 0, 0, 3]}, None, ValueError, "must be numbers"),
        (
            {"spend": pd.to_datetime(["2026", "2026", "2026", "2026"])},
            None,
            ValueError,
            "must be numbers",
        ),
        ({}, {"spent": "conversion"}, ValueError, "'spent', which Y lacks.*spend"),
        ({}, {"spend": "buy"}, ValueError, "the task 'buy' for column 'spend'"),
        ({}, {"spend": "spend"}, ValueError, "the task 'spend'"),
        ({}, {"spend": 2}, ValueError, "there are 2 tasks"),
        ({}, {7: 1}, ValueError, "column 7, but Y has 3 columns"),
        ({}, {2: 1, "spend": 1}, ValueError, "column 2 of Y twice"),
        (
            {},
            {"spend": None, "click": None, "conversion": None},
            ValueError,
            "a column of an event",
        ),
        ({"click": [0.5, 1, 0, 1]}, None, ValueError, "Labels must be 0 or 1"),
    ],
)
def test_wrong_amounts_and_names_are_refused(changes, value_tasks, error, message):
    with pytest.raises(error, match=message):
        read(table(**changes), value_tasks or VALUE_TASKS)


@pytest.mark.parametrize(
    ("Y", "message"),
    [
        ([1, 0, 1, 0], "a column per event and per value"),
        (table().to_numpy(), "have no names: use their indices"),
    ],
)
def test_labels_without_columns_or_names_are_refused(Y, message):
    with pytest.raises(ValueError, match=message):
        read(Y)


@pytest.mark.parametrize(
    ("spend", "message"),
    [
        ([np.inf, 0, 0, 3], "1 infinite amounts, the first in row 0"),
        ([1e13, 0, 0, 30], "the amount 1e\\+13 in row 0, while the median"),
        ([1, 5, 0, 3], "1 amounts in rows without the event"),
    ],
)
def test_amounts_that_are_probably_faults_are_named(spend, message):
    with pytest.warns(UserWarning, match=message):
        targets = read(table(spend=spend))
    assert np.isnan(targets.amounts[0, 0]) == np.isinf(spend[0])

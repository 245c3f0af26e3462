"""Parameters, tables, times and labels that are refused, by name."""

from datetime import date, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from impressions_over_time import make_history as make
from impressions_over_time import make_log

from sk_pwiser.history import HistoryFeatures, StoredHistory


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"keys": []}, "keys must be a list of one or more"),
        ({"keys": "user"}, "keys must be a list"),
        ({"keys": ["user", "user"], "lists": ()}, "would repeat the names"),
        ({"keys": ["page"], "lists": ()}, "'page' is not a column of X"),
        ({"time": "when"}, "'when' is not a column of X"),
        ({"time": 3}, "3 is not a column of X"),
        ({"time": "item"}, "Column 'item' must hold times"),
        ({"label_delay": -1}, "label_delay must be finite and >= 0; got -1"),
        ({"label_delay": "soon"}, "label_delay must be a number with a unit"),
        ({"label_delay": {"buy": 1}}, "label_delay contains 'buy', which is not a "),
        ({"windows": "1d"}, "windows must be a list"),
        ({"windows": [0]}, "windows must be finite and > 0; got 0"),
        ({"windows": ["1d", "24h"]}, "would repeat the names"),
        ({"half_lives": [True]}, "half_lives must be a number"),
        ({"lists": [{"colum": "item"}]}, r"lists: \['colum'\] are unknown"),
        ({"lists": [{"column": "item", "key": "page"}]}, "'key' must be one of keys"),
        ({"lists": [{"column": "item", "n": 0}]}, "'n' must be an integer >= 1"),
        (
            {"lists": [{"column": "item", "task": "buy"}]},
            "lists contains 'buy', which is not a task",
        ),
        ({"lists": [{"column": "item", "ages": True}]}, "'ages' must be one of"),
        ({"lists": [{"column": "item"}] * 2}, "would repeat the names"),
        ({"smoothing": 0}, "smoothing must be finite and > 0; got 0"),
        ({"max_age": -1}, "max_age must be finite and > 0"),
        ({"state_delay": -1}, "state_delay must be"),
        ({"passthrough": 1}, "passthrough must be True or False; got 1"),
    ],
)
def test_bad_parameters(params, message):
    X, Y = make_log(20)
    with pytest.raises((ValueError, TypeError), match=message):
        make(**params).fit(X, Y)


BERLIN = pd.Timestamp("2026-01-01", tz="Europe/Berlin")
DAY, DATE32 = date(2026, 1, 1), pd.ArrowDtype(pa.date32())


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([1.0, np.nan, 2.0], "must hold a time in every row; 1 are missing, the first"),
        (
            pd.to_datetime(["2026-01-01", None, None]),
            "2 are missing, the first in row 1",
        ),
        ([1.0, np.inf, 2.0], "must be finite; row 1"),
        (["2026-01-01", "2026-01-02", "2026-01-03"], "can be sorted and subtracted"),
        ([True, False, True], "can be sorted and subtracted"),
        (
            [BERLIN, pd.Timestamp("2026-01-01", tz="UTC"), BERLIN],
            "one time zone: row 0",
        ),
        ([BERLIN, pd.Timestamp("2026-01-01"), BERLIN], "one kind and one time zone"),
        ([BERLIN, 3, BERLIN], "one kind and one time zone"),
        (
            pd.Series([None, DAY, DAY], dtype=DATE32),
            "1 are missing, the first in row 0",
        ),
        (pd.Series([DAY, date.max, DAY], dtype=DATE32), "from 1970.*9999.* in row 1"),
    ],
)
def test_bad_times(times, message):
    X = pd.DataFrame({"user": [1, 2, 3], "time": times})
    with pytest.raises((ValueError, TypeError), match=message):
        HistoryFeatures(["user"], time="time").fit(X)


@pytest.mark.parametrize("kind", [float, np.float64, np.float32])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_single_time_is_finite(kind, value):
    X = pd.DataFrame({"user": [1, 2], "time": [1.0, 2.0]})
    history = HistoryFeatures(["user"], time="time").fit(X)
    assert history.transform_row({"user": 1, "time": kind(3)})
    with pytest.raises(ValueError, match="'time' must be a"):
        history.transform_row({"user": 1, "time": kind(value)})
    with pytest.raises(TypeError, match="must hold times"):
        history.transform_row({"user": 1, "time": True})
    with pytest.raises(TypeError, match="must hold times"):
        history.transform_row({"user": 1, "time": np.timedelta64(3, "s")})


def test_times_of_another_kind_than_in_fit():
    X = pd.DataFrame({"user": [1, 2], "time": pd.to_datetime(["2026-01-01"] * 2)})
    history = HistoryFeatures(["user"], time="time", label_delay=5).fit(X)
    with pytest.raises(TypeError, match="held dates without a time zone before"):
        history.transform(X.assign(time=X["time"].dt.tz_localize("UTC")))
    with pytest.raises(TypeError, match="now it holds numbers"):
        history.transform_row({"user": 1, "time": 5})
    with pytest.raises(ValueError, match="The row has no field 'time'"):
        history.transform_row({"user": 1})
    with pytest.raises(ValueError, match="label_delay must be a number, in the unit"):
        HistoryFeatures(["user"], time="user", label_delay="1h").fit(X, [0, 1])


def test_values_of_another_kind_than_in_fit():
    """Keys that are text instead of numbers would have no past, one and all."""
    log = pd.DataFrame({"user": [1, 2], "time": [1, 2]})
    click = pd.Series([0, 1], name="click")
    history = HistoryFeatures(["user"], time="time").fit(log, click)
    later = pd.DataFrame({"user": ["1", "3"], "time": [3, 3]})
    rule = "'user' contained numbers before; it now contains text, such as '[13]'"
    for method in (history.transform, history.replay):
        with pytest.raises(ValueError, match=rule):
            method(later)
    known = history.transform(later.assign(user=[2.0, None]))["user__since_click"]
    np.testing.assert_array_equal(known, [1.0, np.nan])


def test_bad_tables_and_labels():
    X, Y = make_log(20)
    with pytest.raises(TypeError, match="whose columns have names"):
        make().fit(X.to_numpy(), Y)
    with pytest.raises(ValueError, match="columns of X must be distinct; 'user' occ"):
        make(passthrough=False).fit(X[[*X, "user"]], Y)
    with pytest.raises(TypeError, match="'item' must hold one value per row"):
        make().fit(X.assign(item=[[1]] * 20), Y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        make().fit(X, Y[:10])
    with pytest.raises(ValueError, match="Labels must be 0 or 1; column 'click'"):
        make().fit(X, Y.assign(click=3))
    history = make().fit(X, Y)
    late = X.assign(time=X["time"].max())
    with pytest.raises(ValueError, match="The columns of y must be the tasks"):
        history.update(late, Y[["conversion", "click"]])
    with pytest.raises(ValueError, match="y must have the tasks"):
        history.update(late, Y["click"])
    history.update(late)  # no label is known yet
    for row in (late[:1], late.iloc[0], [1]):
        with pytest.raises(TypeError, match="row must be a dict"):
            history.transform_row(row)
    history = HistoryFeatures(["user"], time="time").fit(X)
    with pytest.raises(ValueError, match="y must be None, as it was in fit"):
        history.update(late, Y)


@pytest.mark.parametrize("label", ["no", 2])
def test_words_of_one_class(label):
    """Of two words, the later one in order is the event; one word says nothing."""
    X = pd.DataFrame({"user": list("abab"), "t": [1, 2, 3, 4]})
    history = HistoryFeatures(["user"], time="t", passthrough=False)
    with pytest.raises(ValueError, match=f"only the label {label!r}, so that it is"):
        history.fit(X, [label] * 4)
    history.fit(X, [label, "yes" if label == "no" else 3] * 2)
    history.update(X.assign(t=5), [label] * 4)
    assert history.transform_row({"user": "b", "t": 9})["user__since_task_0"] == 5


def test_labels_in_another_order_than_the_rows():
    X = pd.DataFrame({"user": list("abab"), "t": [4, 3, 2, 1]})
    y = pd.Series([1, 0, 1, 0], name="click")
    history = HistoryFeatures(["user"], time="t")
    with pytest.raises(ValueError, match="row 0 is 3 in X and 0 in y"):
        history.fit(X.sort_values("t"), y)
    history.fit(X.sort_values("t"), y.to_numpy())
    later = X.assign(t=X["t"] + 4)
    for method in (history.update, history.replay):
        with pytest.raises(ValueError, match="same index labels in different orders"):
            method(later.sort_values("t"), y)


@pytest.mark.parametrize("first", [[1, 0, 1, 0], [1] * 4, [False] * 4, [np.nan, 1] * 2])
@pytest.mark.parametrize("form", ["memory", "file", "store"])
def test_other_labels_after_0_and_1(first, form, tmp_path):
    """Labels 1 and 2 would make the event of before, 1, the other class."""
    X = pd.DataFrame({"user": list("abab"), "t": [1, 2, 3, 4]})
    history = HistoryFeatures(["user"], time="t").fit(X, first)
    if form == "file":
        history.save(tmp_path / "history")
        history = HistoryFeatures.load(tmp_path / "history")
    elif form == "store":
        history = StoredHistory.write(history, {})
    later = X.assign(t=8)
    with pytest.raises(ValueError, match=r"expected the classes \[0, 1\]"):
        history.update(later, [1, 2, 1, 2])
    other = HistoryFeatures(["user"], time="t").fit(X, [1, 2, 1, 2])
    with pytest.raises(ValueError, match=r"expected the classes \[1, 2\]"):
        other.update(later, first if 0 in first else [0] * 4)
    for labels in ([True, False] * 2, [0.0, np.nan, 0.0, 1.0], None):
        history.update(later, labels)
    # Before the first label, no classes are known.
    none = HistoryFeatures(["user"], time="t").fit(X, [np.nan] * 4)
    assert none.update(later, [1, 2, 1, 2])._state.classes == [1, 2]


@pytest.mark.parametrize(
    "value",
    [
        np.datetime64("9999-12-31"),
        datetime(9999, 12, 31),
        date(1, 1, 1),
        pd.Timestamp("9999-12-31"),
    ],
)
def test_dates_beyond_nanoseconds(value):
    X = pd.DataFrame({"user": ["a", "a"], "t": pd.to_datetime(["2024-01-01"] * 2)})
    history = HistoryFeatures(["user"], time="t").fit(X)
    with pytest.raises(ValueError, match=r"'t' holds dates that are too far.*-\d\d-"):
        history.transform_row({"user": "a", "t": value})
    times = np.array([datetime(2024, 1, 1), value], dtype=object)
    with pytest.raises(ValueError, match=r"'t' holds dates that are too far.*in row 1"):
        history.fit(pd.DataFrame({"user": ["a", "a"], "t": times}))


@pytest.mark.filterwarnings("ignore:The 'generic' unit:DeprecationWarning")
def test_a_timedelta_without_a_unit():
    X = pd.DataFrame({"user": ["a"], "t": pd.to_datetime(["2024-01-01"])})
    with pytest.raises(ValueError, match="max_age must be a timedelta with a unit"):
        HistoryFeatures(["user"], time="t", max_age=np.timedelta64(5)).fit(X)


def test_integers_beside_missing_ones_stay_exact():
    user = 2**53 + 5
    log = pd.DataFrame({"user": [user, 5], "time": [1, 2]})
    history = HistoryFeatures(["user"], time="time").fit(log)
    later = pd.DataFrame({"user": [user, None], "time": [3, 3]})
    lists = HistoryFeatures(["time"], time="time", lists=[{"column": "user"}]).fit(log)
    for refuses in (history.transform, history.update, lists.update):
        with pytest.raises(ValueError, match=r"above 2\^53 are rounded"):
            refuses(later)
    for dtype in (object, "Int64"):
        users = pd.array([user, None], dtype=dtype)
        found = history.transform(pd.DataFrame({"user": users, "time": [3, 3]}))
        np.testing.assert_array_equal(found["user__since_impression"], [2, np.nan])

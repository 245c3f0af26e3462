"""States in a key-value store: the values of rows, updates, other stores, bad input."""

import json
import pickle
import shelve

import numpy as np
import pandas as pd
import pytest
from history_logs import logs, make, settings_of_history, table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from impressions_over_time import make_history, make_log
from numpy.testing import assert_allclose

from sk_pwiser._model_files import read_file, write_file
from sk_pwiser.history import HistoryFeatures, StoredHistory, _store_blocks


def assert_same_rows(found, expected, rows):
    for row in rows:
        own, other = found.transform_row(row), expected.transform_row(row)
        assert own.keys() == other.keys()
        for name, value in other.items():
            if isinstance(value, list | str) or value is None:
                assert own[name] == value
            else:
                # By float32, of sums that differ in their order.
                assert_allclose(own[name], value, rtol=2e-7, atol=1e-9, err_msg=name)


@pytest.fixture(params=["small blocks", "large blocks"])
def blocks(request, monkeypatch):
    """Blocks of two events below the records, and of the usual size."""
    if request.param == "small blocks":
        monkeypatch.setattr(_store_blocks, "BLOCK_BYTES", 1)


@pytest.mark.filterwarnings("ignore:No event is known in the windows")
@pytest.mark.filterwarnings("ignore:Column 'spend' of y contains the amount")
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    log=logs.filter(lambda log: len(log) > 1),
    cut=st.integers(1, 20),
    params=settings_of_history,
)
def test_rows_and_updates_are_those_of_the_history(blocks, log, cut, params):
    log = sorted(log, key=lambda row: row["t"])
    cut = min(cut, len(log) - 1)
    X, Y = table(log)
    history = make(params).fit(X[:cut], Y[:cut])
    store = {}
    stored = StoredHistory.write(history, store)
    end = log[cut - 1]["t"]
    rows = [
        {"user": user, "item": item, "t": end + age}
        for user in ("a", "new", None)
        for item in range(2)
        for age in (0, 1, 9)
    ]
    assert_same_rows(stored, history, rows)
    history.update(X[cut:], Y[cut:])
    stored.update(X[cut:], Y[cut:])
    rows = [{**row, "t": row["t"] + log[-1]["t"]} for row in rows]
    assert_same_rows(stored, history, rows)
    assert_same_rows(StoredHistory(store), history, rows)
    assert stored.end_ == history.end_


@pytest.mark.parametrize("ctr", [pytest.param(0.3, marks=pytest.mark.slow), 0.02])
def test_periods_of_dates(blocks, ctr):
    X, Y = make_log(1_200, ctr=ctr, cvr=0.3)
    history = make_history().fit(X[:600], Y[:600])
    stored = StoredHistory.write(history, {}, prefix="log")
    other = StoredHistory(stored.store, prefix="log")
    for start in (600, 900):
        part = slice(start, start + 300)
        history.update(X[part], Y[part])
        stored.update(X[part], Y[part])
    late = X[:50].assign(user=3), Y[:50]
    with pytest.raises(ValueError, match="50 rows are from before the end"):
        stored.update(*late)
    history.update(*late, overlap="merge")
    stored.update(*late, overlap="merge")
    end = X["time"].iloc[-1] + pd.Timedelta("2h")
    rows = X[-50:].assign(time=end).to_dict("records")
    assert_same_rows(stored, history, rows)
    assert_same_rows(other.refresh(), history, rows)


def test_other_stores(tmp_path):
    X, Y = make_log(200, ctr=0.3, cvr=0.3)
    history = make_history().fit(X, Y)
    row = X.iloc[-1].to_dict()
    with shelve.open(str(tmp_path / "store")) as store:
        StoredHistory.write(history, store)
    with shelve.open(str(tmp_path / "store")) as store:
        assert all(isinstance(value, bytes) for value in store.values())
        assert_same_rows(StoredHistory(store), history, [row])
        stored = StoredHistory(dict(store))
    assert_same_rows(pickle.loads(pickle.dumps(stored)), history, [row])


def test_whole_times_then_fractions():
    # Beyond 2^53, where floats leave out every second integer.
    X = pd.DataFrame({"user": ["a", "b", "a"], "t": 2**60 + np.array([1, 2, 4])})
    y = np.array([1, 0, 1])
    params = {"windows": [4], "half_lives": [3], "lists": [{"column": "user"}]}
    history = HistoryFeatures(["user"], time="t", **params).fit(X, y)
    stored = StoredHistory.write(history, {})
    row = {"user": "a", "t": 2**60 + 5}
    assert stored.transform_row(row)["user__since_task_0"] == 1
    assert_same_rows(stored, history, [row])
    later = pd.DataFrame({"user": ["a", None], "t": 2.0**60 + np.array([1e4, 1.1e4])})
    for each in (history, stored):
        each.update(later, [1, 0])
    rows = [{"user": user, "t": 2.0**60 + 2e4} for user in "abc"]
    assert_same_rows(stored, history, rows)
    assert_same_rows(StoredHistory.write(history, {}), history, rows)


def test_equal_numbers_are_one_key():
    X = pd.DataFrame({"user": np.arange(4) % 2, "t": np.arange(4)})
    history = HistoryFeatures(["user"], time="t").fit(X)
    stored = StoredHistory.write(history, {})
    for user in (1, 1.0, np.int64(1), True):
        row = stored.transform_row({"user": user, "t": 9})
        assert row["user__since_impression"] == 6


def test_keys_that_are_too_old_leave_the_store():
    X = pd.DataFrame({"user": ["a", "b", "a"], "t": [0, 1, 2]})
    history = HistoryFeatures(["user"], time="t", max_age=5).fit(X[:2])
    stored = StoredHistory.write(history, {})
    stored.update(X[2:])
    assert {'history:user:["a"]', 'history:user:["b"]'} <= set(stored.store)
    stored.update(pd.DataFrame({"user": ["a"], "t": [90]}))
    stored.update(pd.DataFrame({"user": ["b"], "t": [91]}))
    assert stored.transform_row({"user": "b", "t": 92})["user__since_impression"] == 1
    late = pd.DataFrame({"user": ["b"], "t": [80]})
    with pytest.raises(ValueError, match="With max_age, a history takes no late rows"):
        stored.update(late, overlap="merge")


def test_bad_input():
    X = pd.DataFrame({"user": [("a", 1), ("b", 2)], "t": [0, 1]})
    history = HistoryFeatures(["user"], time="t").fit(X)
    with pytest.raises(TypeError, match=r"text or numbers; 'user' has \('a', 1\)"):
        StoredHistory.write(history, {})
    with pytest.raises(ValueError, match=r"store\['history'\].* no valid history"):
        StoredHistory({})
    stored = StoredHistory.write(
        HistoryFeatures(["user"], time="t").fit(X.assign(user="a")), {}
    )
    before = dict(stored.store)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        stored.update(X.assign(user="a", t=5), [1])
    assert stored.store == before
    with pytest.raises(ValueError, match="has no field 'user'"):
        stored.transform_row({"t": 3})
    for damaged in (b"", b"damaged", before['history:user:["a"]'][:-8], "text"):
        stored.store['history:user:["a"]'] = damaged
        with pytest.raises(ValueError, match=r"store\['history:user.* no valid record"):
            stored.transform_row({"user": "a", "t": 5})
        with pytest.raises(ValueError, match="no valid record"):
            stored.update(X.assign(user="a", t=5))
    stored.store |= before
    stored.store["history:"] = b"damaged"
    with pytest.raises(ValueError, match="no valid history"):
        stored.refresh()
    assert stored.transform_row({"user": "a", "t": 5})["user__since_impression"] == 4


def test_keys_of_another_kind():
    log = pd.DataFrame({"user": [1, 1, 2], "time": [1, 2, 2]})
    click = pd.Series([1, 0, 1], name="click")
    history = HistoryFeatures(["user"], time="time").fit(log, click)
    store = {}
    stored = StoredHistory.write(history, store)
    # Text, such as that of a request, equals no number: the user would seem to be new.
    refusal = "'user' contained numbers before; it now contains text, such as '1'"
    later = pd.DataFrame({"user": ["1"], "time": [5]})
    for each in (history, stored, pickle.loads(pickle.dumps(stored))):
        with pytest.raises(ValueError, match=refusal):
            each.transform_row({"user": "1", "time": 5})
        with pytest.raises(ValueError, match=refusal):
            each.update(later, [1])
    later = later.astype({"user": int})
    for user in (1, 3):
        stored.update(later.assign(user=user), [1])
        with pytest.raises(ValueError, match=refusal):
            stored.transform_row({"user": "1", "time": 6})
    for user in (1.0, np.int64(3), 7, None):
        assert stored.transform_row({"user": user, "time": 6})


@pytest.mark.parametrize("user", [2**60, 2**60 + 1])
@pytest.mark.parametrize("kind", [float, np.float32, np.float64])
@pytest.mark.parametrize("is_rounded", [False, True])
def test_integers_that_became_floats(user, kind, is_rounded):
    """They may equal the number of another user."""
    of_log, of_row = (kind, int) if is_rounded else (int, kind)
    log = pd.DataFrame({"user": [of_log(user), of_log(5)], "t": [1, 2]})
    history = HistoryFeatures(["user", ("t", "user")], time="t").fit(log)
    store = {}
    stored = StoredHistory.write(history, store)
    # Later periods without this user, of whom the store has a record.
    for start in (3, 5):
        history.update(log[1:].assign(t=start))
        stored.update(log[1:].assign(t=start))
    before = dict(store)
    row = {"user": of_row(user), "t": 9}
    for each in (history, stored, pickle.loads(pickle.dumps(stored))):
        with pytest.raises(ValueError, match=r"'user' contained .* above 2\^53 before"):
            each.transform_row(row)
        with pytest.raises(ValueError, match=r"'user' contained .* above 2\^53 before"):
            each.update(pd.DataFrame([row]))
    assert store == before
    for same in (of_log(user), of_log(5), of_row(5), None, np.nan):
        assert_same_rows(stored, history, [{"user": same, "t": 9}])


def test_integers_that_became_floats_after_their_users_were_dropped():
    log = pd.DataFrame({"user": [2**60, 2**60 + 1, 2**60 + 7, 5], "t": [1, 1, 1, 90]})
    history = HistoryFeatures(["user"], time="t", max_age=10).fit(log)
    history.update(log[3:].assign(t=95))
    for each in (history, StoredHistory.write(history, {})):
        with pytest.raises(ValueError, match=r"'user' contained .* above 2\^53 before"):
            each.transform_row({"user": 2.0**60, "t": 99})
        assert each.transform_row({"user": np.inf, "t": 99})


def test_stores_and_files_of_another_version_are_refused(tmp_path):
    history = HistoryFeatures(["user"], time="t").fit(
        pd.DataFrame({"user": [1], "t": [1]})
    )
    stored = StoredHistory.write(history, store := {})
    content = json.loads(store[stored.prefix])
    del content["form"]
    store[stored.prefix] = json.dumps(content).encode()
    match = r"another version .* write the history again"
    with pytest.raises(ValueError, match=match):
        StoredHistory(store)
    with pytest.raises(ValueError, match=r"'other'.* the store has no such key"):
        StoredHistory(store, prefix="other")
    history.save(tmp_path / "history")
    values, arrays = read_file(tmp_path / "history")
    write_file(tmp_path / "history", values | {"form": 0}, arrays)
    with pytest.raises(ValueError, match=match):
        HistoryFeatures.load(tmp_path / "history")


class Unreachable(dict):
    """A store whose connection breaks after the first record."""

    def __getitem__(self, name):
        raise ConnectionError("timed out")


def test_an_error_of_the_store_is_its_own():
    X = pd.DataFrame({"user": ["a"], "t": [0]})
    store = {}
    StoredHistory.write(HistoryFeatures(["user"], time="t").fit(X), store)
    with pytest.raises(ConnectionError, match="timed out"):
        StoredHistory(Unreachable(store))


def test_records_of_another_form_are_no_valid_ones(monkeypatch):
    """They have a right head, but not the blocks of this history."""
    monkeypatch.setattr(_store_blocks, "BLOCK_BYTES", 1)
    X = pd.DataFrame({"user": list("aaaab"), "t": range(5)})
    delay = {"label_delay": 10}
    history = HistoryFeatures(["user"], time="t", half_lives=[2], **delay).fit(
        X, [0] * 5
    )
    store = {}
    StoredHistory.write(history, store)
    other = HistoryFeatures(["user"], time="t", half_lives=[], **delay).fit(X, [0] * 5)
    past = _store_blocks.read_record(store['history:user:["a"]'], "a")
    assert any(block.level for block in past.blocks)
    StoredHistory.write(other, other_store := {})
    narrow = _store_blocks.read_record(other_store['history:user:["b"]'], "b")
    row = {"user": "a", "t": 9}
    for blocks in ([], past.blocks[:-1], narrow.blocks):
        record = _store_blocks.write_record(4, blocks, past.settings)
        damaged = store | {'history:user:["a"]': record}
        with pytest.raises(ValueError, match=r"user:.* is no valid record"):
            StoredHistory(damaged).transform_row(row)
        with pytest.raises(ValueError, match=r"user:.* is no valid record"):
            StoredHistory(damaged).update(X[:1].assign(t=5), [0])
    for name in store:
        if name.removeprefix("history:").isdecimal():
            store[name] = _store_blocks.write_record(4, [], past.settings)
    with pytest.raises(ValueError, match="is no valid record of a block"):
        StoredHistory(store).transform_row(row)

"""Objects that take turns in changing a store: equal changes, and repeated calls."""

import json
import os
import pickle
from base64 import b64decode
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sk_pwiser.history import HistoryFeatures, StoredHistory, _store_changes

EQUAL = "The store has an equal change .* pass change_id"


class Store(dict):
    """A dict that may fail when the records of a change are written."""

    fails = False

    def update(self, records):
        if self.fails:
            raise ConnectionError
        super().update(records)


def make(**params):
    log = pd.DataFrame({"user": ["a", "b"], "item": [0, 0], "day": [0, 1]})
    history = HistoryFeatures(["user"], time="day", passthrough=False, **params)
    return history.fit(log, pd.Series([0, 1], name="click"))


def store_of_two_users(**params):
    StoredHistory.write(make(**params), store := Store())
    return store


def impression(item=0, day=9):
    return pd.DataFrame({"user": ["a"], "item": [item], "day": [day]})


def count(store, event="impressions"):
    row = StoredHistory(store).transform_row({"user": "a", "day": 1_000})
    return round(np.expm1(row[f"user__log_{event}"]))


def test_equal_changes_of_objects_that_take_turns():
    store = store_of_two_users(label_delay=90)
    first, second = StoredHistory(store), StoredHistory(store)
    for service in (first, second, second, first, second, first):
        service.update(impression())
    assert count(store) == 7
    click = pd.Series([1.0], name="click")
    for service in (first, second, first):
        service.complete(impression(), click)
        service.update(impression(day=10))
    assert (count(store), count(store, "click")) == (10, 3)


def test_a_new_object_per_call():
    store = store_of_two_users()
    for item in range(6):
        StoredHistory(store).update(impression(item))
    assert count(store) == 7
    with pytest.warns(UserWarning, match=EQUAL):
        StoredHistory(store).update(impression(5))
    assert count(store) == 7
    # The writer of the equal change has made another one since, and so has seen it.
    writer = StoredHistory(store)
    writer.update(impression(7))
    writer.update(impression(8))
    StoredHistory(store).update(impression(7))
    assert count(store) == 10
    for number in range(4):
        StoredHistory(store).update(impression(), change_id=f"request {number}")
        StoredHistory(store).update(impression(), change_id=f"request {number}")
    assert count(store) == 14


def test_copies_are_other_writers():
    store = store_of_two_users()
    writer = StoredHistory(store)
    writer.update(impression())
    copied = pickle.loads(pickle.dumps(StoredHistory(dict(store))))
    with pytest.warns(UserWarning, match=EQUAL):
        copied.update(impression())
    if hasattr(os, "fork"):
        names = {writer._writer}
        with os.fdopen((pipe := os.pipe())[0]) as read_end:
            if (child := os.fork()) == 0:
                os.write(pipe[1], writer._writer.encode())
                os._exit(0)
            os.close(pipe[1])
            names.add(read_end.read())
            os.waitpid(child, 0)
        assert len(names) == 2


def test_a_call_that_failed_is_repeated_after_other_calls():
    """By another object that was there before, once."""
    store = store_of_two_users()
    first, second = StoredHistory(store), StoredHistory(store)
    rows = impression(day=10)

    store.fails = True
    with pytest.raises(ConnectionError):
        first.update(rows)
    store.fails = False
    for item in (1, 2, 3):
        second.update(impression(item, day=10))
    assert count(store) == 5
    second.update(rows.astype({"day": float, "item": object}))
    assert count(store) == 5
    first.update(rows)
    assert count(store) == 6


def test_a_change_id_names_one_change():
    store = store_of_two_users(label_delay=90)
    stored = StoredHistory(store).update(impression(), change_id="x")
    before = dict(store)
    click = pd.Series([1.0], name="click")
    for call in (
        lambda: stored.update(impression(day=10), change_id="x"),
        lambda: stored.complete(impression(), click, change_id="x"),
    ):
        with pytest.raises(ValueError, match="change_id='x' was that of another"):
            call()
    for change_id in (5, ""):
        with pytest.raises(TypeError, match="change_id must be a text"):
            stored.update(impression(), change_id=change_id)
    assert store == before
    # Columns that the state does not have may differ, such as the time of the call.
    stored.update(impression(item=4).astype(object), change_id="x")
    assert count(store) == 2


ROWS = {
    "user": ["b", "a", None] * 30,
    "item": [3, 4, 5] * 30,
    "day": [10] * 90,
    "price": [0.5, None, 2.0] * 30,
    "seen": [["x", None], [], None] * 30,
    "at": pd.to_datetime(["2026-03-01 12:00", "2026-03-02 00:00", None] * 30),
}


def tables_of_equal_values():
    """Return the rows in the forms in which they are read again after a restart."""
    polars = pytest.importorskip("polars")
    arrow = pytest.importorskip("pyarrow")
    X = pd.DataFrame(ROWS)
    return [
        X,
        X[list(X)[::-1]].set_index(X.index + 7),
        X.astype(object),
        X.astype({"user": "category", "item": "category", "day": float}),
        X.astype({"user": "string", "item": "Int32", "price": "Float64"}),
        X.astype({"item": float, "day": "int32", "at": "datetime64[s]"}),
        arrow.Table.from_pandas(X),
        polars.from_pandas(X),
    ]


@pytest.mark.parametrize("n_rows", [3, 90])
@pytest.mark.parametrize("number", range(8))
def test_repeated_rows_in_tables_of_other_kinds(number, n_rows):
    first, repeated = tables_of_equal_values()[0], tables_of_equal_values()[number]
    first, repeated = first[:n_rows], repeated[:n_rows]
    for one, other in ((first, repeated), (repeated, first)):
        store = store_of_two_users()
        StoredHistory(store).update(one)
        with pytest.warns(UserWarning, match=EQUAL):
            StoredHistory(store).update(other)
        assert count(store) == 1 + n_rows // 3


@pytest.mark.parametrize("column", ["item", "price", "seen", "at"])
def test_rows_that_differ_in_one_column(column):
    store = store_of_two_users()
    X = tables_of_equal_values()[0]
    other = X.copy()
    other[column] = X[column].to_list()[1:] + X[column].to_list()[:1]
    StoredHistory(store).update(X)
    StoredHistory(store).update(other)
    assert count(store) == 61


def test_a_history_that_is_written_again_has_no_earlier_changes():
    store = store_of_two_users()
    old = StoredHistory(store).update(impression(), change_id="x")
    old.update(impression())
    StoredHistory.write(make(), store)
    new = StoredHistory(store)
    new.update(impression(), change_id="x")
    new.update(impression())
    old.update(impression())
    assert count(store) == 4


def test_a_store_of_an_earlier_version():
    """Its last change waits in the journal; the one before it was the same object's."""
    path = Path(__file__).parent / "version_files" / "store_0.1.0.json"
    records = json.loads(path.read_text(encoding="utf-8"))
    store = Store({name: b64decode(text) for name, text in records.items()})
    assert count(store) == 2
    stored = StoredHistory(store)
    with pytest.warns(UserWarning, match=EQUAL):
        stored.update(impression(2, day=6))
    assert count(store) == 3
    stored.update(impression(2, day=6))
    stored.update(impression(2, day=7))
    assert count(store) == 5


def test_the_record_of_changes_is_bounded(monkeypatch):
    for name in ("N_FAILED", "N_WRITERS", "N_IDS"):
        monkeypatch.setattr(_store_changes, name, 3)
    store = store_of_two_users()
    for item in range(5):
        StoredHistory(store).update(impression(item))
        StoredHistory(store).update(impression(item), change_id=str(item))
        store.fails = True
        with pytest.raises(ConnectionError):
            StoredHistory(store).update(impression(item + 10))
        store.fails = False
    StoredHistory(store).update(impression(), change_id="last")
    record = json.loads(store["history:changes"])
    assert {name: len(entries) for name, entries in record.items()} == {
        "last": 3,
        "failed": 3,
        "ids": 3,
    }
    assert count(store) == 17
    for item in (12, 13, 14):
        StoredHistory(store).update(impression(item))
    for change_id in ("3", "4", "last"):
        item = int(change_id) if change_id.isdigit() else 0
        StoredHistory(store).update(impression(item), change_id=change_id)
    assert count(store) == 17
    StoredHistory(store).update(impression(11))
    assert count(store) == 18


def test_a_damaged_record_of_changes():
    store = store_of_two_users()
    store["history:changes"] = b"damaged"
    with pytest.raises(ValueError, match=r"history:changes.* no valid record"):
        StoredHistory(store).update(impression())
    assert count(store) == 1

"""Impressions that are appended at once, and labels that come later."""

import copy
import math
from itertools import pairwise
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from history_by_loops import replayed
from history_logs import (
    TASKS,
    assert_equal,
    few,
    make,
    rows_of_log,
    settings_of_history,
    table,
)
from hypothesis import given
from hypothesis import strategies as st

from sk_pwiser.history import HistoryFeatures, StoredHistory, _store_blocks

# Drawn windows may be too short for labels.
pytestmark = [
    pytest.mark.filterwarnings("ignore:No event is known in the windows"),
    pytest.mark.filterwarnings("ignore:Column 'spend' of y contains the amount"),
]

FIELDS = "user", "item", "t"


def blank(row, known=None):
    """Return a row without its labels, but for that of one task."""
    labels = (y if k == known else None for k, y in enumerate(row["y"]))
    blank_row = {**row, "y": tuple(labels)}
    if known is not None and TASKS[known] != "conversion":
        blank_row["spend"] = None  # is filled in together with its event
    return blank_row


def operate(rows, params, in_store):
    """Return the columns of the rows after the first, in operation.

    The rows are appended one at a time without labels, and each label is filled in
    when it is known.
    """
    delays = params["label_delay"]
    delays = [delays[k] if isinstance(delays, dict) else delays for k in TASKS]
    first, *later = rows
    history = make(params).fit(*table([blank(first)]))
    server = StoredHistory.write(history, {}) if in_store else history
    waiting, found = [], []
    for before, row in pairwise([first, *later]):
        waiting += [(before["t"] + d, k, before) for k, d in enumerate(delays)]
        due = [each for each in waiting if each[0] < row["t"]]
        waiting = [each for each in waiting if each[0] >= row["t"]]
        # Those of equal times are not in the order of the rows.
        for _, k, one in due[::-1]:
            server.complete(*table([blank(one, k)]))
        found.append(server.transform_row({name: row[name] for name in FIELDS}))
        server.update(*table([blank(row)]))
    return found


@pytest.mark.parametrize("in_store", [False, True])
@few
@given(
    rows=st.lists(rows_of_log, min_size=2, max_size=20),
    params=settings_of_history,
    block_bytes=st.sampled_from([1, 200, 800]),
)
def test_operation_equals_training(in_store, rows, params, block_bytes):
    """Labels as they become known, one impression at a time, as by `fit_transform`."""
    rows = sorted(rows, key=lambda r: r["t"])
    with mock.patch.object(_store_blocks, "BLOCK_BYTES", block_bytes):
        found = operate(rows, params, in_store)
    expected = replayed(rows, params, TASKS)
    for i, one in enumerate(found, 1):
        own = {name: [values[i]] for name, values in expected.items()}
        if any(r["t"] == rows[i]["t"] for r in rows[:i]):
            continue  # the state has rows of the same time
        assert_equal({name: [value] for name, value in one.items()}, own)


def small(**params):
    return HistoryFeatures(["user"], time="t", passthrough=False, **params)


@pytest.mark.parametrize("in_store", [False, True])
def test_rows_of_equal_times_are_completed_in_any_order(in_store, monkeypatch):
    """Candidates of one page, in a list of the last ones that were clicked."""
    monkeypatch.setattr(_store_blocks, "BLOCK_BYTES", 1)  # ties fill several blocks
    rng, n = np.random.default_rng(0), 90
    items = np.array([7, 30, 2.5, "x", "10", "y", "a"], dtype=object)
    t = np.arange(n) // 9
    X = pd.DataFrame({"user": "a", "item": rng.choice(items, n), "t": t})
    y = (rng.random(n) < 0.5) * 1.0
    lists = [{"column": "item", "n": 7, "task": 0}, {"column": "item", "n": 5}]
    params = {"label_delay": 20, "lists": lists}
    expected = small(**params).fit(X, y)
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(n)
        history = small(**params).fit(X[:30], np.full(30, np.nan))
        server = StoredHistory.write(history, {}) if in_store else history
        server.update(X[30:])
        for part in np.array_split(order, 6):
            server.complete(X.iloc[part], y[part])
        for time in (22, 25, 26, 28, 40):
            row = {"user": "a", "t": time}
            found, wanted = server.transform_row(row), expected.transform_row(row)
            np.testing.assert_equal(found, wanted)
    clicked = X["item"][(y == 1) & (X["t"] == 9)].tolist()
    clicked.sort(key=lambda item: (isinstance(item, str), item))
    assert wanted["user__last_item_task_0"][-len(clicked) :] == clicked[-7:]
    assert wanted["user__last_item"] == X["item"][-5:].tolist()


@pytest.mark.parametrize("in_store", [False, True])
def test_labels_that_cannot_be_filled_in(in_store):
    X = pd.DataFrame({"user": list("abc"), "t": [0, 10, 11]})
    history = small(label_delay=5).fit(X, [np.nan, np.nan, 1])
    server = StoredHistory.write(history, {}) if in_store else history
    row = {"user": "b", "t": 30}
    expected = server.transform_row(row)
    later = pd.DataFrame({"user": list("abdc"), "t": [0, 10, 10, 11]})
    message = (
        "2 rows are not in the state, the first in row 0; it keeps the rows from 6 on, "
        "and finds them by their keys and column 't'; 1 rows have one of their labels "
        "already, the first in row 3; pass NaN for known labels"
    )
    with pytest.raises(ValueError, match=message):
        server.complete(later, [1, 1, 1, 1])
    with pytest.raises(TypeError, match="y must be labels; got None"):
        server.complete(later, None)
    np.testing.assert_equal(server.transform_row(row), expected)
    server.complete(later[1:2], [1])
    assert server.transform_row(row)["user__since_task_0"] == 20
    with pytest.raises(ValueError, match="2 rows have one of their labels already"):
        server.complete(pd.concat([later[1:2]] * 2), [1, 1])


@pytest.mark.parametrize("in_store", [False, True])
def test_a_key_may_have_forgotten_a_row_that_is_completed(in_store):
    """Its label counts among those of all rows."""
    X = pd.DataFrame({"user": list("aab"), "t": [0, 5, 6]})
    params, y = {"label_delay": 20, "max_age": 2}, np.array([1, np.nan, np.nan])
    history = small(**params).fit(X[:1], y[1:2])
    server = StoredHistory.write(history, {}) if in_store else history
    for row in (1, 2):
        server.update(X[row : row + 1])
    server.complete(X[:1], y[:1])
    with pytest.raises(ValueError, match="1 rows have one of their labels already"):
        server.complete(X[:1], y[:1])
    row = {"user": "b", "t": 7}
    expected = small(**params).fit(X, y).transform_row(row)
    np.testing.assert_equal(server.transform_row(row), expected)


class FailingStore(dict):
    """A store whose connection breaks after some writes."""

    def __init__(self, *args):
        super().__init__(*args)
        self.left = math.inf

    def __setitem__(self, name, record):
        self._write()
        super().__setitem__(name, record)

    def __delitem__(self, name):
        self._write()
        super().__delitem__(name)

    def update(self, records):
        for name, record in records.items():
            self[name] = record

    def pop(self, name, default):
        return super().pop(name) if name in self and not self._write() else default

    def _write(self):
        if self.left <= 0:
            raise ConnectionError
        self.left -= 1


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("fails", ["update", "complete"])
@pytest.mark.parametrize("n_others", [0, 2])
def test_a_failed_change_that_is_repeated_counts_once(fails, restarts, n_others):
    """At once, or after other changes."""
    X = pd.DataFrame({"user": list("aaba"), "t": [1, 1, 3, 8]})
    history = small(label_delay=20, max_age=30).fit(X[:3], [np.nan] * 3)
    calls = {
        "update": lambda each: each.update(X[3:]),
        # There are two such rows: a label that comes twice would be filled in twice.
        "complete": lambda each: each.complete(X[:1], [1]),
    }
    call = calls[fails]
    others = [
        lambda each: each.complete(X[2:3], [0]),
        lambda each: each.update(X[3:].assign(user="b")),
    ][:n_others]
    expected = copy.deepcopy(history)
    for each in (call, *others):
        each(expected)
    for n_writes in range(9):
        store = FailingStore()
        stored = StoredHistory.write(history, store)
        store.left, failed = n_writes, False
        try:
            call(stored)
        except ConnectionError:
            failed = True
        store.left = math.inf
        stored = StoredHistory(store) if restarts else stored
        for each in [*others, call] if failed else others:
            each(stored)
        for user in "ab":
            row = {"user": user, "t": 25}
            found, wanted = stored.transform_row(row), expected.transform_row(row)
            np.testing.assert_equal(found, wanted)
        assert "history:journal" not in store
    assert not failed


def test_equal_changes_that_did_not_fail_count_each():
    X = pd.DataFrame({"user": ["a"], "t": [5]})
    store = FailingStore()
    stored = StoredHistory.write(small().fit(X), store)
    for _ in range(2):
        stored.update(X)
    store.left = 2
    with pytest.raises(ConnectionError):
        stored.update(X)
    store.left = math.inf
    for _ in range(2):  # the failed one again, and a further one
        stored.update(X)
    row = stored.transform_row({"user": "a", "t": 9})
    assert round(math.expm1(row["user__log_impressions"])) == 5


def test_a_store_that_is_newer_than_the_server():
    """A key's record may hold rows from after the row: no age is negative."""
    history = small(half_lives=[0.01]).fit(
        pd.DataFrame({"user": ["a"], "t": [90]}), [1]
    )
    writer = StoredHistory.write(history, {})
    server = StoredHistory(writer.store)
    writer.update(pd.DataFrame({"user": ["a", "b"], "t": [105, 110]}), [1, 1])
    with pytest.warns(UserWarning, match="from before the end of the state"):
        found = server.transform_row({"user": "a", "t": 100})
    with pytest.warns(UserWarning, match="from before the end of the state"):
        expected = writer.transform_row({"user": "a", "t": 100})
    assert found["user__since_impression"] == expected["user__since_impression"] == 5
    name = "user__log_impressions_decay_0.01"
    assert found[name] == expected[name]


def test_windows_and_delays_that_are_probably_wrong():
    X, Y = pd.DataFrame({"user": ["a"], "t": [1]}), pd.DataFrame({"k": [1], "l": [0]})
    with pytest.warns(
        UserWarning, match="No event is known in the windows 3 for 'k', 3 for 'l'"
    ):
        small(windows=[3], state_delay=1, label_delay=2).fit(X, Y)
    with pytest.warns(UserWarning, match="label_delay has no entry for 'k', whose"):
        small(label_delay={"l": 4}).fit(X, Y)


def test_training_equals_operation_with_a_state_of_some_age():
    """A state that is updated every hour, served by rows up to an hour later."""
    rng = np.random.default_rng(0)
    n = 300
    X = pd.DataFrame(
        {"user": rng.integers(0, 5, n), "t": np.sort(rng.integers(0, 900, n))}
    )
    y = rng.integers(0, 2, n)
    params = {"state_delay": 60, "label_delay": 30, "windows": [200]}
    expected = small(**params).fit_transform(X, y)
    first = X["t"] < 60
    history = small(**params).fit(X[first], np.full(first.sum(), np.nan))
    for start in range(60, 900, 60):
        rows = np.flatnonzero((X["t"] >= start) & (X["t"] < start + 60))
        if start > 60:
            before = (X["t"] >= start - 60) & (X["t"] < start)
            history.update(X[before], np.full(before.sum(), np.nan))
        known = (X["t"] >= start - 90) & (X["t"] < start - 30)
        history.complete(X[known], y[known])
        found = history.transform(X.iloc[rows])
        pd.testing.assert_frame_equal(found, expected.iloc[rows])

"""Sequences of times in blocks of a store, against lists of times."""

from bisect import bisect_right
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from history_logs import assert_equal
from numpy.testing import assert_allclose

from sk_pwiser.history import HistoryFeatures, StoredHistory, _store_blocks
from sk_pwiser.history._store_blocks import EMPTY, EMPTY_LIST, Tree, newest, seen

HALF_LIVES = [3.0, 0.2]


class Blocks(dict):
    """The blocks of a tree, without a store."""

    read_block, drop_block = dict.__getitem__, dict.__delitem__

    def write_block(self, block):
        self[number := max(self, default=0) + 1] = block
        return number


@pytest.fixture(params=[1, 100])
def small_blocks(request, monkeypatch):
    """Blocks of two events, or of a few."""
    monkeypatch.setattr(_store_blocks, "BLOCK_BYTES", request.param)


@pytest.mark.parametrize("half_lives", [[], HALF_LIVES])
@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(value, marks=() if value in {0, 1} else pytest.mark.slow)
        for value in range(4)
    ],
)
def test_random_changes_of_times(half_lives, seed, small_blocks):
    """Events are added late, removed and dropped, at times of which many are equal."""
    rng = np.random.default_rng(seed)
    blocks, events, root = Blocks(), [], EMPTY
    start, horizon = (-9_000, 6) if seed % 2 else (0, 20)
    tree, end = Tree(blocks, horizon, half_lives), start
    for step in range(120):
        end += int(rng.integers(0, 4))
        # Late events, some of them from before those that are kept.
        low = end - (30 if step % 5 == 0 else 3)
        times = rng.integers(max(low, start), end + 1, rng.integers(0, 9))
        added = sorted(times.tolist())
        kept = [t for t in events if t >= end - horizon]
        n_removed = min(len(kept), int(rng.integers(0, 7)) * (step % 3 == 0))
        removed = sorted(rng.permutation(kept)[:n_removed].tolist())
        counts = Counter(removed)
        for t in {*counts, end + 1}:
            last = seen(root, t, t, (), blocks.get, search=bisect_right)[1]
            assert (last == t) == (t in events)
        missing = [t for t in (end - 1, end, end + 1) if t not in events]
        root, absent = tree.changed(root, removed=sorted(removed + missing))
        assert absent == missing
        root, _ = tree.changed(root, [(t, None) for t in added], end=end)
        events = sorted((Counter(events + added) - counts).elements())
        for time in (end, end + 1, end + 7.5):
            for lag in (0, horizon / 2, horizon):
                found = seen(root, time - lag, time, half_lives, blocks.get)
                past = [t for t in events if t < time - lag]
                assert found[0] == len(past)
                assert found[1] == max(past, default=None)
                sums = [sum(2 ** ((t - time) / h) for t in past) for h in half_lives]
                assert_allclose(found[2], sums, rtol=1e-9, atol=1e-12)
    # What is older is dropped, but for a part of it.
    n_blocks = reachable(root, blocks)
    assert n_blocks == len(blocks)


def reachable(block, blocks):
    children = [blocks[number] for number in block.ids]
    return len(children) + sum(reachable(child, blocks) for child in children)


@pytest.mark.parametrize("seed", range(3))
def test_random_changes_of_lists(seed, small_blocks):
    rng = np.random.default_rng(seed)
    blocks, events, root, end = Blocks(), [], EMPTY_LIST, 0
    lag, n = 5, 4
    tree = Tree(blocks, lag, n_kept=n)
    for step in range(150):
        end += int(rng.integers(0, 3))
        times = np.sort(rng.integers(max(end - 6, 0), end + 1, rng.integers(0, 6)))
        added = [(int(t), f"{step} {i}") for i, t in enumerate(times)]
        root, _ = tree.changed(root, added, end=end)
        events = sorted(events + added, key=lambda event: event[0])
        for bound in (end - lag, end - 2, end + 1):
            found = newest(root, bound, n, blocks.get)
            expected = [event for event in events if event[0] < bound][-n:]
            assert list(zip(*map(list, found), strict=True)) == expected
    assert reachable(root, blocks) == len(blocks)


class CountingStore(dict):
    """A store that counts the bytes that come from it and go to it."""

    n_read = n_written = 0

    def get(self, name, default=None):
        record = super().get(name, default)
        self.n_read += len(record or b"")
        return record

    def update(self, records):
        self.n_written += sum(map(len, records.values()))
        super().update(records)


def test_a_hot_key_reads_and_writes_little():
    """An item with most of the rows of a log, with a window, half-lives and a list."""
    rng = np.random.default_rng(0)
    n, day = 40_000, 86_400
    X = pd.DataFrame(
        {
            "item": np.where(rng.random(n) < 0.9, 0, rng.integers(1, 50, n)),
            "user": rng.integers(0, 100, n),
            "t": np.sort(rng.integers(0, 7 * day, n)),
        }
    )
    Y = pd.DataFrame({"click": rng.random(n) < 0.1, "buy": rng.random(n) < 0.01}) * 1.0
    waiting = np.flatnonzero(X["t"] > 6 * day)
    labels = Y.loc[waiting, ["buy"]].assign(click=np.nan)[["click", "buy"]]
    Y.loc[waiting, "buy"] = np.nan
    history = HistoryFeatures(
        ["item"],
        time="t",
        label_delay={"click": 300, "buy": day},
        windows=[7 * day],
        half_lives=[day, 7 * day],
        lists=[{"column": "user", "task": "click"}],
        passthrough=False,
    )
    store = CountingStore()
    stored = StoredHistory.write(history.fit(X, Y), store)
    end = int(X["t"].iloc[-1])
    for start in range(0, 50, 10):
        own = waiting[start : start + 10]
        for each in (history, stored):
            store.n_written = 0
            each.update(X[-10:].assign(t=end + np.arange(10)))
            each.complete(X.loc[own], labels[start : start + 10])
            assert store.n_written < 100_000
        end += 10
        store.n_read = 0
        row = {"item": 0, "t": end + 1}
        found, expected = stored.transform_row(row), history.transform_row(row)
        assert store.n_read < 20_000
        assert_equal(
            {name: [value] for name, value in found.items()},
            {name: [value] for name, value in expected.items()},
        )
    # The whole state is in blocks, none of which is large.
    assert max(map(len, store.values())) < 5_000


def test_blocks_that_another_process_replaces():
    """A server that has read a record finds the blocks below it or reads it again."""
    n = 1_000
    X = pd.DataFrame({"user": [0] * n, "t": np.arange(n)})
    history = HistoryFeatures(["user"], time="t", label_delay=n, windows=[2 * n])
    store = {}
    writer = StoredHistory.write(history.fit(X, [np.nan] * n), store)
    server = StoredHistory(store)
    server.transform_row({"user": 0, "t": n})
    writer.complete(X[::7], [1] * len(X[::7]))
    for t in (3 * n // 2, 2 * n):
        found = server.transform_row({"user": 0, "t": t})
        assert found == writer.transform_row({"user": 0, "t": t})
    for name in [name for name in store if name.rpartition(":")[2].isdigit()]:
        del store[name]
    with pytest.raises(ValueError, match=r"The store has no 'history:.*write the hist"):
        StoredHistory(store).transform_row({"user": 0, "t": n})


def test_a_history_that_is_written_again():
    """Blocks of an earlier history have other numbers: servers may have kept them."""
    X = pd.DataFrame({"user": [0] * 500, "t": np.arange(500)})
    history = HistoryFeatures(["user"], time="t", windows=[500], passthrough=False)
    store = {}
    server = StoredHistory.write(history.fit(X), store)
    row = {"user": 0, "t": 502}
    server.transform_row(row)
    StoredHistory.write(history.fit(X[::2].assign(t=X["t"][::2] + 1)), store)
    np.testing.assert_equal(server.transform_row(row), history.transform_row(row))

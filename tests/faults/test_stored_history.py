"""A writer of a stored history that stops after any number of writes, and restarts."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from stopped_store import Stopped
from stopped_store import StoppingStore as Store

from sk_pwiser.history import HistoryFeatures, StoredHistory

pytestmark = pytest.mark.slow

N_BATCHES, PERIOD = 4, 10


def batch(number):
    """Return the impressions of a period, and their labels."""
    rng = np.random.default_rng(number)
    n = 8
    t = number * PERIOD + np.sort(rng.integers(0, PERIOD, n))
    t[-1] = (number + 1) * PERIOD - 1
    users, items = rng.integers(0, 4, n), rng.integers(0, 3, n)
    return pd.DataFrame({"user": users, "item": items, "t": t}), rng.integers(0, 2, n)


def make():
    return HistoryFeatures(
        ["user", ("user", "item")],
        time="t",
        label_delay=2 * PERIOD,
        state_delay=PERIOD,
        windows=[5 * PERIOD],
        half_lives=[PERIOD],
        passthrough=False,
    )


def operate(store, has_ids):
    """Append the batches that the store lacks, and the labels of those before."""
    stored = StoredHistory(store)
    number = int(stored.end_) // PERIOD
    while number < N_BATCHES:
        # After a restart, the labels may be there.
        complete(stored, number - 1, has_ids)
        number += 1
        if number < N_BATCHES:
            change_id = f"update {number}" if has_ids else None
            stored.update(batch(number)[0], change_id=change_id)
    complete(stored, N_BATCHES - 1, has_ids)


def complete(stored, number, has_ids):
    if number < 0:
        return
    change_id = f"complete {number}" if has_ids else None
    try:
        stored.complete(*batch(number), change_id=change_id)
    except ValueError as error:
        if has_ids or "labels already" not in str(error):
            raise


def features(history):
    rows = [
        {"user": user, "item": item, "t": (N_BATCHES + 3) * PERIOD}
        for user in range(4)
        for item in (0, 5)
    ]
    return [list(history.transform_row(row).values()) for row in rows]


@pytest.mark.filterwarnings("ignore:The store has an equal change")
@pytest.mark.parametrize("has_ids", [False, True])
def test_nothing_is_lost_or_counted_twice(has_ids):
    X, y = zip(*map(batch, range(N_BATCHES)), strict=True)
    history = make().fit(pd.concat(X, ignore_index=True), np.concatenate(y))
    expected = features(history)
    X, y = batch(0)
    begun, n_writes, n_stopped = Store(), 0, 0
    StoredHistory.write(make().fit(X, np.full(len(y), np.nan)), begun)
    while n_stopped == n_writes:
        store = Store(begun)
        store.n_left = n_writes
        n_writes += 1
        try:
            operate(store, has_ids)
        except Stopped:
            n_stopped += 1
            store.n_left = Store.n_left
            operate(store, has_ids)
        stored = StoredHistory(store)
        assert stored.end_ == history.end_
        assert_allclose(features(stored), expected, rtol=2e-7, atol=1e-9)
    assert n_stopped > 50

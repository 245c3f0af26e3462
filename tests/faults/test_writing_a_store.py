"""`StoredHistory.write` that stops half-way, and servers that read meanwhile."""

import pandas as pd
import pytest
from stopped_store import Stopped, StoppingStore

from sk_pwiser.history import HistoryFeatures, StoredHistory

HALF_WAY = (
    r"store\['history'\].* its writing ended half-way; .* write the history again"
)
OTHER_SETTINGS = "was written with other settings .* Call refresh"
FIRST = pd.DataFrame({"user": list("ababc"), "t": [0, 1, 2, 3, 4]})
LATER = pd.DataFrame({"user": list("abab"), "t": [5, 6, 7, 8]})
BOTH = pd.concat([FIRST, LATER], ignore_index=True)
ROWS = [{"user": user, "t": 12} for user in "abcd"]


def fitted(log, window=20):
    history = HistoryFeatures(["user"], time="t", windows=[window], passthrough=False)
    return history.fit(log, [0] * len(log))


def features(history):
    return [shown(history, row) for row in ROWS]


def shown(history, row):
    """Return the features as text, in which missing ones are equal."""
    return str(history.transform_row(row))


def stores_stopped_in_writing(history, begun):
    """Yield stores in which writing has stopped after 0, 1, ... of its changes."""
    n_writes = 0
    while True:
        store = StoppingStore(begun)
        store.n_left = n_writes
        try:
            StoredHistory.write(history, store)
        except Stopped:
            store.n_left = StoppingStore.n_left
            yield store
            n_writes += 1
        else:
            return


def test_no_row_is_counted_twice_after_writing_has_stopped():
    begun = {}
    StoredHistory.write(fitted(FIRST), begun)
    longer = fitted(BOTH)
    expected = features(longer)
    n_refused = 0
    for store in stores_stopped_in_writing(longer, begun):
        server = StoredHistory(dict(begun))
        server.store = store
        try:
            StoredHistory(store).update(LATER, [0] * 4)
        except ValueError:
            n_refused += 1
            # Neither a new object nor one that has read the store before goes on.
            with pytest.raises(ValueError, match=HALF_WAY):
                StoredHistory(store)
            with pytest.raises(ValueError, match=HALF_WAY):
                server.update(LATER, [0] * 4)
            StoredHistory.write(longer, store)
        assert features(StoredHistory(store)) == expected
    assert n_refused >= 4


def test_a_broken_change_is_finished_if_writing_stops_at_once():
    """The journal of a change is needed until the mark of a new history is there."""
    begun = StoppingStore()
    stored = StoredHistory.write(fitted(FIRST), begun)
    begun.n_left = 2  # the journal, and the first record
    with pytest.raises(Stopped):
        stored.update(LATER, [0] * 4)
    for store in stores_stopped_in_writing(fitted(FIRST, window=5), begun):
        try:
            stored = StoredHistory(store)
        except ValueError:  # it is marked
            StoredHistory.write(fitted(FIRST), store)
            assert features(StoredHistory(store)) == features(fitted(FIRST))
        else:
            stored.update(LATER, [0] * 4)  # repeated
            assert features(stored) == features(fitted(BOTH))


def test_a_value_without_a_form_leaves_the_store_as_it_is():
    begun = StoppingStore()
    stored = StoredHistory.write(fitted(FIRST), begun)
    begun.n_left = 2
    with pytest.raises(Stopped):
        stored.update(LATER, [0] * 4)
    begun.n_left = StoppingStore.n_left
    before = dict(begun)
    tuples = FIRST.assign(user=[(user,) for user in FIRST["user"]])
    with pytest.raises(TypeError, match="text or numbers"):
        StoredHistory.write(fitted(tuples), begun)
    assert dict(begun) == before


@pytest.mark.parametrize("n_left", [1, 3, None])
def test_a_server_refuses_records_of_other_settings(n_left):
    store = StoppingStore()
    server = StoredHistory.write(fitted(FIRST), store)
    other = fitted(FIRST, window=5)
    if n_left is None:
        StoredHistory.write(other, store)
    else:
        store.n_left = n_left
        with pytest.raises(Stopped):
            StoredHistory.write(other, store)
    refused_users = {1: [], 3: ["a", "b"], None: ["a", "b", "c"]}[n_left]
    for row in ROWS:
        if row["user"] in refused_users:
            with pytest.raises(ValueError, match=r"other settings .* Call refresh"):
                server.transform_row(row)
        else:
            assert shown(server, row) == shown(fitted(FIRST), row)
    if n_left is None:
        assert features(server.refresh()) == features(other)
    else:
        with pytest.raises(ValueError, match=HALF_WAY):
            server.refresh()


def test_keys_of_an_earlier_history_with_other_settings_are_new():
    store = {}
    StoredHistory.write(fitted(FIRST), store)
    without_c = fitted(FIRST[:4], window=5)
    stored = StoredHistory.write(without_c, store)
    assert 'history:user:["c"]' in store
    assert features(stored) == features(without_c)
    again = FIRST[4:].assign(t=6)
    for history in (stored, without_c):
        history.update(again, [0])
    assert features(stored) == features(without_c)

"""A process that appends impressions and late labels to a history in Redis."""

from collections.abc import MutableMapping

import numpy as np
import pandas as pd

from sk_pwiser.history import HistoryFeatures, StoredHistory

N_BATCHES, PERIOD = 200, 10


class RedisStore(MutableMapping):
    """The methods of a dict over a client of Redis; a batch of records is one call."""

    def __init__(self, client):
        self.client = client

    def __getitem__(self, name):
        record = self.client.get(name)
        if record is None:
            raise KeyError(name)
        return record

    def __setitem__(self, name, record):
        self.client.set(name, record)

    def __delitem__(self, name):
        if not self.client.delete(name):
            raise KeyError(name)

    def __iter__(self):
        return (name.decode() for name in self.client.scan_iter())

    def __len__(self):
        return self.client.dbsize()


def batch(number):
    """Return the impressions of a period, and their labels."""
    rng = np.random.default_rng(number)
    n = 30
    X = pd.DataFrame(
        {
            "user": rng.integers(0, 20, n),
            "item": rng.integers(0, 8, n),
            "t": number * PERIOD + np.sort(rng.integers(0, PERIOD, n)),
        }
    )
    X.loc[n - 1, "t"] = (number + 1) * PERIOD - 1
    return X, rng.integers(0, 2, n)


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


def begin():
    X, y = batch(0)
    return make().fit(X, np.full(len(y), np.nan))


def operate(port):
    """Append the batches that the store lacks, and the labels of those before."""
    import redis

    stored = StoredHistory(RedisStore(redis.Redis(port=port)))
    number = int(stored.end_) // PERIOD
    while number < N_BATCHES:
        # After a restart, the labels may be there.
        complete(stored, number - 1)
        number += 1
        if number < N_BATCHES:
            stored.update(batch(number)[0])
    complete(stored, N_BATCHES - 1)


def complete(stored, number):
    if number < 0:
        return
    try:
        stored.complete(*batch(number))
    except ValueError as error:
        if "labels already" not in str(error):
            raise

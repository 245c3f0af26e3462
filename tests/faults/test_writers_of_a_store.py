"""Services that share a stored history, failures at random, and repeated calls."""

import math
from collections import UserDict

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from sk_pwiser.history import HistoryFeatures, StoredHistory

pytestmark = pytest.mark.slow

TASKS = ["click", "conversion"]
LABEL_DELAY = 3
EQUAL = "The store has an equal change .* pass change_id"


class Failed(Exception):
    pass


class Store(UserDict):
    """A dict whose calls fail at random, some of them after they were carried out."""

    failures = None  # a generator of random numbers
    n_failures = 0

    def _fail(self):
        if self.failures is not None and self.failures.random() < 0.04:
            self.n_failures += 1
            raise Failed

    def __getitem__(self, name):
        self._fail()
        return super().__getitem__(name)

    def get(self, name, default=None):
        self._fail()
        return self.data.get(name, default)

    def __setitem__(self, name, record):
        self._fail()
        super().__setitem__(name, record)
        self._fail()

    def __delitem__(self, name):
        self._fail()
        super().__delitem__(name)
        self._fail()


def make():
    return HistoryFeatures(
        ["user", ("user", "item")],
        time="day",
        label_delay=LABEL_DELAY,
        windows=[7],
        half_lives=[5],
        lists=[{"column": "item", "task": "click", "n": 3}],
        passthrough=False,
    )


def make_log(rng, n_days, per_day=3):
    """Return impressions whose times are days, so that many rows are equal."""
    n = n_days * per_day
    X = pd.DataFrame(
        {
            "user": rng.choice(["a", "b"], n),
            "item": rng.integers(0, 2, n),
            "day": np.repeat(np.arange(n_days), per_day),
            "impression": np.arange(n),
        }
    )
    click = rng.random(n) < 0.6
    conversion = click & (rng.random(n) < 0.5)
    return X, pd.DataFrame({"click": click, "conversion": conversion}).astype(float)


class Services:
    """One service appends impressions, the other one completes labels."""

    def __init__(self, store, rng, *, restarts, has_ids):
        self.store = store
        self.rng = rng
        self.restarts = restarts
        self.has_ids = has_ids
        self.objects = {name: StoredHistory(store) for name in ("update", "complete")}
        self.n_calls = 0

    def call(self, method, *args):
        """Call a method, repeatedly until no error occurs."""
        self.n_calls += 1
        ids = {"change_id": f"call {self.n_calls}"} if self.has_ids else {}
        self.store.failures = self.rng
        while True:
            try:
                getattr(self.objects[method], method)(*args, **ids)
            except Failed:
                if self.restarts and self.rng.random() < 0.5:
                    self.store.failures = None
                    self.objects[method] = StoredHistory(self.store)
                    self.store.failures = self.rng
                continue
            self.store.failures = None
            return


@pytest.mark.filterwarnings(f"ignore:{EQUAL}")
@pytest.mark.parametrize(
    ("restarts", "has_ids", "rows_are_equal"),
    [(False, False, True), (True, False, False), (True, True, True)],
    ids=["repeated by the object", "numbers of impressions", "change_id"],
)
@pytest.mark.parametrize("n_days", [7, 30, 31])
def test_a_month_of_two_services(restarts, has_ids, rows_are_equal, n_days):
    rng = np.random.default_rng(n_days)
    X, Y = make_log(rng, n_days)
    if rows_are_equal:
        del X["impression"]
        assert X.duplicated().mean() > 0.1
    expected = make().fit_transform(X, Y).astype({"user__last_item_click": object})
    expected = expected.to_dict("records")
    is_first = X["day"] == 0
    unknown = pd.DataFrame(math.nan, X.index, TASKS)
    store = Store()
    StoredHistory.write(make().fit(X[is_first], unknown[is_first]), store)
    services = Services(store, rng, restarts=restarts, has_ids=has_ids)
    pending = [(row, task) for row in X.index[is_first] for task in TASKS]
    for day in range(1, n_days):
        # Labels that must be known today, and some that come earlier.
        is_due = [
            X["day"][row] + LABEL_DELAY < day or rng.random() < 0.2
            for row, _ in pending
        ]
        for (row, task), is_now in zip(list(pending), is_due, strict=True):
            if is_now:
                labels = unknown.loc[[row]].assign(**{task: Y.loc[row, task]})
                services.call("complete", X.loc[[row]], labels)
                pending.remove((row, task))
        served = services.objects["update"].refresh()
        for row in X.index[X["day"] == day]:
            features = served.transform_row(X.loc[row].to_dict())
            for name, value in features.items():
                if name == "user__last_item_click":
                    assert value == list(expected[row][name])
                else:
                    assert_allclose(value, expected[row][name], rtol=3e-7, atol=1e-9)
        for row in X.index[X["day"] == day]:
            services.call("update", X.loc[[row]], unknown.loc[[row]])
            pending += [(row, task) for task in TASKS]
    assert store.n_failures > n_days

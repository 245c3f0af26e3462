"""Random logs for the tests of histories, and their columns compared with a loop's."""

import numpy as np
import pandas as pd
from hypothesis import settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from sk_pwiser.history import HistoryFeatures

TASKS = ["click", "conversion"]
KEYS = ["user", "item", ("user", "item")]
LISTS = [
    {"column": "item", "n": 3},
    {"column": "item", "n": 2, "task": "click", "ages": "values"},
    {"column": "user", "key": "item", "n": 4, "task": "conversion"},
]
few = settings(max_examples=settings().max_examples // 3)
labels = st.sampled_from([0, 1, None])
# Few users, items and instants, so that ties and repeated pairs are frequent.
rows_of_log = st.fixed_dictionaries(
    {
        "user": st.sampled_from(["a", "b", None]),
        "item": st.integers(0, 2),
        "t": st.integers(0, 25),
        "y": st.tuples(labels, labels),
        # Known ones of events only count, whatever their size.
        "spend": st.sampled_from([None, 0.0, 0.25, 3.0, 1e6]),
    }
)
logs = st.lists(rows_of_log, min_size=1, max_size=25)
settings_of_history = st.fixed_dictionaries(
    {
        "keys": st.just(KEYS),
        "lists": st.just(LISTS),
        "label_delay": st.sampled_from([0, 1, 7, {"conversion": 3, "click": 0}]),
        "state_delay": st.sampled_from([0, 2, 5]),
        "windows": st.sampled_from([[], [4], [3, 10]]),
        "half_lives": st.sampled_from([[], [2], [0.3, 8]]),
        "max_age": st.sampled_from([None, 2, 6]),
        "values": st.just({"spend": "conversion"}),
        "smoothing": st.sampled_from([2.0, 0.1]),
    }
)


def table(rows):
    X = pd.DataFrame({name: [r[name] for r in rows] for name in ("user", "item", "t")})
    Y = pd.DataFrame([r["y"] for r in rows], columns=TASKS, dtype=float)
    if rows and "spend" in rows[0]:
        # An amount without its event would be a warning.
        spend = [r["spend"] if r["y"][1] == 1 else None for r in rows]
        Y["spend"] = np.array(spend, dtype=float)
    return X, Y


def make(params):
    return HistoryFeatures(time="t", passthrough=False, **params)


def assert_equal(found, expected):
    """Compare new columns, a DataFrame or a dict of one row, with those of a loop."""
    assert set(found) == set(expected)
    for name, values in expected.items():
        own = found[name]
        if isinstance(values[0], list):
            assert [list(each) for each in own] == values, name
        else:
            expected_values = np.array(values, dtype=float)
            assert_allclose(own, expected_values, rtol=1e-6, atol=1e-6, err_msg=name)

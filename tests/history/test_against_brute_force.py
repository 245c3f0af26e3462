"""All columns against a loop over the rows, and the calls against each other."""

from unittest import mock

import numpy as np
import pandas as pd
import pytest
from history_by_loops import features_of, replayed
from history_logs import (
    TASKS,
    assert_equal,
    few,
    logs,
    make,
    settings_of_history,
    table,
)
from hypothesis import given
from hypothesis import strategies as st
from impressions_over_time import make_history, make_log
from numpy.testing import assert_allclose

from sk_pwiser.history import HistoryFeatures, _key_log

# Drawn windows may be too short for labels, and few amounts lie far apart.
pytestmark = [
    pytest.mark.filterwarnings("ignore:No event is known in the windows"),
    pytest.mark.filterwarnings("ignore:Column 'spend' of y contains the amount"),
]


@few
@given(rows=logs, params=settings_of_history)
def test_fit_transform(rows, params):
    found = make(params).fit_transform(*table(rows))
    assert_equal(found, replayed(rows, params, TASKS))


@few
@given(
    rows=logs, params=settings_of_history, cuts=st.lists(st.integers(1, 25), max_size=4)
)
def test_updates_of_any_periods_equal_one_log(rows, params, cuts):
    """Each period is replayed and appended, then later rows are transformed."""
    first, *cuts = sorted({0, *cuts})
    history, seen = None, []
    for start, end in zip([first, *cuts], [*cuts, 26], strict=True):
        period = [r for r in rows if start <= r["t"] < end]
        if not period:
            continue
        if history is None:
            found = (history := make(params)).fit_transform(*table(period))
        elif end % 2:
            found = history.replay(*table(period), update=True)
        else:
            found = history.replay(*table(period))
            history.update(*table(period))
        assert_equal(found, replayed(period, params, TASKS, seen))
        seen += period
    keys = [("a", 0), ("b", 1), ("new", 0), (None, 1)]
    later = [{"user": u, "item": i, "t": t} for u, i in keys for t in (26, 31)]
    each = [features_of(row, seen, params, TASKS) for row in later]
    expected = {name: [one[name] for one in each] for name in each[0]}
    # They are no part of the past of each other.
    assert_equal(history.transform(pd.DataFrame(later)), expected)
    found = pd.DataFrame(map(history.transform_row, later))
    assert_equal(found, expected)


@pytest.mark.parametrize("max_age", [None, "4d"])
def test_many_parts_with_later_labels_equal_one_log(max_age):
    """The labels of a part come before the next one; few keys are in every part."""
    X, Y = make_log(1200, ctr=0.2, cvr=0.3)
    # Many users with few rows, and a few with many.
    X["user"] = np.random.default_rng(0).zipf(1.3, 1200) % 500
    params = {
        "keys": ["user", ("user", "item")],
        "label_delay": {"click": "12h", "conversion": "1d"},
        "windows": ["2d"],
        "lists": [{"column": "item", "n": 5, "task": "click"}],
        "max_age": max_age,
    }
    whole = make_history(**params)
    expected = whole.fit_transform(X, Y)
    history = make_history(**params).fit(X[:40], Y[:40] * np.nan)
    found, n_levels = [], []
    for start in range(40, 1200, 40):
        history.complete(X[start - 40 : start], Y[start - 40 : start])
        found.append(history.replay(X[start : start + 40], update=True))
        n_levels.append(len(history._state.levels))
    assert max(n_levels) > 1
    history.complete(X[-40:], Y[-40:])
    found = pd.concat(found)
    pd.testing.assert_frame_equal(found, expected[40:], rtol=1e-5, check_dtype=False)
    later = X[::40].assign(time=X["time"].max() + pd.Timedelta("11h"))
    expected = whole.transform(later)
    found = history.transform(later)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-5, check_dtype=False)
    numbers = list(expected.select_dtypes("number"))
    rows = pd.DataFrame(map(history.transform_row, later.to_dict("records")))
    assert_allclose(rows[numbers].astype(float), expected[numbers], rtol=1e-5)


def test_an_update_costs_its_rows():
    """Logs and values are shared by successive states, and copied a few times."""
    n, size = 1000, 10
    X = pd.DataFrame({"user": [f"user {i}" for i in range(n)], "t": np.arange(n)})
    history = HistoryFeatures(["user"], time="t", half_lives=[9]).fit(X[:size])
    n_copied, known, values = 0, {}, history._state.indices["user"].all_values
    for start in range(size, n, size):
        history.update(X[start : start + size])
        state = history._state
        blocks = [log for logs in state.levels for log in logs]
        new = [block for block in blocks if id(block) not in known]
        n_copied += sum(block.n_keys for block in new)
        known = {id(block): block for block in blocks}
    # The log at most once per doubling, and no values.
    assert n_copied < n * np.log2(n / size)
    assert state.indices["user"].all_values is values


@pytest.mark.parametrize("function", ["find_keys", "combine", "replace_keys"])
@pytest.mark.parametrize("method", ["update", "replay"])
def test_an_interrupted_update_changes_nothing(function, method):
    X, Y = make_log(400, ctr=0.3, cvr=0.3)
    history = make_history().fit(X[:300], Y[:300])
    later = X[-5:].assign(time=X["time"].max() + pd.Timedelta("1h"), user=-1)
    expected, row = history.transform(later), later.to_dict("records")[0]
    one = history.transform_row(row)
    update = history.update
    if method == "replay":
        update = lambda X, Y: history.replay(X, Y, update=True)  # noqa: E731
    with (
        mock.patch.object(_key_log, function, side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        update(X[300:], Y[300:])
    pd.testing.assert_frame_equal(history.transform(later), expected)
    np.testing.assert_equal(history.transform_row(row), one)
    update(X[300:], Y[300:])
    whole = make_history().fit(X, Y).transform(later)
    pd.testing.assert_frame_equal(history.transform(later), whole, check_dtype=False)


def test_decay_over_a_span_of_many_half_lives():
    """Weights of 2^-10^6 vanish, and neither overflow nor hide later rows."""
    rows = [
        {"user": u, "item": 0, "t": t, "y": (1, 0)}
        for t in (0, 10**6, 10**6 + 1)
        for u in ("a", "b")
    ]
    params = {"keys": ["user"], "half_lives": [1]}
    found = make(params).fit_transform(*table(rows))
    assert_equal(found, replayed(rows, params, TASKS))


def test_long_slices_of_decayed_sums():
    """A thousand rows of one key need several levels of blocks."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "user": "a",
            "item": int(i % 2),
            "t": int(t),
            "y": (int(rng.random() < 0.02), 0),
        }
        for i, t in enumerate(np.sort(rng.integers(0, 300, 1000)))
    ]
    params = {"keys": ["user", "item"], "half_lives": [7], "windows": [20]}
    found = make(params).fit_transform(*table(rows))
    some = range(0, 1000, 37)
    expected = [features_of(rows[i], rows, params, TASKS) for i in some]
    expected = {name: [each[name] for each in expected] for name in expected[0]}
    assert_equal(found.iloc[list(some)], expected)

"""All columns against a loop over the rows, and the calls against each other."""

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

# Drawn windows may be too short for labels.
pytestmark = pytest.mark.filterwarnings("ignore:No event is known in the windows")


def split(rows, t):
    """Return the rows before an instant and those from it on."""
    return [r for r in rows if r["t"] < t], [r for r in rows if r["t"] >= t]


@few
@given(rows=logs, params=settings_of_history)
def test_fit_transform(rows, params):
    found = make(params).fit_transform(*table(rows))
    assert_equal(found, replayed(rows, params, TASKS))


@few
@given(rows=logs, params=settings_of_history, t=st.integers(1, 25))
def test_replay_and_transform_of_a_later_period(rows, params, t):
    early, late = split(rows, t)
    if not early or not late:
        return
    history = make(params).fit(*table(early))
    X, Y = table(late)
    assert_equal(history.replay(X, Y), replayed(late, params, TASKS, early))
    # Without the later rows among each other; the state did not change.
    each = [features_of(row, early, params, TASKS) for row in late]
    expected = {name: [one[name] for one in each] for name in each[0]}
    assert_equal(history.transform(X), expected)
    for record, one in zip(X.to_dict("records"), each, strict=True):
        found = history.transform_row(record)
        assert_equal(
            {name: [value] for name, value in found.items()},
            {name: [value] for name, value in one.items()},
        )


@pytest.mark.slow
@few
@given(
    rows=logs, params=settings_of_history, cuts=st.lists(st.integers(1, 25), max_size=4)
)
def test_updates_of_any_periods_equal_one_log(rows, params, cuts):
    """Each period is replayed and appended, then the last rows are transformed."""
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
    later = [{"user": u, "item": i, "t": 28} for u in "ab" for i in (0, 1)]
    each = [features_of(row, seen, params, TASKS) for row in later]
    X = pd.DataFrame(later)
    expected = {name: [one[name] for one in each] for name in each[0]}
    assert_equal(history.transform(X), expected)


@few
@given(rows=logs, params=settings_of_history)
def test_transform_after_update_equals_replay_at_each_instant(rows, params):
    early, late = split(rows, 12)
    if not early or not late:
        return
    replay = make(params).fit(*table(early)).replay(*table(late))
    history = make(params).fit(*table(early))
    for t in sorted({r["t"] for r in late}):
        at_once = [i for i, r in enumerate(late) if r["t"] == t]
        period = table([late[i] for i in at_once])
        found = history.transform(period[0])
        expected = replay.iloc[at_once].reset_index(drop=True)
        # Lists without any value yet have no type.
        pd.testing.assert_frame_equal(found, expected, rtol=1e-9, check_dtype=False)
        history.update(*period)


@few
@given(rows=logs, params=settings_of_history)
def test_later_labels_and_rows_do_not_change_earlier_columns(rows, params):
    rows = sorted(rows, key=lambda r: r["t"])
    t = rows[len(rows) // 2]["t"]
    changed = [
        r if r["t"] < t else {**r, "y": tuple(None if v else 1 for v in r["y"])}
        for r in rows
    ]
    n = sum(r["t"] <= t for r in rows)
    whole = make(params).fit_transform(*table(rows))[:n]
    other = make(params).fit_transform(*table(changed))[:n]
    pd.testing.assert_frame_equal(whole, other)


@pytest.mark.parametrize("delay", [0, 5])
def test_an_instant_is_strictly_earlier(delay):
    rows = [
        {"user": "a", "item": 0, "t": t, "y": (1, 1)} for t in (0, 0, delay, delay + 1)
    ]
    params = {"keys": ["user"], "label_delay": delay}
    found = make(params).fit_transform(*table(rows))
    counts = np.expm1(found["user__log_impressions"]).round().tolist()
    assert counts == [0, 0, 0, 3] if delay == 0 else [0, 0, 2, 3]
    # A label is known after the instant t + delay, not at it.
    clicks = np.expm1(found["user__log_click"]).round().tolist()
    assert clicks == [0, 0, 0, 3] if delay == 0 else [0, 0, 0, 2]


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

"""All columns against a loop over the rows, and the calls against each other."""

import os

import numpy as np
import pandas as pd
import pytest
from history_by_loops import features_of, replayed
from hypothesis import given, settings
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
few = settings(max_examples=int(os.environ.get("SK_PWISER_EXAMPLES", "25")))
labels = st.sampled_from([0, 1, None])
# Few users, items and instants, so that ties and repeated pairs are frequent.
rows_of_log = st.fixed_dictionaries(
    {
        "user": st.sampled_from(["a", "b", None]),
        "item": st.integers(0, 2),
        "t": st.integers(0, 25),
        "y": st.tuples(labels, labels),
    }
)
logs = st.lists(rows_of_log, min_size=1, max_size=25)
settings_of_history = st.fixed_dictionaries(
    {
        "keys": st.just(KEYS),
        "lists": st.just(LISTS),
        "label_delay": st.sampled_from([0, 1, 7, [0, 3]]),
        "windows": st.sampled_from([[], [4], [3, 10]]),
        "half_lives": st.sampled_from([[], [2], [0.3, 8]]),
        "max_age": st.sampled_from([None, 2, 6]),
        "smoothing": st.sampled_from([2.0, 0.1]),
    }
)


def table(rows):
    X = pd.DataFrame({name: [r[name] for r in rows] for name in ("user", "item", "t")})
    Y = pd.DataFrame([r["y"] for r in rows], columns=TASKS, dtype=float)
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
            assert_allclose(own, expected_values, rtol=1e-9, atol=1e-12, err_msg=name)


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
            history.partial_fit(*table(period))
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
@given(rows=logs, params=settings_of_history, by=st.sampled_from(["user", "row", "t"]))
def test_merged_states_equal_one_log(rows, params, by):
    if by != "user":  # see the docstring of merge
        params = params | {"max_age": None}
    is_first = {
        "user": lambda i, r: r["user"] != "b",
        "row": lambda i, r: i % 2 == 0,
        "t": lambda i, r: r["t"] < 12,
    }[by]
    parts = [r for i, r in enumerate(rows) if is_first(i, r)], []
    parts[1].extend(r for i, r in enumerate(rows) if not is_first(i, r))
    if not all(parts):
        return
    if by == "user":
        params = params | {"keys": ["user", ("user", "item")], "lists": LISTS[:2]}
    one, other = (make(params).fit(*table(part)) for part in parts)
    before = other.transform(late := table([{**rows[0], "t": 27}])[0])
    one.merge(other)
    # Ties are in the order of the merge.
    log = sorted(parts[0] + parts[1], key=lambda r: r["t"])
    row = {**rows[0], "t": 27}
    expected = {k: [v] for k, v in features_of(row, log, params, TASKS).items()}
    assert_equal(one.transform(late), expected)
    pd.testing.assert_frame_equal(other.transform(late), before)


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


def test_late_rows_from_before_the_totals():
    """Gaps are measured between the rows and the totals, in the order of time."""
    params = {"keys": ["user"], "max_age": 60}
    log = [{"user": "a", "item": 0, "t": t, "y": (1, None)} for t in (0, 50, 100)]
    late = [{**log[0], "t": t} for t in (10, 150)]
    history = make(params).fit(*table(log))
    history.update(*table(late), overlap="merge")
    row = {**log[0], "t": 151}
    log = sorted(log + late, key=lambda r: r["t"])
    expected = features_of(row, log, params, TASKS)
    assert np.expm1(expected["user__log_impressions"]).round() == 5
    found = history.transform(table([row])[0])
    assert_equal(found, {name: [value] for name, value in expected.items()})


late_rows = st.fixed_dictionaries(
    {
        "user": st.sampled_from(["a", "b"]),
        "item": st.integers(0, 2),
        "t": st.integers(0, 60),
        "y": st.tuples(labels, labels),
    }
)


@few
@given(
    gaps=st.lists(st.tuples(st.integers(0, 6), rows_of_log), min_size=1, max_size=12),
    late=st.lists(late_rows, min_size=1, max_size=10),
    params=settings_of_history,
)
def test_late_rows_with_max_age_equal_one_log(gaps, late, params):
    """Nothing was dropped: the rows in time have no gap above `max_age`."""
    params = params | {"keys": ["user"], "lists": LISTS[:2], "max_age": 6}
    t, log = 15, []
    for gap, row in gaps:
        t += gap
        log += [{**row, "user": user, "t": t} for user in "ab"]
    history = make(params).fit(*table(log))
    late = [{**row, "t": min(row["t"], t + 10)} for row in late]
    history.update(*table(late), overlap="merge")
    # Ties are in the order of arrival.
    log = sorted(log + late, key=lambda r: r["t"])
    end = log[-1]["t"]
    rows = [{**log[0], "user": u, "t": end + k} for u in "ab" for k in (0, 1, 6)]
    each = [features_of(row, log, params, TASKS) for row in rows]
    expected = {name: [one[name] for one in each] for name in each[0]}
    assert_equal(history.transform(table(rows)[0]), expected)

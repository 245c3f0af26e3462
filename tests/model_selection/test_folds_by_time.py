"""Folds in the order of time and folds of whole groups."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import KFold, TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from small_model import small

from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.history import HistoryFeatures
from sk_pwiser.model_selection import (
    FunnelGroupKFold,
    FunnelTimeSplit,
    compare_models,
)

LOSSES = ["bce", "pwiser"]


def make_labels(n, ctr=0.02, cvr=0.05, seed=0):
    rng = np.random.default_rng(seed)
    click = rng.random(n) < ctr
    return np.column_stack([click, click & (rng.random(n) < cvr)]).astype(int), rng


@given(
    n=st.integers(30, 120),
    n_splits=st.integers(1, 5),
    gap=st.sampled_from([0, 1, 5]),
    span=st.integers(3, 60),
    seed=st.integers(0, 5),
)
def test_parts_are_periods_with_conversions(n, n_splits, gap, span, seed):
    Y, rng = make_labels(n, ctr=0.6, cvr=0.5, seed=seed)
    time = rng.integers(0, span, n)
    cv = FunnelTimeSplit(n_splits, time=time, gap=gap, min_conversions=2)
    try:
        splits = list(cv.split(np.zeros((n, 1)), Y))
    except ValueError as error:
        assert "is not possible" in str(error)  # noqa: PT017
        return
    assert len(splits) == n_splits == cv.get_n_splits()
    end = np.inf
    for train, test in splits[::-1]:
        start = time[test].min()
        # All rows from the start of the part to that of the next one.
        assert sorted(test) == np.flatnonzero((time >= start) & (time < end)).tolist()
        assert sorted(train) == np.flatnonzero(time < start - gap).tolist()
        assert Y[test, 1].sum() >= 2
        assert Y[train, 1].sum() >= 2
        assert len(test) >= n // (n_splits + 1)
        end = start
    assert time[splits[-1][1]].max() == time.max()


def test_rare_conversions_begin_a_part_earlier():
    n = 10_000
    Y, _ = make_labels(n, cvr=0.1, seed=1)
    Y[9_000:, 1] = 0
    time = np.arange(n)
    splits = list(FunnelTimeSplit(2, time=time, min_conversions=3).split(time, Y))
    assert Y[splits[1][1], 1].sum() >= 3
    assert splits[1][1].min() < 9_000
    with pytest.raises(ValueError, match="n_splits=9 with min_conversions=3"):
        FunnelTimeSplit(9, time=time, min_conversions=3).split(time, Y)


@pytest.mark.parametrize("library", ["pandas", "polars", "arrow"])
def test_times_are_a_column_of_any_table(library):
    Y, rng = make_labels(200, ctr=0.5, cvr=0.5)
    hours = rng.permutation(200)
    X = pd.DataFrame({"when": pd.Timestamp("2026-01-01") + pd.to_timedelta(hours, "h")})
    table = {
        "pandas": X,
        "polars": pl.from_pandas(X),
        "arrow": pl.from_pandas(X).to_arrow(),
    }[library]
    expected = list(FunnelTimeSplit(3, time=hours, gap=2).split(X, Y))
    for time in ("when", table["when"]):
        found = list(FunnelTimeSplit(3, time=time, gap="2h").split(table, Y))
        for own, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(own[0], other[0])
            np.testing.assert_array_equal(own[1], other[1])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_splits": 0}, "n_splits must be an integer >= 1; got 0"),
        ({"n_splits": 2.0}, "n_splits must be an integer >= 1; got 2.0"),
        ({"min_conversions": -1}, "min_conversions must be an integer >= 0"),
        ({"gap": -1}, "gap must be finite and >= 0"),
        ({"gap": "1d"}, "gap must be a number, in the unit of the times"),
        ({"time": [1.0, np.nan] * 10}, "'time' must hold a time in every row"),
        ({"time": np.arange(3)}, "time has 3 rows, y has 20"),
        ({"time": "when"}, "time is 'when', which is not a column of X"),
    ],
)
def test_bad_parameters(params, message):
    Y, _ = make_labels(20, ctr=0.5, cvr=0.5)
    X = pd.DataFrame({"a": np.arange(20)})
    with pytest.raises((ValueError, TypeError), match=message):
        FunnelTimeSplit(**({"time": np.arange(20)} | params)).split(X, Y)


def test_times_and_groups_in_another_order_than_the_rows_are_refused():
    Y, _ = make_labels(20, ctr=0.5, cvr=0.5)
    X, values = pd.DataFrame({"a": np.arange(20)}), pd.Series(np.arange(20))
    message = "X and {} have the same index labels in different orders: row 0 is 0"
    with pytest.raises(ValueError, match=message.format("time")):
        FunnelTimeSplit(2, time=values[::-1]).split(X, Y)
    with pytest.raises(ValueError, match=message.format("groups")):
        FunnelGroupKFold(2).split(X, Y, values[::-1])


def test_siblings_whose_label_is_missing_do_not_hide_conversions():
    Y = np.zeros((9, 3))
    Y[[2, 5, 8]] = [1, np.nan, 1]
    cv = FunnelTimeSplit(2, time=np.arange(9), task_parents=None)
    parts = [(train.tolist(), test.tolist()) for train, test in cv.split(Y, Y)]
    assert parts == [([0, 1, 2], [3, 4, 5]), ([0, 1, 2, 3, 4, 5], [6, 7, 8])]


def test_groups_stay_whole_and_depths_are_balanced():
    n = 20_000
    Y, rng = make_labels(n, ctr=0.1, cvr=0.1)
    groups = np.array([f"user {i}" for i in rng.integers(0, 2000, n)])
    cv = FunnelGroupKFold(4, random_state=0)
    tested = []
    for train, test in cv.split(np.zeros(n), Y, groups):
        assert not set(groups[train]) & set(groups[test])
        tested += test.tolist()
        assert Y[test].sum(axis=0) == pytest.approx(Y.sum(axis=0) / 4, rel=0.1)
    assert sorted(tested) == list(range(n))
    again = list(FunnelGroupKFold(4, random_state=0).split(np.zeros(n), Y, groups))
    np.testing.assert_array_equal(again[-1][1], test)


def test_groups_are_checked():
    Y, _ = make_labels(20, ctr=0.5, cvr=0.5)
    cv = FunnelGroupKFold(3)
    with pytest.raises(ValueError, match="groups must be one group per row; got None"):
        cv.split(np.zeros(20), Y, None)
    with pytest.raises(ValueError, match=r"groups must not be missing; 20 .* row 0"):
        cv.split(np.zeros(20), Y, np.array([None] * 20, dtype=object))
    users = pd.Series(["a", "b", pd.NA, "d"] * 5, dtype="string")
    with pytest.raises(ValueError, match=r"groups must not be missing; 5 .* row 2"):
        cv.split(np.zeros(20), Y, users)
    with pytest.raises(ValueError, match="must be at most the 2 groups"):
        cv.split(np.zeros(20), Y, np.arange(20) % 2)
    rare = np.zeros((20, 2), dtype=int)
    rare[:2] = 1
    rare[2:8, 0] = 1
    with pytest.warns(UserWarning, match=r"depth 2 \(2 rows\): too few"):
        list(cv.split(np.zeros(20), rare, np.arange(20)))


TIMED = {"encoding_params": {"time_column": "time"}, "target_encoding": False}


def make_timed(n=240):
    Y, rng = make_labels(n, ctr=0.5, cvr=0.5)
    users = [f"user {u}" for u in rng.integers(0, 40, n)]
    X = pd.DataFrame({"user": users, "x": rng.normal(size=n), "time": np.arange(n)})
    return X, Y


@pytest.mark.slow
@pytest.mark.parametrize("where", ["time_column", "pipeline", "columns", "calibrator"])
def test_random_folds_of_rows_with_times_give_one_warning(where):
    X, Y = make_timed()
    model = small(max_epochs=1)
    history = HistoryFeatures(["user"], time="time")
    name = "..." if where == "columns" else "time"
    if where in ("time_column", "calibrator"):
        model.set_params(**TIMED)
    elif where == "pipeline":
        # The tests of random folds are from before the end of the state.
        model = make_pipeline(history, model)
    else:
        X = history.fit_transform(X, Y)

    def run(cv, groups=None):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if where == "calibrator":
                FunnelCalibrator(model, cv=cv).fit(X, Y)
            else:
                compare_models(
                    X, Y, models=LOSSES, estimator=model, cv=cv, groups=groups
                )
        messages = [str(each.message) for each in caught]
        return [m for m in messages if f"cv=FunnelTimeSplit(time='{name}')" in m]

    assert len(run(2)) == 1
    assert len(run(KFold(2, shuffle=True, random_state=0))) == 1
    assert run(FunnelTimeSplit(2, time=np.arange(len(X)))) == []
    assert run(TimeSeriesSplit(2)) == []
    if where != "calibrator":
        users = X["user"].to_numpy()
        assert run(FunnelGroupKFold(2, random_state=0), users) == []


def test_default_calls_of_comparisons_do_not_warn():
    X, Y = make_timed()
    # The last rows come first: fits take no number for the time.
    X = X[::-1]
    Y = Y[::-1]
    compare_models(X, Y, models=LOSSES, estimator=small(max_epochs=1), cv=2)
    compare_models(X, Y, models={"a": small(max_epochs=1), "b": small(lr=0.01)}, cv=2)
    splits = [(np.arange(100, 200), np.arange(100)), (np.arange(100), np.arange(9))]
    features = HistoryFeatures(["user"], time="time").fit_transform(X, Y)
    compare_models(features, Y, models=LOSSES, estimator=small(max_epochs=1), cv=splits)

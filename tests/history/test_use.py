"""Leaks, pipelines, containers and second calls."""

import pickle
from datetime import timedelta
from fractions import Fraction

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from impressions_over_time import make_history as make
from impressions_over_time import make_log
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.export import TRUSTED_TYPES
from sk_pwiser.history import HistoryFeatures, StoredHistory


def parts(X, Y, n):
    return X[:n], Y[:n], X[n:], Y[n:]


@pytest.mark.parametrize(("ctr", "state_delay"), [(0.5, 0), (0.02, "2h")])
def test_random_labels_are_not_predicted(ctr, state_delay):
    """A model that fits them in training ranks later rows by chance."""
    X, Y = make_log(20_000, ctr=ctr, cvr=0.5, seed=3)
    early, y_early, late, y_late = parts(X, Y, 12_000)
    history = make(lists=(), passthrough=False, state_delay=state_delay)
    train = history.fit_transform(early, y_early)
    test = history.replay(late, y_late)
    for k in range(2):
        model = HistGradientBoostingClassifier(max_iter=20, random_state=0)
        model.fit(train, y_early.iloc[:, k])
        score = model.predict_proba(test)[:, 1]
        positives = int(y_late.iloc[:, k].sum())
        # Four standard errors of the AUC of a constant score.
        tolerance = 4 * np.sqrt(1 / (12 * positives) + 1 / (12 * len(late)))
        assert abs(roc_auc_score(y_late.iloc[:, k], score) - 0.5) < tolerance


def test_a_leak_would_be_found():
    """The same check on the state at the end, which holds the rows' own labels."""
    X, Y = make_log(20_000, ctr=0.02, cvr=0.5, seed=3)
    history = make(lists=(), passthrough=False).fit(X, Y)
    with pytest.warns(UserWarning, match="rows are from before the end of the state"):
        found = history.transform(X)
    assert roc_auc_score(Y["click"], found["user_x_item__click_logit"]) > 0.7


@pytest.mark.parametrize("library", ["polars", "lazy", "arrow"])
def test_equal_values_in_every_table(library):
    X, Y = make_log(500, ctr=0.2)
    X.loc[::7, "user"] = -1
    X = X.astype({"user": "Int64"})
    X.loc[X["user"] == -1, "user"] = pd.NA
    table, labels = {
        "polars": (pl.from_pandas(X), pl.from_pandas(Y)),
        "lazy": (pl.from_pandas(X).lazy(), pl.from_pandas(Y).lazy()),
        "arrow": (pa.Table.from_pandas(X), pa.Table.from_pandas(Y)),
    }[library]
    params = {"lists": [{"column": "item", "task": "click", "n": 4}]}
    history, same = make(**params), make(**params)
    found, expected = history.fit_transform(table, labels), same.fit_transform(X, Y)
    assert type(found) is (pl.DataFrame if library == "lazy" else type(table))
    found = found.to_pandas()
    assert list(found) == list(expected)
    name = "user__last_item_click"
    assert [list(v) for v in found.pop(name)] == expected.pop(name).tolist()
    new = expected.columns[2:]
    pd.testing.assert_frame_equal(found[new], expected[new])
    late = X[-5:].assign(time=X["time"].max() + pd.Timedelta("2h"))
    for row in late.to_dict("records"):
        np.testing.assert_equal(history.transform_row(row), same.transform_row(row))


@pytest.mark.parametrize(
    "form",
    ["ns", "us", "s", "UTC", "date", "date32", "date64", "number", "exact", "python"],
)
def test_times_of_every_form_give_the_same_order_and_ages(form):
    days = np.array([3, 1, 1, 9])
    dates = np.datetime64("2026-01-01") + days
    times = {
        "ns": dates.astype("M8[ns]"),
        "us": dates.astype("M8[us]"),
        "s": pl.Series(dates.astype("M8[ms]")),
        "UTC": pd.Series(pd.to_datetime(dates)).dt.tz_localize("Europe/Berlin"),
        "date": pl.Series(dates),
        "date32": pd.Series(dates, dtype=pd.ArrowDtype(pa.date32())),
        "date64": pd.Series(dates, dtype=pd.ArrowDtype(pa.date64())),
        "number": days * 86_400.0,
        # No dtype of numpy but that of objects holds them.
        "exact": np.array([Fraction(int(d) * 86_400) for d in days], dtype=object),
        "python": np.array([d.item() for d in dates.astype("M8[us]")], dtype=object),
    }[form]
    library = pl if isinstance(times, pl.Series) else pd
    table = library.DataFrame({"user": ["a"] * 4, "time": times})
    history = HistoryFeatures(["user"], time="time", passthrough=False)
    ages = history.fit_transform(table)["user__since_impression"]
    assert_allclose(ages, np.array([2, np.nan, np.nan, 6]) * 86_400)
    day = 86_400 if form in ("number", "exact") else timedelta(days=1)
    value = times[3] + (np.timedelta64(day) if form in ("ns", "us") else day)
    row = history.transform_row({"user": "a", "time": value})
    assert row["user__since_impression"] == 86_400


@pytest.mark.parametrize("in_store", [False, True])
def test_rows_are_those_of_a_table_to_the_bit(in_store):
    """Trees split between numbers that differ by a rounding error."""
    X, Y = make_log(2_000, ctr=0.2, cvr=0.05)
    params = {"windows": ["1d", "30d"], "half_lives": ["1h", "6h"]}
    params["lists"] = [{"column": "item", "n": 5, "ages": "values"}]
    history = make(**params, passthrough=False).fit(X, Y)
    server = StoredHistory.write(history, {}) if in_store else history
    rng = np.random.default_rng(1)
    # Old enough for logits near 0, and for ages that floats do not hold exactly.
    age = (150 * 86_400 * 10**9 * rng.random(600) ** 3).astype("m8[ns]")
    late = X[-600:].assign(time=X["time"].max() + np.sort(age))
    found = pd.DataFrame([server.transform_row(r) for r in late.to_dict("records")])
    expected = history.transform(late)
    for name in expected:
        own, other = found[name].tolist(), expected[name].tolist()
        if name.startswith("user__last"):
            own, other = ([list(each) for each in lists] for lists in (own, other))
        np.testing.assert_equal(own, other, err_msg=name)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.int16, np.float32])
def test_a_single_time_of_any_dtype_is_an_exact_number(dtype):
    times = np.arange(50, dtype=dtype)
    X = pd.DataFrame({"user": ["a", "b"] * 25, "time": times})
    history = HistoryFeatures(["user"], time="time", half_lives=[3.0], windows=[5])
    history.fit(X, times % 3 == 0)
    row = {"user": "a", "time": dtype(60)}
    expected = history.transform_row(row | {"time": 60})
    np.testing.assert_equal(history.transform_row(row), expected)


def test_in_a_pipeline():
    X, Y = make_log(3000, ctr=0.3, cvr=0.3, signal=1.5)
    model = make_pipeline(
        make(),
        FunctionTransformer(lambda X: X.astype({"user": "category"})),
        MultiTaskCTRCVRClassifier(
            loss="bce", early_stopping=False, max_epochs=2, random_state=0
        ),
    )
    early, y_early, late, _ = parts(X, Y, 2000)
    model.fit(early, y_early)
    history, network = model[0], model[1:]
    # The pipeline trains on what was known, and predicts from the state at the end.
    expected = network.predict_proba(make().fit(early, y_early).transform(late))
    np.testing.assert_array_equal(model.predict_proba(late), expected)
    by_hand = clone(network).fit(make().fit_transform(early, y_early), y_early)
    np.testing.assert_array_equal(
        by_hand.predict_proba(history.transform(late)), expected
    )
    one = pd.DataFrame([history.transform_row(late.iloc[-1].to_dict())])
    one["user__last"] = None
    row = network.predict_proba(one.drop(columns="user__last"))
    assert_allclose(row, expected[-1:], rtol=1e-5)


def test_a_pipeline_is_in_the_files_of_skops():
    io = pytest.importorskip("skops.io")
    X, Y = make_log(300, ctr=0.3, cvr=0.3)
    model = MultiTaskCTRCVRClassifier(
        loss="bce", early_stopping=False, max_epochs=1, random_state=0
    )
    history = make(lists=make().lists[1:])
    pipeline = make_pipeline(history, model).fit(X, Y)
    late = X[-5:].assign(time=X["time"].max() + pd.Timedelta(days=1))
    row = late.to_dict("records")[0]
    expected = pipeline[0].transform_row(row)
    again = io.loads(io.dumps(pipeline), trusted=TRUSTED_TYPES)
    np.testing.assert_array_equal(
        again.predict_proba(late), pipeline.predict_proba(late)
    )
    np.testing.assert_equal(again[0].transform_row(row), expected)


def test_names_clone_set_output_and_pickle():
    X, Y = make_log(300, ctr=0.3)
    history = make()
    assert clone(history).get_params() == history.get_params()
    found = history.fit_transform(X, Y)
    assert list(found) == list(history.get_feature_names_out())
    assert list(history.feature_names_in_) == list(X)
    assert "time" not in found
    assert history.task_names_ == ["click", "conversion"]
    assert history.end_ == X["time"].max()
    late = X[-5:].assign(time=X["time"].max() + pd.Timedelta(days=1))
    expected = history.transform(late)
    copied = pickle.loads(pickle.dumps(history))
    pd.testing.assert_frame_equal(copied.transform(late), expected)
    assert not hasattr(clone(history), "feature_names_in_")
    polars = history.set_output(transform="polars").transform(late)
    assert isinstance(polars, pl.DataFrame)
    assert polars.columns == list(expected)
    replayed = history.set_output(transform="pandas").replay(pl.from_pandas(late))
    assert isinstance(replayed, pd.DataFrame)
    # Tables without columns of their own.
    bare = make(passthrough=False).set_output(transform="pandas")
    names = list(bare.fit_transform(pl.from_pandas(X), Y))
    assert names == list(bare.get_feature_names_out())
    assert len(bare.transform(pl.from_pandas(late))) == 5


def test_without_labels_there_are_impressions_only():
    X, _ = make_log(50)
    names = HistoryFeatures(["user"], time="time").fit(X).get_feature_names_out()
    assert names.tolist() == [
        "user",
        "item",
        "user__since_impression",
        "user__log_impressions",
    ]


def test_a_refit_forgets_and_a_refused_call_changes_nothing():
    X, Y = make_log(300, ctr=0.3)
    history = make().fit(X, Y)
    late = X[-5:].assign(time=X["time"].max() + pd.Timedelta(days=1))
    expected = history.transform(late)
    bad = [
        lambda: history.fit(X.drop(columns="item"), Y),
        lambda: history.update(X, Y),
        lambda: history.update(late, Y[:5].assign(click=2)),
        lambda: history.update(late, Y[:4]),
        lambda: history.update(late.assign(time=pd.NaT), Y[:5]),
        lambda: history.replay(X, Y),
    ]
    for call in bad:
        with pytest.raises((ValueError, TypeError)):
            call()
        pd.testing.assert_frame_equal(history.transform(late), expected)
    history.fit(X[:50], Y[:50])
    pd.testing.assert_frame_equal(
        history.transform(late), make().fit(X[:50], Y[:50]).transform(late)
    )


def test_parameters_that_are_set_later_wait_for_a_fit(tmp_path):
    X, Y = make_log(300, ctr=0.3)
    late = X[-5:].assign(time=X["time"].max() + pd.Timedelta(days=1))
    history = make().fit(X, Y)
    expected = history.transform(late)
    row = history.transform_row(late.to_dict("records")[0])
    history.set_params(windows=["9d"], half_lives=[], time="when", passthrough=False)
    pd.testing.assert_frame_equal(history.transform(late), expected)
    assert history.transform_row(late.to_dict("records")[0]).keys() == row.keys()
    history.save(tmp_path / "history")
    loaded = HistoryFeatures.load(tmp_path / "history")
    pd.testing.assert_frame_equal(loaded.transform(late), expected)
    assert loaded.get_params() == make().get_params()
    history.update(late, Y[:5])
    with pytest.raises(ValueError, match="'when' is not a column"):
        history.fit(X, Y)


def test_a_period_without_rows_changes_nothing():
    X, Y = make_log(300, ctr=0.3)
    late = X[-5:].assign(time=X["time"].max() + pd.Timedelta(days=1))
    history = make().fit(X, Y)
    expected = history.transform(late)
    for none in (Y[:0], Y[:0].to_numpy(), None):
        assert history.replay(X[:0], none, update=True).shape == (0, expected.shape[1])
        history.update(X[:0], none)
        pd.testing.assert_frame_equal(history.transform(late), expected)


def test_late_rows_are_refused_or_merged():
    X, Y = make_log(400, ctr=0.3)
    is_late = np.arange(400) % 5 == 0
    late = X[-5:].assign(time=X["time"].max() + pd.Timedelta(days=2))
    history = make(lists=()).fit(X[~is_late], Y[~is_late])
    with pytest.raises(ValueError, match=r"Column 'time': \d+ rows are from before"):
        history.update(X[is_late], Y[is_late])
    bounded = make(lists=(), max_age="9d").fit(X[~is_late], Y[~is_late])
    with pytest.raises(ValueError, match="With max_age, a history takes no late rows"):
        bounded.update(X[is_late], Y[is_late], overlap="merge")
    history.update(X[is_late], Y[is_late], overlap="merge")
    expected = make(lists=()).fit(X, Y).transform(late)
    pd.testing.assert_frame_equal(history.transform(late), expected)


def test_the_state_is_bounded():
    X, Y = make_log(4000, ctr=0.1)
    X = X.assign(user=np.random.default_rng(0).permutation(4000) // 2)
    recent = make(max_age="6h").fit(X, Y)
    assert (
        recent._state.logs[0].n_keys
        == X["user"][X["time"] >= X["time"].max() - pd.Timedelta("6h")].nunique()
    )
    # Without windows and delays, no row is kept with its time but those of the end.
    small = HistoryFeatures(["user"], time="time").fit(X, Y)
    assert len(small._state.logs[0].rows.time) == (X["time"] == X["time"].max()).sum()


def test_calls_before_fit():
    history = make()
    X, Y = make_log(20)
    for call in (
        lambda: history.transform(X),
        lambda: history.update(X, Y),
        lambda: history.replay(X, Y),
        lambda: history.transform_row({}),
        lambda: history.get_feature_names_out(),
        lambda: history.save("file"),
        lambda: history.complete(X, Y),
    ):
        with pytest.raises(NotFittedError, match="is not fitted yet"):
            call()

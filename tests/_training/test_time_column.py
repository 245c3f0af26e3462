"""A `time_column` orders the rows of a fit, and is a feature only if asked."""

import re

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.pipeline import make_pipeline
from small_model import small

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import ParquetImpressions, make_ctr_cvr
from sk_pwiser.export import Scorer, to_onnx
from sk_pwiser.history import HistoryFeatures
from sk_pwiser.inspection import task_importances
from sk_pwiser.transfer import fine_tune

N = 1_200
TIMED = {"encoding_params": {"time_column": "ts"}, "early_stopping": True}


def log(kind="dates", n=N):
    """Return rows in random order of their times, which stand in their midst."""
    data = make_ctr_cvr(n, ctr=0.3, random_state=0)
    minutes = np.random.default_rng(0).permutation(n)
    times = minutes.astype(float)
    if kind == "dates":
        times = pd.Timestamp("2026-01-01") + pd.to_timedelta(minutes, unit="min")
    X = data.data.copy()
    X.insert(3, "ts", times)
    return X, data.target


def timed(**params):
    return small(max_epochs=2, **{**TIMED, **params})


@pytest.fixture(scope="module")
def fitted():
    X, Y = log()
    return timed().fit(X, Y)


def test_the_times_order_the_rows_and_are_no_input(fitted):
    X, Y = log()
    assert list(fitted.feature_names_in_) == list(X)
    assert fitted.n_features_in_ == X.shape[1]
    assert "ts" not in fitted.encode(X).numeric_names
    numbers = timed().fit(log("numbers")[0], Y)
    assert_array_equal(numbers.predict_proba(X), fitted.predict_proba(X))
    # The same rows are held out, and the same blocks made, as of rows in their order.
    order = np.argsort(X["ts"], kind="stable")
    ordered = timed().fit(X.iloc[order], Y.iloc[order])
    counts = [m._result.schema.base_rates for m in (fitted, ordered)]
    assert_array_equal(*counts)


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_tables_with_and_without_the_times_predict_the_same(fitted, library):
    X, _ = log()
    if library != "pandas":
        pytest.importorskip("polars")
        pytest.importorskip("pyarrow")
    convert = {
        "pandas": lambda X: X,
        "polars": lambda X: __import__("polars").from_pandas(X),
        "pyarrow": lambda X: __import__("pyarrow").Table.from_pandas(X),
    }[library]
    expected = fitted.predict_proba(X)
    without = X.drop(columns="ts")
    for table in (X, without, without[without.columns[::-1]], X.assign(ts=pd.NaT)):
        assert_array_equal(fitted.predict_proba(convert(table)), expected)
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict_proba(convert(without.iloc[:, 1:]))


def test_an_array_keeps_the_column_of_the_times():
    X, Y = log("numbers")
    X = X.select_dtypes("number")
    place = list(X).index("ts")
    model = timed(encoding_params={"time_column": place}).fit(X.to_numpy(), Y)
    p = model.predict_proba(X.to_numpy())
    assert_array_equal(p, model.predict_proba(X.assign(ts=1e9).to_numpy()))
    with pytest.raises(ValueError, match="features"):
        model.predict_proba(X.drop(columns="ts").to_numpy())


def test_the_times_are_a_feature_if_asked():
    X, Y = log("numbers")
    params = {"time_column": "ts", "time_feature": True}
    model = timed(encoding_params=params).fit(X, Y)
    assert "ts" in model.encode(X).numeric_names
    assert (model.predict_proba(X) != model.predict_proba(X.assign(ts=0.0))).any()
    with pytest.raises(ValueError, match="feature"):
        model.predict_proba(X.drop(columns="ts"))
    with pytest.raises(TypeError, match=r"time_feature must be True or.*'yes'"):
        timed(encoding_params={**params, "time_feature": "yes"}).fit(X, Y)


def test_a_fit_continues_only_with_the_same_columns(fitted):
    X, Y = log("numbers")
    model = small(max_epochs=1, warm_start=True).fit(X, Y)
    before = model.predict_proba(X)
    with pytest.raises(ValueError, match="time_column='ts' was a feature in the ear"):
        model.set_params(**TIMED).fit(X, Y)
    assert_array_equal(model.predict_proba(X), before)
    warm = timed(warm_start=True).fit(X, Y)
    epochs = warm.n_iter_
    assert warm.fit(X, Y).n_iter_ > epochs
    with pytest.raises(ValueError, match="time_column is 'ts', which is not a column"):
        warm.fit(X.drop(columns="ts"), Y)


def test_updates_need_no_times():
    X, Y = log()
    with_times, without = (
        small(**{**TIMED, "early_stopping": False}).partial_fit(X[:900], Y[:900])
        for _ in range(2)
    )
    with_times.partial_fit(X[900:], Y[900:])
    without.partial_fit(X[900:].drop(columns="ts"), Y[900:])
    # Time passes by rows for the level, which here passes as fast.
    found = without.predict_proba(X)
    assert_allclose(found, with_times.predict_proba(X), rtol=0.02)


def test_validation_rows_need_no_times():
    X, Y = log()
    found = [
        timed().fit(X[:900], Y[:900], X_val=table[900:], Y_val=Y[900:])
        for table in (X, X.drop(columns="ts"))
    ]
    assert_array_equal(*(model.predict_proba(X) for model in found))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"ts": np.nan}, ValueError, "'ts' must hold a time in every row; 1200 are"),
        ({"ts": "1 May"}, TypeError, "'ts' must hold times .*it holds"),
    ],
)
def test_times_that_cannot_order_are_named(change, error, message):
    X, Y = log("numbers")
    with pytest.raises(error, match=message):
        timed().fit(X.assign(**change), Y)


@pytest.mark.parametrize("name", ["tss", ["ts"]])
def test_an_unknown_column_is_named_before_dates_are_refused_as_features(name):
    X, Y = log()
    message = f"time_column is {re.escape(repr(name))}, which is not a column of X.*"
    message += r"Did you mean 'ts'\?" if name == "tss" else ""
    with pytest.raises(ValueError, match=message):
        timed(encoding_params={"time_column": name}).fit(X, Y)


def test_a_category_of_times_is_asked_for():
    X, Y = log("numbers")
    X["ts"] //= 100
    params = {"time_column": "ts"}
    model = timed(categorical_features=["ts"], encoding_params=params)
    with pytest.raises(ValueError, match="_features contains 'ts', which is the time_"):
        model.fit(X, Y)
    model.set_params(encoding_params__time_feature=True).fit(X, Y)
    assert "ts" in model.encode(X).category_names
    # Chosen by its dtype alone, it is none.
    model = timed(encoding_params=params).fit(X.astype({"ts": "category"}), Y)
    assert "ts" not in model.encode(X).category_names


def test_a_factor_of_columns_needs_another_one():
    X, Y = log()
    params = {"network_params": {"domain_features": ["ts"]}}
    with pytest.raises(ValueError, match="'ts', which is the time_column"):
        timed(**params).fit(X, Y)


def test_scorers_do_not_read_the_times(fitted):
    X, _ = log()
    expected = fitted.predict_proba(X[:5])
    scorer = Scorer(fitted, runtime="torch")
    assert "ts" not in scorer.field_names
    rows = X[:5].to_dict("records")
    assert_allclose(scorer(rows), expected, rtol=1e-5)
    for row in rows:
        del row["ts"]
    assert_allclose(scorer(rows), expected, rtol=1e-5)


@pytest.mark.slow
def test_exported_graphs_have_no_input_for_the_times(fitted, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    X, _ = log()
    expected = fitted.predict_proba(X[:5])
    to_onnx(fitted, tmp_path / "model.onnx", inputs="raw")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    names = [each.name for each in session.get_inputs()]
    assert sorted(names) == sorted(set(X) - {"ts"})
    feed = {name: X[[name]][:5].to_numpy(dtype=float) for name in names}
    assert_allclose(session.run(["probabilities"], feed)[0], expected, rtol=1e-4)


def test_files_hold_the_role_of_the_column(fitted, tmp_path):
    X, _ = log()
    fitted.save(tmp_path / "model")
    loaded = MultiTaskCTRCVRClassifier.load(tmp_path / "model")
    table = X.drop(columns="ts")
    assert_array_equal(loaded.predict_proba(table), fitted.predict_proba(X))


@pytest.mark.parametrize("has_times", [True, False])
def test_parquet_files_without_times_predict(tmp_path, has_times):
    pytest.importorskip("pyarrow")
    X, Y = log()
    for name, rows in (("train", slice(0, 900)), ("later", slice(900, N))):
        (tmp_path / name).mkdir()
        table = X if name == "train" or has_times else X.drop(columns="ts")
        table[rows].join(Y[rows]).to_parquet(tmp_path / name / "rows.parquet")
    train = ParquetImpressions(tmp_path / "train", list(X), list(Y))
    features = [name for name in X if has_times or name != "ts"]
    later = ParquetImpressions(tmp_path / "later", features, list(Y))
    model = timed().fit(train, eval_set=later)
    assert np.isfinite(model.history_[-1, "valid_loss"])
    assert "ts" not in model.encode(X).numeric_names
    assert_array_equal(model.predict_proba(later), model.predict_proba(X[900:]))


def test_importances_and_transfer_take_tables_without_times(fitted):
    X, Y = log()
    table = X.drop(columns="ts")
    found = task_importances(fitted, X[:200], Y[:200], n_repeats=1, random_state=0)
    assert sorted(found.column_names) == sorted(name for name in X if name != "ts")
    tuned = fine_tune(fitted, X, Y, max_epochs=1)
    assert_array_equal(tuned.predict_proba(X), tuned.predict_proba(table))


@pytest.mark.filterwarnings("ignore:Task 'conversion' has a label")
@pytest.mark.parametrize("space", ["entire", "conditional"])
def test_conversions_of_the_last_clicks_that_are_not_known_yet(space):
    X, Y = log("numbers", n=6_000)
    late = X["ts"] > X["ts"].quantile(0.85)
    recent = late & (Y["click"] == 1)
    known = Y.astype(float).assign(conversion=Y["conversion"].where(~recent))
    model = timed(missing_labels="ignore", network_params={"task_space": space})
    with pytest.warns(UserWarning, match=r"before happened, has a label of \['convers"):
        model.fit(X, known)
    # The zeros of rows without a click say nothing of the level of conversions.
    assert abs(model.net_.module_.level_offset[1]) < 1e-6
    known["conversion"] = Y["conversion"].where(~recent | (np.arange(6_000) % 2 == 0))
    rate = model.fit(X, known).predict_proba(X[late])[:, 1].mean()
    assert 0.7 < rate / Y["conversion"][late].mean() < 1.4


def test_histories_and_the_model_share_the_times():
    X, Y = log()
    order = np.argsort(X["ts"], kind="stable")
    X, Y = X.iloc[order].assign(now=X["ts"]), Y.iloc[order]
    history = HistoryFeatures(["category_0"], time="now")
    pipeline = make_pipeline(history, timed()).fit(X, Y)
    later = X[-5:].assign(now=X["now"].max() + pd.Timedelta("1h"))
    p = pipeline.predict_proba(later)
    row = pipeline[0].transform_row(later.iloc[-1].to_dict())
    del row["ts"]
    assert_allclose(Scorer(pipeline[-1], runtime="torch")(row), p[-1:], rtol=1e-5)


@pytest.mark.parametrize(
    ("first", "then", "reason"),
    [
        ({"early_stopping": False}, {}, "it held out no rows"),
        ({"encoding_params": {}}, {}, "it held out random rows"),
        ({}, {"encoding_params": {}}, "it held out its last rows in time"),
        ({}, {"validation_fraction": 0.4}, "its validation_fraction was 0.1"),
    ],
)
def test_validation_rows_that_were_trained_on_are_named(first, then, reason):
    X, Y = log("numbers")
    # The times are an input of all fits, so that training can continue.
    timed_input = {"time_column": "ts", "time_feature": True}
    params = {"encoding_params": timed_input, "warm_start": True}
    model = timed(**params).set_params(**first).fit(X, Y)
    later = {"encoding_params": timed_input, "early_stopping": True, **then}
    with pytest.warns(UserWarning, match=f"earlier fit was trained on, since {reason}"):
        model.set_params(**later).fit(X, Y)
    if reason != "it held out random rows":
        model.fit(X, Y)  # holds out the same rows

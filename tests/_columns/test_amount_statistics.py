"""Mean amounts per value of a column against loops, and in every way to predict."""

import json

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from rows_with_statistics import fit_transform
from small_model import small

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._columns._amount_statistics import (
    SMALLEST_MULTIPLE,
    estimate_strengths,
    log_multiples,
)
from sk_pwiser._columns._codes import FIRST_VALUE
from sk_pwiser._columns._target_statistics import ExtendedStatistics, TargetStatistics
from sk_pwiser._rows._blocks import assign_blocks
from sk_pwiser._training._undo import Undo
from sk_pwiser.datasets import ParquetImpressions
from sk_pwiser.export import Scorer, to_onnx
from sk_pwiser.metrics import normalized_gini

N_VALUES = 12


def rows(n=800, seed=0):
    """Return codes, labels with logarithms of amounts in the last column, and weights.

    Half of the rows have the event, and most of these a known amount.
    """
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, N_VALUES + FIRST_VALUE, size=(n, 1))
    event = rng.random(n) < 0.5
    amounts = np.exp(codes[:, 0] / 6 + rng.normal(size=n))
    amounts[~event | (rng.random(n) < 0.1)] = np.nan
    logs, known = log_multiples(amounts[:, np.newaxis], np.ones((n, 1)))
    y = np.column_stack([event, logs])
    return codes, y, np.column_stack([np.ones(n), known])


def unfitted():
    statistics = TargetStatistics([0], [N_VALUES + FIRST_VALUE])
    statistics.n_values = 1
    statistics.n_tasks_ = 2
    return statistics


def fitted(codes, y, weight, others=None):
    statistics = unfitted()
    block = assign_blocks(len(y), 5)
    others = np.zeros(len(y), dtype=bool) if others is None else others
    return statistics, block, fit_transform(statistics, codes, y, weight, block, others)


def mean_by_loop(codes, y, weight, code, is_counted, statistics):
    """Return the scaled input of a value from the rows that count."""
    n = 0.0
    total = 0.0
    for row in np.flatnonzero(is_counted & (codes[:, 0] == code)):
        if code >= FIRST_VALUE:
            n += weight[row, 1]
            total += weight[row, 1] * y[row, 1]
    mean = statistics.rates_[1]
    shrunk_mean = (total + statistics.strengths_[0][1] * mean) / (
        n + statistics.strengths_[0][1]
    )
    return (shrunk_mean - mean - statistics.means_[0][1]) / statistics.scales_[0][1]


def test_inputs_leave_out_the_block_of_a_row():
    codes, y, weight = rows()
    others = np.arange(len(y)) % 7 == 0
    statistics, block, inputs = fitted(codes, y, weight, others)
    assert 1 < statistics.strengths_[0][1] < 100
    known = weight[~others, 1] == 1
    assert_allclose(statistics.rates_[1], y[~others, 1][known].mean())
    for row in range(0, len(y), 7):
        is_counted = ~others if others[row] else ~others & (block != block[row])
        expected = mean_by_loop(codes, y, weight, codes[row, 0], is_counted, statistics)
        assert_allclose(inputs[row, 1], expected, rtol=1e-4, atol=1e-5)
    is_counted = np.ones(len(y), dtype=bool)
    for code in range(N_VALUES + FIRST_VALUE):
        expected = mean_by_loop(codes, y, weight, code, is_counted, statistics)
        found = statistics.transform(np.array([[code]]))[0, 1]
        assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_rates_do_not_depend_on_amounts():
    codes, y, weight = rows()
    _, _, inputs = fitted(codes, y, weight)
    statistics = TargetStatistics([0], [N_VALUES + FIRST_VALUE])
    block = assign_blocks(len(y), 5)
    others = np.zeros(len(y), dtype=bool)
    alone = fit_transform(statistics, codes, y[:, :1], weight[:, :1], block, others)
    assert_array_equal(inputs[:, [0, 2]], alone)


@pytest.mark.parametrize("deviation", [0.0, 0.5])
def test_strength_is_a_ratio_of_variances(deviation):
    rng = np.random.default_rng(0)
    n_each = rng.integers(1, 30, 3000)
    means = rng.normal(2, deviation, 3000)
    codes = np.repeat(np.arange(3000), n_each)
    logs = means[codes] + rng.normal(size=len(codes)) * 1.5
    counts = np.stack([n_each, np.bincount(codes, logs)])[:, np.newaxis]
    totals = counts.sum(axis=2)
    strength = estimate_strengths(counts, totals, np.array([(logs**2).sum()]))[0]
    if deviation:
        assert_allclose(strength, (1.5 / deviation) ** 2, rtol=0.1)
    else:
        assert strength == np.inf


def test_amounts_of_zero_and_unknown_ones():
    logs, weights = log_multiples(np.array([[0.0], [np.nan], [2.0]]), np.ones((3, 1)))
    assert_allclose(logs[:, 0], [np.log(SMALLEST_MULTIPLE), 0, np.log(2)])
    assert weights[:, 0].tolist() == [1, 0, 1]


def test_updates_count_what_a_fit_counts():
    codes, y, weight = rows()
    statistics, _, _ = fitted(codes[:600], y[:600], weight[:600])
    statistics.update(codes[600:], y[600:], weight[600:], Undo())
    whole, _, _ = fitted(codes, y, weight)
    assert_allclose(statistics.counts_[0], whole.counts_[0])
    assert_allclose(statistics.totals_, whole.totals_)
    assert_allclose(statistics.squares_, whole.squares_)
    is_counted = np.ones(len(y), dtype=bool)
    found = statistics.transform(np.array([[5]]))[0, 1]
    expected = mean_by_loop(codes, y, weight, 5, is_counted, statistics)
    assert_allclose(found, expected, rtol=1e-4)


def test_rows_that_a_source_has_seen_are_left_out():
    codes, y, weight = rows()
    source, block, inputs = fitted(codes, y, weight)
    origins = [np.arange(N_VALUES + FIRST_VALUE)]
    extended = ExtendedStatistics(source, origins, "seen", adds=False)
    others = np.zeros(len(y), dtype=bool)
    again = fit_transform(extended, codes, y, weight, block, others)
    assert_allclose(again, inputs, rtol=1e-5, atol=1e-5)


N = 4000
RNG = np.random.default_rng(0)
SHOPS = RNG.integers(0, 40, N)
X = pd.DataFrame({"shop": [f"shop {i}" for i in SHOPS], "hour": RNG.random(N)})
X["shop"] = X["shop"].astype("category")
SPEND = np.exp(RNG.normal(size=40)[SHOPS] + RNG.normal(size=N) / 2)
CLICK = RNG.random(N) < 0.6
BOUGHT = CLICK & (RNG.random(N) < 0.6)
Y = pd.DataFrame({"click": CLICK * 1.0, "conversion": BOUGHT * 1.0})
Y["spend"] = np.where(BOUGHT & (RNG.random(N) < 0.9), SPEND, np.nan)


def valued(**params):
    settings = {"target_encoding": ["shop"], "value_tasks": {"spend": "conversion"}}
    return small(**(settings | params))


@pytest.fixture(scope="module")
def model():
    return valued().fit(X, Y)


def test_names_and_encoded_columns(model):
    encoded = model.encode(X)
    assert encoded.numeric_names == [
        "hour",
        "shop_click_rate",
        "shop_conversion_rate",
        "shop_spend_mean",
        "shop_frequency",
    ]
    means = (
        Y["spend"]
        .groupby(X["shop"], observed=True)
        .apply(lambda amounts: np.log(amounts.dropna()).mean())
    )
    found = pd.Series(encoded.numeric[:, 3]).groupby(X["shop"], observed=True).first()
    assert np.corrcoef(found, means)[0, 1] > 0.99
    without = small(target_encoding=["shop"]).fit(X, Y.drop(columns="spend"))
    assert "shop_spend_mean" not in without.encode(X).numeric_names


def test_amounts_in_another_unit_give_the_same_inputs(model):
    other = valued().fit(X, Y.assign(spend=Y["spend"] * 1000))
    assert_allclose(other.encode(X).numeric, model.encode(X).numeric, atol=1e-5)
    predicted = model.predict_value(X)
    assert_allclose(other.predict_value(X), predicted * 1000, rtol=1e-4)


def test_files_servers_and_graphs(model, tmp_path):
    later = X[:40].copy()
    expected = model.predict_value(later)
    model.save(tmp_path / "model")
    loaded = MultiTaskCTRCVRClassifier.load(tmp_path / "model")
    assert_array_equal(loaded.predict_value(later), expected)
    scorer = Scorer(model, runtime="torch")
    one_row_each = json.loads(later.to_json(orient="records"))
    assert_allclose(scorer.predict_value(one_row_each), expected, rtol=1e-5)


def test_onnx(model, tmp_path):
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    to_onnx(model, path, inputs="raw")
    session = onnxruntime.InferenceSession(path)
    inputs = {
        "shop": X["shop"].astype(str).to_numpy(dtype=object)[:, np.newaxis],
        "hour": X[["hour"]].to_numpy(),
    }
    (values,) = session.run(["values"], inputs)
    assert_allclose(values[:, 0], model.predict_value(X), rtol=1e-4)


def test_rows_of_files(model, tmp_path):
    pytest.importorskip("pyarrow")
    for part, start in enumerate(range(0, N, 1000)):
        table = X[start : start + 1000].join(Y[start : start + 1000])
        table.to_parquet(tmp_path / f"{part}.parquet")
    paths = sorted(tmp_path.glob("*.parquet"))
    impressions = ParquetImpressions(paths, features=list(X), targets=list(Y))
    streamed = valued().fit(impressions)
    found = streamed._result.schema.statistics
    expected = model._result.schema.statistics
    assert_allclose(found.counts_[0].sum(axis=-1), expected.counts_[0].sum(axis=-1))
    assert_allclose(found.strengths_[0], expected.strengths_[0], rtol=1e-5)
    names = streamed.encode(X).numeric_names
    assert names == model.encode(X).numeric_names


def test_updates_of_a_model(model):
    updated = valued().fit(X[:3000], Y[:3000]).partial_fit(X[3000:], Y[3000:])
    found = updated._result.schema.statistics.totals_
    scale = updated._result.schema.value_scales[0]
    known = Y["spend"].dropna()
    assert_allclose(found[0], [N, N, len(known)])
    assert_allclose(found[1, 2], np.log(known / scale).sum(), rtol=1e-5)


@pytest.mark.slow
def test_shuffled_amounts_teach_nothing():
    """Amounts of no column: later rows must not be told apart by training rows."""
    rng = np.random.default_rng(1)
    users = pd.Categorical([f"user {i}" for i in rng.integers(0, 400, N)])
    table = pd.DataFrame({"user": users, "hour": X["hour"]})
    labels = Y.assign(spend=np.where(BOUGHT, rng.lognormal(size=N), np.nan))
    model = MultiTaskCTRCVRClassifier(
        value_tasks={"spend": "conversion"}, random_state=0, loss="bce"
    )
    model.fit(table[:3000], labels[:3000])
    strengths = model._result.schema.statistics.strengths_[0]
    assert strengths[2] == np.inf
    is_later = BOUGHT & (np.arange(N) >= 3000)
    predicted = model.predict_value(table[is_later], given_event=True)
    assert abs(normalized_gini(labels["spend"][is_later], predicted)) < 0.1

"""Models of other packages that predict amounts."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from small_model import small

from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.metrics import normalized_gini
from sk_pwiser.model_selection._package_models import is_installed
from sk_pwiser.model_selection._value_models import (
    GammaGLM,
    LogAmounts,
    MeanPerImpression,
    NetworkTimesMean,
    OneAmount,
    OneModelPerValue,
    ProbabilityTimesAmount,
    named_value_models,
)


@pytest.fixture(scope="module")
def log():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": rng.normal(size=600), "b": rng.normal(size=600)})
    click = (rng.random(600) < 0.5).astype(int)
    conversion = click * (rng.random(600) < 0.5)
    spend = np.where(conversion == 1, np.exp(X["a"] + rng.normal(size=600)), np.nan)
    spend[np.flatnonzero(conversion)[:3]] = [0.0, 0.0, np.nan]
    Y = pd.DataFrame({"click": click, "conversion": conversion, "spend": spend})
    return X, Y


def test_probability_times_amount_is_that_of_two_fits(log):
    X, Y = log
    model = ProbabilityTimesAmount(LogisticRegression(), LinearRegression())
    model = OneModelPerValue(model, {"spend": "conversion"}).fit(X, Y)
    # An event without a known amount counts as a positive one.
    is_positive = (Y["conversion"] == 1) & (Y["spend"] != 0)
    p = LogisticRegression().fit(X, is_positive).predict_proba(X)[:, 1]
    rows = Y["spend"] > 0
    amount = LinearRegression().fit(X[rows], Y["spend"][rows]).predict(X)
    assert_allclose(model.predict_value(X), p * amount)


def test_amounts_per_impression_are_0_without_the_event(log):
    X, Y = log
    model = OneModelPerValue(MeanPerImpression(LinearRegression()), {2: 1})
    model.fit(X.to_numpy(), Y.to_numpy())
    known = (Y["conversion"] == 0) | Y["spend"].notna()
    expected = LinearRegression().fit(X[known], Y["spend"].fillna(0)[known])
    assert_allclose(model.predict_value(X.to_numpy()), expected.predict(X))


def test_two_values_are_two_columns(log):
    X, Y = log
    Y = Y.assign(seconds=np.abs(X["b"]))
    model = MeanPerImpression(DummyRegressor())
    model = OneModelPerValue(model, {"spend": "conversion", "seconds": None})
    means = model.fit(X, Y).predict_value(X[:2])
    assert means.shape == (2, 2)
    assert_allclose(means[:, 1], Y["seconds"].mean())


def test_smearing_multiplies_by_the_mean_of_the_exponentials_of_residuals():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2_000, 1))
    y = np.exp(X[:, 0] + 0.7 * rng.normal(size=2_000))
    model = LogAmounts(LinearRegression()).fit(X, y)
    line = LinearRegression().fit(X, np.log(y))
    residuals = np.log(y) - line.predict(X)
    expected = np.exp(line.predict(X)) * np.exp(residuals).mean()
    assert_allclose(model.predict(X), expected)
    assert_allclose(model.predict(X), np.exp(X[:, 0] + 0.7**2 / 2), rtol=0.1)


def test_gamma_regression_does_not_depend_on_copies_of_rows_or_the_unit():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 2))
    y = rng.gamma(2.0, np.exp(X[:, 0]))
    model = GammaGLM(penalty=10).fit(X, y)
    copies = GammaGLM(penalty=20).fit(np.tile(X, (2, 1)), np.tile(y, 2))
    assert_allclose(copies.predict(X), model.predict(X), rtol=1e-3)
    in_cents = GammaGLM(penalty=10).fit(X, 100 * y)
    assert_allclose(in_cents.predict(X), 100 * model.predict(X), rtol=1e-2)


def test_few_amounts_give_their_mean():
    X = np.arange(40.0)[:, np.newaxis]
    y = np.zeros(40)
    y[:19] = 2.0
    assert_allclose(OneAmount(LinearRegression()).fit(X, y).predict(X), 0.95)
    y[19] = 2.0
    predicted = OneAmount(LinearRegression()).fit(X, y).predict(X)
    assert np.ptp(predicted) > 1
    assert OneAmount(LinearRegression()).fit(X[:0], y[:0]).predict(X[:2]).sum() == 0


def test_the_mean_amount_times_probabilities_of_the_network(log):
    X, Y = log
    Y = Y.assign(seconds=2.0)
    value_tasks = {"spend": "conversion", "seconds": None}
    model = NetworkTimesMean(small(), value_tasks).fit(X, Y)
    events = small().fit(X, Y[["click", "conversion"]])
    expected = events.predict_proba(X)[:, 1] * Y["spend"].mean()
    assert_allclose(model.predict_value(X)[:, 0], expected, rtol=1e-6)
    assert_allclose(model.predict_value(X)[:, 1], 2)


def test_the_mean_amount_of_one_task(log):
    X, Y = log
    Y = Y[["conversion", "spend"]]
    model = NetworkTimesMean(small(), {"spend": "conversion"}).fit(X, Y)
    p = small().fit(X, Y[["conversion"]]).predict_proba(X)[:, 1]
    assert_allclose(model.predict_value(X), p * Y["spend"].mean(), rtol=1e-6)


def test_named_models(log):
    X, Y = log
    value_tasks = {"spend": "conversion"}
    model = named_value_models(["logistic_gamma"], value_tasks)["logistic_gamma"]
    spend = Y["spend"].fillna(0)
    assert normalized_gini(spend, model.fit(X, Y).predict_value(X)) > 0.1
    models = named_value_models(["sk_pwiser"], value_tasks, classifier=small())
    assert models["sk_pwiser"].get_params()["value_tasks"] == value_tasks
    own_model = OneModelPerValue(DummyClassifier(), value_tasks)
    assert named_value_models({"a": own_model}, value_tasks) == {"a": own_model}
    with pytest.raises(ValueError, match=r"models must be among .*got 'catboost'"):
        named_value_models(["catboost"], value_tasks)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lightgbm_log_amounts", "lightgbm_tweedie"])
def test_trees_order_amounts(name):
    if not is_installed(name):
        pytest.skip("LightGBM is not installed")
    data = make_ctr_cvr(
        4_000, ctr=0.4, cvr=0.4, n_categories=200, value=True, random_state=0
    )
    value_tasks = {"value": "conversion"}
    model = named_value_models([name], value_tasks)[name]
    model.fit(data.data[:3_000], data.target[:3_000])
    predicted = model.predict_value(data.data[3_000:])
    assert normalized_gini(data.target["value"][3_000:], predicted) > 0.2

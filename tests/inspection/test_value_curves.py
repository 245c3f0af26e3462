"""Displays of predicted amounts, against the metrics and brute force."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from small_model import small

from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.inspection import ValueDecileDisplay, ValueGainDisplay
from sk_pwiser.metrics import normalized_gini, value_deciles

pytest.importorskip("matplotlib")
DATA = make_ctr_cvr(600, ctr=0.5, cvr=0.5, value=True, random_state=0)
X = DATA.data
Y = DATA.target.assign(seconds=1.0)
VALUE_TASKS = {"value": "conversion", "seconds": None}


@pytest.fixture(scope="module")
def model():
    return small(value_tasks=VALUE_TASKS).fit(X, Y)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    from matplotlib import pyplot

    pyplot.close("all")


def test_deciles_are_those_of_the_metric(model):
    labels = Y.copy()
    unknown = labels.index[labels["conversion"] == 1][:5]
    labels.loc[unknown, "value"] = np.nan
    weight = np.arange(1.0, 601.0)
    display = ValueDecileDisplay.from_estimator(
        model, X, labels, value="value", n_bins=5, sample_weight=weight
    )
    rows = ~X.index.isin(unknown)
    observed = labels["value"].fillna(0)[rows]
    predicted = model.predict_value(X)[rows, 0]
    # Known amounts stand for the unknown ones.
    bought = (labels["conversion"] == 1).to_numpy()
    known = bought & rows
    stands_for = np.where(known, weight[bought].sum() / weight[known].sum(), 1) * weight
    expected = value_deciles(
        observed, predicted, n_bins=5, sample_weight=stands_for[rows]
    )
    assert_allclose(display.predicted, expected.predicted)
    assert_allclose(display.observed, expected.observed)
    assert_allclose([bar.get_height() for bar in display.bars_], expected.observed)
    assert_allclose(display.line_.get_ydata(), expected.predicted)
    assert display.ax_.get_ylabel() == "Total value"
    again = display.plot(ax=display.ax_, color="black")
    assert again.line_.get_color() == "black"


def test_totals_of_a_right_model_are_right_if_half_of_the_amounts_are_unknown(model):
    labels = Y.copy()
    bought = labels["conversion"] == 1
    labels.loc[bought, "value"] = model.predict_value(X, given_event=True)[bought, 0]
    complete = ValueDecileDisplay.from_estimator(model, X, labels, value="value")
    hidden = np.random.default_rng(0).random(len(labels)) < 0.5
    labels.loc[bought & hidden, "value"] = np.nan
    half = ValueDecileDisplay.from_estimator(model, X, labels, value="value")
    assert abs(half.ratio - complete.ratio) < 0.05


def test_the_gains_curve_is_that_of_brute_force():
    rng = np.random.default_rng(0)
    amounts = rng.gamma(1.0, size=60) * (rng.random(60) < 0.5)
    predicted = np.round(amounts + rng.normal(size=60), 1)
    weight = rng.random(60)
    display = ValueGainDisplay.from_predictions(
        amounts, predicted, sample_weight=weight, name="trees", value_name="spend"
    )
    assert display.rows[0] == display.gain[0] == 0
    for share, gain, limit in zip(
        display.rows[1:], display.gain[1:], np.unique(predicted)[::-1], strict=True
    ):
        first = predicted >= limit
        assert_allclose(share, weight[first].sum() / weight.sum())
        assert_allclose(gain, (weight * amounts)[first].sum() / (weight @ amounts))
    area = np.trapezoid(display.gain, display.rows) - 0.5
    best = np.trapezoid(display.best_gain, display.best_rows) - 0.5
    assert_allclose(display.gini, area / best)
    labels = [line.get_label() for line in display.ax_.lines]
    assert labels[:2] == ["random order", "best order"]
    assert labels[2] == f"trees (Gini = {display.gini:.3f})"
    second = ValueGainDisplay.from_predictions(amounts, amounts, ax=display.ax_)
    assert len(display.ax_.lines) == 4  # the orders are drawn once
    assert second.line_.get_color() != display.line_.get_color()


def test_gains_of_estimators(model):
    display = ValueGainDisplay.from_estimator(model, X, Y, value="value")
    spend = Y["value"].fillna(0)
    expected = normalized_gini(spend, model.predict_value(X)[:, 0])
    assert display.gini == expected
    assert display.line_.get_label().startswith("MultiTaskCTRCVRClassifier (Gini")
    calibrator = FunnelCalibrator(model).fit(X, Y)
    of_calibrator = ValueGainDisplay.from_estimator(calibrator, X, Y, value="value")
    expected = normalized_gini(spend, calibrator.predict_value(X)[:, 0])
    assert_allclose(of_calibrator.gini, expected)


def test_wrong_values_and_estimators(model):
    with pytest.raises(
        ValueError, match=r"value must be one of \['value', 'seconds'\]"
    ):
        ValueGainDisplay.from_estimator(model, X, Y)
    events = Y[["click", "conversion"]]
    without = small().fit(X, events)
    with pytest.raises(ValueError, match="estimator must be fitted with value_tasks"):
        ValueDecileDisplay.from_estimator(without, X, events)

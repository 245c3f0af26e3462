"""Calibrated values: probabilities times mean amounts, with totals of later rows."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from small_model import small

from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.datasets import make_ctr_cvr

N = 900
LOG = make_ctr_cvr(N, ctr=0.5, cvr=0.5, random_state=0)
RNG = np.random.default_rng(0)
MARKET = RNG.choice(["a", "b"], N, p=[0.7, 0.3])
X = LOG.data.assign(market=MARKET)
EVENTS = LOG.target
BOUGHT = (EVENTS["conversion"] == 1).to_numpy()
Y = EVENTS.assign(
    spend=np.where(BOUGHT, RNG.gamma(2, 20, N), 0), watch=RNG.gamma(2, 3, N)
)
# Later rows have larger amounts.
LATER = Y.assign(spend=3 * Y["spend"])
VALUE_TASKS = {"spend": "conversion", "watch": None}


def log_factor(amounts, means, weight=1.0):
    """Return the logarithm of the ratio of totals, as far as the amounts tell it."""
    weight = weight * np.ones(len(amounts))
    ratio = (weight * amounts).sum() / (weight * means).sum()
    deviations = (amounts - ratio * means) / np.average(amounts, weights=weight)
    variance = (np.square(deviations).sum() + 2) / (len(amounts) + 2)
    return len(amounts) / (len(amounts) + 100 * variance) * np.log(ratio)


@pytest.fixture(scope="module")
def model():
    return small(value_tasks=VALUE_TASKS).fit(X, Y)


@pytest.fixture(scope="module")
def calibrator(model):
    return FunnelCalibrator(model, method="sigmoid").fit(X, LATER)


def test_a_value_is_a_calibrated_probability_times_a_mean(calibrator):
    values = calibrator.predict_value(X)
    given_event = calibrator.predict_value(X, given_event=True)
    p = calibrator.predict_proba(X)[:, 1]
    assert_allclose(values[:, 0], p * given_event[:, 0], rtol=1e-5)
    assert_array_equal(values[:, 1], given_event[:, 1])  # of every impression


def test_totals_follow_as_far_as_the_amounts_tell(model, calibrator):
    means = model.predict_value(X, given_event=True)
    expected = np.exp(log_factor(LATER["spend"][BOUGHT], means[BOUGHT, 0]))
    factors = calibrator.predict_value(X, given_event=True) / means
    assert_allclose(factors[:, 0], expected, rtol=1e-9)
    assert_allclose(factors[:, 1], 1, rtol=1e-3)  # these amounts did not change
    assert_allclose(calibrator.value_factors_, factors[0], rtol=1e-9)
    assert calibrator.value_parents_ == VALUE_TASKS


def test_each_market_has_its_level(model):
    in_a = MARKET == "a"
    rows = Y.assign(spend=np.where(in_a, 1, 5) * Y["spend"])
    calibrator = FunnelCalibrator(model, by="market").fit(X, rows)
    predicted = calibrator.predict_value(X, given_event=True)[:, 0]
    means = model.predict_value(X, given_event=True)[:, 0]
    expected = np.ones(N)
    common = np.exp(log_factor(rows["spend"][BOUGHT], means[BOUGHT]))
    for market in "ab":
        chosen = BOUGHT & (market == MARKET)
        shift = log_factor(rows["spend"][chosen], common * means[chosen])
        expected[market == MARKET] = common * np.exp(shift)
    assert_allclose(predicted / means, expected, rtol=1e-9)
    unseen = X.assign(market="c")
    means_of_unseen = model.predict_value(unseen, given_event=True)[:, 0]
    levels = calibrator.predict_value(unseen, given_event=True)[:, 0] / means_of_unseen
    assert_allclose(levels, common, rtol=1e-9)


def test_weights_count_like_copies(model):
    weight = np.where(X["numeric_0"] > 0, 2, 1)
    copies = np.repeat(np.arange(N), weight)
    weighted = FunnelCalibrator(model).fit(X, LATER, sample_weight=weight)
    copied = FunnelCalibrator(model).fit(X.iloc[copies], LATER.iloc[copies])
    means = model.predict_value(X, given_event=True)[:, 0]
    # Copies are more amounts, which are trusted more.
    rows = copies[BOUGHT[copies]]
    of_copies = log_factor(LATER["spend"].to_numpy()[rows], means[rows])
    spend = LATER["spend"].to_numpy()[BOUGHT]
    of_weights = log_factor(spend, means[BOUGHT], weight[BOUGHT])
    assert_allclose(np.log(copied.value_factors_[0]), of_copies, rtol=1e-9)
    assert_allclose(np.log(weighted.value_factors_[0]), of_weights, rtol=1e-9)
    assert of_copies > of_weights


def test_amounts_that_vary_less_are_followed_further(model):
    means = model.predict_value(X, given_event=True)[:, 0]
    even = Y.assign(spend=np.where(BOUGHT, 2 * means, 0))
    noise = np.random.default_rng(1).permutation(np.repeat([0.0, 4.0], N // 2))
    uneven = Y.assign(spend=np.where(BOUGHT, noise * means, 0))
    factors = [
        FunnelCalibrator(model).fit(X, labels).value_factors_[0]
        for labels in (even, uneven)
    ]
    assert factors[0] > 1.95
    assert factors[1] < 1.9


def test_labels_without_amounts_leave_the_level(model):
    calibrator = FunnelCalibrator(model).fit(X, EVENTS)
    assert_array_equal(calibrator.value_factors_, 1)
    one = FunnelCalibrator(model).fit(X, LATER.drop(columns="watch"))
    assert one.value_factors_[0] > 1.5
    assert one.value_factors_[1] == 1


def test_unknown_amounts_count_for_nothing(model):
    is_known = np.arange(N) % 2 == 0
    some = LATER.assign(spend=LATER["spend"].where(is_known))
    calibrator = FunnelCalibrator(model).fit(X, some)
    rows = BOUGHT & is_known
    means = model.predict_value(X, given_event=True)[rows, 0]
    expected = np.exp(log_factor(LATER["spend"][rows], means))
    assert_allclose(calibrator.value_factors_[0], expected, rtol=1e-9)


def test_arrays_have_amounts_by_index(model):
    value_tasks = {2: 1, 3: None}
    by_index = small(value_tasks=value_tasks).fit(X, Y.to_numpy())
    calibrator = FunnelCalibrator(by_index, method="sigmoid").fit(X, LATER.to_numpy())
    expected = FunnelCalibrator(model, method="sigmoid").fit(X, LATER)
    assert_allclose(calibrator.value_factors_, expected.value_factors_, rtol=1e-6)


def test_splits_predict_amounts_of_rows_left_out():
    model = small(value_tasks=VALUE_TASKS, max_epochs=1)
    calibrator = FunnelCalibrator(model, cv=2, method="sigmoid").fit(X, Y)
    predicted = calibrator.predict_value(X, given_event=True)[BOUGHT, 0].sum()
    assert_allclose(predicted / Y["spend"].sum(), 1, rtol=0.1)
    assert calibrator.score(X, Y) == calibrator.score(X, EVENTS)


def test_frozen_estimators_pipelines_and_calibrators(model, calibrator):
    expected = calibrator.predict_value(X)
    frozen = FunnelCalibrator(FrozenEstimator(model), method="sigmoid")
    assert_array_equal(frozen.fit(X, LATER).predict_value(X), expected)
    pipeline = make_pipeline(FunctionTransformer(), model)
    in_pipeline = FunnelCalibrator(pipeline, method="sigmoid").fit(X, LATER)
    assert_allclose(in_pipeline.predict_value(X), expected, rtol=1e-5)
    twice = FunnelCalibrator(calibrator, method="sigmoid").fit(X, LATER)
    # It follows what the first one has left of the difference.
    means_of_one = calibrator.predict_value(X, given_event=True)[:, 0]
    means_of_two = twice.predict_value(X, given_event=True)[:, 0]
    further = log_factor(LATER["spend"][BOUGHT], means_of_one[BOUGHT])
    assert_allclose(np.log(means_of_two / means_of_one), further, atol=1e-6)


def test_files_hold_levels(model, tmp_path):
    calibrator = FunnelCalibrator(model, by="market").fit(X, LATER)
    expected = calibrator.predict_value(X)
    calibrator.save(tmp_path / "calibrator.skpw")
    loaded = FunnelCalibrator.load(tmp_path / "calibrator.skpw")
    assert_array_equal(loaded.predict_value(X), expected)
    assert_array_equal(
        pickle.loads(pickle.dumps(calibrator)).predict_value(X), expected
    )


def test_wrong_amounts_leave_an_earlier_fit(calibrator):
    before = calibrator.predict_value(X)
    with pytest.raises(ValueError, match="must not be negative"):
        calibrator.fit(X, Y.assign(spend=-1.0))
    assert_array_equal(calibrator.predict_value(X), before)


def test_predict_value_needs_values():
    model = small().fit(X, EVENTS)
    with pytest.raises(ValueError, match="fitted with value_tasks"):
        FunnelCalibrator(model, method="sigmoid").fit(X, EVENTS).predict_value(X)

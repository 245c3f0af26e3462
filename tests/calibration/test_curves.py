"""The curves of one task against scikit-learn and a direct search."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import expit
from sklearn.calibration import _SigmoidCalibration
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss

from sk_pwiser.calibration._curves import METHODS


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    logits = rng.normal(-1, 1.5, size=800)
    y = (rng.random(800) < expit(0.6 * logits - 0.5)).astype(float)
    return logits, y, rng.integers(1, 4, size=800).astype(float)


def test_sigmoid_is_that_of_scikit_learn(rows):
    logits, y, weight = rows
    expected = _SigmoidCalibration().fit(logits, y, sample_weight=weight)
    found = METHODS["sigmoid"]().fit(*rows).predict(logits)
    assert_allclose(found, expected.predict(logits), rtol=1e-6)


def test_temperature_minimises_the_log_loss(rows):
    logits, y, weight = rows
    curve = METHODS["temperature"]().fit(*rows)
    grid = np.geomspace(0.2, 5, 4_001)
    losses = [log_loss(y, expit(logits / t), sample_weight=weight) for t in grid]
    assert curve.temperature_ == pytest.approx(grid[np.argmin(losses)], rel=2e-3)
    assert_allclose(curve.predict(logits), expit(logits / curve.temperature_))


def test_isotonic_goes_through_the_centres_of_the_steps(rows):
    """Each step of isotonic regression, at the mean of its logits, by loops."""
    logits, y, weight = rows
    logits = np.r_[logits, logits.min(), logits.max()]
    y, weight = np.r_[y, 1, 0], np.r_[weight, 0.5, 0.5]
    steps = IsotonicRegression().fit_transform(logits, y, sample_weight=weight)
    curve = METHODS["isotonic"]().fit(*rows)
    assert len(np.unique(steps)) > 10
    for rate in np.unique(steps):
        of_step = steps == rate
        centre = np.average(logits[of_step], weights=weight[of_step])
        assert curve.predict(centre) == pytest.approx(rate)


def test_isotonic_keeps_the_ranking_between_the_outermost_steps(rows):
    curve = METHODS["isotonic"]().fit(*rows)
    inside = np.linspace(curve.centres_[0], curve.centres_[-1], 1_000)
    assert (np.diff(curve.predict(inside)) > 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_probabilities_stay_inside_of_0_and_1_and_rise(rows, method):
    """Also if the smallest scores have no event, and the largest nothing else."""
    logits, _, weight = rows
    p = METHODS[method]().fit(logits, (logits > -1).astype(float), weight)
    p = p.predict(np.sort(np.r_[logits, -80, 80]))
    assert (np.diff(p) >= 0).all()
    if method == "isotonic":
        assert 0 < p[0] < 0.01
        assert 0.99 < p[-1] < 1


@pytest.mark.parametrize("method", METHODS)
def test_weights_are_repetitions(rows, method):
    logits, y, weight = rows
    curve = METHODS[method]().fit(*rows)
    repeated = [np.repeat(values, weight.astype(int)) for values in (logits, y)]
    other = METHODS[method]().fit(*repeated, np.ones(len(repeated[0])))
    # Platt's target values depend on the number of rows, not on their weights.
    tolerance = 1e-3 if method == "sigmoid" else 1e-5
    assert_allclose(curve.predict(logits), other.predict(logits), rtol=tolerance)

"""The curves of one task against scikit-learn and a direct search."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.special import expit
from sklearn.calibration import _SigmoidCalibration
from sklearn.isotonic import IsotonicRegression

from sk_pwiser.calibration._curves import METHODS, IsotonicCurve, SigmoidCurve


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    logits = rng.normal(-1, 1.5, size=800)
    y = (rng.random(800) < expit(0.6 * logits - 0.5)).astype(float)
    return logits, y, rng.integers(1, 4, size=800).astype(float)


def test_sigmoid_is_that_of_scikit_learn(rows):
    """With weights in units of the rarer label."""
    logits, y, weight = rows
    scaled = weight / weight[y == 1].mean()
    expected = _SigmoidCalibration().fit(logits, y, sample_weight=scaled)
    found = expit(METHODS["sigmoid"]().fit(*rows).transform(logits))
    assert_allclose(found, expected.predict(logits), rtol=1e-6)
    # The unit is that of the label 0 if that is the rarer one.
    found = METHODS["sigmoid"]().fit(-logits, 1 - y, weight).transform(-logits)
    assert_allclose(expit(-found), expected.predict(logits), rtol=1e-6)


def test_isotonic_goes_through_the_centres_of_the_steps(rows):
    """Each step of isotonic regression, at the mean of its logits, by loops."""
    logits, y, weight = rows
    logits = np.r_[logits, logits.min(), logits.max()]
    pseudo = [0.5 * weight[y == label].mean() for label in (1, 0)]
    y, weight = np.r_[y, 1, 0], np.r_[weight, pseudo]
    steps = IsotonicRegression().fit_transform(logits, y, sample_weight=weight)
    curve = METHODS["isotonic"]().fit(*rows)
    centres = []
    for rate in np.unique(steps):
        of_step = steps == rate
        centres.append(np.average(logits[of_step], weights=weight[of_step]))
        assert expit(curve.transform(centres[-1])) == pytest.approx(rate)
    assert len(centres) > 10
    # Straight lines in log-odds between them.
    middle = np.add(centres[1:], centres[:-1]) / 2
    ends = curve.transform(np.array(centres))
    assert_allclose(curve.transform(middle), (ends[1:] + ends[:-1]) / 2)


@pytest.mark.parametrize("method", METHODS)
def test_probabilities_stay_inside_of_0_and_1_and_rise(rows, method):
    """Also if the smallest scores have no event, and the largest nothing else."""
    logits, _, weight = rows
    p = METHODS[method]().fit(logits, (logits > -1).astype(float), weight)
    p = expit(p.transform(np.sort(np.r_[logits, -80, 80])))
    assert (np.diff(p) >= 0).all()
    if method == "isotonic":
        assert 0 < p[0] < 0.01
        assert 0.99 < p[-1] < 1


@pytest.mark.parametrize("method", METHODS)
@given(
    scale=st.floats(1e-6, 1e6),
    seed=st.integers(0, 2**20),
    n=st.integers(2, 60),
    spread=st.integers(0, 3),
)
def test_only_ratios_of_the_weights_matter(method, scale, seed, n, spread):
    """Also with ties: few logits, and weights whose sums round differently."""
    rng = np.random.default_rng(seed)
    logits = rng.integers(-4, 5, n) / 1.5
    y = (rng.random(n) < 0.3).astype(float)
    y[:2] = 0, 1
    weight = 10.0 ** rng.integers(-spread, spread + 1, n)
    curves = [METHODS[method]().fit(logits, y, w) for w in (weight, scale * weight)]
    at = np.linspace(-3, 4, 50)
    p, q = (expit(curve.transform(at)) for curve in curves)
    assert_allclose(q, p, rtol=1e-7, atol=1e-9)


def test_a_sigmoid_does_not_reverse_the_ranking(rows):
    """A single event at a low logit: the rate is corrected, and the slope is 1."""
    logits, _, weight = rows
    y = (logits == np.sort(logits)[20]).astype(float)
    curve = METHODS["sigmoid"]().fit(logits, y, weight)
    assert not curve.rises_
    assert curve.slope_ == 1
    # Platt's targets of one event are (1 + 1) / (1 + 2) and 1 / (n_0 + 2).
    scaled = weight / weight[y == 1]
    n_0 = scaled[y == 0].sum()
    expected = 2 / 3 + n_0 / (n_0 + 2)
    assert scaled @ expit(curve.transform(logits)) == pytest.approx(expected)


def excess_loss(curve, n_events, seed):
    """Return the log loss beyond that of the true rates, which are bent, per event."""
    rng = np.random.default_rng(seed)
    rate, n_new = 0.02, 20_000

    def log_odds(logits):
        return np.where(logits > 0, 0.3, 1.0) * logits - 3.97

    logits = 1.5 * rng.normal(size=round(n_events / rate))
    y = (rng.random(len(logits)) < expit(log_odds(logits))).astype(float)
    new = 1.5 * rng.normal(size=n_new)
    true = expit(log_odds(new))
    p = expit(curve.fit(logits, y, np.ones(len(y))).transform(new))
    loss = true * np.log(true / p) + (1 - true) * np.log((1 - true) / (1 - p))
    return loss.sum() / true.sum()


@pytest.mark.parametrize(
    ("n_events", "better"),
    [(20, SigmoidCurve), (30, SigmoidCurve), (400, IsotonicCurve)],
)
def test_few_events_are_too_few_for_isotonic_curves(n_events, better):
    """Even where the true curve is no sigmoid."""
    losses = {
        curve: np.mean([excess_loss(curve(), n_events, seed) for seed in range(30)])
        for curve in (SigmoidCurve, IsotonicCurve)
    }
    assert min(losses, key=losses.get) is better
    assert (n_events < IsotonicCurve.fewest_events) == (better is SigmoidCurve)

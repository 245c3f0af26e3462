"""Densities of scores by depth: their rows, areas and places."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import trapezoid
from scipy.special import expit, logit
from scipy.stats import gaussian_kde
from sklearn.exceptions import NotFittedError
from small_model import X, Y, small

from sk_pwiser.inspection import FunnelScoreDisplay


@pytest.fixture
def rows():
    """Scores around the depth of each of 900 rows of a funnel of three tasks."""
    rng = np.random.default_rng(0)
    depth = np.repeat([0, 1, 2, 3], [500, 200, 150, 50])
    labels = (depth[:, np.newaxis] > np.arange(3)).astype(int)
    scores = 2.0 * depth - 3 + rng.normal(size=900)
    return labels, np.column_stack([expit(scores)] * 3), depth, scores


def test_one_density_per_depth_with_the_area_1(rows):
    labels, P, depth, scores = rows
    display = FunnelScoreDisplay.from_predictions(
        labels, P, task_names=["view", "click", "buy"]
    )
    assert len(display.lines_) == 4
    for k, line in enumerate(display.lines_):
        x, density = line.get_data()
        assert trapezoid(density, x) == pytest.approx(1, abs=0.01)
        expected = gaussian_kde(scores[depth == k])(x)
        assert_allclose(density, expected, atol=0.05 * expected.max())
    labels = [line.get_label() for line in display.lines_]
    depths = ["no view (500", "view, no click (200", "click, no buy (150", "buy (50"]
    assert labels == [f"{depth} rows)" for depth in depths]


def test_depths_that_are_unknown_empty_or_constant_have_no_density(rows):
    labels, P, depth, _ = rows
    labels = labels.astype(float)
    labels[depth == 3, 2] = np.nan
    # Constant but for rounding.
    P[depth == 1] = 0.5 + 1e-16 * (np.arange(600).reshape(200, 3) % 7)
    P[depth == 0] = 0.1 + 1e-16 * (np.arange(1500).reshape(500, 3) % 3)
    P[-2:] = [[0.0], [1.0]]
    display = FunnelScoreDisplay.from_predictions(labels, P)
    (line,) = display.lines_
    assert line.get_label() == "task 1, no task 2 (150 rows)"
    assert np.isfinite(display.log_odds).all()


@pytest.mark.parametrize("task", ["click", 0, -2])
def test_log_odds_of_an_estimator(task):
    model = small().fit(X, Y)
    display = FunnelScoreDisplay.from_estimator(model, X, Y, task=task)
    assert display.task_name == "click"
    assert_allclose(display.log_odds, logit(model.predict_proba(X)[:, 0].astype(float)))
    assert len(display.ax_.collections) == len(display.lines_)


def test_errors(rows):
    labels, P, *_ = rows
    with pytest.raises(NotFittedError):
        FunnelScoreDisplay.from_estimator(small(), X, Y)
    with pytest.raises(ValueError, match="task must be"):
        FunnelScoreDisplay.from_predictions(labels, P, task=3)
    with pytest.raises(ValueError, match=r"one of \['task 0', .*\); got 'cvr'"):
        FunnelScoreDisplay.from_predictions(labels, P, task="cvr")
    with pytest.raises(TypeError, match="the name of a task; got None"):
        FunnelScoreDisplay.from_predictions(labels, P, task=None)
    with pytest.raises(ValueError, match="predict_proba must return"):
        FunnelScoreDisplay.from_predictions(labels, P[:, :2])

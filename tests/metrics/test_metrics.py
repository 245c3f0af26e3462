"""Metrics of probabilities against brute force, and as scorers."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import average_precision_score, log_loss

from sk_pwiser import metrics
from sk_pwiser.metrics import (
    expected_calibration_error,
    normalized_entropy,
    predicted_over_observed,
    reliability_curve,
)

ONES = pd.Series([1, 1, 1])
METRICS = [normalized_entropy, expected_calibration_error, predicted_over_observed]


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    p = rng.beta(1, 4, size=301)
    return (rng.random(301) < p**1.3).astype(int), p, rng.integers(0, 4, size=301)


def test_normalized_entropy_is_a_ratio_of_log_losses(rows):
    y, p, weight = rows
    constant = np.full(len(y), y.mean())
    assert normalized_entropy(y, p) == pytest.approx(
        log_loss(y, p) / log_loss(y, constant)
    )
    constant = np.full(len(y), np.average(y, weights=weight))
    assert normalized_entropy(y, p, sample_weight=weight) == pytest.approx(
        log_loss(y, p, sample_weight=weight)
        / log_loss(y, constant, sample_weight=weight)
    )


def test_predicted_over_observed(rows):
    y, p, weight = rows
    assert predicted_over_observed(y, p) == pytest.approx(p.sum() / y.sum())
    expected = (weight @ p) / (weight @ y)
    assert predicted_over_observed(y, p, sample_weight=weight) == pytest.approx(
        expected
    )


def brute_force_error(y, p, bins):
    return sum(abs(sum(p[i] - y[i] for i in rows)) for rows in bins) / len(y)


@pytest.mark.parametrize("n_bins", [1, 2, 7, 43])
def test_bins_of_equally_many_rows(rows, n_bins):
    """301 rows are 7 bins of 43 or 43 bins of 7; others differ by a row."""
    y, p, _ = rows
    order = np.argsort(p)
    starts = [int(np.floor(j * 301 / n_bins)) for j in range(n_bins)] + [301]
    bins = [order[a:b] for a, b in pairwise(starts)]
    assert expected_calibration_error(y, p, n_bins=n_bins) == pytest.approx(
        brute_force_error(y, p, bins)
    )


@pytest.mark.parametrize("metric", METRICS)
def test_weights_are_repetitions(rows, metric):
    y, p, weight = rows
    repeated = metric(np.repeat(y, weight), np.repeat(p, weight))
    assert metric(y, p, sample_weight=weight) == pytest.approx(repeated)


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4)), min_size=2, max_size=40),
    st.randoms(use_true_random=False),
)
def test_the_order_of_rows_with_equal_predictions_does_not_matter(rows, random):
    def error(rows):
        y, tenths = np.array(rows).T
        return expected_calibration_error(y, tenths / 10, n_bins=4)

    shuffled = random.sample(rows, len(rows))
    assert error(rows) == pytest.approx(error(shuffled))


def test_known_probabilities_in_place_of_labels(rows):
    _, p, _ = rows
    assert expected_calibration_error(p, p) == 0.0
    assert predicted_over_observed(p, p) == 1.0
    rng = np.random.default_rng(1)
    drawn = [normalized_entropy(rng.random(301) < p, p**1.2) for _ in range(400)]
    assert normalized_entropy(p, p**1.2) == pytest.approx(np.mean(drawn), abs=0.01)


@pytest.mark.parametrize(
    ("metric", "label"),
    [(normalized_entropy, 0), (normalized_entropy, 1), (predicted_over_observed, 0)],
)
def test_one_class_is_undefined(metric, label):
    with pytest.warns(UndefinedMetricWarning, match=f"all labels are {label}"):
        assert np.isnan(metric([label] * 3, [0.1, 0.2, 0.3]))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("y", "p", "weight", "message"),
    [
        ([0, -2], [0.1, 0.2], None, "y_true must be .*, got -2 in row 1"),
        ([0, 1], [0.1, -1.2], None, "y_prob must be .*, got -1.2 in row 1"),
        ([0, np.nan], [0.1, 0.2], None, "y_true must be .* got nan in row 1"),
        ([0, 1, 1], [0.1, 0.2], None, "inconsistent"),
        ([], [], None, "at least one row"),
        ([0, 1], [0.1, 0.2], [1], "inconsistent"),
        ([0, 1], [0.1, 0.2], [1, -1], "sample_weight must be finite and >= 0"),
        ([0, 1], [0.1, 0.2], [1, np.inf], "sample_weight must be finite"),
        ([0, 1], [0.1, 0.2], [1, np.nan], "sample_weight must be finite"),
        ([0, 1], [0.1, 0.2], [0, 0], "sample_weight must be finite and >= 0"),
        (ONES, ONES[::-1], None, "y_true and y_prob have the same index labels in"),
        (ONES, ONES, ONES[::-1], "y_true and sample_weight have the same index"),
    ],
)
def test_bad_rows(metric, y, p, weight, message):
    with pytest.raises(ValueError, match=message):
        metric(y, p, sample_weight=weight)


@pytest.mark.parametrize("metric", [normalized_entropy, expected_calibration_error])
def test_rates_are_at_most_1(metric):
    with pytest.raises(ValueError, match=r"y_true must be in \[0, 1\], got 2 in row 1"):
        metric([0, 2], [0.1, 0.2])
    with pytest.raises(ValueError, match=r"y_prob must be in \[0, 1\], got 1.2 in row"):
        metric([0, 1], [0.1, 1.2])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_bins": 0}, "n_bins must be an integer >= 1, got 0"),
        ({"n_bins": 2.5}, "n_bins must be an integer >= 1, got 2.5"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        expected_calibration_error([0, 1], [0.1, 0.2], **params)


@pytest.mark.parametrize(("name", "column"), [("ctr", 0), ("ctcvr", 1)])
def test_scorers_of_one_task(data, model, name, column):
    X, Y = data
    p = model.predict_proba(X)[:, column].astype(float)
    expected = {
        "average_precision": average_precision_score(Y[:, column], p),
        "log_loss": -log_loss(Y[:, column], p),
    }
    for key, value in expected.items():
        scorer = getattr(metrics, f"{name}_{key}_scorer")
        assert scorer(model, X, Y) == pytest.approx(value)


def test_reliability_curve_by_brute_force(rows):
    y, p, weight = rows
    curve = reliability_curve(y, p, n_bins=6, sample_weight=weight)
    assert curve.weight.sum() == weight.sum()
    assert (np.diff(curve.predicted) > 0).all()
    # Each bin has its share of the weights, up to one row.
    assert np.abs(curve.weight - weight.sum() / 6).max() <= weight.max()
    order, start = np.argsort(p), 0
    for k, total in enumerate(curve.weight):
        stop = start + 1
        while weight[order[start:stop]].sum() < total:
            stop += 1
        inside = order[start:stop][weight[order[start:stop]] > 0]
        w, start = weight[inside], stop
        assert curve.predicted[k] == pytest.approx(np.average(p[inside], weights=w))
        assert curve.observed[k] == pytest.approx(np.average(y[inside], weights=w))
        assert curve.n_effective[k] == pytest.approx(w.sum() ** 2 / (w**2).sum())
    error = np.average(np.abs(curve.predicted - curve.observed), weights=curve.weight)
    assert error == pytest.approx(
        expected_calibration_error(y, p, n_bins=6, sample_weight=weight)
    )


def test_reliability_curve_leaves_out_bins_without_rows():
    curve = reliability_curve([0, 1, 1], [0.1, 0.1, 0.9], n_bins=10)
    assert_allclose(curve.predicted, [0.1, 0.9])
    assert_allclose(curve.observed, [0.5, 1.0])
    assert_allclose(curve.weight, [2, 1])
    assert_allclose(curve.n_effective, [2, 1])

"""Metrics of amounts against brute force over pairs of rows and over bins."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import roc_auc_score

from sk_pwiser.metrics import normalized_gini, predicted_over_observed, value_deciles

N = 301
METRICS = [normalized_gini, value_deciles, predicted_over_observed]
ONES = pd.Series([1, 1, 1])


@pytest.fixture
def rows():
    """Amounts of which most are 0, predictions with ties, and integer weights."""
    rng = np.random.default_rng(0)
    mean = rng.lognormal(size=N)
    amounts = np.where(rng.random(N) < 0.3, mean * rng.lognormal(size=N), 0)
    return amounts, mean.round(1), rng.integers(0, 4, size=N)


def gini_of_pairs(amounts, predicted, weight):
    """Sum the differences of amounts over all pairs of rows in the predicted order."""
    pairs = weight[:, None] * weight
    differences = amounts[:, None] - amounts
    order = np.sign(predicted[:, None] - predicted)
    in_order = (pairs * differences * order).sum()
    return in_order / (pairs * np.abs(differences)).sum()


def test_normalized_gini_is_a_sum_over_pairs(rows):
    amounts, predicted, weight = rows
    expected = gini_of_pairs(amounts, predicted, np.ones(N))
    assert 0.1 < expected < 0.9
    assert normalized_gini(amounts, predicted) == pytest.approx(expected)
    assert normalized_gini(amounts, predicted, sample_weight=weight) == pytest.approx(
        gini_of_pairs(amounts, predicted, weight)
    )


def test_normalized_gini_of_labels_is_an_auc(rows):
    amounts, predicted, weight = rows
    labels = (amounts > 0).astype(int)
    auc = roc_auc_score(labels, predicted, sample_weight=weight)
    gini = normalized_gini(labels, predicted, sample_weight=weight)
    assert gini == pytest.approx(2 * auc - 1)


def test_bounds_of_the_normalized_gini(rows):
    amounts, predicted, _ = rows
    assert normalized_gini(amounts, amounts**2) == pytest.approx(1)
    assert normalized_gini(amounts, -amounts) == pytest.approx(-1)
    assert normalized_gini(amounts, np.ones(N)) == pytest.approx(0)
    # Units and monotone transformations of the prediction do not matter.
    assert normalized_gini(1000 * amounts, np.log(predicted + 1)) == pytest.approx(
        normalized_gini(amounts, predicted)
    )


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=30),
    st.randoms(use_true_random=False),
)
def test_the_order_of_rows_with_equal_predictions_does_not_matter(rows, random):
    amounts, predicted = np.array([*rows, (0, 0), (1, 1)]).T
    places = random.sample(range(len(amounts)), len(amounts))
    for metric in (normalized_gini, predicted_over_observed):
        expected = metric(amounts, predicted)
        assert metric(amounts[places], predicted[places]) == pytest.approx(expected)
    observed = value_deciles(amounts, predicted, n_bins=3).observed
    shuffled = value_deciles(amounts[places], predicted[places], n_bins=3).observed
    assert_allclose(observed, shuffled)


@pytest.mark.parametrize("metric", [normalized_gini, predicted_over_observed])
def test_weights_are_repetitions(rows, metric):
    amounts, predicted, weight = rows
    repeated = metric(np.repeat(amounts, weight), np.repeat(predicted, weight))
    assert metric(amounts, predicted, sample_weight=weight) == pytest.approx(repeated)


def test_weights_of_deciles_are_repetitions(rows):
    amounts, predicted, weight = rows
    deciles = value_deciles(amounts, predicted, sample_weight=weight)
    repeated = value_deciles(np.repeat(amounts, weight), np.repeat(predicted, weight))
    for name in ("predicted", "observed", "weight"):
        assert_allclose(deciles[name], repeated[name])


@pytest.mark.parametrize("n_bins", [1, 7, 43])
def test_deciles_are_totals_of_equally_many_rows(rows, n_bins):
    amounts, predicted, _ = rows
    predicted = predicted + np.linspace(0, 0.01, N)  # without ties
    order = np.argsort(predicted)
    starts = [round(j * N / n_bins) for j in range(n_bins + 1)]
    bins = [order[start:stop] for start, stop in pairwise(starts)]
    deciles = value_deciles(amounts, predicted, n_bins=n_bins)
    assert_allclose(deciles.observed, [amounts[inside].sum() for inside in bins])
    assert_allclose(deciles.predicted, [predicted[inside].sum() for inside in bins])
    assert_allclose(deciles.weight, N / n_bins)
    assert_allclose(deciles.n_effective, N / n_bins)


def test_rows_with_equal_predictions_are_in_one_decile():
    deciles = value_deciles([5, 0, 1, 9], [2, 2, 2, 7])
    assert_allclose(deciles.observed, [6, 9])
    assert_allclose(deciles.predicted, [6, 7])
    assert_allclose(deciles.weight, [3, 1])


def test_totals_of_amounts(rows):
    amounts, predicted, weight = rows
    ratio = predicted_over_observed(amounts, predicted, sample_weight=weight)
    assert ratio == pytest.approx((weight @ predicted) / (weight @ amounts))
    deciles = value_deciles(amounts, predicted, sample_weight=weight)
    assert deciles.predicted.sum() / deciles.observed.sum() == pytest.approx(ratio)


def test_amounts_without_an_order():
    with pytest.warns(UndefinedMetricWarning, match="all amounts are equal"):
        assert np.isnan(normalized_gini([2, 2, 5], [1, 2, 3], sample_weight=[1, 1, 0]))
    with pytest.warns(UndefinedMetricWarning, match="all amounts are equal"):
        assert np.isnan(normalized_gini([0, 0], [1, 2]))


def test_scores_below_0_have_an_order_but_no_total():
    assert normalized_gini([0, 3], [-2, -1]) == 1
    with pytest.raises(ValueError, match="y_pred must be finite and >= 0, got -2"):
        value_deciles([0, 3], [-2, -1])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("y", "predicted", "weight", "message"),
    [
        ([0, -2], [1, 2], None, "y_true must be finite and >= 0, got -2 in row 1"),
        ([0, np.nan], [1, 2], None, "y_true must be .* got nan in row 1"),
        ([0, np.inf], [1, 2], None, "y_true must be .* got inf in row 1"),
        ([0, 1], [np.nan, 2], None, "y_pr.* must be finite.* got nan in row 0"),
        ([0, 1], [1, np.inf], None, "y_pr.* must be finite.* got inf in row 1"),
        ([0, 1, 1], [1, 2], None, "inconsistent"),
        ([], [], None, "at least one row"),
        ([0, 1], [1, 2], [1], "inconsistent"),
        ([0, 1], [1, 2], [1, -1], "sample_weight must be finite and >= 0"),
        ([0, 1], [1, 2], [0, 0], "sample_weight must be finite and >= 0"),
        (ONES, ONES[::-1], None, "y_true and y_pr.* have the same index labels"),
        (ONES, ONES, ONES[::-1], "y_true and sample_weight have the same index"),
    ],
)
def test_bad_rows(metric, y, predicted, weight, message):
    with pytest.raises(ValueError, match=message):
        metric(y, predicted, sample_weight=weight)


@pytest.mark.parametrize("n_bins", [0, 2.5])
def test_bad_numbers_of_bins(n_bins):
    message = f"n_bins must be an integer >= 1, got {n_bins}"
    with pytest.raises(ValueError, match=message):
        value_deciles([0, 1], [1, 2], n_bins=n_bins)

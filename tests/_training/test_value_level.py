"""The level of amounts after updates, compared with its formula in numpy."""

from copy import deepcopy

import numpy as np
import pytest
from numpy.testing import assert_allclose
from small_model import small

from sk_pwiser.datasets import make_ctr_cvr

N = 6_000
N_FIRST = 3_000
LOG = make_ctr_cvr(
    N, n_categorical=2, n_categories=(5, 3), ctr=0.5, cvr=0.5, random_state=0
)
X = LOG.data
BOUGHT = (LOG.target["conversion"] == 1).to_numpy()
HEAVY = np.random.default_rng(0).lognormal(sigma=1.5, size=N)
Y = LOG.target.assign(spend=np.where(BOUGHT, HEAVY, 0))
WEIGHT = np.random.default_rng(1).integers(1, 4, N).astype(float)


@pytest.fixture(scope="module")
def model():
    """A model whose steps are too short to change its scores."""
    model = small(value_tasks={"spend": "conversion"}, lr=1e-9, max_epochs=1)
    rows = slice(N_FIRST)
    return model.fit(X[rows], Y[rows], sample_weight=WEIGHT[rows])


def updated(model, rows, labels=Y):
    model = deepcopy(model)
    return model.partial_fit(X[rows], labels[rows], sample_weight=WEIGHT[rows])


def log_move(model, later_model):
    """Return the logarithm of the factor between the predictions of two models."""
    before, after = (
        m.predict_value(X[:5], given_event=True) for m in (model, later_model)
    )
    return np.log(after / before).mean()


def residuals(model, rows):
    """Return amounts of rows with the event, predictions and weights."""
    chosen = np.arange(N)[rows][BOUGHT[rows]]
    predicted = model.predict_value(X.iloc[chosen], given_event=True)
    return HEAVY[chosen], predicted, WEIGHT[chosen]


def gap_and_ratio(model, rows):
    amounts, predicted, weight = residuals(model, rows)
    log_ratio = np.log((weight * amounts).sum() / (weight * predicted).sum())
    # Amounts below a thousandth of the mean amount would count as this one.
    mean_log = np.average(np.log(amounts / predicted), weights=weight)
    return mean_log - log_ratio, log_ratio


def expected_move(model, rows, n_earlier, earlier_gap):
    amounts, predicted, weight = residuals(model, rows)
    gap, log_ratio = gap_and_ratio(model, rows)
    n_amounts = len(amounts)
    logs = np.log(amounts / predicted)
    variance_of_logs = np.cov(logs, aweights=weight, ddof=0) / n_amounts + 0.05**2
    errors = amounts - np.exp(log_ratio) * predicted
    mean_square = np.average(errors**2, weights=weight)
    mean_amount = np.average(amounts, weights=weight)
    variance_of_totals = mean_square / mean_amount**2 / n_amounts
    share = variance_of_totals / (variance_of_totals + variance_of_logs)
    pooled_gap = (n_earlier * earlier_gap + n_amounts * gap) / (n_earlier + n_amounts)
    trust = n_amounts / (n_amounts + 100)
    return trust * (log_ratio + share * (gap - pooled_gap)), pooled_gap


def test_updates_follow_the_formula(model):
    first_gap, _ = gap_and_ratio(model, slice(N_FIRST))
    n_earlier = BOUGHT[:N_FIRST].sum()
    second = slice(N_FIRST, 3_500)
    after_second = updated(model, second)
    move, gap = expected_move(model, second, n_earlier, first_gap)
    assert_allclose(log_move(model, after_second), move, atol=1e-4)
    third = slice(3_500, 4_000)
    n_earlier += BOUGHT[second].sum()
    after_third = updated(after_second, third)
    move, _ = expected_move(after_second, third, n_earlier, gap)
    assert_allclose(log_move(after_second, after_third), move, atol=1e-4)


def test_updates_scatter_less_than_totals_of_heavy_tails(model):
    starts = range(N_FIRST, N, 200)
    by_level = []
    by_totals = []
    for start in starts:
        rows = slice(start, start + 200)
        by_level.append(log_move(model, updated(model, rows)))
        n_amounts = BOUGHT[rows].sum()
        _, log_ratio = gap_and_ratio(model, rows)
        by_totals.append(n_amounts / (n_amounts + 100) * log_ratio)
    assert np.std(by_level) < 0.8 * np.std(by_totals)


def test_higher_prices_are_followed(model):
    rows = slice(N_FIRST, N)
    dearer = Y.assign(spend=2 * Y["spend"])
    at_old_prices = updated(model, rows)
    at_new_prices = updated(model, rows, dearer)
    n_amounts = BOUGHT[rows].sum()
    expected = n_amounts / (n_amounts + 100) * np.log(2)
    assert_allclose(log_move(at_old_prices, at_new_prices), expected, rtol=1e-3)


def test_without_a_gap_of_earlier_rows_totals_set_the_level(model):
    """Files of early development versions have none."""
    old = deepcopy(model)
    terms = old.net_.criterion_.value_terms
    state = terms.state_dict()
    del state["log_gaps"]
    terms.load_state_dict(state)
    assert terms.log_gaps.isnan().all()
    rows = slice(N_FIRST, 3_500)
    _, log_ratio = gap_and_ratio(model, rows)
    n_amounts = BOUGHT[rows].sum()
    expected = n_amounts / (n_amounts + 100) * log_ratio
    assert_allclose(log_move(old, updated(old, rows)), expected, atol=1e-4)

"""The level of amounts after updates, compared with its formula in numpy."""

from copy import deepcopy

import numpy as np
import pytest
from numpy.testing import assert_allclose
from small_model import small

from sk_pwiser._training import _value_level
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


@pytest.fixture(scope="module", autouse=True)
def _no_shrinking():
    """Predictions that are shrunk by few amounts are tested in `test_few_amounts`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_value_level, "SHRINKING_AMOUNTS", 0.0)
        yield


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


def squared_logs(model, rows):
    """Return the sum of squares by which all amounts so far scatter."""
    amounts, predicted, weight = residuals(model, rows)
    logs = np.log(amounts / predicted)
    return ((logs - np.average(logs, weights=weight)) ** 2 * weight).sum()


def squared_error_of_total(model, rows):
    """Return the squared relative error of a total."""
    amounts, predicted, weight = residuals(model, rows)
    _, log_ratio = gap_and_ratio(model, rows)
    errors = amounts - np.exp(log_ratio) * predicted
    mean_square = np.average(errors**2, weights=weight)
    return mean_square / np.average(amounts, weights=weight) ** 2 / weight.sum()


def expected_move(model, rows, *, n_earlier, gap_earlier, squares_earlier):
    """Return the move that rows ask for, and the gap and the squares after it.

    The weights are counts: an amount with the weight 3 counts as three.
    """
    amounts, predicted, weight = residuals(model, rows)
    gap, log_ratio = gap_and_ratio(model, rows)
    mean_log = gap + log_ratio
    n_amounts = weight.sum()
    squares = squares_earlier + squared_logs(model, rows)
    least_variance = (squares + 1) / (n_earlier + n_amounts) / n_amounts
    logs = np.log(amounts / predicted)
    variance_of_logs = np.cov(logs, aweights=weight, ddof=0) / n_amounts + 0.05**2
    variance_of_logs = max(variance_of_logs, least_variance)
    variance_of_totals = max(squared_error_of_total(model, rows), least_variance)
    gap -= variance_of_totals / 2
    if gap_earlier is None:
        gap_earlier = gap
    share = variance_of_totals / (variance_of_totals + variance_of_logs)
    pooled_gap = (n_earlier * gap_earlier + n_amounts * gap) / (n_earlier + n_amounts)
    move_of_logs = mean_log - pooled_gap
    move = (1 - share) * log_ratio + share * move_of_logs
    variance = (1 - share) * variance_of_totals
    drift = 0.05**2 + variance * n_amounts / n_earlier
    jump = max(move**2 - 9 * variance, 0)
    trust = max(
        drift / (drift + variance),
        jump / (jump + variance) * n_amounts**2 / (n_amounts**2 + 30**2),
    )
    largest_ratio = min(np.exp(log_ratio), np.exp(3 * np.sqrt(variance_of_totals)))
    move_of_totals = np.log(1 + trust * (largest_ratio - 1))
    move_of_totals = max(move_of_totals, trust * log_ratio)
    expected = (1 - share) * move_of_totals + share * trust * move_of_logs
    return expected, pooled_gap, squares


def test_updates_follow_the_formula(model):
    first = slice(N_FIRST)
    n_earlier = WEIGHT[first][BOUGHT[first]].sum()
    gap, _ = gap_and_ratio(model, first)
    gap -= squared_error_of_total(model, first) / 2
    squares = squared_logs(model, first)
    for start in (3_000, 3_500, 3_520, 4_500):
        rows = slice(start, start + (20 if start == 3_500 else 500))
        later = updated(model, rows)
        move, gap, squares = expected_move(
            model,
            rows,
            n_earlier=n_earlier,
            gap_earlier=gap,
            squares_earlier=squares,
        )
        assert_allclose(log_move(model, later), move, atol=1e-4)
        n_earlier += WEIGHT[rows][BOUGHT[rows]].sum()
        model = later


def test_updates_scatter_less_than_totals_of_heavy_tails(model):
    starts = range(N_FIRST, N, 200)
    by_level = []
    by_totals = []
    for start in starts:
        rows = slice(start, start + 200)
        by_level.append(log_move(model, updated(model, rows)))
        _, log_ratio = gap_and_ratio(model, rows)
        by_totals.append(log_ratio)
    assert np.std(by_level) < 0.6 * np.std(by_totals)


def test_higher_prices_are_followed(model):
    rows = slice(N_FIRST, N)
    dearer = Y.assign(spend=2 * Y["spend"])
    at_old_prices = updated(model, rows)
    at_new_prices = updated(model, rows, dearer)
    move = log_move(at_old_prices, at_new_prices)
    assert 0.85 * np.log(2) < move < 1.05 * np.log(2)


def test_one_huge_amount_hardly_moves_the_level(model):
    rows = slice(N_FIRST, N_FIRST + 10)
    huge = Y.assign(spend=np.where(BOUGHT, 1e4, 0))
    assert BOUGHT[rows].sum() < 5
    assert log_move(model, updated(model, rows, huge)) < 1


def test_single_amounts_do_not_move_it_to_their_geometric_mean(model):
    later = deepcopy(model)
    with_amount = np.flatnonzero(BOUGHT[N_FIRST:]) + N_FIRST
    for row in with_amount[:300]:
        later.partial_fit(X[row : row + 1], Y[row : row + 1])
    _, log_ratio = gap_and_ratio(model, slice(N_FIRST, with_amount[300]))
    # The mean logarithm is about 1.1 below the logarithm of the mean.
    assert abs(log_move(model, later) - log_ratio) < 0.3


def test_without_a_gap_of_earlier_rows_totals_set_the_level(model):
    """Files of early development versions have none."""
    old = deepcopy(model)
    terms = old.net_.criterion_.value_terms
    state = terms.state_dict()
    del state["log_gaps"]
    terms.load_state_dict(state)
    assert terms.log_gaps.isnan().all()
    first = slice(N_FIRST)
    rows = slice(N_FIRST, 3_500)
    expected, _, _ = expected_move(
        model,
        rows,
        n_earlier=WEIGHT[first][BOUGHT[first]].sum(),
        gap_earlier=None,
        squares_earlier=squared_logs(model, first),
    )
    assert_allclose(log_move(old, updated(old, rows)), expected, atol=1e-4)


def test_training_does_not_learn_a_move_again():
    """After dearer rows, further rows of these prices leave the level as it is."""
    model = small(value_tasks={"spend": "conversion"}, max_epochs=1)
    dearer = Y.assign(spend=2 * Y["spend"])
    model.fit(X[:N_FIRST], Y[:N_FIRST])
    for start in range(N_FIRST, N, 500):
        rows = slice(start, start + 500)
        model.partial_fit(X[rows], dearer[rows])
    predicted = model.predict_value(X, given_event=True)[BOUGHT].sum()
    assert_allclose(predicted / (2 * HEAVY[BOUGHT].sum()), 1, atol=0.2)


def test_counts_as_weights_are_numbers_of_amounts():
    rows = np.repeat(np.arange(N_FIRST), WEIGHT[:N_FIRST].astype(int))
    values = {"spend": "conversion"}
    counted = small(value_tasks=values).fit(
        X[:N_FIRST], Y[:N_FIRST], sample_weight=WEIGHT[:N_FIRST]
    )
    repeated = small(value_tasks=values).fit(X.iloc[rows], Y.iloc[rows])
    n_amounts = [
        model.net_.criterion_.value_terms.n_amounts.item()
        for model in (counted, repeated)
    ]
    assert_allclose(*n_amounts)

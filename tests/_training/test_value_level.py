"""The level of amounts after updates, compared with its formula in numpy."""

from copy import deepcopy
from itertools import product

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from small_model import small

from sk_pwiser._training._levels import _amount_level
from sk_pwiser.datasets import make_ctr_cvr

N = 6_000
N_FIRST = 3_000
DEVIATIONS = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6)
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
        patch.setattr(_amount_level, "SHRINKING_AMOUNTS", 0.0)
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


def expected_move(model, rows, *, n_earlier, squares_earlier, share):
    """Return the move of the first update, filter by filter.

    The weights are counts: an amount with the weight 3 counts as three. `share` is
    that of the rows of the fit that the update has.
    """
    _, log_ratio = gap_and_ratio(model, rows)
    _, _, weight = residuals(model, rows)
    n_amounts = weight.sum()
    squares = squares_earlier + squared_logs(model, rows)
    least_variance = (squares + 1) / (n_earlier + n_amounts) / n_amounts
    error = max(squared_error_of_total(model, rows), least_variance)
    move = 0.0
    total = 0.0
    for drift, deviation in product(0.2 * 2.0 ** np.arange(-5, 6), DEVIATIONS):
        variance = error * n_amounts / n_earlier + drift**2 * share
        noise = error + deviation**2
        expected_square = variance + noise
        surprise = min(log_ratio**2 / expected_square, 9)
        log_weight = -(np.log2(drift / 0.2) ** 2) / 8 - surprise / 2
        log_weight -= DEVIATIONS.index(deviation) * np.log(3)
        weight_of_filter = np.exp(log_weight) / np.sqrt(expected_square)
        gain = variance / expected_square
        largest_ratio = np.exp(min(log_ratio, 3 * np.sqrt(noise)))
        move_of_filter = np.log(1 + gain * (largest_ratio - 1))
        move += weight_of_filter * max(move_of_filter, gain * log_ratio)
        total += weight_of_filter
    return move / total


@pytest.mark.parametrize("n_rows", [20, 500])
def test_updates_follow_the_formula(model, n_rows):
    first = slice(N_FIRST)
    rows = slice(N_FIRST, N_FIRST + n_rows)
    expected = expected_move(
        model,
        rows,
        n_earlier=WEIGHT[first][BOUGHT[first]].sum(),
        squares_earlier=squared_logs(model, first),
        share=WEIGHT[rows].sum() / model.net_.criterion_.n_rows.item(),
    )
    assert_allclose(log_move(model, updated(model, rows)), expected, atol=2e-3)


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
    dearer = Y.assign(spend=2 * Y["spend"])
    at_old_prices = model
    at_new_prices = model
    for start in range(N_FIRST, N, 1_000):
        rows = slice(start, start + 1_000)
        at_old_prices = updated(at_old_prices, rows)
        at_new_prices = updated(at_new_prices, rows, dearer)
    move = log_move(at_old_prices, at_new_prices)
    assert 0.75 * np.log(2) < move < 1.1 * np.log(2)


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


def test_states_of_0_2_0_load(model):
    """They have a sum that is no longer needed, and no drift."""
    terms = deepcopy(model).net_.criterion_.value_terms
    state = {k: v for k, v in terms.state_dict().items() if "drift" not in k}
    terms.load_state_dict({**state, "log_gaps": torch.zeros(1)})


class TestRunningAway:
    """The level is an estimate, whatever rows come."""

    def fed(self, loss, labels, rows, n_times, X_fed=X):
        model = small(value_tasks={"spend": "conversion"}, value_loss=loss)
        model.fit(X[:N_FIRST], Y[:N_FIRST])
        for _ in range(n_times):
            model.partial_fit(X_fed.iloc[rows], labels.iloc[rows])
        return model

    def ratio(self, model, labels, rows):
        rows = np.asarray(rows)[BOUGHT[rows]]
        predicted = model.predict_value(X.iloc[rows], given_event=True)
        return predicted.sum() / labels["spend"].iloc[rows].sum()

    @pytest.mark.parametrize("loss", ["lognormal", "gamma"])
    def test_the_same_rows_again_and_again(self, loss):
        rows = np.arange(N_FIRST, N_FIRST + 200)
        model = self.fed(loss, Y, rows, 60)
        assert 0.7 < self.ratio(model, Y, rows) < 1.4

    @pytest.mark.slow
    @pytest.mark.parametrize("loss", ["lognormal", "gamma"])
    @pytest.mark.parametrize("n_rows", [1, 200])
    def test_a_thousand_times(self, loss, n_rows):
        first = np.flatnonzero(BOUGHT)[-1] - n_rows + 1
        rows = np.arange(first, first + n_rows)
        model = self.fed(loss, Y, rows, 1_000)
        assert 0.5 < self.ratio(model, Y, rows) < 2
        # A level of one row alone may be far from that of the others.
        assert 0.1 < self.ratio(model, Y, np.arange(N_FIRST)) < 10

    @pytest.mark.parametrize("loss", ["lognormal", "gamma"])
    def test_no_amounts(self, loss):
        none = Y.assign(conversion=0, spend=0.0)
        rows = np.arange(N_FIRST, N_FIRST + 200)
        before = self.ratio(self.fed(loss, none, rows, 0), Y, np.arange(N_FIRST))
        after = self.ratio(self.fed(loss, none, rows, 30), Y, np.arange(N_FIRST))
        assert_allclose(after, before, rtol=0.05)

    @pytest.mark.parametrize("loss", ["lognormal", "gamma"])
    def test_a_single_amount(self, loss):
        row = np.flatnonzero(BOUGHT[N_FIRST:])[:1] + N_FIRST
        rows = np.concatenate([row, np.flatnonzero(~BOUGHT[N_FIRST:])[:50] + N_FIRST])
        before = self.ratio(self.fed(loss, Y, rows, 0), Y, np.arange(N_FIRST))
        after = self.ratio(self.fed(loss, Y, rows, 1), Y, np.arange(N_FIRST))
        assert_allclose(after, before, rtol=0.2)


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

"""Logarithms of predicted amounts are shrunk to their mean if amounts are few."""

from copy import deepcopy

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from small_model import small

from sk_pwiser._training._levels import _amount_level
from sk_pwiser.datasets import make_ctr_cvr

N = 600
LOG = make_ctr_cvr(N, n_categorical=0, ctr=0.5, cvr=0.5, random_state=0)
X = LOG.data
BOUGHT = (LOG.target["conversion"] == 1).to_numpy()
MEANS = np.exp(X.to_numpy()[:, 0] / 2)
NOISE = np.random.default_rng(0).lognormal(size=N)
Y = LOG.target.assign(spend=np.where(BOUGHT, MEANS * NOISE, 0))


def valued(**params):
    return small(value_tasks={"spend": "conversion"}, **params)


def slope(model):
    return model.net_.module_.value_slope.item()


def log_amounts(model):
    return np.log(model.predict_value(X, given_event=True))


def share_of(n_amounts, variance):
    """Return the slope of so many amounts; one more deviates by 1."""
    return n_amounts / (n_amounts + 40 * (variance + 1 / n_amounts))


def rows_with(n_amounts, first=0):
    """Return the numbers of all rows without an amount, and of some with one."""
    with_amount = np.flatnonzero(BOUGHT)[first : first + n_amounts]
    return np.concatenate([with_amount, np.flatnonzero(~BOUGHT)])


@pytest.fixture(scope="module")
def unshrunk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_amount_level, "SHRINKING_AMOUNTS", 0.0)
        return valued().fit(X, Y)


@pytest.fixture(scope="module")
def model():
    return valued().fit(X, Y)


def test_a_fit_shrinks_by_the_number_and_the_scatter_of_amounts(model, unshrunk):
    residuals = np.log(Y["spend"][BOUGHT]) - log_amounts(unshrunk)[BOUGHT]
    n_amounts = BOUGHT.sum()
    share = share_of(n_amounts, residuals.var(ddof=0))
    assert slope(unshrunk) == 1
    before = log_amounts(unshrunk)
    after = log_amounts(model)
    assert before.std() > 0.01
    assert_allclose(after - after.mean(), share * (before - before.mean()), atol=1e-5)


@pytest.mark.parametrize("loss", ["lognormal", "gamma"])
def test_totals_agree_after_it(loss):
    model = valued(value_loss=loss).fit(X, Y)
    assert slope(model) < 1
    total = model.predict_value(X, given_event=True)[BOUGHT].sum()
    assert_allclose(total, Y["spend"].sum(), rtol=1e-4)


def test_means_per_impression_are_not_shrunk():
    assert slope(valued(value_loss="tweedie").fit(X, Y)) == 1


def test_amounts_that_do_not_scatter_are_not_shrunk():
    equal = Y.assign(spend=np.where(BOUGHT, 10.0, 0))
    assert slope(valued().fit(X, equal)) == 1


def test_updates_shrink_less(model):
    later = deepcopy(model)
    slopes = [slope(later)]
    for _ in range(3):
        later.partial_fit(X, Y)
        slopes.append(slope(later))
    assert_array_equal(np.sort(slopes), slopes)
    n_amounts = 4 * BOUGHT.sum()
    residuals = np.log(Y["spend"][BOUGHT]) - log_amounts(later)[BOUGHT]
    share = share_of(n_amounts, residuals.var(ddof=0))
    assert_allclose(slopes[-1], share, atol=0.01)


@pytest.mark.parametrize("n_amounts", [1, 2, 5])
def test_a_small_update_does_not_undo_it(n_amounts):
    """Few amounts scatter little by chance, one of them not at all."""
    rows = rows_with(25)
    model = valued().fit(X.iloc[rows], Y.iloc[rows])
    before = slope(model)
    assert before < 0.6
    later = rows_with(n_amounts, first=25)
    model.partial_fit(X.iloc[later], Y.iloc[later])
    assert before < slope(model) < before + 0.1


def test_a_single_amount_is_predicted_for_nearly_all_rows():
    rows = rows_with(1)
    model = valued().fit(X.iloc[rows], Y.iloc[rows])
    assert_allclose(slope(model), share_of(1, 0), rtol=1e-5)


def test_rows_without_an_amount_change_nothing():
    model = valued()
    labels = Y.assign(conversion=0, spend=0.0)
    model.partial_fit(X, labels)
    assert slope(model) == 1


def test_states_without_slopes_are_not_shrunk(model):
    """Files of early development versions have none."""
    network = deepcopy(model).net_.module_
    state = network.state_dict()
    del state["value_slope"]
    network.load_state_dict(state)
    assert_array_equal(network.value_slope.numpy(), 1)

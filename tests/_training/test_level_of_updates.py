"""The level of probabilities after updates: that of the rows, not of the last steps."""

from copy import deepcopy

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import brentq, minimize
from scipy.special import expit, logit

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._fit import _train_once
from sk_pwiser.datasets import make_ctr_cvr

N_FIRST = 6_000
LOG = make_ctr_cvr(
    14_000, n_categorical=2, n_categories=(5, 3), ctr=0.3, cvr=0.3, random_state=0
)
X, Y = LOG.data, LOG.target
TRUTH = np.column_stack([LOG.ctr, LOG.ctr * LOG.cvr])
UPDATE = slice(N_FIRST, N_FIRST + 1_000)


@pytest.fixture(scope="module")
def model():
    return MultiTaskCTRCVRClassifier(random_state=0).fit(X[:N_FIRST], Y[:N_FIRST])


def log_odds(model, rows=UPDATE):
    return logit(model.predict_proba(X[rows]).astype(float))


def updated(model, rows=UPDATE, **params):
    return deepcopy(model).set_params(**params).partial_fit(X[rows], Y[rows])


def most_probable_offset(log_odds, y):
    """Return the offset whose logarithm has a standard deviation of 0.1 before."""

    def minus_log_posterior(offset):
        p = expit(log_odds + offset)
        losses = -(y * np.log(p) + (1 - y) * np.log1p(-p))
        return losses.sum() + (offset**2).sum() / 2 / 0.1**2

    return minimize(minus_log_posterior, np.zeros(2), tol=1e-10).x


def test_rows_move_it_as_far_as_their_events_tell(model):
    """The steps of this update are too short to change anything else."""
    before = log_odds(model)
    expected = most_probable_offset(before, Y[UPDATE].to_numpy())
    assert abs(expected).min() > 0.005
    moves = log_odds(updated(model, lr=1e-12)) - before
    assert_allclose(moves.mean(axis=0), expected, atol=1e-3)


def test_training_does_not_change_it(model, monkeypatch):
    before = log_odds(model)
    y = Y[UPDATE].to_numpy()
    at_level = expit(before + most_probable_offset(before, y))
    after = log_odds(updated(model))
    monkeypatch.setattr(_train_once, "keep_level", lambda *_: None)
    trained = log_odds(updated(model))
    for task, n_events in enumerate(y.sum(axis=0)):

        def surplus(offset, task=task):
            return (expit(trained[:, task] + offset) - at_level[:, task]).sum()

        offset = brentq(surplus, -5, 5)
        moves = after[:, task] - trained[:, task]
        kept_share = n_events / (n_events + 100)
        assert_allclose(moves.mean(), kept_share * offset, atol=2e-3)
        assert abs(offset) > 0.01


def test_many_small_updates_keep_it(model):
    model = deepcopy(model)
    for start in range(N_FIRST, N_FIRST + 1_000, 10):
        rows = slice(start, start + 10)
        model.partial_fit(X[rows], Y[rows])
    later = slice(N_FIRST + 1_000, None)
    ratio = model.predict_proba(X[later]).mean(axis=0) / TRUTH[later].mean(axis=0)
    assert_allclose(ratio, 1, atol=0.25)


def test_days_scatter_little(model):
    model = deepcopy(model)
    ratios = []
    later = slice(N_FIRST + 5_000, None)
    for start in range(N_FIRST, N_FIRST + 5_000, 1_000):
        rows = slice(start, start + 1_000)
        model.partial_fit(X[rows], Y[rows])
        means = model.predict_proba(X[later]).mean(axis=0)
        ratios.append(means / TRUTH[later].mean(axis=0))
    # A day has about 90 conversions, the error of whose number is 10 %.
    assert_allclose(ratios, 1, atol=0.2)
    assert (np.std(ratios, axis=0) < 0.08).all()


def test_tasks_without_labels_keep_their_level():
    model = MultiTaskCTRCVRClassifier(random_state=0, missing_labels="ignore")
    model.fit(X[:N_FIRST], Y[:N_FIRST])
    labels = Y[UPDATE].assign(conversion=np.nan)
    before = log_odds(model)
    later = deepcopy(model).set_params(lr=1e-12).partial_fit(X[UPDATE], labels)
    moves = (log_odds(later) - before).mean(axis=0)
    assert abs(moves[0]) > 2e-3
    assert abs(moves[1]) < 1e-3


def test_counts_as_weights_are_numbers_of_rows():
    counts = np.random.default_rng(0).integers(1, 6, N_FIRST).astype(float)
    model = MultiTaskCTRCVRClassifier(random_state=0)
    model.fit(X[:N_FIRST], Y[:N_FIRST], sample_weight=counts)
    before = log_odds(model)
    weight = counts[:1_000]
    counted = deepcopy(model).set_params(lr=1e-12)
    counted.partial_fit(X[UPDATE], Y[UPDATE], sample_weight=weight)
    rows = np.repeat(np.arange(1_000), weight.astype(int)) + N_FIRST
    expected = most_probable_offset(
        logit(model.predict_proba(X.iloc[rows]).astype(float)), Y.iloc[rows].to_numpy()
    )
    moves = log_odds(counted) - before
    assert_allclose(moves.mean(axis=0), expected, atol=1e-3)

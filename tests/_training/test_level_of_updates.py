"""The level of probabilities after updates: that of the rows, not of the last steps."""

from copy import deepcopy
from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import brentq
from scipy.special import expit, logit

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr

N_FIRST = 6_000
DEVIATIONS = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6)
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


def gap_and_error(log_odds, y):
    """Return the offset that labels ask for alone, and its squared error, by task."""
    gaps = []
    errors = []
    for task in range(2):
        logits = log_odds[:, task]

        def surplus(offset, logits=logits, task=task):
            return (expit(logits + offset) - y[:, task]).sum()

        gaps.append(brentq(surplus, -5, 5))
        p = expit(logits + gaps[-1])
        errors.append(1 / (p * (1 - p)).sum())
    return np.array(gaps), np.array(errors)


def expected_moves(log_odds, y, n_events, share):
    """Return the moves of the first update by Kalman filters, one by one.

    `share` is that of the rows of the fit that the update has.
    """
    gaps, errors = gap_and_error(log_odds, y)
    moves = np.zeros(2)
    for task in range(2):
        total = 0.0
        for drift, deviation in product(0.2 * 2.0 ** np.arange(-5, 6), DEVIATIONS):
            variance = 0.25 / (1 + n_events[task] / 10) + drift**2 * share
            noise = errors[task] + deviation**2
            expected_square = variance + noise
            surprise = min(gaps[task] ** 2 / expected_square, 9)
            log_weight = -(np.log2(drift / 0.2) ** 2) / 8 - surprise / 2
            log_weight -= DEVIATIONS.index(deviation) * np.log(3)
            weight = np.exp(log_weight) / np.sqrt(expected_square)
            moves[task] += weight * variance / expected_square * gaps[task]
            total += weight
        moves[task] /= total
    return moves


def n_training_events(model):
    return model.net_.criterion_.n_events.numpy().astype(float)


def test_rows_move_it_as_far_as_their_events_tell(model):
    """The steps of this update are too short to change anything else."""
    before = log_odds(model)
    share = 1_000 / model.net_.criterion_.n_rows.item()
    expected = expected_moves(
        before, Y[UPDATE].to_numpy(), n_training_events(model), share
    )
    assert abs(expected).max() > 0.005
    moves = log_odds(updated(model, lr=1e-12)) - before
    assert_allclose(moves.mean(axis=0), expected, atol=3e-3)


@pytest.mark.parametrize("n_rows", [1, 10, 100, 1_000])
def test_training_does_not_change_it(model, n_rows):
    rows = slice(N_FIRST, N_FIRST + n_rows)
    later = slice(N_FIRST + 1_000, None)
    trained = updated(model, rows).predict_proba(X[later]).mean(axis=0)
    untrained = updated(model, rows, lr=1e-12).predict_proba(X[later]).mean(axis=0)
    assert_allclose(trained / untrained, 1, atol=0.05)


def test_a_single_converted_row_hardly_moves_it(model):
    later = slice(N_FIRST, None)
    before = model.predict_proba(X[later]).mean(axis=0)
    converted = np.flatnonzero(Y["conversion"][:N_FIRST])
    for row in converted[:3]:
        rows = slice(row, row + 1)
        after = updated(model, rows).predict_proba(X[later]).mean(axis=0)
        assert_allclose(after / before, 1, atol=0.02)


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
    expected = expected_moves(
        logit(model.predict_proba(X.iloc[rows]).astype(float)),
        Y.iloc[rows].to_numpy(),
        n_training_events(model),
        weight.sum() / model.net_.criterion_.n_rows.item(),
    )
    moves = log_odds(counted) - before
    assert_allclose(moves.mean(axis=0), expected, atol=3e-3)

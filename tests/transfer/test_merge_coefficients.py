"""Coefficients of linear models, where the best ones are known."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from pools import (
    linear_estimator,
    linear_market,
    mean_log_loss,
    weights_of,
    with_weights,
)
from scipy.optimize import minimize
from sklearn.metrics import log_loss

from sk_pwiser.transfer import merge_estimators


def linear_pool(seed=0, n_members=3):
    """Return a linear base, members, and rows of both."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(0, 0.7, (2, 4))
    rows, labels = linear_market(4_000, weights, [-2.0, -3.0], seed)
    base = linear_estimator(rows, labels)
    members = [
        with_weights(base, lambda _n, w: (w + rng.normal(0, 0.5, w.shape)).astype("f4"))
        for _ in range(n_members)
    ]
    return base, members, rows, labels


def linear_logits(estimator, rows):
    """Compute the logits of a linear estimator in float64."""
    weights = weights_of(estimator)
    return rows @ weights["head.weight"].T.astype(float) + weights["head.bias"]


def test_the_coefficients_of_a_linear_model_are_those_of_scipy():
    base, members, rows, labels = linear_pool()
    merged, found = merge_estimators(
        base, members, rows, labels, bounds=(-2, 2), return_coefficients=True
    )
    start = linear_logits(base, rows)
    vectors = np.array([linear_logits(member, rows) - start for member in members])

    def objective(coefficients):
        z = start + np.tensordot(coefficients, vectors, axes=1)
        return np.mean(np.logaddexp(0, z) - labels * z)

    expected = minimize(objective, np.zeros(3), method="Nelder-Mead", tol=1e-10)
    assert_allclose(found, expected.x, atol=2e-3)
    assert_allclose(mean_log_loss(merged, rows, labels), expected.fun, rtol=1e-5)
    assert np.abs(found).min() > 0.02  # none of them is trivial


def test_the_bounds_hold():
    base, members, rows, labels = linear_pool()
    free, found = (
        merge_estimators(
            *(base, members, rows, labels),
            **{"prior": 0.1, "bounds": bounds, "return_coefficients": True},
        )[1]
        for bounds in ((-2, 2), (0, 0.2))
    )
    assert 0 <= found.min() <= found.max() <= 0.2
    assert free.min() < 0 or free.max() > 0.2


# The head starts at 0.5, and its weights are replaced after an epoch.
@pytest.mark.filterwarnings("ignore:Training diverged")
def test_the_entropy_drives_probabilities_below_a_low_base_rate():
    """Two markets at 2 %, and a common start that predicts too much."""
    weights = np.array([[0.6, 0.6]])
    rows, labels = linear_market(20_000, weights, [-4.4], 0)
    model = linear_estimator(rows, labels[:, 0])

    def with_head(w, b):
        values = {"head.weight": [w], "head.bias": [b]}
        return with_weights(
            model,
            lambda name, old: np.float32(values.get(name, old)).reshape(old.shape),
        )

    base = with_head([0.0, 0.0], -3.3)
    members = [with_head([1.0, 0.0], -4.4), with_head([0.0, 1.0], -4.4)]
    results = {}
    for objective in (None, "entropy", "log_loss"):
        merged, found = merge_estimators(
            base,
            members,
            rows,
            labels[:, 0],
            objective=objective,
            return_coefficients=True,
        )
        p = merged.predict_proba(rows)[:, 1].astype(float)
        results[objective] = found, p.mean() / labels.mean(), log_loss(labels, p)
    assert_allclose(results["entropy"][0], 1)
    assert (results["log_loss"][0] < 0.9).all()
    assert results["entropy"][1] < 0.7
    assert_allclose(results["log_loss"][1], 1, atol=0.2)
    assert results["log_loss"][2] < results[None][2] < results["entropy"][2]


def test_rows_of_a_sampled_log_are_compared_with_its_probabilities():
    """The merge that fits the sampled rows has the logits of a log with all of them."""
    rng = np.random.default_rng(0)
    rows, labels = linear_market(6_000, [[1.0, -1.0]], [-2.0], 0)
    kept = (labels[:, 0] == 1) | (rng.random(6_000) < 0.25)
    rows, labels = rows[kept], labels[kept, 0]
    mean, scale = rows.mean(axis=0), rows.std(axis=0)
    rows = (rows - mean) / scale
    base = linear_estimator(rows, labels, negative_sampling_rate=0.25)
    zero = with_weights(base, lambda _n, w: 0 * w)
    shift = {"head.weight": [[1.0, -1.0]], "head.bias": [-0.6]}
    member = with_weights(zero, lambda n, w: np.float32(shift.get(n, w)))
    merged, found = merge_estimators(
        zero, [member], rows, labels, bounds=(0, 3), return_coefficients=True
    )
    z = rows @ [1.0, -1.0] - 0.6
    grid = np.linspace(0, 3, 3_001)
    losses = [np.mean(np.logaddexp(0, c * z) - labels * c * z) for c in grid]
    assert_allclose(found[0], grid[int(np.argmin(losses))], atol=2e-3)
    odds = np.exp(found[0] * z) * 0.25
    assert_allclose(merged.predict_proba(rows)[:, 1], odds / (1 + odds), rtol=1e-4)

"""How much the estimators of a merge disturb each other."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from pools import (
    linear_estimator,
    linear_market,
    with_noise,
    with_weights,
)
from refusals import X, Y, small

from sk_pwiser.transfer import merge_estimators, merge_interference


@pytest.fixture(scope="module")
def base():
    return small(max_epochs=3).fit(X, Y)


def test_one_estimator_does_not_disturb_itself(base):
    member = with_noise(base, 0.3, 0)
    assert merge_interference(base, [member], X) == 0
    assert merge_interference(base, [member], X, coefficients=0.4) == 0


@pytest.mark.parametrize("coefficients", [1.0, 0.3, [0.2, 0.9, -0.4]])
def test_it_is_the_mean_difference_of_the_predictions_of_merges(base, coefficients):
    members = [with_noise(base, 0.1, seed) for seed in range(3)]
    values = np.broadcast_to(coefficients, 3)

    def predict(kept):
        merged = merge_estimators(
            base, members, X, objective=None, prior=values * kept, bounds=(-1, 1)
        )
        return merged.predict_proba(X).astype(float)

    together = predict(np.ones(3))
    alone = [np.abs(predict(unit) - together) for unit in np.eye(3)]
    found = merge_interference(base, members, X, coefficients=coefficients)
    assert_allclose(found, np.mean(alone, axis=(1, 2)).sum(), rtol=1e-4)
    # A market without rows contributes nothing.
    markets = np.arange(len(X)) % 2
    found = merge_interference(
        base, members, X, coefficients=coefficients, markets=markets
    )
    expected = [alone[m][markets == m].mean() for m in range(2)]
    assert_allclose(found, sum(expected), rtol=1e-4)


def test_linear_task_vectors_of_disjoint_features_do_not_interfere():
    rows, labels = linear_market(400, np.ones((2, 4)), [-1.0, -2.0], 0)
    base = linear_estimator(rows, labels)
    # Rows of a market have only its own two columns; 0 is the mean, encoded as 0.
    markets = np.arange(400) % 2
    rows = rows.copy()
    rows[markets == 0, 2:] = rows[markets == 1, :2] = 0
    shift = np.zeros((2, 4), dtype=np.float32)
    shift[:, :2] = 1

    def change(columns):
        return lambda name, w: w + columns if name == "head.weight" else w

    members = [with_weights(base, change(each)) for each in (shift, shift[:, ::-1])]
    assert merge_interference(base, members, rows, markets=markets) < 1e-7
    assert merge_interference(base, members, rows) > 0.05


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"estimators": []}, "it is empty"),
        ({"X": X[:0]}, "X must have at least one row"),
        ({"coefficients": [1, 1, 1]}, "one per estimator, 2"),
        ({"coefficients": np.inf}, "finite"),
        ({"markets": [0, 1]}, "one integer per row, 300"),
        ({"markets": np.full(len(X), 2)}, "0 to 1; got 2 to 2"),
        ({"markets": np.zeros(len(X))}, "one integer per row.*float64"),
        ({"markets": Y["click"][::-1]}, "X and markets have the same index labels in"),
    ],
)
def test_invalid_arguments_are_refused(base, change, message):
    arguments = {"estimators": [base, base], "X": X, **change}
    with pytest.raises(ValueError, match=message):
        merge_interference(base, **arguments)

"""The offset that brings predictions to the level of the last rows in time."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit, log_expit
from sklearn.metrics import roc_auc_score

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._training._end_of_training import PRIOR_DEVIATION, find_offset
from sk_pwiser.metrics import predicted_over_observed

BY_TIME = {"encoding_params": {"time_column": "day"}}


def drifting_log(n=20_000, seed=0):
    """Return rows in time, labels and probabilities; events become rarer with time."""
    rng = np.random.default_rng(seed)
    day = np.sort(rng.integers(0, 100, n))
    x = rng.normal(size=n)
    drift = np.where(day < 85, 0.0, -1.2)
    rate = expit(x - 1 + drift)
    Y = pd.DataFrame(rng.random((n, 2)) < rate[:, np.newaxis]).astype(int)
    Y.columns = ["click", "conversion"]
    return pd.DataFrame({"day": day, "x": x}), Y.cumprod(axis=1), rate


@pytest.mark.parametrize("is_chain", [False, True])
def test_it_is_the_most_probable_one(is_chain):
    rng = np.random.default_rng(0)
    heads, weights = rng.normal(size=(50, 2)), rng.uniform(size=(50, 2))
    y = (rng.random((50, 2)) < 0.4).cumprod(axis=1).astype(float)

    def minus_log_posterior(offset):
        log_p = log_expit(heads + offset)
        p = np.exp(log_p.cumsum(axis=1) if is_chain else log_p)
        losses = -(y * np.log(p) + (1 - y) * np.log1p(-p))
        return (losses * weights).sum() + (offset**2).sum() / 2 / PRIOR_DEVIATION**2

    tensors = (torch.as_tensor(values) for values in (heads, y, weights))
    found = find_offset(*tensors, (-1, 0) if is_chain else None).numpy()
    expected = minimize(minus_log_posterior, np.zeros(2), tol=1e-10).x
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert abs(found).min() > 0.01


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"network": "esmm"},
        {"network_params": {"task_space": "conditional"}},
        {"negative_sampling_rate": 0.5},
    ],
    ids=str,
)
def test_predictions_have_the_level_of_the_last_rows(params):
    X, Y, rate = drifting_log()
    past, later = X["day"] < 95, X["day"] >= 95
    model = MultiTaskCTRCVRClassifier(random_state=0, max_epochs=5, **BY_TIME)
    model.set_params(**params).fit(X[past], Y[past])
    rate = rate[later]
    # Predictions are those of the full log.
    n_rows = rate + (1 - rate) / params.get("negative_sampling_rate", 1)
    expected = np.array([rate / n_rows, rate**2 / n_rows]).mean(axis=1)
    ratio = model.predict_proba(X[later]).mean(axis=0) / expected
    assert (abs(ratio - 1) < 0.15).all(), ratio
    model.net_.module_.shift_level(-model.net_.module_.level_offset)
    ratio = model.predict_proba(X[later]).mean(axis=0) / expected
    assert (ratio > 1.5).all(), ratio


def test_ranks_stay():
    X, Y, _ = drifting_log(4_000)
    model = MultiTaskCTRCVRClassifier(random_state=0, max_epochs=3, **BY_TIME).fit(X, Y)
    shifted = model.predict_proba(X)
    assert model.net_.module_.level_offset.abs().min() > 0.1
    model.net_.module_.shift_level(-model.net_.module_.level_offset)
    for k in (0, 1):
        aucs = [
            roc_auc_score(Y.iloc[:, k], p[:, k])
            for p in (shifted, model.predict_proba(X))
        ]
        assert aucs[0] == pytest.approx(aucs[1], abs=1e-6)


def test_a_chain_stays_in_order():
    X, Y, _ = drifting_log(4_000)
    # Clicks become rarer, conversions of clicks more frequent.
    Y["conversion"] = Y["click"] & (Y["conversion"] | (X["day"] >= 85))
    model = MultiTaskCTRCVRClassifier(network="esmm", random_state=0, **BY_TIME)
    click, conversion = model.fit(X, Y).predict_proba(X).T
    assert model.net_.module_.level_offset[1] > 0.2
    assert (conversion <= click).all()


@pytest.mark.parametrize("params", [{}, BY_TIME | {"early_stopping": False}], ids=str)
def test_rows_that_were_trained_on_have_no_say(params):
    X, Y, _ = drifting_log(2_000)
    model = MultiTaskCTRCVRClassifier(random_state=0, max_epochs=2, **params).fit(X, Y)
    assert model.net_.module_.level_offset is None


def test_updates_and_copies_keep_it(tmp_path):
    X, Y, _ = drifting_log(4_000)
    model = MultiTaskCTRCVRClassifier(random_state=0, max_epochs=2, **BY_TIME).fit(X, Y)
    offset, expected = model.net_.module_.level_offset.clone(), model.predict_proba(X)
    model.save(tmp_path / "model")
    loaded = MultiTaskCTRCVRClassifier.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(X), expected)
    model.partial_fit(X[-500:], Y[-500:])
    assert torch.equal(model.net_.module_.level_offset, offset)
    observed = predicted_over_observed(
        Y["click"][-500:], model.predict_proba(X[-500:])[:, 0]
    )
    assert 0.7 < observed < 1.4

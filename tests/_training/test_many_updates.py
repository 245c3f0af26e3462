"""Twenty calls of `partial_fit` reach the AUC of one fit on the same rows."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.metrics import roc_auc_score

from sk_pwiser import MultiTaskCTRCVRClassifier

N, N_EACH, N_VALUES = 20_000, 1_000, 100
EFFECTS = np.random.default_rng(99).normal(size=3 * N_VALUES)


def make_log(kind, cvr, seed, n=N):
    """Return rows, labels, and the probabilities that these were drawn from."""
    rng = np.random.default_rng(seed)
    if kind == "numbers":
        table = rng.lognormal(size=(n, 4))
        logit = np.log(table) @ [0.6, -0.6, 0.4, 0.0]
        X = pd.DataFrame(table, columns=list("abcd"))
    elif kind == "categories":
        values = rng.integers(0, len(EFFECTS), n)
        logit = EFFECTS[values]
        X = pd.DataFrame({"item": pd.Categorical([f"i{v}" for v in values])})
    else:
        values = rng.integers(0, N_VALUES, (n, 3))
        logit = 0.6 * EFFECTS[values].sum(axis=1)
        if kind == "lists":
            X = pd.DataFrame({"words": [[f"w{v}" for v in row] for row in values]})
        else:
            places = np.repeat(np.arange(n), 3), values.ravel()
            X = sp.csr_array((np.ones(3 * n), places), shape=(n, N_VALUES))
    p = np.stack([1 / (1 + np.exp(3.7 - logit)), 1 / (1 + np.exp(cvr - 0.7 * logit))])
    p = p.cumprod(axis=0).T
    return X, (rng.random((n, 1)) < p).astype(int), p


def make(kind, seed):
    params = {"list_target_encoding": True} if kind == "lists" else None
    params = {"encoding_params": params, "weight_decay": 1e-4}  # that of updates
    return MultiTaskCTRCVRClassifier(random_state=seed, **params)


def update(model, X, Y, first=0):
    for start in range(first, N, N_EACH):
        rows = slice(start, start + N_EACH)
        own = X.iloc[rows] if hasattr(X, "iloc") else X[rows]
        model.partial_fit(own, Y[rows])
    return model


def aucs(model, kind, cvr, seed):
    """Return the expected AUC per task on new rows, without noise of their labels."""
    X, _, p = make_log(kind, cvr, seed + 50)
    found = model.predict_proba(X)
    labels = np.repeat([1, 0], N)
    return [
        roc_auc_score(
            labels, np.tile(found[:, k], 2), sample_weight=np.r_[p[:, k], 1 - p[:, k]]
        )
        for k in (0, 1)
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Rows with new category values:UserWarning")
@pytest.mark.parametrize("kind", ["categories", "numbers", "lists", "sparse"])
def test_updates_reach_a_fit_at_one_percent_conversions(kind):
    found, expected = [], []
    for seed in (0, 1, 2):
        X, Y, _ = make_log(kind, 0.9, seed)
        found.append(aucs(update(make(kind, seed), X, Y), kind, 0.9, seed))
        expected.append(aucs(make(kind, seed).fit(X, Y), kind, 0.9, seed))
    assert (np.mean(expected, axis=0) > 0.65).all()
    assert (np.mean(found, axis=0) > np.mean(expected, axis=0) - 0.01).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Rows with new category values:UserWarning")
def test_updates_reach_a_fit_at_one_in_a_thousand():
    """With 32 conversions, no call may turn the tower of the conversions around."""
    kind, cvr = "categories", 3.6
    found, expected = [], []
    for seed in range(100, 116):
        X, Y, _ = make_log(kind, cvr, seed)
        found.append(aucs(update(make(kind, seed), X, Y), kind, cvr, seed))
        expected.append(aucs(make(kind, seed).fit(X, Y), kind, cvr, seed))
    assert (np.mean(found, axis=0) > np.mean(expected, axis=0) - 0.01).all()
    assert np.min(found, axis=0)[1] > 0.7

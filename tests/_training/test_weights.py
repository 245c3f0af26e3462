"""Row weights: 0 leaves a row out, and 2 repeats it."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import roc_auc_score

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.model_selection import funnel_holdout


@pytest.fixture(scope="module")
def impressions():
    return make_ctr_cvr(600, ctr=0.4, cvr=0.4, n_categories=5, random_state=0)


def make(**params):
    # With all rows in one batch and without dropout, the gradients are the same.
    return MultiTaskCTRCVRClassifier(
        network_params={"bottom_units": (16,), "tower_units": (8,)},
        batch_size=10_000,
        lr=3e-3,
        max_epochs=20,
        encoding_params={"category_dropout": 0.0},
        # Blocks of rows, and bins of quantiles, differ if rows are repeated.
        target_encoding=False,
        numeric_encoding="standard",
        random_state=0,
        **{"early_stopping": False, **params},
    )


@pytest.mark.parametrize("loss", ["bce", "pwiser"])
def test_weight_zero_leaves_the_row_out(impressions, loss):
    X, Y = impressions.data, impressions.target
    weight = np.random.default_rng(0).integers(0, 2, len(X))
    X_odd = X.assign(category_0=np.where(weight, X["category_0"].astype(str), "odd"))
    left_out = make(loss=loss).fit(X_odd, Y, sample_weight=weight)
    kept = make(loss=loss).fit(X_odd[weight == 1], Y[weight == 1])
    assert_array_equal(left_out.predict_proba(X_odd), kept.predict_proba(X_odd))


@pytest.mark.parametrize("loss", ["bce", "pwiser"])
def test_equal_weights_are_no_weights(impressions, loss):
    X, Y = impressions.data, impressions.target
    weighted = make(loss=loss).fit(X, Y, sample_weight=np.full(len(X), 0.3))
    plain = make(loss=loss).fit(X, Y)
    assert_array_equal(weighted.predict_proba(X), plain.predict_proba(X))


@pytest.mark.parametrize("loss", ["bce", "pwiser"])
def test_weight_two_repeats_the_row(impressions, loss):
    X, Y = impressions.data, impressions.target
    weight = np.random.default_rng(0).integers(1, 3, len(X))
    rows = np.repeat(np.arange(len(X)), weight)
    weighted = make(loss=loss).fit(X, Y, sample_weight=weight / 7)
    repeated = make(loss=loss).fit(X.iloc[rows], Y.iloc[rows])
    unweighted = make(loss=loss).fit(X, Y)
    expected = repeated.predict_proba(X)
    assert_allclose(weighted.predict_proba(X), expected, rtol=0.01)
    assert not np.allclose(unweighted.predict_proba(X), expected, rtol=0.03)


def test_validation_rows_are_weighted(impressions):
    X, Y = impressions.data, impressions.target
    model = make(loss="bce", early_stopping=True)
    weight = np.random.default_rng(0).uniform(0, 5, len(X))
    model.fit(X, Y, sample_weight=weight)
    best = model.history_[model.best_epoch_ - 1]
    _, valid = funnel_holdout(Y, test_size=0.1, random_state=0)
    p, y = model.predict_proba(X)[valid], Y.to_numpy()[valid]
    w = (weight / weight.mean())[valid]
    losses = w @ -np.log(np.where(y == 1, p, 1 - p)) / len(valid)
    assert best["valid_loss"] == pytest.approx(losses.sum(), rel=1e-4)
    for k, task in enumerate(Y):
        auc = roc_auc_score(y[:, k], p[:, k], sample_weight=w)
        assert best[f"valid_auc_{task}"] == pytest.approx(auc, rel=1e-6)
        assert abs(auc - roc_auc_score(y[:, k], p[:, k])) > 1e-3

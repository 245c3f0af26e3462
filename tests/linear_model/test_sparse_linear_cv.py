"""The choice of alpha against a loop over folds and alphas."""

import numpy as np
import pytest
from linear_problems import MIXED, least_empty_alpha, mixed_problem
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.model_selection import KFold

from sk_pwiser.linear_model import MultiTaskSparseLinear, MultiTaskSparseLinearCV

TIGHT = {"missing_labels": "ignore", "tol": 1e-9, "max_iter": 50_000}


def test_scores_and_the_choice_equal_a_loop():
    X, y = mixed_problem(n=200)
    cv = KFold(4)
    model = MultiTaskSparseLinearCV(alphas=5, cv=cv, task_types=MIXED, **TIGHT)
    model.fit(sparse.csr_matrix(X), y)
    limit = least_empty_alpha(X, y, MIXED)
    assert_allclose(model.alphas_, np.geomspace(limit, 0.01 * limit, 5))
    scores = np.empty((5, 4, 3))
    for i, alpha in enumerate(model.alphas_):
        for fold, (train, test) in enumerate(cv.split(X)):
            single = MultiTaskSparseLinear(alpha=alpha, task_types=MIXED, **TIGHT)
            single.fit(X[train], y[train])
            p, values = single.predict_proba(X[test]), single.predict(X[test])[:, 2]
            for k in range(2):
                scores[i, fold, k] = roc_auc_score(y[test, k], p[:, k])
            seen = ~np.isnan(y[test, 2])
            scores[i, fold, 2] = r2_score(y[test, 2][seen], values[seen])
    assert_allclose(model.scores_, scores, atol=0.01)
    assert_allclose(model.scores_[..., 2], scores[..., 2], atol=1e-5)
    mean = scores.mean(axis=1)
    binary = model.alphas_[mean[:, :2].mean(axis=1).argmax()]
    regression = model.alphas_[mean[:, 2].argmax()]
    assert model.best_alphas_ == {"binary": binary, "regression": regression}
    assert_allclose(model.alpha_, (2 * binary + regression) / 3)
    chosen = MultiTaskSparseLinear(alpha=model.alpha_, task_types=MIXED, **TIGHT)
    assert_allclose(model.coef_, chosen.fit(X, y).coef_, atol=1e-6)


@pytest.mark.slow
def test_folds_depend_on_the_seed_only():
    X, y = mixed_problem(n=200)
    fits = [
        MultiTaskSparseLinearCV(
            task_types=MIXED, missing_labels="ignore", random_state=seed
        )
        .fit(X, y)
        .scores_
        for seed in (0, 0, 1)
    ]
    assert_array_equal(fits[0], fits[1])
    assert not np.array_equal(fits[0], fits[2])


def test_rare_conversions_are_in_every_fold():
    """Without stratification five conversions are not in five folds."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((500, 4))
    y = np.zeros((500, 2), dtype=int)
    y[:100, 0] = y[:5, 1] = 1
    model = MultiTaskSparseLinearCV(cv=5, random_state=0).fit(X, y)
    assert not np.isnan(model.scores_).any()


def test_folds_with_one_label_that_counts_have_no_score():
    X, y = mixed_problem(n=100)
    y = y[:, :2].copy()
    half = np.arange(100) < 50
    everything = np.ones(100, dtype=bool)
    folds = [(everything, ~half), (everything, half)]
    y[~half, 1] = np.arange(50) == 0
    weights = np.ones(100)
    weights[50] = 0  # the only label of 1 among the test rows of the first fold
    y[:2, 1] = 0, 1
    model = MultiTaskSparseLinearCV(alphas=3, cv=folds).fit(X, y, sample_weight=weights)
    assert_array_equal(
        np.isnan(model.scores_), np.array([[[0, 1], [0, 0]]] * 3, dtype=bool)
    )


def test_a_task_without_any_score_is_an_error():
    X, y = mixed_problem(n=100)
    y = y[:, :2].copy()
    y[:, 1] = 0
    y[:50, 1] = 1
    halves = [(np.arange(50, 100), np.arange(50)), (np.arange(50), np.arange(50, 100))]
    with (
        pytest.warns(UserWarning, match="Task 'conversion'"),
        pytest.raises(ValueError, match="Task 'conversion' has no score in any fold"),
    ):
        MultiTaskSparseLinearCV(cv=halves).fit(X, y)


def test_weights_per_task_count_in_the_fits_and_the_scores():
    X, y = mixed_problem(n=200, observed=1.0)
    weight = (np.random.default_rng(0).random(y.shape) < 0.7).astype(float)
    params = {"alphas": 4, "cv": KFold(3), "task_types": MIXED}
    weighted = MultiTaskSparseLinearCV(**params).fit(X, y, sample_weight=weight)
    missing = np.where(weight > 0, y, np.nan)
    model = MultiTaskSparseLinearCV(missing_labels="ignore", **params)
    assert_array_equal(weighted.scores_, model.fit(X, Y=missing).scores_)
    assert_array_equal(weighted.coef_, model.coef_)
    with pytest.raises(ValueError, match="Input y contains NaN"):
        clone(model).set_params(missing_labels="error").fit(X, missing)

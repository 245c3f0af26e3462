"""The solution against optimality conditions, scikit-learn and closed forms."""

import re

import numpy as np
import pandas as pd
import pytest
from linear_problems import (
    MIXED,
    least_empty_alpha,
    mixed_problem,
    rare_problem,
    smooth_gradient,
)
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import SelectFromModel
from sklearn.linear_model import MultiTaskLasso
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from sk_pwiser.linear_model import (
    CPMultiTaskLogistic,
    MultiTaskSparseLinear,
    multi_task_sparse_path,
)
from sk_pwiser.metrics import cvr_auc_scorer, make_task_scorer, mean_auc_scorer


def exact(**params):
    return MultiTaskSparseLinear(
        **{"missing_labels": "ignore", "tol": 1e-11, "max_iter": 100_000, **params}
    )


@pytest.mark.parametrize("seed", range(3))
def test_features_of_both_types_enter_at_the_same_alpha(seed):
    X, y = mixed_problem(seed=seed)
    limit = least_empty_alpha(X, y, MIXED)
    model = exact(alpha=1.001 * limit, task_types=MIXED).fit(X, y)
    assert_array_equal(model.coef_, 0)
    model.set_params(alpha=0.999 * limit).fit(X, y)
    assert model.coef_.any(axis=0).sum() == 1


@pytest.mark.parametrize("storage", [np.asarray, sparse.csr_matrix, sparse.csc_array])
@pytest.mark.parametrize(("l2", "mean_reg"), [(0, 0), (0.3, 0), (0, 0.5), (0.2, 0.1)])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_the_optimality_conditions_hold(storage, l2, mean_reg, fit_intercept):
    X, y = mixed_problem()
    weight = np.random.default_rng(1).uniform(0, 2, len(X))
    alpha = 0.3
    model = exact(
        alpha=alpha,
        l2=l2,
        mean_reg=mean_reg,
        fit_intercept=fit_intercept,
        task_types=MIXED,
    ).fit(storage(X), y, sample_weight=weight)
    W = model.coef_.T
    gradient, by_intercept = smooth_gradient(
        X, y, model.coef_, model.intercept_, MIXED, weight
    )
    gradient += l2 * W + mean_reg * (W - W.mean(axis=1, keepdims=True))
    norms = np.linalg.norm(W, axis=1)
    active = norms > 0
    assert 0 < active.sum() < len(norms)
    assert model.n_iter_ > 1
    direction = W[active] / norms[active, np.newaxis]
    assert_allclose(gradient[active] + alpha * direction, 0, atol=1e-9)
    assert np.linalg.norm(gradient[~active], axis=1).max() <= alpha * (1 + 1e-9)
    if fit_intercept:
        assert_allclose(by_intercept, 0, atol=1e-9)
    else:
        assert_array_equal(model.intercept_, 0)


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_regression_tasks_give_the_multi_task_lasso(fit_intercept):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((80, 30)) + 3.0
    y = X[:, :3] @ rng.standard_normal((3, 4)) + rng.standard_normal((80, 4))
    expected = MultiTaskLasso(
        alpha=0.4, fit_intercept=fit_intercept, tol=1e-12, max_iter=100_000
    ).fit(X, y)
    model = exact(alpha=0.4, task_types="regression", fit_intercept=fit_intercept)
    model.fit(X, y)
    assert_allclose(model.coef_, expected.coef_, atol=1e-8)
    assert_allclose(model.predict(X), expected.predict(X), atol=1e-7)
    assert 0 < model.coef_.any(axis=0).sum() < 30


def test_many_features_are_solved_on_few_of_them():
    """More features than the first working set holds, dense and sparse."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 600)) * (rng.random((200, 600)) < 0.2)
    linear = X[:, :20] @ rng.standard_normal((20, 2))
    y = (linear + rng.standard_normal((200, 2)) > 0).astype(int)
    model = exact(alpha=0.03).fit(sparse.csr_array(X), y)
    gradient, _ = smooth_gradient(
        X, y, model.coef_, model.intercept_, ["binary", "binary"]
    )
    active = model.coef_.any(axis=0)
    assert 64 < active.sum() < 300
    assert_allclose(np.linalg.norm(gradient[active], axis=1), 0.03, rtol=1e-7)
    assert np.linalg.norm(gradient[~active], axis=1).max() <= 0.03


def test_centring_leaves_a_large_offset_without_effect():
    X, y = mixed_problem()
    model = exact(alpha=0.1, task_types=MIXED).fit(X, y)
    moved = exact(alpha=0.1, task_types=MIXED).fit(X + 1000.0, y)
    assert_allclose(moved.coef_, model.coef_, atol=1e-6)


def test_scaled_targets_do_not_depend_on_the_unit():
    X, y = mixed_problem()
    cents = y * [1, 1, 100]
    params = {"alpha": 0.1, "task_types": MIXED, "scale_targets": True}
    euro = exact(**params).fit(X, y)
    cent = exact(**params).fit(X, cents)
    assert_allclose(cent.coef_[:2], euro.coef_[:2], atol=1e-9)
    assert_allclose(cent.coef_[2], 100 * euro.coef_[2], atol=1e-7)
    assert_allclose(cent.predict(X)[:, 2], 100 * euro.predict(X)[:, 2])
    plain = exact(alpha=0.1, task_types=MIXED).fit(X, cents)
    assert not np.allclose(plain.coef_[:2], euro.coef_[:2], atol=0.01)


def test_a_path_holds_the_models_of_its_alphas():
    X, y = mixed_problem()
    alphas, coefs, intercepts = multi_task_sparse_path(
        X,
        y,
        alphas=6,
        eps=0.02,
        task_types=MIXED,
        missing_labels="ignore",
        tol=1e-11,
        max_iter=100_000,
    )
    limit = least_empty_alpha(X, y, MIXED)
    assert_allclose(alphas, np.geomspace(limit, 0.02 * limit, 6))
    given = multi_task_sparse_path(
        X, y, alphas=[0.05, 0.5], task_types=MIXED, missing_labels="ignore"
    )
    assert_array_equal(given[0], [0.5, 0.05])
    assert_array_equal(coefs[..., 0], 0)
    for i in (2, 5):
        model = exact(alpha=alphas[i], task_types=MIXED).fit(X, y)
        assert_allclose(coefs[..., i], model.coef_, atol=1e-8)
        assert_allclose(intercepts[:, i], model.intercept_, atol=1e-8)


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"alpha": 1.0}, TypeError),
        ({"l3": 1.0}, TypeError),
        ({"l2": -1}, ValueError),
        *(({"alphas": alphas}, ValueError) for alphas in (0, -1, 2.5, [0.1, -1.0], [])),
        *(({"alphas": alphas}, ValueError) for alphas in ([np.nan, 0.1], [[0.1]])),
        *(({"eps": eps}, ValueError) for eps in (-0.1, 0, 1, 2.0)),
    ],
)
def test_a_path_refuses_wrong_parameters(params, error):
    ((name, value),) = params.items()
    found = "" if error is TypeError else f".* [Gg]ot {re.escape(str(value))}"
    with pytest.raises(error, match=name + found):
        multi_task_sparse_path(
            *mixed_problem(), task_types=MIXED, missing_labels="ignore", **params
        )


def test_it_selects_features_in_a_pipeline():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 5, (400, 3))
    y = (codes[:, :1] + rng.standard_normal((400, 2)) > 2).astype(int)
    model = exact(alpha=0.1)
    pipeline = make_pipeline(
        OneHotEncoder(), SelectFromModel(model, threshold=1e-10), exact(alpha=0.01)
    ).fit(codes, y)
    selected = pipeline[1].get_support()
    assert_array_equal(selected, pipeline[1].estimator_.coef_.any(axis=0))
    assert selected[:5].any()
    assert not selected[5:].any()
    assert pipeline.predict_proba(codes).shape == (400, 2)


def test_predictions_and_scores_of_mixed_tasks():
    X, y = mixed_problem()
    labels = pd.DataFrame(y, columns=["click", "conversion", "value"])
    model = exact(alpha=0.05, task_types=MIXED).fit(X, labels)
    assert model.task_names_ == ["click", "conversion", "value"]
    linear = X @ model.coef_.T + model.intercept_
    p = 1 / (1 + np.exp(-linear[:, :2]))
    assert_allclose(model.predict_proba(X), p)
    assert_allclose(
        model.predict(X), np.column_stack([linear[:, :2] > 0, linear[:, 2]])
    )
    seen = ~np.isnan(y[:, 2])
    scores = [roc_auc_score(y[:, k], p[:, k]) for k in range(2)]
    scores.append(r2_score(y[seen, 2], linear[seen, 2]))
    assert_allclose(model.score(X, labels), np.mean(scores))


def test_scorers_of_the_package_apply_to_binary_tasks():
    X, y = mixed_problem()
    model = exact(alpha=0.05).fit(X, y[:, :2])
    p = model.predict_proba(X)
    by_task = [roc_auc_score(y[:, k], p[:, k]) for k in range(2)]
    assert_allclose(mean_auc_scorer(model, X, y[:, :2]), np.mean(by_task))
    # Missing labels are read as the estimator does.
    known = np.where(np.arange(len(y))[:, np.newaxis] % 3 > [-1, 0], y[:, :2], np.nan)
    assert_allclose(mean_auc_scorer(model, X, known), model.score(X, known))
    scorer = make_task_scorer(roc_auc_score, "conversion")
    assert_allclose(scorer(model, X, y[:, :2]), by_task[1])
    assert cvr_auc_scorer(model, X, y[:, :2]) > 0.5


def test_labels_keep_their_dtype_and_text_is_possible():
    X, y = mixed_problem()
    model = MultiTaskSparseLinear().fit(X, y[:, :2].astype(np.int8))
    assert model.predict(X).dtype == np.int8
    assert_array_equal(model.classes_, [[0, 1], [0, 1]])
    text = np.where(y[:, 0] == 1, "yes", "no")
    single = MultiTaskSparseLinear().fit(X, text)
    assert set(single.predict(X)) == {"yes", "no"}
    assert_allclose(single.score(X, text), roc_auc_score(y[:, 0], X @ single.coef_[0]))


def test_regression_has_no_probabilities():
    X, _ = mixed_problem()
    model = MultiTaskSparseLinear(task_types="regression").fit(X, X[:, 0])
    assert not hasattr(model, "predict_proba")
    assert model.predict(X).shape == (len(X),)


@pytest.mark.parametrize("mean_reg", [0.0, 1.0])
def test_a_constant_task_is_constant_and_leaves_the_others_alone(mean_reg):
    X, y = mixed_problem()
    y, types = y.copy(), ["binary", "binary", "regression"]
    y[:, 1] = 0
    params = {"alpha": 0.1, "mean_reg": mean_reg}
    model = exact(task_types=types, **params)
    with pytest.warns(UserWarning, match="Task 'task_1' is 0 in every row"):
        model.fit(X, y)
    assert_array_equal(model.coef_[1], 0)
    assert_allclose(model.predict_proba(X)[:, 1], 0.5 / (len(X) + 1))
    with pytest.warns(UserWarning, match="Task 'task_1' is 0 in every row"):
        scaled = exact(task_types=types, **params).fit(X, y, np.full(len(X), 1e-6))
    assert_allclose(scaled.predict_proba(X)[:, 1], 0.5 / (len(X) + 1))
    alone = exact(task_types=types[::2], **params).fit(X, y[:, ::2])
    assert alone.coef_.any(axis=1).all()
    assert_allclose(model.coef_[::2], alone.coef_, atol=1e-12)
    assert_allclose(model.intercept_[::2], alone.intercept_, atol=1e-12)


@pytest.mark.parametrize("storage", [np.asarray, sparse.csc_array])
def test_constant_tasks_alone(storage):
    X, y = mixed_problem()
    with pytest.warns(UserWarning, match="it cannot be learnt"):
        model = exact(mean_reg=1.0).fit(storage(X), np.repeat([[0, 1]], len(y), 0))
    assert_array_equal(model.coef_, np.zeros((2, X.shape[1])))
    odds = np.log(0.5) - np.log(len(X) + 0.5)
    assert_allclose(model.intercept_, [odds, -odds])


REFUSED = {
    "two labels": ({}, lambda y: y * 2, r"column 'task_0' of y contains 2"),
    "no label": (
        {"missing_labels": "ignore"},
        lambda y: y * [1, np.nan, 1],
        "Task 'task_1' has no label",
    ),
    "missing labels": (
        {},
        lambda y: np.where(
            [[False, True, False]] * (np.arange(len(y)) > 146)[:, None], np.nan, y
        ),
        "NaN: 3 in column 1, the first in row 147. With missing_labels='ignore'",
    ),
    "way of missing labels": ({"missing_labels": "drop"}, None, "'missing_labels'"),
    "number of types": ({"task_types": ["binary"]}, None, "each of 3 tasks"),
    "name of a type": ({"task_types": ["binary", "x", "binary"]}, None, "one of .*'x'"),
    "rows": ({}, lambda y: y[:-1], "rows"),
    "infinite": ({}, lambda y: np.where(y == 1, np.inf, y), "infinity"),
    "penalty": ({"alpha": -1.0}, None, "alpha"),
    "single NaN": ({}, lambda y: np.where(y[:, 0] == 1, np.nan, 0), "NaN"),
}


@pytest.mark.parametrize(
    ("params", "change", "message"), REFUSED.values(), ids=REFUSED.keys()
)
def test_bad_input_is_refused(params, change, message):
    X, y = mixed_problem()
    y = (y > 0).astype(float)
    with np.errstate(all="ignore"):
        bad = y if change is None else change(y)
    with pytest.raises(ValueError, match=message):
        MultiTaskSparseLinear(**params).fit(X, bad)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.zeros(150), "zero in all rows with a label of task 'click'"),
        (np.tile([1.0, 0.0], (150, 1)), "a label of task 'conversion'"),
        (np.tile([1.0, -1.0], (150, 1)), "-1.0 in row 0 for task 'conversion'"),
        (np.ones((150, 3)), r"\(150, 2\) for weights per task; got \(150, 3\)"),
    ],
)
def test_bad_weights_are_refused(weight, message):
    X, y = mixed_problem()
    with pytest.raises(ValueError, match=message):
        MultiTaskSparseLinear().fit(X, y[:, :2], sample_weight=weight)


def test_a_weight_of_0_is_a_missing_label():
    X, y = mixed_problem(observed=1.0)
    weight = (np.random.default_rng(0).random(y.shape) < 0.7).astype(float)
    weighted = exact(alpha=0.1, task_types=MIXED, missing_labels="error")
    weighted.fit(X, y, sample_weight=weight)
    missing = np.where(weight > 0, y, np.nan)
    model = exact(alpha=0.1, task_types=MIXED).fit(X, missing)
    assert_array_equal(weighted.coef_, model.coef_)
    # Only the ratios within a task matter, since each loss is a mean.
    scaled = exact(alpha=0.1, task_types=MIXED)
    scaled.fit(X, y, sample_weight=weight * [0.1, 1, 20])
    assert_allclose(scaled.coef_, model.coef_, atol=1e-9)
    score = weighted.score(X, y, sample_weight=weight)
    assert score == pytest.approx(model.score(X, missing))
    with pytest.raises(ValueError, match="Input y contains NaN"):
        weighted.score(X, missing)


def test_scores_take_weights_per_task():
    X, y = mixed_problem(observed=1.0)
    weight = np.random.default_rng(0).uniform(size=y.shape)
    model = exact(alpha=0.05, task_types=MIXED).fit(X, y)
    linear = X @ model.coef_.T + model.intercept_
    scores = [
        metric(y[:, k], linear[:, k], sample_weight=weight[:, k])
        for k, metric in enumerate([roc_auc_score, roc_auc_score, r2_score])
    ]
    found = model.score(X, y, sample_weight=weight)
    assert found == pytest.approx(np.mean(scores))


def test_labels_are_accepted_as_y_and_as_Y():
    X, y = mixed_problem()
    Y = y[:, :2]
    model = MultiTaskSparseLinear().fit(X, y=Y)
    assert_array_equal(MultiTaskSparseLinear().fit(X, Y=Y).coef_, model.coef_)
    assert model.score(X, Y=Y) == model.score(X, y=Y)
    paths = multi_task_sparse_path(X, Y=Y)[1], multi_task_sparse_path(X, y=Y)[1]
    assert_array_equal(*paths)


@pytest.mark.slow
@pytest.mark.parametrize(("ctr", "ctcvr"), [(0.02, 0.001), (0.1, 0.01)])
def test_the_sum_of_the_probabilities_is_that_of_the_labels(ctr, ctcvr):
    """The intercepts are not penalised; with the default tolerance."""
    X, Y = rare_problem(20_000, ctr, ctcvr)
    model = MultiTaskSparseLinear(alpha=1e-3).fit(X, Y)
    assert model.coef_.any(axis=0).sum() >= 2
    assert_allclose(model.predict_proba(X).sum(axis=0) / Y.sum(axis=0), 1, rtol=0.02)


def test_too_few_steps_are_reported():
    X, y = mixed_problem()
    with pytest.warns(ConvergenceWarning, match="max_iter=2"):
        MultiTaskSparseLinear(alpha=0.001, max_iter=2).fit(X, y[:, :2])


@pytest.mark.parametrize("origin", [1e4, 1e9, 1.7e12])
def test_columns_far_from_0_are_fitted_like_centred_ones(origin):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 3))
    Y = (X[:, :1] + rng.standard_normal((400, 2)) > 1).astype(int)
    expected = MultiTaskSparseLinear(tol=1e-6).fit(X, Y).predict_proba(X)
    place = np.array([origin, 0, 0])
    far = X + place
    found = MultiTaskSparseLinear(tol=1e-6, max_iter=200).fit(far, Y)
    rounded = far - place
    close = MultiTaskSparseLinear(tol=1e-6).fit(rounded, Y).predict_proba(rounded)
    assert_allclose(close, expected, atol=1e-3)
    assert_allclose(found.predict_proba(far), close, atol=1e-3)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        # pandas before 3 has no dtype of texts.
        (["web", "app"] * 50, "(which is not numeric|contains text, .*). Encode"),
        (["7", "8"] * 50, "(which is not numeric|contains text, .*). Encode"),
        (pd.date_range("2026", periods=100), "not numeric.*such as the hour"),
    ],
)
@pytest.mark.parametrize("kind", ["pandas", "polars", "arrow"])
def test_columns_without_numbers_are_named(column, message, kind):
    X = pd.DataFrame({"price": np.arange(100.0), "other": column, "m": [1, 2] * 50})
    y = np.arange(100) % 3 // 2
    if kind == "polars":
        X = pytest.importorskip("polars").from_pandas(X)
    elif kind == "arrow":
        X = pytest.importorskip("pyarrow").Table.from_pandas(X)
    calls = [
        lambda: MultiTaskSparseLinear().fit(X, y),
        lambda: multi_task_sparse_path(X, y),
        lambda: CPMultiTaskLogistic(group_modes=["m"]).fit(X, y),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=f"Column 'other' .* {message}"):
            call()

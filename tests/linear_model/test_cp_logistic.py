"""The estimator: its grid of cells, and what it equals in special cases."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from linear_problems import rare_problem
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score

from sk_pwiser.linear_model import CPMultiTaskLogistic
from sk_pwiser.metrics import mean_auc_scorer

MARKETS = np.array(["DE", "ES", "FR", "NL"])


def grid_data(n=800, p=6, seed=0):
    """Return features, markets and labels of two events; true rank 2."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    market = rng.integers(0, 4, n)
    L = rng.standard_normal((p, 2)) * 1.5
    event, level = rng.uniform(0.3, 1, (2, 2)), rng.uniform(-1, 1, (4, 2))
    logits = ((X @ L) * level[market]) @ event.T + level[market, :1]
    return X, market, (rng.random((n, 2)) < 1 / (1 + np.exp(-logits))).astype(int)


def table(X, market, names=MARKETS):
    data = pd.DataFrame(X, columns=[f"x{j}" for j in range(X.shape[1])])
    data.insert(2, "market", names[market])
    return data


def exact(**params):
    params = {"tol": 1e-9, "max_iter": 10_000, "random_state": 0, **params}
    return CPMultiTaskLogistic(**params)


@pytest.mark.parametrize(
    ("modes", "params"),
    [
        (["market"], {}),
        (("device", "market"), {}),
        (["market"], {"loss": "squared_error"}),
    ],
)
def test_predictions_are_those_of_the_cells(modes, params):
    X, market, Y = grid_data()
    data, levels = table(X, market), {"market": market}
    if "device" in modes:
        levels["device"] = np.arange(len(X)) % 3
        data["device"] = levels["device"]
    model = CPMultiTaskLogistic(group_modes=modes, **params, random_state=0)
    model.fit(data, Y)
    assert_array_equal(model.levels_["market"], MARKETS)
    assert model.n_features_in_ == data.shape[1]
    # The coefficients are those of the factors.
    coef = np.einsum("pr,kr->kpr", model.loadings_, model.factors_["event"])
    for mode in modes:
        coef = np.einsum("...pr,mr->...mpr", coef, model.factors_[mode])
    assert_allclose(model.coef_, coef.sum(axis=-1), atol=1e-12)
    cell = (slice(None), *(levels[mode] for mode in modes))
    linear = np.einsum("np,knp->nk", X, model.coef_[cell]) + model.intercept_[cell].T
    p = np.clip((1 + linear) / 2, 1e-300, 1) if params else 1 / (1 + np.exp(-linear))
    assert_allclose(model.predict_proba(data), p, atol=1e-12)
    assert_array_equal(model.predict(data), (p > 0.5).astype(int))
    scores = [roc_auc_score(Y[:, k], p[:, k]) for k in range(2)]
    # Probabilities of squared errors are clipped.
    assert_allclose(model.score(data, Y), np.mean(scores), atol=1e-3 * bool(params))
    assert_allclose(mean_auc_scorer(model, data, Y), np.mean(scores))


def test_tables_of_any_kind_give_the_same():
    X, market, Y = grid_data()
    data, array = table(X, market), np.column_stack([X, market])
    by_name = exact(group_modes=["market"]).fit(data, Y)
    p = by_name.predict_proba(data)
    for stored in (array, sparse.csr_array(array), sparse.csr_matrix(array)):
        model = exact(group_modes=[6]).fit(stored, Y)
        assert_allclose(model.coef_, by_name.coef_, atol=1e-6)
        assert_allclose(model.predict_proba(stored), p, atol=1e-6)
    for other in (pl.from_pandas(data), pa.Table.from_pandas(data)):
        model = exact(group_modes=["market"]).fit(other, Y)
        assert_allclose(model.predict_proba(other), p)
        assert list(model.feature_names_in_) == list(data.columns)


def test_unseen_and_missing_levels_take_the_mean():
    X, market, Y = grid_data()
    data = table(X, market)
    model = CPMultiTaskLogistic(group_modes=["market"], random_state=0).fit(data, Y)
    coef, intercept = model.coef_.mean(axis=1), model.intercept_.mean(axis=1)
    expected = 1 / (1 + np.exp(-X @ coef.T - intercept))
    assert_allclose(model.predict_proba(data.assign(market="US")), expected)
    assert_allclose(model.predict_proba(data.assign(market=None)), expected)
    with pytest.raises(
        ValueError, match=r"'market' of group_modes .* numbers, such as 3, but .* text"
    ):
        model.predict_proba(data.assign(market=market))


@pytest.mark.parametrize("solver", ["als", "lbfgs"])
def test_one_cell_is_a_ridge_regression(solver):
    """L u with |L|^2 + |u|^2 penalised is ridge with alpha / |u|^2, given u."""
    X, _, Y = grid_data(n=200)
    model = exact(loss="squared_error", solver=solver, intercept_alpha=0, rank=1)
    model.fit(X, Y[:, 0])
    square = (model.factors_["event"] ** 2).sum()
    ridge = Ridge(alpha=1.0 / square).fit(X, 2 * Y[:, 0] - 1)
    assert_allclose(model.coef_, ridge.coef_[np.newaxis], atol=1e-5)
    assert_allclose(model.intercept_, [ridge.intercept_], atol=1e-5)


def test_full_rank_and_weak_penalty_are_separate_regressions():
    X, _, Y = grid_data(n=400)
    model = exact(rank=2, alpha=1e-4, intercept_alpha=0).fit(X, Y)
    for k in range(2):
        single = LogisticRegression(C=np.inf, tol=1e-9, max_iter=1000).fit(X, Y[:, k])
        assert_allclose(model.coef_[k], single.coef_[0], atol=1e-3)
        assert_allclose(model.intercept_[k], single.intercept_[0], atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("ctr", "ctcvr"), [(0.02, 0.001), (0.1, 0.01)])
def test_the_sum_of_rare_events_is_kept(ctr, ctcvr):
    X, Y = rare_problem(40_000, ctr, ctcvr)
    data = np.column_stack([X, np.arange(len(X)) % 3])
    model = CPMultiTaskLogistic(group_modes=[4], random_state=0).fit(data, Y)
    # Half a row per class in the offsets, and the penalty of the intercepts.
    ratio = model.predict_proba(data).sum(axis=0) / Y.sum(axis=0)
    assert_allclose(ratio, 1, atol=0.08)


def test_cells_with_one_label_or_no_row_have_finite_intercepts():
    X, market, Y = grid_data()
    Y = Y.copy()
    Y[market == 1, 1] = 0
    device = np.where(market == 2, 0, np.arange(len(X)) % 2)
    data = table(X, market).assign(device=device)
    model = CPMultiTaskLogistic(group_modes=["market", "device"], random_state=0)
    model.fit(data, Y)
    assert np.abs(model.intercept_).max() < 10
    # Without rows the cell keeps the log-odds of its event, at the mean of X.
    centre = model.intercept_ + model.coef_ @ X.mean(axis=0)
    odds = np.log((Y.sum(axis=0) + 0.5) / (len(Y) - Y.sum(axis=0) + 0.5))
    assert_allclose(centre[:, 2, 1], odds)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_more_starts_keep_the_best():
    X, market, Y = grid_data()
    data = np.column_stack([X, market])
    one, more = (exact(max_iter=2, group_modes=[6], n_init=n) for n in (1, 5))
    assert more.fit(data, Y).objective_ < one.fit(data, Y).objective_


def test_the_seed_decides_and_global_generators_stay():
    X, market, Y = grid_data()
    data = np.column_stack([X, market])
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    fits = [
        CPMultiTaskLogistic(group_modes=[6], random_state=s).fit(data, Y).loadings_
        for s in (0, 0, 1)
    ]
    assert_array_equal(fits[0], fits[1])
    assert not np.array_equal(fits[0], fits[2])
    assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_predictions_are_those_of_the_fit_until_the_next_one():
    X, market, Y = grid_data(200)
    X = table(X, market)
    model = exact(group_modes=["market"]).fit(X, Y)
    expected = model.predict_proba(X)
    model.set_params(loss="squared_error", group_modes=["shop"])
    with pytest.raises(ValueError, match="'shop'"):
        model.fit(X, Y)
    assert_array_equal(model.predict_proba(X), expected)


def test_bad_metadata_is_refused():
    X, market, Y = grid_data()
    data = table(X, market)
    model = CPMultiTaskLogistic(group_modes=["market"], random_state=0).fit(data, Y)
    with pytest.raises(ValueError, match=r"'market', which is not a column of X"):
        model.fit(data.drop(columns="market"), Y)
    with pytest.raises(ValueError, match=r"'market' .* has one, 'NL'"):
        model.fit(data.assign(market="NL"), Y)
    gaps = data.assign(market=data["market"].where(data["market"] != "ES"))
    n_missing = int((market == 1).sum())
    with pytest.raises(ValueError, match=f"'market' .* {n_missing} missing"):
        model.fit(gaps, Y)
    with pytest.raises(ValueError, match="'market', which is not a column of X"):
        model.fit(X, Y)
    rule = r"Column 'market' .*(is not numeric|contains text, .*)\. Encode"
    with pytest.raises(TypeError, match=rule):
        CPMultiTaskLogistic().fit(data, Y)


REFUSED = [
    ({"solver": "als"}, ValueError, "requires loss='squared_error'"),
    ({"group_modes": [9]}, ValueError, "contains 9, which is not a column of X"),
    ({"group_modes": [6, -1]}, ValueError, "distinct"),
    ({"group_modes": [1.5]}, ValueError, "contains 1.5, which is not a column of X"),
    ({"group_modes": ["event"]}, ValueError, "both 'event'"),
    ({"rank": 0}, ValueError, "rank"),
]


@pytest.mark.parametrize(("params", "error", "message"), REFUSED)
def test_bad_parameters_are_refused(params, error, message):
    X, market, Y = grid_data(n=50)
    with pytest.raises(error, match=message):
        CPMultiTaskLogistic(**params).fit(np.column_stack([X, market]), Y)


@pytest.mark.parametrize(
    "params", [{}, {"loss": "squared_error", "solver": "als"}], ids=["lbfgs", "als"]
)
def test_too_few_iterations_are_reported(params):
    X, market, Y = grid_data()
    model = CPMultiTaskLogistic(group_modes=[6], max_iter=2, **params)
    with pytest.warns(ConvergenceWarning, match="max_iter=2"):
        model.fit(np.column_stack([X, market]), Y)

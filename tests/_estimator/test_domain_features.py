"""Columns that set factors of the network's input, from `fit` to a file."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import ParquetImpressions, make_ctr_cvr
from sk_pwiser.metrics import grouped_auc
from sk_pwiser.transfer import fine_tune

N = 1_200
LOG = make_ctr_cvr(N, ctr=0.3, cvr=0.3, n_numeric=2, n_categorical=2, random_state=0)
MARKETS = np.array(["nl", "fr", "us"])[np.arange(N) % 3]
X, Y = LOG.data.assign(market=pd.Categorical(MARKETS)), LOG.target


def small(features=("market",), **params):
    params = {"max_epochs": 2, "random_state": 0, **params}
    network_params = {"bottom_units": [16], "domain_features": [*features]}
    return MultiTaskCTRCVRClassifier(network_params=network_params, **params)


@pytest.mark.slow
def test_one_network_learns_which_columns_matter_in_a_market():
    rng = np.random.default_rng(0)
    market, x = rng.integers(8, size=3_000), rng.normal(size=(3_000, 6))
    matters = rng.random((8, 6)) < 0.5
    logits = (1.2 * x * matters[market]).sum(1) - 1
    click = rng.random(3_000) < 1 / (1 + np.exp(-logits))
    labels = np.column_stack([click, click & (rng.random(3_000) < 0.3)])
    table = pd.DataFrame(x).assign(market=pd.Categorical(market)).rename(columns=str)
    params = {"max_epochs": 8, "batch_size": 64, "early_stopping": False, "loss": "bce"}
    aucs = []
    for features in (["market"], []):
        model = small(features, numeric_encoding="standard", **params)
        p = model.fit(table[:2_000], labels[:2_000]).predict_proba(table[2_000:])
        aucs.append(grouped_auc(labels[2_000:, 0], p[:, 0], market[2_000:]))
    assert aucs[0] > aucs[1] + 0.02


@pytest.mark.parametrize(
    "features", [["market"], ["numeric_0"], ["numeric_1", "market"], [-1, 0]]
)
def test_names_and_indices_give_the_same_as_the_array(features):
    names = list(X)
    model = small(features).fit(X, Y)
    indices = [f if isinstance(f, int) else names.index(f) for f in features]
    codes = X["market"].cat.codes
    table = X.assign(market=codes, **{c: X[c].cat.codes for c in names[2:4]})
    categories = [2, 3, 4]
    array = small(indices, categorical_features=categories).fit(
        table.to_numpy(float), Y.to_numpy()
    )
    assert_allclose(
        array.predict_proba(table.to_numpy(float)), model.predict_proba(X), atol=1e-6
    )
    assert not np.allclose(small(()).fit(X, Y).predict_proba(X), model.predict_proba(X))


@pytest.mark.filterwarnings("ignore:Rows with new category values")
@pytest.mark.parametrize("grows", [False, True])
def test_a_new_market_is_an_unseen_value_until_it_is_learnt(grows):
    model = small(encoding_params={"grow_vocabulary": grows}).fit(X, Y)
    new, other = (X[:200].assign(market=name) for name in ("xx", "yy"))
    assert_array_equal(model.predict_proba(new), model.predict_proba(other))
    model.partial_fit(new, Y[:200])
    assert (model.predict_proba(new) != model.predict_proba(other)).any() == grows
    tuned = fine_tune(model, new, Y[:200], max_epochs=1)
    assert (tuned.predict_proba(new) != tuned.predict_proba(other)).any()


def test_other_features_are_refused_and_leave_the_earlier_fit(tmp_path):
    model = small(["numeric_0"]).fit(X, Y)
    before = model.predict_proba(X)
    for features, error, message in [
        (["nope"], ValueError, "domain_features contains 'nope', which is not a col"),
        ([9], ValueError, "domain_features contains 9, which is not a column of X"),
        ("market", TypeError, "domain_features must be a list of columns.*'market'"),
    ]:
        model.set_params(network_params__domain_features=features)
        with pytest.raises(error, match=message):
            model.fit(X, Y)
    # The network has the same shapes, but another meaning.
    model.set_params(network_params__domain_features=["numeric_1"])
    with pytest.raises(ValueError, match=r"domain_features=\('numeric_1',\): the earl"):
        model.partial_fit(X, Y)
    assert_array_equal(model.predict_proba(X), before)
    with pytest.raises(ValueError, match="domain_features must be empty if X is spar"):
        small([0]).fit(csr_array(np.eye(N, 4)), Y)
    pd.concat([X, Y], axis=1).to_parquet(tmp_path / "log.parquet")
    files = ParquetImpressions(tmp_path / "log.parquet", [*X], [*Y])
    with pytest.raises(ValueError, match="domain_features contains 'nope'"):
        small(["nope"]).fit(files)


def test_the_weights_of_a_list_are_no_input():
    lists = [[1, 2], [3], []] * (N // 3)
    weights = [[0.5, 0.5], [1.0], []] * (N // 3)
    table = pd.DataFrame({"items": lists, "weights": weights, "x": np.arange(N) % 7})
    params = {"encoding_params": {"list_weights": {"items": "weights"}}}
    with pytest.raises(ValueError, match="'weights', which only belongs to a column"):
        small(["weights"], **params).fit(table, Y)
    model = small(["items"], **params).fit(table, Y)
    assert np.isfinite(model.predict_proba(table)).all()

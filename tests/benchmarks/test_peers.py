"""Models of other packages: the options of their names do what they say."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

pytestmark = pytest.mark.slow

pd = pytest.importorskip("pandas")


@pytest.fixture(scope="module")
def rows():
    """Rows in the order of time: users are new in the last part, items are not."""
    rng = np.random.default_rng(0)
    n = 2_400
    item = rng.integers(0, 120, n)
    X = pd.DataFrame(
        {
            "user": pd.Categorical([f"u{i // 3}" for i in range(n)]),
            "item": pd.Categorical(item),
            "slot": pd.Categorical(rng.integers(0, 4, n)),
            "price": rng.normal(size=n),
        }
    )
    rates = rng.beta(0.5, 0.5, 120)[item]
    click = rng.random(n) < rates
    Y = np.column_stack([click, click & (X["price"] > 0)]).astype(int)
    return X, Y


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("LightGBM", "lightgbm"),
        ("LightGBM, TargetEncoder, small leaves", "lightgbm"),
        ("HistGradientBoosting", "sklearn"),
        ("HistGradientBoosting, TargetEncoder, without new ids", "sklearn"),
        ("CatBoost, small leaves, without new ids", "catboost"),
    ],
)
def test_trees_rank_new_rows(module, rows, name, package):
    pytest.importorskip(package)
    X, Y = rows
    peers = module("_peers")
    (model,) = peers.peer_models(peers.peer_name(name), range(1))
    p = model.fit(X[:2_000], Y[:2_000]).predict_proba(X[2_000:])
    assert p.shape == (400, 2)
    assert all(
        roc_auc_score(y, q) > 0.75 for y, q in zip(Y[2_000:].T, p.T, strict=True)
    )


def test_ids_are_left_out_if_most_are_new(module, rows):
    X, _ = rows
    columns = module("_peers").WithoutNewIds().fit(X)
    assert list(columns.transform(X)) == ["item", "slot", "price"]
    shuffled = X.sample(frac=1, random_state=0)
    assert list(module("_peers").WithoutNewIds().fit_transform(shuffled)) == list(X)


def test_statistics_replace_columns_of_many_values(module, rows):
    X, Y = rows
    model = module("_peers").peer("HistGradientBoosting, TargetEncoder by time", seed=3)
    encoded = model[:-1].fit_transform(X, Y[:, 0])
    assert sorted(encoded.select_dtypes("number")) == [
        "rates__item",
        "rates__user",
        "remainder__price",
    ]
    assert model.get_params()["columntransformer__rates__cv"].n_splits == 10


def test_one_model_per_seed_only_if_it_depends_on_it(module):
    peers = module("_peers")
    for name, n_models in (("", 1), (", TargetEncoder", 3)):
        models = peers.peer_models(f"HistGradientBoosting{name}", range(3))
        assert len(list(models)) == n_models


@pytest.mark.parametrize("name", ["XGBoost", "LightGBM, large", "torch-rechub MMoE, x"])
def test_other_names_are_refused(module, name):
    with pytest.raises(ValueError, match=name):
        module("_peers").peer_name(name)

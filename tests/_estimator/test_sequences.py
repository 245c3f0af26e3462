"""Lists that share the embeddings of a column, with attention to it: the whole path."""

from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
from author_lists import ATTENTION, author_lists
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.export import Scorer
from sk_pwiser.history import HistoryFeatures
from sk_pwiser.transfer import fit_like

N = 240


def make_table(seed=0, n=N, first=0):
    """Return rows with lists of authors, numbers, and lists of other values."""
    rng = np.random.default_rng(seed)
    table = author_lists(rng, n, first)
    table.insert(3, "n", rng.normal(size=n))
    return table.assign(
        weight=[rng.random(len(v)).tolist() for v in table["also"]],
        plain=[rng.choice(["x", "y", "z"], i % 3).tolist() for i in range(n)],
    )


X = make_table()
Y = (np.random.default_rng(1).random((N, 2)) < [0.4, 0.5]).astype(int).cumprod(axis=1)
OTHER = make_table(2, 60, first=3)  # also with new authors


def make_model(**params):
    encoding = {**ATTENTION, **params.pop("encoding_params", {})}
    defaults = {"max_epochs": 2, "random_state": 0, "early_stopping": False}
    return MultiTaskCTRCVRClassifier(**{**defaults, **params}, encoding_params=encoding)


@pytest.fixture(scope="module")
def model():
    return make_model().fit(X, Y)


def test_a_value_of_either_column_has_an_embedding(model):
    values = model.category_embeddings("author").index
    assert {"a00", "a13"} <= set(values)  # of rows only, and of lists only
    network = model.net_.module_
    n_vectors = network.spec.cardinalities[0]
    assert n_vectors == len(values) + 2  # and codes of missing and unseen values
    assert len(network.input_layer.tables[0]) == n_vectors
    # Of its own, a list has vectors of empty and missing lists.
    [own] = network.input_layer.bags.embeddings
    plain = 2 + 3 + 1
    assert own.num_embeddings == 2 + 2 + plain


def test_frequencies_are_counted_over_both_columns():
    table = pd.DataFrame(
        {"author": ["a", "b", "c", "c"], "last": [["a"], ["d", "d"], ["e"], []]}
    )
    params = {"list_pooling": "mean", "list_ages": None, "list_weights": None}
    params |= {"shared_embeddings": {"last": "author"}, "min_frequency": 2}
    model = make_model(encoding_params=params).fit(table, [0, 1, 0, 1])
    assert list(model.category_embeddings("author").index) == ["a", "c", "d"]
    # Rare elements are unseen: codes follow those of empty and of missing lists.
    assert model.encode(table).bag_inputs["bag_indices"].tolist() == [4, 6, 6, 3, 0]


def test_new_elements_are_counted_per_column(model):
    with pytest.warns(
        UserWarning, match="'last' in up to 40 % .*, 'also' in up to 30 %"
    ):
        deepcopy(model).partial_fit(OTHER, Y[:60])


@pytest.mark.parametrize("lazy", [False, True])
def test_growth_counts_elements_and_keeps_predictions(lazy):
    params = {"grow_vocabulary": True}
    optimizer = {"lazy_embeddings": lazy, "average_decay": None}
    model = make_model(encoding_params=params, optimizer_params=optimizer)
    model.partial_fit(X, Y)
    expected = model.predict_proba(X)
    still = {"lr": 1e-12, "weight_decay": 0, "lr_schedule": None}
    model.set_params(**still).partial_fit(OTHER, Y[:60])
    values = model.category_embeddings("author").index
    assert {"a15", "a16"} <= set(values)  # of lists only
    assert_allclose(model.predict_proba(X), expected, atol=1e-6)
    model.set_params(lr=0.01).partial_fit(OTHER, Y[:60])
    assert np.isfinite(model.predict_proba(OTHER)).all()


@pytest.mark.parametrize("name", ["n_hash_buckets", "max_categories"])
def test_limited_vocabularies(name):
    model = make_model(encoding_params={name: {"author": 5}}, max_epochs=1).fit(X, Y)
    n_codes = 2 + (5 if name == "n_hash_buckets" else 4)
    assert len(model.net_.module_.input_layer.tables[0]) == n_codes
    indices = model.encode(OTHER).bag_inputs["bag_indices"]
    assert set(indices[indices < 2 + n_codes]) <= {0, 1, *range(3, 2 + n_codes)}
    assert np.isfinite(model.predict_proba(OTHER)).all()


def test_order_matters_only_by_ages(model):
    turned = OTHER.copy()
    for name in ("last", "age", "also", "weight"):
        turned[name] = [None if v is None else v[::-1] for v in OTHER[name]]
    expected = model.predict_proba(OTHER)
    assert_allclose(model.predict_proba(turned), expected, atol=1e-6)
    turned["age"] = OTHER["age"]
    assert np.abs(model.predict_proba(turned) - expected).max() > 1e-6


@pytest.mark.parametrize("columns", [list(X), ["plain", "also"]], ids=str)
@pytest.mark.parametrize(
    "runtime", ["torch", pytest.param("onnx", marks=pytest.mark.slow)]
)
def test_the_lists_of_a_user_are_served_beside_the_candidates(columns, runtime):
    if columns == list(X):
        model = make_model(network="stem", embedding_dim="auto")
    else:
        model = MultiTaskCTRCVRClassifier(max_epochs=1, random_state=0)
    scorer = Scorer(model.fit(X[columns], Y), runtime=runtime)
    other = OTHER[columns].astype(object)
    rows = other.where(other.notna(), None).to_dict("records")
    assert_allclose(scorer(rows), model.predict_proba(OTHER[columns]), atol=1e-6)
    own = [{k: row[k] for k in ("author", "n") if k in row} for row in rows]
    for shared in (rows[3], rows[7]):
        merged = [{**shared, **row} for row in own]
        assert_allclose(scorer(own, shared), scorer(merged), atol=1e-7, rtol=0)
        # Lists with shared weights.
        own_lists = [{"also": shared["also"], **row} for row in own]
        assert_allclose(scorer(own_lists, shared), scorer(merged), atol=1e-7, rtol=0)


def test_elements_of_lists_alone_train_the_embedding_of_their_value(model):
    found = fit_like(clone(model), model, OTHER, Y[:60]).category_embeddings("author")
    assert (found.loc["a13"] != found.loc["a00"]).all()


def test_columns_of_history_features():
    rng = np.random.default_rng(0)
    log = {
        "user": rng.integers(0, 20, N).astype(str),
        "author": rng.choice(list("abcdef"), N),
        "time": np.arange(N),
    }
    log = pd.DataFrame(log)
    last = {"column": "author", "n": 5, "task": 0, "ages": "values"}
    history = HistoryFeatures(["user"], time="time", lists=[last])
    table = history.fit_transform(log, Y)
    name = next(n for n in table if "last" in n and not n.endswith("_ages"))
    params = {"list_pooling": "attention", "list_weights": None}
    params |= {"list_ages": {name: f"{name}_ages"}}
    params |= {"shared_embeddings": {name: "author"}}
    model = make_model(encoding_params=params).fit(table, Y)
    later = log[:3].assign(time=N + 1)
    expected = model.predict_proba(history.transform(later))
    scorer = Scorer(model, runtime="torch")
    rows = [history.transform_row(row) for row in later.to_dict("records")]
    assert_allclose(scorer(rows), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_training_continues_with_the_same_pooling_only(method):
    model = make_model(warm_start=True).fit(X, Y)
    before = model.predict_proba(X)
    pooling = {"last": "attention", "also": "sum"}
    model.set_params(encoding_params={**ATTENTION, "list_pooling": pooling})
    message = "cannot continue with list_pooling=.*'sum'.* used {'last': 'attention'}"
    with pytest.raises(ValueError, match=message):
        getattr(model, method)(X, Y)
    assert_array_equal(model.predict_proba(X), before)


BAD = {
    "no column to attend to": (
        {"shared_embeddings": {"also": "author"}},
        ValueError,
        "'attention' of column 'last' requires .* shared_embeddings",
    ),
    "unknown pooling": (
        {"list_pooling": {"last": "max"}},
        ValueError,
        r"list_pooling\['last'\] must be one of",
    ),
    "unknown list": (
        {"list_pooling": {"nope": "sum"}},
        ValueError,
        "list_pooling contains 'nope', which is not a column of lists",
    ),
    "no list": (
        {"shared_embeddings": {"n": "author"}},
        ValueError,
        "shared_embeddings contains 'n', which is not a column of lists",
    ),
    "no category": (
        {"shared_embeddings": {"last": "n"}},
        ValueError,
        r"'last'\] contains 'n', which is not a category column; these are \['author'",
    ),
    "no dict": (
        {"shared_embeddings": "author"},
        TypeError,
        "shared_embeddings must be None or a dict",
    ),
    "no dict of weights": (
        {"list_weights": ["w"]},
        TypeError,
        "list_weights must be None or a dict",
    ),
    "no dict of ages": ({"list_ages": ["age"]}, TypeError, "list_ages must be None or"),
    "unknown ages": (
        {"list_ages": {"last": "nope"}},
        ValueError,
        "list_ages contains 'nope', which is not a column of X",
    ),
    "ages that nothing reads": (
        {"list_pooling": "mean"},
        ValueError,
        "list_ages contains 'last', whose list_pooling is 'mean'",
    ),
    "no list of ages": (
        {"list_ages": {"last": "n"}},
        TypeError,
        "list_ages of column 'last': column 'n' does not contain lists",
    ),
    "other kind": (
        {"shared_embeddings": {"last": "author", "ids": "author"}},
        ValueError,
        "'author' contains text, but a list column .* contains numbers",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings(name, model):
    params, error, message = BAD[name]
    table = X.assign(ids=[[1, 2]] * N) if name == "other kind" else X
    if name == "no list of ages":
        table = X.drop(columns="age")
    expected = model.predict_proba(X)
    model = deepcopy(model)
    model.set_params(encoding_params={**ATTENTION, **params})
    with pytest.raises(error, match=message):
        model.fit(table, Y)
    assert_array_equal(model.predict_proba(X), expected)


@pytest.mark.parametrize(
    ("row", "ages", "message"),
    [
        (4, [1.0] * 3, "row 4 has 4 elements, but 3 ages in column 'age'"),
        (1, [-1.0], ">= 0; row 1 of column 'age' contains -1.0"),
        (1, [np.inf], "finite and >= 0; row 1 .* contains inf"),
    ],
)
def test_bad_ages(row, ages, message, model):
    table = X.copy()
    table.at[row, "age"] = ages
    for call in (lambda: make_model().fit(table, Y), lambda: model.predict(table)):
        with pytest.raises(ValueError, match=f"list_ages of column 'last'.*{message}"):
            call()


def test_entries_of_another_kind_than_the_shared_values_name_the_list(model):
    numbers = OTHER.assign(also=[[1, 2]] * len(OTHER))
    for predict in (model.predict_proba, Scorer(model, runtime="torch")):
        with pytest.raises(ValueError, match=r"[Cc]olumn 'also' contained text in fit"):
            predict(
                numbers
                if predict == model.predict_proba
                else numbers.to_dict("records")
            )

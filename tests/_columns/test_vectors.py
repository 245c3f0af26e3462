"""Vectors of ids: tables, codes, and what the network reads."""

import copy
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from small_model import refuses, small

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._columns._id_vectors import IdVectors
from sk_pwiser.datasets import ParquetImpressions
from sk_pwiser.export import Scorer, delta
from sk_pwiser.transfer import fine_tune

N_ROWS = 400
N_ITEMS = 30
SIZE = 4


def impressions(n=N_ROWS, seed=0):
    """Return rows whose items are text, with a rare one, and labels."""
    rng = np.random.default_rng(seed)
    item = rng.integers(N_ITEMS, size=n).astype(str).astype(object)
    item[5] = "rare"
    X = pd.DataFrame({"item": item, "shop": rng.choice(["a", "b"], n)})
    X["number"] = rng.normal(size=n)
    click = (rng.random(n) < 0.4).astype(int)
    Y = np.column_stack([click, click * rng.integers(0, 2, n)])
    return X, Y


X, Y = impressions()
NUMBERS = np.random.default_rng(1).normal(3.0, 2.0, size=(N_ITEMS + 5, SIZE))
# Items from 5 on have vectors; five of them are in no row.
IDS = [str(index) for index in range(5, N_ITEMS + 5)]
TABLE = pd.DataFrame(NUMBERS[5:], index=IDS)


def model_with(table, **params):
    entries = {"vectors": {"item": table}, **params}
    return small(encoding_params=entries)


@pytest.fixture(scope="module")
def model():
    return model_with(TABLE).fit(X, Y)


def column_of(model):
    return model._result.schema.encoder.columns_[0]


def vector_of(model, value):
    """Return the vector that the network reads for a value."""
    column = column_of(model)
    code = column.codes_.get(value, 1)
    return column.vectors_[column.vector_rows_[code]]


def test_vectors_are_scaled_once_and_found_by_id(model):
    scaled = (TABLE - TABLE.mean()) / np.sqrt(
        ((TABLE - TABLE.mean()) ** 2).mean().mean()
    )
    for value in ("5", "17", str(N_ITEMS + 4)):
        assert_allclose(vector_of(model, value), scaled.loc[value], atol=1e-5)
    for value in ("0", "rare", "never seen"):
        assert_array_equal(vector_of(model, value), np.zeros(SIZE))
    assert column_of(model).vectors_.dtype == np.float32
    assert model.column_encodings_["item"].encoding.endswith("vectors of 4 numbers")


FORMS = {
    "column": TABLE.rename_axis("item").reset_index(),
    "mapping": dict(zip(IDS, NUMBERS[5:], strict=True)),
    "lists": pd.DataFrame({"item": IDS, "embedding": NUMBERS[5:].tolist()}),
    "float32": TABLE.astype(np.float32),
    "shuffled": TABLE.sample(frac=1, random_state=0),
    "polars": pl.DataFrame(NUMBERS[5:]).with_columns(pl.Series("item", IDS)),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_a_table_give_equal_predictions(form, model):
    other = model_with(FORMS[form]).fit(X, Y)
    expected = model.predict_proba(X)
    assert_allclose(other.predict_proba(X), expected, rtol=1e-4)


def test_the_network_adds_vectors_to_embeddings(model):
    layer = model.net_.module_.input_layer
    column = column_of(model)
    values = ["7", "0", str(N_ITEMS + 4), "never seen"]
    rows = X[:4].assign(item=values)
    codes = torch.from_numpy(model.encode(rows).codes).long()
    numeric = torch.from_numpy(model.encode(rows).numeric)
    layer.eval()
    found = layer(codes, numeric)[:, :16].detach().numpy()
    table = layer.embeddings[0].weight.detach().numpy()
    matrix = layer.vectors.matrices[0][0].weight.detach().numpy()
    without = layer.vectors.without_vector[0][0].detach().numpy()
    unseen = table[1]
    expected = [
        table[column.codes_["7"]] + matrix @ vector_of(model, "7"),
        table[column.codes_["0"]] + without,
        # Of an id without rows, the vector is known and the embedding is not.
        unseen + matrix @ vector_of(model, str(N_ITEMS + 4)),
        unseen + without,
    ]
    assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    embeddings = model.category_embeddings("item", as_frame=True)
    assert_allclose(embeddings.loc["7"], expected[0], rtol=1e-4, atol=1e-6)


def test_category_dropout_keeps_vectors():
    model = model_with(TABLE, category_dropout=0.99).fit(X, Y)
    layer = model.net_.module_.input_layer
    codes = torch.full((200, 2), column_of(model).codes_["7"])
    codes[:, 1] = 2
    numeric = torch.zeros(200, model.net_.module_.spec.n_numeric)
    layer.train()
    found = layer(codes, numeric)[:, :16].detach()
    content = layer.vectors.matrices[0][0].weight @ torch.from_numpy(
        vector_of(model, "7")
    )
    own = found - content.detach()
    table = layer.embeddings[0].weight.detach()
    is_unseen = (own - table[1]).abs().max(dim=1).values < 1e-5
    assert is_unseen.float().mean() > 0.9


def test_new_ids_have_vectors_without_training(model):
    grown = copy.deepcopy(model)
    before = grown.predict_proba(X)
    rows = X[:20].assign(item="brand new")
    unknown = grown.predict_proba(rows)
    # The vector of an item of the fit that has neither rows nor an embedding.
    twin = str(N_ITEMS + 4)
    new = pd.DataFrame([TABLE.loc[twin], TABLE.loc["6"]], index=["brand new", "other"])
    grown.add_vectors({"item": new})
    expected = grown.predict_proba(X[:20].assign(item=twin))
    assert_allclose(grown.predict_proba(rows), expected, rtol=1e-5)
    assert np.abs(expected - unknown).max() > 1e-6
    assert_array_equal(grown.predict_proba(X), before)
    scorer = Scorer(grown, runtime="torch")
    assert_allclose(scorer(rows.to_dict("records")), expected, rtol=1e-5)
    # Vectors of known ids are replaced.
    grown.add_vectors({"item": {"7": TABLE.loc["6"]}})
    assert_allclose(vector_of(grown, "7"), vector_of(grown, "6"))


def test_failed_additions_change_nothing(model):
    before = model.predict_proba(X)
    for tables, message in [
        ({"item": {"new": [1.0, 2.0]}}, "must have 4 numbers per id, as in fit; got 2"),
        ({"item": {"new": [1.0, 2.0, np.nan, 0.0]}}, "must be finite"),
        ({"shop": {"c": [1.0] * 4}}, "had vectors in fit"),
        ({"item": {7: [1.0] * 4}}, "text, but the ids of its vectors are numbers"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.add_vectors(tables)
    with pytest.raises(TypeError, match="vectors must be a dict"):
        model.add_vectors(TABLE)
    assert_array_equal(model.predict_proba(X), before)


def test_updates_add_vectors_and_embeddings():
    model = model_with(TABLE, grow_vocabulary=True).fit(X, Y)
    later = X[:100].assign(item="fresh")
    more = pd.concat([TABLE, pd.DataFrame([NUMBERS[0]], index=["fresh"])])
    model.set_params(encoding_params__vectors={"item": more})
    model.partial_fit(later, Y[:100])
    column = column_of(model)
    assert column.codes_["fresh"] < column.cardinality
    expected = (NUMBERS[0] - column.vector_means_) / column.vector_scale_
    assert_allclose(vector_of(model, "fresh"), expected, rtol=1e-5)
    kept = vector_of(model, "9")
    layer = model.net_.module_.input_layer
    assert layer.vectors.limits[0] == column.cardinality
    model.partial_fit(X[:100].assign(item="without"), Y[:100])
    assert_array_equal(vector_of(model, "without"), np.zeros(SIZE))
    assert_array_equal(vector_of(model, "9"), kept)
    rows = layer.vectors.rows_0.numpy()
    assert_array_equal(rows, column_of(model).vector_rows_)


def test_a_failed_update_takes_back_growth(monkeypatch):
    model = model_with(TABLE, grow_vocabulary=True).partial_fit(X, Y)
    before = model.predict_proba(X)

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(model.net_), "train_step_single", fail)
    with pytest.raises(KeyboardInterrupt):
        model.partial_fit(X[:100].assign(item="fresh"), Y[:100])
    assert_array_equal(model.predict_proba(X), before)


def test_warm_starts_read_further_vectors(model):
    further = copy.deepcopy(model).set_params(warm_start=True)
    more = pd.concat([TABLE, pd.DataFrame([NUMBERS[0]], index=["fresh"])])
    further.set_params(encoding_params__vectors={"item": more}).fit(X, Y)
    assert np.abs(vector_of(further, "fresh")).max() > 0


def test_clones_hold_the_table_itself():
    model = model_with(TABLE)
    cloned = clone(model)
    assert cloned.encoding_params["vectors"]["item"] is TABLE
    assert cloned.encoding_params["vectors"] is not model.encoding_params["vectors"]
    assert model.get_params()["encoding_params__vectors"]["item"] is TABLE
    table = IdVectors(TABLE)
    assert copy.deepcopy(table) is table
    # A clone of an estimator without tables is as before.
    assert clone(small(encoding_params={"max_bins": 3})).encoding_params == {
        "max_bins": 3
    }


def test_files_hold_the_vectors_and_not_the_table(model, tmp_path):
    expected = model.predict_proba(X)
    assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(X), expected)
    path = tmp_path / "model.safetensors"
    model.save(path)
    loaded = MultiTaskCTRCVRClassifier.load(path)
    assert_array_equal(loaded.predict_proba(X), expected)
    assert_array_equal(
        loaded.category_embeddings("item")[1], model.category_embeddings("item")[1]
    )
    loaded.partial_fit(X[:100], Y[:100])
    with pytest.raises(ValueError, match="must be passed again"):
        loaded.fit(X, Y)
    loaded.set_params(encoding_params__vectors={"item": TABLE}).fit(X, Y)


def test_a_model_of_a_pickle_is_fine_tuned(model):
    source = pickle.loads(pickle.dumps(model))
    tuned = fine_tune(source, X, Y, seen=True)
    assert_array_equal(vector_of(tuned, "7"), vector_of(model, "7"))


def test_single_rows_are_scored(model):
    rows = X[:30].to_dict("records")
    expected = model.predict_proba(X[:30])
    scorer = Scorer(model, runtime="torch")
    assert_allclose(scorer(rows), expected, rtol=1e-5)
    assert_allclose(scorer(rows[4])[0], expected[4], rtol=1e-5)


def test_scorers_take_new_vectors_by_a_delta(model):
    scorer = Scorer(model, runtime="torch")
    grown = copy.deepcopy(model)
    grown.add_vectors({"item": {"brand new": NUMBERS[0]}})
    scorer.apply(delta(model, grown))
    rows = X[:20].assign(item=["brand new", "7"] * 10)
    expected = grown.predict_proba(rows)
    assert_allclose(scorer(rows.to_dict("records")), expected, rtol=1e-5)


@pytest.mark.slow
def test_graphs_hold_the_vectors(model, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from sk_pwiser.export import to_onnx

    rows = X[:30].copy()
    rows.loc[3, "item"] = str(N_ITEMS + 4)
    expected = model.predict_proba(rows)
    to_onnx(model, tmp_path / "raw.onnx", inputs="raw")
    session = onnxruntime.InferenceSession(tmp_path / "raw.onnx")
    inputs = {name: rows[[name]].to_numpy(dtype=object) for name in ("item", "shop")}
    inputs["number"] = rows[["number"]].to_numpy()
    [found] = session.run(["probabilities"], inputs)
    assert_allclose(found, expected, rtol=1e-4)
    to_onnx(model, tmp_path / "encoded.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "encoded.onnx")
    table = model.encode(rows)
    inputs = {"codes": table.codes.astype(np.int64), "numeric": table.numeric}
    [found] = session.run(["probabilities"], inputs)
    assert_allclose(found, expected, rtol=1e-4)


def test_rows_of_files_have_the_same_vectors(model, tmp_path):
    pytest.importorskip("pyarrow")
    frame = X.assign(click=Y[:, 0], conversion=Y[:, 1])
    frame.to_parquet(tmp_path / "log.parquet", row_group_size=100)
    rows = ParquetImpressions(
        tmp_path / "log.parquet",
        features=list(X),
        targets=["click", "conversion"],
    )
    of_files = model_with(TABLE).fit(rows)
    for value in ("5", "17", str(N_ITEMS + 4), "rare"):
        assert_allclose(vector_of(of_files, value), vector_of(model, value))


@pytest.mark.parametrize("network", ["stem", "esmm"])
def test_networks_with_several_tables_and_interactions(network):
    entries = {"vectors": {"item": TABLE}}
    params = {"interaction": "fm"}
    model = small(encoding_params=entries, network=network, network_params=params)
    model.fit(X, Y)
    assert np.isfinite(model.predict_proba(X)).all()


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        ([1.0], TypeError, "must be a DataFrame, or a mapping"),
        ({"7": [1.0], "8": [1.0, 2.0]}, ValueError, "that of '7' has 1 .* '8' has 2"),
        ({"7": [1.0], "8": [np.nan]}, ValueError, "the vector of '8' has NaN"),
        ({"7": 1.0}, TypeError, "one-dimensional.*'7' is 1.0"),
        ({"7": ["x"]}, TypeError, "one-dimensional"),
        ({}, ValueError, "at least one id"),
        ({7: [1.0]}, ValueError, "contains text, but the ids .* numbers"),
        (TABLE.iloc[[0, 0]], ValueError, "each id once; '5' repeats"),
        (TABLE.set_axis([None, *IDS[1:]]), ValueError, "missing id"),
        (TABLE.assign(name="x"), TypeError, "column 'name'"),
        (pl.DataFrame(NUMBERS), ValueError, "must have a column 'item'"),
    ],
)
def test_wrong_tables_are_refused(table, error, message):
    refuses(model_with(table), error, message, X, Y)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"vectors": TABLE}, TypeError, "vectors must be None or a dict"),
        ({"vectors": {"article": TABLE}}, ValueError, "vectors.*'article'"),
        ({"vectors": {"number": TABLE}}, ValueError, "vectors contains 'number'"),
        (
            {"vectors": {"item": TABLE}, "n_hash_buckets": {"item": 8}},
            ValueError,
            "which has n_hash_buckets",
        ),
    ],
)
def test_wrong_columns_are_refused(params, error, message):
    refuses(small(encoding_params=params), error, message, X, Y)


def test_lists_cannot_share_vectors():
    lists = X.assign(last=[["5", "6"]] * N_ROWS)
    params = {"vectors": {"item": TABLE}, "shared_embeddings": {"last": "item"}}
    message = "'item', which is in shared_embeddings"
    refuses(small(encoding_params=params), ValueError, message, lists, Y)


def test_a_table_without_ids_of_the_rows_is_warned_about():
    with pytest.warns(UserWarning, match="has none of the values of column 'item'"):
        model_with(TABLE.add_prefix("x", axis=0)).fit(X, Y)


def test_equal_vectors_are_not_divided_by_zero():
    model = model_with(pd.DataFrame(np.ones((3, 2)), index=IDS[:3])).fit(X, Y)
    assert_array_equal(vector_of(model, "5"), [0.0, 0.0])

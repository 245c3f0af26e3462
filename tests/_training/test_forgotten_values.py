"""Updates in which new values take the places of forgotten ones."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from serving_rows import raw_inputs
from skorch.callbacks import Callback
from small_model import X, Y, small
from torch import nn

from sk_pwiser import MultiTaskCTRCVRClassifier, export
from sk_pwiser._columns._codes import UNSEEN
from sk_pwiser.networks import MultiTaskNetwork, NetworkOutput

FORGETS = {"grow_vocabulary": True, "forget_after": 2, "min_frequency": 2}


def with_ids(first, last, seed=0):
    """Return impressions with ids of a range, in random order."""
    ids = first + np.arange(len(X)) % (last - first)
    ids = np.random.default_rng(seed).permutation(ids)
    return X.assign(id=pd.Series(ids, dtype="category"))


def with_words(first, last):
    """Return impressions with lists of words of a range."""
    rng = np.random.default_rng(first)
    sizes = rng.integers(1, 4, len(X))
    words = [[f"w{w:03}" for w in rng.integers(first, last, n)] for n in sizes]
    return X.assign(words=words)


class Watch(Callback):
    """Copies tables and moments when training begins, and raises if armed."""

    error = None

    def on_train_begin(self, net, **kwargs):
        layer = net.module_.input_layer
        tables = list(layer.tables)
        if layer.bags is not None:
            tables += layer.bags.tables
        self.weights = [table.detach().clone() for table in tables]
        self.states = [copy.deepcopy(net.optimizer_.state[t]) for t in tables]

    def on_batch_end(self, net, **kwargs):
        if self.error is not None:
            raise self.error


def forgetting(rows, **params):
    encoding = {**FORGETS, **params.pop("encoding_params", {})}
    return small(encoding_params=encoding, **params).partial_fit(rows, Y)


def codes_of(model, name="id"):
    return model.column_encodings_[name]["values"]


@pytest.mark.parametrize("changes", [False, True])
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"network": "stem", "network_params": None},
        {"optimizer_params": {"lazy_embeddings": False}},
        {"optimizer": "sgd", "optimizer_params": {"momentum": 0.9}},
    ],
)
def test_new_values_begin_in_the_places_of_forgotten_ones(params, changes):
    watch = Watch()
    model = forgetting(with_ids(0, 120), callbacks=[watch], **params)
    model.partial_fit(with_ids(40, 120), Y)
    before = codes_of(model)
    if changes:  # the update builds a new net
        model.set_params(batch_size=90)
    layer = model.net_.module_.input_layer
    earlier_tables = [table.detach().clone() for table in layer.tables]
    states = [copy.deepcopy(model.net_.optimizer_.state[t]) for t in layer.tables]
    offset = int(layer.offsets[-1])
    # No row of this update and the one before had ids below 40.
    model.partial_fit(with_ids(100, 130), Y)
    codes = codes_of(model)
    assert set(codes) == {*range(10, 130)}
    assert [codes[v] for v in range(120, 130)] == [before[v] for v in range(10)]
    assert all(codes[v] == before[v] for v in range(10, 120))
    reused = offset + np.array([codes[v] for v in range(120, 130)])
    others = np.setdiff1d(np.arange(len(earlier_tables[0])), reused)
    for index, table in enumerate(earlier_tables):
        start = watch.weights[index]
        assert torch.equal(start[others], table[others])
        unseen = table[offset + UNSEEN]
        assert torch.equal(start[reused], unseen.expand(10, -1))
        assert (table[reused] != unseen).any(dim=1).all()
        for key, value in states[index].items():
            moments = watch.states[index][key]
            if torch.is_tensor(value) and value.ndim == 2:
                assert torch.equal(moments[others], value[others])
                assert not moments[reused].any()
                assert value[reused].any()
            else:
                assert moments == value


def test_forgotten_values_are_unseen_wherever_they_are_read(tmp_path):
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = forgetting(with_ids(0, 120))
    model.partial_fit(with_ids(40, 120), Y).partial_fit(with_ids(40, 150), Y)
    rows = with_ids(0, 150)
    assert set(codes_of(model)) == {*range(30, 150)}
    ids = rows["id"].astype(int)
    as_new = rows.assign(id=ids.where(ids >= 30, 999).astype("category"))
    expected = model.predict_proba(rows)
    assert_array_equal(expected, model.predict_proba(as_new))
    model.save(tmp_path / "model")
    loaded = MultiTaskCTRCVRClassifier.load(tmp_path / "model")
    for other in (loaded, pickle.loads(pickle.dumps(model))):
        assert_array_equal(other.predict_proba(rows), expected)
    records = rows.astype({"id": int}).to_dict("records")
    assert_allclose(export.Scorer(model, runtime="torch")(records), expected, atol=1e-6)
    export.to_onnx(model, tmp_path / "model.onnx", inputs="raw")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    found = session.run(["probabilities"], raw_inputs(rows, text=()))[0]
    assert_allclose(found, expected, atol=1e-6)
    # The loaded one forgets the same values afterwards.
    for other in (model, loaded):
        other.partial_fit(with_ids(100, 190), Y)
    assert codes_of(model) == codes_of(loaded)
    assert set(codes_of(model)) == {*range(40, 190)}
    assert_array_equal(loaded.predict_proba(rows), model.predict_proba(rows))


def test_a_delta_has_forgotten_values_and_no_record_of_uses():
    model = forgetting(with_ids(0, 120).join(with_words(0, 20)["words"]))
    model.partial_fit(with_ids(40, 120).join(with_words(0, 20)["words"]), Y)
    scorer = export.Scorer(model, runtime="torch")
    earlier = copy.deepcopy(model)
    model.partial_fit(with_ids(100, 130).join(with_words(0, 20)["words"]), Y)
    rows = with_ids(0, 130).join(with_words(0, 20)["words"])
    records = rows.astype({"id": int}).to_dict("records")
    change = export.delta(earlier, model)
    assert not any("last_updates" in name for name in change._arrays)
    scorer.apply(change)
    found = scorer(records)
    assert_array_equal(found, export.Scorer(model, runtime="torch")(records))
    # The model itself keeps the record.
    column = model._result.schema.encoder.code_columns_[-1]
    assert column.last_updates.max() == column.n_updates == 2


def test_statistics_count_a_value_from_its_last_entry():
    """Sequences of updates, beside a dictionary with the rows of each known value."""
    rng = np.random.default_rng(0)
    model = forgetting(
        with_ids(0, 60),
        encoding_params={"min_frequency": 1},
        target_encoding=["id"],
    )
    click = Y["click"].to_numpy()
    rows = {}
    last = {}

    def count(update, ids):
        values, n_rows = np.unique(ids, return_counts=True)
        for value in sorted(set(values) - set(last)):
            expired = sorted((u, v) for v, u in last.items() if update - u >= 2)
            # Of those that were last used together, the smallest code goes first.
            expired.sort(key=lambda pair: (pair[0], codes[pair[1]]))
            expired = [v for _, v in expired if v not in values]
            if expired:
                del last[expired[0]], rows[expired[0]]
            last[value] = update
            rows[value] = np.zeros(2)
        for value, n in zip(values, n_rows, strict=True):
            last[value] = update
            rows[value] += [n, click[ids == value].sum()]

    count(0, with_ids(0, 60)["id"].astype(int).to_numpy())
    for update in range(1, 12):
        codes = codes_of(model)
        first = 15 * update + int(rng.integers(-20, 5))
        table = with_ids(max(first, 0), max(first, 0) + 60, seed=update)
        model.partial_fit(table, Y)
        count(update, table["id"].astype(int).to_numpy())
        codes = codes_of(model)
        assert set(codes) == set(rows)
        counts = model._result.schema.statistics.counts_[0][:, 0]
        for value, expected in rows.items():
            assert_allclose(counts[:, codes[value]], expected)
    assert len(rows) < 60 + 15 * 6


def test_elements_of_lists_are_forgotten():
    watch = Watch()
    model = forgetting(with_words(0, 40), callbacks=[watch])
    model.partial_fit(with_words(20, 40), Y)
    before = codes_of(model, "words")
    table = model.net_.module_.input_layer.bags.tables[0].detach().clone()
    model.partial_fit(with_words(30, 60), Y)
    codes = codes_of(model, "words")
    assert set(codes) == {f"w{w:03}" for w in range(20, 60)}
    assert codes["w040"] == before["w000"]
    # Elements with a code, those of the rows before the first update, and empty lists.
    start = watch.weights[-1]
    reused = [codes[f"w{w:03}"] for w in range(40, 60)]
    assert torch.equal(start[reused], table[UNSEEN].expand(20, -1))
    others = np.setdiff1d(np.arange(len(table)), reused)
    assert torch.equal(start[others], table[others])
    assert np.isfinite(model.predict_proba(with_words(0, 60))).all()


def test_a_column_shares_its_record_with_lists():
    def table(words, first, last):
        word = [f"w{first + n % (last - first):03}" for n in range(len(X))]
        return words.assign(word=word)

    shared = {"shared_embeddings": {"words": "word"}}
    model = forgetting(table(with_words(0, 40), 0, 40), encoding_params=shared)
    # The lists still have words that the column does not have.
    model.partial_fit(table(with_words(0, 20), 20, 40), Y)
    model.partial_fit(table(with_words(10, 20), 20, 60), Y)
    # No value has been missing from two updates.
    assert set(codes_of(model, "word")) == {f"w{w:03}" for w in range(60)}
    model.partial_fit(table(with_words(10, 20), 60, 70), Y)
    assert set(codes_of(model, "word")) == {f"w{w:03}" for w in range(10, 70)}


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt()])
def test_an_update_that_ends_early_forgets_nothing(error):
    watch = Watch()
    model, other = (
        forgetting(with_ids(0, 120), callbacks=[callback])
        for callback in (watch, Watch())
    )
    for each in (model, other):
        each.partial_fit(with_ids(40, 120), Y)
    rows = with_ids(0, 150)
    expected = model.predict_proba(rows)
    watch.error = error
    with pytest.raises(type(error)):
        model.partial_fit(with_ids(100, 150), Y)
    watch.error = None
    assert_array_equal(model.predict_proba(rows), expected)
    assert codes_of(model) == codes_of(other)
    for each in (model, other):
        each.partial_fit(with_ids(100, 150), Y)
    assert codes_of(model) == codes_of(other)
    assert_array_equal(model.predict_proba(rows), other.predict_proba(rows))


def test_a_model_without_a_record_begins_one():
    """As from a file of a version that did not forget, or after other updates."""
    model = small(encoding_params={"grow_vocabulary": True})
    model.partial_fit(with_ids(0, 120), Y).partial_fit(with_ids(40, 130), Y)
    model = pickle.loads(pickle.dumps(model)).set_params(encoding_params=FORGETS)
    model.partial_fit(with_ids(40, 140), Y)
    assert set(codes_of(model)) == {*range(140)}
    model.partial_fit(with_ids(40, 150), Y)
    assert set(codes_of(model)) == {*range(10, 150)}


def test_other_columns_do_not_forget():
    columns = {"n_hash_buckets": {"id": 200}}
    model = forgetting(with_ids(0, 120), encoding_params=columns)
    column = model._result.schema.encoder.code_columns_[-1]
    for first in (200, 300, 400):
        model.partial_fit(with_ids(first, first + 100), Y)
    assert model._result.schema.encoder.code_columns_[-1] is column


def test_rare_conversions():
    rng = np.random.default_rng(0)
    model = small(encoding_params=FORGETS, target_encoding=["id"], batch_size=500)
    sizes = []
    for update in range(8):
        n_rows = 3_000
        ids = 50 * update + rng.integers(0, 200, n_rows)
        rows = pd.DataFrame({"id": ids.astype(str), "x": rng.normal(size=n_rows)})
        click = rng.random(n_rows) < 0.05
        labels = np.column_stack([click, click & (rng.random(n_rows) < 0.02)])
        model.partial_fit(rows, labels.astype(int), classes=[0, 1])
        p = model.predict_proba(rows)
        assert np.isfinite(p).all()
        sizes.append(len(codes_of(model)))
    # The ids of an update and of the one before, which had 50 others.
    assert max(sizes) <= 300
    assert p[:, 1].mean() < 0.01


def with_texts(first, last):
    """Return impressions with ids of a range as text."""
    rows = with_ids(first, last)
    return rows.assign(id=rows["id"].astype(str))


def test_vectors_of_forgotten_ids_go():
    numbers = np.random.default_rng(0).normal(size=(150, 3)).astype(np.float32)
    table = pd.DataFrame(numbers, index=np.arange(150).astype(str))
    params = {"vectors": {"id": table[:140]}}
    model = forgetting(with_texts(0, 120), encoding_params=params)
    model.partial_fit(with_texts(40, 120), Y)
    # Ids from 140 on have no vector yet, and those from 130 on no rows.
    model.partial_fit(with_texts(100, 130), Y)
    model.add_vectors({"id": table[140:145]})
    model.partial_fit(with_texts(90, 150), Y)
    column = model._result.schema.encoder.code_columns_[-1]
    assert len(column.last_updates) == len(column.vector_rows_) == column.n_codes
    assert len(column.vectors_) == 1 + np.count_nonzero(column.vector_rows_)
    scaled = (numbers - column.vector_means_) / column.vector_scale_
    forgotten = {str(value) for value in range(150)} - set(column.codes_)
    # Those of the first rows that come first as text.
    assert forgotten == set(sorted(str(value) for value in range(40))[:30])
    for value, code in column.codes_.items():
        expected = scaled[int(value)] if int(value) < 145 else np.zeros(3)
        found = column.vectors_[column.vector_rows_[code]]
        assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    buffer = model.net_.module_.input_layer.vectors.rows_0.numpy()
    assert_array_equal(buffer, column.vector_rows_)
    p = model.predict_proba(with_texts(10, 30))
    unknown = model.predict_proba(with_texts(900, 920))
    assert_array_equal(p, unknown)


def test_parents_are_forgotten_apart_from_their_children():
    """The child may stay when its parent goes, and has none until its next row."""

    def with_shops(first, last, shop):
        rows = with_ids(first, last)
        return rows.assign(shop=[f"s{shop + int(v) % 5:03}" for v in rows["id"]])

    params = {"parents": {"id": "shop"}, "target_encoding_min_values": 2}
    model = forgetting(
        with_shops(0, 60, shop=0), encoding_params=params, target_encoding=True
    )
    shops = {value: f"s{value % 5:03}" for value in range(60)}
    for update, shop in enumerate([0, 5, 10, 15, 20], start=1):
        first = 10 * update
        table = with_shops(first, first + 50, shop)
        shops |= dict(zip(table["id"].astype(int), table["shop"], strict=True))
        model.partial_fit(table, Y)
        statistics = model._result.schema.statistics
        columns = model._result.schema.encoder.code_columns_
        codes = {column.name: column.codes_ for column in columns}
        names = statistics.column_names(model._result.schema.encoder)
        parents = statistics.parents_[names.index("id")]
        for value, code in codes["id"].items():
            expected = codes["shop"].get(shops[int(value)], 0)
            assert parents[code] == expected
        assert np.isfinite(model.predict_proba(table)).all()
    assert len(codes["shop"]) < 25


class OwnTable(MultiTaskNetwork):
    """Reads the codes of the last column by a table of its own."""

    def __init__(self, spec):
        super().__init__(spec)
        self.own = nn.Embedding(spec.cardinalities[-1], self.n_tasks)
        self.head = nn.Linear(self.width, self.n_tasks)

    def forward(self, codes, numeric):
        logits = self.head(self.input_layer(codes, numeric))
        return NetworkOutput(logits + self.own(codes[:, -1]))


def test_a_network_may_not_keep_rows_of_forgotten_values():
    model = small(network=OwnTable, network_params=None, encoding_params=FORGETS)
    for _ in range(3):
        model.partial_fit(with_ids(0, 120), Y)
    model.partial_fit(with_ids(40, 120), Y)
    expected = model.predict_proba(with_ids(0, 120))
    with pytest.raises(ValueError, match="own has 122 rows"):
        model.partial_fit(with_ids(100, 120).assign(id=with_ids(110, 130)["id"]), Y)
    assert_array_equal(model.predict_proba(with_ids(0, 120)), expected)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"forget_after": 0}, ValueError, "forget_after must be an integer >= 1"),
        ({"forget_after": True}, TypeError, "forget_after must be an integer >= 1"),
        ({"forget_after": 2.0}, TypeError, "forget_after must be an integer >= 1"),
        (
            {"forget_after": 3, "grow_vocabulary": False},
            ValueError,
            "forget_after must be None without grow_vocabulary=True; got 3",
        ),
    ],
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_values_of_the_parameter(params, error, message, method):
    model = small(encoding_params={**FORGETS, **params})
    with pytest.raises(error, match=message):
        getattr(model, method)(X, Y)

"""Updates with new category values: a warning, or a larger vocabulary."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal
from skorch.callbacks import Callback
from small_model import X, Y, small
from torch import nn

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._training._growth import grow_schema
from sk_pwiser._training._lazy_tables import LazyAdam
from sk_pwiser.networks import MultiTaskNetwork, NetworkOutput

GROWS = {"grow_vocabulary": True, "min_frequency": 2}


def with_ids(first, last, n_rare=0):
    """Return impressions with ids of a range in random order, some of them once."""
    rng = np.random.default_rng(first)
    ids = first + np.arange(len(X)) % (last - first)
    ids[:n_rare] = 10_000 + np.arange(n_rare)
    return X.assign(id=pd.Series(rng.permutation(ids), index=X.index, dtype="category"))


OLD, NEW = with_ids(0, 120), with_ids(60, 160, n_rare=3)


class Watch(Callback):
    """Records the tables at the begin of training, and raises in a batch if armed."""

    armed = False

    def on_train_begin(self, net, **kwargs):
        layer = net.module_.input_layer
        of_bags = () if layer.bags is None else layer.bags.tables
        self.weights, self.bags = (
            [table.detach().clone() for table in tables]
            for tables in (layer.tables, of_bags)
        )
        self.states = [
            copy.deepcopy(dict(net.optimizer_.state[t])) for t in layer.tables
        ]

    def on_batch_end(self, net, **kwargs):
        if self.armed:
            raise RuntimeError("in a batch")


def growing(rows=OLD, **params):
    encoding = {**GROWS, **params.pop("encoding_params", {})}
    model = small(network_params=None, encoding_params=encoding, callbacks=[Watch()])
    return model.set_params(**params).partial_fit(rows, Y)


def state(model):
    net, encoder = model.net_, model._result.schema.encoder
    layer, column = net.module_.input_layer, encoder.columns_[-1]
    return copy.deepcopy(
        {
            "network": net.module_.state_dict(),
            "optimizer": net.optimizer_.state_dict(),
            "encoder": vars(getattr(column, "items_", column)),
            "offsets": layer.offsets,
            "cardinalities": list(net.module_.spec.cardinalities),
            "n_rows": [e.num_embeddings for e in layer.embeddings],
            "bags": encoder.bags_,
            "buffers": {} if layer.bags is None else dict(layer.bags.named_buffers()),
        }
    )


def assert_same(one, other):
    assert pickle.dumps(list(one)) == pickle.dumps(list(other))
    for key in one:
        if isinstance(one[key], dict):
            assert_same(one[key], other[key])
        elif isinstance(one[key], torch.Tensor):
            assert torch.equal(one[key], other[key])
        else:
            assert one[key] == other[key]


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"network": "stem"},
        {"optimizer_params": {"lazy_embeddings": False}},
        {"optimizer": "sgd", "optimizer_params": {"momentum": 0.9}},
        {"optimizer": "adagrad"},
        {"embedding_dim": "auto"},
        {"target_encoding": False},
        {"lr": 0.01, "weighting": "uncertainty"},
    ],
)
@pytest.mark.parametrize("changes", [False, True])
def test_new_values_get_rows_like_that_of_unseen_values(params, changes):
    model = growing(**params)
    before = state(model)
    layer = model.net_.module_.input_layer
    old = [table.detach().clone() for table in layer.tables]
    unseen = int(layer.unseen[-1])
    old_states = [
        copy.deepcopy(model.net_.optimizer_.state.get(table, {}))
        for table in layer.tables
    ]
    if changes:  # the update builds a new net
        model.set_params(batch_size=90)
    model.partial_fit(NEW, Y)
    sizes = model._result.schema.encoder.cardinalities_
    assert sizes == [*before["cardinalities"][:-1], 162]
    layer = model.net_.module_.input_layer
    assert layer.cardinalities == list(model.net_.module_.spec.cardinalities) == sizes
    assert_array_equal(layer.offsets.cpu(), np.cumsum([0, *sizes])[:-1])
    watch = model.callbacks[0]
    for table, (weight, now) in enumerate(
        zip(watch.weights, watch.states, strict=True)
    ):
        assert len(weight) == sum(sizes)
        new = old[table][unseen].expand(40, -1)
        assert torch.equal(weight, torch.cat([old[table], new]))
        for key, value in old_states[table].items():
            if torch.is_tensor(value) and value.ndim == 2:
                assert torch.equal(now[key][:-40], value)
                assert not now[key][-40:].any()
            else:
                assert now[key] == value
    codes = model.column_encodings_["id"]["values"]
    assert [codes[v] for v in range(160)] == list(range(2, 162))
    assert not set(codes) & {10_000, 10_001, 10_002}
    # Known and new values are trained.
    for table, weight in zip(layer.tables, watch.weights, strict=True):
        assert (table[-40:] != weight[-40:]).any(dim=1).all()
        assert torch.isfinite(table).all()
    is_lazy = not any(name.startswith("optimizer") for name in params)
    assert isinstance(model.net_.optimizer_, LazyAdam) == is_lazy
    n_statistics = model._result.schema.statistics
    if n_statistics is not None:
        ids = OLD["id"].astype(int).tolist() + NEW["id"].astype(int).tolist()
        counts = n_statistics.counts_[-1][0, 0]
        assert [counts[codes[v]] for v in (5, 100, 150)] == [
            ids.count(v) for v in (5, 100, 150)
        ]
    # Predictions and later updates work.
    assert np.isfinite(model.predict_proba(NEW)).all()
    model.partial_fit(with_ids(150, 200), Y)
    assert model._result.schema.encoder.cardinalities_[-1] == 202


def test_without_new_values_nothing_grows():
    model = growing()
    size = len(model.net_.module_.input_layer.tables[0])
    schema = model._result.schema
    model.partial_fit(OLD, Y)
    assert len(model.net_.module_.input_layer.tables[0]) == size
    assert model._result.schema.encoder is schema.encoder


@pytest.mark.parametrize("target_encoding", ["auto", False])
def test_a_warning_counts_new_values(target_encoding):
    missing = NEW.copy()
    missing.loc[:3, "id"] = None
    n_new = int((missing["id"].astype(float) >= 120).sum())
    model = small(target_encoding=target_encoding).partial_fit(OLD, Y)
    tenths = 10 * int(np.ceil(10 * n_new / len(X)))
    message = rf"'id' in up to {tenths} % of the rows\. .*'grow_vocabulary': True"
    with pytest.warns(UserWarning, match=message) as found:
        model.partial_fit(missing, Y)
    assert len(found) == 1
    assert found[0].filename == __file__
    model.partial_fit(OLD, Y)  # without a warning, which would be an error
    # Fit had no missing value.
    missing = OLD.copy()
    missing.loc[:3, "id"] = None
    model.partial_fit(missing, Y)


def test_hashed_columns_have_no_new_values():
    model = small(encoding_params={"n_hash_buckets": {"id": 200}})
    model.partial_fit(OLD, Y).partial_fit(NEW, Y)


class OwnTable(MultiTaskNetwork):
    """Reads the codes, or a function of them, by a table of its own."""

    def __init__(self, spec, *, reads="all"):
        super().__init__(spec)
        first = spec.cardinalities[0]
        self.reads = reads
        n_rows = {"all": sum(spec.cardinalities), "last": spec.cardinalities[-1]}
        self.own = nn.Embedding(n_rows.get(reads, 24), self.n_tasks)
        self.raw = nn.Parameter(torch.zeros(spec.cardinalities[-1], 1))
        self.register_buffer("first", torch.tensor([0, first, *[0] * 9]))
        self.head = nn.Linear(self.width, self.n_tasks)

    def forward(self, codes, numeric):
        logits = self.head(self.input_layer(codes, numeric))
        if self.reads == "raw":
            return NetworkOutput(logits + self.raw[codes[:, -1]])
        places = {
            "all": codes + self.first[: codes.shape[1]],
            "last": codes[:, -1:],
            "hashed": codes % 24,
        }
        return NetworkOutput(logits + self.own(places[self.reads]).sum(dim=1))


@pytest.mark.parametrize("reads", ["all", "last", "raw"])
def test_a_table_of_a_users_network_does_not_grow(reads):
    model = growing(network=OwnTable, network_params={"reads": reads})
    before = state(model)
    model.callbacks[0].armed = True  # raises in the first batch
    what = "" if reads == "raw" else "own has"
    message = f"must be False .*: a part of the network .*{what}.*Let OwnTable read"
    with pytest.raises(ValueError, match=message):
        model.partial_fit(NEW, Y)
    model.callbacks[0].armed = False
    assert_same(state(model), before)
    model.partial_fit(OLD, Y)


def test_a_users_table_of_hashed_codes_need_not_grow():
    model = growing(network=OwnTable, network_params={"reads": "hashed"})
    model.partial_fit(NEW, Y)
    assert np.isfinite(model.predict_proba(NEW)).all()


def with_words(first, last, n_rare=0, empty=True):
    """Return impressions with lists of words of a range, some words once."""
    rng = np.random.default_rng(first)
    words = [
        [f"w{w}" for w in rng.integers(first, last, size)]
        for size in rng.integers(1, 4, len(X))
    ]
    for row in range(n_rare):
        words[row].append(f"rare{first}{row}")
    words[10] = None
    if empty:
        words[20] = words[30] = []
    return X.assign(words=words)


OLD_WORDS, NEW_WORDS = with_words(0, 40), with_words(20, 60, n_rare=3)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"network": "stem"},
        {"optimizer": "sgd", "optimizer_params": {"momentum": 0.9}},
        {"embedding_dim": "auto"},
        {"encoding_params": {"list_target_encoding": True}},
        {"encoding_params": {"list_pooling": "sum"}},
    ],
    ids=str,
)
@pytest.mark.parametrize("changes", [False, True])
def test_lists_get_vectors_for_new_elements(params, changes):
    model = growing(OLD_WORDS, **params)
    tables = model.net_.module_.input_layer.bags.tables
    before = [table.detach().clone() for table in tables]
    column = model._result.schema.encoder.bag_columns_[0]
    n_old, known = column.items_.cardinality, dict(column.items_.codes_)
    if changes:
        model.set_params(batch_size=90)
    model.partial_fit(NEW_WORDS, Y)
    starts = model.callbacks[0].bags
    column = model._result.schema.encoder.bag_columns_[0]
    codes = column.items_.codes_
    frequent = {v for v, c in codes.items() if c < column.items_.cardinality}
    assert frequent == {f"w{w}" for w in range(60)}
    n_new = column.items_.cardinality
    assert model._result.schema.encoder.bags_[0][0] == n_new + 1 == 63
    assert column.empty_code_ == n_new
    for old, start in zip(before, starts, strict=True):
        for value, code in known.items():
            if code < n_old:
                assert torch.equal(start[codes[value]], old[code])
        assert torch.equal(start[n_new], old[n_old])  # of empty lists
        for word in range(40, 60):
            assert torch.equal(start[codes[f"w{word}"]], old[1])  # of unseen elements
    # New vectors are trained, and predictions and later updates work.
    tables = model.net_.module_.input_layer.bags.tables
    for table, start in zip(tables, starts, strict=True):
        assert (table[codes["w59"]] != start[codes["w59"]]).any()
    rows = pd.DataFrame({"words": [["w50"], ["w41"], []]}).join(X[:3].reset_index())
    p = model.predict_proba(rows[OLD_WORDS.columns])
    assert len(np.unique(p[:, 0])) == 3 or "network" in params
    model.partial_fit(with_words(50, 70), Y)
    assert model._result.schema.encoder.bags_[0][0] == 73


@pytest.mark.parametrize(
    ("old", "new", "lazy"),
    [(OLD, NEW, "auto"), (OLD, NEW, False), (OLD_WORDS, NEW_WORDS, "auto")],
)
def test_a_failing_update_leaves_everything_as_it_was(old, new, lazy):
    params = {"optimizer_params": {"lazy_embeddings": lazy}}
    model, other = (growing(old, **params) for _ in range(2))
    before, p = state(model), model.predict_proba(old)
    net, parameters = model.net_, list(model.net_.module_.parameters())
    model.callbacks[0].armed = True
    with pytest.raises(RuntimeError, match="in a batch"):
        model.partial_fit(new, Y)
    assert_same(state(model), before)
    assert_array_equal(model.predict_proba(old), p)
    assert model.net_ is net
    model.callbacks[0].armed = False
    for each in (model, other):
        each.partial_fit(new, Y)
    assert_array_equal(model.predict_proba(new), other.predict_proba(new))
    # The update was in place.
    now = model.net_.module_.parameters()
    assert all(a is b for a, b in zip(parameters, now, strict=True))


def test_a_grown_column_is_not_selected_anew_for_target_statistics(tmp_path):
    """Nor in a copy."""
    old, new = (
        ids.assign(words=words["words"])
        for ids, words in ((OLD, OLD_WORDS), (NEW, NEW_WORDS))
    )
    params = {"target_encoding_min_values": 140}
    model = growing(old, encoding_params=params, target_encoding="auto")
    model.partial_fit(new, Y).set_params(warm_start=True, max_epochs=1)
    model.set_params(callbacks=None).save(tmp_path / "model")
    loaded = MultiTaskCTRCVRClassifier.load(tmp_path / "model")
    p = model.predict_proba(new)
    for each in (model, pickle.loads(pickle.dumps(model)), loaded):
        assert_array_equal(each.predict_proba(new), p)
        assert each._result.schema.encoder.cardinalities_[-1] > 142
        assert each.fit(new, Y)._result.schema.statistics is None
        each.partial_fit(new.assign(words=with_words(50, 70)["words"]), Y)
    message = r"these select the columns \['id'\], the earlier fit those of \[\]"
    with pytest.raises(ValueError, match=message):
        model.set_params(target_encoding=["id"]).fit(new, Y)


def test_statistics_of_lists_begin_with_the_rows_of_new_elements():
    params = {"list_target_encoding": True, "target_encoding_min_values": 10}
    model = growing(OLD_WORDS, encoding_params=params)
    model.partial_fit(NEW_WORDS, Y)
    schema = model._result.schema
    codes = schema.encoder.bag_columns_[0].items_.codes_
    counts = schema.statistics.counts_[-1][0, 0]
    lists = [*OLD_WORDS["words"], *NEW_WORDS["words"]]
    elements = [w for words in lists if words for w in words]
    for word in ("w5", "w30", "w55"):
        assert counts[codes[word]] == elements.count(word)


@pytest.mark.parametrize("shared", [False, True])
def test_a_warning_counts_rows_with_new_elements(shared):
    old, new, params = OLD_WORDS, NEW_WORDS, {}
    if shared:
        word = [words[0] if words else "w0" for words in OLD_WORDS["words"]]
        old, new = (each.assign(word=word) for each in (old, new))
        params = {"shared_embeddings": {"words": "word"}}
    model = small(encoding_params=params).partial_fit(old, Y)
    # Elements that are rare in the first call are not new in the second.
    model.partial_fit(old, Y)
    n_new = sum(
        any(w not in {f"w{i}" for i in range(40)} for w in words or ())
        for words in NEW_WORDS["words"]
    )
    tenths = 10 * int(np.ceil(10 * n_new / len(X)))
    with pytest.warns(UserWarning, match=rf"values: 'words' in up to {tenths} % "):
        model.partial_fit(new, Y)


def test_predictions_warn_if_almost_all_elements_are_new():
    model = small().fit(OLD_WORDS, Y)
    model.predict_proba(NEW_WORDS)
    upper = [[w.upper() for w in words or ()] for words in OLD_WORDS["words"]]
    message = r"not seen in fit in 'words' \(100% of the elements\)"
    with pytest.warns(UserWarning, match=message):
        model.predict_proba(OLD_WORDS.assign(words=upper))


def test_a_call_without_frequent_new_values_builds_nothing(monkeypatch):
    """Otherwise each call would take as long as reading the vocabulary."""
    table = OLD_WORDS.assign(id=OLD["id"])
    model = small(encoding_params=GROWS).partial_fit(table, Y)
    later = table.assign(id=table["id"].cat.add_categories([999]))
    later.loc[0, "id"] = 999  # once

    def fail(values):
        raise AssertionError("a vocabulary was built")

    schema = model._result.schema
    with monkeypatch.context() as patch:
        patch.setattr("sk_pwiser._columns._value_kinds.sort_values", fail)
        assert grow_schema(schema, later) == (schema, None)
    later.loc[1, "id"] = 999
    assert grow_schema(schema, later)[1] is not None


def test_updates_with_similar_shares_of_new_values_have_one_text():
    """Python shows an equal warning of one line of the user's code once."""
    model, found = small().partial_fit(OLD, Y), set()
    for rows in (slice(100), slice(101), slice(102)):
        with pytest.warns(UserWarning, match="new category") as warned:
            model.partial_fit(NEW[rows], Y[rows])
        found |= {str(each.message) for each in warned}
    assert len(found) == 1

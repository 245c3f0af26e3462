"""Rates that shrink towards those of parents, against loops over the rows."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from rows_with_statistics import fit_transform
from small_model import refuses, small

from sk_pwiser._columns._codes import FIRST_VALUE, UNSEEN
from sk_pwiser._columns._parents import with_parents
from sk_pwiser._columns._target_statistics import ExtendedStatistics, TargetStatistics
from sk_pwiser._rows._blocks import assign_blocks
from sk_pwiser.export import Scorer

N_GROUPS, N_KINDS, N_ITEMS = 3, 9, 60


def rows(n=3_000, seed=0):
    """Return codes of group, kind and item, labels, and blocks.

    Kinds and items of a group differ from each other. A tenth of the rows have another
    kind than the others of their item.
    """
    rng = np.random.default_rng(seed)
    group_of_kind = rng.integers(N_GROUPS, size=N_KINDS)
    kind_of_item = rng.integers(N_KINDS, size=N_ITEMS)
    item = rng.integers(N_ITEMS, size=n)
    kind = np.where(rng.random(n) < 0.1, rng.integers(N_KINDS, size=n), 0)
    kind = np.where(kind > 0, kind, kind_of_item[item])
    group = group_of_kind[kind]
    log_odds = np.linspace(-1.5, 1.5, N_GROUPS)[group]
    log_odds += rng.normal(size=N_KINDS)[kind] + rng.normal(size=N_ITEMS)[item]
    p = 1 / (1 + np.exp(-log_odds))
    click = rng.random(n) < p
    conversion = click & (rng.random(n) < p)
    codes = np.column_stack([group, kind, item]) + FIRST_VALUE
    return codes, np.c_[click, conversion].astype(float), assign_blocks(n, 5)


def statistics_of(weights_of_codes=(N_GROUPS, N_KINDS, N_ITEMS)):
    sizes = [n + FIRST_VALUE for n in weights_of_codes]
    statistics = TargetStatistics([0, 1, 2], sizes)
    statistics.parents = [-1, 0, 1]
    return statistics


def rate(statistics, y, weight, codes, value, others, task):
    """Return the rate of an item, a kind or a group in the rows of `others`."""
    level = len(value) - 1
    prior = statistics.rates_[task]
    if level > 0:
        prior = rate(statistics, y, weight, codes, value[:-1], others, task)
    same = others & (codes[:, level] == value[-1]) & (value[-1] >= FIRST_VALUE)
    n = weight[same, task].sum()
    k = (weight * y)[same, task].sum()
    a = min(statistics.strengths_[level][task], 1e5)
    return (k + a * prior) / (n + a)


def log_odds(p):
    return np.log(p) - np.log1p(-p)


@pytest.mark.parametrize("is_weighted", [False, True])
def test_inputs_follow_the_formula(is_weighted):
    codes, y, block = rows()
    weight = np.ones_like(y)
    if is_weighted:
        weight = np.random.default_rng(1).uniform(0.5, 2.0, size=y.shape)
    statistics = statistics_of()
    validated = np.arange(len(y)) % 7 == 0
    inputs = fit_transform(statistics, codes, y, weight, block, validated)
    assert np.isfinite(statistics.strengths_).all()
    for row in range(0, len(y), 50):
        others = ~validated & (block != block[row])
        if validated[row]:
            others = ~validated
        for level in range(3):
            value = codes[row, : level + 1]
            for task in range(2):
                p = rate(statistics, y, weight, codes, value, others, task)
                raw = log_odds(p) - log_odds(statistics.rates_[task])
                mean = statistics.means_[level][task]
                expected = (raw - mean) / statistics.scales_[level][task]
                found = inputs[row, 3 * level + task]
                assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_values_without_rows_have_the_rates_of_their_parents():
    codes, y, block = rows()
    statistics = statistics_of()
    nothing = np.zeros(len(y), dtype=bool)
    fit_transform(statistics, codes, y, np.ones_like(y), block, nothing)
    new = np.array([[FIRST_VALUE, FIRST_VALUE + 1, UNSEEN]])
    inputs = statistics.transform(new)[0].reshape(3, 3)
    raw = inputs[:, :2] * np.array(statistics.scales_)[:, :2]
    raw += np.array(statistics.means_)[:, :2]
    assert_allclose(raw[2], raw[1], rtol=1e-4)
    # An unseen kind has the rates of the group, an unseen group the base rates.
    new = np.array([[FIRST_VALUE, UNSEEN, UNSEEN], [UNSEEN] * 3])
    inputs = statistics.transform(new).reshape(2, 3, 3)
    raw = inputs[..., :2] * np.array(statistics.scales_)[:, :2]
    raw += np.array(statistics.means_)[:, :2]
    assert_allclose(raw[0, 2], raw[0, 0], rtol=1e-4)
    assert_allclose(raw[1], 0, atol=1e-5)


def test_labels_of_a_block_are_in_no_input_of_its_rows(monkeypatch):
    """Neither by the value of a row nor by its parents."""

    def fixed(self, counts, rates_of_parents=None):
        return np.full(self.n_tasks_, 10.0)

    monkeypatch.setattr(TargetStatistics, "_estimate_strengths", fixed)
    codes, y, block = rows()
    changed = y.copy()
    changed[block == 2] = y[block == 2][::-1]
    raw = []
    for labels in (y, changed):
        statistics = statistics_of()
        nothing = np.zeros(len(y), dtype=bool)
        inputs = fit_transform(
            statistics, codes, labels, np.ones_like(y), block, nothing
        )
        scales = np.concatenate(statistics.scales_)
        means = np.concatenate(statistics.means_)
        raw.append(inputs[block == 2] * scales + means)
    assert_allclose(*raw, rtol=1e-4, atol=1e-5)


def test_labels_of_noise_cannot_be_told_from_the_inputs():
    codes, _, block = rows(4_000)
    rng = np.random.default_rng(3)
    y = (rng.random((4_000, 2)) < 0.3).astype(float)
    statistics = statistics_of()
    nothing = np.zeros(len(y), dtype=bool)
    inputs = fit_transform(statistics, codes, y, np.ones_like(y), block, nothing)
    for column in inputs.T:
        if column.std() > 0:
            assert abs(np.corrcoef(column, y[:, 0])[0, 1]) < 4 / np.sqrt(len(y))


def test_an_update_adds_rows_and_undo_takes_them_back():
    codes, y, block = rows()
    first = slice(0, 2_900)
    statistics = statistics_of()
    nothing = np.zeros(2_900, dtype=bool)
    weight = np.ones_like(y)
    fit_transform(
        statistics, codes[first], y[first], weight[first], block[first], nothing
    )
    before = statistics.transform(codes)
    parents = {j: array.copy() for j, array in statistics.parents_.items()}
    undo = []
    rest = slice(2_900, None)
    statistics.update(codes[rest], y[rest], weight[rest], undo)
    after = statistics.transform(codes)
    value = codes[-1]
    everything = np.ones(len(y), dtype=bool)
    p = rate(statistics, y, weight, codes, value, everything, 0)
    raw = log_odds(p) - log_odds(statistics.rates_[0])
    expected = (raw - statistics.means_[2][0]) / statistics.scales_[2][0]
    assert after[-1, 6] == pytest.approx(expected, rel=1e-4)
    for change in reversed(undo):
        change()
    assert_array_equal(statistics.transform(codes), before)
    for j, array in statistics.parents_.items():
        assert_array_equal(array, parents[j])


def test_codes_that_move_keep_their_parents():
    codes, y, block = rows()
    statistics = statistics_of()
    nothing = np.zeros(len(y), dtype=bool)
    fit_transform(statistics, codes, y, np.ones_like(y), block, nothing)
    # A new kind comes first, and a new item last.
    first_kinds = [0, 1, -1, *range(FIRST_VALUE, N_KINDS + FIRST_VALUE)]
    origins = [
        np.arange(N_GROUPS + FIRST_VALUE),
        np.array(first_kinds),
        np.append(np.arange(N_ITEMS + FIRST_VALUE), -1),
    ]
    extended = ExtendedStatistics(statistics, origins, "new", adds=True)
    expected = statistics.parents_[2]
    moved = np.where(expected >= FIRST_VALUE, expected + 1, expected)
    assert_array_equal(extended.parents_[2][:-1], moved)
    assert extended.parents_[2][-1] < FIRST_VALUE
    moved_codes = codes + np.array([0, 1, 0])
    assert_allclose(
        extended.transform(moved_codes), statistics.transform(codes), rtol=1e-6
    )


class NamedColumn:
    def __init__(self, name, parent_name=None):
        self.name = name
        self.parent_name = parent_name


def test_parents_come_first_and_have_statistics():
    categories = [
        NamedColumn("item", "kind"),
        NamedColumn("user"),
        NamedColumn("kind", "group"),
        NamedColumn("group"),
    ]
    assert with_parents([0, 1], categories) == ([1, 3, 2, 0], [-1, -1, 1, 2])
    assert with_parents([1], categories) == ([1], [-1])


def table(n=900, seed=0):
    codes, y, _ = rows(n, seed)
    X = pd.DataFrame(codes, columns=["group", "kind", "item"]).astype(str)
    X["number"] = np.random.default_rng(seed).normal(size=n)
    return X[["item", "number", "kind", "group"]], y.astype(int)


PARENTS = {"item": "kind", "kind": "group"}


def fitted(**params):
    X, Y = table()
    entries = {"parents": PARENTS, "target_encoding_min_values": 5, **params}
    return small(encoding_params=entries).fit(X, Y)


def test_rows_are_encoded_alike_everywhere(tmp_path):
    model = fitted()
    X, _ = table(50, seed=1)
    X.loc[3, "item"] = "new"
    X.loc[4, ["item", "kind"]] = "new"
    X.loc[5, ["item", "kind"]] = None
    expected = model.predict_proba(X)
    records = X.to_dict("records")
    scorer = Scorer(model, runtime="torch")
    assert_allclose(scorer(records), expected, rtol=1e-5)
    assert_allclose(scorer(records[4])[0], expected[4], rtol=1e-5)
    candidates = [{k: v for k, v in row.items() if k != "kind"} for row in records]
    shared = {"kind": records[0]["kind"]}
    assert_allclose(
        scorer(candidates, shared), model.predict_proba(X.assign(**shared)), rtol=1e-5
    )
    model.save(tmp_path / "model.safetensors")
    loaded = type(model).load(tmp_path / "model.safetensors")
    assert_array_equal(loaded.predict_proba(X), expected)
    loaded.partial_fit(*table(200, seed=2))


@pytest.mark.slow
def test_a_graph_of_raw_columns_computes_it(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from sk_pwiser.export import to_onnx

    model = fitted()
    X, _ = table(50, seed=1)
    X.loc[3, "item"] = "new"
    X.loc[4, ["item", "kind"]] = "new"
    to_onnx(model, tmp_path / "model.onnx", inputs="raw")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    inputs = {name: X[[name]].to_numpy(dtype=object) for name in PARENTS}
    inputs["group"] = X[["group"]].to_numpy(dtype=object)
    inputs["number"] = X[["number"]].to_numpy()
    [found] = session.run(["probabilities"], inputs)
    assert_allclose(found, model.predict_proba(X), rtol=1e-4)


def test_category_dropout_gives_unseen_values_the_inputs_of_their_parents():
    model = fitted(category_dropout=0.5)
    layer = model.net_.module_.input_layer
    X, _ = table(1, seed=1)
    encoded = model.encode(X)
    numeric = encoded.numeric.copy()
    schema = model._result.schema
    names = schema.encoder.category_names_
    for dropped in (["item"], ["item", "kind"], ["item", "kind", "group"]):
        unseen = X.copy()
        unseen[dropped] = "new"
        expected = model.encode(unseen).numeric
        is_unseen = [name in dropped for name in names] + [False]
        chosen = torch.tensor([is_unseen]).index_select(1, layer.values_of)
        found = layer._replace_unseen(chosen, torch.from_numpy(numeric))
        assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("parents", "error", "message"),
    [
        ({"item": "brand"}, ValueError, "parents.*'brand'"),
        ({"article": "kind"}, ValueError, "parents.*'article'"),
        ({"item": "number"}, ValueError, "parents contains 'number'"),
        ({"item": "item"}, ValueError, "'item' -> 'item'"),
        (
            {"item": "kind", "kind": "item"},
            ValueError,
            "'item' -> 'kind' -> 'item'",
        ),
        (["item"], TypeError, "parents must be None or a dict"),
    ],
)
def test_wrong_parents_are_refused(parents, error, message):
    X, Y = table(200)
    refuses(small(encoding_params={"parents": parents}), error, message, X, Y)


def test_parents_stay_those_of_the_first_fit():
    X, Y = table(200, seed=2)
    model = fitted().set_params(encoding_params={"parents": {"item": "group"}})
    with pytest.raises(ValueError, match="cannot continue with parents"):
        model.partial_fit(X, Y)


def test_columns_without_statistics_need_none():
    X, Y = table(300)
    plain = small(target_encoding=False).fit(X, Y)
    params = {"parents": PARENTS}
    model = small(target_encoding=False, encoding_params=params).fit(X, Y)
    assert_array_equal(model.predict_proba(X), plain.predict_proba(X))

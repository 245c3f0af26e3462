"""Combinations of columns: one model, and the same predictions on every surface."""

import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._columns._combination import CombinationColumn, bin_edges, bins_of
from sk_pwiser.datasets import ParquetImpressions
from sk_pwiser.export import Scorer, delta, to_onnx
from sk_pwiser.inspection import (
    CombinationDisplay,
    describe_impressions,
    explain_rows,
    task_importances,
)
from sk_pwiser.transfer import fine_tune

N_ROWS = 4_000


def make_table(seed, n=N_ROWS):
    """Return a table whose labels depend on combinations only."""
    generator = np.random.default_rng(seed)
    shop = generator.integers(0, 40, n)
    day = generator.integers(0, 7, n).astype(float)
    size = generator.normal(size=n)
    X = pd.DataFrame(
        {
            "shop": np.array([f"shop {number}" for number in shop], dtype=object),
            "day": day,
            "size": size,
            "noise": generator.choice(["x", "y", "z"], n),
        }
    )
    effect = np.random.default_rng(0).normal(size=(40, 7))[shop, day.astype(int)]
    p_click = 1 / (1 + np.exp(1 - 2 * effect))
    click = generator.random(n) < p_click
    order = click & (generator.random(n) < 0.3)
    X.loc[generator.random(n) < 0.02, "shop"] = None
    X.loc[generator.random(n) < 0.02, "size"] = np.nan
    return X, np.column_stack([click, order]).astype(int)


CHOSEN = [("shop", "day"), ("noise", "size"), ("shop", "noise", "size")]


@pytest.fixture(scope="module")
def fitted():
    X, Y = make_table(0)
    model = MultiTaskCTRCVRClassifier(
        encoding_params={"combinations": CHOSEN},
        max_epochs=2,
        random_state=0,
        network_params={"bottom_units": (16,)},
    )
    return model.fit(X, Y)


@pytest.fixture(scope="module")
def later():
    X, _ = make_table(1, 200)
    X.loc[0, "shop"] = "a new shop"
    X.loc[1, "noise"] = None
    return X


def by_scorer(model, X, path):
    rows = X.to_dict("records")
    scorer = Scorer(model, runtime="torch")
    one_by_one = [scorer(row)[0] for row in rows[:20]]
    assert_allclose(one_by_one, scorer(rows)[:20], atol=1e-6)
    shared = {"day": 3.0, "size": 0.5, "noise": "x"}
    items = [{"shop": row["shop"]} for row in rows]
    same = X.assign(**shared)
    assert_allclose(scorer(items, shared=shared), model.predict_proba(same), atol=1e-6)
    return scorer(rows)


def by_onnx(model, X, path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    to_onnx(model, path / "model.onnx", inputs="raw")
    session = onnxruntime.InferenceSession(path / "model.onnx")
    inputs = {}
    for name in X:
        if X[name].dtype.kind == "f":
            inputs[name] = X[[name]].to_numpy(np.float64)
        else:
            texts = X[[name]].astype(object).where(X[[name]].notna(), "")
            inputs[name] = texts.to_numpy(dtype=object)
    return session.run(["probabilities"], inputs)[0]


def by_saved_file(model, X, path):
    model.save(path / "model.skp")
    return MultiTaskCTRCVRClassifier.load(path / "model.skp").predict_proba(X)


def by_skops(model, X, path):
    io = pytest.importorskip("skops.io")
    data = io.dumps(model)
    trusted = io.get_untrusted_types(data=data)
    return io.loads(data, trusted=trusted).predict_proba(X)


def by_pickle(model, X, path):
    return pickle.loads(pickle.dumps(model)).predict_proba(X)


def by_polars(model, X, path):
    polars = pytest.importorskip("polars")
    return model.predict_proba(polars.from_pandas(X))


def by_arrow(model, X, path):
    pyarrow = pytest.importorskip("pyarrow")
    return model.predict_proba(pyarrow.Table.from_pandas(X, preserve_index=False))


def by_parquet(model, X, path):
    X.to_parquet(path / "rows.parquet")
    rows = ParquetImpressions(path / "rows.parquet", features=list(X), targets=[])
    return model.predict_proba(rows)


def by_delta(model, X, path):
    other = clone(model).set_params(random_state=1)
    other.fit(*make_table(3, 500))
    scorer = Scorer(other, runtime="torch").apply(delta(other, model))
    return scorer(X.to_dict("records"))


SURFACES = [
    by_arrow,
    by_delta,
    by_onnx,
    by_parquet,
    by_pickle,
    by_polars,
    by_saved_file,
    by_scorer,
    by_skops,
]


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.__name__)
def test_surfaces_agree(fitted, later, tmp_path, surface):
    p = surface(fitted, later, tmp_path)
    assert_allclose(p, fitted.predict_proba(later), atol=1e-6)


def test_codes_are_those_of_a_group_by(fitted):
    X, _ = make_table(0)
    encoder = fitted._result.schema.encoder
    codes = fitted.encode(X).codes
    assert fitted.combinations_ == CHOSEN
    for index, column in enumerate(encoder.combinations_):
        cells = X[list(column.name)].copy()
        if "size" in cells:
            edges = np.unique(
                np.quantile(
                    cells["size"].dropna(), np.arange(1, 16) / 16, method="higher"
                )
            )
            is_missing = cells["size"].isna()
            bins = (cells["size"].to_numpy()[:, np.newaxis] >= edges).sum(axis=1)
            cells["size"] = np.where(is_missing, -1, bins)
        number = cells.groupby(list(cells), dropna=False).ngroup().to_numpy()
        all_codes = column.transform(tuple(X[name] for name in column.name))
        # One code per cell, and one cell per code.
        pairs = set(zip(number.tolist(), all_codes[slice(None)].tolist(), strict=True))
        assert len(pairs) == len(set(number)) == column.n_codes - 2
        place = codes.shape[1] - len(CHOSEN) + index
        is_frequent = all_codes[slice(None)] < column.cardinality
        assert_array_equal(
            codes[is_frequent, place], all_codes[slice(None)][is_frequent]
        )


def test_contributions_belong_to_the_combined_columns(fitted, later):
    explanations = explain_rows(fitted, later[:5], background=later[5:15])
    assert list(explanations.column_names) == list(later)
    sums = explanations.contributions.sum(axis=1) + explanations.base_values
    assert_allclose(sums, explanations.log_odds, atol=1e-4)
    # A row whose day alone comes from another row has the cell of both.
    names, _, logits = fitted._recombined_logits(later)
    sources = np.zeros((1, len(names)), dtype=int)
    sources[0, names.index("day")] = 7
    mixed = later[:1].assign(day=later["day"].iloc[7])
    p = 1 / (1 + np.exp(-logits(sources)[:, :2]))
    assert_allclose(p, fitted.predict_proba(mixed), atol=1e-6)
    scorer = Scorer(fitted, runtime="torch", explain=True, background=later[5:15])
    _, by_one = scorer.explain(later[:5].to_dict("records"))
    assert_allclose(by_one.contributions, explanations.contributions, atol=1e-4)


def test_updates_give_codes_to_new_cells(fitted):
    X, Y = make_table(0)
    model = MultiTaskCTRCVRClassifier(
        encoding_params={
            "combinations": CHOSEN,
            "grow_vocabulary": True,
            "forget_after": 2,
        },
        random_state=0,
    ).partial_fit(X, Y)
    before = model._result.schema.encoder.combinations_[0].n_codes
    X_new = X[:50].assign(shop="opened today", day=2.0)
    model.partial_fit(X_new, Y[:50])
    column = model._result.schema.encoder.combinations_[0]
    assert column.n_codes > before
    assert '["opened today", 2]' in column.codes_
    for _ in range(4):
        model.partial_fit(X[:500].assign(shop="opened later"), Y[:500])
    assert_allclose(
        Scorer(model, runtime="torch")(X[:50].to_dict("records")),
        model.predict_proba(X[:50]),
        atol=1e-6,
    )


@pytest.mark.parametrize("chosen", ["auto", 3])
def test_found_in_a_table_and_in_parts_alike(chosen, tmp_path):
    X, Y = make_table(0)
    params = {"encoding_params": {"combinations": chosen}, "max_epochs": 1}
    model = MultiTaskCTRCVRClassifier(**params, random_state=0).fit(X, Y)
    assert model.combinations_ == [("shop", "day")]
    X.assign(click=Y[:, 0], order=Y[:, 1]).to_parquet(
        tmp_path / "rows.parquet", row_group_size=1_000
    )
    rows = ParquetImpressions(
        tmp_path / "rows.parquet",
        features=list(X),
        targets=["click", "order"],
    )
    in_parts = MultiTaskCTRCVRClassifier(**params, random_state=0).fit(rows)
    assert in_parts.combinations_ == [("shop", "day")]
    column, column_of_parts = (
        m._result.schema.encoder.combinations_[0] for m in (model, in_parts)
    )
    assert column_of_parts.codes_ == column.codes_


def test_nothing_found_is_the_same_model():
    X, Y = make_table(0)
    Y = Y[np.random.default_rng(0).permutation(len(Y))]
    models = [
        MultiTaskCTRCVRClassifier(
            encoding_params={"combinations": chosen}, max_epochs=2, random_state=0
        ).fit(X, Y)
        for chosen in ("auto", None)
    ]
    assert models[0].combinations_ == []
    assert_array_equal(*(model.predict_proba(X) for model in models))


def test_later_fits_keep_the_combinations(fitted, later):
    X, Y = make_table(2, 1_000)
    p = fitted.predict_proba(later)
    tuned = fine_tune(fitted, X, Y)
    assert tuned.combinations_ == CHOSEN
    warm = pickle.loads(pickle.dumps(fitted)).set_params(warm_start=True, max_epochs=1)
    assert warm.fit(X, Y).combinations_ == CHOSEN
    assert_array_equal(fitted.predict_proba(later), p)


@pytest.mark.parametrize(
    ("chosen", "error", "message"),
    [
        (True, TypeError, "combinations must be"),
        (0, ValueError, "combinations"),
        ("all", ValueError, "combinations"),
        (["shop"], TypeError, "tuples"),
        ([("shop",)], ValueError, "different columns"),
        ([("shop", "shop")], ValueError, "different columns"),
        ([("shop", "shpo")], ValueError, "shpo"),
        ([("shop", "day"), ("shop", 1)], ValueError, "twice"),
    ],
)
def test_refused(chosen, error, message):
    X, Y = make_table(0, 100)
    model = MultiTaskCTRCVRClassifier(encoding_params={"combinations": chosen})
    with pytest.raises(error, match=message):
        model.fit(X, Y)


def test_bins():
    numbers = np.array([3.0, np.nan, 1.0, 2.0, 3.0])
    assert_array_equal(bins_of(numbers, bin_edges(numbers)), [2, -1, 0, 1, 2])
    many = np.arange(1_000.0)
    counts = np.bincount(bins_of(many, bin_edges(many)))
    assert len(counts) == 16
    assert counts.max() - counts.min() <= 1


def test_importance_of_combined_columns(fitted):
    X, Y = make_table(4, 1_000)
    importances = task_importances(fitted, X, Y, n_repeats=1, random_state=0)
    assert list(importances.column_names) == list(X)


def test_a_combination_claims_no_column():
    assert CombinationColumn.claim(None, "shop") is None


def test_rates_of_cells_are_drawn(fitted):
    pytest.importorskip("matplotlib").use("agg")
    X, Y = make_table(0)
    display = CombinationDisplay.from_estimator(
        fitted, X, Y, combination=("shop", "day"), task=fitted.task_names_[1]
    )
    is_cell = (X["shop"] == "shop 7") & (X["day"] == 3)
    n = is_cell.sum()
    mean = Y[:, 1].mean()
    rate = (Y[is_cell, 1].sum() + 10 * mean) / (n + 10)
    row = display.values[0].index("shop 7")
    column = display.values[1].index("3 to 4")
    assert display.counts[row, column] == n
    assert display.rates[row, column] == pytest.approx(rate)
    with pytest.raises(ValueError, match="combination"):
        CombinationDisplay.from_estimator(fitted, X, Y, combination=("day", "shop"))


def test_described_before_a_fit():
    X, Y = make_table(0)
    text = str(describe_impressions(X, Y))
    assert "'shop' with 'day' (" in " ".join(text.split())
    shuffled = Y[np.random.default_rng(0).permutation(len(Y))]
    assert "Together, columns" not in str(describe_impressions(X, shuffled))


@pytest.mark.parametrize("rate", [0.01, 0.03])
def test_few_events_have_no_combinations(rate):
    """Their gains are far from normal: chance would find pairs in many tables."""
    for seed in range(3):
        generator = np.random.default_rng(seed)
        X = pd.DataFrame(generator.normal(size=(1_500, 8))).add_prefix("x")
        X["shop"] = generator.integers(0, 30, 1_500).astype(str)
        y = (generator.random(1_500) < rate).astype(int)
        model = MultiTaskCTRCVRClassifier(
            max_epochs=1, network_params={"bottom_units": (4,)}, random_state=0
        )
        assert model.fit(X, y).combinations_ == []

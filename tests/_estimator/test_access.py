"""Logits, frames, the encoded form, how columns were read, and embeddings."""

import sys

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array
from scipy.special import logit
from sklearn.exceptions import NotFittedError
from small_model import small

from sk_pwiser.datasets import make_ctr_cvr

N = 800


@pytest.fixture(scope="module")
def table():
    data = make_ctr_cvr(N, ctr=0.4, n_categories=150, random_state=0)
    X = data.data[["numeric_0", "category_0", "numeric_1", "category_1"]].copy()
    X["category_1"] = (X["category_1"].astype(int) % 5).map("abcde".__getitem__)
    X.loc[::9, "numeric_1"] = np.nan
    X.loc[::7, "category_1"] = None
    X.index = np.arange(N) + 10
    return X, data.target.set_axis(X.index)


@pytest.fixture(scope="module")
def model(table, _estimators_on_device):
    return small(embedding_dim=3).fit(*table)


def test_logits_of_a_single_task_have_one_dimension(table):
    X, Y = table
    model = small().fit(X, Y["click"])
    p = model.predict_proba(X)[:, 1].astype(float)
    assert_allclose(model.predict_logits(X), logit(p), rtol=1e-4, atol=1e-5)
    assert_array_equal(model.predict_frame(X)["click"], model.predict_proba(X)[:, 1])


def test_a_frame_has_the_index_and_the_tasks(model, table):
    X, Y = table
    frame = model.predict_frame(X)
    assert_array_equal(frame.to_numpy(), model.predict_proba(X))
    assert frame.index.equals(X.index)
    assert list(frame.columns) == list(Y.columns)


def test_frames_of_polars_and_of_arrays(table):
    pl = pytest.importorskip("polars")
    X, Y = table
    numbers = X[["numeric_0", "numeric_1"]]
    model = small().fit(numbers.to_numpy(), Y)
    frame = model.predict_frame(numbers.to_numpy())
    assert_array_equal(frame.index, np.arange(N))
    X_polars = pl.DataFrame(numbers)
    model = small().fit(X_polars, Y)
    frame = model.predict_frame(X_polars)
    assert isinstance(frame, pl.DataFrame)
    assert frame.columns == ["click", "conversion"]
    assert_array_equal(frame.to_numpy(), model.predict_proba(X_polars))


def test_encoded_form(table):
    """The arrays, computed from the table by numpy."""
    X, Y = table
    model = small(numeric_encoding="standard", target_encoding=["category_1"])
    encoded = model.fit(X, Y).encode(X)
    assert encoded.category_names == ["category_0", "category_1"]
    letter = X["category_1"].map({"a": 2, "b": 3, "c": 4, "d": 5, "e": 6}).fillna(0)
    assert_array_equal(encoded.codes[:, 1], letter)
    statistics = [f"category_1_{n}" for n in ("click_rate", "conversion_rate")]
    assert encoded.numeric_names == [
        "numeric_0",
        "numeric_1",
        "numeric_1_missing",
        *statistics,
        "category_1_frequency",
    ]
    values = pd.DataFrame(encoded.numeric, columns=encoded.numeric_names)
    known = X["numeric_1"].reset_index(drop=True)
    expected = (known - known.mean()) / known.std(ddof=0)
    assert_allclose(values["numeric_1"], expected.fillna(0), rtol=1e-4, atol=1e-6)
    assert_array_equal(values["numeric_1_missing"], known.isna())
    # Standardised logarithms of the frequencies rise with the frequencies.
    counts = X["category_1"].map(X["category_1"].value_counts())
    order = values["category_1_frequency"].groupby(counts.fillna(0).to_numpy()).mean()
    assert order.is_monotonic_increasing


def test_the_encoded_form_is_what_the_network_reads(model, table):
    import torch

    encoded = model.encode(table[0])
    device = model.net_.device
    codes = torch.from_numpy(encoded.codes).long().to(device)
    numeric = torch.from_numpy(encoded.numeric).to(device)
    with torch.no_grad():
        logits = model.net_.module_.eval()(codes, numeric).logits.cpu()
    assert_allclose(logits, model.predict_logits(table[0]), rtol=1e-5)


def test_embeddings_have_a_row_per_value_with_its_code(model, table):
    X, _ = table
    frame = model.category_embeddings("category_1")
    assert list(frame.index) == [*"abcde", None]
    assert frame.index.name == "category_1"
    assert frame.shape == (6, 3)
    # Replacing a value's embedding by zeros is what changes its rows' predictions.
    codes = model.encode(X).codes[:, 1]
    before = model.predict_logits(X)
    weight = model.net_.module_.input_layer.embeddings[0].weight
    n_before = model._result.schema.encoder.cardinalities_[0]
    for value, code in zip([*"abcde", None], [2, 3, 4, 5, 6, 0], strict=True):
        row = weight.data[n_before + code]
        kept = row.clone()
        assert_array_equal(frame.iloc[list(frame.index).index(value)], kept.cpu())
        row.zero_()
        changed = (model.predict_logits(X) != before).any(axis=1)
        assert not changed[codes != code].any()
        # In a few rows, all units that the embedding changes may be inactive.
        assert changed[codes == code].mean() > 0.9
        row.copy_(kept)


def test_rare_values_are_left_out_and_arrays_equal_the_frame(model, table):
    X, _ = table
    counts = X["category_0"].value_counts()
    assert (counts == 1).any()
    frame = model.category_embeddings("category_0")
    assert list(frame.index) == sorted(counts.index[counts >= 2])
    values, embeddings = model.category_embeddings("category_0", as_frame=False)
    assert_array_equal(values, frame.index)
    assert_array_equal(embeddings, frame.to_numpy())


def test_networks_with_several_tables(table):
    model = small(network="stem", network_params=None, embedding_dim=3).fit(*table)
    tables = model.net_.module_.input_layer.embeddings
    frame = model.category_embeddings("category_1")
    assert frame.shape == (6, 3 * len(tables))
    assert frame.notna().all(axis=None)


@pytest.mark.parametrize("has_lists", [False, True])
def test_embeddings_are_as_wide_as_what_is_read_of_them(table, has_lists):
    X, Y = table
    X = X.assign(wide=np.arange(len(X)) % 40).astype({"wide": "category"})
    params = {}
    if has_lists:
        X["seen"] = [[value] for value in X["category_1"]]
        params["encoding_params"] = {"shared_embeddings": {"seen": "category_1"}}
    model = small(embedding_dim="auto", **params).fit(X, Y)
    widths = [
        model.category_embeddings(name).shape[1] for name in ("category_1", "wide")
    ]
    assert widths == [16 if has_lists else 5, 13]


def test_columns_without_names(table):
    X, Y = table
    codes = X["category_0"].astype(int).to_numpy().reshape(-1, 1)
    model = small(categorical_features=[0]).fit(codes, Y)
    values, _ = model.category_embeddings(0, as_frame=False)
    numbers, counts = np.unique(codes, return_counts=True)
    assert_array_equal(values.astype(int), numbers[counts >= 2])
    assert model.encode(codes).category_names == list(model.column_encodings_) == [0]
    sparse = small().fit(csr_array(X[["numeric_0"]]), Y).column_encodings_
    assert [each.kind for each in sparse.values()] == ["sparse"]


@pytest.mark.parametrize("column", ["numeric_0", "nothing", 0])
def test_an_unknown_column_lists_the_category_columns(model, column):
    with pytest.raises(ValueError, match=r"\['category_0', 'category_1'\]; got"):
        model.category_embeddings(column)


def test_without_pandas_the_error_names_the_extra(table, monkeypatch):
    X = np.column_stack([np.arange(N) % 3, np.arange(N)])
    model = small(categorical_features=[0]).fit(X, table[1].to_numpy())
    monkeypatch.setitem(sys.modules, "pandas", None)
    message = r"needs pandas: pip install pandas pyarrow"
    with pytest.raises(ImportError, match=f"predict_frame {message}"):
        model.predict_frame(X)
    with pytest.raises(ImportError, match=message):
        model.category_embeddings(0)
    assert len(model.category_embeddings(0, as_frame=False)[0]) == 3


def test_each_column_says_how_it_was_read(table):
    X, Y = table
    X = X.assign(letters=[["x", value] for value in X["category_1"]])
    model = small().fit(X, Y)
    found = model.column_encodings_
    assert {name: (each.kind, each.rates) for name, each in found.items()} == {
        "numeric_0": ("numeric", False),
        "category_0": ("category", True),
        "numeric_1": ("numeric", False),
        "category_1": ("category", False),
        "letters": ("list of categories", False),
    }
    # Values with an embedding of their own: not those of a single row.
    values, counts = np.unique(X["category_0"], return_counts=True)
    assert list(found["category_0"]["values"]) == values[counts >= 2].tolist()
    letters = {None: 0, "a": 2, "b": 3, "c": 4, "d": 5, "e": 6}
    assert found["category_1"]["values"] == letters
    assert found["letters"]["values"] == {**letters, "x": 7}
    expected = [letters[value or None] for value in X["category_1"].fillna("")]
    assert_array_equal(model.encode(X).codes[:, 1], expected)
    assert found["numeric_0"]["values"] is None
    assert found["category_0"].bins is None
    # The position of an edge among the edges is its number.
    edges = found["numeric_0"].bins
    positions = model.encode(X[: len(edges)].assign(numeric_0=edges)).numeric[:, 0]
    assert_array_equal(positions, np.arange(len(edges)))


def test_before_a_fit_there_are_none():
    assert not hasattr(small(), "column_encodings_")
    with pytest.raises(NotFittedError, match="Call 'fit'"):
        _ = small().column_encodings_

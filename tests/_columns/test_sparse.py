"""Sparse tables: their bags, compared with the dense table, and what is refused."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.preprocessing import OneHotEncoder

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._columns._encoder import TableEncoder, learn_constant_columns
from sk_pwiser._columns._number import LARGEST_DEVIATION

N = 200
RNG = np.random.default_rng(0)
TABLE = np.where(RNG.random((N, 30)) < 0.2, RNG.lognormal(size=(N, 30)), 0.0)
TABLE[0, 29], TABLE[1:, 29] = 5.0, 0.0
Y = (RNG.random((N, 2)) < [0.5, 0.6]).astype(int).cumprod(axis=1)


def weights_of(bags, n_vectors):
    """Return the weights of bags, one per row, as a dense matrix."""
    weights = np.ones(len(bags.indices)) if bags.weights is None else bags.weights
    shape = len(bags.offsets) - 1, n_vectors
    return sp.csr_array((weights, bags.indices, bags.offsets), shape=shape).toarray()


def encode(X, *others, weight=None):
    """Encode tables by the first one; return the weights of all."""
    encoder = TableEncoder()
    results = [encoder.fit_transform(X, weight), *map(encoder.transform, (X, *others))]
    for codes, numeric, _ in results:
        assert codes.shape[1] == numeric.shape[1] == 0
    first, again, *rest = (
        weights_of(bags, encoder.sparse_.n_vectors) for *_, bags in results
    )
    assert_array_equal(first, again)
    return [first, *rest]


def expected_weights(X, fitted, weight):
    """Return values over the root mean square of those that are not 0, in float64.

    They are clipped to the range of the fitted ones.
    """
    X = np.clip(X, fitted.min(axis=0, initial=0), fitted.max(axis=0, initial=0))
    weight = np.ones(len(fitted)) if weight is None else weight
    counts = weight @ (fitted != 0)
    scale = np.sqrt(weight @ fitted**2 / np.where(counts, counts, 1))
    scaled = np.divide(X, scale, out=np.zeros_like(X), where=scale > 0)
    return np.clip(scaled, -LARGEST_DEVIATION, LARGEST_DEVIATION)


VALUES = st.sampled_from([0.0, 0.0, 1.0, -2.5, 1e-3, 1e6, 0.1])


@given(arrays(float, (7, 3), elements=VALUES), arrays(float, (4, 3), elements=VALUES))
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_weights_are_scaled_values(weighted, dtype, fitted, new):
    weight = np.arange(1.0, 8.0) if weighted else None
    fitted, new = fitted.astype(dtype), new.astype(dtype)
    found = encode(sp.csr_array(fitted), sp.csr_array(new), new, weight=weight)
    for table, result in zip((fitted, new, new), found, strict=True):
        expected = expected_weights(table.astype(float), fitted.astype(float), weight)
        assert_allclose(result, expected, rtol=1e-6)


def with_zeros(X):
    """Return the CSR matrix of an array with all zeros stored, in reverse order."""
    columns = np.tile(np.arange(X.shape[1])[::-1], len(X))
    offsets = np.arange(len(X) + 1) * X.shape[1]
    return sp.csr_array((X[:, ::-1].ravel(), columns, offsets), shape=X.shape)


def with_duplicates(X):
    """Return the COO matrix of an array with every value stored in two parts."""
    half = sp.coo_array(X / 2)
    row, column = np.tile(half.row, 2), np.tile(half.col, 2)
    return sp.coo_array((np.tile(half.data, 2), (row, column)), shape=X.shape)


def read_only(X):
    matrix = sp.csr_array(X)
    for array in (matrix.data, matrix.indices, matrix.indptr):
        array.flags.writeable = False
    return matrix


def large_indices(X):
    matrix = sp.csr_array(X)
    matrix.indices = matrix.indices.astype(np.int64)
    matrix.indptr = matrix.indptr.astype(np.int64)
    return matrix


KINDS = {
    "csr_matrix": sp.csr_matrix,
    "csc_array": sp.csc_array,
    "coo_matrix": sp.coo_matrix,
    "lil_array": sp.lil_array,
    "explicit zeros": with_zeros,
    "duplicates": with_duplicates,
    "read only": read_only,
    "int64 indices": large_indices,
    "sparse columns": lambda X: pd.DataFrame.sparse.from_spmatrix(sp.csr_array(X)),
}


def fitted(X, **params):
    return MultiTaskCTRCVRClassifier(max_epochs=2, random_state=0, **params).fit(X, Y)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_sparse_table_gives_the_same_fit(kind):
    # Halves of these values are exact.
    X = np.round(TABLE, 1).astype(np.float32).astype(float)
    model, table = fitted(sp.csr_array(X), early_stopping=True), KINDS[kind](X)
    expected = model.predict_proba(sp.csr_array(X))
    as_array = np.asarray if isinstance(table, pd.DataFrame) else type(table).toarray
    before = as_array(table).copy()
    other = fitted(table, early_stopping=True)
    assert_array_equal(other.predict_proba(table), expected)
    assert_array_equal(model.predict_proba(X), expected)
    assert_array_equal(as_array(table), before)
    assert other.n_features_in_ == 30
    other.partial_fit(table, Y, sample_weight=np.arange(N) % 3)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int64, np.float32])
def test_ones_of_every_dtype_have_no_weights(dtype):
    X = (TABLE > 0).astype(dtype)
    _, _, bags = TableEncoder().fit_transform(sp.csr_array(X))
    assert bags.weights is None
    assert bags.indices.dtype == np.int32
    assert_array_equal(weights_of(bags, 30), X)


def test_a_one_hot_column_is_a_category_column():
    rows = RNG.integers(6, size=(N, 1))
    params = {
        "target_encoding": False,
        "encoding_params": {"category_dropout": 0.0, "min_frequency": 1},
        # The default follows from the number of codes, which differ.
        "optimizer_params": {"average_decay": 0.0, "embedding_weight_decay": 5e-4},
        "lr": 0.03,
        "network_params": {"bottom_units": (8,)},
    }
    X = OneHotEncoder().fit_transform(rows)
    start = fitted(X, **params, warm_start=True).set_params(max_epochs=5)
    dense = fitted(rows, **params, categorical_features=[0], warm_start=True)
    dense.set_params(max_epochs=5)
    # The codes of values follow those of missing and of unseen values.
    weights = {
        k: v.clone()
        for k, v in start.net_.module_.state_dict().items()
        if "input_layer" not in k
    }
    table = start.net_.module_.input_layer.bags.embeddings[0].weight
    dense.net_.module_.load_state_dict(weights, strict=False)
    dense.net_.module_.input_layer.embeddings[0].weight.data[2:] = table.data
    for model in (start, dense):
        model.net_.optimizer_.state.clear()
    before = start.predict_proba(X)
    assert_allclose(dense.predict_proba(rows), before, rtol=1e-5)
    assert_allclose(
        dense.fit(rows, Y).predict_proba(rows),
        start.fit(X, Y).predict_proba(X),
        rtol=1e-4,
    )
    assert np.abs(start.predict_proba(X) - before).max() > 0.01


def test_missing_values_have_vectors_of_their_own():
    X = np.array([[1.0, 0.0, 2.0], [np.nan, 3.0, 0.0], [1.0, 0.0, 2.0]])
    new = np.array([[np.nan, np.nan, 4.0], [0.0, 0.0, np.nan]])
    first, second = encode(sp.csr_array(X), sp.csr_array(new))
    assert first.tolist() == [[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]]
    assert second.tolist() == [[0, 0, 1, 1], [0, 0, 0, 0]]


@pytest.mark.parametrize("weighted", [False, True])
def test_columns_without_values_are_learnt_later(weighted):
    first, later = TABLE.copy(), TABLE * 3.0
    first[:, :10] = 0.0
    later[:, 5] = 0.0
    weight = np.linspace(0.5, 1.5, N) if weighted else None
    encoder = TableEncoder()
    encoder.fit_transform(sp.csr_array(first))
    learnt = learn_constant_columns(encoder, later, weight)
    scale, before = learnt.sparse_.scale_, encoder.sparse_.scale_
    assert np.flatnonzero(np.isinf(scale)).tolist() == [5]
    assert_array_equal(np.isinf(before), np.arange(30) < 10)
    assert_array_equal(scale[10:], before[10:])
    fresh = TableEncoder()
    fresh.fit_transform(sp.csr_array(later), weight)
    assert_allclose(scale[:10], fresh.sparse_.scale_[:10])
    # Nothing to learn: the same encoder.
    assert learn_constant_columns(learnt, sp.csr_array(later)) is learnt
    assert learn_constant_columns(fresh, sp.csr_array(first)) is fresh


@pytest.mark.parametrize("method", ["partial_fit", "fit"])
def test_later_calls_train_columns_without_values_in_the_first(method):
    params = {"max_epochs": 1, "early_stopping": False, "warm_start": True}
    model = MultiTaskCTRCVRClassifier(random_state=0, **params)
    first = TABLE.copy()
    first[:, :10] = 0.0
    train = getattr(model, method)
    train(sp.csr_array(first), Y)
    rows = sp.csr_array(TABLE[:, :] * (np.arange(30) < 10))
    assert np.ptp(model.predict_proba(rows)[:, 0]) == 0.0
    train(sp.csr_array(TABLE), Y)
    assert np.ptp(model.predict_proba(rows)[:, 0]) > 0.0


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_values_are_refused_with_their_place(value):
    X = TABLE.copy()
    X[7, 3] = value
    X = sp.csr_array(X)
    message = f"infinity .* in column 3: row 7 contains {value}"
    for table in (X, X.tocsc(), X.tocoo()):
        with pytest.raises(ValueError, match=message):
            fitted(table)


def test_complex_matrices_are_refused():
    X = TABLE.astype(complex)
    X[5, 2] = 1 + 2j
    X = sp.csr_array(X)
    with pytest.raises(ValueError, match="Complex data not supported"):
        fitted(X)


def test_columns_cannot_be_chosen():
    with pytest.raises(ValueError, match=r"must be .* if X is sparse"):
        fitted(sp.csr_array(TABLE), categorical_features=[0])
    with pytest.raises(ValueError, match="target_encoding contains 0"):
        fitted(sp.csr_array(TABLE), target_encoding=[0])
    with pytest.raises(ValueError, match="X has 29 features, but"):
        fitted(sp.csr_array(TABLE)).predict_proba(sp.csr_array(TABLE[:, 1:]))


def test_updates_of_a_sparse_table_with_a_vocabulary_that_grows():
    params = {"encoding_params": {"grow_vocabulary": True}, "random_state": 0}
    model = MultiTaskCTRCVRClassifier(max_epochs=1, **params)
    table = sp.csr_array(TABLE)
    before = model.fit(table, Y).predict_proba(table)
    assert (model.partial_fit(table, Y).predict_proba(table) != before).any()


def test_large_tables_are_updated_by_rows():
    X = sp.csr_array((TABLE > 0).astype(float))
    wide = sp.hstack([X, sp.csr_array((N, 2**16))]).tocsr()
    model = fitted(wide)
    model.partial_fit(wide, Y)
    table = model.net_.module_.input_layer.bags.embeddings[0]
    assert table.sparse
    before = table.weight.detach().clone()
    model.partial_fit(wide[:5], Y[:5])
    changed = (table.weight != before).any(dim=1).nonzero().ravel().tolist()
    used = np.unique(wide[:5].indices)
    assert set(changed) <= set(used.tolist())
    assert changed

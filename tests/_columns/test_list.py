"""Columns of lists and of arrays, in every library: pooling, weights, bad input."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.preprocessing import StandardScaler
from tables import CONTAINERS

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._columns._encoder import TableEncoder
from sk_pwiser._columns._frames import content_of

N = 120
RNG = np.random.default_rng(0)
ITEMS = ["fig", "pear", "plum", "kiwi"]
COLUMNS = {
    "items": [
        None if i % 11 == 0 else RNG.choice(ITEMS, i % 4).tolist() for i in range(N)
    ],
    "ids": [RNG.integers(5, size=1 + i % 3).tolist() for i in range(N)],
    "scores": [RNG.random(1 + i % 3).tolist() for i in range(N)],
    "vector": [None if i % 7 == 3 else RNG.normal(size=3).tolist() for i in range(N)],
    "n": [None if v < -1 else v for v in RNG.normal(size=N).tolist()],
    "word": [None if i % 5 == 2 else ITEMS[i % 4] for i in range(N)],
    "flag": [i % 4 == 0 for i in range(N)],
    "count": RNG.integers(9, size=N).tolist(),
}
Y = (RNG.random((N, 2)) < [0.5, 0.6]).astype(int).cumprod(axis=1)


@pytest.fixture(params=CONTAINERS)
def container(request):
    """Return a function that makes a table of a dict of columns."""
    return CONTAINERS[request.param]


def fitted(X):
    params = {"list_weights": {"ids": "scores"}}
    model = MultiTaskCTRCVRClassifier(
        max_epochs=2, random_state=0, early_stopping=True, encoding_params=params
    )
    return model.fit(X, Y)


def test_every_container_gives_the_same_fit(container):
    expected = fitted(CONTAINERS["pandas"](COLUMNS))
    table = container(COLUMNS)
    probabilities = expected.predict_proba(CONTAINERS["pandas"](COLUMNS))
    assert_array_equal(expected.predict_proba(table), probabilities)
    model = fitted(table)
    assert model.feature_names_in_.tolist() == list(COLUMNS)
    assert_array_equal(model.predict_proba(table), probabilities)
    names = model.encode(table)["numeric_names"]
    assert names[:4] == ["vector[0]", "vector[1]", "vector[2]", "vector_missing"]
    model.partial_fit(table, Y, sample_weight=np.arange(N) % 3)


def matrix_of(encoder, encoded):
    """Return the weights of the vectors of a single list column, one row per list."""
    [(n_vectors, *_)] = encoder.bags_
    _, _, bags = encoded
    weights = np.ones(len(bags.indices)) if bags.weights is None else bags.weights
    matrix = np.zeros((len(bags.offsets) - 1, n_vectors))
    rows = np.repeat(np.arange(len(matrix)), np.diff(bags.offsets))
    np.add.at(matrix, (rows, bags.indices), weights)
    return matrix


# The codes: missing, unseen, "a", "b", and empty lists.
LISTS = [["a", "b"], ["a", "a", "b", "a"], [], None, ["b"], ["rare"], ["a", None]]


@pytest.mark.parametrize("pooling", ["mean", "sum"])
def test_vectors_of_lists(container, pooling):
    encoder = TableEncoder(list_pooling=pooling)
    matrix = matrix_of(encoder, encoder.fit_transform(container({"c": LISTS})))
    expected = np.array(
        [
            *([0, 0, 1, 1, 0], [0, 0, 3, 1, 0], [0, 0, 0, 0, 1], [1, 0, 0, 0, 0]),
            *([0, 0, 0, 1, 0], [0, 1, 0, 0, 0], [1, 0, 1, 0, 0]),
        ]
    )
    divisor = expected.sum(axis=1, keepdims=True) if pooling == "mean" else 1
    assert_allclose(matrix, expected / divisor, rtol=1e-6)
    new = container({"c": [["b", "new"], [], None, ["new"]]})
    matrix = matrix_of(encoder, encoder.transform(new))
    expected = [[0, 1, 0, 1, 0], [0, 0, 0, 0, 1], [1, 0, 0, 0, 0], [0, 1, 0, 0, 0]]
    divisor = [[2], [1], [1], [1]] if pooling == "mean" else 1
    assert_allclose(matrix, np.array(expected) / divisor, rtol=1e-6)


def test_lists_that_fit_did_not_see_are_unseen(container):
    encoder = TableEncoder()
    encoder.fit_transform(container({"c": [["a"], ["a", "b"], ["b"]]}))
    new = container({"c": [[], None, ["a", None], ["b"]]})
    matrix = matrix_of(encoder, encoder.transform(new))
    assert matrix[:2].tolist() == [[0, 1, 0, 0, 0]] * 2
    assert matrix[2].tolist() == [0, 0.5, 0.5, 0, 0]


def test_weights_of_elements(container):
    columns = {
        "c": [["a", "b"], ["a", "b"], [], None, ["b"]],
        "w": [[1.0, 3.0], [0.0, 0.0], [], None, [2.5]],
    }
    for pooling, divisor in (("sum", 1), ("mean", [[4], [1], [1], [1], [2.5]])):
        encoder = TableEncoder(list_pooling=pooling, list_weights={"c": "w"})
        encoded = encoder.fit_transform(container(columns))
        expected = np.zeros((5, 5))
        expected[:2, 2:4] = columns["w"][:2]
        expected[4, 3] = 2.5
        expected /= divisor
        expected[2, 4] = expected[3, 0] = 1
        assert_allclose(matrix_of(encoder, encoded), expected)
        # The weights are no input.
        assert encoder.numeric_bins_ == []


def test_several_list_columns_are_bags_of_a_row(container):
    together = TableEncoder().fit_transform(
        container({"c": COLUMNS["items"], "d": COLUMNS["ids"]})
    )[2]
    separate = [
        TableEncoder().fit_transform(container({"c": COLUMNS[name]}))[2]
        for name in ("items", "ids")
    ]
    n_vectors = 2 + len(ITEMS) + 1
    for row in range(N):
        for b, bags in enumerate(separate):
            found = slice(*together.offsets[2 * row + b : 2 * row + b + 2])
            shifted = bags.indices[slice(*bags.offsets[row : row + 2])] + b * n_vectors
            assert_array_equal(together.indices[found], shifted)


def test_arrays_are_standardised_elements(container):
    encoder = TableEncoder(numeric_encoding="piecewise_linear")
    codes, numeric = encoder.fit_transform(container({"vector": COLUMNS["vector"]}))
    assert codes.shape == (N, 0)
    known = [v is not None for v in COLUMNS["vector"]]
    values = np.array([v for v in COLUMNS["vector"] if v is not None])
    expected = StandardScaler().fit_transform(values)
    assert_allclose(numeric[known, :3], expected, rtol=1e-4, atol=1e-6)
    assert_array_equal(numeric[:, 3], ~np.array(known))
    assert not numeric[~np.array(known), :3].any()
    assert encoder.numeric_bins_ == [0] * 4


FIXED = [[1, 2], [3, 4], [5, 7]]


@pytest.mark.parametrize(
    ("column", "content"),
    [
        (pd.Series(FIXED, dtype=pd.ArrowDtype(pa.list_(pa.int64(), 2))), "arrays"),
        (pd.Series(FIXED, dtype=pd.ArrowDtype(pa.list_(pa.float32()))), "arrays"),
        (pd.Series(list(np.array(FIXED, dtype=np.float32)), dtype=object), "arrays"),
        (pl.Series(FIXED, dtype=pl.Array(pl.Int64, 2)), "arrays"),
        (pl.Series(FIXED, dtype=pl.List(pl.Float32)), "arrays"),
        (pd.Series(FIXED, dtype=pd.ArrowDtype(pa.list_(pa.int64()))), "lists"),
        (pd.Series(FIXED, dtype=object), "lists"),
        (pd.Series(list(np.array(FIXED)), dtype=object), "lists"),
        (pl.Series(FIXED), "lists"),
        (pl.Series([["a"], ["b"]], dtype=pl.Array(pl.String, 1)), "lists"),
        (pl.Series([["a"], ["b"]], dtype=pl.List(pl.Categorical)), "lists"),
        (pd.Series([["a"]], dtype=pd.ArrowDtype(pa.list_(pa.string(), 1))), "lists"),
    ],
)
def test_dtypes_of_arrays_and_of_lists(column, content):
    assert content_of(column) == content
    make = pl.DataFrame if isinstance(column, pl.Series) else pd.DataFrame
    _, numeric, *bags = TableEncoder().fit_transform(make({"c": column}))
    assert len(bags) == (content == "lists")
    if not bags:
        assert_allclose(numeric, StandardScaler().fit_transform(FIXED), rtol=1e-6)


def test_lists_in_arrays_of_objects():
    X = np.empty((3, 2), dtype=object)
    X[:, 0] = [1.5, 2.5, 3.5]
    for row, cell in enumerate([["a"], ["a", "b"], ["b"]]):
        X[row, 1] = cell
    frame = pd.DataFrame({"n": [1.5, 2.5, 3.5], "c": X[:, 1]})
    results = [TableEncoder().fit_transform(table) for table in (X, frame)]
    for part, other in zip(*results, strict=True):
        for array, expected in zip(part, other, strict=True):
            assert_array_equal(array, expected)


def test_the_dtype_can_be_overruled(container):
    table = container({"ids": [[1, 2], [2, 1], [1, 2]], "v": [[0.5], [0.5], [1.5]]})
    _, numeric = TableEncoder(None).fit_transform(table)
    assert numeric.shape == (3, 3)
    encoder = TableEncoder(["v"])
    assert len(encoder.fit_transform(table)) == 3
    assert len(encoder.bags_) == 2


def test_columns_of_lists_have_no_target_statistics(container):
    table = container({"c": [[i] for i in range(200)] * 2})
    labels = np.tile([0, 1, 1, 0], 100)
    model = MultiTaskCTRCVRClassifier(max_epochs=1).fit(table, labels)
    assert model.encode(table).numeric.shape == (400, 0)
    with pytest.raises(ValueError, match="target_encoding"):
        model.set_params(target_encoding=["c"]).fit(table, labels)


GOOD = {"c": [["a"], ["b"], ["a", "b"]], "w": [[1.0], [2.0], [1.0, 2.0]]}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"v": [[0.5, 1.5], None, [1.5]]}, "'v' contains arrays of 2 .*; row 2 .* 1"),
        ({"v": [[0.5], [0.5], []]}, "'v' contains arrays of 1 numbers; row 2 .* 0"),
        (
            {"v": [[0.5], [np.inf], [1.0]]},
            "infinity .* in column 'v': row 1 contains inf",
        ),
        ({"c": [None, [["a"], ["b"]], [["a"]]]}, "'c' contains lists of lists.* row 1"),
    ],
)
def test_lists_that_cannot_be_encoded(container, columns, message):
    with pytest.raises((TypeError, ValueError), match=message):
        TableEncoder().fit_transform(container(columns))


def test_lists_that_are_no_numbers(container):
    complex_numbers = pd.DataFrame({"c": pd.Series([[1.0], [2j]], dtype=object)})
    for table, message in (
        (container({"c": [None, ["b"], ["a"]]}), "(such as 'b'|its dtype is)"),
        (complex_numbers, "such as 2j"),
    ):
        with pytest.raises(TypeError, match=f"column 'c' .* {message}.*Include"):
            TableEncoder(None).fit_transform(table)


def test_arrays_of_another_size_at_prediction(container):
    encoder = TableEncoder()
    encoder.fit_transform(container({"v": [[0.5, 1.5], [1.5, 2.5]]}))
    with pytest.raises(ValueError, match="arrays of 2 numbers; row 1 contains 3"):
        encoder.transform(container({"v": [[0.5, 1.5], [1.5, 2.5, 3.5]]}))


def test_values_instead_of_lists(container):
    encoder = TableEncoder()
    encoder.fit_transform(container({"c": [["a"], ["a"]]}))
    with pytest.raises(TypeError, match=r"'c' .* row 1 contains 'a', which is not a l"):
        encoder.transform(container({"c": [None, "a"]}))
    mixed = pd.DataFrame({"c": pd.Series([["a"], None, "a"], dtype=object)})
    with pytest.raises(TypeError, match=r"'c' .* row 2 contains 'a', which is not a l"):
        TableEncoder().fit_transform(mixed)


@pytest.mark.parametrize(
    ("change", "weights", "error", "message"),
    [
        (
            {},
            {"nope": "w"},
            ValueError,
            "contains 'nope', which is not a column of lists",
        ),
        ({}, {"c": "nope"}, ValueError, "contains 'nope', which is not a column of X"),
        ({}, {"w": "c"}, ValueError, r"'w', which is not a .* categories; .* \['c'\]"),
        ({"w": [1.0, 2.0, 3.0]}, {"c": "w"}, TypeError, "'w' does not contain lists"),
        (
            {"w": [[1.0], [2.0], [1.0]]},
            {"c": "w"},
            ValueError,
            "'c': row 2 has 2 elements, but 1 weights in column 'w'",
        ),
        (
            {"w": [[1.0], [-2.0], [1.0, 1.0]]},
            {"c": "w"},
            ValueError,
            ">= 0; row 1 of column 'w' contains -2.0",
        ),
        (
            {"w": [["x"], ["y"], ["x", "y"]]},
            {"c": "w"},
            TypeError,
            "column 'w' cannot be read as numbers",
        ),
    ],
)
def test_wrong_weights(container, change, weights, error, message):
    with pytest.raises(error, match=f"list_weights.*{message}"):
        TableEncoder(list_weights=weights).fit_transform(container({**GOOD, **change}))

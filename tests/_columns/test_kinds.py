"""A kind of column is one class: a new one needs a line in the registry."""

import ast
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from norm_and_direction import NormAndDirectionColumn
from numpy.testing import assert_allclose, assert_array_equal
from small_model import small

import sk_pwiser
from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._columns import _make_columns
from sk_pwiser._columns._base import Column
from sk_pwiser._columns._combination import CombinationColumn
from sk_pwiser._columns._encoder import TableEncoder
from sk_pwiser._columns._id_vectors import IdVectors
from sk_pwiser._columns._registry import KINDS
from sk_pwiser._columns._sparse import SparseColumns
from sk_pwiser._estimator import _saving
from sk_pwiser.datasets import ParquetImpressions
from sk_pwiser.export import Scorer, to_onnx

N_ROWS = 300
PACKAGE = Path(sk_pwiser.__file__).parent


def vectors_and_shops():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(N_ROWS, 2)) * rng.uniform(0.1, 9, size=(N_ROWS, 1))
    shops = rng.choice(["a", "b", "c"], N_ROWS)
    X = pd.DataFrame({"vector": list(vectors), "shop": shops})
    click = (vectors[:, 0] > 0).astype(int)
    Y = np.stack([click, click * rng.integers(0, 2, N_ROWS)], axis=1)
    return X, Y, vectors


X, Y, VECTORS = vectors_and_shops()


@pytest.fixture
def registered(monkeypatch):
    """The registry with a line more, in the two places that have read it."""
    monkeypatch.setattr(_make_columns, "KINDS", (NormAndDirectionColumn, *KINDS))
    classes = (*_saving.STATE_CLASSES, NormAndDirectionColumn)
    monkeypatch.setattr(_saving, "STATE_CLASSES", classes)


@pytest.fixture
def model(registered):
    return small().fit(X, Y)


def log_norms_and_directions():
    norms = np.hypot(*VECTORS.T)
    return np.column_stack([np.log(norms), VECTORS / norms[:, np.newaxis]])


def test_it_is_encoded_and_described(model):
    table = model.encode(X)
    assert_allclose(table.numeric[:, :3], log_norms_and_directions(), rtol=1e-5)
    assert table.numeric_names[0] == "vector_norm"
    encoding = model.column_encodings_["vector"]
    assert encoding.kind == "norm and direction"
    assert encoding.encoding == "log norm, unit vector"
    assert "norm and direction" in model._repr_html_()


def test_it_is_saved(model, tmp_path):
    model.save(tmp_path / "model.safetensors")
    loaded = MultiTaskCTRCVRClassifier.load(tmp_path / "model.safetensors")
    assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))


def test_single_rows_are_scored(model):
    scorer = Scorer(model, runtime="torch")
    expected = model.predict_proba(X)
    rows = X.to_dict("records")
    assert_allclose(scorer(rows[3])[0], expected[3], rtol=1e-5)
    assert_allclose(scorer(rows), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="Row 1, field 'vector'"):
        scorer([rows[0], {**rows[1], "vector": [1.0, 2.0, 3.0]}])


@pytest.mark.slow
def test_onnx_computes_it(model, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    to_onnx(model, tmp_path / "model.onnx", inputs="raw")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    shops = X[["shop"]].to_numpy(dtype=object)
    inputs = {"vector": VECTORS, "shop": shops}
    [found] = session.run(["probabilities"], inputs)
    assert_allclose(found, model.predict_proba(X), rtol=1e-4)


def test_updates_and_parts_of_files_learn_it(registered, tmp_path):
    model = small(encoding_params={"grow_vocabulary": True})
    model.partial_fit(X[:200], Y[:200]).partial_fit(X[200:], Y[200:])
    expected = log_norms_and_directions()
    assert_allclose(model.encode(X).numeric[:, :3], expected, rtol=1e-5)
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    columns = {"vector": X["vector"].tolist(), "shop": X["shop"].tolist()}
    columns |= {"click": Y[:, 0], "conversion": Y[:, 1]}
    pq.write_table(pa.table(columns), tmp_path / "log.parquet", row_group_size=100)
    rows = ParquetImpressions(
        tmp_path / "log.parquet", features=["vector", "shop"], targets=["click"]
    )
    model = small().fit(rows)
    assert_allclose(model.encode(X).numeric[:, :3], expected, rtol=1e-5)


def columns_of_all_kinds():
    """Return an unfitted column of each kind."""
    columns = []
    for kind in (*KINDS, SparseColumns):
        column = object.__new__(kind)
        column.name = "c"
        columns.append(column)
    return columns


@pytest.mark.parametrize(
    "column", columns_of_all_kinds(), ids=lambda c: type(c).__name__
)
def test_each_kind_says_what_it_is(column):
    assert isinstance(column, Column)
    assert isinstance(column.kind, str)
    # Either it is an input of the network, or a message says why it is none.
    assert (column.network_input is None) == bool(column.not_an_input)


def test_each_kind_claims_columns():
    cells = {
        "time": range(4),
        "weights": [[1.0], [2.0], [], [1.0]],
        "ages": [[3.0], [2.0], [], [1.0]],
        "items": [["a"], ["b"], [], ["a"]],
        "item": list("abab"),
        "film": list("aabb"),
        "position": [1, 2, 1, 3],
        "array": [np.ones(2)] * 4,
        "number": [1.5, 2.5, 3.0, 4.0],
    }
    shared = {"list_pooling": {"items": "attention"}, "time_column": "time"}
    shared |= {"list_weights": {"items": "weights"}, "list_ages": {"items": "ages"}}
    shared |= {"shared_embeddings": {"items": "item"}}
    shared |= {"exposure_features": {"position": None}}
    shared |= {"vectors": {"film": IdVectors({"a": [1.0, 2.0]})}}
    made = {SparseColumns}
    for encoding in ("standard", "quantile", "piecewise_linear", "bins_and_scores"):
        encoder = TableEncoder(numeric_encoding=encoding, **shared)
        encoder.begin(pd.DataFrame(cells))
        made |= set(map(type, encoder.columns_))
    # A combination is made of columns, and claims none.
    assert made | {CombinationColumn} == {*KINDS, SparseColumns}


def looks_at_kinds(path):
    """Return the lines of a file that ask of which kind a column is."""
    names = {kind.__name__ for kind in (Column, *KINDS, SparseColumns)}
    names.add("NumericColumn")
    lines = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "isinstance",
            "issubclass",
        ):
            used = {getattr(n, "id", getattr(n, "attr", "")) for n in ast.walk(node)}
            if used & names:
                lines.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
    return lines


def test_nothing_asks_of_which_kind_a_column_is(tmp_path):
    paths = sorted(PACKAGE.rglob("*.py"))
    assert [line for path in paths for line in looks_at_kinds(path)] == []
    planted = tmp_path / "planted.py"
    planted.write_text("if isinstance(c, _list.ListColumn | X): pass\n")
    assert len(looks_at_kinds(planted)) == 1

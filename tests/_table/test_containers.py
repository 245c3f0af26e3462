"""Containers of the same values: arrays, lists, sparse columns, Arrow."""

import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal
from tables import arrow_table, pandas_objects

from sk_pwiser._table import TableEncoder, as_table
from sk_pwiser._table._categories import CategoryColumn

N_ROWS = 60
COLUMNS = {
    "word": [["pear", "fig", None][i % 3] for i in range(N_ROWS)],
    "flag": [i % 4 == 0 for i in range(N_ROWS)],
    "count": list(range(N_ROWS)),
    "price": [None if i % 5 == 1 else i / 7 for i in range(N_ROWS)],
}


def test_object_arrays_and_lists_have_category_columns_of_text():
    rows = list(map(list, zip(*COLUMNS.values(), strict=True)))
    for X in (np.array(rows, dtype=object), rows):
        encoder = TableEncoder()
        codes, _ = encoder.fit_transform(X)
        found = [isinstance(c, CategoryColumn) for c in encoder.columns_]
        assert found == [True, False, False, False]
        expected = TableEncoder().fit_transform(pandas_objects(COLUMNS))[0]
        assert_array_equal(codes[:, 0], expected[:, 0])
    texts = np.array([["a", "x"], ["b", "y"], ["a", "x"]])
    codes, numeric = TableEncoder().fit_transform(texts)
    assert codes.tolist() == [[2, 2], [1, 1], [2, 2]]
    assert numeric.shape == (3, 0)


def test_sparse_columns_beside_others_are_read_like_dense_ones():
    values = np.where(np.arange(N_ROWS) % 5, 0.0, np.arange(N_ROWS))
    dense = pd.DataFrame({"n": values, "i": values.astype(int), "b": values > 0})
    dense["c"] = COLUMNS["word"]
    sparse = dense.copy()
    for name in ("n", "i", "b"):
        sparse[name] = pd.arrays.SparseArray(dense[name])
    results = [TableEncoder().fit_transform(X) for X in (dense, sparse)]
    for part, other in zip(*results, strict=True):
        assert_array_equal(part, other)


def test_the_index_in_the_metadata_of_an_arrow_table_is_a_column():
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [3.0, 1.0, 2.0]}).set_index("a")
    table = pa.Table.from_pandas(frame)
    assert as_table(table).columns.tolist() == ["b", "a"]
    [batch] = table.to_batches()
    assert as_table(batch).equals(as_table(table))


def test_arrow_tables_without_pandas(monkeypatch):
    table = arrow_table(COLUMNS)
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert isinstance(as_table(table), pl.DataFrame)
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(
        ImportError, match=r"pip install pandas pyarrow \(extra \[pandas\]"
    ):
        as_table(table)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.array([[1], [2 + 3j]]), r"it contains \(2\+3j\) in row 1 of column 0"),
        (np.array([[1 + 0j]]), r"it contains \(1\+0j\) in row 0 of column 0"),
        (np.array([1, 2j]), r"it contains 2j in row 1"),
        (np.zeros((0, 2), complex), r"X has dtype complex128\.$"),
    ],
)
def test_complex_arrays(X, message):
    with pytest.raises(ValueError, match=f"Complex data not supported: .*{message}"):
        TableEncoder().fit_transform(X)


def test_complex_columns():
    for dtype in (complex, object):
        column = pd.Series([1.0, 2 + 3j], dtype=dtype)
        with pytest.raises(TypeError, match=r"Column 'c' .* complex"):
            TableEncoder(None).fit_transform(pd.DataFrame({"c": column}))

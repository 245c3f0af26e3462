"""The table encoder: results, containers of the same values, and errors for tables."""

import datetime
import pickle
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from column_kinds import MIXED, arrow
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from tables import arrow_table, pandas_objects

from sk_pwiser._columns._category import CategoryColumn
from sk_pwiser._columns._codes import MISSING, UNSEEN
from sk_pwiser._columns._encoder import CACHE_ROWS, TableEncoder
from sk_pwiser._columns._frames import CHUNK_ROWS, as_table
from sk_pwiser._columns._registry import NUMERIC_ENCODINGS


def test_missing_and_unseen_values_have_codes_that_training_rows_had():
    fitted = pd.DataFrame({"c": ["a", "a", "rare", None], "full": list("xxyz")})
    encoder = TableEncoder(min_frequency=2)
    codes, _ = encoder.fit_transform(fitted)
    # Rare values have codes above the others, for target statistics.
    assert codes.tolist() == [[2, 2], [2, 2], [3, 3], [MISSING, 4]]
    assert encoder.cardinalities_ == [3, 3]
    new = pd.DataFrame({"c": ["new", None, "a"], "full": ["new", None, "x"]})
    codes, _ = encoder.transform(new)
    # Without missing values in fit, "full" has no trained embedding of code 0.
    assert codes.tolist() == [[UNSEEN, UNSEEN], [MISSING, UNSEEN], [2, 2]]


def test_a_misspelt_column_is_named():
    fitted = pd.DataFrame({"amount": [1.0, 2.0], "age": [3.0, 4.0]})
    encoder = TableEncoder()
    encoder.fit_transform(fitted)
    with pytest.raises(ValueError, match="Did you mean 'amount' by 'ammount'"):
        encoder.transform(fitted.rename(columns={"amount": "ammount"}))
    with pytest.raises(ValueError, match=r"missing:\n- amount\n$"):
        encoder.transform(fitted[["age"]])


def test_text_in_place_of_numbers_says_how_to_convert_it():
    fitted = pd.DataFrame({"amount": [1.0, 2.0], "flight": [3, 4]})
    encoder = TableEncoder(["flight"])
    encoder.fit_transform(fitted)
    with pytest.raises(TypeError, match=r"X\['amount'\].astype\(float\)"):
        encoder.transform(fitted.assign(amount=["1.0", "2.0"]))
    with pytest.raises(ValueError, match="Convert text to numbers"):
        encoder.transform(fitted.assign(flight=["3", "4"]))


def test_lists_keep_the_types_of_their_values():
    X = [[1, "a", 0.5], [2**53 + 1, None, 1.5], [1, "a", 2.5], [2**53, float("nan"), 0]]
    encoder = TableEncoder([0, 1], min_frequency=1)
    codes, numeric = encoder.fit_transform(X)
    assert codes.tolist() == [[2, 2], [4, MISSING], [2, 2], [3, MISSING]]
    assert numeric.shape == (4, 1)
    frame = pd.DataFrame({"i": [2**53, 5], "c": ["a", "1"], "f": [0, 1]})
    with pytest.warns(UserWarning, match="X has feature names, but"):
        assert encoder.transform(frame)[0].tolist() == [[3, 2], [UNSEEN, UNSEEN]]


def test_names_that_scikit_learn_cannot_read_are_refused(monkeypatch):
    fitted = TableEncoder()
    fitted.fit_transform(pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}))
    # As scikit-learn before 1.9 with polars 2.
    monkeypatch.setattr("sklearn.utils.validation._get_feature_names", lambda X: None)
    table = pl.DataFrame({"b": [3.0, 4.0], "a": [1.0, 2.0]})
    with pytest.raises(TypeError, match="cannot read the column names"):
        TableEncoder().fit_transform(table)
    with (
        pytest.warns(UserWarning, match="does not have valid feature names"),
        pytest.raises(TypeError, match="cannot read the column names"),
    ):
        fitted.transform(table.rename({"a": "c"}))


@pytest.mark.parametrize("name", [None, "SomeClassifier"])
def test_messages_contain_the_name_of_the_estimator(name):
    encoder = TableEncoder(estimator_name=name)
    expected = name or "TableEncoder"
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    encoder.fit_transform(frame)
    message = f"valid feature names, but {expected} was fitted with feature names"
    with pytest.warns(UserWarning, match=message):
        encoder.transform(frame.to_numpy())
    encoder.fit_transform(frame.to_numpy())
    message = f"X has feature names, but {expected} was fitted without feature names"
    with pytest.warns(UserWarning, match=message):
        encoder.transform(frame)
    message = f"X has 1 features, but {expected} is expecting 2 features as input"
    with pytest.raises(ValueError, match=message):
        encoder.transform(np.zeros((3, 1)))
    for empty in (np.zeros((0, 2)), np.zeros((3, 0))):
        with pytest.raises(ValueError, match=f"minimum of 1 is required by {expected}"):
            encoder.fit_transform(empty)
    assert encoder.estimator_name == name
    assert pickle.loads(pickle.dumps(encoder)).n_features_in_ == 2


def test_min_frequency_counts_rows():
    X = pd.DataFrame({"c": ["a", "b", "b", "c", "c", "c", None]})
    for min_frequency, kept in ((1, "abc"), (np.int64(2), "bc"), (3, "c"), (4, "")):
        encoder = TableEncoder(min_frequency=min_frequency)
        codes, _ = encoder.fit_transform(X, np.full(7, 5.0))
        order = kept + "".join(v for v in "abc" if v not in kept)
        expected = [2 + order.find(v) for v in X["c"][:-1]]
        assert codes[:-1, 0].tolist() == expected
        assert codes[-1, 0] == MISSING
        assert encoder.cardinalities_ == [2 + len(kept)]


def test_column_names_that_are_not_strings():
    encoder = TableEncoder()
    numbered = MIXED.set_axis([7, 8, 9], axis=1)
    with pytest.warns(UserWarning, match="names, such as 7, are not text: they are re"):
        codes, _ = encoder.fit_transform(numbered)
    assert not hasattr(encoder, "feature_names_in_")
    assert_array_equal(codes, TableEncoder().fit_transform(MIXED)[0])
    # Numbers that are the positions need no warning.
    numbered = MIXED.set_axis([0, 1, 2], axis=1)
    assert_array_equal(encoder.transform(numbered)[0], codes)
    with pytest.raises(ValueError, match=r"infinity .* column 2"):
        encoder.transform(numbered.replace({2: {0.5: np.inf}}))
    with pytest.raises(TypeError, match="only supported if all input features"):
        TableEncoder().fit_transform(MIXED.set_axis([7, "c", 9], axis=1))


DAY = datetime.datetime(2024, 5, 1)


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([DAY] * 2).dt.tz_localize("UTC"),
        pd.Series(pd.to_timedelta([1, None])),
        pd.Series(pd.period_range("2024", periods=2, freq="M")),
        arrow(pa.date32())([DAY.date(), None]),
        pl.Series([DAY.date(), None]),
        pl.Series([DAY.time(), None]),
    ],
)
def test_dates_are_an_error_unless_they_are_categories(column):
    make = pl.DataFrame if isinstance(column, pl.Series) else pd.DataFrame
    X = make({"n": [1, 2], "when": column})
    with pytest.raises(TypeError, match="Column 'when' cannot be read as numbers"):
        TableEncoder().fit_transform(X)
    codes, _ = TableEncoder(["when"], min_frequency=1).fit_transform(X)
    assert codes.max() >= 2
    encoder = TableEncoder()
    encoder.fit_transform(make({"n": [1, 2], "when": [1, 2]}))
    with pytest.raises(TypeError, match="Column 'when' cannot be read as numbers"):
        encoder.transform(X)


@pytest.mark.parametrize("dtype", ["datetime64[D]", "timedelta64[s]"])
def test_arrays_of_dates_are_an_error(dtype):
    with pytest.raises(TypeError, match=f"Column 0 cannot .* its dtype is {dtype[:8]}"):
        TableEncoder().fit_transform(np.array([[1], [2]], dtype=dtype))


def test_tables_are_not_changed():
    X = MIXED.assign(
        object=pd.Series(["a", 1, None], dtype=object),
        nullable=pd.Series([1, None, 3], dtype="Int64"),
        arrow=arrow(pa.float64())([1.0, None, 3.0]),
    )
    before = X.copy(deep=True)
    encoder = TableEncoder()
    encoder.fit_transform(X)
    encoder.transform(X)
    assert_frame_equal(X, before)
    array = np.array([[1.0, np.nan], [1e300, 2.0]])
    array.flags.writeable = False
    encoder = TableEncoder([1])
    encoder.fit_transform(array)
    encoder.transform(array)


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
    assert codes.tolist() == [[2, 2], [3, 3], [2, 2]]
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


@pytest.mark.parametrize("X", [np.array([[1], [2 + 3j]]), np.zeros((0, 2), complex)])
def test_complex_arrays(X):
    with pytest.raises(ValueError, match="Complex data not supported: X has dtype"):
        TableEncoder().fit_transform(X)


def test_complex_columns():
    for dtype in (complex, object):
        column = pd.Series([1.0, 2 + 3j], dtype=dtype)
        with pytest.raises(TypeError, match=r"Column 'c' .* complex"):
            TableEncoder(None).fit_transform(pd.DataFrame({"c": column}))


N_LONG = CHUNK_ROWS + 1_000


@pytest.mark.parametrize(
    ("n_values", "dtype"),
    [(126, np.int8), (127, np.int16), (32_766, np.int16), (32_767, np.int32)],
)
def test_codes_have_the_smallest_integer_type(n_values, dtype):
    # The first two codes stand for missing and unseen values.
    values = np.arange(n_values).repeat(2)
    table = pd.DataFrame({"few": values % 2, "many": values}).astype("category")
    codes, _ = TableEncoder().fit_transform(table)
    assert codes.dtype == dtype
    assert_array_equal(codes[:, 1], values + 2)


def test_chunks_of_long_tables_fit_together():
    values = np.random.default_rng(0).normal(size=(CHUNK_ROWS + CACHE_ROWS + 1, 3))
    values[::7, 1] = np.nan
    _, numeric = TableEncoder().fit_transform(values)
    known = np.nan_to_num(values, nan=np.nanmean(values[:, 1]))
    scaled = (known - known.mean(axis=0)) / np.nanstd(values, axis=0)
    assert_allclose(numeric[:, [0, 1, 3]], scaled, rtol=1e-4, atol=1e-5)
    assert_array_equal(numeric[:, 2], np.isnan(values[:, 1]))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("numeric_encoding", NUMERIC_ENCODINGS)
def test_memory_layouts_give_the_same_arrays(weighted, numeric_encoding):
    rng = np.random.default_rng(3)
    values = rng.lognormal(size=(N_LONG, 3))
    values[rng.random(values.shape) < 0.05] = np.nan
    weight = rng.random(N_LONG) if weighted else None
    names = ["a", "b", "c"]
    tables = [
        values,
        np.asfortranarray(values),
        pd.DataFrame(values, columns=names),
        pd.DataFrame(dict(zip(names, values.T.copy(), strict=True))),
        pl.DataFrame(values, schema=names),
        pl.concat(
            [pl.DataFrame(part, schema=names) for part in np.split(values, [500])],
            rechunk=False,
        ),
    ]
    results = [
        TableEncoder(numeric_encoding=numeric_encoding).fit_transform(table, weight)[1]
        for table in tables
    ]
    for result in results[1:]:
        assert_array_equal(result, results[0])


# In an order that is neither sorted nor the reverse of it.
WORDS = ["pear", "Apple", "10", "9", "\u00e4pfel", "zoo", "apple", "\U0001f34e", ""]


@pytest.mark.parametrize("missing", [False, True])
def test_long_columns_of_every_library_have_the_codes_of_the_sorted_values(missing):
    places = (len(WORDS) * np.random.default_rng(0).random(N_LONG) ** 2).astype(int)
    words = [WORDS[place] for place in places]
    if missing:
        words[::7] = [None] * len(words[::7])
    known, unused = sorted(WORDS), ["unused", *WORDS[::-1]]
    expected = [0 if word is None else 2 + known.index(word) for word in words]
    columns = [
        *(pd.Series(words, dtype=dtype) for dtype in (object, "str", "string")),
        pd.Series(words, dtype="category"),
        pd.Series(words, dtype=pd.CategoricalDtype(unused)),
        *(pl.Series(words, dtype=dtype) for dtype in (pl.String, pl.Categorical)),
        pl.Series(words, dtype=pl.Enum(unused)),
        np.array([*words, None], dtype=object)[:-1],
    ]
    for column in columns:
        assert CategoryColumn("word").fit_transform(column)[:].tolist() == expected

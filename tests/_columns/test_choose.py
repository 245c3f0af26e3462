"""Which columns are categories: by dtype, name or mask, and by the objects in them."""

import decimal
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from column_kinds import MIXED, arrow
from numpy.testing import assert_allclose, assert_array_equal
from small_model import N, X, Y, small, warnings_in

from sk_pwiser._columns._category import CategoryColumn
from sk_pwiser._columns._codes import MISSING
from sk_pwiser._columns._encoder import TableEncoder
from sk_pwiser._columns._number import NumericColumn
from sk_pwiser.datasets import ParquetImpressions


def pandas_table():
    """Return columns of many dtypes; the names of numeric ones start with "-"."""
    text = ["a", "b", "a"]
    return pd.DataFrame(
        {
            "category": pd.Categorical(text),
            "category of integers": pd.Categorical([1, 2, 1]),
            "str": text,
            "string": pd.Series(text, dtype="string"),
            "object": pd.Series(["a", 1, None], dtype=object),
            "bool": [True, False, True],
            "boolean": pd.Series([True, None, False], dtype="boolean"),
            "arrow string": arrow(pa.large_string())(text),
            "arrow dictionary": arrow(pa.dictionary(pa.int8(), pa.string()))(text),
            "arrow bool": arrow(pa.bool_())([True, None, False]),
            "-int": [1, 2, 3],
            "-float": [1.0, None, 3.0],
            "-Int64": pd.Series([1, None, 3], dtype="Int64"),
            "-Float64": pd.Series([1, None, 3], dtype="Float64"),
            "-arrow": arrow(pa.int16())([1, None, 3]),
            "-arrow decimal": arrow(pa.decimal128(3, 1))([decimal.Decimal(1)] * 3),
            "-arrow null": arrow(pa.null())([None] * 3),
        }
    )


def polars_table():
    return pl.DataFrame(
        {
            "String": ["a", "b", None],
            "Categorical": pl.Series(["a", "b", None], dtype=pl.Categorical),
            "Enum": pl.Series(["a", "b", None], dtype=pl.Enum(["b", "a"])),
            "Boolean": [True, False, None],
            "-Int64": [1, 2, None],
            "-UInt8": pl.Series([1, 2, None], dtype=pl.UInt8),
            "-Float64": [1.0, float("nan"), None],
            "-Decimal": pl.Series([1, 2, None], dtype=pl.Decimal(5, 2)),
            "-Null": [None, None, None],
        }
    )


@pytest.mark.parametrize("make", [pandas_table, polars_table])
def test_category_columns_by_dtype(make):
    encoder = TableEncoder()
    encoder.fit_transform(make())
    for column in encoder.columns_:
        assert isinstance(column, NumericColumn) == column.name.startswith("-")


@pytest.mark.parametrize("dtype", [np.float64, np.int64, bool, object])
def test_columns_of_arrays_are_numeric(dtype):
    codes, numeric = TableEncoder().fit_transform(np.eye(3, dtype=dtype))
    assert codes.shape == (3, 0)
    assert codes.dtype == np.int8
    assert numeric.shape == (3, 3)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        *(("from_dtype", ["c"]), (["c", "n"], ["n", "c"]), (["n"], ["n", "c"])),
        *(([], ["c"]), (pd.Index(["c"]), ["c"]), ([1], ["c"]), ((0, 1), ["n", "c"])),
        *((["c", 0], ["n", "c"]), ([np.str_("c"), np.int64(-1)], ["c", "f"])),
        *(([np.True_, True, False], ["n", "c"]), ([-2, -3], ["n", "c"])),
        ([False, True, False], ["c"]),
        (pd.Series([True, True, True]), ["n", "c", "f"]),
    ],
)
def test_categorical_features(chosen, expected):
    for table in (MIXED, pl.DataFrame(MIXED.astype({"c": str}).to_dict("list"))):
        encoder = TableEncoder(chosen)
        codes, numeric = encoder.fit_transform(table)
        columns = encoder.columns_
        assert [c.name for c in columns if isinstance(c, CategoryColumn)] == expected
        assert codes.shape == (3, len(expected))
        assert numeric.shape == (3, 3 - len(expected))


@pytest.mark.parametrize("as_mask", [False, True])
def test_no_categorical_features(as_mask):
    chosen = [False] * 2 if as_mask else None
    _, numeric = TableEncoder(chosen).fit_transform(MIXED[["n", "f"]])
    assert numeric.shape == (3, 2)
    with pytest.raises((TypeError, ValueError), match="Column 'c' cannot be read"):
        TableEncoder([False] * 3 if as_mask else None).fit_transform(MIXED)


def test_categorical_features_of_arrays_are_indices():
    X = np.array([["a", 1.5], ["b", 2.5], ["a", 1.5]], dtype=object)
    codes, numeric = TableEncoder([0]).fit_transform(X)
    assert codes.ravel().tolist() == [2, 3, 2]
    assert_allclose(numeric[:, 0], [-(0.5**0.5), 2**0.5, -(0.5**0.5)], rtol=1e-6)
    floats = np.array([[7.0, 1.0], [np.nan, 2.0], [7.0, 3.0]])
    codes, _ = TableEncoder([True, False]).fit_transform(floats)
    assert codes.ravel().tolist() == [2, MISSING, 2]
    texts = np.array([["a", "x"], ["b", "x"], ["a", "y"]])
    codes, _ = TableEncoder([0, 1]).fit_transform(texts)
    assert codes.tolist() == [[2, 2], [3, 2], [2, 3]]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (["nope"], r"contains 'nope', .* not a column of X; these are \['n'"),
        ([3], "contains 3, which is not a column of X"),
        ([-4], "contains -4, which is not a column of X"),
        ([0.5], r"contains 0\.5"),
        ([None], "contains None"),
        ([[0]], r"contains \[0\]"),
        ([True], "must have one entry per column of X, 3; it has 1"),
    ],
)
def test_wrong_categorical_features(chosen, message):
    with pytest.raises(ValueError, match=f"categorical_features.*{message}"):
        TableEncoder(chosen).fit_transform(MIXED)


RNG = np.random.default_rng(0)
PRICE = RNG.normal(100, 20, N).round(2)
PRICE[:9] = np.nan
COUNT = np.where(np.arange(N) % 7, RNG.integers(0, 5, N), np.nan)


def cells(values, kind):
    return [None if np.isnan(value) else kind(value) for value in values.tolist()]


def objects(values):
    return pd.Series(values, dtype=object)


def polars_objects(values):
    return pl.Series("amount", values, dtype=pl.Object)


def decimals(values):
    return cells(values, lambda value: Decimal(str(value)))


def with_amounts(amount):
    """Return a table of the given library with a numeric column and the amounts."""
    if isinstance(amount, pl.Series):
        return pl.DataFrame({"x": X["numeric_0"].to_numpy(), "amount": amount})
    return pd.DataFrame({"x": X["numeric_0"], "amount": amount})


@pytest.mark.parametrize(
    ("values", "amount"),
    [
        (PRICE, objects(cells(PRICE, float))),
        (PRICE, objects([np.nan if v is None else v for v in decimals(PRICE)])),
        (PRICE, objects(decimals(PRICE))),
        (PRICE, objects([pd.NA if v is None else v for v in cells(PRICE, np.float64)])),
        (PRICE, polars_objects(decimals(PRICE))),
        (PRICE, pl.Series(decimals(PRICE), dtype=pl.Decimal(8, 2))),
        (COUNT, objects(cells(COUNT, int))),
        (COUNT, polars_objects(cells(COUNT, int))),
    ],
)
def test_equal_the_same_numbers_of_a_numeric_dtype(values, amount):
    """In `fit`, `partial_fit` and predictions, and for whichever dtype comes later."""
    expected, found = small(), small()
    numeric, table = with_amounts(pd.Series(values)), with_amounts(amount)
    for method in ("fit", "partial_fit"):
        getattr(expected, method)(numeric, Y)
        getattr(found, method)(table, Y)
        assert_array_equal(found.predict_proba(table), expected.predict_proba(numeric))
        assert_array_equal(found.predict_proba(numeric), found.predict_proba(table))


def test_decimals_in_a_parquet_file(tmp_path):
    table = with_amounts(objects(decimals(PRICE)))
    table.assign(**Y).to_parquet(tmp_path / "log.parquet")
    log = ParquetImpressions(tmp_path, list(table), list(Y))
    assert "amount" in small().fit(log).encode(table[:1]).numeric_names


def is_category(amount, **params):
    table = with_amounts(amount)
    return "amount" in small(**params).fit(table, Y).encode(table).category_names


@pytest.mark.parametrize("make", [objects, polars_objects])
def test_bools_text_and_named_columns_are_categories(make):
    flags, mixed = (COUNT > 2).tolist(), ["a", *cells(COUNT, int)[1:]]
    assert is_category(make(flags))
    assert is_category(make(mixed))
    assert is_category(make(cells(COUNT, int)), categorical_features=["amount"])


def messages(amount, **params):
    found = warnings_in(small(**params).fit, with_amounts(amount), Y)
    return [message for message in found if "as text" in message]


@pytest.mark.parametrize("dtype", [object, "string", "category"])
def test_amounts_as_text_give_one_warning(dtype):
    text = pd.Series(cells(PRICE, str), dtype=dtype)
    [message] = messages(text)
    assert message.startswith("The category columns ['amount'] contain numbers as text")
    assert "X['amount'].astype(float)" in message
    assert messages(text, categorical_features=[]) == []


@pytest.mark.parametrize("form", ["%Y-%m-%d %H:%M:%S", "%Y/%m/%dT%H", "%d.%m.%Y %H"])
def test_dates_as_text_give_one_warning(form):
    text = pd.date_range("2026-01-01", periods=N, freq="3h").strftime(form)
    [message] = messages(objects(list(text)))
    assert message.startswith("The category columns ['amount'] contain dates as text")
    assert "pandas.to_datetime(X['amount'])" in message
    assert messages(objects(list(text)), categorical_features=[]) == []


@pytest.mark.parametrize("form", ["{:,.2f}", "$ {:,.2f}", "{:_.2f}", "-{:.2f} €"])
def test_formatted_amounts_as_text_give_one_warning(form):
    text = [form.format(n).replace("_", " ") for n in RNG.uniform(0, 10**5, N)]
    for values in (text, [value.translate({44: ".", 46: ","}) for value in text]):
        [message] = messages(objects(values))
        assert "contain numbers as text" in message


@pytest.mark.parametrize("form", ["{}", "{:07}", "{}.0", "{}.0.1", "0{}.5", "{},512"])
def test_ids_and_versions_as_text_give_none(form):
    """Whole numbers, or other text than numbers."""
    assert messages(objects([form.format(n) for n in RNG.integers(1, 10**6, N)])) == []


def test_few_values_as_text_give_none():
    assert messages(objects([f"{n / 4}" for n in RNG.integers(0, 90, N)])) == []

"""Columns of objects that hold numbers, and numbers as text."""

import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_array_equal
from refusals import N, X, Y, small

from sk_pwiser.datasets import ParquetImpressions

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
    model = small().fit(log)
    assert "amount" in model.encode(table[:1]).numeric_names


def is_category(amount, **params):
    table = with_amounts(amount)
    return "amount" in small(**params).fit(table, Y).encode(table).category_names


@pytest.mark.parametrize("make", [objects, polars_objects])
def test_bools_text_and_named_columns_are_categories(make):
    flags, mixed = (COUNT > 2).tolist(), ["a", *cells(COUNT, int)[1:]]
    assert is_category(make(flags))
    assert is_category(make(mixed))
    assert is_category(make(cells(COUNT, int)), categorical_features=["amount"])


def test_text_after_numbers_and_numbers_after_text():
    numbers, text = objects(cells(COUNT, int)), objects(["a", "b"] * (N // 2))
    model = small().fit(with_amounts(numbers), Y)
    with pytest.raises(TypeError, match=r"'amount' cannot be read as n.* such as 'a'"):
        model.predict_proba(with_amounts(text))
    model = small().fit(with_amounts(text), Y)
    with pytest.raises(ValueError, match=r"'amount' contained text in fit; .* numbers"):
        model.predict_proba(with_amounts(numbers))


def messages(amount, **params):
    table = with_amounts(amount)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        small(**params).fit(table, Y)
    return [str(w.message) for w in caught if "as text" in str(w.message)]


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


@pytest.mark.parametrize("form", ["{}", "{:07}", "{}.0", "{}.0.1", "0{}.5", "{},5"])
def test_ids_and_versions_as_text_give_none(form):
    """Whole numbers, or other text than numbers."""
    assert messages(objects([form.format(n) for n in RNG.integers(1, 10**6, N)])) == []


def test_few_values_as_text_give_none():
    assert messages(objects([f"{n / 4}" for n in RNG.integers(0, 90, N)])) == []

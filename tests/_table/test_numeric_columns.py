"""Numeric columns of every kind of table, and standardisation in detail."""

import decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.preprocessing import StandardScaler

from sk_pwiser._table._numbers import LARGEST_DEVIATION, StandardColumn


def series(dtype):
    return lambda values: pd.Series(values, dtype=dtype)


def arrow(dtype):
    return lambda values: pd.Series(pd.array(values, dtype=pd.ArrowDtype(dtype)))


def objects(values):
    return np.array([*values, None], dtype=object)[:-1]


def decimals(values):
    return [None if v is None else decimal.Decimal(v) for v in values]


NUMBERS = [3.0, None, 1.0, 2.0, None, 7.0]
NUMERIC_KINDS = {
    "float64": series("float64"),
    "float32": series("float32"),
    "Int64": series("Int64"),
    "Float64": series("Float64"),
    "object": series(object),
    "category": lambda v: pd.Series(v, dtype="category"),
    "arrow int64": arrow(pa.int64()),
    "arrow double": arrow(pa.float64()),
    "arrow decimal": lambda v: arrow(pa.decimal128(5, 2))(decimals(v)),
    "sparse": lambda v: pd.Series(pd.arrays.SparseArray(np.array(v, float))),
    "polars Int32": lambda v: pl.Series(v, dtype=pl.Float64).cast(pl.Int32),
    "polars Float64": lambda v: pl.Series(v, dtype=pl.Float64),
    "polars nan": lambda v: pl.Series([float("nan") if x is None else x for x in v]),
    "polars Decimal": lambda v: pl.Series(v, dtype=pl.Float64).cast(pl.Decimal(9, 2)),
    "numpy float64": lambda v: np.array(v, dtype=np.float64),
    "numpy float32": lambda v: np.array(v, dtype=np.float32),
    "numpy object": objects,
}


@pytest.mark.parametrize("kind", NUMERIC_KINDS)
def test_standardisation_of_every_kind_of_column(kind):
    encoder = StandardColumn("column")
    column = NUMERIC_KINDS[kind](NUMBERS)
    scaled, missing = encoder.fit(column).transform(column)
    reference = StandardScaler().fit(np.array(NUMBERS, dtype=float)[:, None])
    expected = reference.transform(np.array(NUMBERS, dtype=float)[:, None])[:, 0]
    assert scaled.dtype == np.float32
    assert_allclose(scaled, np.nan_to_num(expected), rtol=1e-6)
    assert_array_equal(missing, np.isnan(expected))
    assert len(encoder.bins) == 2
    new = [4.0, None, 3.0]
    expected = reference.transform(np.array(new, dtype=float)[:, None])[:, 0]
    for make in NUMERIC_KINDS.values():
        scaled, missing = encoder.transform(make(new))
        assert_allclose(scaled, np.nan_to_num(expected), rtol=1e-6)
        assert_array_equal(missing, [0, 1, 0])


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([True, False, True]),
        pd.Series([True, False, True], dtype="boolean"),
        pl.Series([True, False, True]),
        np.array([True, False, True]),
        pd.Series([1, 0, 1], dtype="uint8"),
        np.array([1.7e9 + 1, 1.7e9, 1.7e9 + 1]),
        np.array([1e12 + 1, 1e12, 1e12 + 1]),
        np.array([3e-100, 1e-100, 3e-100]),
    ],
)
def test_standardisation_of_two_values(column):
    [scaled] = StandardColumn("column").fit(column).transform(column)
    # The mean is 2/3 of the way from the lower to the higher value, the standard
    # deviation sqrt(2)/3 of it.
    assert_allclose(scaled, [0.5**0.5, -(2**0.5), 0.5**0.5], rtol=1e-3)


@pytest.mark.parametrize(
    "column", [[5.0] * 12, [0.1] * 12, [None] * 12, [0.1, None] * 6]
)
def test_constant_columns_give_0_for_every_value(column):
    encoder = StandardColumn("column")
    values = np.array(column, dtype=float)
    scaled, *missing = encoder.fit(values).transform(values)
    assert_array_equal(scaled, np.zeros(12))
    assert len(encoder.bins) == 1 + (0 < np.isnan(values).sum() < 12)
    assert_array_equal(missing, [np.isnan(values)] * (len(encoder.bins) - 1))
    changed, *_ = encoder.transform(np.array([1e9, -1.0, np.nan]))
    assert_array_equal(changed, np.zeros(3))


def test_missing_values_give_the_mean_if_there_were_none_in_fit():
    encoder = StandardColumn("column")
    encoder.fit(np.array([1.0, 3.0]))
    assert len(encoder.bins) == 1
    assert_array_equal(encoder.transform(np.array([np.nan, 2.0])), [[0.0, 0.0]])


@pytest.mark.parametrize(
    "fitted",
    [[1.0, 2.0], [1e308, -1e308, 0.0], [1.7e308] * 3, [1e-320, 2e-320], [1e-161, 0.0]],
)
def test_huge_values_give_finite_inputs_without_a_warning(fitted):
    encoder = StandardColumn("column")
    [first] = encoder.fit(np.array(fitted)).transform(np.array(fitted))
    [second] = encoder.transform(np.array([1.7e308, -1.7e308, 5e-324, 0.0]))
    for numeric in (first, second):
        assert np.isfinite(numeric).all()
        assert np.abs(numeric).max() <= LARGEST_DEVIATION


def test_values_are_clipped_to_the_range_of_fit():
    encoder = StandardColumn("column")
    encoder.fit(np.array([-1.0, 1.0]))
    [scaled] = encoder.transform(np.array([1e6, -1.1, 0.5]))
    assert scaled.tolist() == [1.0, -1.0, 0.5]
    # And to 10 standard deviations.
    encoder.fit(np.append(np.zeros(10_000), 1.0))
    assert encoder.transform(np.array([1.0]))[0] == 10.0


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(["1", "2"]),
        pd.Series(["1", "2"], dtype="string"),
        pd.Series(["one", "2"], dtype=object),
        pd.Series(pd.Categorical(["one", "2"])),
        arrow(pa.string())(["1", "2"]),
        pl.Series(["1", "2"]),
        pl.Series(["1", "2"], dtype=pl.Categorical),
        np.array(["1", "2"]),
        np.array([b"1", b"2"]),
        pd.Series([[1], [2]], dtype=object),
        pl.Series([[1], [2]]),
        pd.Series([10**400, 1], dtype=object),
        pd.Series([1j, 2j]),
    ],
)
def test_values_that_are_not_numbers_are_an_error(column):
    encoder = StandardColumn("price")
    with pytest.raises((TypeError, ValueError), match="Column 'price' cannot be read"):
        encoder.fit(column)
    encoder.fit(np.array([1.0, 2.0]))
    with pytest.raises((TypeError, ValueError), match="Column 'price' cannot be read"):
        encoder.transform(column)

"""Single columns: the same codes and numbers from whatever holds the values."""

import datetime
import decimal
from collections import Counter

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.preprocessing import StandardScaler

from sk_pwiser._table._categories import MISSING, UNSEEN, CategoryColumn
from sk_pwiser._table._dataframe import factorize
from sk_pwiser._table._numeric import LARGEST_DEVIATION, StandardColumn


def series(dtype):
    return lambda values: pd.Series(values, dtype=dtype)


def arrow(dtype):
    return lambda values: pd.Series(pd.array(values, dtype=pd.ArrowDtype(dtype)))


def polars(dtype):
    return lambda values: pl.Series("column", values, dtype=dtype)


def categories(*unused):
    def make(values):
        known = {v for v in values if v is not None and v == v}
        return pd.Series(pd.Categorical(values, categories=[*unused, *known]))

    return make


def objects(values):
    return np.array([*values, None], dtype=object)[:-1]


def numpy_scalars(values):
    scalars = [v if v is None else np.array(v)[()] for v in values]
    return objects(scalars)


# What may hold the values of a column, missing ones included: None among them.
KINDS = {
    "text": {
        "category": categories("unused", "never"),
        "str": series("str"),
        "string": series("string"),
        "string[python]": series("string[python]"),
        "object": series(object),
        "arrow string": arrow(pa.string()),
        "arrow large_string": arrow(pa.large_string()),
        "arrow dictionary": arrow(pa.dictionary(pa.int32(), pa.string())),
        "polars String": polars(pl.String),
        "polars Categorical": polars(pl.Categorical),
        "polars Enum": polars(pl.Enum(["unused", "d", "c", "b", "a", "new"])),
        "polars Object": polars(pl.Object),
        "numpy object": objects,
        "numpy scalars": numpy_scalars,
    },
    "integers": {
        "category": categories(-1, 7),
        "Int64": series("Int64"),
        "object": series(object),
        "arrow int64": arrow(pa.int64()),
        "polars Int64": polars(pl.Int64),
        "numpy object": objects,
        "numpy scalars": numpy_scalars,
    },
    "booleans": {
        "category": categories(),
        "boolean": series("boolean"),
        "object": series(object),
        "arrow bool": arrow(pa.bool_()),
        "polars Boolean": polars(pl.Boolean),
        "polars Int8": lambda v: pl.Series(v, dtype=pl.Boolean).cast(pl.Int8),
        "float": lambda v: pd.Series(v, dtype="boolean").astype(float),
        "numpy object": objects,
        "numpy scalars": numpy_scalars,
    },
    "floats": {
        "category": categories(0.125),
        "float64": series("float64"),
        "float32": series("float32"),
        "Float64": series("Float64"),
        "arrow double": arrow(pa.float64()),
        "arrow decimal": lambda values: arrow(pa.decimal128(5, 2))(
            [None if v is None else decimal.Decimal(v) for v in values]
        ),
        "polars Float64": polars(pl.Float64),
        "polars Float32": polars(pl.Float32),
        "numpy float64": lambda values: np.array(values, dtype=np.float64),
        "numpy object": objects,
    },
}
FITTED = {
    "text": ["b", "a", None, "b", "c", "a", "c", "d"],
    # Neighbours that are one number to float32 and to float64.
    "integers": [2**53, 2**53 + 1, 2**24, 2**24 + 1, None, 5] * 2 + [9],
    "booleans": [True, False, None, True, False],
    "floats": [1.5, 0.0, None, -0.0, 1.5, 2.25, 2.25, 0.5],
}
PREDICTED = {
    "text": ["new", None, "a", "d", "b", "c"],
    "integers": [2**53 + 1, 2**53, 2**53 - 1, None, 9, 5, 2**24 + 1, 2**24],
    "booleans": [False, None, True],
    "floats": [0.0, 2.25, None, 0.5, 1.5, 3.5, -0.0],
}
ALL = slice(None)
FALSE = np.zeros(3, dtype=bool)
PAIRS = [(values, kind) for values in KINDS for kind in KINDS[values]]


def check_codes(codes, values, fitted, seen, min_frequency=2):
    """Check codes against counting, and note the code of each value in `seen`."""
    counts = Counter(fitted)
    assert codes.dtype == np.int8
    for code, value in zip(codes.tolist(), values, strict=True):
        if value is None:
            assert code == (MISSING if None in counts else UNSEEN)
        elif counts[value] < min_frequency:
            assert code == UNSEEN
        else:
            assert seen.setdefault(value, code) == code
    n_kept = sum(n >= min_frequency for v, n in counts.items() if v is not None)
    assert len(seen) == n_kept
    assert sorted(seen.values()) == list(range(2, 2 + n_kept))


@pytest.mark.parametrize(("values", "kind"), PAIRS)
def test_category_codes_are_the_same_from_every_kind_of_column(values, kind):
    fitted = FITTED[values]
    encoder, seen = CategoryColumn("column", min_frequency=2), {}
    codes = encoder.fit_transform(KINDS[values][kind](fitted)).of(ALL)
    check_codes(codes, fitted, fitted, seen)
    assert encoder.cardinality == 2 + len(seen)
    for make in KINDS[values].values():
        codes = encoder.transform(make(PREDICTED[values])).of(ALL)
        check_codes(codes, PREDICTED[values], fitted, seen)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (np.array(["b", "a", "b"]), ["b", "a", "b"]),
        (np.array([2**53, 2**53 + 1] * 2), [2**53, 2**53 + 1] * 2),
        (np.array([2**63, 2**63 + 1] * 2, dtype=np.uint64), [2**63, 2**63 + 1] * 2),
        (pl.Series([2**63, 2**63 + 1] * 2, dtype=pl.UInt64), [2**63, 2**63 + 1] * 2),
        (np.array([True, False, True]), [True, False, True]),
        (pd.Series([True, False, True]), [True, False, True]),
        (pd.Series([2**53, 2**53 + 1] * 2), [2**53, 2**53 + 1] * 2),
        # Missing in three ways, beside values of several types.
        (
            pd.Series(["a", 1, None, np.nan, pd.NA, False, 1.0, 0, "a"], dtype=object),
            ["a", 1, None, None, None, 0, 1, 0, "a"],
        ),
        (
            np.array(["a", 1, None, np.nan, pd.NA, pd.NaT, False, np.False_], object),
            ["a", 1, None, None, None, None, 0, 0],
        ),
        # Not a number, and not missing by the mask.
        (
            pd.Series(pd.arrays.FloatingArray(np.array([np.nan, 1, 1]), FALSE)),
            [None, 1, 1],
        ),
        (
            pd.Series(pd.arrays.ArrowExtensionArray(pa.array([np.nan, 1.0, 1.0]))),
            [None, 1, 1],
        ),
        (pl.Series([float("nan"), None, 1.0, 1.0]), [None, None, 1, 1]),
        (np.array([np.nan, 1.0, 1.0], dtype=np.longdouble), [None, 1, 1]),
        (pd.cut(pd.Series([1, 9, np.nan, 9]), [0, 5, 10]), ["low", "up", None, "up"]),
        (pd.Series([None, None], dtype=object), [None, None]),
        (pl.Series([None, None], dtype=pl.String), [None, None]),
        (pl.Series([None, None]), [None, None]),
    ],
)
def test_category_codes_of_further_columns(column, values):
    encoder, seen = CategoryColumn("column", min_frequency=1), {}
    for encode in (encoder.fit_transform, encoder.transform):
        check_codes(encode(column).of(ALL), values, values, seen, min_frequency=1)


def test_values_of_a_category_column_are_those_in_its_rows_alone():
    # A row to predict may carry the categories of a whole table.
    column = pd.Series(pd.Categorical(["b", None], categories=["a", "b", "c"]))
    codes, values = factorize(column)
    assert (codes.tolist(), values) == ([0, -1], ["b"])
    numbers = CategoryColumn("column", 1)
    numbers.fit_transform(pd.Series([1, 2]))
    nothing = pd.Series(pd.Categorical([None], categories=["text"]))
    assert numbers.transform(nothing).of(ALL).tolist() == [UNSEEN]


NUMBERS = [3.0, None, 1.0, 2.0, None, 7.0]
NUMERIC_KINDS = {
    "float64": series("float64"),
    "float32": series("float32"),
    "Int64": series("Int64"),
    "Float64": series("Float64"),
    "object": series(object),
    "category": categories(9.0),
    "arrow int64": arrow(pa.int64()),
    "arrow double": arrow(pa.float64()),
    "arrow decimal": KINDS["floats"]["arrow decimal"],
    "sparse": lambda v: pd.Series(pd.arrays.SparseArray(np.array(v, float))),
    "polars Int32": lambda v: pl.Series(v, dtype=pl.Float64).cast(pl.Int32),
    "polars Float64": polars(pl.Float64),
    "polars nan": lambda v: pl.Series([float("nan") if x is None else x for x in v]),
    "polars Decimal": lambda v: pl.Series(v, dtype=pl.Float64).cast(pl.Decimal(9, 2)),
    "numpy float64": lambda v: np.array(v, dtype=np.float64),
    "numpy float32": lambda v: np.array(v, dtype=np.float32),
    "numpy object": objects,
}


@pytest.mark.parametrize("kind", NUMERIC_KINDS)
def test_numeric_columns_are_standardised_from_every_kind_of_column(kind):
    encoder = StandardColumn("column")
    scaled, missing = encoder.fit_transform(NUMERIC_KINDS[kind](NUMBERS))
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
def test_numeric_columns_of_two_values(column):
    [scaled] = StandardColumn("column").fit_transform(column)
    # By hand: mean 2/3 and deviation sqrt(2)/3 of the way from one to the other.
    assert_allclose(scaled, [0.5**0.5, -(2**0.5), 0.5**0.5], rtol=1e-3)


@pytest.mark.parametrize(
    "column", [[5.0] * 12, [0.1] * 12, [None] * 12, [0.1, None] * 6]
)
def test_nothing_is_made_of_other_values_where_a_column_never_changed(column):
    encoder = StandardColumn("column")
    values = np.array(column, dtype=float)
    scaled, *missing = encoder.fit_transform(values)
    assert_array_equal(scaled, np.zeros(12))
    assert len(encoder.bins) == 1 + (0 < np.isnan(values).sum() < 12)
    assert_array_equal(missing, [np.isnan(values)] * (len(encoder.bins) - 1))
    changed, *_ = encoder.transform(np.array([1e9, -1.0, np.nan]))
    assert_array_equal(changed, np.zeros(3))


def test_a_missing_value_where_none_was_in_fit_is_the_mean():
    encoder = StandardColumn("column")
    encoder.fit_transform(np.array([1.0, 3.0]))
    assert len(encoder.bins) == 1
    assert_array_equal(encoder.transform(np.array([np.nan, 2.0])), [[0.0, 0.0]])


@pytest.mark.parametrize(
    "fitted",
    [[1.0, 2.0], [1e308, -1e308, 0.0], [1.7e308] * 3, [1e-320, 2e-320], [1e-161, 0.0]],
)
def test_huge_values_give_finite_inputs_without_a_warning(fitted):
    encoder = StandardColumn("column")
    [first] = encoder.fit_transform(np.array(fitted))
    [second] = encoder.transform(np.array([1.7e308, -1.7e308, 5e-324, 0.0]))
    for numeric in (first, second):
        assert np.isfinite(numeric).all()
        assert np.abs(numeric).max() <= LARGEST_DEVIATION


def test_a_wild_value_is_cut_off_and_an_ordinary_one_is_not():
    encoder = StandardColumn("column")
    encoder.fit_transform(np.array([-1.0, 1.0]))
    [scaled] = encoder.transform(np.array([1e6, -1e6, 9.5]))
    assert scaled.tolist() == [10.0, -10.0, 9.5]


DAY = datetime.datetime(2024, 5, 1)


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
def test_a_numeric_column_refuses_what_holds_no_numbers(column):
    encoder = StandardColumn("price")
    with pytest.raises((TypeError, ValueError), match="Column 'price' cannot be read"):
        encoder.fit_transform(column)
    encoder.fit_transform(np.array([1.0, 2.0]))
    with pytest.raises((TypeError, ValueError), match="Column 'price' cannot be read"):
        encoder.transform(column)


@pytest.mark.parametrize(
    ("fitted", "new", "message"),
    [
        (["a", "b"], [5, 6], "held text when fitted; it now holds numbers, such as 5"),
        (
            [5, 6],
            ["5", "6"],
            "held numbers when fitted; it now holds text, such as '5'",
        ),
        ([True, False], ["True"], "held numbers .* now holds text, such as 'True'"),
        (["a", 1], [DAY], "held numbers and text when .* now holds other objects"),
    ],
)
@pytest.mark.parametrize("make", [pd.Series, pl.Series, objects])
def test_a_category_column_refuses_another_kind_of_values(make, fitted, new, message):
    encoder = CategoryColumn("c", 1)
    encoder.fit_transform(make(fitted) if "a" not in fitted else objects(fitted))
    with pytest.raises(ValueError, match=f"Column 'c' {message}"):
        encoder.transform(make(new))
    # Rows that hold nothing, or something that may be known, pass.
    assert encoder.transform(objects([None])).of(ALL).tolist() == [UNSEEN]
    assert encoder.transform(objects([fitted[0], *new])).of(0) >= 2


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([[1], [2]], dtype=object),
        arrow(pa.list_(pa.int64()))([[1], None]),
        pl.Series([[1], [2]]),
        pl.Series([{"a": 1}]),
        objects([{}, 1]),
    ],
)
def test_a_category_column_refuses_nested_values(column):
    with pytest.raises(TypeError, match="Column 'c' cannot be read as categories"):
        CategoryColumn("c", 1).fit_transform(column)

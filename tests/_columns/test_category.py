"""Category columns: the codes of values, whatever kind of column contains them."""

import datetime
import decimal
import re
from collections import Counter

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from column_kinds import KINDS, arrow, objects
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from sk_pwiser._columns._category import CategoryColumn
from sk_pwiser._columns._codes import MISSING, UNSEEN
from sk_pwiser._columns._factorize import factorize
from sk_pwiser._columns._value_kinds import sort_values
from sk_pwiser._columns._vocabulary import Vocabulary

FITTED = {
    "text": ["b", "a", None, "b", "c", "a", "c", "d"],
    # Neighbours that are equal in float32 and in float64.
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
NO_MASK = np.zeros(3, dtype=bool)
PAIRS = [(values, kind) for values in KINDS for kind in KINDS[values]]


def expected_codes(values, fitted, min_frequency):
    """Return codes and their number by counting and sorting: numbers, then text."""
    counts = Counter(fitted)
    frequent = [v for v, n in counts.items() if v is not None and n >= min_frequency]
    numbers = sorted(v for v in frequent if not isinstance(v, str))
    text = sorted(v for v in frequent if isinstance(v, str))
    codes = {value: code for code, value in enumerate(numbers + text, 2)}
    codes[None] = MISSING if None in counts else UNSEEN
    return [codes.get(v, UNSEEN) for v in values], 2 + len(frequent)


def shared(codes, cardinality):
    """Return codes with that of unseen values for rare ones, as networks read them."""
    return np.where(codes < cardinality, codes, UNSEEN).tolist()


@pytest.mark.parametrize(("values", "kind"), PAIRS)
def test_codes_are_the_same_for_every_kind_of_column(values, kind):
    fitted, new = FITTED[values], PREDICTED[values]
    encoder = CategoryColumn("column", Vocabulary(2))
    codes = encoder.fit_transform(KINDS[values][kind](fitted))[:]
    expected, cardinality = expected_codes(fitted, fitted, 2)
    assert shared(codes, cardinality) == expected
    assert codes.dtype == np.int8
    assert encoder.cardinality == cardinality
    for make in KINDS[values].values():
        codes = encoder.transform(make(new))[:]
        assert shared(codes, cardinality) == expected_codes(new, fitted, 2)[0]
        assert codes.dtype == np.int8


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
        # Several missing values and values of several types.
        (
            pd.Series(["a", 1, None, np.nan, pd.NA, False, 1.0, 0, "a"], dtype=object),
            ["a", 1, None, None, None, 0, 1, 0, "a"],
        ),
        (
            np.array(["a", 1, None, np.nan, pd.NA, pd.NaT, False, np.False_], object),
            ["a", 1, None, None, None, None, 0, 0],
        ),
        # NaN that the mask does not mark as missing.
        (
            pd.Series(pd.arrays.FloatingArray(np.array([np.nan, 1, 1]), NO_MASK)),
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
def test_codes_of_further_columns(column, values):
    encoder = CategoryColumn("column", Vocabulary(1))
    for encode in (encoder.fit_transform, encoder.transform):
        assert encode(column)[:].tolist() == expected_codes(values, values, 1)[0]


def test_only_values_that_occur_are_values_of_a_category_column():
    # A single row to predict may have the categories of a whole table.
    column = pd.Series(pd.Categorical(["b", None], categories=["a", "b", "c"]))
    indices, values = factorize(column)
    assert (indices.tolist(), values) == ([0, -1], ["b"])
    numbers = CategoryColumn("column", Vocabulary(1))
    numbers.fit_transform(pd.Series([1, 2]))
    nothing = pd.Series(pd.Categorical([None], categories=["text"]))
    assert numbers.transform(nothing)[:].tolist() == [UNSEEN]


DAY = datetime.datetime(2024, 5, 1)


def test_order_of_mixed_values():
    values = [
        *("b", DAY, "10", (2,), 10, b"z", 2.5, True, DAY.date(), (1, "a"), "B"),
        *(decimal.Decimal("2.25"), -3, np.str_("\u00e9")),
    ]
    expected = [
        *(-3, True, decimal.Decimal("2.25"), 2.5, 10),
        *("10", "B", "b", "\u00e9"),
        # By the names of their types: bytes, tuple, date, datetime.
        *(b"z", (1, "a"), (2,), DAY.date(), DAY),
    ]
    assert sort_values(values) == expected
    assert sort_values(values[::-1]) == expected
    assert sort_values([]) == []


def test_objects_that_cannot_be_compared_keep_their_order():
    values = [("a",), 5, (1,), "text", ("b",)]
    assert sort_values(values) == [5, "text", ("a",), (1,), ("b",)]


VALUES = st.one_of(
    st.none(),
    st.text(max_size=3),
    st.integers(-(2**70), 2**70),
    st.booleans(),
    st.floats(allow_nan=True, allow_infinity=False),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.dates(),
    st.datetimes(),
    st.binary(max_size=2),
)


@given(st.lists(VALUES, min_size=1, max_size=30), st.data(), st.integers(1, 2))
def test_codes_do_not_depend_on_the_order_of_rows(values, data, min_frequency):
    column = objects(values)
    order = np.array(data.draw(st.permutations(range(len(values)))))
    encoder = CategoryColumn("c", Vocabulary(min_frequency))
    codes = encoder.fit_transform(column)[:]
    # Every code of a value occurs in fit, so that an embedding of it is trained.
    assert set(range(2, encoder.n_codes)) == set(codes) - {0, 1}
    for rows, expected in ((column, codes), (column[order], codes[order])):
        assert_array_equal(encoder.transform(rows)[:], expected)
        for make in (objects, lambda rows: pd.Series(rows, dtype=object)):
            again = CategoryColumn("c", Vocabulary(min_frequency))
            assert_array_equal(again.fit_transform(make(rows))[:], expected)


@pytest.mark.parametrize(
    ("fitted", "new", "message"),
    [
        (["a", "b"], [5, 6], "contained text in fit; .* numbers, such as 5"),
        ([5, 6], ["5", "6"], "contained numbers in fit; .* text, such as '5'"),
        ([True, False], ["True"], "contained numbers .* text, such as 'True'"),
        (["a", 1], [DAY], "contained numbers and text in .* now contains times"),
        ([DAY], [DAY.date()], "contained times in fit; .* dates, such as"),
        (
            [DAY],
            [DAY.replace(tzinfo=datetime.UTC)],
            "contained times in fit; .* with a time zone",
        ),
        ([(1, 2)], ["a"], "contained other objects in fit; .* text"),
    ],
)
@pytest.mark.parametrize("make", [pd.Series, pl.Series, objects])
def test_values_of_another_kind_than_in_fit_are_an_error(make, fitted, new, message):
    encoder = CategoryColumn("c", Vocabulary(1))
    is_plain = "a" not in fitted and not isinstance(fitted[0], tuple)
    encoder.fit_transform(make(fitted) if is_plain else objects(fitted))
    with pytest.raises(ValueError, match=f"Column 'c' {message}"):
        encoder.transform(make(new))
    # Columns without values, or with some values of the same kind, are accepted.
    assert encoder.transform(objects([None]))[:].tolist() == [UNSEEN]
    assert encoder.transform(objects([fitted[0], *new]))[:][0] >= 2


EXACT, ROUNDED = [2**60 + 1, -(2**60) - 1, 5], [2.0**60, -(2.0**60), 5.0]


@pytest.mark.parametrize("make", [pd.Series, pl.Series, np.array, objects])
@pytest.mark.parametrize(
    "vocabulary", [Vocabulary(1), Vocabulary(2), Vocabulary(n_hash_buckets=3)], ids=str
)
def test_integers_that_became_floats_are_an_error(make, vocabulary):
    for fitted, new in ((EXACT, ROUNDED), (ROUNDED, EXACT)):
        encoder = CategoryColumn("c", vocabulary)
        encoder.fit_transform(make(fitted))
        for value in new[:2]:
            found = rf"above 2\^53, such as {re.escape(repr(value))}\..* or text"
            with pytest.raises(ValueError, match=f"'c' contained .*s {found}"):
                encoder.transform(make([value, new[2]]))
        # Up to 2^53 both are equal, and numbers of some other types are as exact.
        encoder.transform(make([new[2], type(new[0])(2**53)]))
        same = decimal.Decimal if fitted is EXACT else np.float64
        encoder.transform(objects(list(map(same, fitted))))
        with pytest.raises(ValueError, match="shared_embeddings: column 'c' contains"):
            CategoryColumn("c", vocabulary).fit_transform(make(fitted), make(new))
        # An encoder in a file of an earlier version does not know the kinds.
        del encoder.large
        encoder.transform(make(new))


def test_a_column_with_both_integers_and_floats_above_the_limit():
    both = objects([*EXACT, 2.0**70])
    encoder = CategoryColumn("c", Vocabulary(1))
    codes = encoder.fit_transform(both)[:]
    assert_array_equal(encoder.transform(both)[:], codes)


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
def test_nested_values_are_an_error(column):
    with pytest.raises(TypeError, match="Column 'c' cannot be read as categories"):
        CategoryColumn("c", Vocabulary(1)).fit_transform(column)

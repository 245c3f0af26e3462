"""Vocabularies: the largest number of codes, hash buckets, and settings by column."""

from decimal import Decimal
from fractions import Fraction
from functools import partial

import numpy as np
import pandas as pd
import pytest
from column_kinds import KINDS
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from sklearn.preprocessing import OrdinalEncoder
from sklearn.utils import murmurhash3_32
from small_model import X as IMPRESSIONS
from small_model import small

from sk_pwiser._columns._category import CategoryColumn
from sk_pwiser._columns._codes import FIRST_VALUE, MISSING, UNSEEN
from sk_pwiser._columns._encoder import TableEncoder, grow_encoder
from sk_pwiser._columns._encoding_params import check_encoding_params
from sk_pwiser._columns._vocabulary import Vocabulary, hash_values
from sk_pwiser._settings import ENCODING_PARAMS

KEYS = ("min_frequency", "max_categories", "n_hash_buckets")


murmurhash3 = partial(murmurhash3_32, positive=True)


def integer_hash(value):
    bits = (value % 2**64).to_bytes(8, "little")
    high = murmurhash3(bits[4:])
    low = int.from_bytes(bits[:4], "little") ^ high
    return murmurhash3(low.to_bytes(4, "little"))


def encode(values, vocabulary):
    """Return a column, and codes with that of unseen values for rare ones."""
    column = CategoryColumn("c", vocabulary)
    codes = column.fit_transform(np.array(values))[:]
    return column, np.where(codes < column.cardinality, codes, UNSEEN)


@given(
    st.lists(st.integers(0, 8), min_size=1, max_size=40),
    st.integers(1, 6),
    st.integers(1, 10),
)
def test_max_categories_keeps_the_values_that_scikit_learn_keeps(
    values, min_frequency, max_categories
):
    column, codes = encode(values, Vocabulary(min_frequency, max_categories))
    theirs = OrdinalEncoder(min_frequency=min_frequency, max_categories=max_categories)
    expected = theirs.fit_transform(np.array(values)[:, np.newaxis])[:, 0]
    infrequent = theirs.infrequent_categories_[0]
    rare = set() if infrequent is None else set(infrequent)
    n_kept = len(set(values)) - len(rare)
    expected = np.where(np.isin(values, list(rare)), UNSEEN, FIRST_VALUE + expected)
    assert column.cardinality == FIRST_VALUE + n_kept
    # scikit-learn has no limit of its own if no value is rare: the shared code of
    # unseen values exists here in any case.
    assert_array_equal(codes, expected)


def test_the_most_frequent_values_keep_codes_in_the_order_of_the_values():
    values = ["b"] * 5 + ["a"] * 4 + ["d"] * 3 + ["c"] * 3 + ["e"]
    column, codes = encode(values, Vocabulary(2, 4))
    assert dict(zip(values, codes.tolist(), strict=True)) == {
        "a": 2,
        "b": 3,
        "d": 4,  # as frequent as "c", but later in the order
        "c": UNSEEN,
        "e": UNSEEN,
    }
    assert column.codes_["c"] == column.cardinality
    assert column.n_codes == 7


def test_hashes_are_murmurhash3_of_text_and_of_integers():
    texts = ["", "a", "straße", "value 12345", "\ud800"]
    expected = [murmurhash3(t.encode("utf-8", "surrogatepass")) for t in texts]
    assert hash_values(texts).tolist() == expected
    integers = [0, 1, -1, 2**31, 2**40 + 7, -(2**63), 2**63 - 1]
    expected = [integer_hash(value) for value in integers]
    assert hash_values(integers).tolist() == expected
    assert hash_values([1.5]).tolist() == [
        integer_hash(int(np.array(1.5).view(np.int64)))
    ]


@pytest.mark.parametrize(
    "equal",
    [
        [1, 1.0, True, Decimal("1.00"), np.int8(1), np.float32(1), np.True_],
        [0, -0.0, False, Fraction(0)],
        [0.5, Decimal("0.50"), Fraction(1, 2), np.float16(0.5)],
        [2**70, float(2**70), Decimal(2**70)],
        [2**63, float(2**63), np.uint64(2**63)],
        [Decimal("0.1"), Decimal("0.10")],
        ["a", np.str_("a")],
    ],
)
def test_equal_values_have_equal_hashes_alone_and_among_others(equal):
    hashes = {int(hash_values([value])[0]) for value in equal}
    hashes |= {int(hash_values([value, "x", 3])[0]) for value in equal}
    hashes |= {int(hash_values([value, 7.25])[0]) for value in equal}
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("values", "fitted", "new"),
    [
        ("text", ["b", "a", None], ["new", None, "a"]),
        ("integers", [2**53 + 1, 1, None], [0, None, 2**53]),
        ("booleans", [True, False, None], [False, None, True]),
        ("floats", [1.5, 0.0, None], [7.75, None, 0.0]),
    ],
)
def test_buckets_are_the_same_for_every_kind_of_column(values, fitted, new):
    kinds, found = list(KINDS[values].values()), set()
    for fit_kind, new_kind in zip(kinds, reversed(kinds), strict=True):
        column = CategoryColumn("c", Vocabulary(n_hash_buckets=1000))
        codes = column.fit_transform(fit_kind(fitted))[:]
        others = column.transform(new_kind(new))[:]
        found.add((tuple(codes.tolist()), tuple(others.tolist())))
    assert len(found) == 1
    codes, others = found.pop()
    assert codes[-1] == others[1] == MISSING
    assert min(codes[:-1]) >= FIRST_VALUE
    known = [value for value in new if value is not None]
    expected = (FIRST_VALUE + hash_values(known) % 1000).tolist()
    assert [code for code in others if code != MISSING] == expected


def test_frequent_values_have_codes_beside_the_buckets():
    values = ["a"] * 5 + ["b"] * 4 + ["c"] * 3 + ["d"]
    column, codes = encode(values, Vocabulary(2, 3, 10))
    buckets = {v: 4 + murmurhash3(v.encode()) % 10 for v in "cdz"}
    expected = {"a": 2, "b": 3, "c": buckets["c"], "d": buckets["d"]}
    assert dict(zip(values, codes.tolist(), strict=True)) == expected
    assert column.cardinality == 14
    assert column.transform(np.array(["z", "b"]))[:].tolist() == [buckets["z"], 3]


def test_columns_that_cannot_be_hashed_are_named():
    dates = pd.DataFrame({"when": pd.to_datetime(["2024-01-01"] * 4)})
    encoder = TableEncoder(["when"], n_hash_buckets=5)
    message = "Column 'when' cannot have n_hash_buckets: .*Timestamp.*Convert it to"
    with pytest.raises(TypeError, match=message):
        encoder.fit_transform(dates)


TABLE = pd.DataFrame(
    {"a": list("xxyyz") * 4, "n": np.arange(20.0), "b": list("pqrst") * 4}
)


def test_numbers_by_name_and_by_index():
    numbers = {"min_frequency": {"a": 5}, "n_hash_buckets": {2: 7}}
    for key in ("a", 0, -3, np.int64(0)):
        encoder = TableEncoder(**{**numbers, "min_frequency": {key: 5}})
        encoder.fit_transform(TABLE)
        assert encoder.cardinalities_ == [4, 9]
    encoder = TableEncoder(max_categories=3)
    encoder.fit_transform(TABLE)
    assert encoder.cardinalities_ == [4, 4]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0, ValueError, "{} must be an integer >= 1; got 0"),
        (2.0, TypeError, "{} must be an integer >= 1; got 2.0"),
        (True, TypeError, "{} must be an integer >= 1; got True"),
        ({"a": 0}, ValueError, r"{}\['a'\] must be an integer >= 1; got 0"),
        ({"a": None}, TypeError, r"{}\['a'\] must be an integer >= 1; got None"),
        ({"zz": 5}, ValueError, "{} contains 'zz', which is not a column of X.*'n'"),
        ({9: 5}, ValueError, "{} contains 9, which is not a column of X"),
        ({True: 5}, ValueError, "{} contains True, which is not a column of X"),
        ({"n": 5}, ValueError, r"{} contains 'n', which is not a category.*\['a', 'b'"),
    ],
)
def test_wrong_numbers_are_named(key, value, error, message):
    def fit():
        check_encoding_params({**ENCODING_PARAMS, key: value})
        TableEncoder(**{key: value}).fit_transform(TABLE)

    with pytest.raises(error, match=message.format(key)):
        fit()


def test_target_statistics_of_buckets():
    X = IMPRESSIONS.assign(user=[f"user {k % 140}" for k in range(len(IMPRESSIONS))])
    Y = np.zeros((len(X), 2), dtype=int)
    Y[::2, 0] = Y[::4, 1] = 1
    params = {"n_hash_buckets": {"user": 120}, "target_encoding_blocks": 2}
    model = small(encoding_params=params, target_encoding=["user"]).fit(X, Y)
    statistics = model._result.schema.statistics
    assert statistics.cardinalities == [122]
    buckets = [murmurhash3(f"user {k % 140}".encode()) % 120 for k in range(len(X))]
    expected = np.bincount(buckets, minlength=120)
    assert_array_equal(statistics.counts_[0][0, 0, 2:], expected)
    # New users have the statistics and the embedding of their bucket.
    new = X.assign(user="a new user")
    same = X.assign(
        user=next(
            f"user {k}"
            for k in range(10_000)
            if murmurhash3(f"user {k}".encode()) % 120
            == murmurhash3(b"a new user") % 120
        )
    )
    assert_array_equal(model.predict_proba(new), model.predict_proba(same))


def table(*values):
    return pd.DataFrame({"item": list(values), "price": np.arange(len(values)) * 1.0})


FIRST = table("b", "b", "a", "a", "rare", "odd")
# "z" and "c" are new and frequent, "rare" becomes frequent, "y" is new and rare.
SECOND = table("z", "c", "c", "z", "a", "rare", "rare", "y")


def fit():
    encoder = TableEncoder(categorical_features=["item"])
    encoder.fit_transform(FIRST)
    return encoder


def test_frequent_new_values_get_codes_and_old_ones_stay():
    encoder = fit()
    before = dict(encoder.columns_[0].codes_)
    grown, (origin,), _ = grow_encoder(encoder, SECOND)
    codes, old = grown.columns_[0].codes_, encoder.columns_[0].codes_
    assert {v: codes[v] for v in "abcz"} == {"a": 2, "b": 3, "c": 4, "z": 6}
    assert codes["rare"] == 5
    assert grown.cardinalities_ == [7]
    assert set(codes) - set("abcz") == {"rare", "odd", "y"}
    assert grown.columns_[0].n_codes == len(codes) + 2 == len(origin)
    for value, code in codes.items():
        assert origin[code] == old.get(value, -1)
    assert_array_equal(origin[:2], [0, 1])
    # The earlier encoder is as it was.
    assert encoder.columns_[0].codes_ == before
    assert encoder.cardinalities_ == [4]
    assert grown.transform(SECOND)[0].max() < grown.columns_[0].n_codes
    assert_array_equal(grown.transform(FIRST)[1], encoder.transform(FIRST)[1])


def test_without_new_values_nothing_changes():
    encoder = fit()
    grown, (origin,), _ = grow_encoder(encoder, table("a", "b", "b", None))
    assert grown.columns_[0].codes_ == encoder.columns_[0].codes_
    assert_array_equal(origin, np.arange(6))
    codes, _ = grown.transform(table("a", None, "new"))
    assert codes[:, 0].tolist() == [2, UNSEEN, UNSEEN]


@pytest.mark.parametrize("limit", [{"max_categories": 4}, {"n_hash_buckets": 3}])
def test_columns_of_a_limited_size_do_not_grow(limit):
    encoder = TableEncoder(categorical_features=["item"], **limit)
    encoder.fit_transform(FIRST)
    grown, (origin,), _ = grow_encoder(encoder, SECOND)
    assert_array_equal(origin, np.arange(encoder.columns_[0].n_codes))
    assert_array_equal(grown.transform(SECOND)[0], encoder.transform(SECOND)[0])


def test_large_values_are_known_after_growth():
    encoder = TableEncoder(categorical_features=["item"])
    encoder.fit_transform(table(1, 1, 2))
    rounded = table(2.0**60, None)
    encoder.transform(rounded)
    grown, _, _ = grow_encoder(encoder, table(2**60 + 1, 2**60 + 1, 1))
    for change in (grown.transform, lambda X: grow_encoder(grown, X)):
        with pytest.raises(ValueError, match=r"'item' contained integers above 2\^53"):
            change(rounded)


def test_the_columns_are_checked():
    with pytest.raises(ValueError, match="feature names should match"):
        grow_encoder(fit(), SECOND.rename(columns={"item": "id"}))
    numbers = SECOND.assign(item=np.arange(8)).astype({"item": "category"})
    with pytest.raises(ValueError, match="Column 'item' contained text in fit"):
        grow_encoder(fit(), numbers)

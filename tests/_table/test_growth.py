"""Encoders that get codes for values of further rows."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from sk_pwiser._table import UNSEEN, TableEncoder, grow_encoder


def table(*values):
    return pd.DataFrame({"item": list(values), "price": np.arange(len(values)) * 1.0})


FIRST = table("b", "b", "a", "a", "rare", "odd")
# "z" and "c" are new and frequent, "rare" becomes frequent, "y" is new and rare.
SECOND = table("z", "c", "c", "z", "a", "rare", "rare", "y")


def fit(keeps_rare):
    encoder = TableEncoder(categorical_features=["item"], keeps_rare=keeps_rare)
    encoder.fit_transform(FIRST)
    return encoder


@pytest.mark.parametrize("keeps_rare", [False, True])
def test_frequent_new_values_get_codes_and_old_ones_stay(keeps_rare):
    encoder = fit(keeps_rare)
    before = dict(encoder.columns_[0].codes_)
    grown, (origin,), _ = grow_encoder(encoder, SECOND)
    codes, old = grown.columns_[0].codes_, encoder.columns_[0].codes_
    assert {v: codes[v] for v in "abcz"} == {"a": 2, "b": 3, "c": 4, "z": 6}
    assert codes["rare"] == 5
    assert grown.cardinalities_ == [7]
    assert set(codes) - set("abcz") == (
        {"rare", "odd", "y"} if keeps_rare else {"rare"}
    )
    assert grown.n_codes_ == [len(codes) + 2] == [len(origin)]
    for value, code in codes.items():
        assert origin[code] == old.get(value, -1)
    assert_array_equal(origin[:2], [0, 1])
    # The earlier encoder is as it was.
    assert encoder.columns_[0].codes_ == before
    assert encoder.cardinalities_ == [4]
    assert grown.transform(SECOND)[0].max() < grown.n_codes_[0]
    expected = grown.transform(FIRST)[1]
    assert_array_equal(expected, encoder.transform(FIRST)[1])


def test_without_new_values_nothing_changes():
    encoder = fit(True)
    grown, (origin,), _ = grow_encoder(encoder, table("a", "b", "b", None))
    assert grown.columns_[0].codes_ == encoder.columns_[0].codes_
    assert_array_equal(origin, np.arange(6))
    codes, _ = grown.transform(table("a", None, "new"))
    assert codes[:, 0].tolist() == [2, UNSEEN, UNSEEN]


@pytest.mark.parametrize("limit", [{"max_categories": 4}, {"n_hash_buckets": 3}])
def test_columns_of_a_limited_size_do_not_grow(limit):
    encoder = TableEncoder(categorical_features=["item"], keeps_rare=True, **limit)
    encoder.fit_transform(FIRST)
    grown, (origin,), _ = grow_encoder(encoder, SECOND)
    assert_array_equal(origin, np.arange(encoder.n_codes_[0]))
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
        grow_encoder(fit(False), SECOND.rename(columns={"item": "id"}))
    numbers = SECOND.assign(item=np.arange(8)).astype({"item": "category"})
    with pytest.raises(ValueError, match="Column 'item' contained text in fit"):
        grow_encoder(fit(False), numbers)

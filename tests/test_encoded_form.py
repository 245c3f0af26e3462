"""The form of encoded tables: small, and made in parts."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sk_pwiser._encoding import ROWS_IN_CACHE, TableEncoder
from sk_pwiser._threads import ROWS_AT_A_TIME


@pytest.mark.parametrize(
    ("n_values", "dtype"),
    [(126, np.int8), (127, np.int16), (32_766, np.int16), (32_767, np.int32)],
)
def test_codes_are_of_the_smallest_type_that_holds_them(n_values, dtype):
    # The codes of missing and unseen values come before those of the values.
    values = np.arange(n_values).repeat(2)
    table = pd.DataFrame({"few": values % 2, "many": values}).astype("category")
    codes, _ = TableEncoder().fit_transform(table)
    assert codes.dtype == dtype
    assert_array_equal(codes[:, 1], values + 2)


def test_long_tables_are_encoded_in_parts_that_fit_together():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(ROWS_AT_A_TIME + ROWS_IN_CACHE + 1, 3))
    values[::7, 1] = np.nan
    _, numeric = TableEncoder().fit_transform(values)
    known = np.nan_to_num(values, nan=np.nanmean(values[:, 1]))
    scaled = (known - known.mean(axis=0)) / np.nanstd(values, axis=0)
    assert_allclose(numeric[:, [0, 1, 3]], scaled, rtol=1e-4, atol=1e-5)
    assert_array_equal(numeric[:, 2], np.isnan(values[:, 1]))


@pytest.fixture
def table():
    rng, n = np.random.default_rng(0), 2 * ROWS_AT_A_TIME + 3
    return pd.DataFrame(
        {
            "id": pd.Categorical(rng.integers(500, size=n)),
            "text": pd.Series(rng.choice(["a", "b", None], size=n), dtype=object),
            "count": rng.integers(9, size=n),
            "price": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)),
        }
    )


@pytest.mark.parametrize("encoding", ["standard", "quantile", "piecewise_linear"])
def test_threads_change_nothing(table, encoding):
    one, several = (TableEncoder(numeric_encoding=encoding) for _ in range(2))
    for expected, found in zip(
        one.fit_transform(table), several.fit_transform(table, n_threads=4), strict=True
    ):
        assert_array_equal(found, expected)
    for expected, found in zip(
        one.transform(table), several.transform(table, n_threads=4), strict=True
    ):
        assert_array_equal(found, expected)


@pytest.mark.parametrize("n_threads", [1, 4])
def test_the_first_column_at_fault_is_named(table, n_threads):
    encoder = TableEncoder()
    encoder.fit_transform(table)
    wrong = table.assign(price=np.inf, count=-np.inf)
    with pytest.raises(ValueError, match=r"infinity .* column 'count'"):
        encoder.transform(wrong, n_threads)

"""Encoded tables: the smallest integer type, and encoding in chunks of rows."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sk_pwiser._table._encoder import CACHE_ROWS, TableEncoder
from sk_pwiser._table._frames import CHUNK_ROWS


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
    rng = np.random.default_rng(0)
    values = rng.normal(size=(CHUNK_ROWS + CACHE_ROWS + 1, 3))
    values[::7, 1] = np.nan
    _, numeric = TableEncoder().fit_transform(values)
    known = np.nan_to_num(values, nan=np.nanmean(values[:, 1]))
    scaled = (known - known.mean(axis=0)) / np.nanstd(values, axis=0)
    assert_allclose(numeric[:, [0, 1, 3]], scaled, rtol=1e-4, atol=1e-5)
    assert_array_equal(numeric[:, 2], np.isnan(values[:, 1]))

"""Encoded tables: integer types, chunks of rows, layouts in memory, libraries."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sk_pwiser._table._categories import CategoryColumn
from sk_pwiser._table._encoder import CACHE_ROWS, TableEncoder
from sk_pwiser._table._frames import CHUNK_ROWS
from sk_pwiser._table._numbers import NUMERIC_ENCODINGS

N_ROWS = CHUNK_ROWS + 1_000


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


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("numeric_encoding", NUMERIC_ENCODINGS)
def test_memory_layouts_give_the_same_arrays(weighted, numeric_encoding):
    rng = np.random.default_rng(3)
    values = rng.lognormal(size=(N_ROWS, 3))
    values[rng.random(values.shape) < 0.05] = np.nan
    weight = rng.random(N_ROWS) if weighted else None
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
    places = (len(WORDS) * np.random.default_rng(0).random(N_ROWS) ** 2).astype(int)
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
        codes = CategoryColumn("word").fit_transform(column)
        assert codes.take(slice(None)).tolist() == expected

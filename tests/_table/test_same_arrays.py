"""The same table in several libraries and dtypes gives the same arrays, to the bit."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal

from sk_pwiser._table import NUMERIC_ENCODINGS, TableEncoder
from sk_pwiser._table._frames import CHUNK_ROWS

N_ROWS = CHUNK_ROWS + 1_000
# In an order that is neither sorted nor the reverse of it.
WORDS = ["pear", "Apple", "10", "9", "\u00e4pfel", "zoo", "apple", "\U0001f34e", ""]
IDS = [7, 2**53 + 1, -3, 2**53, 100, 20]


def draw(values, rng, share_missing):
    """Draw values, of which the first ones are frequent, and missing values."""
    drawn = [values[i] for i in (len(values) * rng.random(N_ROWS) ** 2).astype(int)]
    is_missing = rng.random(N_ROWS) < share_missing
    return [None if m else v for v, m in zip(drawn, is_missing, strict=True)]


def make_columns():
    rng = np.random.default_rng(0)
    gaps = np.where(rng.random(N_ROWS) < 0.1, np.nan, rng.lognormal(size=N_ROWS))
    return {
        "word": draw(WORDS, rng, 0.1),
        "id": draw(IDS, rng, 0.0),
        "flag": draw([True, False], rng, 0.2),
        "float": rng.normal(size=N_ROWS),
        "gaps": gaps,
        "count": rng.integers(0, 50, size=N_ROWS),
    }


COLUMNS = make_columns()
CATEGORIES = ["word", "id", "flag"]


def pandas_frame(word, integer="int64", flag="boolean", number="float64"):
    return pd.DataFrame(
        {
            "word": pd.Series(COLUMNS["word"], dtype=word),
            "id": pd.Series(COLUMNS["id"], dtype=integer),
            "flag": pd.Series(COLUMNS["flag"], dtype=flag),
            "float": pd.Series(COLUMNS["float"], dtype=number),
            "gaps": pd.Series(known_or_none(COLUMNS["gaps"]), dtype=number),
            "count": pd.Series(COLUMNS["count"], dtype=integer),
        }
    )


def polars_frame(word):
    return pl.DataFrame(
        {
            **COLUMNS,
            "word": pl.Series(COLUMNS["word"], dtype=word),
            "gaps": known_or_none(COLUMNS["gaps"]),
        }
    )


def numpy_table():
    return np.array(list(COLUMNS.values()), dtype=object).T


def known_or_none(values):
    return [None if value != value else value for value in values.tolist()]


def arrow(dtype):
    return pd.ArrowDtype(dtype)


OTHER_ORDER = ["unused", *WORDS[::-1]]
TABLES = {
    "pandas object": pandas_frame(object, flag=object),
    "pandas str": pandas_frame("str"),
    "pandas string": pandas_frame("string", "Int64", "boolean", "Float64"),
    "pandas category": pandas_frame("category"),
    "pandas category, other order": pandas_frame(pd.CategoricalDtype(OTHER_ORDER)),
    "pandas arrow": pandas_frame(
        arrow(pa.string()), arrow(pa.int64()), arrow(pa.bool_()), arrow(pa.float64())
    ),
    "pandas arrow dictionary": pandas_frame(
        arrow(pa.dictionary(pa.int32(), pa.string()))
    ),
    "polars String": polars_frame(pl.String),
    "polars Categorical": polars_frame(pl.Categorical),
    "polars Enum": polars_frame(pl.Enum(OTHER_ORDER)),
    "numpy object": numpy_table(),
}


def encode(table, numeric_encoding, weight=None):
    is_category = [name in CATEGORIES for name in COLUMNS]
    encoder = TableEncoder(is_category, numeric_encoding=numeric_encoding)
    return encoder.fit_transform(table, weight)


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("numeric_encoding", NUMERIC_ENCODINGS)
def test_every_kind_of_table_gives_the_same_arrays(kind, weighted, numeric_encoding):
    weight = np.random.default_rng(1).random(N_ROWS) if weighted else None
    expected = encode(TABLES["pandas object"], numeric_encoding, weight)
    result = encode(TABLES[kind], numeric_encoding, weight)
    for array, other in zip(result, expected, strict=True):
        assert array.dtype == other.dtype
        assert_array_equal(array, other)


def test_codes_follow_the_sorted_values():
    codes, _ = encode(TABLES["polars String"], "standard")
    for column, name in zip(codes.T, CATEGORIES, strict=True):
        known = sorted({v for v in COLUMNS[name] if v is not None})
        expected = [0 if v is None else 2 + known.index(v) for v in COLUMNS[name]]
        assert column.tolist() == expected


@pytest.mark.parametrize("kind", ["pandas object", "pandas arrow", "polars String"])
def test_codes_do_not_depend_on_the_order_of_rows(kind):
    order = np.random.default_rng(2).permutation(N_ROWS)
    table = TABLES[kind]
    shuffled = table[order] if isinstance(table, pl.DataFrame) else table.iloc[order]
    assert_array_equal(
        encode(shuffled, "standard")[0], encode(table, "standard")[0][order]
    )


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

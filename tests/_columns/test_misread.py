"""The warning about numeric columns that look like codes or ids."""

import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.preprocessing import OrdinalEncoder
from small_model import Y as LABELS
from small_model import small

from sk_pwiser._columns._encoder import TableEncoder
from sk_pwiser._columns._misread import looks_like_codes
from sk_pwiser.datasets import make_ctr_cvr

RNG = np.random.default_rng(0)
N = 20_000


def popularity(n_values):
    weights = np.exp(RNG.normal(size=n_values))
    return weights / weights.sum()


IDS = RNG.choice(2000, N, p=popularity(2000))
NUMBERS = {
    "age": RNG.normal(40, 12, N).clip(0).round(),
    "hour": RNG.integers(0, 24, N),
    "hour and minute": RNG.integers(0, 24, N) * 100 + RNG.integers(0, 60, N),
    "minute of the day": (RNG.beta(5, 2, N) * 1440) // 1,
    "scheduled minute": np.where(
        RNG.random(N) < 0.6,
        RNG.choice(288, N, p=popularity(288)) * 5,
        RNG.integers(0, 1440, N),
    ),
    "count": RNG.geometric(0.01, N),
    "count with many zeros": RNG.geometric(0.01, N) * RNG.integers(0, 2, N),
    "count with a long tail": np.exp(RNG.normal(4, 2, N)) // 1,
    "price in cents": np.exp(RNG.normal(3, 1, N)) * 100 // 1,
    "price": RNG.integers(1, 1000, N),
    "price below a round one": np.exp(RNG.normal(3, 1, N)) // 1 * 100 + 99,
    "duration": RNG.choice(np.exp(RNG.normal(10, 1, 500)) // 1 * 100, N),
    "time in seconds": 1_650_000_000 + RNG.integers(0, 86_400, N),
    "row number": np.arange(N),
    "ids from a large range": RNG.integers(0, 2**40, N),
    "negative": -IDS,
    "fractions": IDS + 0.5,
    "flag": RNG.integers(0, 2, N),
    "constant": np.zeros(N),
    "missing": np.full(N, np.nan),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_do_not_look_like_codes(name):
    for values in (NUMBERS[name], NUMBERS[name].astype(float)):
        assert not looks_like_codes(np.asarray(values))


@pytest.mark.parametrize(
    "kind", ["array", "float", "from 1", "pandas", "Int64", "polars"]
)
def test_ids_look_like_codes(kind):
    column = {
        "array": IDS,
        "float": np.where(np.arange(N) % 9, IDS, np.nan),
        "from 1": IDS + 1,
        "pandas": pd.Series(IDS),
        "Int64": pd.Series(IDS, dtype="Int64").mask(IDS == 3),
        "polars": pl.Series(IDS),
    }[kind]
    assert looks_like_codes(column)


@pytest.mark.parametrize("n_values", [100, 5000])
def test_ids_in_any_range_look_like_codes(n_values):
    """They are hashes, or numbers from a large range of which only some occur."""
    ids = np.unique(RNG.integers(0, 2**40, n_values))
    column = RNG.choice(ids, 5 * N, p=popularity(len(ids)))
    assert looks_like_codes(column)
    assert looks_like_codes(column.astype(float))
    assert looks_like_codes(pl.Series(column))


@pytest.mark.parametrize(
    "name",
    ["id", "user_id", "userId", "UserID", "USER_ID", "userid", "id_user", "site_id2",
     "item ids", "zip", "ZipCode", "country.code", 3],
)  # fmt: skip
def test_names_of_ids(name):
    """Few or rare values are ids if the column has such a name."""
    few, rare = RNG.integers(0, 5, 400), RNG.integers(0, 800, 400)
    for column in (few, rare):
        assert looks_like_codes(column, name) == isinstance(name, str)
        assert not looks_like_codes(column + 0.5, name)
    # A column that numbers the rows does not repeat, and a flag is a number, too.
    assert not looks_like_codes(np.arange(400), name)
    assert not looks_like_codes(few > 2, name)


@pytest.mark.parametrize(
    "name", ["paid", "bid", "humid", "n_ids_seen", "user_idle", "age", "zipped", "idle"]
)
def test_other_names(name):
    assert not looks_like_codes(RNG.integers(0, 5, 400), name)


def test_generated_impressions_do_not_look_like_codes():
    for n_categories in (20, 500):
        X = make_ctr_cvr(N, n_categories=n_categories, random_state=0).data
        TableEncoder().fit_transform(X)  # warnings are errors


TABLE = pd.DataFrame(
    {"n": RNG.normal(size=N), "id": IDS, "text": list("ab") * (N // 2)}
)


def test_one_warning_names_the_columns():
    X = TABLE.assign(other=RNG.permutation(IDS))
    with pytest.warns(UserWarning, match=r"columns \['id', 'other'\]") as found:
        TableEncoder().fit_transform(X)
    assert len(found) == 1
    encoded = OrdinalEncoder().fit_transform(X[["text", "id"]])
    with pytest.warns(UserWarning, match=r"columns \[1\].*look like codes or ids"):
        TableEncoder().fit_transform(encoded)


@pytest.mark.parametrize(
    "named", [["id"], [1], [False, True], [False, False], [], None]
)
def test_any_list_silences_the_warning(named):
    TableEncoder(named).fit_transform(TABLE[["n", "id"]])  # warnings are errors


IDS_ABOVE = 2**62 + np.arange(N) % 50


@pytest.mark.parametrize(
    ("values", "example"),
    [
        ([12, "12", 13, "a"], "12 and '12'"),
        ([12.0, "12", 13.0, "a"], "12.0 and '12'"),
        ([2**60 + 1, str(2**60 + 1), 2**60, "a"], f"{2**60 + 1} and '{2**60 + 1}'"),
        ([12, "12.0", 1.5, "a"], "12 and '12.0'"),
        ([12, "012", 2**60, str(2**60 + 1)], None),
        ([True, "1", False, "0"], None),
        (["12", "13", "a", "b"], None),
    ],
)
@pytest.mark.parametrize("named", ["from_dtype", ["id"]])
def test_a_number_that_also_occurs_as_text_is_named(values, example, named):
    """As in a file whose parts were read one by one, whatever features are named."""
    table = pd.DataFrame({"id": pd.Series(values * 25, dtype=object)})
    labels = np.arange(100) % 3 == 0
    messages = []
    for fit in (
        lambda: small(max_epochs=1, categorical_features=named).fit(table, labels),
        lambda: TableEncoder(categorical_features=named).fit(table),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit()
        messages.append([str(w.message) for w in caught])
    expected = "numbers that also occur as text, which count as two values each: 'id' ("
    for found in messages:
        assert [expected in message for message in found] == [True] * bool(example)
        assert not example or f"'id' ({example})" in found[0]


@pytest.mark.parametrize("kind", ["array", "Int64", "object", "polars"])
def test_whole_numbers_that_doubles_merge_are_refused(kind):
    """50 ids would be one number; as categories they are told apart."""
    make, chosen = {
        "array": (lambda ids: ids[:, None], [0]),
        "Int64": (lambda ids: pd.DataFrame({"big": pd.array(ids)}), ["big"]),
        "object": (lambda ids: pd.DataFrame({"big": ids.astype(object)}), ["big"]),
        "polars": (lambda ids: pl.DataFrame({"big": ids}), ["big"]),
    }[kind]
    n_rows = 5 * len(LABELS)
    X, Y = make(IDS_ABOVE[:n_rows]), pd.concat([LABELS] * 5)
    message = f"Column {chosen[0]!r} contains numbers above 2.* such as {2**62} and 4"
    for method in ("fit", "partial_fit"):
        with pytest.raises(ValueError, match=message):
            getattr(small(), method)(X, Y)
    model = small(categorical_features=chosen).fit(X, Y)
    assert len(np.unique(model.encode(X).codes)) == 50
    # Numbers that are merged rarely, such as times in nanoseconds, are read.
    spread = make(2**62 + np.arange(n_rows) * 10_000)
    small().fit(spread, Y).predict_proba(spread)


def test_real_tables():
    folder = os.environ.get("SK_PWISER_DATA")
    if not folder:
        pytest.skip("SK_PWISER_DATA is not set")
    pytest.importorskip("pyarrow")
    kuairand = Path(folder, "kuairand_pure")
    X = pd.read_parquet(next(kuairand.glob("val*.parquet")))
    for file, key in (
        ("user_features_pure", "user_id"),
        ("video_features_basic_pure", "video_id"),
    ):
        table = pd.read_csv(kuairand / f"{file}.csv")
        new = [key, *table.columns.difference(X.columns)]
        X = X.merge(table[new], on=key, how="left")
    tables = [
        X,
        pd.read_csv(next(Path(folder, "hillstrom").glob("*.csv"))),
        pd.read_csv(next(Path(folder, "oulad").glob("*.gz"))),
    ]
    found = {
        name
        for table in tables
        for name, column in table.items()
        if column.dtype.kind in "iuf" and looks_like_codes(column, name)
    }
    # The one-hot features are codes of encrypted values. Counts, durations, days since
    # registration, times and small codes are not found.
    ids = {"user_id", "video_id", "author_id", "music_id"}
    codes = {"onehot_feat3", "onehot_feat7", "onehot_feat8"}
    assert found == ids | codes | {"id_student"}
    few = X.sample(20_000, random_state=0)
    assert all(looks_like_codes(few[name], name) for name in ids)
    without_names = {name for name in ids if looks_like_codes(few[name])}
    assert without_names == ids - {"user_id"}  # fewer than two rows per user

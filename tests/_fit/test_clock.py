"""A number that never falls and looks like a time is the time of the rows."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal
from small_model import small

from sk_pwiser._times import is_clock
from sk_pwiser.datasets import make_ctr_cvr

TAKEN = "Column 'day', a number that never falls"


@pytest.fixture(scope="module")
def log():
    data = make_ctr_cvr(1_500, n_categorical=1, n_numeric=1, ctr=0.4, random_state=0)
    return data.data.assign(day=np.arange(1_500) // 15 + 4), data.target


def fit_quietly(model, *arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return model.fit(*arguments)


FORMS = {
    "pandas": lambda X: X,
    "nullable": lambda X: X.astype({"day": "Int64"}),
    "polars": pl.from_pandas,
    "Arrow": lambda X: pa.Table.from_pandas(X, preserve_index=False),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_clock_is_the_time_column(form, log):
    X, Y = log
    model = small(early_stopping=True)
    with pytest.warns(UserWarning, match=TAKEN):
        model.fit(FORMS[form](X), Y)
    named = small(early_stopping=True, encoding_params={"time_column": "day"})
    expected = fit_quietly(named, FORMS[form](X), Y).predict_proba(X)
    assert_array_equal(model.predict_proba(X.drop(columns="day")), expected)


def test_other_numbers_are_features(log):
    X, Y = log
    shuffled = X.assign(day=X["day"].sample(frac=1, random_state=0).to_numpy())
    by_id = X.rename(columns={"day": "user_id"})
    for table in (shuffled, by_id):
        name = table.columns[-1]
        model = small(early_stopping=True, categorical_features=[])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The rows are in an order that matters")
            fit_quietly(model, table, Y)
        assert model.column_encodings_[name].kind == "numeric"
    named = small(early_stopping=True, categorical_features=["day"])
    with pytest.warns(UserWarning, match="The rows are sorted by column 'day'"):
        named.fit(X, Y)
    assert named.column_encodings_["day"].kind == "category"


def test_further_training_keeps_it_whatever_the_order_of_its_rows(log):
    X, Y = log
    model = small(early_stopping=True, warm_start=True)
    with pytest.warns(UserWarning, match=TAKEN):
        model.fit(X, Y)
    model.fit(X[::-1], Y[::-1])
    model.partial_fit(X[-100:][::-1], Y[-100:][::-1])
    assert model.column_encodings_["day"].kind == "time"


def test_further_training_keeps_a_feature(log):
    X, Y = log
    shuffled = np.random.default_rng(0).permutation(len(X))
    model = small(warm_start=True).fit(X.iloc[shuffled], Y.iloc[shuffled])
    model.fit(X, Y)
    model.partial_fit(X, Y)
    assert model.column_encodings_["day"].kind == "numeric"


def test_the_finest_of_several_clocks_is_taken(log):
    X, Y = log
    X = X.assign(ts=1_700_000_000 + np.arange(1_500) * 60)
    with pytest.warns(UserWarning, match=r"Column 'ts', a .*\['day'\] rise with it"):
        small(early_stopping=True).fit(X, Y)


RNG = np.random.default_rng(0)
DAYS = np.sort(RNG.integers(4, 108, 2_000)).astype(float)
SECONDS = np.sort(RNG.uniform(1.6e9, 1.7e9, 2_000)).round()
IDS = 1.5e9 + np.arange(2_000)


@pytest.mark.parametrize(
    "name",
    ["day", "ts", "timestamp", "created_at", "createdAt", "event_time", "day_id",
     "TimeMs", "unix_ts", "week", "date", "clickTime"],
)  # fmt: skip
def test_names_of_times(name):
    assert is_clock(name, DAYS)
    assert not is_clock(name, RNG.permutation(DAYS))
    assert not is_clock(name, np.append(DAYS, np.nan))
    assert not is_clock(name, np.append(np.nan, DAYS))
    assert not is_clock(name, np.repeat([0.0, 1.0], 1_000))  # too few times
    assert not is_clock(name, np.arange(5.0))  # may be chance


@pytest.mark.parametrize(
    "name",
    ["lead_time", "day_of_week", "user_id", "booking_id", "id", "x", "n", "at", "hour",
     "age", "latency_ms", "days", "price", "item_id", "row", "index", "2", "year"],
)  # fmt: skip
def test_other_names(name):
    assert not is_clock(name, DAYS)
    assert not is_clock(name, IDS) or name == "year"


@pytest.mark.parametrize("unit", [1.0, 1e3, 1e6])
def test_values_of_times(unit):
    assert is_clock("x", SECONDS * unit)
    assert not is_clock("session_id", SECONDS * unit)
    assert not is_clock("x", SECONDS * unit / 10)


def test_dates_come_first(log):
    X, Y = log
    dated = X.assign(at=pd.Timestamp("2026-01-01") + pd.to_timedelta(X["day"], "D"))
    with pytest.warns(UserWarning, match="Column 'at', the only one of dates"):
        model = small(early_stopping=True).fit(dated, Y)
    assert model.column_encodings_["day"].kind == "numeric"

"""The only column of dates is the time of the rows, without being named."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from impressions_in_files import in_a_file
from numpy.testing import assert_array_equal
from small_model import small

from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.model_selection import FunnelStratifiedKFold, compare_models

TAKEN = "Column 'at', the only one of dates, is taken as the time of the rows"


@pytest.fixture(scope="module")
def log():
    data = make_ctr_cvr(400, n_categorical=1, n_numeric=1, ctr=0.4, random_state=0)
    return data.data, data.target


def dated(X):
    """Return rows whose dates are in another order."""
    minutes = np.random.default_rng(0).permutation(len(X))
    return X.assign(
        at=pd.Timestamp("2026-01-01") + pd.to_timedelta(minutes, unit="min")
    )


FORMS = {
    "pandas": lambda X: X,
    "with a zone": lambda X: X.assign(at=X["at"].dt.tz_localize("Europe/Berlin")),
    "Arrow in pandas": lambda X: X.astype({"at": "timestamp[us][pyarrow]"}),
    "objects": lambda X: X.assign(at=X["at"].astype(object)),
    "polars": pl.from_pandas,
    "Arrow": lambda X: pa.Table.from_pandas(X, preserve_index=False),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_column_of_dates_is_the_time_column(form, log):
    X, Y = log
    table = FORMS[form](dated(X))
    model = small(early_stopping=True)
    with pytest.warns(UserWarning, match=TAKEN):
        model.fit(table, Y)
    named = small(early_stopping=True, encoding_params={"time_column": "at"})
    expected = named.fit(table, Y).predict_proba(X)
    assert_array_equal(model.predict_proba(X), expected)
    assert_array_equal(model.predict_proba(table), expected)


def test_files_have_a_time_column_too(log, tmp_path):
    X, Y = log
    model = small(early_stopping=True)
    with pytest.warns(UserWarning, match=TAKEN):
        model.fit(in_a_file(dated(X), Y, tmp_path))
    named = small(early_stopping=True, encoding_params={"time_column": "at"})
    expected = named.fit(dated(X), Y).predict_proba(X)
    assert_array_equal(model.predict_proba(X), expected)


def test_dates_that_are_named_as_categories_are_features(log):
    X, Y = log
    table = dated(X).assign(at=lambda X: X["at"].dt.floor("h"))
    for features in (["at"], [False, False, True]):
        model = small(categorical_features=features).fit(table, Y)
        assert model.column_encodings_["at"].kind == "category"


def test_several_columns_of_dates_are_an_error_that_lists_them(log):
    X, Y = log
    table = dated(X).assign(registered=lambda X: X["at"])
    with pytest.raises(ValueError, match=r"several columns of dates, \['at', 'regi"):
        small().fit(table, Y)
    small(categorical_features=["registered"], encoding_params={"time_column": "at"})


def test_updates_and_continued_fits_take_it_silently_or_alike(log):
    X, Y = log
    table = dated(X)
    with pytest.warns(UserWarning, match=TAKEN):
        model = small(warm_start=True, early_stopping=True).fit(table, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.partial_fit(table, Y)
        model.partial_fit(X, Y)
    assert_array_equal(model.predict_proba(X), model.predict_proba(table))


def test_random_folds_are_named_like_those_of_a_time_column(log):
    X, Y = log
    folds = FunnelStratifiedKFold(2, random_state=0)
    message = "X has one column of dates, 'at', but cv="
    with pytest.warns(UserWarning, match=f"{message}|{TAKEN}") as caught:
        compare_models(dated(X), Y, models=["bce", "pwiser"], cv=folds)
    assert any(message in str(warning.message) for warning in caught)

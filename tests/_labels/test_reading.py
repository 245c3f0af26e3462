"""Missing labels: which are found, and which are an error."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal

from sk_pwiser._table import read_labels

Y = np.array([[0, 0], [1, 0], [1, 1], [1, 0]])
MISSING = np.array([[False, False], [False, True], [False, True], [False, False]])
FRAME = pd.DataFrame(Y, columns=["view", "buy"])
FORMS = [
    (np.where(MISSING, np.nan, Y), float),
    (np.where(MISSING, np.nan, Y.astype(object)), object),
    (np.where(MISSING, None, Y), object),
    (np.where(MISSING, None, Y).tolist(), object),
    (np.where(MISSING, pd.NA, Y), object),
    (FRAME.mask(MISSING), float),
    (FRAME.astype("Int64").mask(MISSING), int),
    (FRAME.astype("boolean").mask(MISSING), bool),
    (FRAME.astype(pd.ArrowDtype(pa.int64())).mask(MISSING), int),
    (FRAME.astype(object).mask(MISSING), object),
    (pl.DataFrame({"view": [0, 1, 1, 1], "buy": [0, None, None, 0]}), float),
    (pl.DataFrame({"view": [0.0, 1, 1, 1], "buy": [0.0, np.nan, None, 0]}), float),
]


@pytest.mark.parametrize(("form", "dtype"), FORMS)
def test_missing_labels_are_found(form, dtype):
    found = read_labels(form, "ignore")
    assert_array_equal(found.missing, MISSING)
    assert_array_equal(found.values.astype(int), np.where(MISSING, 0, Y))
    assert found.values.dtype == dtype


def test_arrow_tables_and_queries_have_the_names_and_values_of_a_frame():
    table = pa.table({"view": [0, 1, 1, 1], "buy": [0, None, None, 0]})
    for form in (table, pl.from_arrow(table).lazy()):
        found = read_labels(form, "ignore")
        assert found.columns == ["view", "buy"]
        assert_array_equal(found.missing, MISSING)
        assert_array_equal(found.values, np.where(MISSING, 0, Y))


@pytest.mark.parametrize(("form", "dtype"), FORMS)
def test_by_default_they_are_an_error_that_names_column_and_row(form, dtype):
    name = "'buy'" if hasattr(form, "columns") else 1
    message = (
        f"Input Y contains NaN: 2 in column {name}, the first in row 1. With "
        "missing_labels='ignore'"
    )
    with pytest.raises(ValueError, match=message):
        read_labels(form)


def test_nothing_is_missing():
    for form in (Y, FRAME, FRAME.astype("Int64"), Y.astype(float), Y.tolist()):
        assert read_labels(form, "ignore").missing is None


@pytest.mark.parametrize("missing_labels", ["error", "ignore"])
def test_the_first_task_has_every_label(missing_labels):
    first = FRAME.mask(MISSING[:, ::-1])
    with pytest.raises(ValueError, match=r"NaN: 2 in column 'view', .* in row 1\.$"):
        read_labels(first, missing_labels)
    for single in ([0, 1, np.nan], [[0], [1], [np.nan]], pl.Series([0, 1, None])):
        with pytest.raises(ValueError, match=r"NaN: 1 in column 0, .* in row 2\.$"):
            read_labels(single, missing_labels)


def test_labels_are_not_changed():
    labels = np.where(MISSING, np.nan, Y)
    before = labels.copy()
    read_labels(labels, "ignore")
    assert_array_equal(labels, before)

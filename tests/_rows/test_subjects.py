"""Rows of one subject that stand together are recognised, and other orders are not."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from persons import rows_of_persons

from sk_pwiser._rows._subjects import RowColumn, find_subjects


def subjects_of(X):
    columns = []
    for name, column in X.items():
        is_number = pd.api.types.is_numeric_dtype(column)
        codes, _ = pd.factorize(column, sort=True)
        values = column.to_numpy(float) if is_number else codes
        columns.append(RowColumn(name, values, is_number))
    return find_subjects(columns)


def columns_in_random_order(X, seed=0):
    """Return rows whose columns are independent of each other and of the order."""
    return X.apply(lambda column: column.sample(frac=1, random_state=seed).to_numpy())


PERSONS = rows_of_persons(1_000)
INDEPENDENT = pd.DataFrame(
    {
        name: column.sample(frac=1, random_state=seed).to_numpy()
        for seed, (name, column) in enumerate(PERSONS.items())
    }
)


@pytest.mark.parametrize("left_out", [["person"], []], ids=["no id", "id"])
def test_persons_are_the_runs(left_out):
    subjects = subjects_of(PERSONS.drop(columns=left_out))
    is_new = np.diff(PERSONS["person"]) > 0
    assert np.mean((np.diff(subjects.number) > 0) == is_new) > 0.999
    assert set(subjects.names) == {"sex", "region", "birth", "score"}
    rows = slice(subjects.first_row, subjects.last_row + 1)
    assert PERSONS["person"][rows].nunique() == 1
    assert f"Rows {rows.start} to {rows.stop - 1} look like one" in subjects.sentence()


def test_families_are_the_subjects_of_their_persons():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 5, 500)
    family = np.repeat(np.arange(500), sizes)[PERSONS["person"] % sizes.sum()]
    X = PERSONS[family < 500].assign(
        income=rng.normal(size=500)[family],
        region=rng.integers(0, 12, 500)[family].astype(str),
        plan=rng.integers(0, 6, 500)[family].astype(str),
    )
    subjects = subjects_of(X.drop(columns="person"))
    is_new = np.diff(family) != 0
    assert np.mean((np.diff(subjects.number) > 0) == is_new) > 0.99


def test_rows_that_are_left_out_do_not_hide_persons():
    is_drawn = np.random.default_rng(0).random(len(PERSONS)) < 0.7
    assert subjects_of(PERSONS[is_drawn].drop(columns="person")) is not None


OTHER_ORDERS = {
    "shuffled": lambda X: X.sample(frac=1, random_state=0),
    "by year": lambda X: X.sample(frac=1, random_state=0).sort_values("year"),
    "few rows": lambda X: X[:900],
    "one row each": lambda X: X.drop_duplicates("person"),
    "two columns": lambda X: X[["birth", "score", "visits", "year"]],
    "a category has them": lambda X: X.astype({"person": str}),
}


@pytest.mark.parametrize("order", OTHER_ORDERS)
def test_other_orders_show_no_persons(order):
    X = OTHER_ORDERS[order](PERSONS)
    if order != "a category has them":
        X = X.drop(columns="person", errors="ignore")
    assert subjects_of(X) is None


SORTS = [
    *([name] for name in INDEPENDENT),
    ["sex", "region", "visits", "year"],
    ["region", "sex", "birth", "age", "score"],
    list(INDEPENDENT),
]


@pytest.mark.parametrize("keys", SORTS, ids="-".join)
def test_independent_rows_that_are_sorted_are_no_persons(keys):
    assert subjects_of(INDEPENDENT.sort_values(keys)) is None


def test_a_column_with_attributes_that_sorts_the_rows_is_no_person():
    place = np.sort(np.random.default_rng(0).integers(0, 400, len(INDEPENDENT)))
    attributes = np.random.default_rng(1).normal(size=(400, 3)).round(2)
    X = INDEPENDENT.assign(
        place=place,
        town=(place // 4).astype(str),
        **{f"of_place_{k}": attributes[place, k] for k in range(3)},
    )
    assert subjects_of(X) is None
    assert subjects_of(X.drop(columns="place")) is None


def test_copies_of_a_row_are_no_persons():
    rng = np.random.default_rng(0)
    X = INDEPENDENT.iloc[np.repeat(np.arange(1_500), rng.integers(1, 5, 1_500))]
    assert subjects_of(X) is None


def test_the_same_rows_have_the_same_persons():
    X = PERSONS.drop(columns="person")
    assert_array_equal(subjects_of(X).number, subjects_of(X.copy()).number)

"""A fit holds out the rows of whole subjects if they stand together."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from persons import rows_of_persons
from small_model import small

from sk_pwiser.inspection import describe_impressions

LOOKS = "Rows 0 to 6 look like one subject, .* 'score', 'birth', 'region', 'sex' mostly"


@pytest.fixture(scope="module")
def log():
    X = rows_of_persons(400, most_rows=8)
    # Neighbours differ in all of their attributes.
    X["region"] = (X["person"] % 12).astype(str)
    X["birth"] = X["person"] * 7 % 60
    rng = np.random.default_rng(0)
    click = rng.normal(size=400)[X["person"]] + rng.normal(size=len(X)) > 0
    Y = np.stack([click, click & (rng.random(len(X)) < 0.4)], axis=1).astype(int)
    return X.drop(columns="person"), Y, X["person"]


def model():
    return small(early_stopping=True, max_epochs=3, target_encoding=False)


def test_validation_rows_are_those_of_groups(log):
    X, Y, persons = log
    named = model().fit(X, Y, groups=persons)
    with pytest.warns(UserWarning, match="look like one subject") as record:
        found = model().fit(X, Y)
    assert len(record) == 1
    assert_array_equal(found.predict_proba(X), named.predict_proba(X))


def test_single_rows_may_be_groups(log):
    X, Y, _ = log
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model().fit(X, Y, groups=range(len(X)))
        small(early_stopping=False).fit(X, Y)
        model().fit(X, Y, X_val=X[:100], Y_val=Y[:100])


def test_the_description_names_them(log):
    X, Y, _ = log
    notes = [note for note in describe_impressions(X, Y).notes if "subject" in note]
    assert len(notes) == 1
    shuffled = np.random.default_rng(0).permutation(len(X))
    description = describe_impressions(X.iloc[shuffled], Y[shuffled])
    assert not any("subject" in note for note in description.notes)

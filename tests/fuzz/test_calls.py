"""Single fits: any table, argument and parameter trains, or its error names it."""

import numpy as np
import pandas as pd
import pytest
from fuzz.arguments import (
    valid_groups,
    valid_labels,
    valid_weights,
    wrong_groups,
    wrong_labels,
    wrong_weights,
)
from fuzz.oracle import Session, examples
from fuzz.parameters import SMALL, valid_parameters, wrong_parameters
from fuzz.tables import valid_tables, wrong_tables
from hypothesis import given
from hypothesis import strategies as st

from sk_pwiser import MultiTaskCTRCVRClassifier

pytestmark = pytest.mark.slow

N = 8
X = pd.DataFrame(
    {
        "price": [1.0, None, 3.0, -4.0, 5.5, 6.0, 7.0, 8.0],
        "country": ["at", "be", None, "at", "be", "be", "cz", "at"],
    }
)
Y = pd.DataFrame(
    {"click": [0, 1, 0, 1, 1, 0, 1, 0], "conversion": [0, 1, 0, 0, 1, 0, 0, 0]}
)
METHODS = st.sampled_from(["fit", "partial_fit"])


def new_session(**params):
    return Session(MultiTaskCTRCVRClassifier(**{**SMALL, **params}))


def fitted_session():
    session = new_session()
    assert session.train("partial_fit", X, Y)
    return session


@examples(short=60, long=1_500)
@given(valid_tables(N), METHODS)
def test_valid_tables(table, method):
    session = new_session()
    assert session.train(method, table, Y)
    assert session.train("partial_fit", table, Y)
    assert session.use("predict_cvr", table)


@examples(short=25, long=400)
@given(wrong_tables(N), METHODS)
def test_wrong_tables(case, method):
    table, culprit = case
    new_session().train(method, table, Y, culprit)


@examples(short=40, long=800)
@given(valid_labels(N), valid_weights(N), valid_groups(N), METHODS)
def test_valid_arguments(labels, weights, groups, method):
    session = new_session()
    assert session.train(method, X, labels, sample_weight=weights, groups=groups)
    assert session.use("predict", X)
    assert session.use("score", X, labels, sample_weight=weights)


@examples(short=60, long=1_000)
@given(
    st.one_of(
        wrong_labels(N).map(lambda case: ("Y", *case)),
        wrong_weights(N).map(lambda case: ("sample_weight", *case)),
        wrong_groups(N).map(lambda case: ("groups", *case)),
    ),
    METHODS,
)
def test_wrong_arguments(case, method):
    name, value, culprit = case
    given_labels = value if name == "Y" else Y
    others = {} if name == "Y" else {name: value}
    session = fitted_session()
    session.train(method, X, given_labels, culprit, **others)
    if name != "groups":
        session.use("score", X, given_labels, culprit=culprit, **others)


@examples(short=40, long=1_000)
@given(valid_parameters(), METHODS)
def test_valid_parameters(params, method):
    session = new_session(**params)
    # Training on eight rows may diverge; the error then says so.
    if session.train(method, X, Y, "Training diverged"):
        assert session.use("score", X, Y)


@examples(short=100, long=2_000)
@given(wrong_parameters(), METHODS)
def test_wrong_parameters(case, method):
    params, culprit = case
    session = fitted_session()
    session.model.set_params(**params)
    session.train(method, X, Y, culprit)


@examples(short=10, long=200)
@given(wrong_tables(N), st.sampled_from(["predict_proba", "predict", "score"]))
def test_predictions_of_wrong_tables(case, method):
    table, _ = case  # text, too, is wrong after a fit on numbers
    session = new_session()
    assert session.train("fit", np.zeros((N, table.shape[1])), Y)
    args = (table, Y) if method == "score" else (table,)
    session.use(method, *args, culprit=r"olumn \d|Input X|feature names")

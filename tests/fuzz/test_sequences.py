"""Sequences of calls: what went before changes no promise."""

import copy
import pickle

import numpy as np
import pytest
from fuzz.arguments import wrong_labels, wrong_weights
from fuzz.oracle import Session, examples
from fuzz.parameters import SMALL, wrong_parameters
from fuzz.tables import CONTAINERS, columns, has_value
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from sklearn.base import clone

from sk_pwiser import MultiTaskCTRCVRClassifier

pytestmark = pytest.mark.slow

N = 8
Y = np.array([[0, 0], [1, 1], [0, 0], [1, 0], [1, 1], [0, 0], [1, 0], [0, 0]])

TRAINS = ("fit", "partial_fit", "warm fit")
USES = ("predict", "predict_cvr", "predict_logits", "score", "encode")
COPIES = ("save", "pickle", "deepcopy")
FAULTS = ("wrong labels", "wrong weights", "wrong parameters")
STEPS = st.sampled_from([*TRAINS, *USES, *COPIES, *FAULTS, "clone"])


@st.composite
def tables(draw):
    """Draw some tables with the same columns, of one library."""
    table = draw(columns(N).filter(lambda t: all(map(has_value, t.values()))))
    make = CONTAINERS[draw(st.sampled_from(["pandas", "pandas nullable", "polars"]))]
    orders = draw(st.lists(st.permutations(range(N)), min_size=1, max_size=2))
    shuffled = [
        {k: [v[i] for i in order] for k, v in table.items()} for order in orders
    ]
    return [make(each) for each in (table, *shuffled)]


@examples(short=40, long=1_200)
@given(st.data(), tables(), st.lists(STEPS, min_size=1, max_size=6))
def test_sequences(tmp_path_factory, data, tables, steps):
    session = Session(MultiTaskCTRCVRClassifier(**SMALL))
    for step in ["fit", *steps]:
        X = data.draw(st.sampled_from(tables))
        if step in TRAINS:
            session.model.set_params(warm_start=step == "warm fit")
            assert session.train(step.removeprefix("warm "), X, Y)
        elif step in USES:
            assert session.use(step, *((X, Y) if step == "score" else (X,)))
        elif step in COPIES:
            session.model = copied(session.model, step, tmp_path_factory)
            predictions = session.check_probabilities(session.table)
            assert_array_equal(predictions, session.predictions)
        elif step == "clone":
            session.model = clone(session.model)
            session = Session(session.model)
            assert session.train("fit", X, Y)
        else:
            fault(session, step, X, data)


def copied(model, how, tmp_path_factory):
    """Return a copy of a fitted estimator."""
    if how == "save":
        path = tmp_path_factory.mktemp("fuzz") / "model.safetensors"
        model.save(path)
        return MultiTaskCTRCVRClassifier.load(path)
    if how == "pickle":
        return pickle.loads(pickle.dumps(model))
    return copy.deepcopy(model)


def fault(session, step, X, data):
    """Call a method with something wrong, after which everything is as before."""
    method = data.draw(st.sampled_from(["fit", "partial_fit"]))
    if step == "wrong labels":
        labels, culprit = data.draw(wrong_labels(N))
        session.train(method, X, labels, culprit)
    elif step == "wrong weights":
        weights, culprit = data.draw(wrong_weights(N))
        session.train(method, X, Y, culprit, sample_weight=weights)
    else:
        before = session.model.get_params(deep=False)
        params, culprit = data.draw(wrong_parameters())
        session.model.set_params(**params)
        # Other parameters may not fit the net that a warm start continues from.
        session.train(method, X, Y, culprit)
        session.model.set_params(**before)

"""Copies and pickles keep everything, also what files without code cannot hold."""

import copy
import io
import pickle
from functools import partial

import joblib
import pytest
import torch
from numpy.testing import assert_array_equal
from refusals import X, Y, small
from skorch.callbacks import EpochScoring

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.callbacks import KeepOnInterrupt
from sk_pwiser.losses import BCE
from sk_pwiser.metrics import ctr_auc_scorer


class Own(BCE):
    pass


class Noted(MultiTaskCTRCVRClassifier):
    """Counts its states, and has an attribute that copies leave out."""

    states = 0

    def __getstate__(self):
        Noted.states += 1
        state = dict(super().__getstate__())
        state.pop("note", None)
        return state


def through_joblib(model):
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    return joblib.load(file)


def through_pickle(model, protocol):
    return pickle.loads(pickle.dumps(model, protocol))


PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
COPIES = {
    **{f"pickle {n}": partial(through_pickle, protocol=n) for n in PROTOCOLS},
    "joblib": through_joblib,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
def test_copies_keep_callbacks_and_own_classes(duplicate):
    scoring = EpochScoring(ctr_auc_scorer, name="ctr", lower_is_better=False)
    model = small(
        loss=Own,
        optimizer=torch.optim.Adam,
        callbacks=[("scoring", scoring), KeepOnInterrupt()],
        early_stopping=True,
    ).fit(X, Y)
    again = duplicate(model)
    assert vars(again).keys() == vars(model).keys()
    assert again.loss is Own
    assert again.callbacks[0][1].name == "ctr"
    assert dict(again.net_.callbacks_).keys() == dict(model.net_.callbacks_).keys()
    assert again.net_ is again._result.net
    assert again.history_ == model.history_
    assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    again = copy.deepcopy(again) if duplicate is copy.copy else again
    for each in (model, again):
        each.partial_fit(X, Y)
        each.partial_fit(X, Y)
    assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_pickles_of_estimators_that_are_not_fitted():
    model = small(loss=Own, callbacks=[KeepOnInterrupt()], lr=0.02)
    again = pickle.loads(pickle.dumps(model))
    assert again.loss is Own
    assert again.lr == 0.02
    assert vars(again).keys() == vars(model).keys()


@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
def test_the_state_of_a_subclass_is_respected(duplicate):
    model = Noted(**small().get_params(deep=False)).fit(X, Y)
    model.note = "of this object alone"
    Noted.states = 0
    again = duplicate(model)
    assert Noted.states == 1
    assert not hasattr(again, "note")
    assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def calibrated(model):
    return FunnelCalibrator(model, method="sigmoid").fit(X, Y)


@pytest.mark.parametrize(
    "wrap", [lambda model: model, lambda model: model.task(1), calibrated]
)
def test_the_hash_of_a_fitted_estimator_stays_the_same(wrap, tmp_path):
    model = small(early_stopping=True).fit(X, Y)
    wrapped, calls = wrap(model), []

    def predict(estimator, table):
        calls.append(len(table))
        return estimator.predict_proba(table)

    expected = wrapped.predict_proba(X)
    memory = joblib.Memory(tmp_path, verbose=0)
    cached = memory.cache(predict)
    for _ in range(3):
        assert_array_equal(cached(wrapped, X), expected)
    assert calls == [len(X)]
    assert pickle.dumps(wrapped) == pickle.dumps(wrapped)
    before = joblib.hash(wrapped)
    model.partial_fit(X, Y)
    assert joblib.hash(wrapped) != before

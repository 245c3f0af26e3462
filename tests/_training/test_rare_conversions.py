"""Settings of the estimator for data in which most batches have no converted row."""

import numpy as np
import pytest

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr


@pytest.fixture(scope="module")
def rare():
    return make_ctr_cvr(4_000, ctr=0.1, cvr=0.05, random_state=0)


def fit(rare, **params):
    model = MultiTaskCTRCVRClassifier(
        loss="pwiser",
        network_params={"bottom_units": (8,), "tower_units": ()},
        batch_size=64,
        max_epochs=2,
        random_state=0,
        **params,
    )
    return model.fit(rare.data, rare.target)


def without_pairs(model):
    return model.history_[:, "train_batches_without_pairs"]


def test_batches_without_pairs_are_in_the_history(rare):
    assert 0 < rare.target["conversion"].sum() < 4000 / 64
    assert min(without_pairs(fit(rare))) > 20


def test_stratified_batches_all_have_pairs(rare):
    assert without_pairs(fit(rare, stratified_batches=True)) == [0, 0]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"batch_size": 1}, "stratified_batches=True requires batch_size >= 2.* got 1"),
        ({"loss": "jrc"}, "stratified_batches=True splits the groups .*loss='jrc'"),
    ],
)
def test_stratified_batches_that_are_impossible(rare, params, message):
    model = MultiTaskCTRCVRClassifier(stratified_batches=True, **params)
    for fit in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match=message):
            fit(rare.data, rare.target, groups=np.arange(4000) // 4)


def test_groups_are_passed_to_losses_that_ask_for_them(rare):
    groups = np.repeat([f"session {i}" for i in range(1000)], 4)
    params = {"max_epochs": 2, "random_state": 0}
    model = MultiTaskCTRCVRClassifier(loss="jrc", **params)
    p = model.fit(rare.data, rare.target).predict_proba(rare.data)
    model.fit(rare.data, rare.target, groups=groups)
    assert not np.allclose(model.predict_proba(rare.data), p, rtol=0.01)

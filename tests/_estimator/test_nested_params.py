"""Entries of dictionary parameters in searches, clones and representations."""

import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from small_model import X, Y, small

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.model_selection import FunnelStratifiedKFold

GRID = {"network_params__n_experts": [2, 8], "loss_params__margins": [0.5, 1.0]}
MMOE = {"expert_units": (8,), "tower_units": (4,)}


def mmoe(**params):
    return small(network="mmoe", network_params=MMOE, max_epochs=1, **params)


def test_a_search_varies_entries():
    # The hinge has the same gradient for both margins while all pairs are within them.
    model = mmoe(loss_params={"surrogate": "squared_hinge"})
    model, prefix = make_pipeline("passthrough", model), "multitaskctrcvrclassifier__"
    grid = {prefix + name: values for name, values in GRID.items()}
    cv = FunnelStratifiedKFold(2, random_state=0)
    search = GridSearchCV(model, grid, cv=cv, error_score="raise").fit(X, Y)
    assert len(set(search.cv_results_["mean_test_score"])) == 4
    best = search.best_estimator_[-1]
    chosen = {name.removeprefix(prefix): v for name, v in search.best_params_.items()}
    assert best.net_.module_.experts.n_stacked == chosen["network_params__n_experts"]
    assert set(best.net_.criterion_.loss.margins) == {chosen["loss_params__margins"]}
    assert MMOE == {"expert_units": (8,), "tower_units": (4,)}


def test_entries_are_set_in_a_copy_of_the_dictionary():
    own = {"tower_units": (4,)}
    model = MultiTaskCTRCVRClassifier(network_params=own)
    assert model.network_params is own
    model.set_params(network_params__tower_units=(8,), network_params__dropout=0.1)
    assert own == {"tower_units": (4,)}
    assert model.network_params == {"tower_units": (8,), "dropout": 0.1}


def test_a_dictionary_and_its_entry_in_one_call():
    model = MultiTaskCTRCVRClassifier()
    for order in (1, -1):
        params = [
            ("network_params__dropout", 0.2),
            ("network_params", {"tower_units": (4,)}),
        ]
        model.set_params(**dict(params[::order]))
        assert model.network_params == {"tower_units": (4,), "dropout": 0.2}


def test_get_params_returns_entries_if_deep():
    model = MultiTaskCTRCVRClassifier(encoding_params={"min_frequency": 3})
    assert model.get_params()["encoding_params__min_frequency"] == 3
    assert model.get_params()["encoding_params"] == {"min_frequency": 3}
    assert not [name for name in model.get_params(deep=False) if "__" in name]
    copy = MultiTaskCTRCVRClassifier().set_params(**model.get_params())
    assert copy.get_params() == model.get_params()


def test_clones_and_representations():
    model = mmoe(loss_params={"margins": 0.5}).set_params(network_params__n_experts=3)
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert copy.network_params is not model.network_params
    printed = repr(model).replace("\n", " ")
    assert "loss_params={'margins': 0.5}" in printed
    assert "'n_experts': 3" in printed
    assert "__" not in printed
    assert "n_experts" in model._repr_html_()
    first = model.fit(X, Y).predict_proba(X)
    assert_array_equal(copy.fit(X, Y).predict_proba(X), first)


def test_entries_of_what_is_no_dictionary_are_refused():
    model = small(loss_params=1.0)
    with pytest.raises(ValueError, match=r"of loss_params, .* but 1\.0"):
        model.set_params(loss_params__margins=2.0)
    assert model.loss_params == 1.0

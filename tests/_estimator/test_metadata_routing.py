"""Weights and groups, passed by scikit-learn's metadata routing and without it."""

import copy

import numpy as np
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_validate
from sklearn.pipeline import make_pipeline
from small_model import N, X, Y, small

from sk_pwiser.metrics import make_task_scorer, mean_auc_scorer
from sk_pwiser.model_selection import FunnelStratifiedKFold

GROUPS = np.random.default_rng(0).integers(0, 60, N)
PER_ROW = np.random.default_rng(1).uniform(0.5, 2.0, N)
PER_TASK = np.random.default_rng(2).uniform(0.5, 2.0, (N, 2))
PER_TASK[:50, 1] = 0
WEIGHTS = pytest.mark.parametrize("weight", [PER_ROW, PER_TASK])
SPLITS = list(GroupKFold(2).split(X, Y, GROUPS))


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def fold_scores(cv, weight, groups=None, **params):
    """Fit and score every fold by hand."""
    scores = []
    for train, test in cv.split(X, Y, groups):
        model = small(**params).fit(
            X.iloc[train],
            Y.iloc[train],
            sample_weight=weight[train],
            groups=None if groups is None else groups[train],
        )
        scores.append(model.score(X.iloc[test], Y.iloc[test], weight[test]))
    return scores


@WEIGHTS
@pytest.mark.usefixtures("routing")
def test_cross_validation_routes_weights_to_fit_and_score(weight):
    scorer = copy.deepcopy(mean_auc_scorer).set_score_request(sample_weight=True)
    model = small().set_fit_request(sample_weight=True)
    model.set_score_request(sample_weight=True)
    cv = FunnelStratifiedKFold(2, random_state=0)
    options = {"params": {"sample_weight": weight}, "error_score": "raise"}
    expected = fold_scores(cv, weight)
    for scoring in (None, scorer):
        found = cross_validate(model, X, Y, cv=cv, scoring=scoring, **options)
        assert_array_equal(found["test_score"], expected)


@pytest.mark.usefixtures("routing")
def test_groups_reach_the_splitter_and_the_loss():
    model = small(loss="jrc").set_fit_request(sample_weight=True, groups=True)
    model.set_score_request(sample_weight=True)
    params = {"sample_weight": PER_ROW, "groups": GROUPS}
    cv = GroupKFold(2)
    found = cross_validate(model, X, Y, cv=cv, params=params, error_score="raise")
    expected = fold_scores(cv, PER_ROW, GROUPS, loss="jrc")
    assert_array_equal(found["test_score"], expected)
    model.set_fit_request(groups=False)  # the splitter alone
    found = cross_validate(model, X, Y, cv=cv, params=params, error_score="raise")
    assert found["test_score"].tolist() != expected


@pytest.mark.usefixtures("routing")
def test_a_search_through_a_pipeline():
    model = small().set_fit_request(sample_weight=True)
    model.set_score_request(sample_weight=True)
    grid = {"multitaskctrcvrclassifier__lr": [0.003]}
    cv = FunnelStratifiedKFold(2, random_state=0)
    # scikit-learn 1.6 asks for the request of the pipeline itself, too.
    pipeline = make_pipeline("passthrough", model).set_score_request(sample_weight=True)
    search = GridSearchCV(pipeline, grid, cv=cv).fit(X, Y, sample_weight=PER_TASK)
    assert search.best_score_ == np.mean(fold_scores(cv, PER_TASK))
    direct = small().fit(X, Y, sample_weight=PER_TASK)
    assert_array_equal(search.predict_proba(X), direct.predict_proba(X))


@pytest.mark.usefixtures("routing")
def test_requests_of_every_method():
    model = small().set_fit_request(sample_weight="w", groups=True)
    model.set_partial_fit_request(sample_weight=True, groups=False, classes=False)
    model.set_score_request(sample_weight=True)
    requests = model.get_metadata_routing()
    expected = {"eval_set": None, "groups": True, "sample_weight": "w"}
    expected |= dict.fromkeys(("X_val", "Y_val", "groups_val", "sample_weight_val"))
    assert requests.fit.requests == expected
    expected = {"classes": False, "groups": False, "sample_weight": True}
    assert requests.partial_fit.requests == expected
    assert requests.score.requests == {"sample_weight": True}


@WEIGHTS
def test_a_search_without_routing(weight):
    cv = FunnelStratifiedKFold(2, random_state=0)
    search = GridSearchCV(small(), {"lr": [0.003]}, cv=cv)
    search.fit(X, Y, sample_weight=weight)
    direct = small().fit(X, Y, sample_weight=weight)
    assert_array_equal(search.predict_proba(X), direct.predict_proba(X))


def test_scores_per_task_use_the_weights_of_the_task():
    model = small().fit(X, Y)
    p = model.predict_proba(X)
    expected = [
        roc_auc_score(Y.iloc[:, k], p[:, k], sample_weight=PER_TASK[:, k])
        for k in range(2)
    ]
    for k, auc in enumerate(expected):
        scorer = make_task_scorer(roc_auc_score, k)
        assert scorer(model, X, Y, sample_weight=PER_TASK) == pytest.approx(auc)
    assert model.score(X, Y, PER_TASK) == pytest.approx(np.mean(expected))
    clicked = Y["click"] == 1
    cvr = roc_auc_score(
        Y["conversion"][clicked],
        model.predict_cvr(X)[clicked],
        sample_weight=PER_TASK[clicked, 1],
    )
    scorer = make_task_scorer(roc_auc_score, "cvr")
    assert scorer(model, X, Y, sample_weight=PER_TASK) == pytest.approx(cvr)


def view_scores(**arguments):
    """Fit the estimator on both folds by hand, and score the view of the conversion."""
    scores = []
    for train, test in SPLITS:
        own = {name: values[train] for name, values in arguments.items()}
        model = small(loss="jrc").fit(X.iloc[train], Y.iloc[train], **own)
        scores.append(model.task("conversion").score(X.iloc[test], Y.iloc[test]))
    return scores


@pytest.mark.parametrize("labels", ["all", "one column"])
@pytest.mark.usefixtures("routing")
def test_groups_reach_the_estimator_of_a_view(labels):
    view = small(loss="jrc").set_fit_request(groups=True).task("conversion")
    params, y, scoring = {"groups": GROUPS}, Y, None
    if labels == "one column":
        params, y, scoring = {**params, "tasks": Y}, Y["conversion"], "roc_auc"
    options = {"params": params, "scoring": scoring, "error_score": "raise"}
    found = cross_validate(view, X, y, cv=GroupKFold(2), **options)
    assert_allclose(found["test_score"], view_scores(groups=GROUPS))
    search = GridSearchCV(view, {"estimator__lr": [0.003]}, cv=2, scoring=scoring)
    search.fit(X, y, **params)
    expected = small(loss="jrc").fit(X, Y, groups=GROUPS).predict_proba(X)
    assert_array_equal(search.predict_proba(X)[:, 1], expected[:, 1])


def test_groups_reach_the_estimator_of_a_view_without_routing():
    view = small(loss="jrc").task("conversion")
    params = {"groups": GROUPS}
    found = cross_validate(view, X, Y, cv=SPLITS, params=params, error_score="raise")
    assert_array_equal(found["test_score"], view_scores(groups=GROUPS))


@WEIGHTS
@pytest.mark.usefixtures("routing")
def test_a_view_passes_weights_that_its_estimator_requests(weight):
    model = small(loss="jrc").set_fit_request(sample_weight=True)
    params = {"sample_weight": weight}
    options = {"cv": SPLITS, "params": params, "error_score": "raise"}
    scoring = {"auc": lambda view, X, Y: view.score(X, Y)}
    view = model.task(1).set_fit_request(sample_weight=True)
    found = cross_validate(view, X, Y, scoring=scoring, **options)
    assert_array_equal(found["test_auc"], view_scores(sample_weight=weight))
    model.set_fit_request(sample_weight=False)
    found = cross_validate(view, X, Y, scoring=scoring, **options)
    assert_array_equal(found["test_auc"], view_scores())
    with pytest.raises(UnsetMetadataPassedError, match="sample_weight"):
        small().task(1).fit(X, Y, **params)


@pytest.mark.usefixtures("routing")
def test_arguments_that_nothing_requests_are_refused():
    with pytest.raises(UnsetMetadataPassedError, match="groups"):
        small().task(1).fit(X, Y, groups=GROUPS)
    with pytest.raises(TypeError, match="unexpected"):
        small().task(1).fit(X, Y, group=GROUPS)

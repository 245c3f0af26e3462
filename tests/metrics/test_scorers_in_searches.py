"""Scorers inside scikit-learn's searches and cross-validation, with routing."""

import copy
import pickle

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import UndefinedMetricWarning, UnsetMetadataPassedError
from sklearn.metrics import check_scoring, log_loss, roc_auc_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sk_pwiser.metrics import (
    ctcvr_auc_scorer,
    ctr_auc_scorer,
    cvr_auc_scorer,
    make_task_scorer,
    mean_auc_scorer,
    mean_log_loss_scorer,
)
from sk_pwiser.model_selection import FunnelStratifiedKFold

SCORERS = {
    "ctr": ctr_auc_scorer,
    "ctcvr": ctcvr_auc_scorer,
    "cvr": cvr_auc_scorer,
    "mean": mean_auc_scorer,
    "log_loss": mean_log_loss_scorer,
}


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = rng.uniform(size=(160, 3))
    click = rng.random(160) < X[:, 0]
    return X, np.column_stack([click, click & (rng.random(160) < X[:, 1])]).astype(int)


def forest():
    return RandomForestClassifier(n_estimators=3, max_depth=3, random_state=0)


def scores_by_hand(X, Y, train, test, weight=None):
    """Every score of a forest fitted without weights, by scikit-learn's metrics."""
    blocks = forest().fit(X[train], Y[train]).predict_proba(X[test])
    click, buy = (block[:, 1] for block in blocks)
    Y, weight = Y[test], np.ones(len(test)) if weight is None else weight[test]
    k = Y[:, 0] == 1
    ratio = np.divide(buy, click, out=np.zeros(len(buy)), where=click > 0)[k].clip(0, 1)
    aucs = [
        roc_auc_score(Y[:, 0], click, sample_weight=weight),
        roc_auc_score(Y[:, 1], buy, sample_weight=weight),
    ]
    losses = [
        log_loss(Y[:, 0], click, sample_weight=weight),
        log_loss(Y[:, 1], buy, sample_weight=weight),
    ]
    cvr = roc_auc_score(Y[k, 1], ratio, sample_weight=weight[k])
    values = (*aucs, cvr, np.mean(aucs), -np.mean(losses))
    return dict(zip(SCORERS, values, strict=True))


@pytest.mark.slow
def test_multimetric_grid_search_in_processes(data):
    X, Y = data
    cv = FunnelStratifiedKFold(2, random_state=0)
    grid = {"max_depth": [3, 1]}
    search = GridSearchCV(
        forest(), grid, scoring=SCORERS, refit="ctr", cv=cv, n_jobs=2
    ).fit(X, Y)
    for i, (train, test) in enumerate(cv.split(X, Y)):
        for name, expected in scores_by_hand(X, Y, train, test).items():
            found = search.cv_results_[f"split{i}_test_{name}"][0]
            assert found == pytest.approx(expected)
    assert search.score(X, Y) == ctr_auc_scorer(search, X, Y)


def test_a_fold_with_one_class(data):
    X, Y = data
    order = np.argsort(Y[:, 1], kind="stable")  # conversions are in the last fold only
    X, Y = X[order], Y[order]
    with pytest.warns(UndefinedMetricWarning, match="task 1 has only class") as caught:
        scores = cross_val_score(forest(), X, Y, scoring=ctcvr_auc_scorer, cv=KFold(3))
    assert np.isnan(scores).tolist() == [True, True, False]
    assert len(caught) == 2
    losses = cross_val_score(forest(), X, Y, scoring=mean_log_loss_scorer, cv=KFold(3))
    assert np.isfinite(losses).all()


def test_copies_of_scorers():
    for scorer in SCORERS.values():
        search = GridSearchCV(forest(), {}, scoring=scorer)
        for other in (pickle.loads(pickle.dumps(scorer)), clone(search).scoring):
            assert repr(other) == repr(scorer)
            assert other is not scorer


def test_weights_in_multimetric_scoring(data):
    X, Y = data
    weight = np.random.default_rng(3).random(len(Y))
    rows = np.arange(len(Y))
    multi = check_scoring(forest(), SCORERS)
    found = multi(forest().fit(X, Y), X, Y, sample_weight=weight)
    assert found == pytest.approx(scores_by_hand(X, Y, rows, rows, weight))


@pytest.mark.parametrize("asked", ["sample_weight", "importance"])
def test_metadata_routing(data, asked):
    X, Y = data
    weight = np.random.default_rng(4).random(len(Y))
    with config_context(enable_metadata_routing=True):
        scoring = {
            name: copy.deepcopy(scorer).set_score_request(sample_weight=asked)
            for name, scorer in SCORERS.items()
        }
        last = forest().set_fit_request(sample_weight=False)
        model = make_pipeline(FunctionTransformer(), last)
        search = GridSearchCV(model, {}, scoring=scoring, refit=False, cv=KFold(2))
        search.fit(X, Y, **{asked: weight})
        alone = GridSearchCV(model, {}, scoring=scoring["cvr"], cv=KFold(2))
        alone.fit(X, Y, **{asked: weight})
    for i, (train, test) in enumerate(KFold(2).split(X)):
        expected = scores_by_hand(X, Y, train, test, weight)
        for name in SCORERS:
            found = search.cv_results_[f"split{i}_test_{name}"]
            assert found == pytest.approx(expected[name])
        found = alone.cv_results_[f"split{i}_test_score"]
        assert found == pytest.approx(expected["cvr"])


def plain_metric(y_true, y_pred):
    return 7.0


def test_metadata_must_be_requested(data):
    X, Y = data
    scorer = copy.deepcopy(ctr_auc_scorer)
    plain = make_task_scorer(plain_metric, 0)
    with pytest.raises(RuntimeError, match="enable_metadata_routing"):
        scorer.set_score_request(sample_weight=True)
    with config_context(enable_metadata_routing=True):
        with pytest.raises(ValueError, match="alias"):
            scorer.set_score_request(sample_weight="not an alias")
        assert scorer.get_metadata_routing().score.requests == {"sample_weight": None}
        scorer.set_score_request(sample_weight=True)
        with pytest.raises(TypeError, match="takes no sample_weight"):
            plain.set_score_request(sample_weight=True)
        model = forest().set_fit_request(sample_weight=True)
        params = {"params": {"sample_weight": np.ones(len(Y))}, "cv": 2}
        # The scorer of the module did not change with its copy.
        with pytest.raises(UnsetMetadataPassedError, match="sample_weight"):
            cross_val_score(model, X, Y, scoring=ctr_auc_scorer, **params)
        assert (cross_val_score(model, X, Y, scoring=plain, **params) == 7.0).all()
        scorer.set_score_request(sample_weight=False)
        params["params"]["sample_weight"] = 1.0 + Y[:, 1]
        found = cross_val_score(model, X, Y, scoring=scorer, **params)
    for score, (train, test) in zip(found, KFold(2).split(X), strict=True):
        fitted = forest().fit(X[train], Y[train], sample_weight=1.0 + Y[train, 1])
        assert score == pytest.approx(ctr_auc_scorer(fitted, X[test], Y[test]))

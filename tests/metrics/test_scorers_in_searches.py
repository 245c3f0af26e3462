"""Scorers inside scikit-learn's searches and cross-validation, with routing."""

import copy
import pickle
from collections import Counter

import numpy as np
import pytest
from fake_estimators import ReadsFeatures
from sklearn import config_context
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import UndefinedMetricWarning, UnsetMetadataPassedError
from sklearn.metrics import (
    check_scoring,
    f1_score,
    log_loss,
    recall_score,
    roc_auc_score,
)
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score, cross_validate
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


def test_a_fold_with_one_class(data):
    X, Y = data[0], data[1].copy()
    Y[100:, 1] = 0
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


FOUR = {name: scorer for name, scorer in SCORERS.items() if name != "log_loss"}
CV = FunnelStratifiedKFold(2, random_state=0)
calls = Counter()


class Counting(ReadsFeatures):
    """Counts the calls of its methods in `calls`, which its clones share."""

    def predict_proba(self, X):
        calls["predict_proba"] += 1
        return super().predict_proba(X)

    def predict(self, X):
        calls["predict"] += 1
        return (super().predict_proba(X) > 0.5).astype(int)

    def predict_cvr(self, X):
        calls["predict_cvr"] += 1
        return super().predict_cvr(X)


class CountingForest(RandomForestClassifier):
    def predict_proba(self, X):
        calls["predict_proba"] += 1
        return super().predict_proba(X)


@pytest.fixture(autouse=True)
def _no_calls_yet():
    calls.clear()


def alone():
    return Counting()


def in_a_pipeline():
    return make_pipeline(FunctionTransformer(), Counting())


@pytest.mark.parametrize("make", [alone, in_a_pipeline])
@pytest.mark.parametrize("n_splits_scored", [1, 2])
def test_four_scorers_predict_once_per_fold_and_split(data, make, n_splits_scored):
    X, Y = data
    train_too = n_splits_scored == 2
    scores = cross_validate(
        make(), X, Y, scoring=FOUR, cv=CV, return_train_score=train_too
    )
    n_calls = 2 * n_splits_scored
    assert calls == {"predict_proba": n_calls, "predict_cvr": n_calls}
    for fold, (train, test) in enumerate(CV.split(X, Y)):
        model = ReadsFeatures().fit(X[train], Y[train])
        for name, scorer in FOUR.items():
            expected = scorer(model, X[test], Y[test])
            assert scores[f"test_{name}"][fold] == expected
            if train_too:
                expected = scorer(model, X[train], Y[train])
                assert scores[f"train_{name}"][fold] == expected


def test_a_cvr_from_probabilities_needs_no_further_call(data):
    forest = CountingForest(n_estimators=3, max_depth=3, random_state=0)
    cross_validate(forest, *data, scoring=FOUR, cv=CV)
    assert calls == {"predict_proba": 2}
    calls.clear()
    pair = {"ctr": ctr_auc_scorer, "cvr": cvr_auc_scorer}
    cross_validate(forest, *data, scoring=pair, cv=CV)
    assert calls == {"predict_proba": 2}


def test_labels_and_probabilities_are_not_mixed_up(data):
    X, Y = data
    scoring = {
        metric.__name__: make_task_scorer(metric, 0, response_method="predict")
        for metric in (f1_score, recall_score)
    }
    model = Counting().fit(X, Y)
    found = check_scoring(model, FOUR | scoring)(model, X, Y)
    assert calls == {"predict_proba": 1, "predict_cvr": 1, "predict": 1}
    labels = (X[:, 0].astype(np.float32) > 0.5).astype(int)
    assert found["f1_score"] == f1_score(Y[:, 0], labels)
    assert found["recall_score"] == recall_score(Y[:, 0], labels)


def test_scorers_of_scikit_learn_in_the_same_scoring(data):
    X, y = data[0], data[1][:, 0]
    forest = CountingForest(n_estimators=3, max_depth=3, random_state=0).fit(X, y)
    scoring = {
        "roc_auc": "roc_auc",
        "neg_brier_score": "neg_brier_score",
        "ctr": ctr_auc_scorer,
        "mean": mean_auc_scorer,
    }
    found = check_scoring(
        forest, {k: check_scoring(forest, v) for k, v in scoring.items()}
    )(forest, X, y)
    # scikit-learn stores one column of the probabilities, so nothing is shared with it.
    assert calls == {"predict_proba": 2}
    assert found["ctr"] == found["mean"] == pytest.approx(found["roc_auc"])


def test_predictions_are_shared_within_one_call_only(data):
    X, Y = data
    model = Counting().fit(X, Y)
    multi = check_scoring(model, FOUR)
    first = multi(model, X, Y)
    model.set_params(power=-1.0)
    second = multi(model, X, Y)
    assert second["ctr"] == pytest.approx(1 - first["ctr"])
    assert multi(model, X[::-1], Y)["cvr"] != first["cvr"]
    calls.clear()
    for _ in range(2):
        assert ctr_auc_scorer(model, X, Y) == second["ctr"]
    assert calls == {"predict_proba": 2}

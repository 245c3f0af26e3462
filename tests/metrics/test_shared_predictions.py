"""Several scorers in one `scoring` share the predictions of the estimator."""

from collections import Counter
from functools import wraps

import numpy as np
import pytest
import refusals
from fake_estimators import ReadsFeatures
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import check_scoring, f1_score, recall_score
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sk_pwiser.metrics import (
    ctcvr_auc_scorer,
    ctr_auc_scorer,
    cvr_auc_scorer,
    make_task_scorer,
    mean_auc_scorer,
)
from sk_pwiser.model_selection import FunnelStratifiedKFold

FOUR = {
    "ctr": ctr_auc_scorer,
    "ctcvr": ctcvr_auc_scorer,
    "cvr": cvr_auc_scorer,
    "mean": mean_auc_scorer,
}
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


def in_a_search():
    return GridSearchCV(in_a_pipeline(), {}, scoring=ctr_auc_scorer, cv=2)


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


@pytest.mark.parametrize("in_pipeline", [False, True])
def test_the_classifier_predicts_once_per_fold(monkeypatch, in_pipeline):
    def counted(method):
        @wraps(method)
        def counting(*args):
            calls[method.__name__] += 1
            return method(*args)

        return counting

    model = refusals.small(max_epochs=1)
    for name in ("predict_proba", "predict_cvr"):
        monkeypatch.setattr(type(model), name, counted(getattr(type(model), name)))
    if in_pipeline:
        model = make_pipeline(FunctionTransformer(), model)
    cross_validate(model, refusals.X, refusals.Y, scoring=FOUR, cv=CV)
    assert calls == {"predict_proba": 2, "predict_cvr": 2}


def test_a_fitted_search_predicts_once(data):
    search = in_a_search().fit(*data)
    calls.clear()
    check_scoring(search, FOUR)(search, *data)
    assert calls == {"predict_proba": 1, "predict_cvr": 1}


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

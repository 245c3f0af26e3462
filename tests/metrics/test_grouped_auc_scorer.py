"""The scorer of the AUC within groups, against the function."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from fake_estimators import ReadsFeatures
from sklearn import config_context
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold

from sk_pwiser.metrics import ctr_auc_scorer, grouped_auc, make_grouped_auc_scorer

RNG = np.random.default_rng(0)
N = 400
Y = np.column_stack([RNG.random(N) < 0.5, np.zeros(N)]).astype(int)
Y[:, 1] = Y[:, 0] * (RNG.random(N) < 0.4)
P = RNG.random((N, 2))
USERS = RNG.integers(0, 30, N)


def estimator():
    return ReadsFeatures().fit(P, Y)


@pytest.mark.parametrize(("task", "k"), [(0, 0), (-1, 1)])
def test_one_task(task, k):
    expected = grouped_auc(Y[:, k], P[:, k], USERS)
    scorer = make_grouped_auc_scorer(task)
    assert scorer(estimator(), P, Y, groups=USERS) == expected
    assert (
        pickle.loads(pickle.dumps(scorer))(estimator(), P, Y, groups=USERS) == expected
    )


def test_the_mean_and_the_cvr():
    means = [grouped_auc(Y[:, k], P[:, k], USERS) for k in (0, 1)]
    found = make_grouped_auc_scorer("mean")(estimator(), P, Y, groups=USERS)
    assert found == pytest.approx(np.mean(means))
    clicked = Y[:, 0] == 1
    cvr = estimator().predict_cvr(P)
    expected = grouped_auc(Y[clicked, 1], cvr[clicked], USERS[clicked])
    found = make_grouped_auc_scorer("cvr")(estimator(), P, Y, groups=USERS)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_groups_from_a_column(library):
    frame = pd.DataFrame({"user": USERS, "x": P[:, 0]})
    model = LogisticRegression().fit(frame, Y[:, 0])
    table = frame if library == "pandas" else pl.from_pandas(frame)
    found = make_grouped_auc_scorer(0, groups="user")(model, table, Y[:, 0])
    score = model.predict_proba(frame)[:, 1]
    assert found == pytest.approx(grouped_auc(Y[:, 0], score, USERS))


def test_routing_in_a_search_beside_another_scorer():
    X = pd.DataFrame({"x": P[:, 0], "z": P[:, 1]})
    scorer = make_grouped_auc_scorer(0)
    with config_context(enable_metadata_routing=True):
        search = GridSearchCV(
            LogisticRegression(),
            {"C": [1.0]},
            cv=GroupKFold(3),
            scoring={"grouped": scorer, "plain": ctr_auc_scorer},
            refit=False,
        ).fit(X, Y[:, 0], groups=USERS)
    means = []
    for train, test in GroupKFold(3).split(X, Y[:, 0], USERS):
        model = LogisticRegression().fit(X.iloc[train], Y[train, 0])
        score = model.predict_proba(X.iloc[test])[:, 1]
        means.append(grouped_auc(Y[test, 0], score, USERS[test]))
    found = search.cv_results_["mean_test_grouped"][0]
    assert found == pytest.approx(np.mean(means))


def test_another_name_of_the_groups():
    scorer = make_grouped_auc_scorer(0)
    with pytest.raises(RuntimeError, match="enable_metadata_routing"):
        scorer.set_score_request(groups="users")
    with config_context(enable_metadata_routing=True):
        scorer.set_score_request(groups="users")
    assert scorer.get_metadata_routing().score.requests == {"groups": "users"}
    assert (
        make_grouped_auc_scorer(0, groups="a").get_metadata_routing().score.requests
        == {}
    )


def test_undefined():
    users = np.arange(N)
    with pytest.warns(UndefinedMetricWarning, match="task 0 has no group with both"):
        assert np.isnan(make_grouped_auc_scorer(0)(estimator(), P, Y, groups=users))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_grouped_auc_scorer(1.5), "task must be the index or the name"),
        (lambda: make_grouped_auc_scorer(0, groups=3), "name of a column of X; got 3"),
        (
            lambda: make_grouped_auc_scorer(0)(estimator(), P, Y),
            r"make_grouped_auc_scorer\(0\) needs groups",
        ),
        (
            lambda: make_grouped_auc_scorer(0)(estimator(), P, Y, groups=USERS[:9]),
            "groups must have one entry per row, 400; got 9",
        ),
        (
            lambda: make_grouped_auc_scorer(0)(
                estimator(), pd.DataFrame(P), Y, groups=pd.Series(USERS)[::-1]
            ),
            "X and groups have the same index labels in different orders",
        ),
        (
            lambda: make_grouped_auc_scorer(0, groups="u")(estimator(), P, Y),
            "groups='u' is not a column of X",
        ),
        (
            lambda: make_grouped_auc_scorer(0, groups="u")(
                estimator(), P, Y, groups=USERS
            ),
            "groups must be None",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()

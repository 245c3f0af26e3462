"""The AUC within groups, against the AUC of every group, and its scorer."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from fake_estimators import ReadsFeatures
from sklearn import config_context
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold

from sk_pwiser.metrics import ctr_auc_scorer, grouped_auc, make_grouped_auc_scorer


@pytest.mark.parametrize("decimals", [1, 6])  # with and without ties
@pytest.mark.parametrize("as_text", [False, True])
def test_mean_over_groups_of_both_classes(decimals, as_text):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 500)
    score = rng.normal(size=500).round(decimals)
    groups = rng.integers(0, 150, 500)
    aucs, sizes = [], []
    for group in np.unique(groups):
        rows = groups == group
        if len(np.unique(y[rows])) == 2:
            aucs.append(roc_auc_score(y[rows], score[rows]))
            sizes.append(rows.sum())
    assert len(aucs) < len(np.unique(groups))
    groups = groups.astype(str) if as_text else groups
    auc, share = grouped_auc(y, score, groups, return_share=True)
    assert auc == grouped_auc(y, score, groups)
    assert auc == pytest.approx(np.average(aucs, weights=sizes))
    assert share == pytest.approx(sum(sizes) / 500)


def test_no_group_of_both_classes():
    with pytest.warns(UndefinedMetricWarning, match="no group has both classes"):
        auc, share = grouped_auc([0, 0, 1], [1, 2, 3], [0, 0, 1], return_share=True)
    assert np.isnan(auc)
    assert share == 0.0


@pytest.mark.parametrize(
    ("y", "score", "groups", "message"),
    [
        ([0, 0.5], [1, 2], [0, 0], "y_true must be 0 or 1, got 0.5"),
        ([0, 1], [1, np.nan], [0, 0], "y_score must not be NaN; row 1 is"),
        ([0, 1], [1, 2], ["a", None], "groups must not be missing; 1 .* in row 1"),
        ([0, 1], [1, 2], [0, 0, 0], "inconsistent"),
        ([], [], [], "at least one row"),
    ],
)
def test_bad_input(y, score, groups, message):
    with pytest.raises(ValueError, match=message):
        grouped_auc(y, score, groups)


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
    ("params", "X", "groups", "message"),
    [
        ({"task": 1.5}, P, USERS, "task must be the index or the name"),
        ({"groups": 3}, P, None, "name of a column of X; got 3"),
        ({}, P, None, r"make_grouped_auc_scorer\(0\) needs groups"),
        ({}, P, USERS[:9], r"groups must have shape \(400,\); got \(9,"),
        (
            *({}, pd.DataFrame(P), pd.Series(USERS)[::-1]),
            "X and groups have the same index labels in different orders",
        ),
        ({"groups": "u"}, P, None, "groups is 'u', which is not a column of X"),
        ({"groups": "u"}, P, USERS, "groups must be None"),
    ],
)
def test_bad_input_of_the_scorer(params, X, groups, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make_grouped_auc_scorer(**{"task": 0, **params})(estimator(), X, Y, groups)

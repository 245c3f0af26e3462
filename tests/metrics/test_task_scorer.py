"""Scorers of a task, of the CVR and of the mean, alone and inside searches."""

import copy
import pickle
import threading
import time
import warnings
from collections import Counter
from functools import partial

import numpy as np
import pandas as pd
import pytest
from fake_estimators import Fixed, ReadsFeatures
from sklearn import config_context
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import UndefinedMetricWarning, UnsetMetadataPassedError
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    check_scoring,
    log_loss,
    roc_auc_score,
)
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score, cross_validate
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline, make_pipeline
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

AUC_SCORERS = (ctr_auc_scorer, ctcvr_auc_scorer, cvr_auc_scorer, mean_auc_scorer)
ALL_SCORERS = (*AUC_SCORERS, mean_log_loss_scorer)
FOUR_ROWS = np.array([[0, 0], [1, 0], [1, 1], [0, 0]])


def forest():
    return RandomForestClassifier(n_estimators=3, max_depth=3, random_state=0)


def pair_auc(y, score):
    above = score[y == 1][:, None] - score[y == 0][None, :]
    return np.mean((above > 0) + 0.5 * (above == 0))


def mean_log_loss(Y, P):
    P = P.astype(float)
    return -np.mean(Y * np.log(P) + (1 - Y) * np.log1p(-P))


@pytest.mark.parametrize("n_tasks", [2, 3])
def test_values_of_the_named_scorers(n_tasks):
    rng = np.random.default_rng(n_tasks)
    X = rng.uniform(0.05, 0.95, size=(80, n_tasks + 1))
    Y = rng.integers(0, 2, size=(80, n_tasks))
    model = ReadsFeatures().fit(X, Y)
    P = model.predict_proba(X)
    aucs = [pair_auc(Y[:, k], P[:, k]) for k in range(n_tasks)]
    first = Y[:, 0] == 1
    cvr = pair_auc(Y[first, -1], X[first, -1])
    expected = [aucs[0], aucs[-1], cvr, np.mean(aucs), -mean_log_loss(Y, P)]
    found = [scorer(model, X, Y) for scorer in ALL_SCORERS]
    assert found == pytest.approx(expected)
    assert {type(score) for score in found} == {float}
    for k in range(-n_tasks, n_tasks):
        scorer = make_task_scorer(roc_auc_score, np.int64(k))
        assert scorer(model, X, Y) == pytest.approx(aucs[k])
    for k in (n_tasks, -n_tasks - 1):
        with pytest.raises(ValueError, match=rf"index in \[-{n_tasks}, .* got {k}"):
            make_task_scorer(roc_auc_score, k)(model, X, Y)


def test_losses_are_negated_and_kwargs_reach_the_metric(data, model):
    X, Y = data
    P = model.predict_proba(X)
    brier = make_task_scorer(brier_score_loss, 1, greater_is_better=False)
    assert brier(model, X, Y) == pytest.approx(-np.mean((P[:, 1] - Y[:, 1]) ** 2))
    half = make_task_scorer(roc_auc_score, 0, max_fpr=0.5)
    expected = roc_auc_score(Y[:, 0], P[:, 0], max_fpr=0.5)
    assert half(model, X, Y) == pytest.approx(expected)


@pytest.mark.parametrize("constant", [0, 1])
def test_fitted_on_one_class(data, constant):
    X, Y = data
    seen = np.column_stack([Y[:, 0], np.full(len(Y), constant)])
    brier = make_task_scorer(brier_score_loss, -1)
    # The forest gives probability 1 to the only class it saw.
    expected = pytest.approx(np.mean((Y[:, 1] - constant) ** 2))
    two = make_pipeline(FunctionTransformer(), forest()).fit(X, seen)
    assert [p.shape[1] for p in two.predict_proba(X)] == [2, 1]
    assert brier(two, X, Y) == expected
    assert brier(forest().fit(X, seen[:, 1]), X, Y[:, 1]) == expected
    words = np.where(seen, "yes", "no")
    assert brier(forest().fit(X, words), X, Y) == expected


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_one_task(data, shape):
    X, Y = data
    y = Y[:, 0]
    one = forest().fit(X, y)
    P = one.predict_proba(X)
    expected = pytest.approx(roc_auc_score(y, P[:, 1]))
    for scorer in (ctr_auc_scorer, ctcvr_auc_scorer, mean_auc_scorer):
        assert scorer(one, X, y.reshape(shape)) == expected
        # A single column is the probability of the event.
        assert scorer(Fixed(P[:, 1:]), X, y.reshape(shape)) == expected
    loss = pytest.approx(-log_loss(y, P))
    assert mean_log_loss_scorer(one, X, y.reshape(shape)) == loss
    with pytest.raises(ValueError, match="task='cvr' must have at least two tasks"):
        cvr_auc_scorer(one, X, y.reshape(shape))


@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 2), (3, 2), (4,), [(4, 3)] * 2])
def test_other_shapes_of_predict_proba_raise(shape):
    proba = np.full(shape, 0.5) if isinstance(shape, tuple) else [*map(np.ones, shape)]
    with pytest.raises(ValueError, match=r"predict_proba must return .* 2 tasks of Y"):
        ctr_auc_scorer(Fixed(proba), FOUR_ROWS, FOUR_ROWS)


def test_cvr_through_pipelines_and_searches(data, model):
    X, Y = data
    flip = FunctionTransformer(np.fliplr)  # else the model reads wrong columns
    flipped = make_pipeline(flip, ReadsFeatures())
    grid = {"readsfeatures__power": [1.0]}
    search = GridSearchCV(flipped, grid, scoring=cvr_auc_scorer, cv=2)
    expected = pytest.approx(cvr_auc_scorer(model, X, Y))
    for estimator, features in [
        (flipped, X[:, ::-1]),
        (search, X[:, ::-1]),
        (make_pipeline(flip, flipped), X),
        (make_pipeline(flip, search), X),
        (Pipeline([("model", ReadsFeatures())]), X),
        (Pipeline([("skip", "passthrough"), ("model", ReadsFeatures())]), X),
    ]:
        estimator.fit(features, Y)
        assert cvr_auc_scorer(estimator, features, Y) == expected


def test_cvr_as_a_ratio_and_cvr_of_a_wrong_shape():
    #                  0/0 -> 0    .2/0 -> 1  .4/.2 -> 1  .1/.4 -> .25
    proba = np.array([[0.0, 0.0], [0.0, 0.2], [0.2, 0.4], [0.4, 0.1]])
    Y = np.array([[1, 0], [1, 1], [1, 0], [1, 1]])
    scorer = make_task_scorer(brier_score_loss, "cvr")
    expected = np.mean([0.0, 0.0, 1.0, 0.75**2])
    assert scorer(Fixed(proba), Y, Y) == pytest.approx(expected)
    for shape, match in ((7, "inconsistent"), ((4, 2), "1d")):
        with pytest.raises(ValueError, match=match):
            scorer(Fixed(proba, cvr=np.ones(shape)), Y, Y)


@pytest.mark.parametrize(
    ("metric", "task", "match"),
    [
        ("roc_auc", 0, "metric must be callable, got 'roc_auc'"),
        (roc_auc_score, True, r"task must .* got True of type bool"),
        (roc_auc_score, 0.5, r"task must .* got 0\.5 of type float"),
    ],
)
def test_make_task_scorer_raises(metric, task, match):
    with pytest.raises(TypeError, match=match):
        make_task_scorer(metric, task)


@pytest.mark.parametrize("task", ["cvr", "mean"])
def test_a_name_with_two_meanings_is_refused(task):
    Y = pd.DataFrame(FOUR_ROWS, columns=["click", task])
    model = Fixed(np.full((4, 2), 0.5))
    with pytest.raises(ValueError, match=f"task='{task}' is ambiguous.* its index"):
        make_task_scorer(roc_auc_score, task)(model, np.zeros((4, 1)), Y)
    assert make_task_scorer(roc_auc_score, -1)(model, np.zeros((4, 1)), Y) == 0.5


def named(name):
    return make_task_scorer(roc_auc_score, name)


def test_names_from_pandas(data, model):
    X, Y = data
    frame = pd.DataFrame(Y, columns=["click", "name"])
    assert named("click")(model, X, frame) == ctr_auc_scorer(model, X, Y)
    assert named("name")(model, X, frame) == ctcvr_auc_scorer(model, X, Y)
    nullable = frame.astype({"click": "boolean", "name": "Int64"})
    assert mean_auc_scorer(model, X, nullable) == mean_auc_scorer(model, X, Y)
    with pytest.raises(ValueError, match=r"one of \['click', 'name'\].*got 'buy'"):
        named("buy")(model, X, frame)
    with pytest.raises(ValueError, match="column 'name' of Y contains 3"):
        ctr_auc_scorer(model, X, frame * [1, 3])
    model_1d, y = GaussianNB().fit(X, Y[:, 1]), frame["name"]
    assert named("name")(model_1d, X, y) == ctr_auc_scorer(model_1d, X, Y[:, 1])
    with pytest.raises(ValueError, match="task must be an index in"):
        named("name")(model_1d, X, y.rename(None))


def test_names_from_arrow_tables_and_queries(data):
    pl, pa = pytest.importorskip("polars"), pytest.importorskip("pyarrow")
    X, Y = data
    model = ReadsFeatures(names=("view", "order")).fit(X, Y)
    table = pa.table({"view": Y[:, 0], "order": Y[:, 1]})
    expected = ctcvr_auc_scorer(model, X, Y)
    for labels in (table, pl.from_arrow(table).lazy()):
        assert named("order")(model, X, labels) == expected
    with pytest.raises(ValueError, match=r"must be in the order .*'view', 'order'"):
        mean_auc_scorer(model, X, table.select(["order", "view"]))


def test_names_from_the_estimator(data):
    X, Y = data
    model = ReadsFeatures(names=("click", "buy"))
    nested = make_pipeline(FunctionTransformer(), model)
    grid = {"readsfeatures__power": [1.0]}
    search = GridSearchCV(nested, grid, scoring=ctr_auc_scorer, cv=2)
    for estimator in (model, nested, search, Pipeline([("all", search)])):
        estimator.fit(X, Y)
        assert named("buy")(estimator, X, Y) == ctcvr_auc_scorer(model, X, Y)
        with pytest.raises(ValueError, match=r"one of \['click', 'buy'\].*'view'"):
            named("view")(estimator, X, Y)
    with pytest.raises(ValueError, match=r"Y must have the 2 tasks .* got 1"):
        ctr_auc_scorer(model, X, Y[:, 0])
    with pytest.raises(ValueError, match=r"task must be an index in .* got 'buy'"):
        named("buy")(ReadsFeatures().fit(X, Y), X, Y)


def test_names_of_both(data):
    X, Y = data
    model = ReadsFeatures(names=("click", "conversion")).fit(X, Y)
    frame = pd.DataFrame(Y, columns=["clicked", "bought"])
    for name in ("bought", "conversion"):
        assert named(name)(model, X, frame) == ctcvr_auc_scorer(model, X, Y)
    with pytest.raises(ValueError, match=r"'bought'\] or \['click', 'conversion'\]"):
        named("view")(model, X, frame)
    frame.columns = ["conversion", "click"]
    with pytest.raises(ValueError, match=r"in the order .*\['click', 'conversion'\]"):
        mean_auc_scorer(model, X, frame)


def always_undefined(y_true, y_pred):
    warnings.warn("no", UndefinedMetricWarning, stacklevel=1)
    return 0.25


def assert_undefined(scorer, *args, match, **kwargs):
    """Assert NaN and one warning, with its category, text and place."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert np.isnan(scorer(*args, **kwargs))
    assert [w.category for w in caught] == [UndefinedMetricWarning]
    assert match in str(caught[0].message)
    assert caught[0].filename == __file__


def test_one_class_is_nan_with_one_warning(data, model):
    X, Y = data
    none = Y * [1, 0]
    text = "task 1 has only class 0 in its 200 rows"
    assert_undefined(ctcvr_auc_scorer, model, X, none, match=text)
    assert_undefined(mean_auc_scorer, model, X, none, match=text)
    assert_undefined(cvr_auc_scorer, model, X, none, match="the CVR has only class 0")
    assert_undefined(ctr_auc_scorer, model, X, Y * 0 + 1, match="task 0 has only class")
    both = "task 0 has only class 0 in its 200 rows; task 1 has only class 0"
    assert_undefined(mean_auc_scorer, model, X, Y * 0, match=both)
    named_model = ReadsFeatures(names=("click", "buy")).fit(X, Y)
    text = "task 1 ('buy') has only class 0"
    assert_undefined(mean_auc_scorer, named_model, X, none, match=text)
    assert ctr_auc_scorer(model, X, none) == ctr_auc_scorer(model, X, Y)
    text = "the CVR has no rows to score"
    for scorer in (cvr_auc_scorer, make_task_scorer(log_loss, "cvr", labels=[0, 1])):
        assert_undefined(scorer, model, X, Y * [0, 1], match=text)


def test_other_undefined_metrics_are_nan(data, model):
    X, Y = data
    for metric in (average_precision_score, partial(roc_auc_score), always_undefined):
        scorer = make_task_scorer(metric, 0)
        assert_undefined(scorer, model, X, Y * 0, match="only class 0")
        assert_undefined(scorer, model, X, Y * 0 + 1, match="only class 1")
    # With both classes a metric keeps its number and its own warning.
    with pytest.warns(UndefinedMetricWarning, match="^no$"):
        assert make_task_scorer(always_undefined, 0)(model, X, Y) == 0.25


def slower_for_the_second(y_true, y_pred):
    time.sleep(0.3 if threading.current_thread().name == "second" else 0.1)
    return 1.0


def test_threads_leave_the_filters_of_warnings_as_they_were(data):
    X, Y = data
    scorer, model = make_task_scorer(slower_for_the_second, 0), forest().fit(X, Y)
    args = model, X, np.zeros_like(Y)
    before = list(warnings.filters)
    names = "first", "second"
    threads = [threading.Thread(target=scorer, args=args, name=name) for name in names]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    assert warnings.filters == before


def test_metrics_defined_with_one_class_are_scored(data, model):
    X, Y = data
    P = model.predict_proba(X)
    brier = make_task_scorer(brier_score_loss, 1)
    assert brier(model, X, Y * 0) == pytest.approx(np.mean(P[:, 1] ** 2))
    for labels in (Y * 0, Y * 0 + 1, Y * [0, 1]):
        # The mean over tasks and rows of the log of the probability of the label.
        P_label = np.where(labels == 1, P, 1 - P.astype(float))
        expected = pytest.approx(np.log(P_label).mean())
        assert mean_log_loss_scorer(model, X, labels) == expected


def test_integer_weights_equal_repeated_rows(data, model):
    X, Y = data
    weight = np.random.default_rng(2).integers(0, 4, size=len(Y))
    repeated = np.repeat(X, weight, axis=0), np.repeat(Y, weight, axis=0)
    for scorer in ALL_SCORERS:
        weighted = scorer(model, X, Y, sample_weight=weight)
        assert weighted == pytest.approx(scorer(model, *repeated))
        assert weighted != pytest.approx(scorer(model, X, Y), rel=1e-4)
        assert scorer(model, X, Y, weight.tolist()) == weighted


def test_zero_weights_and_weights_of_a_metric_without(data, model):
    X, Y = data
    weights = {"sample_weight": 1 - Y[:, 1]}
    for scorer in (ctcvr_auc_scorer, cvr_auc_scorer, mean_auc_scorer):
        assert_undefined(scorer, model, X, Y, match="only class 0", **weights)
    weights = {"sample_weight": np.zeros(len(Y))}
    assert_undefined(ctr_auc_scorer, model, X, Y, match="no rows to score", **weights)
    wrong = np.c_[np.ones(200), -np.ones(200)]
    with pytest.raises(ValueError, match=r"it is -1\.0 in row 0 for task 1"):
        ctr_auc_scorer(model, *data, sample_weight=wrong)
    with pytest.raises(TypeError, match=r"undefined, 0\) takes no sample_weight"):
        make_task_scorer(always_undefined, 0)(model, X, Y, sample_weight=np.ones(200))


# Inside scikit-learn's searches and cross-validation, with routing.

SCORERS = {
    "ctr": ctr_auc_scorer,
    "ctcvr": ctcvr_auc_scorer,
    "cvr": cvr_auc_scorer,
    "mean": mean_auc_scorer,
    "log_loss": mean_log_loss_scorer,
}


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
        assert scorer.get_metadata_routing().score.requests == {"sample_weight": None}
        scorer.set_score_request(sample_weight=True)
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


@pytest.mark.parametrize("steps", [[], [FunctionTransformer()]])
@pytest.mark.parametrize("n_splits_scored", [1, 2])
def test_four_scorers_predict_once_per_fold_and_split(data, steps, n_splits_scored):
    X, Y = data
    train_too = n_splits_scored == 2
    model = make_pipeline(*steps, Counting()) if steps else Counting()
    scores = cross_validate(
        model, X, Y, scoring=FOUR, cv=CV, return_train_score=train_too
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

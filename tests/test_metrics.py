"""Scorers of tasks, against scikit-learn's metrics on columns cut by hand."""

import warnings
from functools import partial

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    f1_score,
    log_loss,
    recall_score,
    roc_auc_score,
)
from sklearn.model_selection import GridSearchCV
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

AUC_SCORERS = (ctr_auc_scorer, ctcvr_auc_scorer, cvr_auc_scorer, mean_auc_scorer)
ALL_SCORERS = (*AUC_SCORERS, mean_log_loss_scorer)
FOUR_ROWS = np.array([[0, 0], [1, 0], [1, 1], [0, 0]])


class ReadsFeatures(ClassifierMixin, BaseEstimator):
    """Its probabilities are its first columns, its CVR is its last column."""

    def __init__(self, power=1.0, names=None):
        self.power = power
        self.names = names

    def fit(self, X, Y):
        self.n_tasks_ = np.asarray(Y).shape[1]
        self.classes_ = np.tile([0, 1], (self.n_tasks_, 1))
        if self.names is not None:
            self.task_names_ = list(self.names)
        return self

    def predict_proba(self, X):
        return np.asarray(X)[:, : self.n_tasks_].astype(np.float32) ** self.power

    def predict(self, X):
        return (self.predict_proba(X) > 0.5).astype(int)

    def predict_cvr(self, X):
        return np.asarray(X)[:, -1]


class Fixed:
    """Returns what it was given, whatever the form."""

    def __init__(self, proba, cvr=None):
        self.predict = self.predict_proba = lambda X: proba
        if cvr is not None:
            self.predict_cvr = lambda X: cvr


def says_undefined(y_true, y_pred):
    warnings.warn("no", UndefinedMetricWarning, stacklevel=1)
    return 0.25


def small_forest():
    return RandomForestClassifier(n_estimators=5, max_depth=3, random_state=0)


def named(name):
    return make_task_scorer(roc_auc_score, name)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = rng.uniform(0.05, 0.95, size=(200, 3))
    click = rng.random(200) < X[:, 0]
    Y = np.column_stack([click, click & (rng.random(200) < 0.6)]).astype(int)
    return X, Y


@pytest.fixture
def model(data):
    return ReadsFeatures().fit(*data)


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


def test_mean_log_loss_has_the_scale_of_one_task_and_counts_non_events():
    one, none = np.full((4, 1), 0.25), np.zeros((4, 1), dtype=int)
    for n_tasks in (1, 2, 3):
        model = Fixed(np.tile(one, n_tasks))
        score = mean_log_loss_scorer(model, one, np.tile(none, n_tasks))
        assert score == pytest.approx(np.log(0.75))


def test_loss_is_negated_and_kwargs_arrive(data, model):
    X, Y = data
    P = model.predict_proba(X)
    brier = make_task_scorer(brier_score_loss, 1, greater_is_better=False)
    assert brier(model, X, Y) == pytest.approx(-np.mean((P[:, 1] - Y[:, 1]) ** 2))
    of_zeros = make_task_scorer(f1_score, 0, pos_label=0, response_method="predict")
    expected = f1_score(1 - Y[:, 0], 1 - model.predict(X)[:, 0])
    assert of_zeros(model, X, Y) == pytest.approx(expected)


def test_predicted_labels(data, model):
    X, Y = data
    predicted = model.predict(X)
    expected = [f1_score(Y[:, k], predicted[:, k]) for k in range(2)]
    mean = make_task_scorer(f1_score, "mean", response_method="predict")
    assert mean(model, X, Y) == pytest.approx(np.mean(expected))
    last = make_task_scorer(f1_score, -1, response_method="predict")
    assert last(model, X, Y) == pytest.approx(expected[1])
    one = small_forest().fit(X, Y[:, 0])
    assert last(one, X, Y[:, 0]) == pytest.approx(f1_score(Y[:, 0], one.predict(X)))
    with pytest.raises(ValueError, match=r"predict must return shape \(4, 2\)"):
        last(Fixed(np.zeros((4, 3))), FOUR_ROWS, FOUR_ROWS)


def test_list_of_arrays(data):
    X, Y = data
    forest = small_forest().fit(X, Y)
    clicked = Y[:, 0] == 1
    click, buy = (block[:, 1] for block in forest.predict_proba(X))
    aucs = roc_auc_score(Y[:, 0], click), roc_auc_score(Y[:, 1], buy)
    cvr = roc_auc_score(Y[clicked, 1], (buy[clicked] / click[clicked]).clip(0, 1))
    expected = [*aucs, cvr, np.mean(aucs)]
    assert [s(forest, X, Y) for s in AUC_SCORERS] == pytest.approx(expected)


@pytest.mark.parametrize("constant", [0, 1])
def test_fitted_on_one_class(data, constant):
    X, Y = data
    seen = np.column_stack([Y[:, 0], np.full(len(Y), constant)])
    brier = make_task_scorer(brier_score_loss, -1)
    # The forest gives probability 1 to the only class it saw.
    expected = pytest.approx(np.mean((Y[:, 1] - constant) ** 2))
    two = make_pipeline(FunctionTransformer(), small_forest()).fit(X, seen)
    assert [p.shape[1] for p in two.predict_proba(X)] == [2, 1]
    assert brier(two, X, Y) == expected
    assert brier(small_forest().fit(X, seen[:, 1]), X, Y[:, 1]) == expected


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_one_task(data, shape):
    X, Y = data
    y = Y[:, 0]
    forest = small_forest().fit(X, y)
    P = forest.predict_proba(X)
    expected = pytest.approx(roc_auc_score(y, P[:, 1]))
    for scorer in (ctr_auc_scorer, ctcvr_auc_scorer, mean_auc_scorer):
        assert scorer(forest, X, y.reshape(shape)) == expected
        # A single column is the probability of the event.
        assert scorer(Fixed(P[:, 1:]), X, y.reshape(shape)) == expected
    loss = pytest.approx(-log_loss(y, P))
    assert mean_log_loss_scorer(forest, X, y.reshape(shape)) == loss
    with pytest.raises(ValueError, match="task='cvr' must have at least two tasks"):
        cvr_auc_scorer(forest, X, y.reshape(shape))


@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 2), (3, 2), (4,), [(4, 3)] * 2])
def test_other_forms_are_refused(shape):
    proba = np.full(shape, 0.5) if isinstance(shape, tuple) else [*map(np.ones, shape)]
    with pytest.raises(ValueError, match=r"predict_proba must return .* 2 tasks of Y"):
        ctr_auc_scorer(Fixed(proba), FOUR_ROWS, FOUR_ROWS)


def test_names_from_pandas(data, model):
    pd = pytest.importorskip("pandas")
    X, Y = data
    frame = pd.DataFrame(Y, columns=["click", "name"])
    assert named("click")(model, X, frame) == ctr_auc_scorer(model, X, Y)
    assert named("name")(model, X, frame) == ctcvr_auc_scorer(model, X, Y)
    nullable = frame.astype({"click": "boolean", "name": "Int64"})
    assert mean_auc_scorer(model, X, nullable) == mean_auc_scorer(model, X, Y)
    with pytest.raises(ValueError, match=r"one of \['click', 'name'\].*got 'buy'"):
        named("buy")(model, X, frame)
    with pytest.raises(ValueError, match="column 'name' has 3"):
        ctr_auc_scorer(model, X, frame * [1, 3])
    one, y = small_forest().fit(X, Y[:, 1]), frame["name"]
    assert named("name")(one, X, y) == ctr_auc_scorer(one, X, Y[:, 1])
    with pytest.raises(ValueError, match="task must be an index where"):
        named("name")(one, X, y.rename(None))


def test_names_from_polars(data, model):
    pl = pytest.importorskip("polars")
    X, Y = data
    frame = pl.DataFrame({"click": Y[:, 0] == 1, "buy": Y[:, 1]})
    assert named("buy")(model, X, frame) == ctcvr_auc_scorer(model, X, Y)
    assert cvr_auc_scorer(model, X, frame) == cvr_auc_scorer(model, X, Y)


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
    with pytest.raises(ValueError, match=r"task must be an index where .* got 'buy'"):
        named("buy")(ReadsFeatures().fit(X, Y), X, Y)


def test_names_of_both(data):
    pd = pytest.importorskip("pandas")
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


def test_cvr_through_pipelines_and_searches(data, model):
    X, Y = data
    flip = FunctionTransformer(np.fliplr)  # without it the wrong columns are read
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


def test_cvr_as_a_ratio_and_of_another_shape():
    #                  0/0 -> 0    .2/0 -> 1  .4/.2 -> 1  .1/.4 -> .25
    proba = np.array([[0.0, 0.0], [0.0, 0.2], [0.2, 0.4], [0.4, 0.1]])
    Y = np.array([[1, 0], [1, 1], [1, 0], [1, 1]])
    scorer = make_task_scorer(brier_score_loss, "cvr")
    expected = np.mean([0.0, 0.0, 1.0, 0.75**2])
    assert scorer(Fixed(proba), Y, Y) == pytest.approx(expected)
    for shape, match in ((7, "inconsistent"), ((4, 2), "1d")):
        with pytest.raises(ValueError, match=match):
            scorer(Fixed(proba, cvr=np.ones(shape)), Y, Y)


def assert_undefined(scorer, *args, match, **kwargs):
    """Assert NaN and exactly one warning, of the right sort and place."""
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


def test_other_metrics_invent_no_number(data, model):
    X, Y = data
    for metric in (average_precision_score, partial(roc_auc_score), says_undefined):
        scorer = make_task_scorer(metric, 0)
        assert_undefined(scorer, model, X, Y * 0, match="only class 0")
        assert_undefined(scorer, model, X, Y * 0 + 1, match="only class 1")
    recall = make_task_scorer(recall_score, 1, response_method="predict")
    assert_undefined(recall, model, X, Y * 0, match="only class 0")
    # With both classes a metric keeps its number and its own warning.
    with pytest.warns(UndefinedMetricWarning, match="^no$"):
        assert make_task_scorer(says_undefined, 0)(model, X, Y) == 0.25


def test_metrics_defined_with_one_class_are_scored(data, model):
    X, Y = data
    P = model.predict_proba(X)
    brier = make_task_scorer(brier_score_loss, 1)
    assert brier(model, X, Y * 0) == pytest.approx(np.mean(P[:, 1] ** 2))
    for labels in (Y * 0, Y * 0 + 1, Y * [0, 1]):
        expected = pytest.approx(-mean_log_loss(labels, P))
        assert mean_log_loss_scorer(model, X, labels) == expected


def test_whole_weights_mean_repeated_rows(data, model):
    X, Y = data
    weight = np.random.default_rng(2).integers(0, 4, size=len(Y))
    repeated = np.repeat(X, weight, axis=0), np.repeat(Y, weight, axis=0)
    for scorer in ALL_SCORERS:
        weighted = scorer(model, X, Y, sample_weight=weight)
        assert weighted == pytest.approx(scorer(model, *repeated))
        assert weighted != pytest.approx(scorer(model, X, Y), rel=1e-4)
        assert scorer(model, X, Y, weight.tolist()) == weighted


def test_weights_that_are_zero_or_refused(data, model):
    X, Y = data
    weights = {"sample_weight": 1 - Y[:, 1]}
    for scorer in (ctcvr_auc_scorer, cvr_auc_scorer, mean_auc_scorer):
        assert_undefined(scorer, model, X, Y, match="only class 0", **weights)
    weights = {"sample_weight": np.zeros(len(Y))}
    assert_undefined(ctr_auc_scorer, model, X, Y, match="no rows to score", **weights)
    for shape, match in ((3, "inconsistent numbers of samples"), ((200, 2), "1d")):
        with pytest.raises(ValueError, match=match):
            ctr_auc_scorer(model, *data, sample_weight=np.ones(shape))
    with pytest.raises(TypeError, match=r"undefined, 0\) takes no sample_weight"):
        make_task_scorer(says_undefined, 0)(model, X, Y, sample_weight=np.ones(200))


@pytest.mark.parametrize(
    ("metric", "task", "method", "error", "match"),
    [
        ("roc_auc", 0, "predict", TypeError, "metric must be callable, got 'roc_auc'"),
        (f1_score, True, "predict", TypeError, r"task must .* got True of type bool"),
        (f1_score, 0.5, "predict", TypeError, r"task must .* got 0\.5 of type float"),
        (f1_score, 0, "logit", ValueError, r"response_method must .* got 'logit'"),
        (f1_score, "cvr", "predict", ValueError, "response_method must .*task='cvr'"),
    ],
)
def test_make_task_scorer_refusals(metric, task, method, error, match):
    with pytest.raises(error, match=match):
        make_task_scorer(metric, task, response_method=method)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ([[0, 2], [1, 0]], "Y must hold 0 and 1 only, but column 1 has 2"),
        ([-1, 1], "Y must hold 0 and 1 only, but column 0 has -1"),
        ([[0.0, np.nan], [1, 0]], "Input Y contains NaN"),
        (["no", "yes"], "dtype='numeric'"),
    ],
)
def test_bad_labels(bad, match):
    with pytest.raises(ValueError, match=match):
        ctr_auc_scorer(Fixed(np.full((2, 2), 0.5)), np.zeros((2, 1)), bad)

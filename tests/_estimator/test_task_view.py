"""One task as a binary classifier: its values, and the tools that take it."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit
from sklearn.base import clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV, CalibrationDisplay
from sklearn.ensemble import RandomForestClassifier, StackingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import partial_dependence
from sklearn.metrics import RocCurveDisplay, roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted
from small_model import small

from sk_pwiser import TaskView
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.metrics import ctr_auc_scorer

DATA = make_ctr_cvr(600, ctr=0.5, cvr=0.5, random_state=0)
X, Y = DATA.data, DATA.target
CONVERSION = Y["conversion"]
CHANGED = CONVERSION.copy()
CHANGED.iloc[[4, 9]] = 1 - CHANGED.iloc[[4, 9]]


@pytest.fixture(scope="module")
def model(_estimators_on_device):
    return small().fit(X, Y)


@pytest.fixture
def view(model):
    return model.task("conversion")


@pytest.mark.parametrize(
    ("task", "column"), [("click", 0), ("conversion", 1), (0, 0), (-1, 1), (1, 1)]
)
def test_values_are_those_of_the_column(model, task, column):
    view = model.task(task)
    positive = model.predict_proba(X)[:, column].astype(np.float64)
    assert view.predict_proba(X).dtype == np.float64
    assert_array_equal(view.predict_proba(X), np.column_stack([1 - positive, positive]))
    assert_allclose(expit(view.decision_function(X)), positive, rtol=1e-5)
    assert_array_equal(view.predict(X), model.predict(X)[:, column])
    assert_array_equal(view.predict(X), view.decision_function(X) >= 0)
    assert_array_equal(view.classes_, [0, 1])
    expected = roc_auc_score(Y.iloc[:, column], positive)
    assert view.score(X, Y) == view.score(X, Y.iloc[:, column]) == expected


@pytest.mark.parametrize("task", ["click", "cvr"])
def test_scorers_of_all_tasks_do_not_take_both_classes_for_tasks(model, task):
    with pytest.raises(ValueError, match=r"1 tasks .* \['\w+'\], got 2"):
        ctr_auc_scorer(model.task(task), X, Y)


def test_cvr(model):
    view, cvr = model.task("cvr"), model.predict_cvr(X)
    assert_array_equal(view.predict_proba(X)[:, 1], cvr)
    assert_allclose(expit(view.decision_function(X)), cvr, rtol=1e-6)
    clicked = (Y["click"] == 1).to_numpy()
    expected = roc_auc_score(CONVERSION[clicked], cvr[clicked])
    assert view.score(X, Y) == expected
    assert view.score(X[clicked], CONVERSION[clicked]) == expected


def test_it_is_an_ordinary_fitted_classifier(view, model):
    check_is_fitted(view)
    assert is_classifier(view)
    assert view.n_features_in_ == X.shape[1]
    assert_array_equal(view.feature_names_in_, X.columns)
    tags = get_tags(view)
    assert tags.classifier_tags.multi_label is False
    assert tags.classifier_tags.multi_class is False
    assert tags.target_tags.multi_output is False
    assert tags.input_tags.allow_nan is True
    assert tags.input_tags.categorical is tags.input_tags.string is True
    copy = pickle.loads(pickle.dumps(view))
    assert_array_equal(copy.predict_proba(X), view.predict_proba(X))
    assert not hasattr(small().fit(X.to_numpy(float), Y).task(0), "feature_names_in_")


def test_a_single_task_keeps_its_labels():
    labels = np.where(Y["click"], "yes", "no")
    model = small().fit(X, labels)
    view = model.task(0)
    assert_array_equal(view.classes_, ["no", "yes"])
    assert_array_equal(view.predict_proba(X)[:, 1], model.predict_proba(X)[:, 1])
    assert_array_equal(view.decision_function(X), model.predict_logits(X))
    assert_array_equal(view.predict(X), model.predict(X))
    assert view.score(X, labels) == model.score(X, labels)
    with pytest.raises(ValueError, match=r"\['task_0'\], an index in \[-1, 1\); got"):
        model.task("cvr")


def test_no_task_is_taken_for_the_cvr():
    named = Y.set_axis(["ctr", "cvr"], axis=1)
    message = r"name 'cvr': task='cvr' means P\(last task \| first task\).*'conversion'"
    for unfitted in (small(), small().task("cvr")):
        with pytest.raises(ValueError, match=message):
            unfitted.fit(X, named)
    renamed = small(task_names=["ctr", "sale"]).fit(X, named)
    assert renamed.task("sale").score(X, Y) == renamed.task(1).score(X, named)
    alone = small().fit(X, named["cvr"])
    found = alone.task("cvr").predict_proba(X)
    assert_array_equal(found[:, 1], alone.predict_proba(X)[:, 1])
    forest = RandomForestClassifier(10, random_state=0).fit(X, named)
    calibrator = FunnelCalibrator(FrozenEstimator(forest), cv=None).fit(X, named)
    with pytest.raises(ValueError, match=message):
        TaskView(calibrator, "cvr").predict_proba(X)


@pytest.mark.parametrize("task", ["sale", "mean", 2, -3])
def test_an_unknown_task_lists_the_names(model, task):
    message = (
        r"one of \['click', 'conversion'\], an index in \[-2, 2\), or 'cvr'; got "
        f"{task!r}"
    )
    with pytest.raises(ValueError, match=message):
        model.task(task)
    with pytest.raises(ValueError, match=message):
        small().task(task).fit(X, Y)


@pytest.mark.parametrize("task", [1.0, True, None])
def test_a_task_is_an_index_or_a_name(task):
    with pytest.raises(TypeError, match="index or the name of a task"):
        small().task(task)


def test_a_view_of_a_fitted_estimator_cannot_be_fitted(model, view):
    before = model.predict_proba(X)
    for labels in (CONVERSION, Y):
        with pytest.raises(ValueError, match="Fit the MultiTaskCTRCVRClassifier on"):
            view.fit(X, labels)
    assert_array_equal(view.predict_proba(X)[:, 1], before[:, 1])


def test_an_unfitted_view_says_so_and_follows_its_estimator():
    estimator = small()
    view = estimator.task("conversion")
    assert not hasattr(view, "classes_")
    assert not hasattr(view, "n_features_in_")
    with pytest.raises(NotFittedError):
        view.predict_proba(X)
    with pytest.raises(NotFittedError):
        view.score(X, Y)
    estimator.fit(X, Y)
    assert_array_equal(view.predict_proba(X)[:, 1], estimator.predict_proba(X)[:, 1])


@pytest.mark.parametrize(
    "make", [lambda m: small().task(1), lambda m: clone(m.task(1))]
)
@pytest.mark.parametrize("form", ["all labels", "one column"])
def test_fit_trains_a_clone_on_all_tasks(model, make, form):
    view = make(model)
    estimator = view.estimator
    if form == "all labels":
        fitted = view.fit(X, Y)
    else:
        fitted = view.fit(X, CONVERSION, tasks=Y)
    assert fitted is view
    assert not hasattr(estimator, "classes_")
    expected = model.predict_proba(X)[:, 1]
    assert_array_equal(view.predict_proba(X)[:, 1], expected)
    assert view.predict_proba(X).dtype == np.float64
    view.fit(X[:300], Y[:300])  # once more
    assert (view.predict_proba(X)[:, 1] != expected).any()


@pytest.mark.parametrize(
    ("y", "tasks", "message"),
    [
        (CONVERSION, None, r"labels of all tasks.*cross_val_score\(view, X, y, params"),
        (Y["click"], Y, "y must be the column 'conversion' of tasks"),
        (
            CONVERSION[:-1],
            Y,
            r"y must be the column 'conversion' of tasks.* shape \(599,\) and tasks "
            r"\(600, 2\): pass y=Y",
        ),
        (CHANGED, Y, "task 'conversion'; row 4 is 1 in y and 0 in tasks: pass y=Y"),
        (CONVERSION[::-1], Y, "tasks and y have the same index labels in different"),
        (CONVERSION, CONVERSION, r"tasks must be of shape .*; got \(600,\)"),
    ],
)
def test_labels_of_the_other_tasks_are_required(y, tasks, message):
    with pytest.raises(ValueError, match=message):
        small().task("conversion").fit(X, y, tasks=tasks)


def test_the_only_task_is_fitted_with_its_labels():
    words = np.where(Y["click"], "yes", "no")
    expected = small().fit(X, words).predict_proba(X)
    for view in (
        small().task(0),
        small(task_names=["buy"]).task("buy"),
        clone(small(task_names=["buy"]).task(-1)),
        TaskView(FunnelCalibrator(small(task_names=["buy"]), cv=2), "buy"),
    ):
        found = view.fit(X, words)
        assert_array_equal(found.classes_, ["no", "yes"])
        if not isinstance(view.estimator, FunnelCalibrator):
            assert_array_equal(found.predict_proba(X)[:, 1], expected[:, 1])
    for view in (small().task("click"), small().task(-1), small().task("cvr")):
        with pytest.raises(ValueError, match="labels of all tasks"):
            view.fit(X, Y["click"])


def test_labels_of_all_rows_are_none_of_the_cvr():
    view = small().task("cvr")
    rest = int((Y["click"] == 0).sum())
    message = (
        f"a rate among rows with 'click', but y has {rest} others.* without "
        "'conversion'. Pass y=Y"
    )
    with pytest.warns(UserWarning, match=message):
        view.fit(X, CONVERSION, tasks=Y)
    expected = view.predict_proba(X)
    assert_array_equal(view.fit(X, Y).predict_proba(X), expected)  # without a warning
    siblings = small(task_parents=None).task("cvr")
    siblings.fit(X, CONVERSION, tasks=Y)  # there is no first task


def test_names_of_tasks_in_an_estimator_of_the_calibrator():
    named = small(task_names=["seen", "sold"])
    calibrated = FunnelCalibrator(named, method="sigmoid", cv=2).task("sold")
    calibrated.fit(X, CONVERSION.to_numpy(), tasks=Y.to_numpy())
    assert calibrated.score(X, Y) > 0.5


def test_labels_of_the_task_may_be_words(model):
    words = Y.replace({0: "NO", 1: "YES"})
    view = small().task("conversion").fit(X, CONVERSION, tasks=words)
    with pytest.raises(ValueError, match="row 0 is 'NO' in y and 0 in tasks"):
        small().task("conversion").fit(X, words["conversion"], tasks=words)
    assert_array_equal(view.predict_proba(X)[:, 1], model.predict_proba(X)[:, 1])
    assert_array_equal(view.classes_, [0, 1])
    calibrated = FunnelCalibrator(model, method="sigmoid")
    expected = calibrated.fit(X, Y).predict_proba(X)
    assert_array_equal(calibrated.fit(X, words).predict_proba(X), expected)
    assert_array_equal(calibrated.classes_, [[0, 1]] * 2)
    assert view.score(X, words) == view.score(X, Y)
    with pytest.warns(UserWarning, match="a rate among rows with 'click'"):
        small().task("cvr").fit(X, CONVERSION, tasks=words)


def test_labels_of_the_task_may_be_nullable():
    labels = Y.astype("Int64")
    labels.loc[labels.index[3], "conversion"] = None
    view = small(missing_labels="ignore").task("conversion")
    view.fit(X, labels["conversion"], tasks=labels)
    assert np.isfinite(view.predict_proba(X)).all()


@pytest.mark.parametrize("task", ["conversion", "cvr"])
def test_calibrated_classifier_of_a_fitted_view(model, task):
    rows = Y["click"] == 1 if task == "cvr" else slice(None)
    x, y = X[rows], CONVERSION[rows]
    frozen = FrozenEstimator(model.task(task))
    calibrated = CalibratedClassifierCV(frozen, method="isotonic").fit(x, y)
    # Isotonic regression keeps the mean of the labels.
    assert calibrated.predict_proba(x)[:, 1].mean() == pytest.approx(y.mean())


def test_stacking_of_unfitted_views_takes_the_labels_of_all_tasks(model):
    views = [(task, small().task(task)) for task in ("conversion", "cvr")]
    final = RandomForestClassifier(n_estimators=40, random_state=0)
    stack = StackingClassifier(views, final, cv=2).fit(X, Y.to_numpy())
    inputs = stack.transform(X)
    assert_array_equal(inputs[:, 0], model.predict_proba(X)[:, 1])
    assert_array_equal(inputs[:, 1], model.predict_cvr(X))
    p = np.column_stack(
        [of_task[:, 1] for of_task in stack.final_estimator_.predict_proba(inputs)]
    )
    assert_allclose(p.mean(axis=0), Y.mean(), atol=0.1)
    of_folds = np.column_stack(
        [
            cross_val_predict(view, X, Y.to_numpy(), cv=2, method="predict_proba")[:, 1]
            for _, view in views
        ]
    )
    expected = clone(final).fit(of_folds, Y.to_numpy()).predict_proba(inputs)
    assert_allclose(p, np.column_stack([of_task[:, 1] for of_task in expected]))
    # scikit-learn itself returns the probabilities of the labels 0.
    assert_allclose(stack.predict_proba(X), 1 - p)


def test_partial_dependence(view):
    found = partial_dependence(
        view, X, ["numeric_0"], grid_resolution=3, method="brute"
    )
    grid = found["grid_values"][0]
    # One array of scores per class, of which "brute" keeps the positive.
    expected = [view.predict_proba(X.assign(numeric_0=v))[:, 1].mean() for v in grid]
    assert_allclose(found["average"][0], expected, rtol=1e-5)


def test_displays(view):
    pytest.importorskip("matplotlib")
    curve = RocCurveDisplay.from_estimator(view, X, CONVERSION)
    assert curve.roc_auc == pytest.approx(view.score(X, Y))
    display = CalibrationDisplay.from_estimator(view, X, CONVERSION, n_bins=3)
    assert_array_equal(display.y_prob, view.predict_proba(X)[:, 1])

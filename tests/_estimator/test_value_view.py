"""One value as a regressor: its predictions, and the tools that take it."""

import pickle

import numpy as np
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.inspection import (
    PartialDependenceDisplay,
    partial_dependence,
    permutation_importance,
)
from sklearn.metrics import PredictionErrorDisplay, r2_score
from sklearn.model_selection import (
    GridSearchCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted
from small_model import small

from sk_pwiser import TaskView, ValueView
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.datasets import make_ctr_cvr

N = 600
LOG = make_ctr_cvr(N, ctr=0.5, cvr=0.5, random_state=0)
RNG = np.random.default_rng(0)
X = LOG.data
EVENTS = LOG.target
SPEND = np.where(EVENTS["conversion"] == 1, RNG.gamma(2, 20, N), 0)
Y = EVENTS.assign(spend=SPEND, watch=RNG.gamma(2, 3, N))
CHANGED = Y["spend"].copy()
CHANGED.iloc[4] += 1


def valued(**params):
    return small(**{"value_tasks": {"spend": "conversion", "watch": None}, **params})


@pytest.fixture(scope="module")
def model(_estimators_on_device):
    return valued().fit(X, Y)


@pytest.fixture
def view(model):
    return model.task("spend")


@pytest.mark.parametrize(("name", "column"), [("spend", 0), ("watch", 1)])
def test_predictions_are_those_of_the_column(model, name, column):
    view = model.task(name)
    expected = model.predict_value(X)[:, column]
    assert_array_equal(view.predict(X), expected)
    assert view.score(X, Y) == view.score(X, Y[name]) == r2_score(Y[name], expected)
    one = valued(value_tasks={name: None}).fit(X, Y[["click", "conversion", name]])
    assert_array_equal(one.task(name).predict(X), one.predict_value(X))


def test_it_is_an_ordinary_fitted_regressor(view):
    check_is_fitted(view)
    assert is_regressor(view)
    assert not is_classifier(view)
    assert not hasattr(view, "predict_proba")
    assert view.n_features_in_ == X.shape[1]
    assert_array_equal(view.feature_names_in_, X.columns)
    tags = get_tags(view)
    assert tags.estimator_type == "regressor"
    assert tags.target_tags.positive_only
    assert not tags.target_tags.multi_output
    assert tags.input_tags.allow_nan
    assert tags.input_tags.categorical
    copy = pickle.loads(pickle.dumps(view))
    assert_array_equal(copy.predict(X), view.predict(X))


def test_events_of_an_estimator_with_values_are_classifiers(model):
    view = model.task("conversion")
    assert isinstance(view, TaskView)
    assert view.score(X, Y) == view.score(X, EVENTS)
    fitted = clone(view).fit(X, EVENTS["conversion"], tasks=Y)
    assert_array_equal(fitted.predict_proba(X), view.predict_proba(X))
    by_index = valued(value_tasks={2: 1, 3: None}).task(1).fit(X, Y.to_numpy())
    assert_array_equal(by_index.predict_proba(X), view.predict_proba(X))


def test_a_value_without_a_name(model):
    by_index = valued(value_tasks={2: 1, -1: None})
    view = by_index.task("value_2").fit(X, Y.to_numpy())
    expected = model.predict_value(X)[:, 0]
    assert_array_equal(view.predict(X), expected)
    assert view.score(X, Y.to_numpy()) == view.score(X, Y["spend"])
    named = ValueView(by_index, "spend").fit(X, Y)
    assert_array_equal(named.predict(X), expected)


def test_unknown_amounts_take_no_part_in_the_score(view):
    bought = (Y["conversion"] == 1).to_numpy()
    is_unknown = bought & (np.arange(N) % 2 == 0)
    unknown = Y.assign(spend=Y["spend"].where(~is_unknown))
    expected = view.score(X[~is_unknown], Y[~is_unknown])
    assert view.score(X, unknown) == pytest.approx(expected)
    without_zeros = unknown.assign(spend=unknown["spend"].where(bought))
    assert view.score(X, without_zeros) == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"y has no amount in row \d+: pass 0 for"):
        view.score(X, unknown["spend"])
    with pytest.raises(ValueError, match="y must have the column 'spend'"):
        view.score(X, EVENTS)


def test_weights_of_the_score(view):
    weight = RNG.uniform(0.5, 2, (N, 2))
    expected = r2_score(Y["spend"], view.predict(X), sample_weight=weight[:, 1])
    assert view.score(X, Y, weight) == expected
    assert view.score(X, Y["spend"], weight[:, 1]) == expected
    assert view.score(X, Y, weight[:, 1]) == expected


@pytest.mark.parametrize("labels", ["all columns", "one column", "blank without event"])
def test_fit_trains_a_clone_on_all_tasks(model, labels):
    view = clone(model.task("spend"))
    if labels == "all columns":
        view.fit(X, Y)
    elif labels == "one column":
        view.fit(X, Y["spend"], tasks=Y)
    else:
        blank = Y.assign(spend=Y["spend"].where(Y["conversion"] == 1))
        view.fit(X, Y["spend"], tasks=blank)
    assert not hasattr(view.estimator, "classes_")
    assert_array_equal(view.predict(X), model.predict_value(X)[:, 0])


@pytest.mark.parametrize(
    ("y", "tasks", "message"),
    [
        (Y["spend"], None, r"labels of all tasks and their amounts: .*cross_val_score"),
        (EVENTS, None, "'spend', which Y lacks"),
        (Y["watch"], Y, "y must be the column 'spend' of tasks"),
        (CHANGED, Y, r"row 4 is 1 in y and 0 in tasks: pass y=Y"),
        (Y["spend"][:-1], Y, r"shape \(599,\) and tasks \(600, 4\)"),
        (Y["spend"][::-1], Y, "tasks and y have the same index labels in different"),
        (Y["spend"], Y["spend"], r"tasks must be of shape .*; got \(600,\)"),
        (Y["spend"], EVENTS, "'spend', which Y lacks"),
    ],
)
def test_labels_of_all_tasks_are_required(y, tasks, message):
    with pytest.raises(ValueError, match=message):
        valued().task("spend").fit(X, y, tasks=tasks)


def test_wrong_views_are_refused(model, view):
    with pytest.raises(ValueError, match="Fit the MultiTaskCTRCVRClassifier on"):
        view.fit(X, Y)
    with pytest.raises(NotFittedError, match="'spend' is not fitted"):
        valued().task("spend").predict(X)
    with pytest.raises(ValueError, match=r"one of \['spend', 'watch'\]; got 'spent'"):
        ValueView(model, "spent").predict(X)
    with pytest.raises(ValueError, match=r"one of \['spend', 'watch'\]; got 'spent'"):
        ValueView(valued(), "spent").fit(X, Y)
    with pytest.raises(ValueError, match="needs an estimator with value_tasks"):
        ValueView(small(), "spend").fit(X, Y)
    with pytest.raises(ValueError, match=r"\['click', 'conversion'\].*got 'spent'"):
        model.task("spent")


def test_views_of_a_calibrator(model):
    calibrator = FunnelCalibrator(model, method="sigmoid").fit(X, Y)
    view = calibrator.task("watch")
    assert_array_equal(view.predict(X), calibrator.predict_value(X)[:, 1])
    assert view.score(X, Y) == r2_score(Y["watch"], view.predict(X))
    unfitted = FunnelCalibrator(valued(), method="sigmoid", cv=2).task("spend")
    expected = clone(unfitted.estimator).fit(X, Y).predict_value(X)[:, 0]
    assert_array_equal(unfitted.fit(X, Y["spend"], tasks=Y).predict(X), expected)


def test_cross_validation(model):
    view = valued(max_epochs=1).task("spend")
    params = {"tasks": Y}
    scores = cross_val_score(view, X, Y["spend"], params=params, cv=2)
    half = N // 2
    first = valued(max_epochs=1).fit(X[half:], Y[half:])
    second = valued(max_epochs=1).fit(X[:half], Y[:half])
    assert scores[0] == r2_score(Y["spend"][:half], first.predict_value(X[:half])[:, 0])
    predictions = cross_val_predict(view, X, Y["spend"], params=params, cv=2)
    assert_array_equal(predictions[half:], second.predict_value(X[half:])[:, 0])
    in_pipeline = make_pipeline(FunctionTransformer(), view)
    params = {"valueview__tasks": Y}
    again = cross_val_score(in_pipeline, X, Y["spend"], params=params, cv=2)
    assert_array_equal(again, scores)


def test_a_search_reaches_the_estimator():
    search = GridSearchCV(
        valued(max_epochs=1).task("spend"),
        {"estimator__value_loss": ["gamma", "lognormal"]},
        scoring="neg_mean_absolute_error",
        cv=2,
    )
    search.fit(X, Y["spend"], tasks=Y)
    assert search.best_params_.keys() == {"estimator__value_loss"}
    assert search.predict(X).shape == (N,)


def test_metadata_routing():
    weight = RNG.uniform(0.5, 2, N)
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = valued(max_epochs=1).set_fit_request(sample_weight=True)
        view = estimator.task("spend").set_fit_request(sample_weight=True)
        view.set_score_request(sample_weight=True)
        scores = cross_validate(
            view,
            X,
            Y["spend"],
            cv=2,
            params={"tasks": Y, "sample_weight": weight},
            error_score="raise",
        )["test_score"]
    half = N // 2
    first = valued(max_epochs=1).fit(X[half:], Y[half:], sample_weight=weight[half:])
    assert scores[0] == first.task("spend").score(X[:half], Y[:half], weight[:half])


def test_permutation_importance(view):
    result = permutation_importance(view, X, Y["spend"], n_repeats=2, random_state=0)
    assert result.importances.shape == (X.shape[1], 2)
    with_labels = permutation_importance(view, X, Y, n_repeats=2, random_state=0)
    assert_array_equal(with_labels.importances, result.importances)


def test_partial_dependence(view):
    found = partial_dependence(view, X, ["numeric_0"], grid_resolution=3)
    grid = found["grid_values"][0]
    expected = [view.predict(X.assign(numeric_0=value)).mean() for value in grid]
    assert_allclose(found["average"][0], expected, rtol=1e-5)


def test_displays(view):
    pytest.importorskip("matplotlib")
    PartialDependenceDisplay.from_estimator(view, X, ["numeric_0"], grid_resolution=3)
    display = PredictionErrorDisplay.from_estimator(view, X, Y["spend"], subsample=None)
    assert_array_equal(display.y_pred, view.predict(X))


def test_files_of_skops(view):
    skops = pytest.importorskip("skops.io")
    from sk_pwiser.export import TRUSTED_TYPES

    copy = skops.loads(skops.dumps(view), trusted=TRUSTED_TYPES)
    assert_array_equal(copy.predict(X), view.predict(X))

"""The calibrator of all tasks: prefit, cross-fitted, with one class, with bad input."""

import numpy as np
import pytest
from fake_estimators import ReadsFeatures
from numpy.testing import assert_allclose, assert_array_equal
from refusals import small
from scipy.special import expit, logit
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV, CalibrationDisplay
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.neural_network import MLPClassifier
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import estimator_checks_generator

from sk_pwiser import MultiTaskCTRCVRClassifier, TaskView
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.metrics import ctcvr_auc_scorer, expected_calibration_error
from sk_pwiser.model_selection import FunnelStratifiedKFold

METHODS = ["isotonic", "sigmoid", "temperature"]


def distorted(n=6_000, seed=0):
    """Return features that are distorted probabilities, as `ReadsFeatures` reads them.

    The true ones are the sigmoids of half the logit, and the labels a funnel.
    """
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, size=(n, 1)) + rng.normal(0, 1, size=(n, 2)) - [0, 2]
    click, conversion = expit(0.5 * z.T)
    u = rng.random(n)
    Y = np.column_stack([u < click, u < np.minimum(click, conversion)]).astype(int)
    return np.column_stack([expit(z), np.full(n, 0.5)]), Y


@pytest.fixture(scope="module")
def rows():
    return distorted()


@pytest.fixture(scope="module")
def reader(rows):
    return ReadsFeatures(names=["click", "conversion"]).fit(*rows)


@pytest.mark.parametrize("method", METHODS)
def test_probabilities_agree_with_the_rates_of_other_rows(reader, rows, method):
    X, Y = distorted(30_000, seed=1)
    calibrated = FunnelCalibrator(reader, method=method).fit(*rows)
    p, before = calibrated.predict_proba(X), reader.predict_proba(X)
    for k in range(2):
        error, old = (expected_calibration_error(Y[:, k], q[:, k]) for q in (p, before))
        assert error < 0.025 < 0.08 < old


@pytest.mark.parametrize("method", METHODS)
def test_a_conversion_is_never_more_likely_than_a_click(reader, rows, method):
    calibrated = FunnelCalibrator(reader, method=method).fit(*rows)
    # Predictions that contradict the funnel before the calibration.
    X = np.random.default_rng(0).random((500, 3))
    assert (reader.predict_proba(X)[:, 1] > reader.predict_proba(X)[:, 0]).any()
    p = calibrated.predict_proba(X)
    assert (p[:, 1] <= p[:, 0]).all()
    assert (p > 0).all()
    assert (p < 1).all()
    cvr = calibrated.predict_cvr(X)
    assert_allclose(cvr, p[:, 1] / p[:, 0])
    assert cvr.max() == 1


def test_curves_are_those_of_each_task_alone(reader, rows):
    """Compared with scikit-learn's calibration of one column."""
    X, Y = rows
    calibrated = FunnelCalibrator(reader, method="sigmoid").fit(X, Y)
    view = FrozenEstimator(TaskView(reader, "conversion"))
    one = CalibratedClassifierCV(view, method="sigmoid").fit(X, Y[:, 1])
    expected = np.minimum(one.predict_proba(X)[:, 1], calibrated.predict_proba(X)[:, 0])
    assert_allclose(calibrated.predict_proba(X)[:, 1], expected, rtol=1e-4)


def test_a_prefit_estimator_is_used_and_not_changed(reader, rows):
    calibrated = FunnelCalibrator(reader).fit(*rows)
    assert calibrated.estimator_ is reader
    assert calibrated.task_names_ == ["click", "conversion"]
    assert_array_equal(calibrated.classes_, [[0, 1], [0, 1]])
    assert calibrated.n_tasks_ == len(calibrated.calibrators_) == 2
    frozen = FunnelCalibrator(FrozenEstimator(reader)).fit(*rows)
    assert_array_equal(frozen.predict_proba(rows[0]), calibrated.predict_proba(rows[0]))
    with pytest.raises(NotFittedError, match="fit the MultiTaskCTRCVRClassifier, or"):
        FunnelCalibrator(small()).fit(*rows)


DATA = make_ctr_cvr(900, ctr=0.5, cvr=0.5, random_state=0)


@pytest.mark.parametrize("cv", [3, "splits", "groups"])
def test_cross_fitting_by_hand(cv):
    X, Y = DATA.data, DATA.target
    weight = np.linspace(0.5, 1.5, len(X))
    groups = np.arange(len(X)) % 4
    folds = {
        3: FunnelStratifiedKFold(3, shuffle=False).split(X, Y),
        "splits": [(np.arange(300, 900), np.arange(300))],
        "groups": GroupKFold(2).split(X, Y, groups),
    }
    splits = list(folds[cv])
    p = np.full((len(X), 2), np.nan)
    for train, test in splits:
        model = small().fit(X.iloc[train], Y.iloc[train], sample_weight=weight[train])
        p[test] = model.predict_proba(X.iloc[test])
    known = ~np.isnan(p[:, 0])
    final = small().fit(X, Y, sample_weight=weight)
    reference = FunnelCalibrator(ReadsFeatures().fit(p, Y.to_numpy()), method="sigmoid")
    reference.fit(p[known], Y.to_numpy()[known], sample_weight=weight[known])
    expected = reference.predict_proba(final.predict_proba(X))

    calibrated = FunnelCalibrator(
        small(), method="sigmoid", cv=cv if cv == 3 else splits
    )
    calibrated.fit(X, Y, sample_weight=weight)
    assert_allclose(calibrated.predict_proba(X), expected, rtol=1e-5)
    assert_array_equal(calibrated.feature_names_in_, X.columns)
    assert not hasattr(calibrated.estimator, "classes_")
    assert calibrated.score(X, Y) == pytest.approx(
        np.mean([roc_auc_score(Y.iloc[:, k], expected[:, k]) for k in range(2)])
    )
    assert_array_equal(calibrated.predict(X), expected >= 0.5)


def test_a_task_of_one_class_keeps_its_probabilities(reader, rows):
    X, Y = rows
    click_only = Y * [1, 0]
    with pytest.warns(UserWarning, match=r"for 'conversion' \(label 0\): the") as seen:
        calibrated = FunnelCalibrator(reader).fit(X, click_only)
    assert len(seen) == 1
    assert calibrated.calibrators_[1] is None
    p, before = calibrated.predict_proba(X), reader.predict_proba(X)
    assert_allclose(p[:, 1], np.minimum(before[:, 1], p[:, 0]), rtol=1e-6)
    assert (p[:, 0] != before[:, 0]).any()
    with pytest.warns(UserWarning, match=r"'click' \(label 1\), 'conversion'") as seen:
        FunnelCalibrator(reader).fit(X, np.ones_like(Y))
    assert len(seen) == 1


def test_missing_labels_are_left_out_of_their_task(reader, rows):
    X, Y = rows
    some = Y.astype(float)
    some[1_000:, 1] = np.nan
    calibrated = FunnelCalibrator(reader).fit(X, some)
    curves = [
        FunnelCalibrator(reader).fit(X[part], Y[part]).calibrators_
        for part in (slice(None), slice(1_000))
    ]
    for k, expected in enumerate((curves[0][0], curves[1][1])):
        assert_array_equal(calibrated.calibrators_[k].rates_, expected.rates_)


def test_rows_of_weight_0_do_not_count(reader, rows):
    X, Y = rows
    weight = (np.arange(len(X)) < 2_000).astype(float)
    for method in METHODS:
        calibrated = FunnelCalibrator(reader, method=method)
        found = calibrated.fit(X, Y, sample_weight=weight).predict_proba(X)
        expected = clone(calibrated).set_params(estimator=reader)
        expected.fit(X[:2_000], Y[:2_000])
        assert_array_equal(found, expected.predict_proba(X))


@pytest.mark.parametrize("decimals", [0, 3])
def test_extreme_probabilities_stay_finite(decimals):
    X, Y = distorted(500)
    X = X.round(decimals)
    for method in METHODS:
        reader = ReadsFeatures().fit(X, Y)
        p = FunnelCalibrator(reader, method=method).fit(X, Y).predict_proba(X)
        assert np.isfinite(logit(p.astype(float))).all()


@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(20, min_samples_leaf=20, random_state=0),
        MLPClassifier((4,), max_iter=20, random_state=0),
    ],
)
@pytest.mark.parametrize("cv", [None, 2])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_other_classifiers_of_several_tasks(rows, estimator, cv):
    X, Y = rows
    estimator = clone(estimator)
    if cv is None:
        estimator.fit(X[:3_000], Y[:3_000])
    calibrated = FunnelCalibrator(estimator, cv=cv).fit(X[3_000:], Y[3_000:])
    assert calibrated.predict_proba(X).shape == (6_000, 2)
    assert calibrated.task_names_ == ["task_0", "task_1"]
    assert calibrated.n_features_in_ == 3


def test_a_single_task_keeps_its_labels():
    X, labels = DATA.data, np.where(DATA.target["click"], "yes", "no")
    model = small().fit(X[:600], labels[:600])
    calibrated = FunnelCalibrator(model, method="sigmoid").fit(X[600:], labels[600:])
    p = calibrated.predict_proba(X)
    assert_allclose(p.sum(axis=1), 1)
    one = CalibratedClassifierCV(FrozenEstimator(model.task(0)), method="sigmoid")
    one.fit(X[600:], labels[600:])
    assert_allclose(p[:, 1], one.predict_proba(X)[:, 1], rtol=1e-3)
    assert_array_equal(
        calibrated.predict(X), np.array(["no", "yes"])[(p[:, 1] >= 0.5) + 0]
    )
    assert calibrated.score(X, labels) == roc_auc_score(labels == "yes", p[:, 1])
    with pytest.raises(ValueError, match="two tasks or more; this fit has 1"):
        calibrated.predict_cvr(X)


def test_scorers_displays_and_views_take_the_calibrator(reader, rows):
    X, Y = rows
    calibrated = FunnelCalibrator(reader).fit(X, Y)
    p = calibrated.predict_proba(X)[:, 1]
    assert ctcvr_auc_scorer(calibrated, X, Y) == roc_auc_score(Y[:, 1], p)
    view = TaskView(calibrated, "conversion")
    assert_array_equal(view.predict_proba(X)[:, 1], p)
    assert_allclose(view.decision_function(X), logit(p.astype(float)), rtol=1e-5)
    pytest.importorskip("matplotlib")
    display = CalibrationDisplay.from_estimator(view, X, Y[:, 1])
    assert_array_equal(display.y_prob, p)


def test_before_fit():
    calibrated = FunnelCalibrator(small(), cv=2)
    assert not hasattr(calibrated, "n_features_in_")
    assert not hasattr(calibrated, "classes_")
    for method in ("predict_proba", "predict", "predict_cvr"):
        with pytest.raises(NotFittedError):
            getattr(calibrated, method)(DATA.data)
    tags = get_tags(calibrated)
    assert tags.classifier_tags.multi_label
    assert tags.input_tags.allow_nan


@pytest.mark.parametrize(
    ("params", "Y", "message"),
    [
        ({"method": "platt"}, None, "'method' parameter of FunnelCalibrator must be"),
        ({"cv": "days"}, None, "'cv' parameter"),
        ({}, np.zeros((6_000, 3)), "must have the 2 tasks of the estimator, got 3"),
        ({}, np.zeros(6_000), "must have the 2 tasks of the estimator, got 1"),
        ({}, np.full((6_000, 2), 2), "0 and 1 only, but column 0 has 2"),
        ({}, np.zeros((5, 2)), "inconsistent"),
    ],
)
def test_bad_input(reader, rows, params, Y, message):
    X, labels = rows
    with pytest.raises(ValueError, match=message):
        FunnelCalibrator(reader, **params).fit(X, labels if Y is None else Y)


def test_predictions_of_a_wrong_shape(rows):
    X, Y = rows
    reader = ReadsFeatures().fit(X, Y)
    reader.n_tasks_ = 3
    with pytest.raises(ValueError, match=r"return an array \(n_samples, 2\) .* got an"):
        FunnelCalibrator(reader).fit(X, Y)
    reader.predict_proba = lambda X: [np.full((len(X), 1), 0.5)] * 2
    with pytest.raises(ValueError, match="got a list of 2 arrays of"):
        FunnelCalibrator(reader).fit(X, Y)


# scikit-learn's own checks.

EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data": "as for the estimator",
    "check_sample_weight_equivalence_on_sparse_data": "as for the estimator",
}


def checks():
    estimator = MultiTaskCTRCVRClassifier(
        network_params={"bottom_units": (16,), "tower_units": (8,)},
        batch_size=64,
        lr=0.02,
        max_epochs=15,
        random_state=0,
    )
    calibrator = FunnelCalibrator(estimator, method="sigmoid", cv=2)
    for instance, check in estimator_checks_generator(calibrator):
        name = getattr(check, "func", check).__name__
        if name not in EXPECTED_FAILURES:
            yield pytest.param(instance, check, id=name)


@pytest.mark.filterwarnings("ignore:.*break the funnel:UserWarning")
@pytest.mark.filterwarnings("ignore:Task .* in every row:UserWarning")
@pytest.mark.filterwarnings("ignore:Fewer rows than n_splits:UserWarning")
@pytest.mark.filterwarnings("ignore:Only one class in the rows:UserWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize(("calibrator", "check"), checks())
def test_check_estimator(calibrator, check):
    check(calibrator)

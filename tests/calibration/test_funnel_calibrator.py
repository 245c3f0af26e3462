"""The calibrator of all tasks: prefit, cross-fitted, with one class, with bad input."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
from fake_estimators import ReadsFeatures
from numpy.testing import assert_allclose, assert_array_equal, assert_array_less
from scipy.special import expit, logit
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags
from small_model import small

from sk_pwiser import TaskView
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.export import Scorer
from sk_pwiser.metrics import ctcvr_auc_scorer, expected_calibration_error
from sk_pwiser.model_selection import FunnelStratifiedKFold, FunnelTimeSplit

METHODS = ["isotonic", "sigmoid"]


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
    assert_allclose(cvr, p[:, 1] / p[:, 0], rtol=1e-6)
    assert cvr.max() == 1


def test_a_prefit_estimator_is_used_and_not_changed(reader, rows):
    calibrated = FunnelCalibrator(reader).fit(rows[0], Y=rows[1])
    assert calibrated.estimator_ is reader
    assert calibrated.score(rows[0], Y=rows[1]) == calibrated.score(*rows)
    assert calibrated.task_names_ == ["click", "conversion"]
    assert_array_equal(calibrated.classes_, [[0, 1], [0, 1]])
    assert calibrated.n_tasks_ == len(calibrated.calibrators_) == 2
    frozen = FunnelCalibrator(FrozenEstimator(reader)).fit(*rows)
    assert_array_equal(frozen.predict_proba(rows[0]), calibrated.predict_proba(rows[0]))
    with pytest.raises(NotFittedError, match="fit the MultiTaskCTRCVRClassifier, or"):
        FunnelCalibrator(small()).fit(*rows)


def test_a_fit_sets_all_attributes_at_once(reader, rows):
    """An interrupt between two assignments would leave attributes of two fits."""

    class Logs(FunnelCalibrator):
        def __setattr__(self, name, value):
            names.append(name)
            super().__setattr__(name, value)

    names = []
    calibrated = Logs(reader, method="sigmoid", by="market")
    X = pd.DataFrame(rows[0], columns=["click", "conversion", "other"])
    X["market"] = np.tile(["nl", "de"], len(X) // 2)
    calibrated.set_params(by=None).fit(rows[0], rows[1])
    names.clear()
    calibrated.set_params(by="market")
    calibrated.fit(X, rows[1])
    assert names == ["by", "__dict__"]
    assert {*calibrated.shifts_} == {"nl", "de"}
    assert calibrated.by_ == "market"


DATA = make_ctr_cvr(900, ctr=0.5, cvr=0.5, random_state=0)


@pytest.mark.parametrize("parents", [{"conversion": "click"}, None])
def test_splitters_with_tasks_receive_the_labels_with_names(rows, parents):
    X, Y = (part[:600] for part in rows)
    labels = pd.DataFrame(Y, columns=["click", "conversion"]).astype(float)
    labels.iloc[::4, 1] = np.nan
    folds = FunnelStratifiedKFold(2, random_state=0, task_parents=parents)
    periods = FunnelTimeSplit(2, time=np.arange(600), task_parents=parents)
    for cv in (folds, periods):
        reader = ReadsFeatures(names=["click", "conversion"])
        found = FunnelCalibrator(reader, method="sigmoid", cv=cv).fit(X, labels)
        given = list(cv.split(X, labels))
        expected = FunnelCalibrator(reader, method="sigmoid", cv=given).fit(X, labels)
        assert_array_equal(found.predict_proba(X), expected.predict_proba(X))


@pytest.mark.parametrize(
    "cv",
    [
        pytest.param(3, marks=pytest.mark.slow),
        pytest.param("splits", marks=pytest.mark.slow),
        "groups",
    ],
)
@pytest.mark.filterwarnings("ignore:In the calibration rows, higher probabilities")
def test_cross_fitting_by_hand(cv):
    X, Y = DATA.data, DATA.target
    weight = np.linspace(0.5, 1.5, len(X))
    groups = np.arange(len(X)) % 4
    folds = {
        3: FunnelStratifiedKFold(3, random_state=0).split(X, Y),
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
        np.mean([roc_auc_score(Y.iloc[:, k], expected[:, k]) for k in range(2)]),
        abs=1e-3,  # rows that tie up to rounding
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


@pytest.mark.filterwarnings("ignore:In the calibration rows, higher probabilities")
@pytest.mark.parametrize("is_rare", [True, False])
@pytest.mark.parametrize("n_events", [49, 50])
def test_few_events_are_too_few_for_isotonic_curves(reader, rows, n_events, is_rare):
    """Events, or rows without one if these are rarer."""
    X = rows[0]
    y = np.zeros((len(X), 2))
    y[:300, 0] = 1
    y[:n_events, 1] = 1
    if not is_rare:
        y = 1 - y[:, ::-1]
    FunnelCalibrator(reader, method="sigmoid", ordered=False).fit(X, y)
    calibrator = FunnelCalibrator(reader, ordered=False)
    if n_events == 50:
        calibrator.fit(X, y)
        return
    name = "conversion" if is_rare else "click"
    with pytest.warns(UserWarning, match=rf"Too few events .*: '{name}' \(49\)\."):
        calibrator.fit(X, y)


def test_missing_labels_are_left_out_of_a_task_by_itself(reader, rows):
    X, Y = rows
    some = Y.astype(float)
    some[1_000:, 1] = np.nan
    siblings = ReadsFeatures().fit(X, Y)
    siblings.task_parents_ = {"click": None, "conversion": None}
    calibrated = FunnelCalibrator(siblings).fit(X, some)
    curves = [
        FunnelCalibrator(reader).fit(X[part], Y[part]).calibrators_
        for part in (slice(None), slice(1_000))
    ]
    for k, expected in enumerate((curves[0][0], curves[1][1])):
        assert_array_equal(calibrated.calibrators_[k].rates_, expected.rates_)


def three_tasks(X, Y):
    """Return rows with one more task, half of the last one's events, and a reader."""
    X = np.insert(X, 2, X[:, 1] / 2, axis=1)
    Y = np.column_stack([Y, Y[:, 1] * (np.arange(len(Y)) % 2)])
    return X, Y, ReadsFeatures().fit(X, Y)


def test_a_missing_label_without_the_task_that_it_presupposes_is_0(rows):
    X, Y, reader = three_tasks(*rows)
    some = Y.astype(float)
    some[:, 1:][Y[:, :-1] == 0] = np.nan
    found, expected = (FunnelCalibrator(reader).fit(X, y) for y in (some, Y))
    assert_array_equal(found.predict_proba(X), expected.predict_proba(X))


@pytest.mark.parametrize("rate", [1.0, 0.2])
def test_known_labels_stand_for_the_missing_ones_of_recent_clicks(reader, rows, rate):
    """As weights do by which the known ones have the total of all clicked rows."""
    X, Y = rows
    some, weight = Y.astype(float), np.ones(Y.shape)
    clicked = Y[:, 0] == 1
    some[clicked & (np.arange(len(Y)) < 4_000), 1] = np.nan
    known = clicked & ~np.isnan(some[:, 1])
    weight[known, 1] = clicked.sum() / known.sum()
    weight[clicked & ~known, 1] = 0
    calibrator = FunnelCalibrator(reader, negative_sampling_rate=rate)
    found = calibrator.fit(X, some).predict_proba(X)
    expected = clone(calibrator).set_params(estimator=reader)
    expected.fit(X, Y, sample_weight=weight)
    assert_allclose(found, expected.predict_proba(X), rtol=1e-6)
    full = expected.fit(X, Y).predict_proba(X)[:, 1].sum()
    assert found[:, 1].sum() == pytest.approx(full, rel=0.1)


def test_labels_are_completed_without_ordered_too(reader, rows):
    """It only limits the probabilities."""
    X, Y = rows
    some, clicked = Y.astype(float), Y[:, 0] == 1
    some[~clicked | (np.arange(len(Y)) % 5 < 3), 1] = np.nan
    free = FunnelCalibrator(reader, ordered=False).fit(X, some)
    assert_allclose(free.predict_proba(X).sum(axis=0), Y.sum(axis=0), rtol=0.1)
    ordered = FunnelCalibrator(reader).fit(X, some)
    for one, other in zip(ordered.calibrators_, free.calibrators_, strict=True):
        assert_array_equal(one.rates_, other.rates_)


def test_an_order_that_labels_break_is_named_if_it_completes_labels(reader, rows):
    X, Y = rows
    swapped = Y[:, ::-1].astype(float)
    swapped[::9, 1] = np.nan
    with pytest.warns(UserWarning, match="'conversion' without 'click' in .* rows"):
        FunnelCalibrator(reader, ordered=False).fit(X, swapped)


def test_missing_labels_of_one_task_change_no_weights_of_the_next_one(rows):
    X, Y, reader = three_tasks(*rows)
    some = Y.astype(float)
    some[(Y[:, 0] == 1) & (np.arange(len(Y)) % 4 < 2), 1] = np.nan
    found, expected = (FunnelCalibrator(reader).fit(X, y) for y in (some, Y))
    assert_array_equal(found.calibrators_[2].rates_, expected.calibrators_[2].rates_)
    # Without the label of the task that it presupposes, that of the first one counts.
    some[np.isnan(some[:, 1]), 2] = np.nan
    totals = FunnelCalibrator(reader).fit(X, some).predict_proba(X).sum(axis=0)
    assert_allclose(totals, expected.predict_proba(X).sum(axis=0), rtol=0.05)


def test_labels_of_rows_without_a_prediction_stand_for_no_others(rows):
    X, Y = rows
    later = np.arange(len(Y)) >= len(Y) // 2
    some = Y.astype(float)
    some[later & (np.arange(len(Y)) % 4 > 0) & (Y[:, 0] == 1), 1] = np.nan
    halves = FunnelTimeSplit(1, time=np.arange(len(Y)))
    crossed = FunnelCalibrator(ReadsFeatures(), cv=halves)
    alone = FunnelCalibrator(ReadsFeatures().fit(X, Y)).fit(X[later], some[later])
    assert_allclose(crossed.fit(X, some).predict_proba(X), alone.predict_proba(X))


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
    with pytest.raises(ValueError, match="two tasks or more"):
        calibrated.predict_cvr(X)


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
        ({"ordered": "yes"}, None, "'ordered' parameter"),
        ({"negative_sampling_rate": 0}, None, "'negative_sampling_rate' parameter"),
        ({"negative_sampling_rate": 1.5}, None, "'negative_sampling_rate' parameter"),
        ({}, np.zeros((6_000, 3)), "must have the 2 tasks of the estimator, got 3"),
        ({}, np.zeros(6_000), "must have the 2 tasks of the estimator, got 1"),
        ({}, np.full((6_000, 2), 2), "0 or 1; column 0 of y contains 2 in row 0"),
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
    with pytest.raises(ValueError, match=r"return an array \(6000, 2\), .* got an"):
        FunnelCalibrator(reader).fit(X, Y)
    reader.predict_proba = lambda X: [np.full((len(X), 3), 0.5)] * 2
    with pytest.raises(ValueError, match=r"got a list of arrays \(6000, 3\)"):
        FunnelCalibrator(reader).fit(X, Y)


@pytest.mark.parametrize("method", METHODS)
def test_rows_of_a_sampled_log_give_the_rates_of_the_full_one(method):
    """2 % of clicks, 0.1 % of conversions, and a tenth of the other rows."""
    rng, n = np.random.default_rng(0), 100_000
    click = expit(rng.normal(logit(0.02) - 0.4, 1, n))
    both = np.column_stack([click, click * expit(rng.normal(logit(0.05), 0.7, n))])
    Y = (rng.random((n, 1)) < both).astype(int)
    X = np.column_stack([expit(0.8 * logit(both) + 0.4), np.zeros(n)])
    kept = (Y[:, 0] == 1) | (rng.random(n) < 0.1)
    reader = ReadsFeatures(negative_sampling_rate=0.1).fit(X, Y)
    calibrated = FunnelCalibrator(reader, method=method).fit(X[kept], Y[kept])
    counts, p = Y.sum(axis=0), calibrated.predict_proba(X).astype(float)
    # Two standard deviations of the number of events, and 5 %.
    tolerance = 0.05 + 2 / np.sqrt(counts)
    assert_array_less(np.abs(p.sum(axis=0) / counts - 1), tolerance)


def test_a_calibrator_of_a_calibrator_knows_the_sampling(rows):
    X, Y = rows
    reader = ReadsFeatures(negative_sampling_rate=0.25).fit(X, Y)
    inner = FunnelCalibrator(reader).fit(X, Y)
    found = FunnelCalibrator(inner, method="sigmoid").fit(X, Y).predict_proba(X)
    weight = np.where(Y[:, 0] == 1, 1, 4)
    p, rates = (np.average(each, axis=0, weights=weight) for each in (found, Y))
    assert_allclose(p, rates, rtol=0.03)


@pytest.mark.parametrize("wrap", [FrozenEstimator, make_pipeline, None])
def test_sampling_is_a_weight_of_the_rows_without_a_click(reader, rows, wrap):
    X, Y = rows
    weight = np.linspace(1, 2, len(X))
    found = FunnelCalibrator(reader, negative_sampling_rate=0.25)
    if wrap is not None:  # the rate is that of the estimator inside
        sampled = ReadsFeatures(negative_sampling_rate=0.25).fit(X, Y)
        found = FunnelCalibrator(wrap(sampled))
    found = found.fit(X, Y, sample_weight=weight)
    expected = FunnelCalibrator(reader)
    expected.fit(X, Y, sample_weight=np.where(Y[:, 0] == 1, weight, 4 * weight))
    assert_allclose(found.predict_proba(X), expected.predict_proba(X), rtol=1e-6)


def test_weights_per_task_are_those_of_each_curve(reader, rows):
    X, Y = rows
    weight = np.random.default_rng(0).uniform(size=Y.shape)
    weight[::3, 1] = 0
    both = FunnelCalibrator(reader).fit(X, Y, sample_weight=weight)
    for k in range(2):
        one = FunnelCalibrator(reader).fit(X, Y, sample_weight=weight[:, k])
        curve, expected = both.calibrators_[k], one.calibrators_[k]
        assert_array_equal(curve.rates_, expected.rates_)


def test_labels_that_break_the_order_are_counted(reader, rows):
    X, Y = rows
    swapped = Y[:, ::-1].copy()
    n = (Y[:, 0] > Y[:, 1]).sum()
    message = f"order of the tasks.*: 'conversion' without 'click' in {n} rows. If"
    with pytest.warns(UserWarning, match=message) as seen:
        ordered = FunnelCalibrator(reader).fit(X, swapped)
    assert len(seen) == 1
    assert seen[0].filename == __file__
    free = FunnelCalibrator(reader, ordered=False).fit(X, swapped)
    rate, p = swapped.mean(axis=0), free.predict_proba(X)
    assert_allclose(p.mean(axis=0), rate, rtol=0.02)
    assert (p[:, 1] > p[:, 0]).any()
    assert free.predict_cvr(X).max() == 1
    # In the order of a funnel, much of the second task's probability is lost.
    assert ordered.predict_proba(X)[:, 1].mean() < 0.65 * rate[1]
    lowered = np.minimum.accumulate(p, axis=1)
    assert_array_equal(ordered.predict_proba(X), lowered)


@pytest.mark.filterwarnings("ignore:In the calibration rows:UserWarning")
def test_all_broken_pairs_are_named_and_rows_without_weight_are_not():
    X = np.random.default_rng(0).random((8, 4))
    Y = np.array(
        [[0, 1, 1], [1, 0, 1], [0, 0, 1], [1, 1, 1], [0, 0, 0]] + [[1, 0, 0]] * 3
    )
    reader = ReadsFeatures(names=["click", "cart", "sale"]).fit(X, Y)
    weight = np.ones(Y.shape)
    weight[2, 2] = 0
    message = (
        "'cart' without 'click' in 1 rows, 'sale' without 'click' in 1 rows, "
        "'sale' without 'cart' in 1 rows"
    )
    with pytest.warns(UserWarning, match=message):
        FunnelCalibrator(reader, method="sigmoid").fit(X, Y, sample_weight=weight)


@pytest.mark.parametrize("kind", ["forest", "network"])
@pytest.mark.filterwarnings("ignore:In the calibration rows:UserWarning")
@pytest.mark.filterwarnings("ignore:Task .* in every row:UserWarning")
def test_predictions_of_a_fold_without_a_conversion_are_left_out(kind):
    """The second fold is trained on rows in which nobody converts."""
    X, Y = DATA.data.select_dtypes("number").to_numpy(), DATA.target.to_numpy().copy()
    Y[:450, 1] = 0
    halves = [
        (np.arange(450, 900), np.arange(450)),
        (np.arange(450), np.arange(450, 900)),
    ]
    if kind == "forest":
        model = RandomForestClassifier(20, min_samples_leaf=20, random_state=0)
    else:
        model = small()
    calibrated = FunnelCalibrator(model, cv=halves, method="sigmoid")
    # The first fold's rows have no conversion either, so that no curve is left.
    with pytest.warns(UserWarning, match=r"'(conversion|task_1)' \(label 0\)"):
        calibrated.fit(X, Y)
    assert calibrated.calibrators_[1] is None
    Y[:20, 1] = Y[:20, 0] = 1
    thirds = [*halves, (np.arange(300, 900), np.arange(300))]
    calibrated.set_params(cv=thirds).fit(X, Y)
    reference = FunnelCalibrator(model, cv=thirds[2:], method="sigmoid").fit(X, Y)
    assert calibrated.calibrators_[1] is not None
    assert calibrated.calibrators_[0].slope_ != reference.calibrators_[0].slope_


def test_a_second_fit_replaces_the_first():
    X, Y = distorted(4_000)
    calibrated = FunnelCalibrator(ReadsFeatures(), cv=2).fit(X, Y)
    three = np.column_stack([Y, Y[:, 1] * (np.arange(len(Y)) % 2)])
    wide = np.column_stack([X, X[:, 1]])
    calibrated.fit(wide, three)
    fresh = FunnelCalibrator(ReadsFeatures(), cv=2).fit(wide, three)
    assert calibrated.n_tasks_ == len(calibrated.calibrators_) == 3
    assert calibrated.task_names_ == fresh.task_names_
    assert_array_equal(calibrated.predict_proba(wide), fresh.predict_proba(wide))
    before = calibrated.predict_proba(wide)
    with pytest.raises(ValueError, match="must be 0 or 1"):
        calibrated.fit(X, 2 * Y)
    assert_array_equal(calibrated.predict_proba(wide), before)
    assert_array_equal(calibrated.fit(X, Y).predict_proba(X).shape, (4_000, 2))


def test_missing_labels_take_no_part_in_the_score(reader, rows):
    X, Y = rows[0], rows[1].astype(float)
    calibrated = FunnelCalibrator(reader).fit(X, Y)
    known = np.random.default_rng(0).random(len(X)) < 0.5
    Y[~known, 1] = np.nan
    p = calibrated.predict_proba(X)
    expected = roc_auc_score(Y[:, 0], p[:, 0]) + roc_auc_score(Y[known, 1], p[known, 1])
    assert calibrated.score(X, Y) == pytest.approx(expected / 2)
    assert ctcvr_auc_scorer(calibrated, X, Y) == roc_auc_score(Y[known, 1], p[known, 1])


def test_a_view_of_one_task_has_no_rows_to_weight_by_the_sampling(rows):
    X, Y = rows
    reader = ReadsFeatures(
        names=["click", "conversion"], negative_sampling_rate=0.25
    ).fit(X, Y)
    view = TaskView(reader, "conversion")
    with pytest.raises(
        ValueError, match=r"'conversion' alone .*=0\.25: take a TaskView"
    ):
        FunnelCalibrator(view).fit(X, Y[:, 1])
    weight = np.where(Y[:, 0] == 0, 4.0, 1.0)
    by_hand = FunnelCalibrator(view, method="sigmoid", negative_sampling_rate=1)
    by_hand.fit(X, Y[:, 1], sample_weight=weight)
    whole = FunnelCalibrator(reader, method="sigmoid", ordered=False).fit(X, Y)
    assert_allclose(
        by_hand.predict_proba(X)[:, 1], whole.predict_proba(X)[:, 1], rtol=1e-6
    )


def test_files_keep_the_metadata_that_is_requested(tmp_path):
    with config_context(enable_metadata_routing=True):
        calibrator = FunnelCalibrator(small(), method="sigmoid", cv=2)
        calibrator.set_score_request(sample_weight=True).fit(DATA.data, DATA.target)
        calibrator.save(tmp_path / "file")
        requests = FunnelCalibrator.load(tmp_path / "file")._get_metadata_request()
    assert requests.score.requests == {"sample_weight": True}


@pytest.mark.parametrize("retrain", ["partial_fit", "fit"])
def test_an_estimator_that_was_trained_again_is_named(retrain, tmp_path):
    X, Y = DATA.data, DATA.target
    model = small().fit(X, Y)
    calibrator = FunnelCalibrator(model, method="sigmoid").fit(X, Y)
    before = calibrator.predict_proba(X)
    copied = copy.deepcopy(calibrator)
    calibrator.save(tmp_path / "calibrator")
    loaded = FunnelCalibrator.load(tmp_path / "calibrator")
    getattr(model, retrain)(X, Y)
    uses = calibrator.predict_proba, lambda _: calibrator.save(tmp_path / "stale")
    for use in (*uses, lambda _: Scorer(calibrator, runtime="torch")):
        with pytest.warns(UserWarning, match=r"trained after FunnelCalibrator\.fit"):
            use(X)
    skops = pytest.importorskip("skops.io")
    stored = skops.dumps(copied)
    known = skops.get_untrusted_types(data=stored)
    others = copied, loaded, pickle.loads(pickle.dumps(copied))
    for other in (*others, skops.loads(stored, trusted=known)):
        assert_array_equal(other.predict_proba(X), before)
        other.estimator_.partial_fit(X, Y)
        with pytest.warns(UserWarning, match="calibrate a copy"):
            other.predict_proba(X)
    calibrator.fit(X, Y).predict_proba(X)
    view = FunnelCalibrator(model.task("click"), method="sigmoid").fit(X, Y["click"])
    view.predict_proba(X)
    getattr(model, retrain)(X, Y)
    with pytest.warns(UserWarning, match="calibrate a copy"):
        view.predict_proba(X)


def test_the_sampling_rate_is_that_of_the_fit():
    X, Y = DATA.data, DATA.target
    model = small(negative_sampling_rate=0.5).fit(X, Y)
    expected = FunnelCalibrator(model, method="sigmoid").fit(X, Y).predict_proba(X)
    model.set_params(negative_sampling_rate=1.0)
    found = FunnelCalibrator(model, method="sigmoid").fit(X, Y).predict_proba(X)
    assert_array_equal(found, expected)

"""ROC, precision-recall and reliability curves against scikit-learn."""

import sys

import numpy as np
import pandas as pd
import polars as pl
import pytest
from fake_estimators import ReadsFeatures
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError, UndefinedMetricWarning
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)
from sklearn.model_selection import KFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from small_model import X as REAL_X
from small_model import small

from sk_pwiser.inspection import (
    TaskCalibrationDisplay,
    TaskPrecisionRecallDisplay,
    TaskRocCurveDisplay,
)

DISPLAYS = [TaskRocCurveDisplay, TaskPrecisionRecallDisplay, TaskCalibrationDisplay]
N = 400


@pytest.fixture(scope="module")
def rows():
    """Labels as a DataFrame, and probabilities of two tasks and of the CVR."""
    rng = np.random.default_rng(0)
    click = rng.beta(2, 4, size=N)
    cvr = rng.beta(2, 3, size=N)
    y = rng.random(N) < click
    labels = np.column_stack([y, y & (rng.random(N) < cvr)]).astype(int)
    P = np.column_stack([click, click * cvr]).astype(np.float32)
    return pd.DataFrame(labels, columns=["click", "buy"]), P


@pytest.fixture(scope="module")
def fitted(rows):
    Y, _ = rows
    return ReadsFeatures(names=["click", "buy"]).fit(None, Y)


def features(P):
    """Return a table from which `ReadsFeatures` reads the predictions."""
    return np.column_stack([P, P[:, 1] / P[:, 0]])


def tasks_of(Y, P):
    """Yield labels and probabilities of the click, the purchase, and its CVR."""
    y = np.asarray(Y)
    clicked = y[:, 0] == 1
    yield y[:, 0], P[:, 0]
    yield y[:, 1], P[:, 1]
    yield y[clicked, 1], (P[:, 1] / P[:, 0])[clicked]


def test_roc_curves_are_those_of_scikit_learn(rows):
    Y, P = rows
    display = TaskRocCurveDisplay.from_predictions(Y, P, cvr=True)
    assert display.task_names == ["click", "buy", "buy | click"]
    for k, (y, p) in enumerate(tasks_of(Y, P)):
        fpr, tpr, _ = roc_curve(y, p)
        assert_allclose(display.lines_[k].get_xydata(), np.column_stack([fpr, tpr]))
        assert display.roc_auc[k] == pytest.approx(roc_auc_score(y, p))
        label = display.lines_[k].get_label()
        assert label == f"{display.task_names[k]} (AUC = {roc_auc_score(y, p):.3f})"
    assert display.figure_ is display.ax_.figure


def test_precision_recall_curves_are_those_of_scikit_learn(rows):
    Y, P = rows
    display = TaskPrecisionRecallDisplay.from_predictions(Y, P, cvr=True)
    for k, (y, p) in enumerate(tasks_of(Y, P)):
        precision, recall, _ = precision_recall_curve(y, p, drop_intermediate=True)
        data = display.lines_[k].get_xydata()
        assert_allclose(data, np.column_stack([recall, precision]))
        average = average_precision_score(y, p)
        assert display.average_precision[k] == pytest.approx(average)
        assert display.chance_levels_[k].get_ydata()[0] == pytest.approx(y.mean())


def test_reliability_curves_are_those_of_scikit_learn(rows):
    Y, P = rows
    display = TaskCalibrationDisplay.from_predictions(Y, P, n_bins=8)
    for line, (y, p) in zip(display.lines_, tasks_of(Y, P), strict=False):
        observed, predicted = calibration_curve(y, p, n_bins=8, strategy="quantile")
        assert_allclose(line.get_xdata(), predicted, rtol=1e-5)
        assert_allclose(line.get_ydata(), observed, rtol=1e-5)


def test_intervals_are_those_of_clopper_and_pearson(rows):
    Y, P = rows
    display = TaskCalibrationDisplay.from_predictions(Y, P, n_bins=5)
    _, high = display.ax_.get_ylim()
    for curve, collection in zip(display.curves, display.intervals_, strict=True):
        for k, segment in enumerate(collection.get_segments()):
            n = int(curve.weight[k])
            test = binomtest(round(curve.observed[k] * n), n)
            low_end, high_end = test.proportion_ci(0.95, "exact")
            assert_allclose(segment[:, 1], [low_end, min(high_end, high)], rtol=1e-6)


@pytest.mark.parametrize("display_class", DISPLAYS)
def test_integer_weights_are_repeated_rows(rows, display_class):
    Y, P = rows
    weight = np.random.default_rng(1).integers(0, 4, size=N)
    repeated = np.repeat(np.arange(N), weight)
    weighted = display_class.from_predictions(Y, P, sample_weight=weight, cvr=True)
    plain = display_class.from_predictions(Y.iloc[repeated], P[repeated], cvr=True)
    if display_class is TaskCalibrationDisplay:
        # Bins may end inside a repeated row, which is not split with weights.
        for one in (weighted, plain):
            means = [np.average(c.observed, weights=c.weight) for c in one.curves]
            assert_allclose(means, one.base_rates)
        return
    for one, other in zip(weighted.lines_, plain.lines_, strict=True):
        assert_allclose(one.get_xydata(), other.get_xydata(), atol=1e-6)


@pytest.mark.parametrize("display_class", DISPLAYS)
def test_estimators_and_their_predictions_give_the_same_picture(
    rows, fitted, display_class
):
    Y, P = rows
    given = display_class.from_predictions(Y, P, cvr=True)
    pipeline = make_pipeline(FunctionTransformer(), fitted)
    for estimator in (fitted, pipeline):
        found = display_class.from_estimator(estimator, features(P), Y, cvr=True)
        assert found.task_names == given.task_names
        for one, other in zip(found.lines_, given.lines_, strict=True):
            assert_allclose(one.get_xydata(), other.get_xydata(), rtol=1e-4, atol=1e-6)


def test_lists_of_probabilities_are_read(rows):
    Y, P = rows
    forest = RandomForestClassifier(5, max_depth=3, random_state=0).fit(P, Y)
    proba = forest.predict_proba(P)  # one array per task
    expected = [roc_auc_score(Y.iloc[:, k], proba[k][:, 1]) for k in range(2)]
    display = TaskRocCurveDisplay.from_estimator(forest, P, Y)
    again = TaskRocCurveDisplay.from_predictions(Y, proba)
    assert display.roc_auc == again.roc_auc == pytest.approx(expected)
    expected = TaskRocCurveDisplay.from_predictions(Y, P).roc_auc
    assert TaskRocCurveDisplay.from_predictions(Y, P.tolist()).roc_auc == expected
    of_click = TaskRocCurveDisplay.from_predictions(Y["click"], P[:, 0].tolist())
    assert of_click.roc_auc == expected[:1]


def test_predictions_with_names_are_those_of_the_tasks(rows):
    Y, P = rows
    frame = pd.DataFrame(P, columns=["click", "buy"], index=Y.index)
    expected = TaskRocCurveDisplay.from_predictions(Y, P).roc_auc
    other = frame.set_axis(["p_0", "p_1"], axis=1)
    for given in (frame, other, pd.DataFrame(P)):
        assert TaskRocCurveDisplay.from_predictions(Y, given).roc_auc == expected
    swapped = frame[["buy", "click"]]
    message = r"columns of P must be in the order .* \['click', 'buy'\]"
    for given in (swapped, {"model": swapped}, pl.from_pandas(swapped).lazy()):
        with pytest.raises(ValueError, match=message):
            TaskRocCurveDisplay.from_predictions(Y, given)
    with pytest.raises(ValueError, match=message):
        TaskRocCurveDisplay.from_predictions(
            Y.to_numpy(), swapped, task_names=["click", "buy"]
        )
    with pytest.raises(ValueError, match="Y and P have the same index labels in diff"):
        TaskRocCurveDisplay.from_predictions(Y, frame[::-1])


@pytest.mark.parametrize("display_class", DISPLAYS)
def test_plot_draws_on_given_axes_with_given_properties(rows, pyplot, display_class):
    Y, P = rows
    _, ax = pyplot.subplots()
    display = display_class.from_predictions(Y, P, ax=ax, color="black")
    assert display.ax_ is ax
    assert {line.get_color() for line in display.lines_} == {"black"}
    assert display.plot() is display
    assert display.ax_ is not ax


@pytest.fixture(scope="module")
def rare(rows):
    """The labels with five purchases."""
    labels = rows[0].copy()
    labels.iloc[np.flatnonzero(labels["buy"])[5:], 1] = 0
    return labels


@pytest.mark.parametrize("display_class", DISPLAYS[1:])
def test_the_scale_is_logarithmic_for_rare_tasks(rows, rare, display_class):
    Y, P = rows
    for labels, expected in [(Y, "linear"), (rare, "log")]:
        display = display_class.from_predictions(labels, P)
        assert display.ax_.get_yscale() == expected


def test_a_logarithmic_scale_needs_no_event(rows, rare):
    Y, P = rows
    for display_class in DISPLAYS[1:]:
        with pytest.warns(UndefinedMetricWarning, match="has only class 0"):
            display = display_class.from_predictions(0 * Y, P)
        assert display.ax_.get_yscale() == "linear"
        with pytest.warns(UndefinedMetricWarning, match="has only class 0"):
            display = display_class.from_predictions(rare.assign(click=0), P)
        assert display.ax_.get_yscale() == "log"
        display.figure_.canvas.draw()
    # A bin without positives has an interval.
    display = TaskCalibrationDisplay.from_predictions(rare, P)
    assert (display.curves[1].observed == 0).any()
    assert len(display.intervals_[1].get_segments()) == 10
    display.figure_.canvas.draw()  # without a warning about zeros


@pytest.mark.parametrize("display_class", DISPLAYS)
def test_one_class_is_a_warning_that_names_the_task(rows, display_class):
    Y, P = rows
    with pytest.warns(UndefinedMetricWarning, match="task 'buy' has only class 0") as w:
        display = display_class.from_predictions(Y.assign(buy=0), P)
    assert w[0].filename == __file__
    click, buy = display.lines_
    assert len(click.get_xdata()) > 2
    assert len(buy.get_xdata()) == 0
    display.figure_.canvas.draw()
    with pytest.warns(UndefinedMetricWarning, match=r"task 'b . a' has no rows"):
        display_class.from_predictions(
            [[0, 1], [0, 0]], P[:2], cvr=True, task_names=["a", "b"]
        )


@pytest.mark.parametrize("display_class", DISPLAYS)
def test_values_of_a_column_have_curves_of_their_own(rows, fitted, display_class):
    Y, P = rows
    market = np.resize(["nl", "be", "nl", None], N)
    weight = np.linspace(0.5, 2, N)
    options = {"cvr": True, "sample_weight": weight}
    display = display_class.from_predictions(Y, P, by=market, **options)
    assert display.model_names == ["nl"] * 3 + ["be"] * 3
    for k, value in enumerate(["nl", "be"]):
        own = market == value
        options["sample_weight"] = weight[own]
        expected = display_class.from_predictions(Y[own], P[own], **options)
        for a, b in zip(display.lines_[3 * k :], expected.lines_, strict=False):
            assert_array_equal(a.get_xydata(), b.get_xydata())
    column = pd.Series(market, name="market")
    named = display_class.from_predictions(Y, {"a": P}, by=column)
    assert named.model_names == ["a, market=nl"] * 2 + ["a, market=be"] * 2
    X = np.column_stack([features(P), np.resize([0, 1, 0, np.nan], N)])
    of_model = display_class.from_estimator(fitted, X, Y, by=3)
    assert of_model.model_names == ["3=0.0"] * 2 + ["3=1.0"] * 2
    for a, b in zip(named.lines_, of_model.lines_, strict=True):
        assert_array_equal(a.get_xydata(), b.get_xydata())


def test_each_value_has_its_base_rate_and_warning(rows):
    Y, P = rows
    market = np.where(Y["buy"] == 1, "nl", np.resize(["nl", "be"], N))
    with pytest.warns(UndefinedMetricWarning, match="task 'buy', be has only class 0"):
        display = TaskPrecisionRecallDisplay.from_predictions(Y, P, by=market)
    levels = [line.get_ydata()[0] for line in display.chance_levels_]
    means = Y.groupby(market, sort=False).mean().loc[["nl", "be"]].to_numpy().ravel()
    assert sorted(levels) == pytest.approx(sorted(means))


@pytest.mark.parametrize(
    ("by", "message"),
    [
        (np.arange(N), "at most 8.*; got 400 values"),
        ([None] * N, "at least one value .* got 0 values"),
        (["nl"], "inconsistent numbers of samples"),
        (
            pd.Series(["nl"] * N)[::-1],
            "Y and by have the same index labels in different",
        ),
    ],
)
def test_bad_values_of_a_column(rows, by, message):
    with pytest.raises(ValueError, match=message):
        TaskRocCurveDisplay.from_predictions(*rows, by=by)


def test_a_column_that_is_not_there(rows, fitted):
    Y, P = rows
    with pytest.raises(ValueError, match="by is 'tab', which is not a column"):
        TaskRocCurveDisplay.from_estimator(fitted, features(P), Y, by="tab")
    with pytest.raises(ValueError, match="got 400 values"):
        TaskRocCurveDisplay.from_estimator(fitted, features(P), Y, by=0)


@pytest.mark.parametrize("display_class", DISPLAYS)
def test_missing_labels_take_no_part_in_their_task(rows, display_class):
    Y, P = rows
    some = Y.astype(float)
    some.iloc[::3, 1] = np.nan
    known = some["buy"].notna().to_numpy()
    found = display_class.from_predictions(some, P)
    expected = display_class.from_predictions(Y[known], P[known])
    full = display_class.from_predictions(Y, P)
    assert_array_equal(found.lines_[0].get_xydata(), full.lines_[0].get_xydata())
    assert_array_equal(found.lines_[1].get_xydata(), expected.lines_[1].get_xydata())


@pytest.mark.parametrize("display_class", DISPLAYS)
def test_errors(rows, fitted, monkeypatch, display_class):
    Y, P = rows
    with pytest.raises(NotFittedError):
        display_class.from_estimator(small(), REAL_X[:N], Y[: len(REAL_X)])
    for error, kwargs in [
        ("predict_proba must return an array", {"P": P[:, :1]}),
        ("predict_proba must return an array", {"P": P[:5]}),
        (r"Predictions must be probabilities in .* for task 'buy' in row 3", {"P": 2}),
        ("task_names must be 2 distinct names", {"task_names": ["a", "a"]}),
        ("P must contain at least one model", {"P": {}}),
        ("Labels must be 0 or 1", {"Y": Y + 1}),
        ("sample_weight must have shape", {"sample_weight": [1.0]}),
        ("Y and sample_weight have the same index", {"sample_weight": Y["buy"][::-1]}),
    ]:
        if isinstance(kwargs.get("P"), int):
            wrong = P.copy()
            wrong[3, 1] = kwargs["P"]
            kwargs = {"P": wrong}
        with pytest.raises(ValueError, match=error):
            display_class.from_predictions(**{"Y": Y, "P": P, **kwargs})
    with pytest.raises(ValueError, match="must be in the order"):
        display_class.from_estimator(fitted, features(P), Y[["buy", "click"]])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        display_class.from_estimator(fitted, features(P)[:5], Y)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r" needs matplotlib: .*\[plot\]"):
        display_class.from_predictions(Y, P)


def cross_validated(rows, n_folds=3):
    """Return what `cross_validate` returns, its table and its labels."""
    Y, P = rows
    results = cross_validate(
        ReadsFeatures(names=["click", "buy"]),
        features(P),
        Y,
        cv=KFold(n_folds, shuffle=True, random_state=0),
        scoring=lambda *args: 0.0,
        return_estimator=True,
        return_indices=True,
    )
    return results, features(P), Y


@pytest.mark.parametrize("display_class", DISPLAYS)
def test_folds_are_curves_of_their_rows_with_one_entry_per_task(rows, display_class):
    results, X, Y = cross_validated(rows)
    weight = np.random.default_rng(1).integers(1, 4, size=N)
    display = display_class.from_cv_results(
        results, X, Y, cvr=True, sample_weight=weight
    )
    tasks = ["click", "buy", "buy | click"]
    assert display.task_names == tasks * 3
    for k, test in enumerate(results["indices"]["test"]):
        of_fold = display_class.from_predictions(
            Y.iloc[test], rows[1][test], cvr=True, sample_weight=weight[test]
        )
        found = display.lines_[3 * k : 3 * k + 3]
        for line, expected in zip(found, of_fold.lines_, strict=True):
            assert_allclose(line.get_xydata(), expected.get_xydata(), rtol=1e-5)
    labels = [line.get_label() for line in display.lines_]
    # matplotlib leaves out labels that begin with "_".
    assert [label.partition(" (")[0] for label in labels] == [*tasks, *["_fold"] * 6]
    if display_class is TaskRocCurveDisplay:
        aucs = display.roc_auc[1::3]
        assert labels[1] == f"buy (AUC = {np.mean(aucs):.3f} ± {np.std(aucs):.3f})"
    if display_class is TaskPrecisionRecallDisplay:
        levels = [line.get_ydata()[0] for line in display.chance_levels_]
        assert_allclose(levels, np.reshape(display.base_rates, (3, 3)).mean(0))


@pytest.mark.parametrize("display_class", DISPLAYS)
def test_a_fold_with_one_class_is_counted_in_the_warning(rows, display_class):
    results, X, Y = cross_validated(rows)
    rare = Y.assign(buy=0)
    rare.iloc[results["indices"]["test"][1][:40], 1] = 1
    with pytest.warns(UndefinedMetricWarning, match="class 0 in 2 of 3 folds") as w:
        display = display_class.from_cv_results(results, X, rare)
    assert w[0].filename == __file__
    assert [len(line.get_xdata()) > 0 for line in display.lines_[1::2]] == [0, 1, 0]
    assert "nan" not in display.lines_[1].get_label()
    display.figure_.canvas.draw()


def test_results_without_folds_or_of_other_rows_are_refused(rows):
    results, X, Y = cross_validated(rows)
    show = TaskRocCurveDisplay.from_cv_results
    for key, option in [
        ("estimator", "return_estimator"),
        ("indices", "return_indices"),
    ]:
        with pytest.raises(ValueError, match=f"has no '{key}'; .* needs {option}=True"):
            show({k: v for k, v in results.items() if k != key}, X, Y)
    with pytest.raises(IndexError, match="out of bounds"):
        show(results, X[:100], Y[:100])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        show(results, X, Y[:100])

"""Labels of one class, and sample weights, some of which are zero."""

import warnings
from functools import partial

import numpy as np
import pytest
from fake_estimators import ReadsFeatures
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    log_loss,
    recall_score,
    roc_auc_score,
)

from sk_pwiser.metrics import (
    ctcvr_auc_scorer,
    ctr_auc_scorer,
    cvr_auc_scorer,
    make_task_scorer,
    mean_auc_scorer,
    mean_log_loss_scorer,
)

ALL_SCORERS = (
    ctr_auc_scorer,
    ctcvr_auc_scorer,
    cvr_auc_scorer,
    mean_auc_scorer,
    mean_log_loss_scorer,
)


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
    recall = make_task_scorer(recall_score, 1, response_method="predict")
    assert_undefined(recall, model, X, Y * 0, match="only class 0")
    # With both classes a metric keeps its number and its own warning.
    with pytest.warns(UndefinedMetricWarning, match="^no$"):
        assert make_task_scorer(always_undefined, 0)(model, X, Y) == 0.25


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

"""Labels that are missing, and weights per row and task."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from pools import Brier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_validate
from small_model import X, Y, refuses, small, warnings_in

from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.losses import LOSSES
from sk_pwiser.metrics import (
    ctcvr_auc_scorer,
    ctr_auc_scorer,
    cvr_auc_scorer,
    mean_auc_scorer,
    mean_log_loss_scorer,
)
from sk_pwiser.model_selection import FunnelStratifiedKFold, compare_models

IS_MISSING = np.random.default_rng(0).random(len(Y)) < 0.3
LABELS = Y.astype(float)
LABELS.loc[IS_MISSING, "conversion"] = np.nan
WEIGHTS = np.c_[np.ones(len(Y)), ~IS_MISSING]


def ignoring(**params):
    return small(missing_labels="ignore", **params)


@pytest.fixture(scope="module")
def fitted():
    return ignoring().fit(X, LABELS)


@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("task_space", ["entire", "conditional"])
def test_a_weight_of_0_is_a_missing_label(loss, task_space):
    params = {"loss": loss, "early_stopping": True, "stratified_batches": loss != "jrc"}
    params["network_params"] = {"task_space": task_space, "bottom_units": (8,)}
    weighted = small(**params).fit(X, Y, sample_weight=WEIGHTS)
    by_label = ignoring(**params).fit(X, LABELS)
    assert_array_equal(weighted.predict_proba(X), by_label.predict_proba(X))
    assert weighted.history_[-1]["train_missing_conversion"] > 0


def test_without_missing_labels_nothing_changes():
    plain = small().fit(X, Y)
    assert_array_equal(
        ignoring().fit(X, Y.astype(float)).predict_proba(X), plain.predict_proba(X)
    )
    weight = np.random.default_rng(0).uniform(1, 2, len(Y))
    tiled = small().fit(X, Y, sample_weight=np.c_[weight, weight])
    by_row = small().fit(X, Y, sample_weight=weight)
    assert_array_equal(tiled.predict_proba(X), by_row.predict_proba(X))


def test_weights_per_task_matter():
    weight = np.c_[np.ones(len(Y)), np.where(Y["conversion"], 5.0, 1.0)]
    model = small(loss="bce", max_epochs=20).fit(X, Y, sample_weight=weight)
    plain = small(loss="bce", max_epochs=20).fit(X, Y)
    click, conversion = ((m.predict_proba(X).mean(axis=0)) for m in (model, plain))
    assert click[1] > 1.5 * conversion[1]
    assert_allclose(click[0], conversion[0], rtol=0.1)


def test_history_counts_missing_labels_and_leaves_them_out_of_the_auc():
    model = ignoring(early_stopping=True, max_epochs=3, n_iter_no_change=9)
    history = model.fit(X, LABELS).history_
    counts = history[:, ("train_missing_conversion", "valid_missing_conversion")]
    assert {sum(pair) for pair in counts} == {IS_MISSING.sum()}
    assert len(set(counts)) == 1  # the same rows in every epoch
    assert "train_missing_click" not in history[0]
    assert "train_missing_conversion" not in small().fit(X, Y).history_[0]
    known = ~IS_MISSING
    p = model.predict_proba(X)
    expected = [
        roc_auc_score(Y["click"], p[:, 0]),
        roc_auc_score(Y["conversion"][known], p[known, 1]),
    ]
    assert model.score(X, LABELS) == pytest.approx(np.mean(expected))
    weighted = small().fit(X, Y)
    weighted._result = model._result
    assert weighted.score(X, Y, WEIGHTS) == pytest.approx(np.mean(expected))


def test_scorers_leave_missing_labels_out(fitted):
    p, cvr, known = fitted.predict_proba(X), fitted.predict_cvr(X), ~IS_MISSING
    clicked = known & (Y["click"] == 1)
    aucs = [
        roc_auc_score(Y["click"], p[:, 0]),
        roc_auc_score(Y["conversion"][known], p[known, 1]),
        roc_auc_score(Y["conversion"][clicked], cvr[clicked]),
    ]
    y, q = Y.to_numpy(), np.clip(p.astype(float), 1e-7, 1)
    losses = -np.where(y == 1, np.log(q), np.log1p(-q))
    for scorer, expected in (
        (ctr_auc_scorer, aucs[0]),
        (ctcvr_auc_scorer, aucs[1]),
        (cvr_auc_scorer, aucs[2]),
        (mean_auc_scorer, np.mean(aucs[:2])),
        (mean_log_loss_scorer, -(losses[:, 0].mean() + losses[known, 1].mean()) / 2),
    ):
        assert scorer(fitted, X, LABELS) == pytest.approx(expected)
        assert scorer(fitted, X, Y, sample_weight=WEIGHTS) == pytest.approx(expected)


def test_searches_and_comparisons():
    cv = FunnelStratifiedKFold(2, random_state=0)
    scoring = {"click": ctr_auc_scorer, "conversion": ctcvr_auc_scorer}
    found = cross_validate(
        ignoring(), X, LABELS, cv=cv, scoring=scoring, error_score="raise"
    )
    assert np.isfinite(found["test_conversion"]).all()
    search = GridSearchCV(ignoring(), {"lr": [0.01]}, cv=cv, scoring=mean_auc_scorer)
    assert np.isfinite(search.fit(X, LABELS).best_score_)
    losses = ["bce", "pwiser"]
    comparison = compare_models(X, LABELS, models=losses, estimator=ignoring(), cv=2)
    assert np.isfinite(comparison.scores["CVR AUC"]).all()


def test_updates():
    model = ignoring().partial_fit(X, LABELS)
    again = small().partial_fit(X, Y, sample_weight=WEIGHTS)
    assert_array_equal(model.predict_proba(X), again.predict_proba(X))
    model.partial_fit(X, LABELS)
    again.partial_fit(X, Y, sample_weight=WEIGHTS)
    assert_array_equal(model.predict_proba(X), again.predict_proba(X))
    unknown = LABELS.assign(conversion=np.nan)
    assert np.isfinite(model.partial_fit(X, unknown).predict_proba(X)).all()


def test_target_statistics_of_known_labels():
    data = make_ctr_cvr(2_000, ctr=0.4, cvr=0.4, n_categories=50, random_state=0)
    known = np.random.default_rng(1).random(len(data.data)) > 0.4
    labels = data.target.astype(float)
    labels.loc[~known, "conversion"] = np.nan
    params = {"target_encoding": ["category_0"], "max_epochs": 1}
    model = ignoring(**params).fit(data.data, labels)
    # Numbers of rows and of ones, per task and code.
    n_rows, ones = model._result.schema.statistics.counts_[0].sum(axis=2)
    assert_allclose(n_rows, [len(labels), known.sum()])
    assert_allclose(ones, [data.target["click"].sum(), labels["conversion"].sum()])


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_the_message_names_the_parameter(earlier, method):
    message = "Y contains NaN: 1 in column 'click', .* row 2. With missing_labels='ign"
    no_click = Y.astype(float).mask(np.arange(2 * len(Y)).reshape(-1, 2) == 4)
    refuses(earlier, ValueError, message, Y=no_click, method=method)
    refuses(small(), ValueError, message, Y=no_click["click"])


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_loss_must_take_weights_per_task(method):
    model = ignoring(loss=Brier)
    message = (
        "loss with weights per row and task; loss Brier takes weights per row only"
    )
    refuses(model, ValueError, message, Y=LABELS, method=method)
    refuses(model, ValueError, message, sample_weight=WEIGHTS, method=method)
    model = ignoring(loss=Brier).partial_fit(X, Y)
    with pytest.raises(ValueError, match=message):
        model.partial_fit(X, LABELS)


N = 6_000


@pytest.fixture(scope="module")
def selected():
    data = make_ctr_cvr(N, ctr=0.3, cvr=0.3, random_state=0)
    labels = data.target.astype(float)
    half = np.random.default_rng(0).random(N) < 0.5
    labels.loc[half & (labels["click"] == 1), "conversion"] = np.nan
    return data, labels


def rate(model, data, labels):
    return model.fit(data.data, labels).predict_proba(data.data)[:, 1].mean()


def bce(**network_params):
    params = {"max_epochs": 15, "early_stopping": False}
    return ignoring(loss="bce", network_params=network_params, **params)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["shared_bottom", "esmm"])
def test_conditional_space_has_no_bias_by_selection(selected, network):
    data, labels = selected
    model = bce(task_space="conditional").set_params(network=network)
    truth = data.target["conversion"].mean()
    assert rate(model, data, labels) == pytest.approx(truth, rel=0.15)


@pytest.mark.slow
def test_entire_space_has_a_bias_by_selection_and_a_warning(selected):
    data, labels = selected
    truth = data.target["conversion"].mean()
    message = "'conversion' has a label in 5.% of the rows with 'click' and in 100%"
    with pytest.warns(UserWarning, match=message):
        found = rate(
            bce().set_params(device="cpu"), data, labels
        )  # same random numbers
    assert found < 0.7 * truth
    # No warning, and no bias, if labels lack in rows with and without a click.
    lacking = labels.copy()
    lacking.loc[np.random.default_rng(1).random(N) < 0.5, "conversion"] = np.nan
    regardless = data.target.astype(float).mask(
        np.c_[np.zeros(N, bool), np.random.default_rng(1).random(N) < 0.5]
    )
    assert rate(bce(), data, regardless) == pytest.approx(truth, rel=0.15)


def test_an_event_after_a_missing_label_may_break_the_funnel():
    """It follows from the click, as the conversion is unknown."""
    labels = Y.astype(float).assign(paid=Y["conversion"] * (np.arange(len(Y)) % 2))
    labels.loc[labels.index[Y["click"] == 0][:7], ["conversion", "paid"]] = np.nan, 1
    found = warnings_in(ignoring().fit, X, labels)
    assert found[0].startswith("7 of 300 rows break the funnel")


def test_a_task_without_any_label():
    with pytest.warns(UserWarning, match="Task 'conversion' has no label in any row"):
        model = ignoring().fit(X, LABELS.assign(conversion=pd.NA))
    assert np.isfinite(model.predict_proba(X)).all()
    assert all(torch.isfinite(p).all() for p in model.net_.module_.parameters())


@pytest.mark.parametrize("task_space", ["entire", "conditional"])
def test_a_first_task_without_any_weight(task_space):
    weights = np.tile([0.0, 1.0], (len(Y), 1))
    model = small(network_params={"task_space": task_space})
    with pytest.warns(UserWarning, match="Task 'click' has no label in any row"):
        model.fit(X, Y, sample_weight=weights)
    assert np.isfinite(model.predict_proba(X)).all()

"""Comparisons of models that predict amounts."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import LogisticRegression
from small_model import small

from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.metrics import normalized_gini, predicted_over_observed
from sk_pwiser.model_selection import ModelComparison, compare_models
from sk_pwiser.model_selection._value_models import named_value_models

pytestmark = pytest.mark.filterwarnings("ignore:.*is predicted as more probable")
LOSSES = ["bce", "pwiser"]
VALUE_TASKS = {"value": "conversion"}
HALVES = [
    (np.arange(400), np.arange(400, 800)),
    (np.arange(400, 800), np.arange(400)),
]


@pytest.fixture(scope="module")
def log():
    data = make_ctr_cvr(800, ctr=0.5, cvr=0.5, value=True, random_state=0)
    return data.data, data.target


def test_models_of_values_are_scored_by_order_and_total(log):
    X, Y = log
    Y = Y.copy()
    unknown = Y.index[(Y["conversion"] == 1)][-1]
    Y.loc[unknown, "value"] = np.nan
    names = ["mean_amount", "logistic_gamma"]
    models = named_value_models(names, VALUE_TASKS, classifier=small())
    comparison = compare_models(X, Y, models=models, value_tasks=VALUE_TASKS, cv=HALVES)
    assert list(comparison.scores) == ["value Gini", "minus value total error"]
    gamma = named_value_models(["logistic_gamma"], VALUE_TASKS)["logistic_gamma"]
    predicted = gamma.fit(X[:400], Y[:400]).predict_value(X[400:])
    rows = np.arange(400, 800) != unknown
    spend = Y["value"][400:].where(Y["conversion"][400:] == 1, 0)[rows]
    # Known amounts stand for the unknown one.
    n_bought = (Y["conversion"][400:] == 1).sum()
    factor = n_bought / (n_bought - 1)
    weight = np.where(Y["conversion"][400:] == 1, factor, 1)[rows]
    gini = normalized_gini(spend, predicted[rows], sample_weight=weight)
    ratio = predicted_over_observed(spend, predicted[rows], sample_weight=weight)
    assert_allclose(comparison.scores["value Gini"][1, 0], gini)
    assert_allclose(comparison.ratios["value"][1, 0], ratio)
    error = comparison.scores["minus value total error"][1, 0]
    assert_allclose(error, -abs(ratio - 1))
    mean = comparison.ratios["value"].mean(axis=1)
    expected = f"mean_amount {mean[0]:.2f}, logistic_gamma {mean[1]:.2f}."
    assert str(comparison).endswith(f"predicted / observed total: {expected}")


def test_this_package_against_the_mean_amount_by_name(log):
    X, Y = log
    names = ["sk_pwiser", "mean_amount"]
    comparison = compare_models(X, Y, models=names, value_tasks=VALUE_TASKS, cv=2)
    assert comparison.candidates == names
    assert all(np.isfinite(scores).all() for scores in comparison.scores.values())


def test_losses_are_compared_by_events_and_values(log):
    X, Y = log
    model = small(value_tasks=VALUE_TASKS)
    X = X.assign(market=np.arange(800.0) % 2)
    comparison = compare_models(X, Y, models=LOSSES, estimator=model, cv=2, by="market")
    metrics = [name for name in comparison.scores if "market" not in name]
    assert metrics == [
        "click AUC",
        "conversion AUC",
        "CVR AUC",
        "minus log loss",
        "value Gini",
        "minus value total error",
    ]
    assert list(comparison.ratios) == [
        "value",
        "value, market=0.0",
        "value, market=1.0",
    ]
    assert comparison.ratios["value"].shape == (2, 2)
    by_index = small(value_tasks={2: 1})
    of_array = compare_models(X, Y.to_numpy(), models=LOSSES, estimator=by_index, cv=2)
    gini = comparison.scores["value Gini"]
    assert_array_equal(of_array.scores["value_2 Gini"], gini)


def test_wrong_models_of_values(log):
    X, Y = log
    with pytest.raises(TypeError, match="must have the method predict_value"):
        compare_models(
            X,
            Y,
            models={"a": small(value_tasks=VALUE_TASKS), "b": LogisticRegression()},
            value_tasks=VALUE_TASKS,
        )
    models = {
        "a": small(value_tasks=VALUE_TASKS),
        "b": small(value_tasks={"value": "click"}),
    }
    with pytest.raises(ValueError, match="value_tasks must be equal in all models"):
        compare_models(X, Y, models=models, value_tasks=VALUE_TASKS)
    with pytest.raises(ValueError, match="'spend', which Y lacks"):
        compare_models(X, Y, value_tasks={"spend": "conversion"})


def test_ratios_of_scores_that_were_computed_elsewhere():
    scores = {"spend Gini": [[0.5, 0.6], [0.4, 0.7]]}
    ratios = {"spend": [[0.9, 1.0], [1.2, 1.4]]}
    comparison = ModelComparison(
        ["a", "b"], scores, test_train_ratio=0.5, ratios=ratios
    )
    assert str(comparison).endswith(
        "spend, predicted / observed total: a 0.95, b 1.30."
    )
    assert isinstance(comparison.table, pd.DataFrame)

"""Scores of predicted amounts, for comparisons of models."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sk_pwiser import _responses
from sk_pwiser._tasks import _amounts
from sk_pwiser._tasks._labels import names_of_columns
from sk_pwiser.metrics import normalized_gini, predicted_over_observed
from sk_pwiser.model_selection._model_comparison import RATIO


def value_tasks_of(estimators: Sequence[Any]) -> dict[Any, Any]:
    """Return the `value_tasks` of the models, which must be equal."""
    mappings = []
    for estimator in estimators:
        params = estimator.get_params()
        paths = _responses.find_paths(params, "value_tasks")
        mappings += [dict(params[path]) for path in paths if params[path]]
    if not mappings:
        return {}
    first, *later = mappings
    for mapping in later:
        if mapping != first:
            raise ValueError(
                "value_tasks must be equal in all models, since their scores are those "
                f"of the same amounts; got {first!r} and {mapping!r}."
            )
    return first


def labels_of_events(Y: Any, value_tasks: Mapping[Any, Any]) -> Any:
    """Return labels without their columns of amounts."""
    events, *_ = _amounts.split_columns(Y, value_tasks, names_of_columns(Y))
    return events


def value_scoring(Y: Any, value_tasks: Mapping[Any, Any]) -> dict[str, Any]:
    """Return scorers by name: the order and the total of each value."""
    if not value_tasks:
        return {}
    _, _, names = _amounts.split_columns(Y, value_tasks, names_of_columns(Y))
    scoring: dict[str, Any] = {}
    for index, name in enumerate(names):
        scoring[f"{name} Gini"] = ValueScorer("gini", index, value_tasks)
        scoring[f"minus {name} total error"] = ValueScorer("error", index, value_tasks)
        scoring[f"{RATIO}{name}"] = ValueScorer("ratio", index, value_tasks)
    return scoring


class ValueScorer:
    """A score of the amounts per impression that a model predicts for one value.

    It is the normalised Gini coefficient ("gini"), the predicted over the observed
    total ("ratio"), or minus the distance of this ratio from 1 ("error"). Rows whose
    amount is unknown are left out, and others with the event stand for them.
    """

    def __init__(self, score: str, index: int, value_tasks: Mapping[Any, Any]) -> None:
        self.score = score
        self.index = index
        self.value_tasks = dict(value_tasks)

    def __call__(
        self, estimator: Any, X: Any, Y: Any, sample_weight: Any = None
    ) -> float:
        predictions = _responses.Predictions(estimator, X, {})
        amounts = predictions.observed_amounts(Y, self.value_tasks)
        observed = amounts[:, self.index]
        predicted = np.asarray(estimator.predict_value(X), dtype=np.float64)
        predicted = predicted.reshape(len(observed), -1)[:, self.index]
        rows = ~np.isnan(observed)
        weight = None
        if sample_weight is not None or not rows.all():
            weights = predictions.amount_weights(
                Y, self.value_tasks, amounts, sample_weight
            )
            weight = weights[rows, self.index]
        score = normalized_gini if self.score == "gini" else predicted_over_observed
        result = score(observed[rows], predicted[rows], sample_weight=weight)
        return -abs(result - 1) if self.score == "error" else result

"""Levels of predicted amounts: totals that agree with those of calibration rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from sk_pwiser import _responses

# The level of calibration rows is followed by half with so many amounts, if their
# deviations from the predicted means are as large as these means.
LEVEL_AMOUNTS = 100.0
# Amounts whose deviations are as large as the predicted means, before any are seen: one
# or two say nothing of how much amounts vary.
PRIOR_AMOUNTS = 2.0


@dataclass(frozen=True, kw_only=True)
class ValueRows:
    """Amounts of the values in calibration rows, and the predicted means.

    All arrays are float64 of shape `(n_samples, n_values)`.
    """

    amounts: np.ndarray  # NaN where there is none
    means: np.ndarray  # given the event; NaN where no estimator predicts the row
    weight: np.ndarray

    def log_factors(self, rows: Any = slice(None)) -> np.ndarray:
        """Return the logarithms of observed over predicted totals, `(n_values,)`.

        They are shrunk to 0 as far as amounts are few or vary.
        """
        amounts = self.amounts[rows]
        means = self.means[rows]
        weight = self.weight[rows]
        counts = ~np.isnan(amounts) & ~np.isnan(means) & (weight > 0)
        observed = np.where(counts, weight * amounts, 0.0).sum(axis=0)
        predicted = np.where(counts, weight * means, 0.0).sum(axis=0)
        n_amounts = counts.sum(axis=0)
        has_total = (observed > 0) & (predicted > 0)
        ratio = np.divide(
            observed, predicted, out=np.ones_like(observed), where=has_total
        )
        # Relative deviations of the amounts from the means at their own level.
        errors = np.where(counts, amounts - ratio * means, 0.0)
        mean_observed = observed / np.where(has_total, (weight * counts).sum(axis=0), 1)
        relative = np.divide(
            errors, mean_observed, out=np.zeros_like(errors), where=mean_observed > 0
        )
        squares = np.square(relative).sum(axis=0)
        variance = (squares + PRIOR_AMOUNTS) / (n_amounts + PRIOR_AMOUNTS)
        share = n_amounts / (n_amounts + LEVEL_AMOUNTS * variance)
        return share * np.log(ratio)

    def log_factors_by_group(
        self, index: Mapping[Any, int], group: np.ndarray, log_factors: np.ndarray
    ) -> dict[Any, np.ndarray]:
        """Return further factors of each group, after those of all rows."""
        shifted = ValueRows(
            amounts=self.amounts,
            means=self.means * np.exp(log_factors),
            weight=self.weight,
        )
        return {
            value: shifted.log_factors(group == place)
            for value, place in index.items()
            if value is not None
        }


def value_tasks_of(estimator: Any, *, fitted: bool) -> dict[Any, Any]:
    """Return the `value_tasks` of an estimator, or of one in it."""
    for layer in _responses.nested_estimators(estimator):
        if hasattr(layer, "value_tasks"):
            # The parameter of a fitted estimator may have been set since the fit.
            result = getattr(layer, "_result", None) if fitted else None
            return getattr(result, "settings", layer).value_tasks or {}
    return {}


def value_parents_of(estimator: Any) -> dict[str, str | None]:
    """Return the task of each value of a fitted estimator, or of one in it."""
    for layer in _responses.nested_estimators(estimator):
        if hasattr(layer, "value_parents_"):
            return layer.value_parents_
    return {}


def weights_of_values(
    weight: np.ndarray, parents: Sequence[str | None], task_names: Sequence[str]
) -> np.ndarray:
    """Return the weight of each value from those of the tasks; the first's of none."""
    places = [0 if task is None else list(task_names).index(task) for task in parents]
    return weight[:, places]


def mean_amounts(estimator: Any, X: Any) -> np.ndarray:
    """Return the means given the event: float64 of shape `(n_samples, n_values)`."""
    for layer in _responses.nested_estimators(estimator):
        if hasattr(layer, "predict_value"):
            means = np.array(layer.predict_value(X, given_event=True))
            return means.reshape(len(means), -1)
        if isinstance(layer, Pipeline) and len(layer) > 1:
            # A pipeline does not have this method.
            X = layer[:-1].transform(X)
    raise ValueError(f"{estimator!r} has no predict_value.")

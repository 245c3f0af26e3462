"""The labels and weights of all rows of a fit, in one part or in several."""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sk_pwiser._tasks._weights import WeightScale, base_rates, row_weights


@dataclass
class RowSummary:
    """Labels and weights of all rows: their numbers, rates and scale.

    The labels of rows in one part are kept, those of several parts are counted by their
    combinations, with sums of weights. Weights are divided by `weight_scale`, by
    default by the mean of those above 0.
    """

    weight_scale: float | None = None
    scales_counts: bool = False  # whether `weight_scale` is a mean of counts of rows
    n_rows: int = 0
    tasks: Any = None  # `Targets` without labels
    weights: Any = None  # `WeightScale`
    per_task: bool = False  # whether the weights of a row differ between its tasks
    # Labels and weights of rows in one part, and the scaled weights, or None for ones.
    whole: tuple | None = None
    scaled: np.ndarray | None = None
    row_weights: np.ndarray | None = None  # per row, by which columns are encoded
    # By combination: numbers of rows, and sums of the weights, one per task.
    counts: Counter = field(default_factory=Counter)
    sums: dict = field(default_factory=dict)
    # Of each value: weighted sums of amounts, and of the weights of their rows.
    amount_sums: np.ndarray | None = None
    amount_weights: np.ndarray | None = None
    total_weight: float = 0.0

    def add(self, targets, weights):
        n_rows, n_tasks = targets.values.shape
        weights = np.broadcast_to(1.0, n_rows) if weights is None else weights
        self.n_rows += n_rows
        if targets.amounts is not None:
            self._add_amounts(targets, weights)
        is_first = self.tasks is None
        if is_first:
            none = targets.values[:0]
            self.tasks = replace(
                targets, values=none, missing=None, counts=None, amounts=None
            )
            self.weights = WeightScale(n_tasks, self.weight_scale, self.scales_counts)
        self.weights.add(weights)
        self.per_task = self.weights.per_task and not self.weights.is_even
        if is_first:
            self.whole = (targets, weights)
            self.scaled = self.weights.apply(weights)
            self.row_weights = row_weights(self.scaled)
            return
        if self.whole is not None:
            self._count(*self.whole)
        self.whole = None
        self.scaled = None
        self._count(targets, weights)

    def _add_amounts(self, targets, weights):
        """Add up the amounts of rows, and the weights of rows that have one."""
        amounts = targets.amounts
        by_task = weights.reshape(len(amounts), -1)
        parents = [max(parent, 0) for parent in targets.learnt_values.parents]
        if by_task.shape[1] > 1:
            by_task = by_task[:, parents]
        is_known = np.isfinite(amounts)
        amount_weights = by_task * is_known
        sums = (amount_weights * np.where(is_known, amounts, 0)).sum(axis=0)
        if self.amount_sums is None:
            self.amount_sums = np.zeros(amounts.shape[1])
            self.amount_weights = np.zeros(amounts.shape[1])
        self.amount_sums += sums
        self.amount_weights += amount_weights.sum(axis=0)
        self.total_weight += float(by_task.mean(axis=1).sum())

    def value_scales(self, per_impression):
        """Return the mean amount of each value, 1 if there is none above 0.

        They are means over the rows with the event, or per impression.
        """
        if self.amount_sums is None:
            return ()
        weights = self.amount_weights
        if per_impression:
            weights = np.full(len(weights), self.total_weight)
        means = self.amount_sums / np.maximum(weights, np.finfo(float).tiny)
        return tuple(float(mean) if mean > 0 else 1.0 for mean in means)

    def _count(self, targets, weights):
        n_rows, n_tasks = targets.values.shape
        state = targets.values.astype(np.int8)
        if targets.missing is not None:
            state = np.where(targets.missing, np.int8(2), state)
        distinct, inverse = np.unique(state, axis=0, return_inverse=True)
        combinations = list(map(tuple, distinct.tolist()))
        by_task = np.broadcast_to(weights.reshape(n_rows, -1), (n_rows, n_tasks))
        task_sums = [np.bincount(inverse.ravel(), column) for column in by_task.T]
        for key, sums in zip(combinations, np.transpose(task_sums), strict=True):
            self.sums[key] = self.sums.get(key, 0.0) + sums
        counts = np.bincount(inverse.ravel()).tolist()
        self.counts.update(dict(zip(combinations, counts, strict=True)))

    def scale(self, weights, n_rows):
        """Return the scaled weights of one of several parts, or None for ones."""
        return self.weights.apply(np.ones(n_rows) if weights is None else weights)

    def labels(self):
        """Return all labels and their scaled weights, None for ones.

        Of several parts, these are a row for each combination, with its number of rows
        and the sum of their weights.
        """
        if self.whole is not None:
            return self.whole[0], self.scaled
        state = np.array(list(self.counts))
        missing = state == 2
        targets = replace(
            self.tasks,
            values=np.where(missing, 0, state).astype(np.float32),
            missing=missing if missing.any() else None,
            counts=np.array(list(self.counts.values())),
        )
        if self.weights.is_even:
            return targets, targets.counts.astype(float)
        sums = np.array(list(self.sums.values())) / self.weights.added_mean
        return targets, sums if self.weights.per_task else sums[:, 0]

    @property
    def rows_per_weight(self):
        """The rows that a scaled weight of 1 stands for; None without counts."""
        return float(self.weights.mean) if self.weights.are_counts else None

    def counted_rows(self):
        """Return how many rows each row of `labels` stands for."""
        targets, weights = self.labels()
        if weights is None or self.rows_per_weight is None:
            return targets.counts
        largest = weights.reshape(len(weights), -1).max(axis=1)
        return self.rows_per_weight * largest.astype(np.float64)

    def rows_per_row(self):
        """Return how many rows a row stands for on average."""
        targets, _ = self.labels()
        return float(self.counted_rows().sum() / targets.counts.sum())

    def base_rates(self):
        targets, weights = self.labels()
        return base_rates(targets.values, weights, targets.parents)

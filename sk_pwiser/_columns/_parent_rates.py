"""Rates of values that shrink towards those of the parents of the values."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from sk_pwiser._columns._codes import FIRST_VALUE, MISSING
from sk_pwiser._columns._number import LARGEST_DEVIATION
from sk_pwiser._columns._parents import NO_PARENT


def evidence_of(
    counts: np.ndarray, strengths: np.ndarray, frequencies: np.ndarray
) -> np.ndarray:
    r"""Return what the inputs of values follow from, if that also depends on a parent.

    With k of the n rows of a value positive, and a strength of shrinkage a, these are
    :math:`k / a` and :math:`(n - k) / a` per task, and the input of the frequency:
    float32 `(n_values, 2 * n_tasks + 1)`.
    """
    n, k = counts
    a = strengths[:, np.newaxis]
    positives = np.maximum(k, 0.0) / a
    negatives = np.maximum(n - k, 0.0) / a
    columns = np.vstack([positives, negatives, frequencies[np.newaxis]])
    return columns.T.astype(np.float32)


def last_parents(
    parents: np.ndarray, codes: np.ndarray, parent_codes: np.ndarray
) -> None:
    """Set the code of the parent in the last row of each value, in place."""
    has_parent = parent_codes >= FIRST_VALUE
    parents[codes[has_parent]] = parent_codes[has_parent]


def parents_of_grown(
    parents: np.ndarray, origin: np.ndarray, parent_origin: np.ndarray
) -> np.ndarray:
    """Return the parents of codes that have other places now, and so have parents."""
    # A forgotten parent has no place.
    last_parent = max(parent_origin.max(initial=0), parents.max(initial=0))
    places = np.full(int(last_parent) + 1, MISSING, dtype=np.intp)
    is_earlier = parent_origin >= 0
    places[parent_origin[is_earlier]] = np.flatnonzero(is_earlier)
    earlier_parents = parents[np.maximum(origin, 0)]
    return np.where(origin >= 0, places[earlier_parents], MISSING)


@dataclass(frozen=True, kw_only=True)
class ParentRates:
    r"""The inputs of values whose rates shrink towards those of their parents.

    For each task,

    .. math:: r = \frac{k + a r'}{n + a}

    where r' is the rate of the parent, which shrinks towards that of its own parent in
    the same way, and at last towards the base rate. The parent of a value is that of
    its row: a value without rows has the rate of the parent.
    """

    parents: Sequence[int]  # the table of the parent of each table, or `NO_PARENT`
    base_rates: np.ndarray  # (n_tasks,)
    means: Sequence[np.ndarray]  # (n_tasks + 1,) of each table
    scales: Sequence[np.ndarray]

    def has(self, j: int) -> bool:
        """Return whether a table has a parent, or is one."""
        return self.parents[j] != NO_PARENT or j in self.parents

    def combine(
        self, j: int, evidence: np.ndarray, parent_rates: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs `(n_rows, n_tasks + 1)` and rates from those of the parents.

        Without parents, `parent_rates` is None.
        """
        n_tasks = len(self.base_rates)
        prior = self.base_rates if parent_rates is None else parent_rates
        positives = evidence[:, :n_tasks] + prior
        negatives = evidence[:, n_tasks : 2 * n_tasks] + (1 - prior)
        log_odds = np.log(positives) - np.log(negatives)
        log_odds -= np.log(self.base_rates) - np.log1p(-self.base_rates)
        scaled = (log_odds - self.means[j][:-1]) / self.scales[j][:-1]
        inputs = np.empty((len(scaled), n_tasks + 1), dtype=np.float32)
        inputs[:, :-1] = np.clip(scaled, -LARGEST_DEVIATION, LARGEST_DEVIATION)
        inputs[:, -1] = evidence[:, -1]
        return inputs, positives / (positives + negatives)

    def inputs(
        self, j: int, evidence: np.ndarray, rates: dict[int, np.ndarray]
    ) -> np.ndarray:
        """Return the inputs of rows, and keep their rates for tables below this one.

        `rates` has the rates of the rows in the tables before.
        """
        inputs, rates[j] = self.combine(j, evidence, rates.get(self.parents[j]))
        return inputs

    def unseen_inputs(self, j: int, frequency: float) -> list[float]:
        """Return the inputs of an unseen value, beside those of `unseen_sources`."""
        constants = []
        for task in range(len(self.base_rates)):
            scale = self.scales[j][task]
            source = self._source(j, task)
            shift = 0.0 if source == NO_PARENT else self.means[source][task]
            constants.append(float((shift - self.means[j][task]) / scale))
        return [*constants, frequency]

    def unseen_sources(self, j: int) -> list[tuple[int, int, float]]:
        """Return the inputs that those of an unseen value follow.

        These are pairs of a task and a table, with the factor of its input.
        """
        sources = []
        for task in range(len(self.base_rates)):
            scale = self.scales[j][task]
            source = self._source(j, task)
            if source != NO_PARENT and np.isfinite(scale):
                factor = float(self.scales[source][task] / scale)
                sources.append((task, source, factor))
        return sources

    def _source(self, j: int, task: int) -> int:
        """Return the nearest ancestor whose input of a task is not 0."""
        source = self.parents[j]
        while source != NO_PARENT and np.isinf(self.scales[source][task]):
            source = self.parents[source]
        return source

    def add_to_graph(
        self, graph: Any, j: int, evidence: str, rates: dict[int, str]
    ) -> str:
        """Add `inputs` to an ONNX graph; `rates` has the names of tensors by table."""
        n_tasks = len(self.base_rates)
        prior = rates.get(self.parents[j])
        values = graph.add("Cast", evidence, to=graph.types.DOUBLE)
        bounds = [0, n_tasks, 2 * n_tasks, 2 * n_tasks + 1]
        axis = np.array([1])
        positive_shares, negative_shares, frequency = (
            graph.add("Slice", values, np.array([start]), np.array([stop]), axis)
            for start, stop in pairwise(bounds)
        )
        base_rates = self.base_rates[np.newaxis].astype(np.float64)
        parent_rates = base_rates if prior is None else prior
        positives = graph.add("Add", positive_shares, parent_rates)
        parent_complements = graph.add("Sub", np.float64(1), parent_rates)
        negatives = graph.add("Add", negative_shares, parent_complements)
        log_positives = graph.add("Log", positives)
        log_negatives = graph.add("Log", negatives)
        log_odds = graph.add("Sub", log_positives, log_negatives)
        shift = np.log(base_rates) - np.log1p(-base_rates) + self.means[j][:-1]
        scaled = graph.add("Sub", log_odds, shift)
        # The inverse of an infinite scale: an input that is 0.
        scaled = graph.add("Mul", scaled, 1 / self.scales[j][np.newaxis, :-1])
        lowest = np.float64(-LARGEST_DEVIATION)
        highest = np.float64(LARGEST_DEVIATION)
        scaled = graph.add("Clip", scaled, lowest, highest)
        total = graph.add("Add", positives, negatives)
        rates[j] = graph.add("Div", positives, total)
        return graph.to_float(graph.add("Concat", scaled, frequency, axis=1))

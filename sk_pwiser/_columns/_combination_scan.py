"""Which columns tell more of the labels together than all columns do alone.

Rates of cells, and of the values of all columns, are learnt on some folds of the rows
and judged on another one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from sk_pwiser._utils._integers import ceil_div

N_FOLDS = 5
# Rows of equal weight that tell as much as those of a task, from which on it is judged.
FEWEST_EFFECTIVE = 100
# Such rows of the rarer label: z values of fewer are far from normal, and tables
# without interactions had pairs that pass.
FEWEST_RARER = 50
# Pairs that are tried at most: the columns with the clearest effects are paired.
MOST_PAIRS = 1_000
# Rows of all pairs and tasks that the screening reads.
MOST_SCREENED_ROWS = 12_000_000
# Of these, the pairs that are judged out of fold.
MOST_JUDGED = 40
# Combinations that are taken at most, and triples of each pair that are judged.
MOST_TAKEN = 12
MOST_GROWN = 5
# Cells of a pair, beyond which different cells may be counted as one in the screening.
MOST_SCREENED_CELLS = 2**14
# The chance that a table without interactions has a pair that passes, and the least
# bound: with few pairs, a table is as likely to have repeated rows as interactions.
LARGEST_CHANCE = 0.02
LEAST_Z = 3.5
# Smaller shares of the log loss are not worth the time of a further column.
LEAST_GAIN = 5e-4
# Rates of values are shrunk to the base rate as by so many rows.
PRIOR_ROWS = 10.0
# Larger effects of a cell, in log-odds, are those of a few rows.
LARGEST_EFFECT = 3.0
# Penalty and steps of the regression on the rates of all columns.
RIDGE = 1.0
MOST_STEPS = 12
# Later rows refuse a pair if its gain on them is negative. Of less than this share of
# its cells in random folds, they do not tell: the rows are in the order of a column.
LEAST_COVERAGE = 0.5


class Gain(NamedTuple):
    """What a pair of columns adds to all columns."""

    names: tuple[Any, ...]
    gain: float  # share of the log loss, the largest of the tasks
    z: float  # gain by its standard error, the largest of the tasks


@dataclass(frozen=True, kw_only=True)
class ScanRows:
    """A sample of the rows of a fit.

    `values` has the numbers of the values of each column, from 0 on; `labels` and
    `weights` are `(n_samples, n_tasks)`, the weight 0 marks labels that are not known.
    Rows with the same number in `units` are in the same fold. With `is_ordered`, the
    rows are in the order of time: earlier ones judge none.
    """

    values: Mapping[Any, np.ndarray]
    labels: np.ndarray
    weights: np.ndarray
    units: np.ndarray | None
    is_ordered: bool


def find_pairs(rows: ScanRows, most: int) -> list[Gain]:
    """Return the pairs that pass, at most so many, in the order in which they gain."""
    names = list(rows.values)
    n_rows = len(rows.labels)
    if len(names) < 2 or n_rows < 2 * N_FOLDS or most < 1:
        return []
    folds = _consecutive(n_rows) if rows.is_ordered else _random_folds(rows)
    tasks = _tasks_of(rows, folds, rows.is_ordered)
    if not tasks:
        return []
    names = _most_telling(names, tasks)
    n_tried = len(names) * (len(names) - 1) // 2 * len(tasks)
    bound = max(LEAST_Z, float(norm.isf(LARGEST_CHANCE / n_tried)))
    judged = [_judge(pair, tasks, bound) for pair in _screen(names, tasks)]
    queue = [gain for gain in judged if gain is not None]
    if not queue:
        return []
    later = None
    if not rows.is_ordered:
        later = _tasks_of(rows, _consecutive(n_rows), True)
        queue = [gain for gain in queue if _holds_later(gain.names, tasks, later)]
    return _take_best(queue, names, tasks, bound, later)[:most]


def _take_best(
    queue: list[Gain],
    names: Sequence[Any],
    tasks: Sequence["_Task"],
    bound: float,
    later: Sequence["_Task"] | None,
) -> list[Gain]:
    """Return the pairs that still pass beyond those that were taken before them.

    In place of a pair stands a triple that has it, if this gains more.
    """
    taken: list[Gain] = []
    while queue and len(taken) < MOST_TAKEN:
        queue.sort(key=lambda gain: -gain.gain)
        first = queue.pop(0)
        # The gain of one pair is smaller beside another one that tells the same.
        now = _judge(first.names, tasks, bound) if taken else first
        if now is None:
            continue
        if queue and now.gain < queue[0].gain:
            queue.append(now)
            continue
        now = _grown(now, names, tasks, bound, later)
        taken.append(now)
        for task in tasks:
            task.add(now.names)
    return taken


def _grown(
    pair: Gain,
    names: Sequence[Any],
    tasks: Sequence["_Task"],
    bound: float,
    later: Sequence["_Task"] | None,
) -> Gain:
    """Return a triple that tells more than its pair, or else the pair."""
    triples = [(*pair.names, name) for name in names if name not in pair.names]
    triples.sort(key=lambda triple: -max(task.agreement(triple) for task in tasks))
    best = pair
    for triple in triples[:MOST_GROWN]:
        gain = _judge(triple, tasks, bound)
        if gain is None or gain.gain <= best.gain:
            continue
        if max(task.z_beyond(triple, pair.names) for task in tasks) <= bound:
            continue
        if later is None or _holds_later(triple, tasks, later):
            best = gain
    return best


def _random_folds(rows: ScanRows) -> np.ndarray:
    """Return the fold of each row. The generators of a fit are left alone."""
    generator = np.random.default_rng(0)
    if rows.units is None:
        return generator.integers(N_FOLDS, size=len(rows.labels))
    _, number = np.unique(rows.units, return_inverse=True)
    folds: np.ndarray = generator.integers(N_FOLDS, size=number.max() + 1)[number]
    return folds


def _consecutive(n_rows: int) -> np.ndarray:
    return np.arange(n_rows) * N_FOLDS // n_rows


def _tasks_of(rows: ScanRows, folds: np.ndarray, is_ordered: bool) -> list["_Task"]:
    """Return the tasks that have both labels in the judged folds."""
    tasks = []
    for y, weight in zip(rows.labels.T, rows.weights.T, strict=True):
        is_judged = (weight > 0) & (folds > 0 if is_ordered else True)
        judged = weight[is_judged]
        if not len(judged):
            continue
        # A few heavy rows, or rows of the rarer label, would decide on all effects.
        is_positive = y[is_judged] == 1
        n_rarer = min(
            _n_effective(judged[is_positive]), _n_effective(judged[~is_positive])
        )
        if n_rarer >= FEWEST_RARER and _n_effective(judged) >= FEWEST_EFFECTIVE:
            tasks.append(_Task(rows.values, y, weight, folds, is_ordered))
    return tasks


def _n_effective(weight: np.ndarray) -> float:
    """Return how many rows of equal weight tell as much."""
    if not len(weight):
        return 0.0
    weight = weight / weight.max()
    return float(weight.sum() ** 2 / (weight**2).sum())


def _most_telling(names: list[Any], tasks: Sequence["_Task"]) -> list[Any]:
    """Return columns of which all pairs can be tried."""
    n_columns = int((1 + np.sqrt(1 + 8 * MOST_PAIRS)) / 2)
    if len(names) <= n_columns:
        return names
    effect = {name: max(task.effects[name] for task in tasks) for name in names}
    chosen = set(sorted(names, key=lambda name: -effect[name])[:n_columns])
    return [name for name in names if name in chosen]


def _screen(names: list[Any], tasks: Sequence["_Task"]) -> list[tuple[Any, Any]]:
    """Return the pairs whose cells agree best between two halves of the rows."""
    pairs = list(combinations(names, 2))
    n_rows = len(tasks[0].y) * len(pairs) * len(tasks)
    step = ceil_div(n_rows, MOST_SCREENED_ROWS)
    agreements = {}
    for pair in pairs:
        agreements[pair] = max(task.agreement(pair, step) for task in tasks)
    ordered = sorted(agreements, key=lambda pair: -agreements[pair])
    return [pair for pair in ordered[:MOST_JUDGED] if agreements[pair] > 0]


def _judge(
    pair: tuple[Any, ...], tasks: Sequence["_Task"], bound: float
) -> Gain | None:
    """Return what a pair gains in one of the tasks at least, None if by chance."""
    best = None
    for task in tasks:
        gain, z, _ = task.gain(pair)
        passes = z > bound and gain > LEAST_GAIN
        if passes and (best is None or gain > best.gain):
            best = Gain(pair, gain, z)
    return best


def _holds_later(
    pair: tuple[Any, ...], tasks: Sequence["_Task"], later: Sequence["_Task"]
) -> bool:
    """Return whether the pair gains in later rows, as far as these have its cells."""
    gains = []
    for task, task_of_later in zip(tasks, later, strict=False):
        _, _, coverage = task.gain(pair)
        gain, z, coverage_later = task_of_later.gain(pair)
        if coverage_later < LEAST_COVERAGE * coverage:
            return True
        gains.append((z, gain))
    return not gains or max(gains)[1] > 0


class _Task:
    """The labels of a task, and what all columns tell of them out of fold."""

    def __init__(
        self,
        values: Mapping[Any, np.ndarray],
        y: np.ndarray,
        weight: np.ndarray,
        folds: np.ndarray,
        is_ordered: bool,
    ) -> None:
        self.values = values
        self.sizes = {name: int(v.max()) + 1 for name, v in values.items()}
        self.y = y
        self.weight = weight / weight[weight > 0].mean()
        self.folds = folds
        self.is_ordered = is_ordered
        self.is_judged = (weight > 0) & (folds > 0 if is_ordered else True)
        judged_weight = self.weight[self.is_judged]
        rate = float(np.average(y[self.is_judged], weights=judged_weight))
        entropy = -rate * np.log(rate) - (1 - rate) * np.log1p(-rate)
        self.entropy = entropy
        self.effects: dict[Any, float] = {}
        rates = [self._rates(name, rate) for name in values]
        features = np.stack(rates, axis=1)
        for name, column in zip(values, features.T, strict=True):
            deviation = np.where(self.is_judged, column, 0.0) * (y - rate)
            self.effects[name] = abs(float(deviation @ self.weight))
        self.log_odds = _regression(
            features, y, self.weight * self.is_judged, np.log(rate) - np.log1p(-rate)
        )
        self._learn_residuals()
        self._add_effects_of_columns()

    def _rates(self, name: Any, rate: float) -> np.ndarray:
        """Return the shrunk rate of the value of each row, out of fold, in log-odds."""
        n, k = self._out_of_fold(
            self.values[name],
            self.sizes[name],
            [self.weight, self.weight * self.y],
        )
        return np.log(k + PRIOR_ROWS * rate) - np.log(
            np.maximum(n - k, 0.0) + PRIOR_ROWS * (1 - rate)
        )

    def _learn_residuals(self) -> None:
        p = expit(self.log_odds)
        self.residuals = self.weight * (self.y - p)
        self.variances = self.weight**2 * p * (1 - p)

    def _add_effects_of_columns(self) -> None:
        """Add what the regression leaves of the effects of single columns, if it helps.

        Otherwise a cell would gain by an effect of one of its columns.
        """
        effects_of_columns = []
        for name, value in self.values.items():
            effects, _ = self._effects(value, self.sizes[name])
            if self._gain_of(effects)[0] > 0:
                effects_of_columns.append(effects)
        if effects_of_columns:
            self.log_odds = self.log_odds + sum(effects_of_columns)
            self._learn_residuals()

    def _out_of_fold(
        self, cells: np.ndarray, n_cells: int, sums: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """Return the sums of the cell of each row over the folds that may judge it."""
        keys = self.folds * n_cells + cells
        results = []
        for summand in sums:
            table = np.bincount(keys, summand, minlength=N_FOLDS * n_cells)
            table = table.reshape(N_FOLDS, n_cells)
            if self.is_ordered:
                others = table.cumsum(axis=0) - table
            else:
                others = table.sum(axis=0) - table
            results.append(others.ravel()[keys])
        return results

    def _effects(self, cells: np.ndarray, n_cells: int) -> tuple[np.ndarray, float]:
        """Return the shrunk effect of each row's cell, out of fold, and the coverage.

        The coverage is the share of the judged rows whose cell others have.
        """
        sums = np.bincount(cells, self.residuals, minlength=n_cells)
        information = np.bincount(cells, self.variances, minlength=n_cells)
        squares = np.bincount(cells, self.residuals**2, minlength=n_cells)
        # The variance of the effects, by the products of residuals of different rows.
        products = float((sums**2 - squares).sum())
        expected = float((information**2).sum() - (self.variances**2).sum())
        if products <= 0 or expected <= 0:
            return np.zeros(len(cells)), 0.0
        variance = products / expected
        others, information_of_others = self._out_of_fold(
            cells, n_cells, [self.residuals, self.variances]
        )
        effects = others / (information_of_others + 1 / variance)
        is_covered = information_of_others[self.is_judged] > 0
        limits = -LARGEST_EFFECT, LARGEST_EFFECT
        return np.clip(effects, *limits), float(is_covered.mean())

    def _numbered(
        self, names: tuple[Any, ...], step: int = 1
    ) -> tuple[np.ndarray, int]:
        """Return a number of the cell of each row, and how many there may be."""
        cells = np.zeros(len(self.y[::step]), dtype=np.int64)
        n_cells = 1
        for name in names:
            cells = cells * self.sizes[name] + self.values[name][::step]
            n_cells *= self.sizes[name]
        return cells, n_cells

    def cells(self, names: tuple[Any, ...]) -> tuple[np.ndarray, int]:
        """Return the number of the cell of each row, and how many there are."""
        cells, n_cells = self._numbered(names)
        if n_cells <= len(cells):
            return cells, n_cells
        values, cells = np.unique(cells, return_inverse=True)
        return cells, len(values)

    def effects_of(self, pair: tuple[Any, ...]) -> tuple[np.ndarray, float]:
        """Return the effects of the cells, and the share of rows that have some."""
        return self._effects(*self.cells(pair))

    def agreement(self, pair: tuple[Any, ...], step: int = 1) -> float:
        """Return how far the residuals of cells agree between two halves of the rows.

        Of each `step` rows, one is read.

        By chance, this is a number around 0 with a deviation of 1.
        """
        cells, n_cells = self._numbered(pair, step)
        if n_cells > MOST_SCREENED_CELLS:
            cells = (cells * 0x9E3779B1 >> 7) % MOST_SCREENED_CELLS
            n_cells = MOST_SCREENED_CELLS
        keys = (self.folds[::step] % 2) * n_cells + cells
        shape = 2, n_cells
        residuals = self.residuals[::step]
        variances = self.variances[::step]
        sums = np.bincount(keys, residuals, minlength=2 * n_cells).reshape(shape)
        spread = np.bincount(keys, variances, minlength=2 * n_cells).reshape(shape)
        deviation = float(np.sqrt(spread[0] @ spread[1]))
        return float(sums[0] @ sums[1]) / deviation if deviation else 0.0

    def gain(self, pair: tuple[Any, ...]) -> tuple[float, float, float]:
        """Return the gain in log-likelihood per row, its z value, and the coverage."""
        effects, coverage = self.effects_of(pair)
        return *self._gain_of(effects), coverage

    def _gain_of(self, effects: np.ndarray) -> tuple[float, float]:
        """Return the gain by effects as a share of the log loss, and its z value."""
        gains = self._gains(effects)
        weight = self.weight[self.is_judged]
        return float(gains.sum() / weight.sum()) / self.entropy, _z_value(gains)

    def z_beyond(self, names: tuple[Any, ...], other: tuple[Any, ...]) -> float:
        """Return the z value of the difference of the gains of two combinations."""
        gains = self._gains(self.effects_of(names)[0])
        return _z_value(gains - self._gains(self.effects_of(other)[0]))

    def _gains(self, effects: np.ndarray) -> np.ndarray:
        """Return the weighted gain in log-likelihood of each judged row by effects."""
        is_judged = self.is_judged
        before = self.log_odds[is_judged]
        effects = effects[is_judged]
        gains = self.y[is_judged] * effects
        gains -= np.logaddexp(0, before + effects) - np.logaddexp(0, before)
        gains *= self.weight[is_judged]
        return gains

    def add(self, pair: tuple[Any, ...]) -> None:
        """Add the effects of a pair to what is told already."""
        effects, _ = self.effects_of(pair)
        self.log_odds = self.log_odds + effects
        self._learn_residuals()


def _z_value(gains: np.ndarray) -> float:
    """Return the sum of gains by its standard error."""
    error = float(np.sqrt((gains**2).sum()))
    return float(gains.sum()) / error if error else 0.0


def _regression(
    features: np.ndarray, y: np.ndarray, weight: np.ndarray, intercept: float
) -> np.ndarray:
    """Return the log-odds of a ridge logistic regression, by Newton's method."""
    design = np.column_stack([np.ones(len(y)), features])
    means = np.average(design, axis=0, weights=weight)
    means[0] = 0.0
    design -= means
    penalty = np.full(design.shape[1], RIDGE)
    penalty[0] = 0.0
    coefficients = np.zeros(design.shape[1])
    coefficients[0] = intercept
    for _ in range(MOST_STEPS):
        p = expit(design @ coefficients)
        gradient = design.T @ (weight * (y - p)) - penalty * coefficients
        curvature = (design * (weight * p * (1 - p))[:, np.newaxis]).T @ design
        # The rates of a constant column are all the same.
        curvature[np.diag_indices_from(curvature)] += penalty + 1e-9
        step = np.linalg.solve(curvature, gradient)
        coefficients += np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-4:
            break
    log_odds: np.ndarray = design @ coefficients
    return log_odds

"""Shapley values of the columns of rows, exactly or from sampled permutations.

The value of a set of columns is the mean prediction of rows that have the values of the
explained row in these columns, and those of a background row in the others (the
interventional value; Janzing, Minorics and Bloebaum 2020, AISTATS, arXiv 1910.13413).
The sampling walks through each permutation forwards and backwards (Mitchell, Cooper,
Frank and Holmes 2022, JMLR 23, arXiv 2104.12199).
"""

from collections.abc import Callable
from math import factorial
from typing import NamedTuple

import numpy as np

from sk_pwiser._utils._integers import ceil_div

# With up to so many columns, all sets of columns are evaluated: 2 ** 8 per background
# row, as many as a few permutations of 40 columns need.
MOST_EXACT_COLUMNS = 8
# Permutations per explained row, at least, each of which is walked in both directions.
FEWEST_PERMUTATIONS = 24
# Permutations per background row, at least: two have a variance.
FEWEST_PER_BACKGROUND_ROW = 2
# Rows that are predicted at once, which bounds the memory.
ROWS_AT_ONCE = 2**15


class Contributions(NamedTuple):
    """Shapley values of explained rows, and their standard errors."""

    values: np.ndarray  # (n_rows, n_columns, n_outputs)
    errors: np.ndarray  # of the same shape; 0 where all sets were evaluated


class ValueFunction(NamedTuple):
    """What is explained: outputs of rows whose columns come from different rows.

    Rows are numbered; the `n_rows` that are explained come first, and the
    `n_background` rows of the background follow.
    """

    # Maps row numbers of shape (n_new, n_columns) to outputs (n_new, n_outputs).
    predict: Callable[[np.ndarray], np.ndarray]
    hashes: np.ndarray  # of the values, (n_rows + n_background, n_columns)
    n_rows: int

    @property
    def n_columns(self) -> int:
        return self.hashes.shape[1]

    @property
    def n_background(self) -> int:
        return len(self.hashes) - self.n_rows

    def of_rows(self) -> np.ndarray:
        """Return the outputs of all rows, unchanged."""
        numbers = np.arange(len(self.hashes))
        return self.of_sources(np.repeat(numbers[:, np.newaxis], self.n_columns, 1))

    def of_sources(self, sources: np.ndarray) -> np.ndarray:
        """Return the outputs of recombined rows, predicted in parts."""
        outputs = [
            self.predict(sources[start : start + ROWS_AT_ONCE])
            for start in range(0, len(sources), ROWS_AT_ONCE)
        ]
        return np.concatenate(outputs).astype(np.float64)


def shapley_values(
    function: ValueFunction, outputs: np.ndarray, generator: np.random.RandomState
) -> Contributions:
    """Return the contributions of the columns to the outputs of the explained rows.

    They sum to the output of the row less the mean output of the background. `outputs`
    are those of all rows, of shape `(n_rows + n_background, n_outputs)`.
    """
    if function.n_columns <= MOST_EXACT_COLUMNS:
        contributions = _exact_values(function)
    else:
        contributions = _sampled_values(function, outputs, generator)
    # Not only to rounding: columns in which the row equals the whole background.
    explained, background = np.split(function.hashes, [function.n_rows])
    differs = (explained[:, np.newaxis] != background).any(axis=1)
    contributions.values[~differs] = 0
    return contributions


def _exact_values(function: ValueFunction) -> Contributions:
    """Evaluate all sets of columns."""
    n_columns = function.n_columns
    is_in = _all_sets(n_columns)
    weights = _weights_of_sets(is_in)
    background = np.arange(function.n_rows, len(function.hashes))
    rows_at_once = max(1, ROWS_AT_ONCE // (len(is_in) * function.n_background))
    values = []
    for start in range(0, function.n_rows, rows_at_once):
        rows = np.arange(start, min(start + rows_at_once, function.n_rows))
        sources = np.where(
            is_in[np.newaxis, :, np.newaxis, :],
            rows[:, np.newaxis, np.newaxis, np.newaxis],
            background[np.newaxis, np.newaxis, :, np.newaxis],
        )
        shape = sources.shape[:-1]
        outputs = function.of_sources(sources.reshape(-1, n_columns))
        values_of_sets = outputs.reshape(*shape, -1).mean(axis=2)
        values.append(np.einsum("cs,rso->rco", weights, values_of_sets))
    joined = np.concatenate(values)
    return Contributions(joined, np.zeros_like(joined))


def _all_sets(n_columns: int) -> np.ndarray:
    """Return which columns are in each set, bool `(2 ** n_columns, n_columns)`."""
    numbers = np.arange(2**n_columns)[:, np.newaxis]
    return (numbers >> np.arange(n_columns)) & 1 == 1


def _weights_of_sets(is_in: np.ndarray) -> np.ndarray:
    """Return the weight of each set's value in a contribution, `(n_columns, n_sets)`.

    Adding a column to a set of size s counts s! (n - s - 1)! / n!.
    """
    n_columns = is_in.shape[1]
    sizes = is_in.sum(axis=1)
    weights = np.empty((n_columns, len(is_in)))
    for column, is_member in enumerate(is_in.T):
        size_without = sizes - is_member
        step_weights = [
            factorial(size) * factorial(n_columns - size - 1) / factorial(n_columns)
            for size in size_without
        ]
        weights[column] = np.where(is_member, step_weights, np.negative(step_weights))
    return weights


def _sampled_values(
    function: ValueFunction, outputs: np.ndarray, generator: np.random.RandomState
) -> Contributions:
    """Walk through random permutations, the same for all explained rows."""
    n_permutations = max(
        FEWEST_PER_BACKGROUND_ROW,
        ceil_div(FEWEST_PERMUTATIONS, function.n_background),
    )
    ranks = np.array(
        [
            [generator.permutation(function.n_columns) for _ in range(n_permutations)]
            for _ in range(function.n_background)
        ]
    )
    values = []
    errors = []
    for row in range(function.n_rows):
        walks = [_walk(function, outputs, row, ranks)]
        walks.append(_walk(function, outputs, row, function.n_columns - 1 - ranks))
        pairs = np.mean(walks, axis=0)
        # Background rows are not drawn, so that only the permutations of each one vary.
        variance_of_mean = pairs.var(axis=1, ddof=1) / n_permutations
        values.append(pairs.mean(axis=(0, 1)))
        errors.append(np.sqrt(variance_of_mean.sum(axis=0)) / function.n_background)
    return Contributions(np.array(values), np.array(errors))


def _walk(
    function: ValueFunction, outputs: np.ndarray, row: int, ranks: np.ndarray
) -> np.ndarray:
    """Return what each column adds when columns of a row join in the order of ranks.

    `ranks` has the shape `(n_background, n_permutations, n_columns)`, the result one
    axis more, that of the outputs. Columns in which the row equals the background row
    change nothing: no row is predicted for them.
    """
    n_background, n_permutations, n_columns = ranks.shape
    background = np.arange(function.n_rows, len(function.hashes))
    differs = function.hashes[row] != function.hashes[background]
    differs = np.broadcast_to(differs[:, np.newaxis], ranks.shape)
    # Columns that differ keep their order and come first.
    ranks = np.where(differs, ranks, ranks + n_columns).argsort(axis=2).argsort(axis=2)
    n_steps = differs.sum(axis=2)
    # The row itself and the background row, at the ends of a walk, are known.
    steps = np.arange(1, n_columns)
    is_between = steps < n_steps[:, :, np.newaxis]
    is_taken = ranks[:, :, np.newaxis, :] < steps[:, np.newaxis]
    sources = np.where(is_taken, row, background[:, np.newaxis, np.newaxis, np.newaxis])
    path = np.empty((n_background, n_permutations, n_columns + 1, outputs.shape[1]))
    path[:] = outputs[row]
    path[:, :, 0] = outputs[background][:, np.newaxis]
    if is_between.any():
        path[:, :, 1:-1][is_between] = function.of_sources(sources[is_between])
    # Equal to the background row in all columns: nothing is added.
    path[n_steps == 0] = outputs[row]
    added = np.diff(path, axis=2)
    return np.take_along_axis(added, ranks[..., np.newaxis], axis=2)

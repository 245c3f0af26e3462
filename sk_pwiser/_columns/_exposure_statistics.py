"""How the rows of a category value were shown, beside the rates of the tasks.

An old ranking shows some items higher than others, so that their rates are those of
good positions, too. The rate of a value and how its rows were shown tell together what
the value is worth.
"""

from collections.abc import Iterable, Sequence
from math import prod

import numpy as np

# The table of all combinations is computed in each step of a training.
MOST_COMBINATIONS = 100_000
# The rates of combinations are shrunk to the rate of all rows as by so many events.
PRIOR_EVENTS = 10.0


def check_combinations(sizes: Sequence[int]) -> int:
    """Return the number of combinations of codes; raise if there are too many."""
    n_combinations = prod(sizes)
    if n_combinations > MOST_COMBINATIONS:
        raise ValueError(
            f"exposure_features has {n_combinations} combinations of values, more than "
            f"{MOST_COMBINATIONS}. Name fewer columns, or group their values."
        )
    return n_combinations


def combinations_of(codes: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Return the number of the combination of codes of each row."""
    return np.ravel_multi_index(tuple(codes.T.astype(np.intp)), tuple(sizes))


def exposure_scores(
    parts: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]], sizes: Sequence[int]
) -> np.ndarray:
    """Return a score per combination: its log rate of events less that of all rows.

    Parameters
    ----------
    parts : iterable of (codes, y, weight)
        The codes of the exposure of rows, `(n_rows, n_columns)`, their labels and
        weights, both `(n_rows,)`.
    sizes : sequence of int
        Numbers of codes of the columns.
    """
    n_combinations = check_combinations(sizes)
    totals = np.zeros(n_combinations)
    events = np.zeros(n_combinations)
    for codes, y, weight in parts:
        cells = combinations_of(codes, sizes)
        totals += np.bincount(cells, weight, minlength=n_combinations)
        events += np.bincount(cells, weight * y, minlength=n_combinations)
    rate = (events.sum() + 0.5) / (totals.sum() + 1.0)
    return np.log((events + PRIOR_EVENTS) / (rate * totals + PRIOR_EVENTS))

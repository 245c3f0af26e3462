"""Bags: several entries per row."""

from typing import NamedTuple

import numpy as np


class Bags(NamedTuple):
    """The entries of the bags of a table, whose vectors follow each other by bag."""

    offsets: np.ndarray  # int64 (n_samples * n_bags + 1,), where bags start
    indices: np.ndarray
    weights: np.ndarray | None  # float32 (n_entries,), or None for ones
    ages: np.ndarray | None = None  # float32 (n_entries,), scaled; NaN if unknown


class BagShape(NamedTuple):
    """The vectors of a bag: the arguments of the `BagSpec` of a network."""

    n_vectors: int
    has_unseen: bool
    column: int | None = None
    attends: bool = False
    has_ages: bool = False


def make_bags(offsets, indices, weights, ages=None):
    """Return bags in the form that training reads, if possible without copies."""
    is_one = weights is None or bool((weights == 1).all())
    return Bags(
        offsets.astype(np.int64, copy=False), indices, None if is_one else weights, ages
    )


def combine_bags(columns, sizes):
    """Join the bags of columns; `sizes` has the number of vectors of each column."""
    n_entries = np.transpose([np.diff(bags.offsets) for bags in columns])
    offsets = np.concatenate([[0], n_entries.cumsum()])
    starts = np.cumsum([0, *sizes])
    small = starts[-1] <= np.iinfo(np.int32).max
    indices = np.empty(offsets[-1], dtype=np.int32 if small else np.int64)
    weights = np.empty(offsets[-1], dtype=np.float32)
    ages = None
    if any(bags.ages is not None for bags in columns):
        ages = np.full(offsets[-1], np.nan, dtype=np.float32)
    for b, bags in enumerate(columns):
        moves = offsets[b : -1 : len(columns)] - bags.offsets[:-1]
        places = np.arange(len(bags.indices)) + np.repeat(moves, n_entries[:, b])
        indices[places] = bags.indices + starts[b]
        weights[places] = bags.weights
        if bags.ages is not None:
            ages[places] = bags.ages
    return make_bags(offsets, indices, weights, ages)

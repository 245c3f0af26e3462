"""Formulas for large embedding tables: distinct ids, memory and traffic of workers.

`sharding_model.py` prints what follows from them.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import poisson

ID_BYTES, WEIGHT_BYTES = 8, 4  # int64 and float32


# ---------------------------------------------------------------- the distribution


class Zipf:
    """Ids 0 to n_ids - 1, whose probability falls with a power of their rank.

    The first ids have a probability each. Further ids are in groups whose ranks differ
    by at most a thousandth, and those of a group are equally likely, so that memory
    does not grow with `n_ids`.

    Parameters
    ----------
    n_ids : int
        Number of ids.
    exponent : float
        Exponent of the rank.
    n_single : int, default=2**16
        Number of first ids with a probability each.
    """

    def __init__(self, n_ids, exponent, n_single=2**16):
        starts = np.arange(min(n_ids, n_single) + 1)
        if n_ids > n_single:
            n_groups = int(np.ceil(np.log(n_ids / n_single) / np.log(1.001)))
            further = np.geomspace(n_single, n_ids, n_groups + 1)[1:].round()
            starts = np.concatenate([starts, np.unique(further.astype(np.int64))])
        self.starts, self.sizes = starts[:-1], np.diff(starts)
        middles = (starts[:-1] + 1 + starts[1:]) / 2
        weights = middles**-exponent
        self.probability = weights / (weights * self.sizes).sum()

    def draw(self, n_rows, rng):
        """Return the ids of random rows."""
        ends = np.cumsum(self.probability * self.sizes)
        group = np.searchsorted(ends, rng.random(n_rows) * ends[-1], side="right")
        return self.starts[group] + rng.integers(0, self.sizes[group])

    def expected_distinct(self, n_rows):
        """Return the expected number of distinct ids in random rows.

        Each id is missing with the probability (1 - p)^n_rows.
        """
        missing = np.expm1(n_rows * np.log1p(-self.probability))
        return float(-(self.sizes * missing).sum())

    def expected_frequent(self, n_rows, min_frequency):
        """Return the expected number of ids that occur in `min_frequency` rows or more.

        The number of rows of an id is taken as a Poisson variable.
        """
        tail = poisson.sf(min_frequency - 1, n_rows * self.probability)
        return float((self.sizes * tail).sum())


# ---------------------------------------------------------------- memory


class Copies(NamedTuple):
    """What is stored beside the weights of a table, in weights per weight.

    Parameters
    ----------
    state : float
        The optimiser's state: 2 for Adam, 1 for Adagrad. Row-wise Adagrad has one
        number per row, `1 / dim`.
    gradient : int, default=0
        1 for a dense gradient; that of the rows of a batch is not counted.
    average : int, default=0
        1 for the average of the weights (`average_decay`).
    best : int, default=0
        1 for the weights of the best epoch (early stopping).
    """

    state: float
    gradient: int = 0
    average: int = 0
    best: int = 0


def table_bytes(n_rows, dim, copies, n_shards=1):
    """Return the bytes per worker of a table, all copies included."""
    return n_rows * dim * WEIGHT_BYTES * (1 + sum(copies)) / n_shards


# ---------------------------------------------------------------- traffic


class Step(NamedTuple):
    """A step of training on several workers.

    Parameters
    ----------
    n_rows, dim : int
        Size of the table.
    n_workers : int
        Number of workers.
    batch : int
        Rows per worker and step, each with one id.
    distinct : float
        Distinct ids in the batch of a worker.
    """

    n_rows: int
    dim: int
    n_workers: int
    batch: int
    distinct: float

    @property
    def elsewhere(self):
        """Share of the rows of an evenly divided table that other workers own."""
        return (self.n_workers - 1) / self.n_workers

    @property
    def vector(self):
        """Bytes of an embedding."""
        return self.dim * WEIGHT_BYTES


def all_reduced(step):
    """Dense gradients in a ring: the table is sent twice, but for one part of it."""
    return 2 * step.elsewhere * step.n_rows * step.vector


def all_gathered(step):
    """Gradients by rows: those of each worker, with their ids, reach all others."""
    return (step.n_workers - 1) * step.distinct * (ID_BYTES + step.vector)


def exchanged(step):
    """Rows of a sharded table: ids to the owners, rows back, gradients to the owners.

    Each distinct id of a batch is requested once (in TorchRec: an EmbeddingCollection
    with `use_index_dedup`), and owners have equal shares of the distinct ids.
    """
    return step.elsewhere * step.distinct * (ID_BYTES + 2 * step.vector)


def sums_scattered(step):
    """Sums over bags of a sharded table: every worker sends its part of all sums.

    This is row-wise sharding of an EmbeddingBagCollection: ids to the owners, a
    reduce-scatter of the sums of all workers' rows, and an all-gather of gradients.
    """
    ids = step.elsewhere * step.batch * ID_BYTES
    return ids + 2 * (step.n_workers - 1) * step.batch * step.vector


def on_one_worker(step):
    """A whole table on one worker: ids to it, a vector per row back, and its gradient.

    This is table-wise sharding of an EmbeddingBagCollection. The figure is the mean
    over the workers; the owner alone sends the vectors of all rows. Tables of several
    columns on different workers even this out.
    """
    return step.elsewhere * step.batch * (ID_BYTES + 2 * step.vector)


TRAFFIC = {
    "replicated, dense gradients all-reduced": all_reduced,
    "replicated, gradients by rows all-gathered": all_gathered,
    "row-wise, distinct rows all-to-all": exchanged,
    "row-wise, sums reduce-scattered": sums_scattered,
    "table-wise, vectors all-to-all": on_one_worker,
}

"""Target statistics of rows that are seen part by part: blocks and their counts."""

import numpy as np

from sk_pwiser._table._categories import FIRST_VALUE
from sk_pwiser._table._containers import as_table
from sk_pwiser._table._in_parts._row_sample import RowSample
from sk_pwiser._table._target_encoding import read_times


class TimeEdges:
    """Times between blocks that hold about equal numbers of rows.

    Parameters
    ----------
    column : str, int or None
        The column of times; None if the rows are in the order of time.
    n_blocks : int
        Number of blocks.
    n_rows : int
        Number of rows of the sample that decides.
    generator : numpy.random.Generator
        Draws the sample.
    """

    def __init__(self, column, n_blocks, n_rows, generator):
        self.column = column
        self.n_blocks = n_blocks
        self.sample = RowSample(n_rows, generator)

    def add(self, X):
        """Add the times of some rows of a `pyarrow.Table`."""
        if self.column is not None:
            self.read(X)  # raises if times are missing
            self.sample.add(X.select([self.column]), None)

    def finish(self):
        """Return the edges, float64 ndarray of shape (n_blocks - 1,), or None."""
        if self.column is None:
            return None
        times = self.read(self.sample.finish()[0])
        shares = np.arange(1, self.n_blocks) / self.n_blocks
        return np.quantile(times, shares, method="higher")

    def read(self, X):
        """Return the times of some rows."""
        return read_times(as_table(X), self.column, X.column_names)


class Blocks:
    """Assigns rows to blocks of time, as `assign_blocks` does for all rows at once.

    Parameters
    ----------
    n_rows, n_blocks : int
        Numbers of rows and of blocks.
    times : TimeEdges
        Reads the times.
    edges : ndarray of shape (n_blocks - 1,) or None
        Times between the blocks; None for equal numbers of rows in their order.
    """

    def __init__(self, n_rows, n_blocks, times, edges):
        self.n_rows = n_rows
        self.n_blocks = n_blocks
        self.times = times
        self.edges = edges
        self.n_seen = 0

    def assign(self, X, groups):
        """Return the blocks of the next rows, int64 ndarray of shape (n_rows,).

        Those of a group go into the block of its first one.
        """
        if self.edges is None:
            rank = np.arange(self.n_seen, self.n_seen + len(X))
            block = rank * self.n_blocks // self.n_rows
        else:
            block = np.searchsorted(self.edges, self.times.read(X), side="right")
        self.n_seen += len(X)
        if groups is not None:
            _, first, number = np.unique(groups, return_index=True, return_inverse=True)
            block = block[first][number]
        return block


class BlockCounts:
    """Counts of labels per block and category value, for target statistics.

    Parameters
    ----------
    statistics : TargetStatistics
        The statistics, which `finish` fits.
    n_blocks, n_tasks : int
        Numbers of blocks and of tasks.
    """

    def __init__(self, statistics, n_blocks, n_tasks):
        self.statistics = statistics
        self.n_blocks = n_blocks
        sizes = statistics.cardinalities
        # The last block is that of the validation rows.
        self.counts = [np.zeros((n_blocks + 1, 2, n_tasks, size)) for size in sizes]
        self.n_rows = [np.zeros((n_blocks, size)) for size in sizes]
        self.total, self.ones = np.zeros(n_tasks), np.zeros(n_tasks)

    def add(self, codes, y, weight, block):
        """Add rows.

        Parameters
        ----------
        codes : integer ndarray of shape (n_rows, n_category_columns)
            Codes, those of rare values included.
        y, weight : ndarray of shape (n_rows, n_tasks)
            Labels, and weights per task.
        block : integer ndarray of shape (n_rows,)
            Blocks; `n_blocks` stands for validation rows.
        """
        used = block < self.n_blocks
        self.total += weight[used].sum(axis=0, dtype=float)
        self.ones += (weight * y)[used].sum(axis=0, dtype=float)
        for j, column in enumerate(self.statistics.columns):
            of_rows = codes[:, column].astype(np.intp)
            np.add.at(self.n_rows[j], (block[used], of_rows[used]), 1.0)
            for task in range(y.shape[1]):
                rows, positives = self.counts[j][:, 0, task], self.counts[j][:, 1, task]
                np.add.at(rows, (block, of_rows), weight[:, task])
                np.add.at(positives, (block, of_rows), weight[:, task] * y[:, task])

    def finish(self):
        """Fit the statistics; return the inputs of each block, see `fit_blocks`."""
        for counts in self.counts:
            counts[..., :FIRST_VALUE] = 0.0
        others = [counts[-1].copy() for counts in self.counts]
        own = [counts[:-1] for counts in self.counts]
        self.counts.clear()
        return self.statistics.fit_blocks(
            self.total, self.ones, own, self.n_rows, others
        )

"""Counts of labels per block of rows and category value, for target statistics."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sk_pwiser._table._categories import FIRST_VALUE

# Every pair of a block and a code has a place of its own if there are at most this many
# pairs per row. Otherwise the pairs are sorted, which takes longer but less memory.
MOST_PAIRS = 4


class BlockValues(NamedTuple):
    """Counts of the values of a column that occur in a block."""

    codes: np.ndarray  # (n_values,)
    counts: np.ndarray  # (2, n_tasks, n_values): sums of weights, of positive ones
    n_rows: np.ndarray  # (n_values,)


@dataclass(frozen=True)
class BlockInputs:
    """The inputs of the values of a column by block, which leave out their block."""

    pairs: np.ndarray  # (n_pairs,), block times `n_codes` plus code, sorted
    # float32 (n_pairs + n_codes, n_tasks + 1); the last ones leave nothing out
    inputs: np.ndarray
    n_codes: int
    n_blocks: int  # with the block of validation rows

    def find(self, block, codes):
        """Return the inputs of rows with these blocks and codes."""
        pairs, n_pairs = block * np.intp(self.n_codes) + codes, len(self.pairs)
        if self.n_blocks * self.n_codes <= MOST_PAIRS * len(pairs):
            place = np.tile(np.arange(n_pairs, len(self.inputs)), self.n_blocks)
            place[self.pairs] = np.arange(n_pairs)
            return self.inputs[place[pairs]]
        place = np.searchsorted(self.pairs, pairs).clip(max=n_pairs - 1)
        return self.inputs[
            np.where(self.pairs[place] == pairs, place, codes + np.intp(n_pairs))
        ]


class PairCounts:
    """Counts by pairs of a block and a code, of rows in one part or in several."""

    def __init__(self, n_codes, n_blocks):
        self.n_codes = n_codes
        self.n_blocks = n_blocks
        self.pairs, self.sums = np.empty(0, dtype=np.intp), None
        self.added, self.n_added = [], 0

    def add(self, elements, y, weight, block):
        """Add the elements of rows."""
        pairs = elements.repeat(block) * np.intp(self.n_codes) + elements.codes
        columns = [None]
        for task in range(y.shape[1]):
            columns.append(elements.repeat(weight[:, task]))
        for task in range(y.shape[1]):
            columns.append(elements.repeat(weight[:, task] * y[:, task]))
        self.added.append(self._sum(pairs, columns))
        self.n_added += len(self.added[-1][0])
        # Joined whenever they have grown twofold, so that the cost per row is constant.
        if self.n_added > len(self.pairs):
            self._join()

    def _sum(self, pairs, columns):
        """Return the distinct pairs, and the sums of columns; None counts rows."""
        n_pairs, present = self.n_blocks * self.n_codes, None
        if n_pairs > MOST_PAIRS * len(pairs):
            present, pairs = np.unique(pairs, return_inverse=True)
            n_pairs = len(present)
        sums = np.empty((len(columns), n_pairs))
        for own, column in zip(sums, columns, strict=True):
            own[:] = np.bincount(pairs, column, minlength=n_pairs)
        if present is None:
            present = np.flatnonzero(sums[0])
            sums = sums[:, present]
        return present, sums

    def _join(self):
        if self.sums is not None:
            self.added.insert(0, (self.pairs, self.sums))
        if len(self.added) == 1:
            self.pairs, self.sums = self.added[0]
        else:
            pairs, sums = zip(*self.added, strict=True)
            columns = np.concatenate(sums, axis=1)
            self.pairs, self.sums = self._sum(np.concatenate(pairs), columns)
        self.added, self.n_added = [], 0

    def blocks(self):
        """Return the `BlockValues` of each block."""
        if self.added:
            self._join()
        codes = self.pairs % self.n_codes
        n_rows, counts = self.sums[0], self.sums[1:].reshape(2, -1, len(codes))
        # Missing and unseen values have no rates.
        counts[..., codes < FIRST_VALUE] = 0.0
        ends = np.arange(1, self.n_blocks) * self.n_codes
        parts = np.split(np.arange(len(codes)), np.searchsorted(self.pairs, ends))
        return [BlockValues(codes[p], counts[..., p], n_rows[p]) for p in parts]

    def by_code(self, blocks):
        """Return the sums of the counts of blocks, (2, n_tasks, n_codes)."""
        total = np.zeros((2, len(self.sums) // 2, self.n_codes))
        for part in blocks:
            total[..., part.codes] += part.counts
        return total

    def rows_by_block(self):
        """Return the numbers of rows by block and code, without validation rows."""
        if self.added:
            self._join()
        n_rows = np.zeros(self.n_blocks * self.n_codes)
        n_rows[self.pairs] = self.sums[0]
        return n_rows.reshape(self.n_blocks, self.n_codes)[:-1]

    def with_inputs(self, inputs):
        """Return the inputs, given block by block and without leaving rows out."""
        inputs = np.concatenate(inputs)
        n_pairs = len(inputs) - self.n_codes
        return BlockInputs(self.pairs[:n_pairs], inputs, self.n_codes, self.n_blocks)


class BlockCounts:
    """Counts of labels per block and category value, for `TargetStatistics.fit`."""

    def __init__(self, statistics, n_blocks, n_tasks):
        self.statistics = statistics
        self.n_blocks = n_blocks
        # The last block has the validation rows.
        self.tables = [PairCounts(n, n_blocks + 1) for n in statistics.cardinalities]
        self.total, self.ones = np.zeros(n_tasks), np.zeros(n_tasks)

    def add(self, codes, y, weight, block, lists=()):
        """Add rows; the block `n_blocks` has the validation rows."""
        self.statistics.note_weights(weight)
        used = block < self.n_blocks
        own = weight[used]
        self.total += own.sum(axis=0, dtype=float)
        self.ones += (own * y[used]).sum(axis=0, dtype=float)
        for pairs, part in zip(
            self.tables, self.statistics.counted(codes, lists), strict=True
        ):
            pairs.add(part, y, weight, block)

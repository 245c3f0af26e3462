"""Splits of rows that are read in parts: validation rows, and blocks of statistics."""

import numpy as np

from sk_pwiser._funnel import funnel_strata, holdout_sizes
from sk_pwiser._streaming._chunks import RowSample
from sk_pwiser._table._frames import as_table
from sk_pwiser._table._target_statistics import read_times
from sk_pwiser._training._early_stopping import last_edge

# numpy draws from the hypergeometric distribution for fewer rows than this.
LARGEST_POPULATION = 10**9


class GroupValues:
    """One value per group, also for a group that continues in the next part."""

    def __init__(self):
        self.numbers = np.empty(0, dtype=np.int64)
        self.values = None

    def of(self, groups, of_rows, combine, choose):
        """Return the value of each row's group, by `choose` of new groups' combined."""
        numbers, first, place = np.unique(
            groups, return_index=True, return_inverse=True
        )
        combined = of_rows[first]
        combine.at(combined, place, of_rows)
        is_new = ~np.isin(numbers, self.numbers)
        chosen = choose(combined[is_new])
        values = np.empty(len(numbers), dtype=chosen.dtype)
        values[is_new] = chosen
        if not is_new.all():
            known = np.searchsorted(self.numbers, numbers[~is_new])
            values[~is_new] = self.values[known]
        self.numbers, self.values = numbers, values
        return values[place]


class HoldOut:
    """Chooses the validation rows of early stopping: the last in time or at random.

    For these, the first pass counts the rows per funnel depth, and the second draws as
    many of each as `funnel_holdout` would. Groups are held out as a whole, by their
    deepest or last row in the part in which they begin.
    """

    def __init__(self, fraction, blocks):
        self.fraction = fraction
        self.blocks = blocks
        self.counts = np.zeros(0, dtype=np.int64)
        self.groups = GroupValues()

    def count(self, targets, groups):
        self._choose(targets, groups, self._add)

    def _add(self, strata):
        added = np.bincount(strata, minlength=len(self.counts))
        added[: len(self.counts)] += self.counts
        self.counts = added
        return np.zeros(len(strata), dtype=bool)

    def start(self, seed):
        """Start the second pass, which reads the same parts as the first one."""
        self.rng = np.random.default_rng(seed)
        self.edge = self.blocks.last_edge(self.fraction)
        self.groups = GroupValues()
        self.stratum_of, self.n_held = holdout_sizes(self.counts, self.fraction)
        self.n_left = np.zeros_like(self.n_held)
        np.add.at(self.n_left, self.stratum_of, self.counts)

    def draw(self, X, targets, groups):
        if self.edge is None:
            return self._choose(targets, groups, self._draw)
        is_held = self.blocks.read(X) >= self.edge
        if groups is None:
            return is_held
        return self.groups.of(groups, is_held, np.maximum, np.asarray)

    def _choose(self, targets, groups, choose):
        strata = funnel_strata(targets.with_nan(), targets.parents)
        if groups is None:
            return choose(strata)
        return self.groups.of(groups, strata, np.maximum, choose)

    def _draw(self, strata):
        strata = self.stratum_of[strata]
        is_held = np.zeros(len(strata), dtype=bool)
        for stratum in np.unique(strata).tolist():
            rows = np.flatnonzero(strata == stratum)
            n_held, n_left = int(self.n_held[stratum]), int(self.n_left[stratum])
            n_chosen = self._share(n_held, n_left - n_held, len(rows))
            is_held[self.rng.choice(rows, n_chosen, replace=False)] = True
            self.n_held[stratum] -= n_chosen
            self.n_left[stratum] -= len(rows)
        return is_held

    def _share(self, n_held, n_kept, n_rows):
        if n_held + n_kept < LARGEST_POPULATION:
            return self.rng.hypergeometric(n_held, n_kept, n_rows)
        # Of so many rows, a part has as many as draws with replacement would give.
        n_chosen = self.rng.binomial(n_rows, n_held / (n_held + n_kept))
        return min(max(n_chosen, n_rows - n_kept), n_held)


class Blocks:
    """Assigns rows to blocks of about equal size, in time by a sample of the rows."""

    def __init__(self, column, n_blocks, n_sampled, generator):
        self.column = column
        self.n_blocks = n_blocks
        self.sample = RowSample(n_sampled, generator)
        self.n_rows = self.n_seen = 0
        self.groups = GroupValues()

    def add(self, X):
        self.n_rows += len(X)
        if self.column is not None:
            self.read(X)  # raises if times are missing
            self.sample.add(X.select([self.column]), None)

    def finish(self):
        """Choose the times between blocks when all rows were added."""
        if self.column is not None:
            self.sampled = self.read(self.sample.finish()[0])
            shares = np.arange(1, self.n_blocks) / self.n_blocks
            self.edges = np.quantile(self.sampled, shares, method="higher")

    def last_edge(self, share):
        if self.column is None or self.sampled.min() == self.sampled.max():
            return None
        return last_edge(self.sampled, share)

    def read(self, X):
        return read_times(as_table(X), self.column, X.column_names)

    def assign(self, X, groups):
        if self.column is None:
            rank = np.arange(self.n_seen, self.n_seen + len(X))
            block = rank * self.n_blocks // self.n_rows
        else:
            block = np.searchsorted(self.edges, self.read(X), side="right")
        self.n_seen += len(X)
        if groups is None:
            return block
        return self.groups.of(groups, block, np.minimum, np.asarray)

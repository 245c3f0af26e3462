"""Rows that come in parts: a sample of them, and what groups have in common."""

import numpy as np


class RowSample:
    """A random sample of `n_rows` rows: those with the smallest random keys.

    Rows are tables of pyarrow, or arrays. None keeps all rows.
    """

    def __init__(self, n_rows, generator=None):
        self.n_rows = n_rows
        self.generator = generator
        self.limit = np.inf  # rows with larger keys are not in the sample
        self.tables, self.weights, self.keys = [], [], []
        self.n_kept = 0

    def add(self, table, weights):
        keys = np.zeros(len(table))
        if self.n_rows is not None:
            keys = self.generator.random(len(table))
        weights = np.ones(len(table)) if weights is None else weights
        if np.isfinite(self.limit):
            kept = np.flatnonzero(keys < self.limit)
            table, keys, weights = table.take(kept), keys[kept], weights[kept]
        if not len(keys):
            return
        self.tables.append(table)
        self.weights.append(weights)
        self.keys.append(keys)
        self.n_kept += len(keys)
        if self.n_rows is not None and self.n_kept > 2 * self.n_rows:
            self._reduce()

    def _reduce(self):
        """Keep the smallest keys, in the order of the rows."""
        keys = np.concatenate(self.keys)
        chosen = np.sort(np.argpartition(keys, self.n_rows)[: self.n_rows])
        table, weights = self._join()
        self.tables, self.keys = [table.take(chosen)], [keys[chosen]]
        self.weights = [weights[chosen]]
        self.limit, self.n_kept = keys[chosen].max(), len(chosen)

    def _join(self):
        if isinstance(self.tables[0], np.ndarray):
            table = np.concatenate(self.tables)
        else:
            import pyarrow as pa  # installed, since the tables are its own

            table = pa.concat_tables(self.tables).combine_chunks()
        # Some of the parts may have weights per task.
        n_columns = max(part[0].size for part in self.weights)
        parts = [
            np.broadcast_to(part.reshape(len(part), -1), (len(part), n_columns))
            for part in self.weights
        ]
        return table, np.concatenate(parts)

    def finish(self):
        if self.n_rows is not None and self.n_kept > self.n_rows:
            self._reduce()
        return self._join()


class GroupValues:
    """One value per group, also for a group that continues in the next part."""

    def __init__(self):
        self.numbers = np.empty(0, dtype=np.int64)
        self.values = None

    def of(self, groups, of_rows, combine, choose):
        """Return the value of each row's group.

        New groups `combine` the values of their rows, from which `choose` makes theirs.
        """
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


def one_per_group(groups):
    """Return for each row one of the rows of its group, which differ in their place.

    With the first rows, all groups that come back would be in the first blocks.
    """
    numbers, number, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    starts = sizes.cumsum() - sizes
    rows = np.argsort(number, kind="stable")[starts + numbers % sizes]
    return rows[number]


class GroupSizes:
    """The number of rows of the largest group, also if it continues in later parts."""

    def __init__(self):
        self.numbers, self.sizes = np.empty((2, 0), dtype=np.int64)
        self.largest = 0

    def add(self, groups):
        numbers, sizes = np.unique(groups, return_counts=True)
        continues = np.isin(self.numbers, numbers)
        places = np.searchsorted(numbers, self.numbers[continues])
        sizes[places] += self.sizes[continues]
        self.numbers, self.sizes = numbers, sizes
        self.largest = max(self.largest, sizes.max(initial=0))

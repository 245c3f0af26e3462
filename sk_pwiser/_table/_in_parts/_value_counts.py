"""Frequencies of category values, counted part by part in bounded memory."""

import numpy as np


class ValueCounts:
    """Numbers of rows per value of a category column.

    They are exact up to `max_values` distinct values. Whenever there are more, the
    least frequent values are dropped until half as many are left (Manku and Motwani,
    2002, drop them at regular intervals). What was dropped of a value is not counted;
    it is at most `max_dropped` rows.

    Parameters
    ----------
    column : CategoryColumn
        The encoder of the column, which learns the frequencies in `finish`.
    max_values : int
        Largest number of values.

    References
    ----------
    Manku and Motwani (2002). "Approximate frequency counts over data streams." VLDB.
    """

    def __init__(self, column, max_values):
        self.column = column
        self.max_values = max_values
        # Without codes of their own, values need not be counted.
        self.is_counting = column.vocabulary.max_values != 0
        self.counts, self.kinds = {}, set()
        self.n_missing = self.n_dropped = self.max_dropped = 0

    def add(self, values):
        """Add the rows of a column."""
        values, counts, kinds, n_missing = self.column.count(values)
        self.kinds |= kinds
        self.n_missing += n_missing
        if not self.is_counting:
            self.n_dropped += sum(counts)
            return
        total = self.counts
        for value, count in zip(values, counts, strict=True):
            total[value] = total.get(value, 0) + count
        if len(total) > self.max_values:
            self._drop()

    def _drop(self):
        counts = np.fromiter(self.counts.values(), dtype=np.int64)
        n_kept = self.max_values // 2
        limit = int(np.partition(counts, -n_kept - 1)[-n_kept - 1])
        self.max_dropped += limit
        self.n_dropped += int(counts[counts <= limit].sum())
        self.counts = {v: n for v, n in self.counts.items() if n > limit}

    def finish(self):
        """Let the encoder learn the values."""
        self.column.learn(
            list(self.counts),
            list(self.counts.values()),
            self.n_missing > 0,
            self.kinds,
            self.n_dropped,
        )

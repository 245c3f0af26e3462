"""Counts of category values of rows in parts, in limited memory."""

from collections import Counter
from typing import Any

import numpy as np

from sk_pwiser._columns._base import PartLearner, TableCells


class ValueCounts(PartLearner):
    """Numbers of rows per value of a category column, exact up to `max_values` values.

    Beyond that, only the most frequent half is kept (Manku and Motwani, 2002).
    """

    def __init__(self, column: Any, max_values: int) -> None:
        super().__init__(column)
        self.max_values = max_values
        # Without codes of their own, values need not be counted.
        self.is_counting = column.vocabulary.max_values != 0
        self.counts: Counter[Any] = Counter()
        self.kinds: set[str] = set()
        self.n_missing = 0
        self.n_dropped = 0
        self._max_dropped = 0

    @property
    def max_dropped(self) -> int:
        """Number of rows of a value that its count may lack."""
        return self._max_dropped

    def add(self, table: TableCells) -> None:
        """Add a part of the rows."""
        name = self.column.name
        self.count(table.cells[name], *table.elements_beside(name))

    def count(self, *columns: Any) -> None:
        """Add the values of columns."""
        values, counts, kinds, n_missing = self.column.count(*columns)
        self.kinds |= kinds
        self.n_missing += n_missing
        if not self.is_counting:
            self.n_dropped += sum(counts)
            return
        self.counts.update(dict(zip(values, counts, strict=True)))
        if len(self.counts) > self.max_values:
            self._drop_rare()

    def _drop_rare(self) -> None:
        counts = np.fromiter(self.counts.values(), dtype=np.int64)
        n_kept = self.max_values // 2
        limit = int(np.partition(counts, -n_kept - 1)[-n_kept - 1])
        self._max_dropped += limit
        self.n_dropped += int(counts[counts <= limit].sum())
        self.counts = Counter({v: n for v, n in self.counts.items() if n > limit})

    def finish(self, sample: TableCells, sample_weight: np.ndarray | None) -> None:
        """Learn the counted values."""
        values = list(self.counts)
        counts = list(self.counts.values())
        has_missing = self.n_missing > 0
        self.column.learn(values, counts, has_missing, self.kinds, self.n_dropped)

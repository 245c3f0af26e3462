"""A random sample of rows in parts."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class RowSample:
    """A random sample of `n_rows` rows of several parts: those with the smallest keys.

    Rows are tables of pyarrow, or arrays. None keeps all rows.
    """

    n_rows: int | None = None
    generator: Any = None
    limit: float = np.inf  # rows with larger keys are not in the sample
    parts: list = field(default_factory=list)  # rows, weights and random keys
    n_kept: int = 0

    def add(self, table, weights):
        keys = np.zeros(len(table))
        if self.n_rows is not None:
            keys = self.generator.random(len(table))
        weights = np.ones(len(table)) if weights is None else weights
        if np.isfinite(self.limit):
            small = np.flatnonzero(keys < self.limit)
            table = table.take(small)
            weights = weights[small]
            keys = keys[small]
        if not len(keys):
            return
        self.parts.append((table, weights, keys))
        self.n_kept += len(keys)
        if self.n_rows is not None and self.n_kept > 2 * self.n_rows:
            self._reduce()

    def finish(self):
        if self.n_rows is not None and self.n_kept > self.n_rows:
            self._reduce()
        return self._join()[:2]

    def _reduce(self):
        """Keep the smallest keys, in the order of the rows."""
        table, weights, keys = self._join()
        chosen = np.sort(np.argpartition(keys, self.n_rows)[: self.n_rows])
        self.parts = [(table.take(chosen), weights[chosen], keys[chosen])]
        self.limit = keys[chosen].max()
        self.n_kept = len(chosen)

    def _join(self):
        tables, weights, keys = zip(*self.parts, strict=True)
        if isinstance(tables[0], np.ndarray):
            table = np.concatenate(tables)
        else:
            import pyarrow as pa  # installed, since the tables are its own

            table = pa.concat_tables(tables).combine_chunks()
        # Some of the parts may have weights per task.
        n_columns = max(part[0].size for part in weights)
        weights = [
            np.broadcast_to(part.reshape(len(part), -1), (len(part), n_columns))
            for part in weights
        ]
        return table, np.concatenate(weights), np.concatenate(keys)

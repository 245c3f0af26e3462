"""A random sample of rows that are seen one part after the other."""

import numpy as np


class RowSample:
    """The rows with the smallest of random keys: all rows, if they are few enough.

    Parameters
    ----------
    n_rows : int
        Number of rows of the sample; up to twice as many are in memory.
    generator : numpy.random.Generator
        Draws the keys.
    """

    def __init__(self, n_rows, generator):
        self.n_rows = n_rows
        self.generator = generator
        self.limit = np.inf  # rows with larger keys are not in the sample
        self.tables, self.weights, self.keys = [], [], []
        self.n_kept = 0

    def add(self, table, weights):
        """Add rows.

        Parameters
        ----------
        table : pyarrow.Table
            The rows.
        weights : float64 ndarray of shape (n_rows,) or (n_rows, n_tasks), or None
            Their weights.
        """
        keys = self.generator.random(len(table))
        if np.isfinite(self.limit):
            kept = np.flatnonzero(keys < self.limit)
            table, keys = table.take(kept), keys[kept]
            weights = None if weights is None else weights[kept]
        if not len(keys):
            return
        self.tables.append(table)
        self.weights.append(weights)
        self.keys.append(keys)
        self.n_kept += len(keys)
        if self.n_kept > 2 * self.n_rows:
            self._reduce()

    def _reduce(self):
        """Keep the smallest keys, in the order of the rows."""
        keys = np.concatenate(self.keys)
        chosen = np.sort(np.argpartition(keys, self.n_rows)[: self.n_rows])
        table, weights = self._join()
        self.tables, self.keys = [table.take(chosen)], [keys[chosen]]
        self.weights = [None if weights is None else weights[chosen]]
        self.limit, self.n_kept = keys[chosen].max(), len(chosen)

    def _join(self):
        import pyarrow as pa  # installed, since the tables are its own

        table = pa.concat_tables(self.tables).combine_chunks()
        if all(weights is None for weights in self.weights):
            return table, None
        sizes = list(map(len, self.keys))
        pairs = zip(self.weights, sizes, strict=True)
        parts = [np.ones(n) if w is None else w for w, n in pairs]
        n_columns = max(part.size // len(part) for part in parts)
        if n_columns > 1:
            parts = [
                np.broadcast_to(part.reshape(len(part), -1), (len(part), n_columns))
                for part in parts
            ]
        return table, np.concatenate(parts)

    def finish(self):
        """Return the table of the sample, and the weights of its rows or None."""
        if self.n_kept > self.n_rows:
            self._reduce()
        return self._join()

"""The columns of rows in parts: counts of their values, and samples of numbers."""

from collections import Counter

import numpy as np

from sk_pwiser._table._blocks import RowSample
from sk_pwiser._table._categories import CategoryColumn
from sk_pwiser._table._column_kinds import warn_about_constants
from sk_pwiser._table._encoder import elements_of, learn_constant_columns
from sk_pwiser._table._frames import as_table, list_columns
from sk_pwiser._table._numbers import NumericColumn
from sk_pwiser._table._weights_and_groups import row_weights, scale_weights
from sk_pwiser._utils import warn_user


class ValueCounts:
    """Numbers of rows per value of a category column, exact up to `max_values` values.

    Beyond that, only the most frequent half is kept (Manku and Motwani, 2002).
    """

    def __init__(self, column, max_values):
        self.column = column
        self.max_values = max_values
        # Without codes of their own, values need not be counted.
        self.is_counting = column.vocabulary.max_values != 0
        self.counts, self.kinds = Counter(), set()
        self.n_missing = self.n_dropped = self.max_dropped = 0

    def add(self, *columns):
        values, counts, kinds, n_missing = self.column.count(*columns)
        self.kinds |= kinds
        self.n_missing += n_missing
        if not self.is_counting:
            self.n_dropped += sum(counts)
            return
        self.counts.update(dict(zip(values, counts, strict=True)))
        if len(self.counts) > self.max_values:
            self._drop()

    def _drop(self):
        counts = np.fromiter(self.counts.values(), dtype=np.int64)
        n_kept = self.max_values // 2
        limit = int(np.partition(counts, -n_kept - 1)[-n_kept - 1])
        self.max_dropped += limit
        self.n_dropped += int(counts[counts <= limit].sum())
        self.counts = Counter({v: n for v, n in self.counts.items() if n > limit})

    def finish(self):
        self.column.learn(
            list(self.counts),
            list(self.counts.values()),
            self.n_missing > 0,
            self.kinds,
            self.n_dropped,
        )


class TableLearner:
    """Learns the columns of rows in parts, numbers from a sample of the rows.

    With a fitted encoder, which is not `new`, it learns only the columns that were
    constant so far.
    """

    def __init__(self, encoder, dataset, generator, new=True):
        self.encoder = encoder
        self.new = new
        self.max_values = dataset.max_values
        self.sample = RowSample(dataset.sample_rows, generator)
        self.counts = None

    def add(self, X, weights):
        if not self.new:
            if any(getattr(c, "has_constant", False) for c in self.encoder.columns_):
                self.sample.add(X, weights)
            return
        if self.counts is None:
            self._begin(X)
        columns = list_columns(as_table(X))
        lists = self.encoder.read_lists(columns)
        by_name = {}
        for column, values in zip(self.encoder.columns_, columns, strict=True):
            by_name[column.name] = values
            if isinstance(column, CategoryColumn):
                shared = elements_of(lists, column.name)
                self.counts[column.name].add(values, *shared)
            elif isinstance(column, NumericColumn) and column.is_scalar:
                column.read(values)  # an infinite value is named with its row
        for column, own in lists:
            if column.shared_name is None:
                self.counts[column.name].add(own.elements)
            column.add(own, by_name.get(column.ages_name))
        self.sample.add(X.select(self.numeric), weights)

    def _begin(self, X):
        self.encoder.begin(X)
        columns = self.encoder.columns_
        self.counts = {
            column.name: ValueCounts(column, self.max_values)
            for column in columns
            if isinstance(column, CategoryColumn)
        }
        for column in self.encoder.lists_:
            if column.shared_name is None:
                self.counts[column.name] = ValueCounts(column.items_, self.max_values)
        self.numeric = [c.name for c in columns if isinstance(c, NumericColumn)]

    def finish(self):
        """Return the encoder when all rows were added."""
        if not self.new:
            if not self.sample.n_kept:
                return self.encoder
            table, weights = self.sample.finish()
            X, weights = self.encoder.align(table), row_weights(scale_weights(weights))
            return learn_constant_columns(self.encoder, X, weights)
        for counts in self.counts.values():
            counts.finish()
        for column in self.encoder.lists_:
            column.finish()
        columns = {column.name: column for column in self.encoder.columns_}
        table, weights = self.sample.finish()
        weights = row_weights(scale_weights(weights))
        values = list_columns(as_table(table)) if self.numeric else []
        encoders = [columns[name] for name in self.numeric]
        pairs = list(zip(encoders, values, strict=True))
        self.encoder.learn_numbers(pairs, weights)
        warn_about_constants(self.encoder.columns_)
        self._warn_about_dropped()
        return self.encoder

    def _warn_about_dropped(self):
        found = [
            f"{name!r} ({counts.max_dropped})"
            for name, counts in self.counts.items()
            if counts.max_dropped
        ]
        if found:
            warn_user(
                f"Columns with more than max_values={self.max_values} values: "
                f"{', '.join(found)}. In brackets stands the number of rows by which "
                "the frequency of a value may be too low; rare values count as unseen. "
                "n_hash_buckets in encoding_params gives each value a vector."
            )

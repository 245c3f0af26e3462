"""Learns the columns of rows in parts."""

from collections import Counter

import numpy as np

from sk_pwiser._columns._category import CategoryColumn
from sk_pwiser._columns._column_warnings import warn_about_constants
from sk_pwiser._columns._encoder import learn_constant_columns
from sk_pwiser._columns._frames import as_table, list_columns
from sk_pwiser._columns._list import ListColumn
from sk_pwiser._columns._number import NumericColumn
from sk_pwiser._tasks import _weights
from sk_pwiser._utils._warnings import warn_user


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
        if len(self.counts) <= self.max_values:
            return
        counts = np.fromiter(self.counts.values(), dtype=np.int64)
        n_kept = self.max_values // 2
        limit = int(np.partition(counts, -n_kept - 1)[-n_kept - 1])
        self.max_dropped += limit
        self.n_dropped += int(counts[counts <= limit].sum())
        self.counts = Counter({v: n for v, n in self.counts.items() if n > limit})

    def finish(self):
        values, counts = list(self.counts), list(self.counts.values())
        has_missing = self.n_missing > 0
        self.column.learn(values, counts, has_missing, self.kinds, self.n_dropped)


class TableLearner:
    """Learns the columns of rows in parts, numbers from a sample of the rows.

    With a fitted encoder, that is not new, it learns only the columns that were
    constant so far.
    """

    def __init__(self, encoder, *, max_values, sample, is_new):
        self.encoder = encoder
        self.is_new = is_new
        self.max_values = max_values
        self.sample = sample
        self.counts = None

    def add(self, X, weights):
        if not self.is_new:
            if any(getattr(c, "has_constant", False) for c in self.encoder.columns_):
                self.sample.add(X, weights)
            return
        if self.counts is None:
            self.encoder.begin(X)
            self.numeric = self.encoder.of_kind(NumericColumn)
            self.lists = self.encoder.of_kind(ListColumn)
            counted = self.encoder.of_kind(CategoryColumn)
            counted += [c.items_ for c in self.lists if c.shared_name is None]
            self.counts = {c.name: ValueCounts(c, self.max_values) for c in counted}
        columns = list_columns(as_table(X))
        lists, elements = self.encoder.read_lists(columns)
        by_name = {}
        for column, values in zip(self.encoder.columns_, columns, strict=True):
            by_name[column.name] = values
            if isinstance(column, CategoryColumn):
                self.counts[column.name].add(values, *elements[column.name])
            elif isinstance(column, NumericColumn) and column.is_scalar:
                column.read(values)  # an infinite value is named with its row
        for column, own in lists:
            if column.shared_name is None:
                self.counts[column.name].add(own.elements)
            column.add(own, by_name.get(column.ages_name))
        self.sample.add(X.select([c.name for c in self.numeric]), weights)

    def finish(self):
        """Return the encoder when all rows were added."""
        encoder = self.encoder
        if not self.sample.n_kept:  # none of the columns were constant
            return encoder
        table, weights = self.sample.finish()
        weights = _weights.scale_weights(weights)
        weights = _weights.row_weights(weights)
        if not self.is_new:
            return learn_constant_columns(encoder, table, weights)
        for column in (*self.counts.values(), *self.lists):
            column.finish()
        values = list_columns(as_table(table)) if self.numeric else []
        encoder.learn_numbers(list(zip(self.numeric, values, strict=True)), weights)
        warn_about_constants(encoder.columns_)
        dropped = {name: counts.max_dropped for name, counts in self.counts.items()}
        found = [f"{name!r} ({n_rows})" for name, n_rows in dropped.items() if n_rows]
        if found:
            warn_user(
                f"Columns with more than max_values={self.max_values} values: "
                f"{', '.join(found)}. In brackets: rows that a count may lack. "
                "n_hash_buckets in encoding_params gives each value a vector."
            )
        return encoder

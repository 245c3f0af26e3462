"""Learns the columns of rows in parts."""

from typing import Any

import numpy as np

from sk_pwiser._columns._base import PartLearner, TableCells
from sk_pwiser._columns._column_warnings import warn_about_constants
from sk_pwiser._columns._encoder import TableEncoder, learn_constant_columns
from sk_pwiser._columns._frames import as_table, list_columns
from sk_pwiser._rows._row_sample import RowSample
from sk_pwiser._tasks import _weights
from sk_pwiser._utils._warnings import warn_user


class TableLearner:
    """Learns the columns of rows in parts, numbers from a sample of the rows.

    With a fitted encoder, that is not new, it learns only the columns that were
    constant so far.
    """

    def __init__(
        self,
        encoder: TableEncoder,
        *,
        max_values: Any,  # an int, since only files have several parts
        sample: RowSample,
        is_new: bool,
    ) -> None:
        self.encoder = encoder
        self.is_new = is_new
        self.max_values = max_values
        self.sample = sample
        self.learners: dict[Any, PartLearner] = {}

    def add(self, X: Any, weights: np.ndarray | None) -> None:
        """Add a part of the rows."""
        if not self.is_new:
            if any(column.has_constant for column in self.encoder.columns_):
                self.sample.add(X, weights)
            return
        if not self.learners:
            self.encoder.begin(X)
            self.learners = {
                column.name: column.part_learner(self.max_values)
                for column in self.encoder.columns_
            }
        columns = self.encoder.columns_
        table = TableCells(X, columns, list_columns(as_table(X)))
        for column in columns:
            column.check_cells(table)
        for learner in self.learners.values():
            learner.add(table)
        names = [column.name for column in columns if column.needs_sample]
        self.sample.add(X.select(names), weights)

    def finish(self) -> TableEncoder:
        """Return the encoder when all rows were added."""
        encoder = self.encoder
        if not self.sample.n_kept:  # none of the columns were constant
            return encoder
        table, weights = self.sample.finish()
        weights = _weights.scale_weights(weights)
        weights = _weights.row_weights(weights)
        if not self.is_new:
            return learn_constant_columns(encoder, table, weights)
        sampled = [column for column in encoder.columns_ if column.needs_sample]
        cells = list_columns(as_table(table)) if sampled else []
        sample = TableCells(table, sampled, cells)
        for learner in self.learners.values():
            learner.finish(sample, weights)
        encoder.warn_about_columns(sample)
        warn_about_constants(encoder.columns_)
        self._warn_about_dropped()
        return encoder

    def _warn_about_dropped(self) -> None:
        """Warn about columns of which not all values were counted."""
        dropped = {name: learner.max_dropped for name, learner in self.learners.items()}
        columns = [f"{name!r} ({n_rows})" for name, n_rows in dropped.items() if n_rows]
        if columns:
            warn_user(
                f"Columns with more than max_values={self.max_values} values: "
                f"{', '.join(columns)}. In brackets: rows that a count may lack. "
                "n_hash_buckets in encoding_params gives each value a vector."
            )

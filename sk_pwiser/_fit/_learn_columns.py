"""How the columns of a fit are learnt: anew, further, or not at all."""

from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from sk_pwiser._columns._column_warnings import (
    warn_about_constants,
    warn_about_few_values,
)
from sk_pwiser._columns._encoder import TableEncoder, learn_constant_columns
from sk_pwiser._columns._number import FEW_VALUES
from sk_pwiser._columns._target_statistics import TargetStatistics
from sk_pwiser._fit._choose_combinations import choose_of_table
from sk_pwiser._rows._checked_rows import CheckedRows
from sk_pwiser._rows._row_summary import RowSummary
from sk_pwiser._settings import (
    Settings,
    left_out_column,
    values_are_per_impression,
)
from sk_pwiser._training._schema import Schema, make_encoder, unfitted_statistics


class EncodedTable(NamedTuple):
    """Rows in one part, encoded while their columns were learnt."""

    encoder: TableEncoder
    statistics: TargetStatistics | None
    arrays: tuple[Any, ...]  # codes, numeric inputs and, if there are any, bags
    rows: CheckedRows


class Columns(Protocol):
    """Learns the columns of the rows of a fit, and makes a schema of them."""

    encoder: TableEncoder  # that parts of rows are learnt by
    are_new: bool  # whether all of the columns are learnt
    # Of the fit that training continues from, for values that do not occur again.
    earlier_statistics: TargetStatistics | None

    def encode_table(
        self, rows: CheckedRows, weights: np.ndarray | None, reserves_rates: bool
    ) -> EncodedTable:
        """Learn the columns of rows in one part, and encode these at once.

        With `reserves_rates`, the numeric inputs have columns without values for the
        target statistics.
        """

    def schema(
        self,
        encoder: TableEncoder,
        statistics: TargetStatistics | None,
        summary: RowSummary,
    ) -> Schema:
        """Return the schema of a table that was encoded."""

    def schema_of_parts(self, encoder: TableEncoder, summary: RowSummary) -> Schema:
        """Return the schema of rows in parts, which are not encoded yet."""


def n_reserved(statistics: TargetStatistics | None, reserves_rates: bool) -> int:
    """Return the number of numeric inputs that are left to target statistics."""
    if statistics is None or not reserves_rates:
        return 0
    return int(statistics.n_outputs)


def refuse_time_as_feature(settings: Settings, schema: Schema) -> None:
    """Raise if the column of times was a feature in an earlier fit."""
    name = left_out_column(settings)
    if name in [column.name for column in schema.encoder.read_columns_]:
        raise ValueError(
            f"time_column={name!r} was a feature in the earlier fit. Set "
            "time_feature=True in encoding_params to continue it."
        )


class NewColumns:
    """All columns are learnt, and target statistics chosen for them."""

    are_new = True
    earlier_statistics: TargetStatistics | None = None

    def __init__(self, settings: Settings, estimator_name: str) -> None:
        self.settings = settings
        self.encoder = make_encoder(settings, estimator_name)

    def encode_table(
        self, rows: CheckedRows, weights: np.ndarray | None, reserves_rates: bool
    ) -> EncodedTable:
        """Learn the columns of rows in one part, and encode these at once."""
        # Learning and encoding at once spares finding the distinct values twice.
        encoded = self.encoder.fit(rows.X, weights)
        combinations = choose_of_table(self.settings, self.encoder, encoded, rows)
        encoded = self.encoder.add_combinations(combinations, encoded)
        # Constants are usual in a single row.
        if len(rows) > 1:
            warn_about_constants(self.encoder.columns_)
        statistics = unfitted_statistics(
            self.settings, self.encoder, rows.targets.values.shape
        )
        arrays = self.encoder.stack(encoded, n_reserved(statistics, reserves_rates))
        return EncodedTable(self.encoder, statistics, arrays, rows)

    def schema(
        self,
        encoder: TableEncoder,
        statistics: TargetStatistics | None,
        summary: RowSummary,
    ) -> Schema:
        """Return the schema of the learnt columns."""
        return Schema.of(
            self.settings,
            encoder,
            summary.tasks,
            summary.base_rates(),
            statistics=statistics,
            value_scales=summary.value_scales(values_are_per_impression(self.settings)),
        )

    def schema_of_parts(self, encoder: TableEncoder, summary: RowSummary) -> Schema:
        """Return the schema of the learnt columns, with statistics chosen for them."""
        shape = summary.n_rows, len(summary.tasks.task_names)
        statistics = unfitted_statistics(self.settings, encoder, shape)
        return self.schema(encoder, statistics, summary)


class ColumnsOfStream(NewColumns):
    """All columns are learnt, from the first rows of a stream."""

    def encode_table(
        self, rows: CheckedRows, weights: np.ndarray | None, reserves_rates: bool
    ) -> EncodedTable:
        """Learn the columns of the first rows, and encode these at once."""
        encoded = self.encoder.fit(rows.X, weights)
        combinations = choose_of_table(self.settings, self.encoder, encoded, rows)
        encoded = self.encoder.add_combinations(combinations, encoded)
        # A stream cannot choose the size of its first part.
        statistics = unfitted_statistics(
            self.settings, self.encoder, rows.targets.values.shape, in_stream=True
        )
        arrays = self.encoder.stack(encoded, n_reserved(statistics, reserves_rates))
        columns_with_rates = []
        if statistics is not None and len(rows) < FEW_VALUES:
            columns_with_rates = statistics.column_names(self.encoder)
        warn_about_few_values(self.encoder.columns_, columns_with_rates)
        return EncodedTable(self.encoder, statistics, arrays, rows)


class EarlierColumns:
    """The columns of an earlier fit, with new statistics of the same columns.

    What its rows could not show is learnt: columns that were constant.
    """

    are_new = False

    def __init__(self, settings: Settings, earlier_schema: Schema) -> None:
        refuse_time_as_feature(settings, earlier_schema)
        self.settings = settings
        self.earlier_schema = earlier_schema
        self.encoder = earlier_schema.encoder
        self.earlier_statistics = earlier_schema.statistics

    def encode_table(
        self, rows: CheckedRows, weights: np.ndarray | None, reserves_rates: bool
    ) -> EncodedTable:
        """Learn columns that were constant, and encode rows in one part."""
        rows = replace(rows, X=self.encoder.align(rows.X))
        encoder = learn_constant_columns(self.encoder, rows.X, weights)
        n_rates = n_reserved(self.earlier_schema.statistics, reserves_rates)
        arrays = encoder.transform(rows.X, n_rates)
        return EncodedTable(encoder, None, arrays, rows)

    def schema(
        self,
        encoder: TableEncoder,
        statistics: TargetStatistics | None,
        summary: RowSummary,
    ) -> Schema:
        """Return the earlier schema with statistics that are not fitted yet."""
        shape = summary.n_rows, len(summary.tasks.task_names)
        statistics = unfitted_statistics(
            self.settings, encoder, shape, self.earlier_schema
        )
        return replace(self.earlier_schema, encoder=encoder, statistics=statistics)

    def schema_of_parts(self, encoder: TableEncoder, summary: RowSummary) -> Schema:
        """Return the earlier schema with statistics that are not fitted yet."""
        return self.schema(encoder, None, summary)


class SharedColumns:
    """The columns and the statistics of another fit: no column is learnt."""

    are_new = False
    earlier_statistics: TargetStatistics | None = None

    def __init__(self, settings: Settings, shared: Schema) -> None:
        refuse_time_as_feature(settings, shared)
        self.shared = shared
        self.encoder = shared.encoder

    def encode_table(
        self, rows: CheckedRows, weights: np.ndarray | None, reserves_rates: bool
    ) -> EncodedTable:
        """Encode rows in one part."""
        rows = replace(rows, X=self.encoder.align(rows.X))
        n_rates = n_reserved(self.shared.statistics, reserves_rates)
        arrays = self.encoder.transform(rows.X, n_rates)
        return EncodedTable(self.encoder, self.shared.statistics, arrays, rows)

    def schema(
        self,
        encoder: TableEncoder,
        statistics: TargetStatistics | None,
        summary: RowSummary,
    ) -> Schema:
        """Return the shared schema, whose base rates are those of the rows."""
        return replace(self.shared, base_rates=summary.base_rates())

    def schema_of_parts(self, encoder: TableEncoder, summary: RowSummary) -> Schema:
        """Return the shared schema, whose base rates are those of the rows."""
        return self.schema(encoder, None, summary)

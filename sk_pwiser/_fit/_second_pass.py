"""The second pass over the rows, repeated if their order misleads: rows are stored."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sk_pwiser._columns._new_values import NewValues
from sk_pwiser._columns._target_statistics import (
    BlockCounts,
    TargetStatistics,
    find_target_columns,
)
from sk_pwiser._fit._encoded_parts import EncodedPart, EncodedParts
from sk_pwiser._rows._blocks import Blocks
from sk_pwiser._rows._hold_out import HeldOut
from sk_pwiser._rows._protocol import Rows, RowStore
from sk_pwiser._rows._row_order import RowOrder
from sk_pwiser._settings import AUTO_WEIGHT, Settings
from sk_pwiser._training._levels._last_rows import LevelRecord
from sk_pwiser._training._schema import Schema, statistic_labels


@dataclass(kw_only=True)
class SecondPass:
    """What a pass over the encoded rows stores and counts."""

    settings: Settings
    schema: Schema
    blocks: Blocks
    held_out: HeldOut
    store: RowStore
    counts: BlockCounts | None  # of labels per block, None without blocks
    order: RowOrder | None  # of the same rows, or of columns of many values
    new_values: NewValues | None  # None if the category dropout is known
    level: LevelRecord | None  # if the last rows in time are held out
    # The time before which rows are in the first half in time, None without halves,
    # and whether each training row so far is.
    middle: float | None
    is_early: list[np.ndarray] = field(default_factory=list)
    # The rows that a scaled weight of 1 stands for, if weights are counts.
    rows_per_weight: float | None

    def add(self, part: EncodedPart) -> None:
        """Store and count the next rows."""
        rows = part.rows
        is_held_out = self.held_out.draw(rows, part.times, part.keys)
        if self.level is not None:
            assert part.times is not None
            self.level.add(part.times, rows.targets.values, part.weights, is_held_out)
        if self.middle is not None:
            assert part.times is not None
            self.is_early.append(part.times[~is_held_out] < self.middle)
        block: Any = None
        order_block: Any = None
        if self.order is not None:
            block, order_block = self._assign_blocks(part)
        if self.new_values is not None:
            rank = self.new_values.n_rows + np.arange(len(rows))
            is_late = self.blocks.are_late(rank, part.times, block, rows.groups)
            self.new_values.add(part.codes, is_late)
        if self.order is not None and self.counts is None:
            self.order.add(part.codes, order_block)
        if self.schema.statistics is not None:
            self._add_labels(part, is_held_out, block, order_block)
        self.store.add(
            part.encoded, is_held_out, block if self.counts is not None else None
        )

    def _assign_blocks(self, part: EncodedPart) -> tuple[np.ndarray, np.ndarray]:
        """Return the blocks of rows, and those by which their order is judged."""
        n_rows = len(part.rows)
        block = self.blocks.assign(n_rows, part.times, part.units, part.keys)
        if part.units is None or not part.interleaves_units:
            return block, block
        return block, self.blocks.assign(n_rows, part.times, None)

    def _add_labels(
        self,
        part: EncodedPart,
        is_held_out: np.ndarray,
        block: Any,
        order_block: Any,
    ) -> None:
        """Check the labels of the next rows for statistics, and count them by block."""
        statistics: Any = self.schema.statistics
        codes = part.codes
        labels, weights = statistic_labels(
            self.settings,
            self.schema,
            part.rows.targets,
            part.weights,
            part.exposure,
        )
        if self.rows_per_weight is not None:
            # How far rates deviate by chance depends on the number of rows.
            weights = weights * self.rows_per_weight
        lists = self.schema.elements(part.encoded.bags)
        if not self.blocks.n_tried:
            statistics.check_rows(codes, labels, weights, lists)
        if self.counts is None:
            return
        assert self.order is not None
        if self.blocks.have_order:
            training_rows = np.flatnonzero(~is_held_out)
            firsts = [
                lists[index].first[training_rows] for index in self.order.list_runs
            ]
            self.order.add(codes[training_rows], order_block[training_rows], firsts)
            # Those of amounts come last.
            events = labels[training_rows, : statistics.n_events]
            event_weights = weights[training_rows, : statistics.n_events]
            self.order.add_labels(events, event_weights, order_block[training_rows])
        # Validation rows read the statistics of all blocks.
        block[is_held_out] = self.blocks.n_blocks
        self.counts.add(codes, labels, weights, block, lists)


def run_pass(
    settings: Settings,
    source: Rows,
    parts: EncodedParts,
    *,
    schema: Schema,
    blocks: Blocks,
    held_out: HeldOut,
    has_blocks: bool,
    holds_out_last: bool,
    measures_new_values: bool,
) -> SecondPass:
    """Pass over all rows once; every pass holds out the same ones."""
    level = None
    if holds_out_last:
        level = LevelRecord.of(
            blocks.sampled, settings.validation_fraction, schema.targets.parents
        )
    middle = None
    if blocks.by_time and settings.pwiser_weight == AUTO_WEIGHT:
        share = settings.validation_fraction if holds_out_last else 0.0
        middle = float(np.quantile(blocks.sampled, (1 - share) / 2))
    store = source.new_store()
    counts = None
    order = None
    new_values = NewValues(schema.encoder) if measures_new_values else None
    if has_blocks:
        assert schema.statistics is not None
        counts = _new_counts(schema, schema.statistics, blocks)
        order = _order_of_statistics(schema, schema.statistics, blocks)
    elif measures_new_values:
        order = _order_of_columns(settings, schema, blocks)
    held_out.start()
    second_pass = SecondPass(
        settings=settings,
        schema=schema,
        blocks=blocks,
        held_out=held_out,
        store=store,
        counts=counts,
        order=order,
        new_values=new_values,
        level=level,
        middle=middle,
        rows_per_weight=source.summary.rows_per_weight,
    )
    for part in parts.read():
        second_pass.add(part)
    return second_pass


def _new_counts(
    schema: Schema, statistics: TargetStatistics, blocks: Blocks
) -> BlockCounts:
    n_labels = len(schema.targets.task_names) + statistics.n_values
    return BlockCounts(statistics, blocks.n_blocks, n_labels)


def _order_of_statistics(schema: Schema, statistics: Any, blocks: Blocks) -> RowOrder:
    """Return an empty order of the columns whose statistics leave out blocks."""
    sizes = statistics.cardinalities
    lists = [(index, sizes[table]) for index, table in statistics.lists]
    n_tasks = len(schema.targets.task_names)
    return RowOrder(
        statistics.columns, schema.encoder, blocks.n_blocks, n_tasks, lists=lists
    )


def _order_of_columns(
    settings: Settings, schema: Schema, blocks: Blocks
) -> RowOrder | None:
    """Return an empty order of columns that judge it for the category dropout, if any.

    Columns of many values judge the order: others, such as the number of the week, may
    well be sorted by time.
    """
    params = settings.encoding_params
    if params["category_dropout"] != "auto" or not blocks.have_order:
        return None
    fewest_values = params["target_encoding_min_values"]
    columns = find_target_columns(True, schema.encoder, fewest_values)
    if not columns:
        return None
    n_tasks = len(schema.targets.task_names)
    return RowOrder(columns, schema.encoder, blocks.n_blocks, n_tasks)

"""Rows become tensors: one pass learns their encoding, a second one encodes them."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import torch

from sk_pwiser._fit._check import Plan
from sk_pwiser._fit._hold_out import (
    HoldOut,
    warn_about_absent,
    warn_about_share,
    warn_about_trained,
)
from sk_pwiser._fit._read import Source
from sk_pwiser._streaming import (
    FileRows,
    FileStore,
    TableLearner,
    encode_eval_rows,
    named_place,
)
from sk_pwiser._table._blocks import Blocks, RowOrder
from sk_pwiser._table._categories import NewValues
from sk_pwiser._table._column_kinds import (
    warn_about_constants,
    warn_about_few_values,
    warn_about_random_validation,
)
from sk_pwiser._table._encoder import (
    TableEncoder,
    learn_constant_columns,
    warn_about_new_values,
)
from sk_pwiser._table._numbers import FEW_VALUES
from sk_pwiser._table._target_statistics import BlockCounts, find_target_columns
from sk_pwiser._table._weights_and_groups import RowSummary, row_weights
from sk_pwiser._times import row_times
from sk_pwiser._training._batches import Impressions, TrainingRows
from sk_pwiser._training._early_stopping import usable_monitor
from sk_pwiser._training._schema import (
    EncodedData,
    Growth,
    Rows,
    Schema,
    grow_schema,
    make_encoder,
    task_labels,
    unfitted_statistics,
)
from sk_pwiser._training._settings import Settings
from sk_pwiser._utils import warn_user


def encode(
    plan: Plan, source: Source, estimator_name: str, shared: Schema | None = None
) -> EncodedData:
    """Encode all rows; those of a table are released.

    The schema is learnt from the rows, unless training continues from another one, or
    `shared` is given, whose statistics encode the rows.
    """
    has_labels = bool(source.summary.n_rows)
    learnt = learn(plan, source, estimator_name, shared)
    summary = source.summary
    if not has_labels:
        plan.check_labels(source)
    epochs = plan.epochs(summary.n_rows)  # filters may leave fewer rows than expected
    holds_out = epochs[0] is not None and not plan.eval_rows
    encoding = Encoding(plan, source, learnt, holds_out)
    train, valid, schema = encoding.encode()
    further: dict[str, Any] = {}
    for name, others in plan.eval_rows.items():
        if isinstance(others, FileRows):
            assert plan.components is not None
            further[name] = encode_eval_rows(others, schema, plan.components.loss)
        else:
            further[name] = others.encode(schema)
            others.release()
    data = EncodedData(
        train,
        further.pop("valid", valid),
        further,
        schema,
        epochs,
        summary.n_rows,
        float(summary.weights.mean),
        holds_out,
        learnt.hold_out.split_rows if holds_out else None,
        {} if plan.origin.is_update else summary.targets().unrelated(),
        learnt.growth,
        encoding.labelled,
    )
    if not isinstance(source, FileRows):
        source.release()
    monitor = _check_validation(plan, data)
    if plan.components is not None and shared is None:
        rates = schema.base_rates.tolist()
        for message in plan.components.loss.cautions(rates):
            warn_user(message)
    return replace(data, epochs=(monitor, *epochs[1:]))


def _check_validation(plan: Plan, data: EncodedData) -> str | None:
    """Return the figure to monitor; warn about validation rows that say little."""
    names, valid = data.schema.targets.task_names, data.valid
    monitor = usable_monitor(data.epochs[0], valid, names)
    if plan.components is not None and plan.components.sampler == "grouped":
        _warn_about_groups(plan, data)
    if data.holds_out and valid is not None and plan.by_time:
        warn_about_share(plan.settings, len(data.train), len(valid))
        if monitor == data.epochs[0]:
            warn_about_absent(valid, names)
    if plan.origin.earlier is not None and data.split_rows is not None:
        warn_about_trained(plan.origin.earlier, data.split_rows)
    return monitor


def _warn_about_groups(plan: Plan, data: EncodedData) -> None:
    """Warn about validation rows without the groups that the training rows have."""
    for name, rows in {**data.further, "valid": data.valid}.items():
        if rows is None or rows.sample.groups is not None:
            continue
        given = plan.eval_rows.get(name)
        warn_user(
            f"In {'eval_set' if given is None else given.origin}: loss="
            f"{plan.settings.loss!r} compares rows within groups, and these rows have "
            "none, so that each batch of them is one group in the validation loss. "
            "Pass X_val, Y_val and groups_val, or groups to ParquetImpressions."
        )


@dataclass(frozen=True)
class Learnt:
    """The result of the first pass over the rows."""

    schema: Schema
    blocks: Blocks  # by which the second pass fits the target statistics
    hold_out: HoldOut
    known: Any  # statistics of the fit that training continues from
    growth: Growth | None
    adds: bool  # whether the rows are added to the statistics, which encode them
    # All rows at once, if they are in one part: encoded, and with times.
    whole: tuple[Rows, Impressions, np.ndarray | None] | None = None


def learn(
    plan: Plan, source: Source, estimator_name: str, shared: Schema | None
) -> Learnt:
    """Read the rows once: learn their columns, and count labels, weights and times.

    Rows in one part, such as a table, are encoded at once and not read again.
    """
    settings, origin, sampled = plan.settings, plan.origin, source.sample_rows
    earlier, growth = origin.schema if shared is None else shared, None
    if earlier is not None:
        check_time(settings, earlier.encoder)
    generator = np.random.default_rng(plan.sample_seed)
    n_blocks = settings.encoding_params["target_encoding_blocks"]
    blocks = Blocks(n_blocks, plan.by_time, sampled, generator)
    hold_out = HoldOut(settings, blocks, plan.split_random_state, origin.split_rows)
    parts = source.parts("Learning the columns")
    first, second = next(parts, None), next(parts, None)
    if first is None and isinstance(source, FileRows):
        source.check_rows_left(0)
    assert first is not None
    if origin.is_update and earlier is not None:
        if settings.encoding_params["grow_vocabulary"]:
            earlier, growth = grow_schema(earlier, first.X)
        if plan.components is not None:
            # The earlier net stays usable, and so do its statistics.
            earlier = replace(earlier, statistics=deepcopy(earlier.statistics))
    adds = origin.is_update and earlier is not None
    keeps = adds or shared is not None  # the statistics
    whole = None
    if second is None:
        # Learning and encoding at once spares finding the distinct values twice.
        if not source.summary.n_rows:
            source.summary.add(first.targets, first.weights)
        in_memory = not isinstance(source, FileRows)
        with nullcontext() if in_memory else named_place(first.place):
            schema, whole = _learn_whole(
                plan, first, source.summary, earlier, estimator_name, in_memory, keeps
            )
        blocks.add(len(first), whole[2])
    else:
        # Parts are read again for the second pass: all of them may exceed memory.
        assert isinstance(source, FileRows)
        encoder = make_encoder(settings, estimator_name)
        encoder = encoder if earlier is None else earlier.encoder
        learner = TableLearner(encoder, source.dataset, generator, earlier is None)
        for rows in chain([first, second], parts):
            with named_place(rows.place):
                source.summary.add(rows.targets, rows.weights)
                hold_out.count(rows)
                learner.add(rows.X, rows.weights)
                blocks.add(len(rows), times_of(plan, rows.X, encoder))
        encoder = learner.finish()
        if earlier is None:
            summary = source.summary
            schema = Schema.of(settings, encoder, summary.first, summary.base_rates())
        else:
            schema = replace(earlier, encoder=encoder)
    if isinstance(source, FileRows):
        source.check_rows_left(source.summary.n_rows)
    blocks.finish()
    known = None
    if not keeps and (second is not None or earlier is not None):
        known = None if earlier is None else earlier.statistics
        shape = source.summary.n_rows, len(schema.targets.task_names)
        statistics = unfitted_statistics(settings, schema.encoder, shape, earlier)
        schema = replace(schema, statistics=statistics)
    if shared is not None:
        schema = replace(schema, base_rates=source.summary.base_rates())
    return Learnt(schema, blocks, hold_out, known, growth, adds, whole)


def _learn_whole(
    plan: Plan,
    rows: Rows,
    summary: RowSummary,
    earlier: Schema | None,
    name: str,
    in_memory: bool,
    keeps: bool,
) -> tuple[Schema, tuple[Rows, Impressions, np.ndarray | None]]:
    """Learn all rows at once; return the schema, and the rows encoded.

    In memory, the numeric inputs have columns without values for the target statistics.
    """
    settings, is_update = plan.settings, plan.origin.is_update
    shape = rows.targets.values.shape
    weights = row_weights(summary.scaled)
    if earlier is None:
        encoder, statistics = make_encoder(settings, name), None

        def count_rates(encoder: TableEncoder) -> int:
            nonlocal statistics
            statistics = unfitted_statistics(
                settings, encoder, shape, is_update=is_update
            )
            return statistics.n_outputs if statistics and in_memory else 0

        codes, numeric, *bags = encoder.fit_transform(rows.X, weights, count_rates)
        of_rows = summary.first, summary.base_rates(), statistics
        schema = Schema.of(settings, encoder, *of_rows)
        # Constants are usual in a small batch, and in a single row.
        if not is_update and len(rows) > 1:
            warn_about_constants(encoder.columns_)
    else:
        rows = replace(rows, X=earlier.encoder.align(rows.X))
        n_rates = 0 if earlier.statistics is None else earlier.statistics.n_outputs
        encoder = earlier.encoder
        if not keeps or is_update:
            encoder = learn_constant_columns(encoder, rows.X, weights)
        schema = replace(earlier, encoder=encoder)
        codes, numeric, *bags = encoder.transform(rows.X, n_rates if in_memory else 0)
        if is_update and not settings.encoding_params["grow_vocabulary"]:
            warn_about_new_values(encoder, codes, rows.X)
    if is_update:
        _warn_about_few_rows(schema, earlier, len(codes))
    times = times_of(plan, rows.X, schema.encoder)
    return schema, (rows, Impressions.of(codes, numeric, *bags), times)


def times_of(plan: Plan, X: Any, encoder: TableEncoder) -> np.ndarray | None:
    """Return the times of rows, or None if times do not order them."""
    if not plan.by_time:
        return None
    column = plan.settings.encoding_params["time_column"]
    times: np.ndarray = row_times(encoder.align(X), column)
    return times


def check_time(settings: Settings, encoder: TableEncoder) -> None:
    """Raise if an earlier fit read the column of times as a feature."""
    name = settings.left_out_column
    names = [column.name for column in encoder.read_columns_]
    if name is not None and name in names:
        raise ValueError(
            f"time_column={name!r} was a feature in the earlier fit. Set "
            "time_feature=True in encoding_params to continue it."
        )


def _warn_about_few_rows(
    schema: Schema, earlier: Schema | None, n_samples: int
) -> None:
    """Warn about encodings that an update has learnt from few rows."""
    columns, with_rates = schema.encoder.columns_, []
    if earlier is not None:
        known = set(map(id, earlier.encoder.columns_))
        columns = [column for column in columns if id(column) not in known]
    elif schema.statistics is not None and n_samples < FEW_VALUES:
        with_rates = schema.statistics.column_names(schema.encoder)
    warn_about_few_values(columns, with_rates)


class TableStore:
    """Encoded rows of a table, which stay in memory."""

    def add(
        self, rows: Impressions, is_valid: np.ndarray, block: np.ndarray | None
    ) -> None:
        """Set the rows, all at once."""
        self.rows, self.is_valid, self.block = rows, is_valid, block

    def finish(
        self, schema: Schema, tables: Sequence[Any] | None, holds_out: bool
    ) -> tuple[Impressions, Impressions | None]:
        """Return the rows, with target statistics by their blocks if there are any."""
        rows, codes = self.rows, self.rows.codes.numpy()
        if schema.statistics is not None:
            lists, first = schema.elements(rows.bags), schema.encoder.n_numeric_
            rates = schema.statistics.transform(codes, lists, tables, self.block)
            rows.numeric.numpy()[:, first:] = rates
        schema.without_rare(codes)
        if not holds_out:
            return rows, None
        chosen = map(np.flatnonzero, (~self.is_valid, self.is_valid))
        train, valid = (rows.at(torch.from_numpy(part)) for part in chosen)
        return train, valid


@dataclass
class Encoding:
    """The second pass, repeated if the blocks of the target statistics mislead.

    In an update the rows are added to the rows of the earlier fit: their inputs are the
    statistics before the update, otherwise the statistics of other blocks.
    """

    plan: Plan
    source: Source
    learnt: Learnt
    holds_out: bool
    store: Any = None
    counts: Any = None  # `BlockCounts`, and the `RowOrder` of the same rows
    order: Any = None
    new_values: NewValues | None = None
    # What an update adds to the statistics, see `EncodedData`.
    labelled: Any = None

    def encode(self) -> tuple[TrainingRows, TrainingRows | None, Schema]:
        """Encode all rows, draw validation rows, and fit the target statistics.

        The schema is returned with the category dropout that the rows call for.
        """
        schema, blocks = self.learnt.schema, self.learnt.blocks
        statistics: Any = schema.statistics
        names = schema.targets.task_names
        if self.holds_out and not self.plan.by_time:
            warn_about_random_validation([c.name for c in schema.encoder.columns_])
        # An update is encoded by the statistics of earlier rows, without blocks.
        counts = statistics is not None and not self.learnt.adds
        counts = counts and bool(statistics.reads_blocks)
        if counts:
            statistics.keep_seed(self.learnt.known, self.plan.block_seed)
        self._run(counts)
        tables, seed = None, self.plan.block_seed
        if counts:
            seed = statistics.block_seed
        while self.order is not None and blocks.retry(
            self._find_order(names), seed, counts
        ):
            self._run(counts)
        if self.counts is not None:
            tables = statistics.fit(self.counts, self.learnt.known)
        if self.new_values is not None:
            schema = replace(schema, category_dropout=self.new_values.dropouts())
        return *self.store.finish(schema, tables, self.holds_out), schema

    def _find_order(self, names: Sequence[str]) -> Any:
        """Return what the rows are sorted by if their blocks mislead, or None."""
        return self.order.find(names) if self.learnt.blocks.have_order else None

    def _run(self, counts: bool) -> None:
        """Encode and store all rows; every pass draws the same validation rows."""
        learnt, summary, plan = self.learnt, self.source.summary, self.plan
        schema, blocks = learnt.schema, learnt.blocks
        self.counts = self.order = None  # those of an earlier pass may be large
        self.store = TableStore()
        if isinstance(self.source, FileRows):
            self.store = FileStore(self.source)
        statistics, n_tasks = schema.statistics, len(schema.targets.task_names)
        if counts:
            self.counts = BlockCounts(statistics, blocks.n_blocks, n_tasks)
        # The first fit decides: an update has too few rows to foresee later values.
        foresees = False
        if not (schema.category_dropout or plan.origin.is_update):
            self.new_values = NewValues(schema.encoder)
            is_auto = plan.settings.encoding_params["category_dropout"] == "auto"
            foresees = is_auto and blocks.have_order
        if counts or foresees:
            self.order = self._make_order(n_tasks, counts)
        if self.holds_out:
            learnt.hold_out.start()
        whole = learnt.whole
        for rows, encoded, times in self._parts() if whole is None else [whole]:
            codes = encoded.codes.numpy()
            weights = summary.scale(rows.weights, len(rows))
            block: Any = None
            is_valid = np.zeros(len(rows), dtype=bool)
            if self.holds_out:
                is_valid = learnt.hold_out.draw(rows, times)
            if self.order is not None:
                block = blocks.assign(len(rows), times, rows.groups)
            if self.new_values is not None:
                rank = self.new_values.n_rows + np.arange(len(rows))
                self.new_values.add(codes, blocks.are_late(rank, times, block))
            if foresees and not counts:
                self.order.add(codes, block)
            if statistics is not None:
                y, of_tasks = task_labels(plan.settings, rows.targets, weights)
                labels = y, of_tasks, schema.elements(encoded.bags)
                if learnt.adds:
                    self.labelled = codes.copy(), *labels
                elif not blocks.n_tried:
                    statistics.check_rows(codes, *labels)
                if counts:
                    self._count(codes, labels, is_valid, block)
            of_rows = rows.targets.values, weights, rows.groups
            block = block if counts else None
            self.store.add(encoded.labelled(*of_rows), is_valid, block)

    def _make_order(self, n_tasks: int, counts: bool) -> RowOrder:
        """Return what judges the order, by the columns and lists with statistics.

        Without any, columns of many values do: others, such as the number of the week,
        may well be sorted in the order of time.
        """
        encoder, n_blocks = self.learnt.schema.encoder, self.learnt.blocks.n_blocks
        if not counts:
            least = self.plan.settings.encoding_params["target_encoding_min_values"]
            columns = find_target_columns(True, encoder.columns_, least)
            return RowOrder(columns, encoder, n_blocks, n_tasks)
        statistics: Any = self.learnt.schema.statistics
        sizes = statistics.cardinalities
        lists = [(index, sizes[table]) for index, table in statistics.lists]
        return RowOrder(statistics.columns, encoder, n_blocks, n_tasks, lists)

    def _parts(self) -> Iterator[tuple[Rows, Impressions, np.ndarray | None]]:
        encoder = self.learnt.schema.encoder
        for rows in self.source.parts("Encoding"):
            with named_place(rows.place):
                encoded = Impressions.of(*encoder.transform(rows.X))
            yield rows, encoded, times_of(self.plan, rows.X, encoder)

    def _count(
        self,
        codes: np.ndarray,
        labels: tuple[np.ndarray, np.ndarray, list[Any]],
        is_valid: np.ndarray,
        block: np.ndarray,
    ) -> None:
        """Count the labels of the next training rows by their blocks."""
        (y, weights, lists), blocks = labels, self.learnt.blocks
        if blocks.have_order:
            used = np.flatnonzero(~is_valid)
            firsts = [lists[index].first[used] for index in self.order.list_runs]
            self.order.add(codes[used], block[used], firsts)
            self.order.add_labels(y[used], weights[used], block[used])
        block[is_valid] = blocks.n_blocks
        self.counts.add(codes, y, weights, block, lists)

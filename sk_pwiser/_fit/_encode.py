"""Rows become tensors: one pass learns their encoding, a second one encodes them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
import torch

from sk_pwiser._fit._check import Plan
from sk_pwiser._fit._read import Source
from sk_pwiser._fit._split import (
    HoldOut,
    warn_about_absent,
    warn_about_share,
    warn_about_trained,
)
from sk_pwiser._streaming import (
    FileRows,
    FileStore,
    TableLearner,
    encode_eval_rows,
    named_place,
)
from sk_pwiser._table import (
    FEW_VALUES,
    BlockCounts,
    Blocks,
    NewValues,
    RowOrder,
    RowSummary,
    TableEncoder,
    learn_constant_columns,
    row_weights,
    warn_about_constants,
    warn_about_few_values,
    warn_about_new_values,
    warn_about_random_validation,
)
from sk_pwiser._times import row_times
from sk_pwiser._training._batches import TrainingData, TrainingRows
from sk_pwiser._training._early_stopping import usable_monitor
from sk_pwiser._training._schema import (
    Growth,
    Inputs,
    Rows,
    Schema,
    automatic_dims,
    grow_schema,
    make_encoder,
    statistics_selection,
    task_labels,
    unfitted_statistics,
    widest_bag,
)
from sk_pwiser._training._settings import Settings
from sk_pwiser._utils import warn_user


@dataclass(frozen=True)
class EncodedData:
    """The rows as tensors, and what the host has learnt of them."""

    rows: TrainingData
    schema: Schema
    epochs: tuple[str | None, int, int]  # monitored column, first that counts, last
    n_rows: int  # training and validation rows
    weight_scale: float  # by which weights were divided
    holds_out: bool  # whether a part of the rows is held out
    split_rows: dict[str, Any] | None = None  # that these were drawn from at random
    unrelated: Mapping[int, float] = field(default_factory=dict)  # of `Targets`
    growth: Growth | None = None  # of the tables of the earlier net
    # Codes, labels, task weights and elements of lists of rows that are not in the
    # target statistics yet.
    labelled: tuple[np.ndarray, np.ndarray, np.ndarray, list[Any]] | None = None
    further: Mapping[str, TrainingRows] = field(default_factory=dict)  # only measured

    def update_statistics(self, undo: list[Callable[[], None]]) -> None:
        """Add the rows of an update to the statistics that they were encoded by."""
        if self.labelled is not None and self.schema.statistics is not None:
            codes, y, weight, lists = self.labelled
            self.schema.statistics.update(codes, y, weight, undo, lists)


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
    holds_out = plan.holds_out(epochs)
    rows, schema, labelled = encode_rows(plan, source, learnt, holds_out)
    further: dict[str, Any] = {}
    for name, others in plan.eval_rows.items():
        if isinstance(others, FileRows):
            assert plan.components is not None
            further[name] = encode_eval_rows(others, schema, plan.components.loss)
        else:
            further[name] = others.encode(schema)
            others.release()
    if further:
        rows = TrainingData(rows.train, further.pop("valid"))
    data = EncodedData(
        rows,
        schema,
        epochs,
        summary.n_rows,
        float(summary.weights.mean),
        holds_out,
        learnt.hold_out.split_rows if holds_out else None,
        {} if plan.origin.is_update else summary.targets().unrelated(),
        learnt.growth,
        labelled,
        further,
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
    names, valid = data.schema.targets.task_names, data.rows.valid
    monitor = usable_monitor(data.epochs[0], valid, names)
    if plan.components is not None and plan.components.sampler == "grouped":
        _warn_about_groups(plan, data)
    if data.holds_out and valid is not None and plan.by_time:
        warn_about_share(plan.settings, len(data.rows.train), len(valid))
        if monitor == data.epochs[0]:
            warn_about_absent(valid, names)
    if plan.origin.earlier is not None and data.split_rows is not None:
        warn_about_trained(plan.origin.earlier, data.split_rows)
    return monitor


def _warn_about_groups(plan: Plan, data: EncodedData) -> None:
    """Warn about validation rows without the groups that the training rows have."""
    for name, rows in {**data.further, "valid": data.rows.valid}.items():
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
    whole: tuple[Rows, Inputs, np.ndarray | None] | None = None  # encoded, with times


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
    hold_out = HoldOut(settings, blocks, plan.split_state(), origin.split_rows)
    parts = source.parts("Learning the columns")
    first, second = next(parts, None), next(parts, None)
    if first is None and isinstance(source, FileRows):
        source.check_rows_left(0)
    assert first is not None
    if origin.is_update and earlier is not None:
        if settings.grows:
            earlier, growth = grow_schema(earlier, first.X)
        if plan.components is not None:
            # Whoever holds the earlier net, which stays as it is, keeps its statistics.
            earlier = replace(earlier, statistics=deepcopy(earlier.statistics))
    adds = origin.is_update and earlier is not None
    keeps = adds or shared is not None  # the statistics
    whole = None
    if second is None:
        # Learning and encoding at once spares finding the distinct values twice.
        if not source.summary.n_rows:
            source.summary.add(first.targets, first.weights)
        in_memory = not isinstance(source, FileRows)
        with named_place(first.place):
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
            schema = new_schema(settings, encoder, source.summary)
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
) -> tuple[Schema, tuple[Rows, Inputs, np.ndarray | None]]:
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
        schema = new_schema(settings, encoder, summary, statistics)
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
        if is_update and not settings.grows:
            warn_about_new_values(encoder, codes, rows.X)
    if is_update:
        _warn_about_few_rows(schema, earlier, len(codes))
    times = times_of(plan, rows.X, schema.encoder)
    return schema, (rows, Inputs(codes, numeric, *bags), times)


def new_schema(
    settings: Settings,
    encoder: TableEncoder,
    summary: RowSummary,
    statistics: Any = None,
) -> Schema:
    """Return the schema of an encoder that has learnt the columns."""
    return Schema(
        encoder,
        summary.first,
        summary.base_rates(),
        statistics,
        automatic_dims(encoder.cardinalities_),
        widest_bag(encoder),
        statistics_selection(settings),
    )


def times_of(plan: Plan, X: Any, encoder: TableEncoder) -> np.ndarray | None:
    """Return the times of rows, None if they are not in the order of times."""
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
    """Warn about what an update has learnt from few rows, which later ones keep."""
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
        self,
        rows: Rows,
        inputs: Inputs,
        weights: np.ndarray | None,
        is_valid: np.ndarray,
        block: np.ndarray | None,
    ) -> None:
        """Set the rows, all at once."""
        self.rows, self.inputs, self.weights = rows, inputs, weights
        self.is_valid, self.block = is_valid, block

    def clear(self) -> None:
        """Do nothing: further rows replace the ones that were added."""

    def finish(
        self, schema: Schema, tables: Sequence[Any] | None, holds_out: bool
    ) -> TrainingData:
        """Return the rows, with target statistics by their blocks if there are any."""
        codes, numeric, *bags = self.inputs
        if schema.statistics is not None:
            lists, first = schema.elements(bags), schema.encoder.n_numeric_
            if tables is None:
                rates = schema.statistics.transform(codes, lists)
            else:
                rates = schema.statistics.encode(tables, codes, lists, self.block)
            numeric[:, first:] = rates
        inputs = Inputs(schema.without_rare(codes), numeric, *bags)
        rows = self.rows
        all_rows = inputs.impressions(rows.targets.values, self.weights, rows.groups)
        if not holds_out:
            return TrainingData(all_rows)
        chosen = map(np.flatnonzero, (~self.is_valid, self.is_valid))
        train, valid = (all_rows.at(torch.from_numpy(part)) for part in chosen)
        return TrainingData(train, valid)


def encode_rows(
    plan: Plan, source: Source, learnt: Learnt, holds_out: bool
) -> tuple[TrainingData, Schema, Any]:
    """Encode and store all rows, draw validation rows, and fit target statistics.

    In an update the rows are added to the rows of the earlier fit: their inputs are the
    statistics before the update, otherwise the statistics of other blocks. The schema
    is returned with the category dropout that the rows call for, and the third result
    has the labels that are added to the statistics after an update.
    """
    schema, blocks, statistics = learnt.schema, learnt.blocks, learnt.schema.statistics
    if holds_out and not plan.by_time:
        warn_about_random_validation([c.name for c in schema.encoder.columns_])
    encoding = Encoding(plan, source, learnt, holds_out)
    tables = labelled = None
    encoding.run()
    if learnt.adds:
        labelled = encoding.labelled
    elif statistics is not None and encoding.counts is not None:
        names = schema.targets.task_names
        while blocks.retry(encoding.find_order(names), statistics.block_seed):
            encoding.run()
        tables = statistics.fit(encoding.counts, learnt.known)
    if encoding.new_values is not None:
        schema = replace(schema, category_dropout=encoding.new_values.dropouts())
    return encoding.store.finish(schema, tables, holds_out), schema, labelled


class Encoding:
    """Passes over the rows, which all draw the same validation rows."""

    def __init__(
        self, plan: Plan, source: Source, learnt: Learnt, holds_out: bool
    ) -> None:
        self.plan = plan
        self.source = source
        self.learnt = learnt
        self.holds_out = holds_out
        self.labelled: Any = None
        self.counts: BlockCounts | None = None
        self.store: Any = None
        # The first fit decides. An update says little about the values of later rows.
        self.new_values: NewValues | None = None
        self.finds_new = not (learnt.schema.category_dropout or plan.origin.is_update)
        statistics = learnt.schema.statistics
        self.counts_labels = False
        if statistics is not None and not learnt.adds and statistics.reads_blocks:
            self.counts_labels = True
            statistics.keep_seed(learnt.known, plan.block_seed)

    def run(self) -> None:
        """Encode and store all rows."""
        learnt, summary, plan = self.learnt, self.source.summary, self.plan
        schema, blocks = learnt.schema, learnt.blocks
        if self.store is not None:
            self.store.clear()
            self.counts = None  # which may be large
        self.store = TableStore()
        if isinstance(self.source, FileRows):
            self.store = FileStore(self.source)
        statistics, n_tasks = schema.statistics, len(schema.targets.task_names)
        if self.counts_labels:
            self.counts = BlockCounts(statistics, blocks.n_blocks, n_tasks)
            self.order = RowOrder(statistics, schema.encoder, blocks.n_blocks, n_tasks)
        if self.finds_new:
            self.new_values = NewValues(schema.encoder)
        if self.holds_out:
            learnt.hold_out.start()
        for rows, inputs, times in self._encoded():
            weights = summary.scale(rows.weights, len(rows))
            is_valid, block = np.zeros(len(rows), dtype=bool), None
            if self.holds_out:
                is_valid = learnt.hold_out.draw(rows, times)
            if self.counts is not None:
                block = blocks.assign(len(rows), times, rows.groups)
            if self.new_values is not None:
                rank = self.new_values.n_rows + np.arange(len(rows))
                is_late = blocks.are_late(rank, times, block)
                self.new_values.add(inputs.codes, is_late)
            if statistics is not None:
                y, of_tasks = task_labels(plan.settings, rows.targets, weights)
                labels = y, of_tasks, schema.elements([inputs.bags])
                self._count(inputs.codes, labels, is_valid, block)
            self.store.add(rows, inputs, weights, is_valid, block)

    def _encoded(self) -> Iterator[tuple[Rows, Inputs, np.ndarray | None]]:
        if self.learnt.whole is not None:
            yield self.learnt.whole
            return
        encoder = self.learnt.schema.encoder
        for rows in self.source.parts("Encoding"):
            with named_place(rows.place):
                inputs = Inputs(*encoder.transform(rows.X))
            yield rows, inputs, times_of(self.plan, rows.X, encoder)

    def _count(
        self,
        codes: np.ndarray,
        labels: tuple[np.ndarray, np.ndarray, list[Any]],
        is_valid: np.ndarray,
        block: np.ndarray | None,
    ) -> None:
        """Count the labels of the next training rows by their blocks."""
        y, weights, lists = labels
        blocks, statistics = self.learnt.blocks, self.learnt.schema.statistics
        assert statistics is not None
        if self.learnt.adds:
            self.labelled = codes.copy(), y, weights, lists
            return
        if not blocks.n_tried:
            statistics.check_rows(codes, y, weights, lists)
        if self.counts is None or block is None:
            return
        if blocks.have_order:
            used = np.flatnonzero(~is_valid)
            self.order.add(codes[used], y[used], weights[used], block[used])
        block[is_valid] = blocks.n_blocks
        self.counts.add(codes, y, weights, block, lists)

    def find_order(self, task_names: Sequence[str]) -> Any:
        """Return by what the rows are sorted, so that their blocks mislead, or None."""
        if not self.learnt.blocks.have_order:
            return None
        return self.order.find(task_names, self.counts)

"""Rows become tensors: one pass learns their encoding, a second one encodes them."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sk_pwiser._columns import _encoder, _history_names, _misread
from sk_pwiser._columns._new_values import NewValues
from sk_pwiser._columns._number import FEW_VALUES
from sk_pwiser._columns._target_statistics import BlockCounts, find_target_columns
from sk_pwiser._fit._file_rows import FileRows, TableLearner
from sk_pwiser._fit._file_store import FileStore, encode_eval_rows
from sk_pwiser._fit._hold_out import (
    HoldOut,
    hold_out,
    largest_part,
    random_state_at,
    warn_about_trained,
)
from sk_pwiser._rows._batches import Impressions, TrainingRows
from sk_pwiser._rows._blocks import SHARE_OF_REPEATS, Blocks
from sk_pwiser._rows._checked_rows import CheckedRows, named_place
from sk_pwiser._rows._row_drift import find_drift
from sk_pwiser._rows._row_order import RowOrder
from sk_pwiser._rows._row_sample import RowSample
from sk_pwiser._rows._row_units import (
    MOST_EQUAL_ROWS,
    UnitKeys,
    equal_row_units,
    has_group_column,
    row_hashes,
    split_large_units,
    warn_about_few_cells,
)
from sk_pwiser._settings import left_out_column, shared_param
from sk_pwiser._times import row_times
from sk_pwiser._training import _schema
from sk_pwiser._training._checked_components import check_task_weights
from sk_pwiser._training._early_stopping import usable_monitor
from sk_pwiser._training._encoded_data import EncodedData
from sk_pwiser._training._growth import Growth, grow_schema
from sk_pwiser._training._level import LevelRecord
from sk_pwiser._training._schema import Schema
from sk_pwiser._utils._equality import equal
from sk_pwiser._utils._random import LARGEST_SEED
from sk_pwiser._utils._warnings import warn_user

if TYPE_CHECKING:
    from sk_pwiser._fit._fit import Plan, Source

# Columns that a warning names.
LARGEST_NUMBER_NAMED = 4

# Rows, their codes and other inputs, and their times.
Part = tuple[CheckedRows, tuple[Any, ...], np.ndarray | None]


def encode(
    plan: "Plan", source: "Source", estimator_name: str, shared: Schema | None = None
) -> EncodedData:
    """Encode all rows; those of a table are released.

    The schema is learnt from the rows, unless training continues from another one, or
    `shared` is given, whose statistics encode the rows.
    """
    summary, components = source.summary, plan.components
    encoding = Encoding(plan, source, estimator_name, shared)
    encoding.learn()
    if summary.per_task and components is not None:
        check_task_weights(components.loss)
    targets, weights = summary.labels()
    for message in targets.problems(
        constant_tasks=not plan.origin.is_update,
        task_space=shared_param(plan.settings, "task_space"),
        weights=weights if summary.per_task else None,
    ):
        warn_user(message)
    unrelated, event_shares = {}, []
    if not plan.origin.is_update:
        unrelated = targets.unrelated()
        weights = 1.0 if weights is None else weights.reshape(len(weights), -1)
        # By the index -1, a task without a parent reads the column of ones.
        columns = np.pad(targets.values, [(0, 0), (0, 1)], constant_values=1.0)
        of_parents = (columns[:, list(targets.parents)] * weights).sum(axis=0)
        events = (targets.values * weights).sum(axis=0)
        sums = [summary.counted_rows() @ targets.values, events, of_parents]
        event_shares = (np.array(sums) / targets.counts.sum()).tolist()
    # Filters may leave fewer rows than expected.
    epochs = plan.epochs(source, summary.n_rows)
    holds_out = epochs[0] is not None and not plan.eval_rows
    if holds_out and not plan.by_time:
        # Random validation rows are in the history of later training rows.
        names = [column.name for column in encoding.schema.encoder.columns_]
        if (column := _history_names.history_column(names)) is not None:
            warn_user(
                f"X has columns of HistoryFeatures, such as {column!r}, but the "
                "validation rows of early stopping are drawn at random: training rows "
                "see their outcomes. Name a column of times, by encoding_params={'time_"
                "column': ...}, or pass later rows, with complete labels, as eval_set."
            )
    train, valid, schema = encoding.encode(holds_out)
    further: dict[str, Any] = {}
    for name, others in plan.eval_rows.items():
        if isinstance(others, FileRows):
            assert components is not None
            further[name] = encode_eval_rows(others, schema, components.loss)
        else:
            further[name] = others.encode(schema)
            others.rows = others.summary = None
    data = EncodedData(
        train,
        further.pop("valid", valid),
        further,
        schema,
        epochs,
        float(summary.weights.mean),
        (schema.base_rates if encoding.adds else summary.base_rates()).tolist(),
        event_shares,
        holds_out,
        encoding.split_rows,
        unrelated,
        encoding.growth,
        encoding.labelled,
        level=encoding.level,
        rows_per_weight=summary.rows_per_weight,
        rows_per_row=float(summary.counted_rows().sum() / targets.counts.sum()),
    )
    if not isinstance(source, FileRows):
        source.rows = source.summary = None  # training reads tensors only
    return replace(data, epochs=(_check_validation(plan, data), *epochs[1:]))


def _check_validation(plan: "Plan", data: EncodedData) -> str | None:
    """Return the figure to monitor; warn about validation rows that say little."""
    names, valid = data.schema.targets.task_names, data.valid
    monitor = usable_monitor(data.epochs[0], valid, names)
    if valid is not None and valid.n_missing:
        y, known = valid.column("y"), valid.column("sample_weight") > 0
        unknown = []
        for task, parent in enumerate(data.schema.targets.parents):
            happened = y[:, parent] == 1 if parent >= 0 else known[:, 0]
            if happened.any() and not known[happened, task].any():
                unknown.append(names[task])
        if unknown:
            warn_user(
                f"None of the {len(y)} validation rows, or of those in which the task "
                f"before happened, has a label of {unknown}, which early stopping and "
                "a correction of levels by time ignore. Leave out rows whose labels "
                "are not known yet, or pass an eval_set with labels."
            )
    if plan.components is not None and plan.components.sampler == "grouped":
        for name, rows in {**data.further, "valid": valid}.items():
            if rows is None or rows.spaced(1).groups is not None:
                continue
            given = plan.eval_rows.get(name)
            warn_user(
                f"In {'eval_set' if given is None else given.origin}: loss="
                f"{plan.settings.loss!r} compares rows within groups, and these rows "
                "have none: each batch is one. Pass X_val, Y_val and groups_val, or "
                "groups to ParquetImpressions."
            )
    if data.holds_out and valid is not None and plan.by_time:
        share, n_rows = plan.settings.validation_fraction, len(data.train) + len(valid)
        most = max(largest_part(share), 1 / n_rows)
        if not share / 2 <= len(valid) / n_rows <= most:
            name = plan.settings.encoding_params["time_column"]
            warn_user(
                f"By time_column={name!r}, the last {len(valid)} of {n_rows} rows are "
                f"held out; validation_fraction={share} asks for about "
                f"{round(share * n_rows)}. Use finer times or an eval_set."
            )
    if plan.origin.earlier is not None and data.holds_out:
        warn_about_trained(plan.origin.earlier, plan.settings, data.split_rows)
    return monitor


class Encoding:
    """The two passes over the rows, of which the second may be repeated.

    In an update the rows are added to the rows of the earlier fit: their inputs are the
    statistics before the update, otherwise the statistics of other blocks.
    """

    schema: Any
    growth: Growth | None = None
    # What rows in one part give in the first pass, so that they are not read again.
    whole: Part | None = None
    store: Any = None
    counts: Any = None  # `BlockCounts`, and the `RowOrder` of the same rows
    order: Any = None
    new_values: NewValues | None = None
    # Units of rows in one part that neither validation rows nor blocks part.
    held_out_units: np.ndarray | None = None
    block_units: np.ndarray | None = None
    unit_keys: Any = None  # `UnitKeys` of rows in parts
    # The number and the rows of the largest group that is parted all the same.
    large_groups: Mapping[str, tuple[int, int] | None] = MappingProxyType({})
    # The validation rows, and of which rows they were drawn at random.
    hold_out: Any = None  # `HoldOut` of rows in parts
    is_held: Any = None  # of rows in one part
    split_rows: dict[str, Any] | None = None
    # What an update adds to the statistics, see `EncodedData`.
    labelled: Any = None
    level: Any = None  # `LevelRecord`, if the last rows in time are held out

    def __init__(
        self, plan: "Plan", source: "Source", estimator_name: str, shared: Schema | None
    ) -> None:
        settings = plan.settings
        self.plan, self.source = plan, source
        self.estimator_name, self.is_shared = estimator_name, shared is not None
        self.earlier: Any = plan.origin.schema if shared is None else shared
        # Whether the rows are added to the statistics, which encode them.
        self.adds = plan.origin.is_update and self.earlier is not None
        # Of random blocks, and of samples of rows in parts: these seeds take nothing
        # from the random state.
        split = random_state_at(plan.split_state)
        self.block_seed, seed = split.randint(LARGEST_SEED, size=2).tolist()
        self.generator = np.random.default_rng(seed)
        n_blocks = settings.encoding_params["target_encoding_blocks"]
        # By which the target statistics are fitted.
        sample = RowSample(source.sample_rows, self.generator)
        self.blocks = Blocks(n_blocks, plan.by_time, sample)
        self.drawn_by = plan.random_state  # the validation rows
        drawn = plan.origin.split_state
        if drawn is not None and not equal(drawn, plan.first_random_state):
            self.drawn_by = random_state_at(drawn)

    def learn(self) -> None:
        """Read the rows once: learn their columns, and count labels, weights and times.

        Rows in one part, such as a table, are encoded at once and not read again.
        """
        settings, summary = self.plan.settings, self.source.summary
        if self.earlier is not None:
            left_out = left_out_column(settings)
            if left_out in [c.name for c in self.earlier.encoder.read_columns_]:
                raise ValueError(
                    f"time_column={left_out!r} was a feature in the earlier fit. Set "
                    "time_feature=True in encoding_params to continue it."
                )
        parts = self.source.parts("Learning the columns")
        first, second = next(parts), next(parts, None)
        if self.adds and settings.encoding_params["grow_vocabulary"]:
            self.earlier, self.growth = grow_schema(self.earlier, first.X)
        if self.adds and self.plan.components is not None:
            # The earlier net stays usable, and so do its statistics.
            statistics = deepcopy(self.earlier.statistics)
            self.earlier = replace(self.earlier, statistics=statistics)
        earlier = self.earlier
        if earlier is None:
            encoder = _schema.make_encoder(settings, self.estimator_name)
            statistics = None
        else:
            encoder, statistics = earlier.encoder, earlier.statistics
        if second is None:
            # Learning and encoding at once spares finding the distinct values twice.
            with named_place(first.place):
                encoder, statistics = self._learn_whole(first, encoder)
        else:
            # Parts are read again for the second pass: all of them may exceed memory.
            encoder = self._learn_parts(chain([first, second], parts), encoder)
        self.blocks.finish()
        keeps = self.adds or self.is_shared
        if not keeps and (second is not None or earlier is not None):
            shape = summary.n_rows, len(summary.tasks.task_names)
            statistics = _schema.unfitted_statistics(settings, encoder, shape, earlier)
        if earlier is None:
            of_rows = summary.tasks, summary.base_rates()
            self.schema = Schema.of(settings, encoder, *of_rows, statistics)
        else:
            self.schema = replace(earlier, encoder=encoder, statistics=statistics)
        if self.is_shared:
            self.schema = replace(self.schema, base_rates=summary.base_rates())

    def _learn_whole(
        self, rows: CheckedRows, encoder: _encoder.TableEncoder
    ) -> tuple[_encoder.TableEncoder, Any]:
        """Learn and encode all rows at once; return encoder and target statistics.

        In memory, the numeric inputs have columns without values for the statistics.
        """
        settings, is_update = self.plan.settings, self.plan.origin.is_update
        summary, in_files = self.source.summary, isinstance(self.source, FileRows)
        earlier = self.earlier
        statistics = None if earlier is None else earlier.statistics
        if not summary.n_rows:
            summary.add(rows.targets, rows.weights)
        weights = summary.of_rows
        if earlier is None:
            learnt = encoder.fit(rows.X, weights)
            # Constants are usual in a small batch, and in a single row.
            if not is_update and len(rows) > 1:
                _misread.warn_about_constants(encoder.columns_)
            statistics = _schema.unfitted_statistics(
                settings, encoder, rows.targets.values.shape, is_update=is_update
            )
        n_rates = 0 if statistics is None or in_files else statistics.n_outputs
        if earlier is None:
            codes, *inputs = encoder.stack(learnt, n_rates)
        else:
            rows = replace(rows, X=encoder.align(rows.X))
            if is_update or not self.is_shared:
                encoder = _encoder.learn_constant_columns(encoder, rows.X, weights)
            names_new = is_update and not settings.encoding_params["grow_vocabulary"]
            codes, *inputs = encoder.transform(rows.X, n_rates, names_new=names_new)
        if is_update:
            columns, with_rates = encoder.columns_, []
            if earlier is not None:
                known = set(map(id, earlier.encoder.columns_))
                columns = [each for each in columns if id(each) not in known]
            elif statistics is not None and len(codes) < FEW_VALUES:
                with_rates = statistics.column_names(encoder)
            _misread.warn_about_few_values(columns, with_rates)
        times = times_of(self.plan, rows.X, encoder)
        self.blocks.add(len(rows), times)
        self.whole = rows, (codes, *inputs), times
        if not self.adds:
            self._find_units(rows, codes, *inputs, n_rates=n_rates, encoder=encoder)
        return encoder, statistics

    def _find_units(
        self,
        rows: CheckedRows,
        codes: np.ndarray,
        numeric: np.ndarray,
        bags: Any = None,
        *,
        n_rates: int,
        encoder: _encoder.TableEncoder,
    ) -> None:
        """Find the rows that belong together: groups or, without them, equal rows.

        Rows with equal inputs would tell each other's labels: copies of a row do, and
        so do the rows of a table of counts, one per outcome.
        """
        n_rows = len(rows)
        inputs = numeric[:, : numeric.shape[1] - n_rates]
        equal_rows = equal_row_units(row_hashes(codes, inputs, bags), MOST_EQUAL_ROWS)
        self.held_out_units = equal_rows
        if equal_rows is not None:
            # With a few, the order of the rows is worth more.
            share_of_repeats = 1 - (equal_rows.max() + 1) / n_rows
            if share_of_repeats < SHARE_OF_REPEATS:
                equal_rows = None
            elif self.source.summary.weights.are_counts:
                warn_about_few_cells(codes, equal_rows, encoder.category_names_)
        self.block_units = equal_rows
        if rows.groups is None:
            return
        share = largest_part(self.plan.settings.validation_fraction)
        self.held_out_units, not_held_out = split_large_units(
            rows.groups, share * n_rows
        )
        not_left_out = None
        # Otherwise predictions are for users who come back: if the statistics of their
        # rows left out all of these, their column would not tell anything in training.
        if not has_group_column(codes, rows.groups):
            block_share = 2 / min(self.blocks.n_blocks, n_rows)
            self.block_units, not_left_out = split_large_units(
                rows.groups, block_share * n_rows
            )
        self.large_groups = {"held out": not_held_out, "left out": not_left_out}

    def _warn_about_large_groups(self, holds_out: bool, has_blocks: bool) -> None:
        """Name a group that is too large to be held out, or left out of statistics."""
        large = None
        if holds_out:
            large = self.large_groups.get("held out")
        if has_blocks and large is None:
            large = self.large_groups.get("left out")
        if large is None:
            return
        assert self.whole is not None
        number, size = large
        rows = self.whole[0]
        name = "A group"
        given_groups = getattr(self.source, "given_groups", None)
        if given_groups is not None:
            first_row = int(np.argmax(rows.groups == number))
            name = f"The group {given_groups.value_of(first_row)!r}"
        warn_user(
            f"{name} has {size} of {len(rows)} rows, too many to be held out or left "
            "out of target statistics as a whole: its rows are treated as rows without "
            "a group. If it stands for many users, such as guests, give each of their "
            "rows or sessions a group of its own."
        )

    def _learn_parts(
        self, parts: Iterator[CheckedRows], encoder: _encoder.TableEncoder
    ) -> _encoder.TableEncoder:
        """Learn rows in several parts."""
        source, is_new = self.source, self.earlier is None
        assert isinstance(source, FileRows)
        self.hold_out = HoldOut(self.plan.settings, self.blocks, self.drawn_by)
        learner = TableLearner(encoder, source.dataset, self.generator, is_new)
        for rows in parts:
            with named_place(rows.place):
                source.summary.add(rows.targets, rows.weights)
                learner.add(rows.X, rows.weights)
                times = times_of(self.plan, rows.X, encoder)
                self.hold_out.count(rows, times)
                self.blocks.add(len(rows), times)
        return learner.finish()

    def encode(
        self, holds_out: bool
    ) -> tuple[TrainingRows, TrainingRows | None, Schema]:
        """Encode all rows, draw validation rows, and fit the target statistics.

        The schema is returned with the category dropout that the rows call for.
        """
        schema, blocks, seed = self.schema, self.blocks, self.block_seed
        statistics: Any = schema.statistics
        plan = self.plan
        if holds_out and self.whole is not None:
            rows, _, times = self.whole
            self.is_held, self.split_rows = hold_out(
                plan.settings,
                rows,
                times,
                self.drawn_by,
                units=self.held_out_units,
                earlier_split=plan.origin.split_rows,
            )
        elif holds_out and not plan.by_time:
            self.split_rows = {"ends": [blocks.n_rows], "digest": ""}
        # An update is encoded by the statistics of earlier rows, without blocks.
        has_blocks = statistics is not None and bool(statistics.reads_blocks)
        counts = has_blocks and not self.adds
        known = None  # statistics of the fit that training continues from
        if self.earlier is not None and not self.is_shared:
            known = self.earlier.statistics
        if counts:
            # Continued training keeps the random blocks.
            kept = getattr(known, "block_seed", None)
            statistics.block_seed = seed = seed if kept is None else kept
        self._run(counts, holds_out)
        self._warn_about_large_groups(holds_out, counts)
        if counts and self.unit_keys is not None:
            repeats = self.unit_keys.share_of_repeats()
            if blocks.part_by_keys(seed, repeats):
                self._run(counts, holds_out)
        while self.order is not None:
            # What the rows are sorted by if their blocks mislead.
            order = None
            if blocks.have_order:
                order = self.order.find(schema.targets.task_names)
            if not blocks.retry(order, seed, counts):
                break
            self._run(counts, holds_out)
        if holds_out and not plan.by_time and blocks.misleading_order is None:
            self._warn_about_drift()
        tables = statistics.fit(self.counts, known) if counts else None
        if self.new_values is not None:
            schema = replace(schema, category_dropout=self.new_values.dropouts())
        return *self.store.finish(schema, tables, holds_out), schema

    def _warn_about_drift(self) -> None:
        """Warn if validation rows are random, but the order of rows has a meaning."""
        if self.whole is None:
            return
        rows, (codes, numeric, *_), _ = self.whole
        drifting = find_drift(
            codes,
            numeric,
            *_schema.task_labels(
                self.plan.settings, rows.targets, self.source.summary.scaled
            ),
            encoder=self.schema.encoder,
            task_names=self.schema.targets.task_names,
        )
        if not drifting:
            return
        names = ", ".join(map(repr, drifting[:LARGEST_NUMBER_NAMED]))
        others = ", ..." if len(drifting) > LARGEST_NUMBER_NAMED else ""
        warn_user(
            f"The rows are in an order that matters: {names}{others} differ between "
            "earlier and later rows by more than chance, but early stopping validates "
            "on random rows, which does not tell how good predictions of later rows "
            "are. If the rows are in the order of time, name a column of times by "
            "encoding_params={'time_column': ...}; X.assign(row=range(len(X))) has one "
            "that stands for their order. If not, shuffle them."
        )

    def _run(self, counts: bool, holds_out: bool) -> None:
        """Encode and store all rows; every pass draws the same validation rows."""
        source, summary, plan = self.source, self.source.summary, self.plan
        schema, blocks = self.schema, self.blocks
        self.counts = self.order = None  # those of an earlier pass may be large
        if holds_out and plan.by_time:
            share, tasks = plan.settings.validation_fraction, schema.targets
            self.level = LevelRecord.of(blocks.sampled, share, tasks.parents)
        if isinstance(source, FileRows):
            self.store = FileStore(source)
        statistics: Any = schema.statistics
        shape = blocks.n_blocks, len(schema.targets.task_names)
        if counts:
            sizes = statistics.cardinalities
            lists = [(index, sizes[table]) for index, table in statistics.lists]
            self.counts = BlockCounts(statistics, *shape)
            self.order = RowOrder(statistics.columns, schema.encoder, *shape, lists)
        # The first fit decides: an update has too few rows to foresee later values.
        if not (schema.category_dropout or plan.origin.is_update):
            self.new_values = NewValues(schema.encoder)
            params = plan.settings.encoding_params
            is_auto = params["category_dropout"] == "auto"
            if is_auto and blocks.have_order and not counts:
                # Columns of many values judge the order, if there are some: others,
                # such as the number of the week, may well be sorted by time.
                least = params["target_encoding_min_values"]
                columns = find_target_columns(True, schema.encoder, least)
                if columns:
                    self.order = RowOrder(columns, schema.encoder, *shape)
        whole = self.whole
        if holds_out and whole is None:
            self.hold_out.start()
        if whole is None:
            self.unit_keys = UnitKeys(blocks.n_rows)
        for rows, arrays, times in self._parts() if whole is None else [whole]:
            codes, encoded = arrays[0], Impressions.of(*arrays)
            weights = summary.scaled
            keys = None
            if whole is None:
                weights = summary.scale(rows.weights, len(rows))
                keys = self.unit_keys.of(row_hashes(*arrays))
            labelled = encoded.labelled(rows.targets.values, weights, rows.groups)
            block: Any = None
            order_block: Any = None
            is_valid = self.is_held
            if not holds_out:
                is_valid = np.zeros(len(rows), dtype=bool)
            elif whole is None:
                is_valid = self.hold_out.draw(rows, times, keys)
            if self.level is not None and times is not None:
                self.level.add(times, rows.targets.values, weights, is_valid)
            if self.order is not None:
                units = rows.groups if whole is None else self.block_units
                block = order_block = blocks.assign(len(rows), times, units, keys)
                if whole is not None and rows.groups is None and units is not None:
                    # At the borders of blocks, the rows of units are interleaved, so
                    # that sorted rows would not be found.
                    order_block = blocks.assign(len(rows), times, None)
            if self.new_values is not None:
                rank = self.new_values.n_rows + np.arange(len(labelled))
                is_late = blocks.are_late(rank, times, block, rows.groups)
                self.new_values.add(codes, is_late)
            if self.order is not None and not counts:
                self.order.add(codes, order_block)
            if statistics is not None:
                y, of_tasks = _schema.task_labels(plan.settings, rows.targets, weights)
                if summary.rows_per_weight is not None:
                    # How far rates deviate by chance depends on the number of rows.
                    of_tasks = of_tasks * summary.rows_per_weight
                labels = y, of_tasks, schema.elements(encoded.bags)
                if self.adds:
                    self.labelled = codes.copy(), *labels
                elif not blocks.n_tried:
                    statistics.check_rows(codes, *labels)
                if counts:
                    self._count(codes, labels, is_valid, block, order_block)
            block = block if counts else None
            if isinstance(source, FileRows):
                self.store.add(labelled, is_valid, block)
            else:
                self.store = TableStore(labelled, is_valid, block)

    def _parts(self) -> Iterator[Part]:
        encoder = self.schema.encoder
        for rows in self.source.parts("Encoding"):
            with named_place(rows.place):
                encoded = encoder.transform(rows.X)
            yield rows, encoded, times_of(self.plan, rows.X, encoder)

    def _count(
        self,
        codes: np.ndarray,
        labels: Any,
        is_valid: np.ndarray,
        block: np.ndarray,
        order_block: np.ndarray,
    ) -> None:
        """Count the labels of the next training rows by their blocks."""
        (y, weights, lists), blocks = labels, self.blocks
        if blocks.have_order:
            used = np.flatnonzero(~is_valid)
            firsts = [lists[index].first[used] for index in self.order.list_runs]
            self.order.add(codes[used], order_block[used], firsts)
            self.order.add_labels(y[used], weights[used], order_block[used])
        block[is_valid] = blocks.n_blocks
        self.counts.add(codes, y, weights, block, lists)


def times_of(plan: "Plan", X: Any, encoder: _encoder.TableEncoder) -> np.ndarray | None:
    """Return the times of rows, or None if times do not order them."""
    if not plan.by_time:
        return None
    return row_times(encoder.align(X), plan.settings.encoding_params["time_column"])


@dataclass
class TableStore:
    """Encoded rows of a table, which stay in memory."""

    rows: Impressions
    is_valid: np.ndarray
    block: np.ndarray | None

    def finish(
        self, schema: Schema, tables: Sequence[Any] | None, holds_out: bool
    ) -> tuple[Impressions, Impressions | None]:
        """Return the rows, with target statistics by their blocks if there are any."""
        rows, codes = self.rows, self.rows.codes.numpy()
        if schema.statistics is not None:
            lists, first = schema.elements(rows.bags), len(schema.encoder.numeric_bins_)
            rates = schema.statistics.transform(codes, lists, tables, self.block)
            rows.numeric.numpy()[:, first:] = rates
        schema.without_rare(codes)
        if not holds_out:
            return rows, None
        chosen = map(np.flatnonzero, (~self.is_valid, self.is_valid))
        train, valid = (replace(rows, rows=torch.from_numpy(part)) for part in chosen)
        return train, valid

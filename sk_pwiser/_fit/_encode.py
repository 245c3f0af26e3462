"""Rows become tensors: one pass learns their encoding, a second one encodes them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sk_pwiser._columns._exposure_statistics import exposure_scores
from sk_pwiser._columns._history_names import history_column
from sk_pwiser._fit._first_pass import FirstPass, learn
from sk_pwiser._fit._fit_plan import FitPlan
from sk_pwiser._fit._learn_columns import Columns
from sk_pwiser._fit._second_pass import SecondPass, run_pass
from sk_pwiser._fit._validation_rows import check_validation
from sk_pwiser._rows._encoded_rows import TrainingRows
from sk_pwiser._rows._hold_out import HeldOut, NothingHeldOut
from sk_pwiser._rows._protocol import Rows
from sk_pwiser._rows._row_summary import RowSummary
from sk_pwiser._rows._task_weights import check_task_weights
from sk_pwiser._settings import Settings, shared_param
from sk_pwiser._training._checked_components import exposure_tasks
from sk_pwiser._training._encoded_data import EncodedData
from sk_pwiser._training._levels._last_rows import LevelRecord
from sk_pwiser._training._schema import Schema, task_labels
from sk_pwiser._utils._warnings import warn_user


def encode(plan: FitPlan, rows: Rows, columns: Columns) -> EncodedData:
    """Encode all rows of a fit, and release those that were in memory."""
    summary = rows.summary
    first_pass = learn(plan, rows, columns)
    if summary.per_task:
        check_task_weights(plan.components.loss)
    warn_about_labels(plan.settings, summary, constant_tasks=True)
    # Filters may leave fewer rows than expected.
    epochs = plan.epochs(rows, summary.n_rows)
    holds_out = epochs.monitor is not None and not plan.eval_rows
    if holds_out and not plan.by_time:
        warn_about_history(first_pass.schema)
    encoded = encode_rows(
        plan,
        rows,
        first_pass,
        earlier_statistics=columns.earlier_statistics,
        held_out=held_out_rows(plan, first_pass) if holds_out else NothingHeldOut(),
        # The first fit decides.
        measures_new_values=not first_pass.schema.category_dropout,
    )
    further: dict[str, TrainingRows] = {}
    for name, eval_rows in plan.eval_rows.items():
        further[name] = eval_rows.encode(encoded.schema, plan.components.loss)
        eval_rows.release()
    data = EncodedData(
        train=encoded.train,
        valid=further.pop("valid", encoded.valid),
        further=further,
        schema=encoded.schema,
        epochs=epochs,
        weight_scale=float(summary.weights.mean),
        base_rates=summary.base_rates().tolist(),
        event_shares=event_shares(summary),
        holds_out=holds_out,
        split_rows=encoded.split_rows,
        unrelated=summary.labels()[0].unrelated(),
        level=encoded.level,
        is_early=encoded.is_early,
        rows_per_weight=summary.rows_per_weight,
        rows_per_row=summary.rows_per_row(),
    )
    rows.release()
    return replace(data, epochs=epochs._replace(monitor=check_validation(plan, data)))


def warn_about_labels(
    settings: Settings, summary: RowSummary, *, constant_tasks: bool
) -> None:
    """Warn about labels that break the funnel, are constant, or missing by choice."""
    targets, weights = summary.labels()
    for message in targets.problems(
        constant_tasks=constant_tasks,
        task_space=shared_param(settings, "task_space"),
        weights=weights if summary.per_task else None,
    ):
        warn_user(message)


def warn_about_history(schema: Schema) -> None:
    """Warn about columns of histories, if validation rows are drawn at random.

    These are in the history of later training rows.
    """
    names = [column.name for column in schema.encoder.columns_]
    name = history_column(names)
    if name is not None:
        warn_user(
            f"X has columns of HistoryFeatures, such as {name!r}, but the validation "
            "rows of early stopping are drawn at random: training rows see their "
            "outcomes. Name a column of times, by "
            "encoding_params={'time_column': ...}, or pass later rows, with complete "
            "labels, as eval_set."
        )


def event_shares(summary: RowSummary) -> list[list[float]]:
    """Return the numbers and sums of `EncodedData.event_shares`, per row."""
    targets, weights = summary.labels()
    task_weights: Any = 1.0
    if weights is not None:
        task_weights = weights.reshape(len(weights), -1)
    # By the index -1, a task without a parent reads the column of ones.
    columns = np.pad(targets.values, [(0, 0), (0, 1)], constant_values=1.0)
    parent_columns = columns[:, list(targets.parents)]
    # Events of rows that lack the label of the parent are no share of its events.
    has_parent_label: Any = 1.0
    if targets.missing is not None:
        missing = np.pad(targets.missing, [(0, 0), (0, 1)])
        has_parent_label = ~missing[:, list(targets.parents)]
    sums = [
        summary.counted_rows() @ targets.values,
        (targets.values * task_weights * has_parent_label).sum(axis=0),
        (parent_columns * task_weights).sum(axis=0),
    ]
    shares: list[list[float]] = (np.array(sums) / targets.counts.sum()).tolist()
    return shares


def held_out_rows(plan: FitPlan, first_pass: FirstPass) -> HeldOut:
    """Choose the rows to hold out."""
    return first_pass.parts.hold_out(
        plan.settings, plan.split_random_state(), plan.earlier_split
    )


@dataclass(frozen=True, kw_only=True)
class EncodedRows:
    """The encoded rows of a training, and what was found of them."""

    train: TrainingRows
    valid: TrainingRows | None
    schema: Schema
    split_rows: dict[str, Any] | None
    level: LevelRecord | None
    is_early: np.ndarray | None  # of each training row, with times


def encode_rows(
    plan: FitPlan,
    rows: Rows,
    first_pass: FirstPass,
    *,
    earlier_statistics: Any,
    held_out: HeldOut,
    measures_new_values: bool,
) -> EncodedRows:
    """Encode all rows, draw validation rows, and fit the target statistics.

    The schema is returned with the category dropout that the rows call for.
    """
    schema = first_pass.schema
    blocks = first_pass.blocks
    statistics: Any = schema.statistics
    has_blocks = statistics is not None and bool(statistics.reads_blocks)
    seed = first_pass.block_seed
    if has_blocks:
        # Continued training keeps the random blocks.
        earlier_seed = getattr(earlier_statistics, "block_seed", None)
        if earlier_seed is not None:
            seed = earlier_seed
        statistics.block_seed = seed
        if statistics.reads_exposure and statistics.exposure_scores is None:
            earlier_scores = getattr(earlier_statistics, "exposure_scores", None)
            statistics.exposure_scores = earlier_scores
            if earlier_scores is None:
                statistics.exposure_scores = _learn_exposure_scores(
                    plan, first_pass, rows.summary.rows_per_weight or 1.0
                )
    second_pass = pass_until_blocks_fit(
        plan,
        rows,
        first_pass,
        seed=seed,
        has_blocks=has_blocks,
        held_out=held_out,
        measures_new_values=measures_new_values,
    )
    if held_out.holds_out and not plan.by_time:
        first_pass.parts.warn_about_order(
            plan.settings, schema, is_sorted=blocks.misleading_order is not None
        )
    tables = None
    if has_blocks:
        tables = statistics.fit(second_pass.counts, earlier_statistics)
    if second_pass.new_values is not None:
        schema = replace(schema, category_dropout=second_pass.new_values.dropouts())
    is_early = second_pass.is_early
    train, valid = second_pass.store.finish(schema, tables, held_out.holds_out)
    return EncodedRows(
        train=train,
        valid=valid,
        schema=schema,
        split_rows=held_out.split_rows,
        level=second_pass.level,
        is_early=np.concatenate(is_early) if is_early else None,
    )


def _learn_exposure_scores(
    plan: FitPlan, first_pass: FirstPass, rows_per_weight: float
) -> np.ndarray:
    """Return how often rows of each combination of exposures have the first event.

    This takes a pass of its own, since the codes are not known in the first one.
    """
    schema = first_pass.schema
    targets = schema.targets
    task, *_ = exposure_tasks(plan.settings, targets.task_names, targets.parents)

    def labelled_exposures() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for part in first_pass.parts.read():
            assert part.exposure is not None
            y, weights = task_labels(plan.settings, part.rows.targets, part.weights)
            yield part.exposure, y[:, task], rows_per_weight * weights[:, task]

    return exposure_scores(labelled_exposures(), schema.exposure_sizes())


def pass_until_blocks_fit(
    plan: FitPlan,
    rows: Rows,
    first_pass: FirstPass,
    *,
    seed: int,
    has_blocks: bool,
    held_out: HeldOut,
    measures_new_values: bool,
) -> SecondPass:
    """Pass over the rows, again with other blocks if the first ones mislead."""
    parts = first_pass.parts
    blocks = first_pass.blocks
    schema = first_pass.schema

    def run() -> SecondPass:
        return run_pass(
            plan.settings,
            rows,
            parts,
            schema=schema,
            blocks=blocks,
            held_out=held_out,
            has_blocks=has_blocks,
            holds_out_last=held_out.holds_out and plan.by_time,
            measures_new_values=measures_new_values,
        )

    second_pass = run()
    parts.warn_about_large_groups(held_out.holds_out, has_blocks)
    if has_blocks and blocks.part_by_keys(seed, parts.share_of_repeats()):
        del second_pass  # its counts may be large
        second_pass = run()
    while second_pass.order is not None:
        # What the rows are sorted by if their blocks mislead.
        order = None
        if blocks.have_order:
            order = second_pass.order.find(schema.targets.task_names)
        if not blocks.retry(order, seed, has_blocks):
            break
        del second_pass
        second_pass = run()
    return second_pass

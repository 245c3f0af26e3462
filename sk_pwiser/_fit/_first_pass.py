"""The first pass over the rows: their columns are learnt, labels and times counted."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np

from sk_pwiser._columns._encoder import TableEncoder
from sk_pwiser._fit._choose_combinations import CombinationsOfParts
from sk_pwiser._fit._encoded_parts import EncodedParts, OnePart, SeveralParts, times_of
from sk_pwiser._fit._fit_plan import FitPlan
from sk_pwiser._fit._learn_columns import Columns
from sk_pwiser._fit._table_learner import TableLearner
from sk_pwiser._rows._blocks import Blocks
from sk_pwiser._rows._checked_rows import CheckedRows, named_place
from sk_pwiser._rows._hold_out import HeldOutOfParts, random_state_at
from sk_pwiser._rows._kept_units import find_units
from sk_pwiser._rows._protocol import Rows
from sk_pwiser._rows._row_sample import RowSample
from sk_pwiser._training._schema import Schema
from sk_pwiser._utils._random import LARGEST_SEED


@dataclass(frozen=True, kw_only=True)
class FirstPass:
    """What the first pass has learnt of the rows."""

    schema: Schema  # whose statistics are not fitted yet
    parts: EncodedParts
    blocks: Blocks  # by which the target statistics are fitted
    block_seed: int  # of random blocks, if those of consecutive rows mislead


def learn(plan: FitPlan, source: Rows, columns: Columns) -> FirstPass:
    """Read the rows once: learn their columns, and count labels, weights and times."""
    # These seeds take nothing from the random state.
    split_random_state = random_state_at(plan.split_state)
    block_seed, sample_seed = split_random_state.randint(LARGEST_SEED, size=2).tolist()
    generator = np.random.default_rng(sample_seed)
    n_blocks = plan.settings.encoding_params["target_encoding_blocks"]
    sample = RowSample(source.sample_rows, generator)
    blocks = Blocks(n_blocks, plan.by_time, sample)
    tables = source.parts("Learning the columns")
    first_table = next(tables)
    second_table = next(tables, None)
    parts: EncodedParts
    if second_table is None:
        schema, parts = _learn_table(plan, source, columns, blocks, rows=first_table)
    else:
        # Parts are read again for the second pass: all of them may exceed memory.
        all_tables = chain([first_table, second_table], tables)
        encoder, parts = _learn_parts(
            plan, source, columns, blocks, tables=all_tables, generator=generator
        )
        blocks.finish()
        schema = columns.schema_of_parts(encoder, source.summary)
    return FirstPass(schema=schema, parts=parts, blocks=blocks, block_seed=block_seed)


def _learn_table(
    plan: FitPlan, source: Rows, columns: Columns, blocks: Blocks, *, rows: CheckedRows
) -> tuple[Schema, OnePart]:
    """Learn rows in one part, and encode them: they are not read again."""
    summary = source.summary
    settings = plan.settings
    with named_place(rows.place):
        if not summary.n_rows:
            summary.add(rows.targets, rows.weights)
        table = columns.encode_table(rows, summary.row_weights, source.stays_in_memory)
        times = None
        if plan.by_time:
            times = times_of(settings, table.rows.X, table.encoder)
        blocks.add(len(rows), times)
        exposure = table.encoder.exposure_codes(table.rows.X)
        codes, numeric, *bags = table.arrays
        n_inputs = len(table.encoder.numeric_bins_)
        units = find_units(
            rows,
            codes,
            numeric[:, :n_inputs],
            bags[0] if bags else None,
            category_names=table.encoder.category_names_,
            validation_fraction=settings.validation_fraction,
            n_blocks=blocks.n_blocks,
            has_counts=summary.weights.are_counts,
        )
    blocks.finish()
    schema = columns.schema(table.encoder, table.statistics, summary)
    parts = OnePart(
        source,
        table.rows,
        table.arrays,
        encoder=table.encoder,
        exposure=exposure,
        times=times,
        units=units,
    )
    return schema, parts


def _learn_parts(
    plan: FitPlan,
    source: Rows,
    columns: Columns,
    blocks: Blocks,
    *,
    tables: Iterator[CheckedRows],
    generator: np.random.Generator,
) -> tuple[TableEncoder, SeveralParts]:
    """Learn rows in several parts, and count those to be held out."""
    held_out = HeldOutOfParts(plan.settings, blocks, plan.split_random_state())
    learner = TableLearner(
        columns.encoder,
        max_values=source.max_values,
        sample=RowSample(source.sample_rows, generator),
        is_new=columns.are_new,
    )
    combinations = CombinationsOfParts(plan.settings)
    for rows in tables:
        with named_place(rows.place):
            source.summary.add(rows.targets, rows.weights)
            learner.add(rows.X, rows.weights)
            times = None
            if plan.by_time:
                times = times_of(plan.settings, rows.X, columns.encoder)
            held_out.count(rows, times)
            blocks.add(len(rows), times)
            if columns.are_new:
                combinations.add(rows, times)
    encoder = learner.finish()
    if columns.are_new:
        combinations.learn(encoder, source)
    return encoder, SeveralParts(source, encoder, held_out, by_time=plan.by_time)

"""The first pass over a dataset: its schema, and what is known of all labels."""

from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sk_pwiser._training._data import (
    Schema,
    in_parts,
    make_encoder,
    make_target_statistics,
)
from sk_pwiser._training._embedding_dims import automatic_dims
from sk_pwiser._training._resume import check_same_statistics
from sk_pwiser._training._row_progress import RowProgress
from sk_pwiser._training._settings import Settings
from sk_pwiser._utils import warn_user


@dataclass(frozen=True)
class DatasetSchema:
    """What the first pass over a dataset learns.

    Parameters
    ----------
    schema : Schema
        The encoding of the table. Its target statistics, if there are any, are not
        fitted yet.
    summary : RowSummary
        Labels and weights of all rows.
    blocks : Blocks or None
        Assigns rows to blocks for the target statistics; None without them.
    """

    schema: Schema
    summary: Any
    blocks: Any


def learn_schema(
    settings: Settings,
    dataset: Any,
    earlier: Schema | None,
    seed: int,
    pool: Executor,
    estimator_name: str,
) -> DatasetSchema:
    """Read all rows once.

    Parameters
    ----------
    settings : Settings
        The estimator's parameters.
    dataset : object
        The rows.
    earlier : Schema or None
        Schema of the fit that training continues from.
    seed : int
        Seed of the sample of rows that distributions are learnt from.
    pool : Executor
        Its thread reads.
    estimator_name : str
        Name of the estimator, for messages.

    Raises
    ------
    ValueError, TypeError
        If there are no rows, or a column, label or weight is invalid.
    """
    params = settings.encoding_params
    generator = np.random.default_rng(seed)
    encoder = make_encoder(settings, estimator_name)
    learner = in_parts.TableLearner(encoder, dataset, generator)
    n_blocks = params["target_encoding_blocks"]
    times = in_parts.TimeEdges(
        params["time_column"], n_blocks, dataset.sample_rows, generator
    )
    summary = in_parts.RowSummary()
    progress = RowProgress("Learning the columns", dataset.n_rows_, settings.verbose)
    for chunk in read_chunks(settings, dataset, pool):
        with in_parts.named_place(chunk.place):
            if len(chunk.X):
                summary.add(chunk.targets, chunk.weights)
                times.add(chunk.X)
                if earlier is None:
                    learner.add(chunk.X, chunk.weights)
        progress(chunk.n_read)
    progress.close()  # filters may select fewer rows than the files have
    check_rows_left(dataset, summary)
    schema = earlier
    if schema is None:
        learner.finish()
        schema = Schema(
            encoder,
            summary.first,
            summary.base_rates(),
            automatic_dims=automatic_dims(encoder.cardinalities_),
        )
    statistics = make_target_statistics(
        settings.target_encoding, schema.encoder, summary.n_rows, params
    )
    if earlier is not None:
        check_same_statistics(settings, earlier, statistics)
    blocks = None
    if statistics is not None:
        blocks = in_parts.Blocks(summary.n_rows, n_blocks, times, times.finish())
    return DatasetSchema(replace(schema, statistics=statistics), summary, blocks)


def read_chunks(settings: Settings, dataset: Any, pool: Executor) -> Any:
    """Iterate over the checked rows of a dataset."""
    return in_parts.iter_chunks(
        dataset, settings.task_names, settings.missing_labels, pool
    )


def check_rows_left(dataset: Any, summary: Any) -> None:
    """Raise if no row is left; warn if some could not be read.

    Raises
    ------
    ValueError
        If so.
    """
    if dataset.corrupt_:
        warn_user(
            f"{len(dataset.corrupt_)} files or row groups cannot be read and are left "
            f"out, the first of them {dataset.corrupt_[0]}."
        )
    if not summary.n_rows:
        what = "weights above 0" if dataset.sample_weight else "rows"
        raise ValueError(f"{dataset!r} has no {what} that its filters select.")

"""The second pass over a dataset: its rows are encoded and stored on disk."""

import shutil
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sk_pwiser._training._data import EncodedData, Schema, in_parts
from sk_pwiser._training._dataset import Impressions
from sk_pwiser._training._dataset_schema import (
    DatasetSchema,
    check_rows_left,
    read_chunks,
)
from sk_pwiser._training._inputs import Inputs
from sk_pwiser._training._row_progress import RowProgress
from sk_pwiser._training._row_store import Arrays, RowStore
from sk_pwiser._training._settings import Settings
from sk_pwiser._training._streamed import StreamedImpressions, TrainingData
from sk_pwiser._training._task_labels import task_labels


def encode_rows(
    settings: Settings,
    dataset: Any,
    learnt: DatasetSchema,
    folder: Path,
    pool: Executor,
    *,
    seed: int | None,
    file_rows: int | None = None,
) -> EncodedData:
    """Encode all rows and store them, the validation rows apart.

    Parameters
    ----------
    settings : Settings
        The estimator's parameters.
    dataset : object
        The rows.
    learnt : DatasetSchema
        What the first pass learnt; its statistics are fitted here.
    folder : Path
        Folder for the rows.
    pool : Executor
        Its thread reads.
    seed : int or None
        Seed of the draw of validation rows; None for none.
    file_rows : int, default=None
        Largest number of rows per stored file; None for about 16,384.

    Raises
    ------
    ValueError, TypeError
        If a column cannot be encoded, or there is not enough space in the folder.
    """
    train = _make_store(folder / "train", file_rows)
    valid = _make_store(folder / "valid", file_rows)
    generator = None if seed is None else np.random.default_rng(seed)
    schema, summary, blocks = learnt.schema, learnt.summary, learnt.blocks
    n_tasks, counts = len(schema.targets.task_names), None
    if blocks is not None:
        counts = in_parts.BlockCounts(schema.statistics, blocks.n_blocks, n_tasks)
    progress = RowProgress("Encoding", summary.n_rows, settings.verbose)
    for chunk in read_chunks(settings, dataset, pool):
        if not len(chunk.X):
            continue
        with in_parts.named_place(chunk.place):
            inputs = Inputs(*schema.encoder.transform(chunk.X))
        weights = summary.scale(chunk.weights, len(chunk.X))
        impressions = inputs.impressions(chunk.targets.values, weights, chunk.groups)
        is_valid = np.zeros(len(chunk.X), dtype=bool)
        if generator is not None:
            is_valid = generator.random(len(chunk.X)) < settings.validation_fraction
        block = None
        if counts is not None:
            block = blocks.assign(chunk.X, chunk.groups)
            block[is_valid] = blocks.n_blocks
            is_conditional = settings.shared_param("task_space") == "conditional"
            labelled = task_labels(
                chunk.targets.values, weights, conditional=is_conditional
            )
            counts.add(inputs.codes, *labelled, block)
        for store, chosen in ((train, ~is_valid), (valid, is_valid)):
            _append(store, impressions, np.flatnonzero(chosen), block, file_rows)
        check_space(folder, [train, valid], summary.n_rows)
        progress(len(chunk.X))
    train.flush()
    valid.flush()
    _check_parts(settings, train, valid, generator is not None)
    load = partial(load_rows, schema, None if counts is None else counts.finish())
    size = dataset.shuffle_rows
    rows = StreamedImpressions(train, load, size, pool)
    rows = replace(rows, on_read=RowProgress("Training", len(train), settings.verbose))
    held_out = StreamedImpressions(valid, load, size, pool) if len(valid) else None
    return EncodedData(TrainingData(rows, held_out), schema)


def encode_eval_rows(
    settings: Settings,
    dataset: Any,
    schema: Schema,
    folder: Path,
    pool: Executor,
    file_rows: int | None = None,
) -> StreamedImpressions:
    """Encode validation rows of a dataset like rows of a prediction, and store them.

    Parameters are those of `encode_rows`, with the schema that encodes the rows.

    Raises
    ------
    ValueError, TypeError
        If the rows are invalid, or of other tasks than the training rows.
    """
    store = _make_store(folder / "eval", file_rows)
    summary = in_parts.RowSummary()
    for chunk in read_chunks(settings, dataset, pool):
        if not len(chunk.X):
            continue
        summary.add(chunk.targets, None)
        with in_parts.named_place(chunk.place):
            inputs = schema.transform(chunk.X)
        # There are weights only if labels are missing.
        known = None if chunk.weights is None else chunk.weights.astype(np.float32)
        impressions = inputs.impressions(chunk.targets.values, known)
        _append(store, impressions, np.arange(len(chunk.X)), None, file_rows)
    store.flush()
    check_rows_left(dataset, summary)
    load = partial(load_rows, schema, None)
    return StreamedImpressions(store, load, dataset.shuffle_rows, pool)


def store_impressions(
    impressions: Impressions, folder: Path, file_rows: int
) -> RowStore:
    """Store encoded rows in files of at most so many rows."""
    store = _make_store(folder, file_rows)
    _append(store, impressions, np.arange(len(impressions)), None, file_rows)
    store.flush()
    return store


def _make_store(folder: Path, file_rows: int | None = None) -> RowStore:
    folder.mkdir()
    # Half as many are enough for a file: parts that end with a group differ in size.
    return RowStore(folder, None if file_rows is None else -(-file_rows // 2))


def _append(
    store: RowStore,
    impressions: Impressions,
    rows: np.ndarray,
    block: np.ndarray | None,
    file_rows: int | None,
) -> None:
    """Add some of the rows to a store, about `file_rows` at a time."""
    if not len(rows):
        return
    size = len(rows) if file_rows is None else file_rows
    cuts = np.arange(size, len(rows), size)
    if len(cuts) and impressions.groups is not None:
        # Moved to the next group, so that the rows of a group stay together.
        groups = impressions.groups.numpy()[rows]
        starts = np.flatnonzero(np.diff(groups)) + 1
        cuts = np.append(starts, len(rows))[np.searchsorted(starts, cuts)]
    for part in np.split(rows, np.unique(cuts).astype(int)):
        if len(part):
            store.append(_arrays(impressions, part, block))


def _arrays(
    impressions: Impressions, rows: np.ndarray, block: np.ndarray | None
) -> Arrays:
    """Return some of the rows as arrays by name."""
    inputs, y = impressions[torch.from_numpy(rows)]
    arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
    arrays["y"] = y.numpy()
    if block is not None:
        arrays["block"] = block[rows].astype(np.int32)
    return arrays


def load_rows(
    schema: Schema, tables: Sequence[np.ndarray] | None, arrays: Arrays
) -> Impressions:
    """Return stored rows as impressions, with the inputs of the target statistics.

    Parameters
    ----------
    schema : Schema
        The encoding of the table.
    tables : sequence of ndarray of shape (n_blocks + 1, n_codes, n_tasks + 1), or None
        Inputs of the encoded columns by block and code.
    arrays : dict of str to ndarray
        The rows.
    """
    codes, numeric = arrays["codes"], arrays["numeric"]
    if tables is not None:
        assert schema.statistics is not None
        columns = zip(tables, schema.statistics.columns, strict=True)
        rates = [table[arrays["block"], codes[:, column]] for table, column in columns]
        numeric = np.hstack([numeric, *rates])
    bags = None
    if "bag_offsets" in arrays:
        weights = arrays.get("bag_weights")
        bags = arrays["bag_offsets"], arrays["bag_indices"], weights
    inputs = Inputs(schema.without_rare(codes), numeric, bags)
    return inputs.impressions(
        arrays["y"], arrays.get("sample_weight"), arrays.get("groups")
    )


def check_space(folder: Path, stores: Sequence[RowStore], n_rows: int) -> None:
    """Raise if the rows so far show that all of them need more space than there is.

    Raises
    ------
    ValueError
        If so.
    """
    n_stored = sum(map(len, stores))
    per_row = sum(store.n_bytes for store in stores) / n_stored
    needed, free = per_row * (n_rows - n_stored), shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"The encoded rows need {needed / 2**30:.1f} GiB more; "
            f"{str(folder.parent)!r} has {free / 2**30:.1f} GiB. Set cache_dir of the "
            "dataset to a folder with more space."
        )


def _check_parts(
    settings: Settings, train: RowStore, valid: RowStore, holds_out: bool
) -> None:
    if not len(train) or (holds_out and not len(valid)):
        raise ValueError(
            f"validation_fraction={settings.validation_fraction} leaves {len(train)} "
            f"rows for training and {len(valid)} for validation; use "
            "early_stopping=False for so few rows."
        )

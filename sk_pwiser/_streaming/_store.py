"""The second pass over a data set: encoded rows on disk, read back in parts."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sk_pwiser._streaming._chunks import RowProgress, Source, named_place
from sk_pwiser._streaming._learn import (
    BlockCounts,
    DatasetSchema,
    check_rows_left,
)
from sk_pwiser._table._blocks import warn_about_group, warn_about_order
from sk_pwiser._table._categories import LATE_SHARE, NewValues
from sk_pwiser._table._column_kinds import warn_about_random_validation
from sk_pwiser._table._lists import Bags
from sk_pwiser._training._batches import Impressions, TrainingData, TrainingRows
from sk_pwiser._training._components import check_task_weights
from sk_pwiser._training._devices import Batch, pins_memory
from sk_pwiser._training._encode import EncodedData, Inputs, Schema, task_labels
from sk_pwiser._training._settings import Settings
from sk_pwiser._utils import generator_on, in_background

# Rows per file: few enough that an epoch mixes rows of many places, and enough that a
# file is read as fast as the disk allows.
FILE_ROWS = 16_384

Arrays = dict[str, np.ndarray]


class RowStore:
    """Encoded rows in files, as memory maps would count as memory of the process."""

    def __init__(self, folder: Path, file_rows: int | None = None) -> None:
        folder.mkdir()
        self.folder = folder
        self.file_rows = file_rows
        # Files are written from half the rows on, since parts that end with a group
        # differ in size.
        self.fewest_rows = FILE_ROWS if file_rows is None else -(-file_rows // 2)
        self.sizes: list[int] = []
        # The dtype and the shape per row of each array.
        self.forms: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
        self.n_bytes = 0
        self._pending: list[Arrays] = []

    def __len__(self) -> int:
        return sum(self.sizes) + self._n_pending

    @property
    def _n_pending(self) -> int:
        return sum(len(arrays["y"]) for arrays in self._pending)

    def add(
        self,
        impressions: Impressions,
        rows: np.ndarray,
        block: np.ndarray | None = None,
    ) -> None:
        """Add some of the rows, about `file_rows` at a time."""
        if not len(rows):
            return
        size = len(rows) if self.file_rows is None else self.file_rows
        cuts = np.arange(size, len(rows), size)
        if len(cuts) and impressions.groups is not None:
            # Moved to the next group, so that the rows of a group stay together.
            groups = impressions.groups.numpy()[rows]
            starts = np.flatnonzero(np.diff(groups)) + 1
            cuts = np.append(starts, len(rows))[np.searchsorted(starts, cuts)]
        for part in np.split(rows, np.unique(cuts).astype(int)):
            if len(part):
                inputs, y = impressions[torch.from_numpy(part)]
                arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
                arrays["y"] = y.numpy()
                if block is not None:
                    arrays["block"] = block[part].astype(np.int32)
                self._append(arrays)

    def _append(self, arrays: Arrays) -> None:
        self._pending.append(arrays)
        for name, array in arrays.items():
            self.forms.setdefault(name, (array.dtype, array.shape[1:]))
        self.n_bytes += sum(array.nbytes for array in arrays.values())
        if self._n_pending >= self.fewest_rows:
            self.flush()

    def flush(self) -> None:
        if self._n_pending:
            arrays = self._join(self._pending, self.forms)
            np.savez(self._path(len(self.sizes)), **arrays)  # type: ignore[arg-type]
            self.sizes.append(len(arrays["y"]))
        self._pending = []

    def read(self, files: Sequence[int], names: Sequence[str] | None = None) -> Arrays:
        """Return the named arrays, by default all, of some files in their order."""
        chosen = [name for name in self.forms if names is None or name in names]
        parts = []
        for number in files:
            with np.load(self._path(number)) as file:
                parts.append(
                    {
                        name: file[name] if name in file else self._ones(name, file)
                        for name in chosen
                    }
                )
        return self._join(parts, chosen)

    def _join(self, parts: Sequence[Arrays], names: Iterable[str]) -> Arrays:
        """Join the arrays of rows; those without weights have the weight 1."""
        joined = {}
        for name in names:
            if name == "bag_offsets":
                starts = np.cumsum([0, *(part[name][-1] for part in parts)])
                pairs = zip(parts, starts[:-1], strict=True)
                moved = [part[name][1:] + start for part, start in pairs]
                joined[name] = np.concatenate([np.zeros(1, np.int64), *moved])
                continue
            arrays = [
                part[name] if name in part else self._ones(name, part) for part in parts
            ]
            joined[name] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        return joined

    def _ones(self, name: str, part: Mapping[str, np.ndarray]) -> np.ndarray:
        dtype, shape = self.forms[name]
        n_rows = len(part["bag_indices"] if name == "bag_weights" else part["y"])
        return np.ones((n_rows, *shape), dtype=dtype)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.npz"


CPU = torch.device("cpu")

# Number of files that are read for checks of a few rows.
SAMPLE_FILES = 4


@dataclass(frozen=True)
class StreamedImpressions(TrainingRows, Dataset[Batch]):
    """Encoded impressions that are read from a store, in parts of about `part_rows`."""

    store: RowStore
    load: Callable[[Arrays], Impressions]
    part_rows: int
    device: torch.device = CPU
    on_read: Callable[[int], None] | None = None

    # All rows of the store are selected.
    rows = None

    def __len__(self) -> int:
        return len(self.store)

    def parts(self, shuffled: bool) -> Iterator[Impressions]:
        """Yield all rows in parts, from files in a random order if `shuffled`."""
        order = self._order(shuffled)
        n_rows = sum(self.store.sizes[number] for number in order)
        dealt = self.deal(order, max(1, round(n_rows / self.part_rows)))
        parts = (self._read(files) for files in dealt if files)
        for part in in_background(parts):
            yield part.to(self.device)
            if self.on_read is not None:
                self.on_read(len(part))

    def _order(self, shuffled: bool) -> Sequence[int]:
        n_files = len(self.store.sizes)
        if not shuffled:
            return range(n_files)
        # Drawn before the thread starts, which has no generator of its own.
        order: list[int] = torch.randperm(n_files, generator=generator_on(CPU)).tolist()
        return order

    def deal(self, order: Sequence[int], n_parts: int) -> list[list[int]]:
        """Distribute files over parts of about equal numbers of rows."""
        sizes = np.array(self.store.sizes)[list(order)]
        middles = sizes.cumsum() - sizes / 2
        numbers = (middles * n_parts / sizes.sum()).astype(int)
        return [np.array(order)[numbers == part].tolist() for part in range(n_parts)]

    def _read(self, files: Sequence[int]) -> Impressions:
        rows = self.load(self.store.read(files))
        return rows.pinned() if pins_memory(self.device) else rows

    @cached_property
    def sample(self) -> Impressions:
        """Rows of a few files, for checks that need some rows only."""
        last = len(self.store.sizes) - 1
        chosen = np.linspace(0, last, min(SAMPLE_FILES, last + 1)).astype(int)
        return self._read(chosen.tolist()).to(self.device)

    def column(self, name: str) -> Tensor | None:
        if name not in self.store.forms:
            return None
        files = range(len(self.store.sizes))
        values = self.store.read(files, [name])[name]
        return torch.from_numpy(values).to(self.device)

    @cached_property
    def n_missing(self) -> list[int] | None:
        """Numbers of missing labels of the tasks after the first, or None."""
        _, shape = self.store.forms.get("sample_weight", (None, ()))
        if not shape:
            return None
        counts = np.zeros(shape, dtype=np.int64)
        for file in range(len(self.store.sizes)):
            weights = self.store.read([file], ["sample_weight"])["sample_weight"]
            counts += (weights == 0).sum(axis=0)
        found: list[int] = counts[1:].tolist()
        return found

    def to(self, device: torch.device) -> "StreamedImpressions":
        return replace(self, device=device)


def encode_rows(
    source: Source, learnt: DatasetSchema, seed: int | None, block_seed: int
) -> EncodedData:
    """Encode and store all rows, draw validation rows, and fit target statistics."""
    schema, blocks = learnt.schema, learnt.blocks
    if seed is not None and blocks.column is None:
        names = [column.name for column in schema.encoder.columns_]
        warn_about_random_validation(names)
    new_values = NewValues(schema.encoder)
    train, valid, counts = _encode_once(source, learnt, seed, new_values)
    if schema.statistics is not None:
        schema.statistics.keep_seed(learnt.earlier, block_seed)
        task_names = schema.targets.task_names
        warn_about_group(blocks.sizes.largest, blocks.n_rows, blocks.n_blocks)
        found = counts.find_order(task_names) if blocks.have_order else None
        if found is not None and found.is_sorted:
            for store in (train, valid):
                shutil.rmtree(store.folder)
            counts = None  # which may be large
            blocks.start(schema.statistics.block_seed)
            new_values = NewValues(schema.encoder)
            train, valid, counts = _encode_once(source, learnt, seed, new_values)
            # Random blocks do not help if the values of the column are parts of groups.
            found = found if counts.find_order(task_names) is None else None
        if found is not None and blocks.column is None:
            warn_about_order(found, source.dataset.groups is not None)
    if not schema.category_dropout:  # of an earlier fit
        schema = replace(schema, category_dropout=new_values.dropouts())
    _check_parts(source.settings, train, valid, seed is not None)
    tables = None if counts is None else counts.finish(learnt.earlier)
    load = partial(load_rows, schema, tables)
    progress = RowProgress("Training", len(train), source.settings.verbose)
    rows = replace(_streamed(source, train, load), on_read=progress)
    held_out = _streamed(source, valid, load) if len(valid) else None
    return EncodedData(TrainingData(rows, held_out), schema)


def _encode_once(
    source: Source,
    learnt: DatasetSchema,
    seed: int | None,
    new_values: NewValues,
) -> tuple[RowStore, RowStore, Any]:
    """Read all rows; return the stored training and validation rows, and the counts."""
    settings, hold_out = source.settings, learnt.hold_out
    schema, summary, blocks = learnt.schema, learnt.summary, learnt.blocks
    train = RowStore(source.folder / "train", source.file_rows)
    valid = RowStore(source.folder / "valid", source.file_rows)
    if seed is not None:
        hold_out.start(seed)
    n_tasks, counts = len(schema.targets.task_names), None
    if schema.statistics is not None:
        counts = BlockCounts(
            schema.statistics, schema.encoder, blocks.n_blocks, n_tasks
        )
    edge, n_read = blocks.last_edge(LATE_SHARE), 0
    progress = RowProgress("Encoding", summary.n_rows, settings.verbose)
    for chunk in source.chunks():
        if not len(chunk.X):
            continue
        with named_place(chunk.place):
            inputs = Inputs(*schema.encoder.transform(chunk.X))
        weights = summary.scale(chunk.weights, len(chunk.X))
        impressions = inputs.impressions(chunk.targets.values, weights, chunk.groups)
        is_valid = np.zeros(len(chunk.X), dtype=bool)
        if seed is not None:
            is_valid = hold_out.draw(chunk.X, chunk.targets, chunk.groups)
        block = None
        is_late = n_read + np.arange(len(chunk.X)) >= (1 - LATE_SHARE) * blocks.n_rows
        n_read += len(chunk.X)
        if counts is not None:
            block = blocks.assign(chunk.X, chunk.groups)
            if blocks.generator is not None:  # rows are in another order
                is_late = block == blocks.n_blocks - 1
            block[is_valid] = blocks.n_blocks
            labelled = task_labels(settings, chunk.targets, weights)
            lists = schema.elements([inputs.bags])
            counts.add(inputs.codes, lists, *labelled, block)
        if edge is not None:
            is_late = blocks.read(chunk.X) >= edge
        new_values.add(inputs.codes, is_late)
        for store, chosen in ((train, ~is_valid), (valid, is_valid)):
            store.add(impressions, np.flatnonzero(chosen), block)
        check_space(source.folder, [train, valid], summary.n_rows)
        progress(len(chunk.X))
    train.flush()
    valid.flush()
    return train, valid, counts


def _streamed(source: Source, store: RowStore, load: Any) -> StreamedImpressions:
    return StreamedImpressions(store, load, source.dataset.shuffle_rows)


def encode_eval_rows(source: Source, schema: Schema, loss: Any) -> StreamedImpressions:
    """Encode and store the rows of a validation set, on which `loss` is measured."""
    store = RowStore(source.folder / "eval", source.file_rows)
    for chunk in source.chunks():
        if not len(chunk.X):
            continue
        # There are weights only if labels are missing.
        if chunk.weights is not None:
            check_task_weights(loss)
        with named_place(chunk.place):
            inputs = schema.transform(chunk.X)
        known = None if chunk.weights is None else chunk.weights.astype(np.float32)
        impressions = inputs.impressions(chunk.targets.values, known, chunk.groups)
        store.add(impressions, np.arange(len(chunk.X)))
    store.flush()
    check_rows_left(source.dataset, len(store))
    return _streamed(source, store, partial(load_rows, schema, None))


def load_rows(
    schema: Schema, tables: Sequence[np.ndarray] | None, arrays: Arrays
) -> Impressions:
    """Return stored rows as impressions, with target statistics by block and code."""
    codes, numeric, bags = arrays["codes"], arrays["numeric"], None
    if "bag_offsets" in arrays:
        found: list[Any] = [arrays.get(f"bag_{name}") for name in Bags._fields]
        bags = Bags(*found)
    if tables is not None:
        assert schema.statistics is not None
        lists = schema.elements([bags])
        rates = schema.statistics.inputs(tables, codes, lists, arrays["block"])
        numeric = np.hstack([numeric, rates])
    inputs = Inputs(schema.without_rare(codes), numeric, bags)
    return inputs.impressions(
        arrays["y"], arrays.get("sample_weight"), arrays.get("groups")
    )


def check_space(folder: Path, stores: Sequence[RowStore], n_rows: int) -> None:
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
            "early_stopping=False for so few rows or groups."
        )

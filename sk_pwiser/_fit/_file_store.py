"""The second pass over a data set: encoded rows on disk, read back in parts."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sk_pwiser._columns._bags import Bags
from sk_pwiser._columns._target_statistics import BlockInputs
from sk_pwiser._fit._file_rows import FileRows
from sk_pwiser._rows import _batches
from sk_pwiser._rows._batches import Impressions, TrainingRows
from sk_pwiser._rows._checked_rows import named_place
from sk_pwiser._training._checked_components import check_task_weights
from sk_pwiser._training._schema import Schema
from sk_pwiser._utils._random import generator_on
from sk_pwiser._utils._threads import in_background

# Rows per file: few enough that an epoch mixes rows of many places, and enough that a
# file is read as fast as the disk allows.
FILE_ROWS = 16_384
FEWEST_ROWS = 128  # if a number of files is asked for

Arrays = dict[str, np.ndarray]


class RowStore:
    """Encoded rows in files, as memory maps would count as memory of the process."""

    def __init__(self, folder: Path, file_rows: int | None = None) -> None:
        shutil.rmtree(folder, ignore_errors=True)  # the rows of an earlier pass
        folder.mkdir()
        self.folder = folder
        self.file_rows = file_rows
        # Files are written from half the rows on, since parts that end with a group
        # differ in size.
        self.fewest_rows = FILE_ROWS if file_rows is None else -(-file_rows // 2)
        self.sizes: list[int] = []
        # The dtype and the shape per row of each array.
        self.forms: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
        self._pending: list[Arrays] = []

    def __len__(self) -> int:
        return sum(self.sizes)

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
            starts = np.flatnonzero(np.diff(impressions.groups.numpy()[rows])) + 1
            cuts = np.append(starts, len(rows))[np.searchsorted(starts, cuts)]
        for part in np.split(rows, np.unique(cuts).astype(int)):
            if len(part):
                inputs, y = impressions.batch(torch.from_numpy(part))
                arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
                arrays["y"] = y.numpy()
                if block is not None:
                    arrays["block"] = block[part].astype(np.int32)
                self._pending.append(arrays)
                for name, array in arrays.items():
                    self.forms.setdefault(name, (array.dtype, array.shape[1:]))
                if sum(len(each["y"]) for each in self._pending) >= self.fewest_rows:
                    self.flush()

    def flush(self) -> None:
        if self._pending:
            arrays = self._join(self._pending, self.forms)
            np.savez(self._path(len(self.sizes)), **arrays)  # type: ignore[arg-type]
            self.sizes.append(len(arrays["y"]))
        self._pending = []

    def read(self, files: Sequence[int], names: Sequence[str] | None = None) -> Arrays:
        """Return the named arrays, by default all, of some files in their order."""
        chosen = list(self.forms) if names is None else names
        parts = []
        for number in files:
            with np.load(self._path(number)) as file:
                # The labels also tell the number of rows, if these have no weights.
                parts.append({n: file[n] for n in {*chosen, "y"} if n in file})
        return self._join(parts, chosen)

    def _join(self, parts: Sequence[Arrays], names: Iterable[str]) -> Arrays:
        """Join the arrays of rows; those without weights have the weight 1."""
        joined = {}
        for name in names:
            if name == "bag_offsets":
                # Each part counts the entries of its bags from 0.
                starts = np.cumsum([0, *(part[name][-1] for part in parts)])
                pairs = zip(parts, starts[:-1], strict=True)
                moved = [part[name][1:] + start for part, start in pairs]
                joined[name] = np.concatenate([np.zeros(1, np.int64), *moved])
                continue
            dtype, shape = self.forms[name]
            key = "bag_indices" if name == "bag_weights" else "y"
            arrays = [
                part[name] if name in part else np.ones((len(part[key]), *shape), dtype)
                for part in parts
            ]
            joined[name] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        return joined

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.npz"


CPU = torch.device("cpu")

# Number of files that are read for checks of a few rows.
SAMPLE_FILES = 4


@dataclass(frozen=True)
class StreamedImpressions(TrainingRows, Dataset[_batches.Batch]):
    """Encoded impressions that are read from a store, in parts of about `part_rows`."""

    store: RowStore
    schema: Schema
    tables: Sequence[BlockInputs] | None  # of target statistics, if not stored
    part_rows: int
    device: torch.device = CPU

    def __len__(self) -> int:
        return len(self.store)

    def parts(self, shuffled: bool) -> Iterator[Impressions]:
        """Yield all rows in parts, from files in a random order if `shuffled`."""
        # Whole files are shuffled here, and the rows of a part by the batch iterator.
        order = self._order(shuffled)
        n_rows = sum(self.store.sizes[number] for number in order)
        dealt = self.deal(order, max(1, round(n_rows / self.part_rows)))
        parts = (self._read(files) for files in dealt if files)
        for part in in_background(parts):
            yield part.to(self.device)

    def _order(self, shuffled: bool) -> Sequence[int]:
        n_files = len(self.store.sizes)
        if not shuffled or n_files == 1:
            return range(n_files)
        # Drawn before the thread starts, which has no generator of its own.
        return torch.randperm(n_files, generator=generator_on(CPU)).tolist()

    def deal(self, order: Sequence[int], n_parts: int) -> list[list[int]]:
        """Distribute files over parts of about equal numbers of rows."""
        sizes = np.array(self.store.sizes)[list(order)]
        middles = sizes.cumsum() - sizes / 2
        numbers = (middles * n_parts / sizes.sum()).astype(int)
        return [np.array(order)[numbers == part].tolist() for part in range(n_parts)]

    def _read(self, files: Sequence[int]) -> Impressions:
        """Return the rows of files, with target statistics by block and code."""
        arrays, schema, bags = self.store.read(files), self.schema, None
        codes, numeric = arrays["codes"], arrays["numeric"]
        if "bag_offsets" in arrays:
            found: list[Any] = [arrays.get(f"bag_{name}") for name in Bags._fields]
            bags = Bags(*found)
        if self.tables is not None:
            assert schema.statistics is not None
            lists, block = schema.elements(bags), arrays["block"]
            rates = schema.statistics.transform(codes, lists, self.tables, block)
            numeric = np.hstack([numeric, rates])
        rows = Impressions.of(schema.without_rare(codes), numeric, bags)
        rows = rows.labelled(
            arrays["y"],
            arrays.get("sample_weight"),
            arrays.get("groups"),
            arrays.get("amounts"),
        )
        # Copies of pinned memory to a device are faster.
        pins = _batches.pins_memory(self.device)
        return rows.copied(Tensor.pin_memory) if pins else rows

    @cached_property
    def _sample(self) -> Impressions:
        last = len(self.store.sizes) - 1
        chosen = np.linspace(0, last, min(SAMPLE_FILES, last + 1)).astype(int)
        return self._read(chosen.tolist()).to(self.device)

    def spaced(self, n_rows: int) -> Impressions:
        """Select rows of a few files, for checks that need some rows only."""
        return self._sample.spaced(n_rows)

    def column(self, name: str) -> Tensor | None:
        if name not in self.store.forms:
            return None
        values = self.store.read(range(len(self.store.sizes)), [name])[name]
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
        return counts[1:].tolist()

    def to(self, device: torch.device) -> "StreamedImpressions":
        return replace(self, device=device)


class FileStore:
    """Encoded rows of files, stored in two folders: to train on, and to validate."""

    def __init__(self, source: FileRows) -> None:
        self.source = source
        file_rows = None
        if source.n_files is not None:
            by_file = max(FEWEST_ROWS, source.summary.n_rows // source.n_files)
            file_rows = min(FILE_ROWS, by_file)
        self.train = RowStore(source.folder / "train", file_rows)
        self.valid = RowStore(source.folder / "valid", file_rows)

    def add(
        self, rows: Impressions, is_valid: np.ndarray, block: np.ndarray | None
    ) -> None:
        """Store rows with their blocks, by which their rates are read."""
        for store, chosen in ((self.train, ~is_valid), (self.valid, is_valid)):
            store.add(rows, np.flatnonzero(chosen), block)

    def finish(
        self, schema: Schema, tables: Sequence[BlockInputs] | None, holds_out: bool
    ) -> tuple[StreamedImpressions, StreamedImpressions | None]:
        """Return the rows, which are read with the target statistics of `tables`."""
        self.train.flush()
        self.valid.flush()
        if not len(self.train) or (holds_out and not len(self.valid)):
            share = self.source.settings.validation_fraction
            raise ValueError(
                f"validation_fraction={share} leaves {len(self.train)} training and "
                f"{len(self.valid)} validation rows; use early_stopping=False."
            )
        of_stores = schema, tables, self.source.dataset.shuffle_rows
        train = StreamedImpressions(self.train, *of_stores)
        valid = StreamedImpressions(self.valid, *of_stores) if len(self.valid) else None
        return train, valid


def encode_eval_rows(
    source: FileRows, schema: Schema, loss: Any
) -> StreamedImpressions:
    """Encode and store the rows of a validation set, on which `loss` is measured."""
    store = RowStore(source.folder / "eval")
    for rows in source.parts(""):
        # There are weights only if labels are missing.
        if rows.weights is not None:
            check_task_weights(loss)
        with named_place(rows.place):
            encoded = schema.transform(rows.X)
        known = None if rows.weights is None else rows.weights.astype(np.float32)
        encoded = encoded.labelled(
            rows.targets.values,
            known,
            rows.groups,
            schema.scaled_amounts(rows.targets.amounts),
        )
        store.add(encoded, np.arange(len(rows)))
    store.flush()
    return StreamedImpressions(store, schema, None, source.dataset.shuffle_rows)

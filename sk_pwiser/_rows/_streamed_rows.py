"""Rows to train on that are read back from disk in parts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sk_pwiser._columns._bags import Bags
from sk_pwiser._columns._target_statistics import BlockInputs
from sk_pwiser._rows import _encoded_rows
from sk_pwiser._rows._encoded_rows import Impressions, TrainingRows
from sk_pwiser._rows._protocol import RowEncoder
from sk_pwiser._rows._stored_rows import StoredRows
from sk_pwiser._utils._random import generator_on
from sk_pwiser._utils._threads import in_background

CPU = torch.device("cpu")

# Number of files that are read for checks of a few rows.
SAMPLE_FILES = 4


@dataclass(frozen=True)
class StreamedImpressions(TrainingRows, Dataset[_encoded_rows.Batch]):
    """Encoded impressions that are read from a store, in parts of about `part_rows`."""

    store: StoredRows
    schema: RowEncoder
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
        arrays = self.store.read(files)
        schema = self.schema
        codes = arrays["codes"]
        numeric = arrays["numeric"]
        bags: Any = None
        if "bag_offsets" in arrays:
            fields: list[Any] = [arrays.get(f"bag_{name}") for name in Bags._fields]
            bags = Bags(*fields)
        if self.tables is not None:
            assert schema.statistics is not None
            lists = schema.elements(bags)
            rates = schema.statistics.transform(
                codes, lists, self.tables, arrays["block"]
            )
            numeric = np.hstack([numeric, rates])
        rows = Impressions.of(schema.without_rare(codes), numeric, bags)
        rows = (
            rows.shown(arrays.get("exposure"))
            .labelled(
                arrays["y"],
                arrays.get("sample_weight"),
                arrays.get("groups"),
                arrays.get("amounts"),
            )
            .with_scaled_amounts(schema.value_scales)
        )
        # Copies of pinned memory to a device are faster.
        pins = _encoded_rows.pins_memory(self.device)
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
        """Numbers of missing labels of the tasks, or None."""
        _, shape = self.store.forms.get("sample_weight", (None, ()))
        if not shape:
            return None
        counts = np.zeros(shape, dtype=np.int64)
        for file in range(len(self.store.sizes)):
            weights = self.store.read([file], ["sample_weight"])["sample_weight"]
            counts += (weights == 0).sum(axis=0)
        return counts.tolist()

    def to(self, device: torch.device) -> "StreamedImpressions":
        return replace(self, device=device)

"""Impressions in a store on disk: read in parts, each of which is shuffled."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sk_pwiser._training._dataset import Batch, Impressions
from sk_pwiser._training._row_store import Arrays, RowStore
from sk_pwiser._utils import generator_on, in_background

CPU = torch.device("cpu")

# Files whose rows checks read that look at a few rows only.
SAMPLE_FILES = 4


@dataclass(frozen=True)
class StreamedImpressions(Dataset[Batch]):
    """Encoded impressions that are read from a store, in parts.

    The files of the store are read in a random order, as many at a time as make up
    `part_rows` rows. Each such part is a table in memory, from which batches are drawn
    as from any other, while a thread reads the next one.

    Parameters
    ----------
    store : RowStore
        The rows.
    load : callable
        Returns the impressions of arrays of the store.
    part_rows : int
        Number of rows of a part, about.
    pool : Executor
        Its thread reads. It belongs to the caller, who ends it.
    device : torch.device, default=cpu
        Device of the parts.
    on_read : callable, default=None
        Receives the number of rows of each part that is drawn.
    """

    store: RowStore
    load: Callable[[Arrays], Impressions]
    part_rows: int
    pool: Executor
    device: torch.device = CPU
    on_read: Callable[[int], None] | None = None

    # All rows of the store are selected.
    rows = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.store)

    def parts(self, shuffled: bool) -> Iterator[Impressions]:
        """Yield all rows in parts, from files in a random order if `shuffled`."""
        parts = (self._read(files) for files in self._split(self._order(shuffled)))
        for part in in_background(parts, self.pool):
            yield part.to(self.device)
            if self.on_read is not None:
                self.on_read(len(part))

    def _order(self, shuffled: bool) -> Sequence[int]:
        """Return the numbers of the files in the order in which they are read."""
        n_files = len(self.store.sizes)
        if not shuffled:
            return range(n_files)
        # Drawn before the thread starts, which has no generator of its own.
        order: list[int] = torch.randperm(n_files, generator=generator_on(CPU)).tolist()
        return order

    def _split(self, order: Sequence[int]) -> list[list[int]]:
        """Distribute files over parts of about equal numbers of rows."""
        sizes = np.array(self.store.sizes)[list(order)]
        n_parts = max(1, round(sizes.sum() / self.part_rows))
        middles = sizes.cumsum() - sizes / 2
        numbers = (middles * n_parts / sizes.sum()).astype(int).tolist()
        pairs = zip(numbers, order, strict=True)
        return [[f for _, f in g] for _, g in groupby(pairs, key=lambda pair: pair[0])]

    def _read(self, files: Sequence[int]) -> Impressions:
        rows = self.load(self.store.read(files))
        return rows.pinned() if self.device.type == "cuda" else rows

    @cached_property
    def sample(self) -> Impressions:
        """Rows of a few files, for checks that need some rows only."""
        last = len(self.store.sizes) - 1
        chosen = np.linspace(0, last, min(SAMPLE_FILES, last + 1)).astype(int)
        return self._read(chosen.tolist()).to(self.device)

    def labels(self) -> Tensor:
        """Return the labels of all rows, of shape `(n_rows, n_tasks)`."""
        return self._column("y")

    def weights(self) -> Tensor | None:
        """Return the weights of all rows, or None."""
        return self._column("sample_weight") if self._has_weights else None

    @cached_property
    def _has_weights(self) -> bool:
        return self.sample.sample_weight is not None

    def _column(self, name: str) -> Tensor:
        files = range(len(self.store.sizes))
        values = self.store.read(files, [name, "y"])[name]
        return torch.from_numpy(values).to(self.device)

    @cached_property
    def n_missing(self) -> list[int] | None:
        """Numbers of missing labels of the tasks after the first, or None."""
        if self.sample.n_missing is None:
            return None
        counts: list[int] = np.sum(
            [
                (self.store.read([file], ["sample_weight", "y"])["sample_weight"] == 0)
                .sum(axis=0)
                .tolist()[1:]
                for file in range(len(self.store.sizes))
            ],
            axis=0,
        ).tolist()
        return counts

    def to(self, device: torch.device) -> "StreamedImpressions":
        """Move the parts to a device when they are read."""
        return replace(self, device=device)


TrainingRows = Impressions | StreamedImpressions


class TrainingData(NamedTuple):
    """The training rows and, with early stopping, the validation rows."""

    train: TrainingRows
    valid: TrainingRows | None = None

    def to(self, device: torch.device) -> "TrainingData":
        """Move the tensors to a device if they fit."""
        train = self.train.to(device)
        if self.valid is None:
            return TrainingData(train)
        if self.valid.rows is None or not isinstance(train, Impressions):
            return TrainingData(train, self.valid.to(device))
        # Both select rows of the same tensors, which are moved once.
        rows = self.valid.rows.to(train.codes.device)
        return TrainingData(train, train.at(rows))

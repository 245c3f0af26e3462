"""The share of the stored rows that a worker reads, in steps common to all workers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from sk_pwiser._streaming import Job, StreamedImpressions
from sk_pwiser._training import BatchIterator, TrainingData
from sk_pwiser._utils import Generators, active
from sk_pwiser.distributed._exchange import Workers

Batch = tuple[dict[str, torch.Tensor], torch.Tensor]


@dataclass
class Clock:
    """The epoch, which determines the order of the files, and a seed for all epochs."""

    seed: int
    epoch: int = 0


@dataclass(frozen=True)
class Shard(StreamedImpressions):
    """Stored impressions, some of whose files a worker reads, others in each epoch."""

    rank: int = 0
    n_workers: int = 1
    clock: Clock = field(default_factory=lambda: Clock(0))

    def _order(self, shuffled: bool) -> Sequence[int]:
        order = np.arange(len(self.store.sizes))
        if shuffled:
            seeds = self.clock.seed, self.clock.epoch
            order = np.random.default_rng(seeds).permutation(order)
        return self.deal(order.tolist(), self.n_workers)[self.rank]

    def batch_rows(self, batch_size: int, shuffled: bool, least: int = 1) -> int:
        """Return this worker's rows per batch, so that all have as many batches."""
        n_own = sum(self.store.sizes[file] for file in self._order(shuffled))
        n_batches = -(-len(self) // batch_size)
        return max(least, -(-n_own // n_batches))


def shards(job: Job, rank: int, n_workers: int) -> TrainingData:
    """Return a worker's share of the rows of a job."""
    clock = Clock(job.seed)

    def share(rows: StreamedImpressions) -> Shard:
        return Shard(
            rows.store,
            rows.load,
            rows.part_rows,
            rank=rank,
            n_workers=n_workers,
            clock=clock,
        )

    valid = None if job.valid is None else share(job.valid)
    return TrainingData(share(job.train), valid)


class JointIterator:
    """Iterates over batches, then over a row that does not count, as all workers do."""

    def __init__(
        self, batches: BatchIterator, workers: Workers, generators: Generators
    ) -> None:
        self.batches = batches
        self.workers = workers
        self.generators = generators
        self.sizes: list[int] = []  # rows of the workers in the current step
        self.n_weights = 0  # weights per row

    def __getattr__(self, name: str) -> Any:
        """Return the attribute of the batches, such as their dataset."""
        if name == "batches":  # not there yet while a copy is made
            raise AttributeError(name)
        return getattr(self.batches, name)

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the batches of one epoch."""
        own = iter(self.batches)
        filler: Batch | None = None
        while True:
            with active(self.generators):
                batch = next(own, None)
            found = self.workers.gather_numbers(*_numbers(batch))
            self.sizes = [n_rows for n_rows, _ in found]
            self.n_weights = max(n_weights for _, n_weights in found)
            if not any(self.sizes):
                return
            if batch is None:
                if filler is None:
                    filler = self._filler()
                batch = filler
            yield batch

    def _filler(self) -> Batch:
        inputs, y = self.batches.dataset.sample[slice(0, 1)]
        device = self.batches.device
        return {name: t.to(device) for name, t in inputs.items()}, y.to(device)


def _numbers(batch: Batch | None) -> tuple[int, int]:
    """Return the number of rows of a batch, and the number of weights per row."""
    if batch is None:
        return 0, 0
    weight = batch[0].get("sample_weight")
    return len(batch[1]), 0 if weight is None else weight[:1].numel()

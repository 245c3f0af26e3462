"""The rows that a worker reads, and its exchanges with the others in a step."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from sk_pwiser._streaming import StreamedImpressions
from sk_pwiser._training import Batch, BatchIterator
from sk_pwiser._utils import Generators, active
from sk_pwiser.distributed._jobs import Job

# Entries of gradients that are sent together.
BUCKET = 2**22


class LostWorkerError(RuntimeError):
    """Another worker does not answer; training can resume without an error."""


def exchange(collective: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Call a collective operation; raise LostWorkerError if a process has ended."""
    try:
        collective(*args, **kwargs)
    except RuntimeError as error:
        raise LostWorkerError(str(error)) from error


def gather_rows(own: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Return the rows of all processes, by rank; `sizes` has their numbers."""
    # all_gather takes tensors of one shape.
    padded = own.new_zeros(max(sizes), *own.shape[1:])
    padded[: len(own)] = own
    found = [torch.empty_like(padded) for _ in sizes]
    exchange(dist.all_gather, found, padded)
    return [part[:n] for part, n in zip(found, sizes, strict=True)]


class Workers:
    """The processes of a fit, which call its methods together and in the same order."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        # A separate group, on the CPU, sends the numbers that the host reads: the host
        # need not wait for the GPU's queue.
        self._control = dist.new_group(backend="gloo")

    def __deepcopy__(self, memo: object) -> "Workers":
        """Return itself: a connection cannot be copied."""
        return self

    def gather_numbers(self, *numbers: int) -> list[list[int]]:
        """Return the integers of every process, by rank."""
        own = torch.tensor(numbers)
        found = [torch.empty_like(own) for _ in range(self.size)]
        exchange(dist.all_gather, found, own, group=self._control)
        return [each.tolist() for each in found]

    def of_first(self, number: float) -> float:
        """Return the number of the process of rank 0."""
        value = torch.tensor(number, dtype=torch.float64)
        exchange(dist.broadcast, value, 0, group=self._control)
        return value.item()

    def join(self, rows: Tensor, sizes: Sequence[int]) -> Tensor:
        """Return `sizes[rank]` rows of each process.

        Only the rows of this process have a gradient. The other processes compute
        theirs; `sum_gradients` adds them up.
        """
        own = rows[: sizes[self.rank]]
        parts = gather_rows(own.detach(), sizes)
        parts[self.rank] = own
        return torch.cat(parts)

    def mean(self, value: Tensor, sizes: Sequence[int]) -> Tensor:
        """Return the mean over all rows, from the mean of each process.

        Only the mean of this process has a gradient.
        """
        own = value * (sizes[self.rank] / sum(sizes))
        total = own.detach().clone()
        exchange(dist.all_reduce, total)
        # The value of the total, with the gradient of the own part.
        return own + (total - own.detach())

    def sum_gradients(
        self, parameters: Iterable[nn.Parameter], tables: Iterable[Tensor]
    ) -> None:
        """Replace gradients by their sums over the processes.

        The gradients of `tables` are sparse.
        """
        sparse = {id(table) for table in tables}
        trained = [p for p in parameters if p.requires_grad]
        dense = [p for p in trained if id(p) not in sparse]
        gradients = self.sum_tensors([p.grad for p in dense], dense)
        for p, gradient in zip(dense, gradients, strict=True):
            p.grad = gradient
        for p in trained:
            if id(p) in sparse:
                p.grad = self._sum_sparse(p.grad, p)

    def _sum_sparse(self, gradient: Tensor | None, table: Tensor) -> Tensor:
        """Return the coalesced sum of sparse gradients of a table; None counts as 0."""
        if gradient is None:
            # A process without a gradient must take part as well: the others wait for
            # it.
            rows = torch.zeros(0, dtype=torch.int64, device=table.device)
            values = table.new_zeros(0, table.shape[1])
        else:
            gradient = gradient.coalesce()
            rows, values = gradient.indices()[0], gradient.values()
        sizes = [n for (n,) in self.gather_numbers(len(rows))]
        rows, values = (torch.cat(gather_rows(each, sizes)) for each in (rows, values))
        joined = torch.sparse_coo_tensor(rows.unsqueeze(0), values, table.shape)
        return joined.coalesce()

    def sum_tensors(
        self, tensors: Sequence[Tensor | None], like: Sequence[Tensor]
    ) -> list[Tensor | None]:
        """Return the sums of tensors that have the shapes of `like`; None means 0."""
        sums: list[Tensor | None] = []
        for bucket in _buckets(like):
            sums += _sum_bucket(tensors[len(sums) :][: len(bucket)], bucket)
        return sums

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors by the tensors of the process of rank 0."""
        with torch.no_grad():
            for tensor in tensors:
                value = tensor.detach().to(self.device).contiguous()
                exchange(dist.broadcast, value, 0)
                tensor.copy_(value)


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Split tensors into runs of one type and about `BUCKET` entries."""
    numbers, n_entries = [], 0
    for tensor in tensors:
        numbers.append(n_entries // BUCKET)
        n_entries += tensor.numel()
    pairs = zip(numbers, tensors, strict=True)
    for _, run in groupby(pairs, key=lambda pair: (pair[0], pair[1].dtype)):
        yield [tensor for _, tensor in run]


def _sum_bucket(
    parts: Sequence[Tensor | None], like: Sequence[Tensor]
) -> list[Tensor | None]:
    """Sum tensors in one exchange, together with whether any process has them."""
    # A tensor that no process has stays None, as in a fit of one process.
    is_present = like[0].new_tensor([part is not None for part in parts])
    filled = [
        torch.zeros_like(each) if part is None else part
        for part, each in zip(parts, like, strict=True)
    ]
    flat = torch.cat([is_present, *(part.reshape(-1) for part in filled)])
    exchange(dist.all_reduce, flat)
    pieces = flat[len(parts) :].split([each.numel() for each in like])
    sums = [piece.view_as(each) for piece, each in zip(pieces, like, strict=True)]
    if all(part is not None for part in parts):
        return list(sums)  # the host need not wait for the flags
    found = flat[: len(parts)].tolist()
    return [each if n else None for each, n in zip(sums, found, strict=True)]


@dataclass
class Clock:
    """The epoch, which determines the order of the files, and a seed for all epochs."""

    seed: int
    epoch: int = 0


@dataclass(frozen=True)
class Shard(StreamedImpressions):
    """The share of the stored files that a worker reads; another in each epoch."""

    rank: int = 0
    n_workers: int = 1
    clock: Clock = field(default_factory=lambda: Clock(0))

    def _order(self, shuffled: bool) -> Sequence[int]:
        order = np.arange(len(self.store.sizes))
        if shuffled:
            seeds = self.clock.seed, self.clock.epoch
            # All workers draw the same order of files and take every n-th part of it.
            order = np.random.default_rng(seeds).permutation(order)
        return self.deal(order.tolist(), self.n_workers)[self.rank]

    def batch_rows(self, batch_size: int, shuffled: bool, least: int = 1) -> int:
        """Return this worker's rows per batch, so that all have as many batches."""
        n_own = sum(self.store.sizes[file] for file in self._order(shuffled))
        n_batches = -(-len(self) // batch_size)
        return max(least, -(-n_own // n_batches))


def shards(job: Job, rank: int, n_workers: int) -> tuple[Shard, Shard | None]:
    """Return a worker's share of the rows of a job."""
    clock = Clock(job.seed)

    def share(rows: Any) -> Shard:
        return Shard(
            rows.store,
            rows.load,
            rows.part_rows,
            rank=rank,
            n_workers=n_workers,
            clock=clock,
        )

    valid = job.data.valid
    return share(job.data.train), None if valid is None else share(valid)


class JointIterator:
    """Iterates over the batches of a worker until the last worker has finished.

    A worker without further batches takes part in the steps with a row that does not
    count, since the others wait for it.
    """

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
        if name == "batches":  # a copy in the making has none yet
            raise AttributeError(name)
        return getattr(self.batches, name)

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the batches of one epoch."""
        own = iter(self.batches)
        filler: Batch | None = None
        while True:
            with active(self.generators):
                batch = next(own, None)
            # One exchange per step tells all workers how many rows each one has, and
            # when to stop.
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

"""The batches that training draws from encoded rows."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from itertools import chain, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sk_pwiser._rows._encoded_rows import (
    CPU,
    Batch,
    Impressions,
    TrainingRows,
    fields_of,
    send,
    to_device,
)
from sk_pwiser._utils._integers import ceil_div
from sk_pwiser._utils._random import generator_on

# Consecutive batches whose rows other devices than a CPU gather by the same kernels,
JOINT_BATCHES = 32

# and the rows of these at most.
JOINT_ROWS = 2**16


class BatchIndices(NamedTuple):
    """The rows of the batches of one epoch."""

    order: Any  # int64 Tensor (n_drawn,); None for all rows in their order
    bounds: list[int]  # where each batch starts, and where the last one ends
    # float32 (n_drawn,): factors of the weights of rows drawn more than once
    weight: Tensor | None = None


def grouped(groups: Tensor, batch_size: int, permuted: bool = True) -> BatchIndices:
    """Sample the groups in a random order, those of up to `batch_size` rows unsplit.

    Without `permuted`, they are in the order of their numbers.
    """
    _, rank = torch.unique(groups.cpu(), return_inverse=True)
    if permuted:
        rank = _permutation(int(rank.max()) + 1)[rank]
    order = torch.argsort(rank, stable=True)
    starts = [0, *torch.bincount(rank).cumsum(0).tolist()]
    bounds = [0]
    while bounds[-1] < len(groups):
        last = starts[bisect_right(starts, bounds[-1] + batch_size) - 1]
        bounds.append(last if last > bounds[-1] else bounds[-1] + batch_size)
    return BatchIndices(order, bounds)


def stratified(converted: Tensor, batch_size: int) -> BatchIndices | None:
    """Sample at least one converted row into every batch.

    If they are fewer than the batches, they are drawn several times, with weights that
    sum to the weight of one draw. Losses that are weighted sums over rows divided by
    the size of the batch have the same expectation as with shuffled rows. Without
    converted rows, or with too few others, None is returned.
    """
    converted = converted.cpu()
    n_rows = len(converted)
    deepest = converted.nonzero().squeeze(1)
    other_rows = (~converted).nonzero().squeeze(1)
    n_batches = ceil_div(n_rows, batch_size)
    if len(deepest) < n_batches:
        n_batches = ceil_div(len(other_rows), batch_size - 1)
    if len(deepest) == 0 or len(other_rows) < n_batches:
        return None
    n_rounds = ceil_div(n_batches, len(deepest))
    drawn = torch.cat([deepest[_permutation(len(deepest))] for _ in range(n_rounds)])
    drawn = drawn[: max(n_batches, len(deepest))]
    batch_of_drawn = torch.arange(len(drawn)) % n_batches
    n_drawn = len(drawn) + len(other_rows)
    # The first batches, which may have one more converted row, have one more row.
    sizes = torch.full((n_batches,), n_drawn // n_batches)
    sizes[: n_drawn % n_batches] += 1
    n_others = sizes - torch.bincount(batch_of_drawn, minlength=n_batches)
    batch_of_others = torch.repeat_interleave(torch.arange(n_batches), n_others)
    rows = torch.cat([drawn, other_rows[_permutation(len(other_rows))]])
    order = torch.argsort(torch.cat([batch_of_drawn, batch_of_others]), stable=True)
    rows = rows[order]
    bounds = [0, *sizes.cumsum(0).tolist()]
    weight = None
    if n_drawn > n_rows:
        n_draws = torch.bincount(rows, minlength=n_rows)[rows]
        weight = (n_drawn / n_rows) / n_draws.float()
    return BatchIndices(rows, bounds, weight)


def converted(y: Tensor, paths: Sequence[Sequence[int]] | None = None) -> Tensor:
    """Return the rows in which all tasks, or all those of one path, happened."""
    paths = paths or [range(y.shape[1])]
    lowest = [y[:, list(path)].amin(dim=1) for path in paths]
    return torch.stack(lowest).amax(dim=0) == 1


def _permutation(n: int) -> Tensor:
    # On the CPU for every device, so that they all train on the same batches.
    return torch.randperm(n, generator=generator_on(CPU))


def moved(batch: Batch, copy: Callable[[Tensor], Tensor]) -> Batch:
    """Copy the tensors of a batch, each once: numeric inputs may stand for labels."""
    inputs, y = batch
    copies = {name: copy(tensor) for name, tensor in inputs.items()}
    return copies, copies["numeric"] if y is inputs.get("numeric") else copy(y)


def copied_ahead(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Copy batches from the host to a CUDA device, each one step ahead.

    The copies run in a stream of their own, from pinned memory, so that neither the
    host nor the computation waits for them.
    """
    stream = _copy_stream(device)

    def copied(batch: Batch) -> tuple[Batch, torch.cuda.Event]:
        with torch.cuda.stream(stream):
            copies = moved(batch, partial(_copy, device=device))
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(stream)
        return copies, event

    # The first of a pair is computed with after the copy of the second has begun.
    started: Iterable[Any] = chain(map(copied, batches), [None])
    for ((inputs, y), event), _ in pairwise(started):
        current = torch.cuda.current_stream(device)
        # Not for the whole stream, which also copies the next batch.
        current.wait_event(event)
        for tensor in (*inputs.values(), y):
            # Its memory is not reused before the computation has read it.
            tensor.record_stream(current)
        yield inputs, y


def _copy(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.pin_memory().to(device, non_blocking=True)


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream of copies, one per device: every stream keeps memory."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def split_joint_batch(
    batch: Batch, bounds: list[int], entries: list[int]
) -> Iterator[Batch]:
    """Yield the batches, as views, of rows that were gathered together."""
    inputs, y = batch
    rows = Impressions(**fields_of({**inputs, "codes": inputs["codes"].long(), "y": y}))
    for (start, stop), (begin, end) in zip(
        pairwise(bounds), pairwise(entries), strict=True
    ):
        rows_of_batch = slice(start - bounds[0], stop - bounds[0])
        yield rows.batch(rows_of_batch, slice(begin - entries[0], end - entries[0]))


class BatchIterator:
    """Iterates over the batches of impressions, one indexing operation per batch.

    Rows that are read in parts are batched within each part. The sampler, "sequential",
    "shuffled", "grouped" or "stratified", draws anew for every epoch. With
    `keeps_groups`, groups stay together also in batches that are not sampled at random.
    """

    sizes: Sequence[int] = ()  # rows of each worker in a joint step

    def __init__(
        self,
        impressions: TrainingRows,
        batch_size: int,
        sampler: str = "sequential",
        device: torch.device | str | None = None,
        paths: Sequence[Sequence[int]] | None = None,
        keeps_groups: bool = False,
    ) -> None:
        self.dataset = impressions
        self.paths = paths
        self.batch_size = batch_size
        self.sampler = sampler
        self.device = torch.device(impressions.device if device is None else device)
        self._keeps_groups = keeps_groups or sampler == "grouped"
        self._rows: list[Tensor] = []  # of the last pass, if it kept the groups

    def in_row_order(self, values: Tensor) -> Tensor:
        """Return values of the rows of the last pass in the order of the rows."""
        if not self._rows:
            return values
        rows = torch.cat(self._rows).to(values.device)
        return torch.empty_like(values).index_copy(0, rows, values)

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the batches of one epoch."""
        self._rows = []
        for part in self.dataset.parts(self.sampler != "sequential"):
            batches: Iterable[Batch] = self._batches(part)
            is_copied = self.device.type == "cuda" and part.device.type == "cpu"
            if is_copied and len(part) > self.batch_size:
                batches = copied_ahead(batches, self.device)
            elif part.device != self.device:
                copy = partial(to_device, device=self.device)
                batches = (moved(batch, copy) for batch in batches)
            yield from batches

    def _batches(self, data: Impressions) -> Iterator[Batch]:
        indices = self._sample_rows(data)
        bounds = indices.bounds
        order = indices.order
        weight = indices.weight
        device = data.device
        if device.type != "cpu":  # the indices are on the CPU
            order, weight = (send(tensor, device) for tensor in (order, weight))
        if data.rows is not None:
            order = data.rows if order is None else data.rows[order]
        entries = [0] * len(bounds)
        n_joint = 1
        if data.bags is not None:
            entries = data.entry_bounds(order, bounds)
        if order is not None and device.type != "cpu":
            n_joint = max(1, min(JOINT_BATCHES, JOINT_ROWS // self.batch_size))
        for first in range(0, len(bounds) - 1, n_joint):
            row_bounds = bounds[first : first + n_joint + 1]
            entry_bounds = entries[first : first + n_joint + 1]
            drawn = slice(row_bounds[0], row_bounds[-1])
            rows = drawn if order is None else order[drawn]
            inputs, y = data.batch(rows, slice(entry_bounds[0], entry_bounds[-1]))
            if order is None:
                # Views of the table; a user's network or loss may change them in place.
                inputs, y = moved((inputs, y), torch.clone)
            if weight is not None:
                row_weight = weight[drawn]
                sample_weight = inputs.get("sample_weight")
                if sample_weight is not None:
                    n_columns = [1] * (sample_weight.dim() - 1)
                    row_weight = sample_weight * row_weight.view(-1, *n_columns)
                inputs["sample_weight"] = row_weight
            if n_joint > 1:
                yield from split_joint_batch((inputs, y), row_bounds, entry_bounds)
            else:
                yield inputs, y

    def _sample_rows(self, data: Impressions) -> BatchIndices:
        n_rows = len(data)
        size = self.batch_size
        indices = None
        is_random = self.sampler != "sequential"
        groups = data.column("groups") if self._keeps_groups else None
        if self.sampler == "stratified":
            indices = stratified(converted(data.column("y"), self.paths), size)
        elif groups is not None:
            indices = grouped(groups, size, permuted=is_random)
            if not is_random:
                self._rows.append(indices.order + sum(map(len, self._rows)))
        if indices is None:
            order = _permutation(n_rows) if is_random else None
            # The step of a small last batch would have the weight of a full one.
            n_batches = ceil_div(n_rows, size)
            bounds = [n_rows * batch // n_batches for batch in range(n_batches + 1)]
            indices = BatchIndices(order, bounds)
        return indices

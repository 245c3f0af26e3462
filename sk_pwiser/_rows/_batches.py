"""Encoded impressions, and the batches that training draws from them."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from itertools import chain, pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sk_pwiser._utils._random import generator_on
from sk_pwiser.networks import Bags

CPU = torch.device("cpu")

Batch = tuple[dict[str, Tensor], Tensor]


def gather_bags(
    bags: Bags, rows: Tensor | slice, n_bags: int, entries: slice | None = None
) -> Bags:
    """Return the bags of some rows, `n_bags` per row, in the order of the rows.

    Without `entries`, which bounds their entries, the host waits for the device.
    """
    places: Tensor | slice
    if isinstance(rows, slice):
        offsets = bags.offsets[rows.start * n_bags : rows.stop * n_bags + 1]
        places = entries or slice(int(offsets[0]), int(offsets[-1]))
        offsets = offsets - offsets[0]
    else:
        starts = bags.offsets.index_select(0, rows * n_bags)
        sizes = bags.offsets.index_select(0, (rows + 1) * n_bags) - starts
        moves = starts - (sizes.cumsum(0) - sizes)
        n_entries = entries.stop - entries.start if entries else int(sizes.sum())
        places = torch.arange(n_entries, device=rows.device)
        places += torch.repeat_interleave(moves, sizes, output_size=n_entries)
        inside = (rows * n_bags).unsqueeze(1) + torch.arange(n_bags, device=rows.device)
        offsets = bags.offsets[inside] - moves.unsqueeze(1)
        offsets = torch.cat([offsets.flatten(), offsets.new_full((1,), n_entries)])
    entries_of = {name: t for name, t in bags.tensors.items() if name != "offsets"}
    taken = {name: take_rows(t, places) for name, t in entries_of.items()}
    return Bags(offsets, **taken)


def take_rows(tensor: Tensor, rows: Tensor | slice) -> Tensor:
    """Return some rows of a tensor, a view for a slice."""
    # Several times faster than general indexing by a tensor.
    return tensor[rows] if isinstance(rows, slice) else tensor.index_select(0, rows)


class TrainingRows(Protocol):
    """Rows to train on: :class:`Impressions`, or rows that are read in parts."""

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""

    @property
    def n_missing(self) -> list[int] | None:
        """Numbers of missing labels of the tasks after the first, or None."""

    def __len__(self) -> int: ...

    def parts(self, shuffled: bool) -> Iterator["Impressions"]:
        """Yield the tables that batches are drawn from."""

    def spaced(self, n_rows: int) -> "Impressions":
        """Select up to `n_rows` evenly spaced rows, for checks that need few rows."""

    def to(self, device: torch.device) -> "TrainingRows":
        """Move the tensors to a device if they fit."""

    def column(self, name: str) -> Any:
        """Return a tensor of the selected rows, "y" for example, or None."""


@dataclass(frozen=True)
class Impressions(TrainingRows, Dataset[Batch]):
    """Encoded impressions, or a selection of their rows.

    A weight of 0 for a row and task marks a missing label. Selected rows share the
    tensors of all rows.
    """

    codes: Tensor  # (n_samples, n_category_columns), any integer type
    numeric: Tensor  # float32 (n_samples, n_numeric)
    y: Tensor | None = None  # float32 (n_samples, n_tasks); None for prediction
    sample_weight: Tensor | None = None  # float32 (n_samples,) or (n_samples, n_tasks)
    groups: Tensor | None = None  # int64 (n_samples,)
    rows: Tensor | None = None  # int64 (n_rows,); None for all rows
    bags: Any = None  # `Bags`
    # float64 (n_samples, n_values), NaN where there is none to learn
    amounts: Tensor | None = None

    @classmethod
    def of(
        cls, codes: np.ndarray, numeric: np.ndarray, bags: Sequence[Any] | None = None
    ) -> "Impressions":
        """Return the arrays of an encoder as tensors, which share their memory."""
        own = None if bags is None else Bags(*map(_as_tensor, bags))
        return cls(torch.from_numpy(codes), torch.from_numpy(numeric), bags=own)

    def labelled(
        self,
        y: np.ndarray,
        sample_weight: Any = None,
        groups: Any = None,
        amounts: Any = None,
    ) -> "Impressions":
        """Return the impressions with further arrays of their rows."""
        return replace(
            self,
            y=_as_tensor(y),
            sample_weight=_as_tensor(sample_weight),
            groups=_as_tensor(groups),
            amounts=_as_tensor(amounts),
        )

    def __len__(self) -> int:
        return len(self.codes) if self.rows is None else len(self.rows)

    def batch(self, rows: Tensor | slice, entries: slice | None = None) -> Batch:
        """Return one batch: the inputs by name, and the labels.

        Without its `entries` of bags, the host waits for them; see `gather_bags`.
        """
        own = ((k, t) for k, t in vars(self).items() if isinstance(t, Tensor))
        inputs = {name: take_rows(t, rows) for name, t in own if name != "rows"}
        if self.bags is not None:
            gathered = gather_bags(self.bags, rows, self.n_bags, entries)
            inputs |= {f"bag_{k}": tensor for k, tensor in gathered.tensors.items()}
        # Without labels, the numeric inputs take their place unread, so that every
        # batch has the same form.
        y = inputs.pop("y", inputs["numeric"])
        return inputs, y

    @property
    def n_bags(self) -> int:
        """Number of bags per row."""
        return (len(self.bags.offsets) - 1) // len(self.codes)

    def entry_bounds(self, order: Tensor | None, bounds: list[int]) -> list[int]:
        """Count the entries of bags before each bound of the rows, all at once."""
        ends = self.bags.offsets[:: self.n_bags]
        if order is not None:
            sizes = ends.diff().index_select(0, order)
            ends = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        return list(ends[torch.tensor(bounds, device=ends.device)].tolist())

    @property
    def device(self) -> torch.device:
        """The device of the tensors."""
        return self.codes.device

    def parts(self, shuffled: bool) -> Iterator["Impressions"]:
        """Yield the parts from which batches are drawn; a table is one part."""
        yield self

    def spaced(self, n_rows: int) -> "Impressions":
        """Select evenly spaced rows: a draw would change later random numbers."""
        n_rows = min(n_rows, len(self))
        chosen = (torch.arange(n_rows) * len(self) // max(n_rows, 1)).to(self.device)
        return replace(self, rows=chosen if self.rows is None else self.rows[chosen])

    def column(self, name: str) -> Any:
        """Return the selected rows of a tensor by its name, or None."""
        tensor = getattr(self, name)
        return tensor if tensor is None or self.rows is None else tensor[self.rows]

    @cached_property
    def n_missing(self) -> list[int] | None:
        """Numbers of missing labels of the tasks after the first, or None."""
        weights: Tensor | None = self.column("sample_weight")
        if weights is None or weights.dim() == 1:
            return None
        return (weights[:, 1:] == 0).sum(dim=0).tolist()

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, those of bags with the prefix "bag_"."""
        found = {k: t for k, t in vars(self).items() if isinstance(t, Tensor)}
        if self.bags is not None:
            found |= {f"bag_{k}": tensor for k, tensor in self.bags.tensors.items()}
        return found

    def to(self, device: torch.device) -> "Impressions":
        """Move the tensors to a device if half of its free memory holds them."""
        if self.device == device:
            return self
        n_bytes = sum(tensor.nbytes for tensor in self.tensors().values())
        free = _free_memory(device)
        if free is not None and n_bytes > free // 2:
            return self
        return self.copied(partial(_to, device=device))

    def copied(self, copy: Callable[[Tensor], Tensor]) -> "Impressions":
        """Return the impressions with copies of their tensors."""
        copies = {name: copy(tensor) for name, tensor in self.tensors().items()}
        return replace(self, **fields_of(copies))


def _as_tensor(array: np.ndarray | None) -> Any:
    # torch warns about arrays that it must not write, such as those that joblib maps
    # into the memory of several processes: these are copied.
    return None if array is None else torch.from_numpy(np.require(array, None, "W"))


def fields_of(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return fields of `Impressions` from tensors by name, see its `tensors`."""
    own = {k: t for k, t in tensors.items() if not k.startswith("bag_")}
    return {**own, "bags": bags_of(tensors)}


def bags_of(inputs: Mapping[str, Tensor]) -> Bags | None:
    """Return the bags among the inputs of a batch, if there are any."""
    found = {k[4:]: t for k, t in inputs.items() if k.startswith("bag_")}
    return Bags(**found) if found else None


def _to(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor; the host does not wait for a copy of pinned memory."""
    return tensor.to(device, non_blocking=tensor.is_pinned())


# Beyond this size, in bytes, pinning takes longer than one wait per epoch.
LARGEST_PINNED = 2**24


def _sent(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    """Move a tensor of the host, by pinned memory if it is small."""
    if tensor is None:
        return None
    is_pinned = tensor.nbytes <= LARGEST_PINNED and pins_memory(device)
    return _to(tensor.pin_memory() if is_pinned else tensor, device)


def _free_memory(device: torch.device) -> int | None:
    """Return the bytes of a device that further tensors can use, if known."""
    module: Any = getattr(torch, device.type, None)
    if not hasattr(module, "mem_get_info"):
        return None
    free, _ = module.mem_get_info(device)
    # The device counts torch's cache as used.
    used: int = module.memory_allocated(device)
    return int(free) + int(module.memory_reserved(device)) - used


# Consecutive batches whose rows other devices than a CPU gather by the same kernels.
JOINT_BATCHES, JOINT_ROWS = 32, 2**16


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
    n_rows, deepest = len(converted), converted.nonzero().squeeze(1)
    others = (~converted).nonzero().squeeze(1)
    n_batches = -(-n_rows // batch_size)
    if len(deepest) < n_batches:
        n_batches = -(-len(others) // (batch_size - 1))
    if len(deepest) == 0 or len(others) < n_batches:
        return None
    rounds = -(-n_batches // len(deepest))
    drawn = torch.cat([deepest[_permutation(len(deepest))] for _ in range(rounds)])
    drawn = drawn[: max(n_batches, len(deepest))]
    batch_of_drawn = torch.arange(len(drawn)) % n_batches
    n_drawn = len(drawn) + len(others)
    # The first batches, which may have one more converted row, have one more row.
    sizes = torch.full((n_batches,), n_drawn // n_batches)
    sizes[: n_drawn % n_batches] += 1
    n_others = sizes - torch.bincount(batch_of_drawn, minlength=n_batches)
    batch_of_others = torch.repeat_interleave(torch.arange(n_batches), n_others)
    rows = torch.cat([drawn, others[_permutation(len(others))]])
    order = torch.argsort(torch.cat([batch_of_drawn, batch_of_others]), stable=True)
    rows, bounds, weight = rows[order], [0, *sizes.cumsum(0).tolist()], None
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


@cache
def pins_memory(device: torch.device) -> bool:
    """Return whether the host need not wait for copies to a device of pinned memory."""
    if device.type in ("cpu", "mps"):  # which share memory
        return False
    try:
        return torch.zeros(1).pin_memory().is_pinned()
    except RuntimeError:
        return False


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
        own = slice(start - bounds[0], stop - bounds[0])
        yield rows.batch(own, slice(begin - entries[0], end - entries[0]))


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
                copy = partial(_to, device=self.device)
                batches = (moved(batch, copy) for batch in batches)
            yield from batches

    def _batches(self, data: Impressions) -> Iterator[Batch]:
        indices = self._sample_rows(data)
        bounds, device = indices.bounds, data.device
        order, weight = indices.order, indices.weight
        if device.type != "cpu":  # the indices are on the CPU
            order, weight = (_sent(tensor, device) for tensor in (order, weight))
        if data.rows is not None:
            order = data.rows if order is None else data.rows[order]
        entries, n_joint = [0] * len(bounds), 1
        if data.bags is not None:
            entries = data.entry_bounds(order, bounds)
        if order is not None and device.type != "cpu":
            n_joint = max(1, min(JOINT_BATCHES, JOINT_ROWS // self.batch_size))
        for first in range(0, len(bounds) - 1, n_joint):
            own, ends = (x[first : first + n_joint + 1] for x in (bounds, entries))
            drawn = slice(own[0], own[-1])
            rows = drawn if order is None else order[drawn]
            inputs, y = data.batch(rows, slice(ends[0], ends[-1]))
            if order is None:
                # Views of the table; a user's network or loss may change them in place.
                inputs, y = moved((inputs, y), torch.clone)
            if weight is not None:
                known, part = inputs.get("sample_weight"), weight[drawn]
                if known is not None:
                    part = known * part.view(-1, *[1] * (known.dim() - 1))
                inputs["sample_weight"] = part
            if n_joint > 1:
                yield from split_joint_batch((inputs, y), own, ends)
            else:
                yield inputs, y

    def _sample_rows(self, data: Impressions) -> BatchIndices:
        n_rows, size, indices = len(data), self.batch_size, None
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
            n_batches = -(-n_rows // size)
            bounds = [n_rows * batch // n_batches for batch in range(n_batches + 1)]
            indices = BatchIndices(order, bounds)
        return indices

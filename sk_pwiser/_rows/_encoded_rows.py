"""Encoded impressions: rows to train on, or to predict."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

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
    entry_tensors = {name: t for name, t in bags.tensors.items() if name != "offsets"}
    entries_of_rows = {name: take_rows(t, places) for name, t in entry_tensors.items()}
    return Bags(offsets, **entries_of_rows)


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
        """Numbers of missing labels of the tasks, or None."""

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
    # (n_samples, n_values), NaN where there is none to learn: float64 as in the labels,
    # and float32 in multiples of their means in training
    amounts: Tensor | None = None
    # Codes of how the rows were shown, any integer type (n_samples, n_columns); None
    # stands for the reference.
    exposure: Tensor | None = None

    @classmethod
    def of(
        cls, codes: np.ndarray, numeric: np.ndarray, bags: Sequence[Any] | None = None
    ) -> "Impressions":
        """Return the arrays of an encoder as tensors, which share their memory."""
        tensors = None if bags is None else Bags(*map(_as_tensor, bags))
        return cls(torch.from_numpy(codes), torch.from_numpy(numeric), bags=tensors)

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

    def shown(self, exposure: np.ndarray | None) -> "Impressions":
        """Return the impressions with the codes of how they were shown, if any."""
        return (
            self if exposure is None else replace(self, exposure=_as_tensor(exposure))
        )

    def with_scaled_amounts(self, scales: Sequence[float]) -> "Impressions":
        """Return the impressions with amounts in multiples of their means, if any."""
        if self.amounts is None:
            return self
        # In float64: amounts in another unit then give the same multiples.
        multiples = self.amounts / self.amounts.new_tensor(scales)
        return replace(self, amounts=multiples.float())

    def __len__(self) -> int:
        return len(self.codes) if self.rows is None else len(self.rows)

    def batch(self, rows: Tensor | slice, entries: slice | None = None) -> Batch:
        """Return one batch: the inputs by name, and the labels.

        Without its `entries` of bags, the host waits for them; see `gather_bags`.
        """
        tensors = {k: t for k, t in vars(self).items() if isinstance(t, Tensor)}
        tensors.pop("rows", None)
        inputs = {name: take_rows(tensor, rows) for name, tensor in tensors.items()}
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
        """Numbers of missing labels of the tasks, or None."""
        weights: Tensor | None = self.column("sample_weight")
        if weights is None or weights.dim() == 1:
            return None
        return (weights == 0).sum(dim=0).tolist()

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, those of bags with the prefix "bag_"."""
        tensors = {k: t for k, t in vars(self).items() if isinstance(t, Tensor)}
        if self.bags is not None:
            tensors |= {f"bag_{k}": tensor for k, tensor in self.bags.tensors.items()}
        return tensors

    def to(self, device: torch.device) -> "Impressions":
        """Move the tensors to a device if half of its free memory holds them."""
        if self.device == device:
            return self
        n_bytes = sum(tensor.nbytes for tensor in self.tensors().values())
        free = _free_memory(device)
        if free is not None and n_bytes > free // 2:
            return self
        return self.copied(partial(to_device, device=device))

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
    fields = {k: t for k, t in tensors.items() if not k.startswith("bag_")}
    return {**fields, "bags": bags_of(tensors)}


def bags_of(inputs: Mapping[str, Tensor]) -> Bags | None:
    """Return the bags among the inputs of a batch, if there are any."""
    fields = {
        name.removeprefix("bag_"): tensor
        for name, tensor in inputs.items()
        if name.startswith("bag_")
    }
    return Bags(**fields) if fields else None


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor; the host does not wait for a copy of pinned memory."""
    return tensor.to(device, non_blocking=tensor.is_pinned())


# Beyond this size, in bytes, pinning takes longer than one wait per epoch.
LARGEST_PINNED = 2**24


def send(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    """Move a tensor of the host, by pinned memory if it is small."""
    if tensor is None:
        return None
    is_pinned = tensor.nbytes <= LARGEST_PINNED and pins_memory(device)
    return to_device(tensor.pin_memory() if is_pinned else tensor, device)


def _free_memory(device: torch.device) -> int | None:
    """Return the bytes of a device that further tensors can use, if known."""
    module: Any = getattr(torch, device.type, None)
    if not hasattr(module, "mem_get_info"):
        return None
    free, _ = module.mem_get_info(device)
    # The device counts torch's cache as used.
    used: int = module.memory_allocated(device)
    return int(free) + int(module.memory_reserved(device)) - used


@cache
def pins_memory(device: torch.device) -> bool:
    """Return whether the host need not wait for copies to a device of pinned memory."""
    if device.type in ("cpu", "mps"):  # which share memory
        return False
    try:
        return torch.zeros(1).pin_memory().is_pinned()
    except RuntimeError:
        return False

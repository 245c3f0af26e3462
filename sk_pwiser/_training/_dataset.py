"""Encoded impressions as whole tensors: a batch is one indexing operation."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from sk_pwiser._training._bag_rows import gather_bags
from sk_pwiser.networks import Bags

Batch = tuple[dict[str, Tensor], Tensor]


@dataclass(frozen=True)
class Impressions(Dataset[Batch]):
    """Encoded impressions, or a selection of their rows.

    Parameters
    ----------
    codes : integer Tensor of shape (n_samples, n_category_columns)
        Codes of the category columns, in any integer type that holds them.
    numeric : float32 Tensor of shape (n_samples, n_numeric)
        Numeric inputs.
    y : float32 Tensor of shape (n_samples, n_tasks), default=None
        Labels; None for prediction.
    sample_weight : float32 Tensor of shape (n_samples,) or (n_samples, n_tasks), \
            default=None
        Weights of the rows, or of the rows and tasks. Of the latter, 0 stands for a
        label that is missing.
    groups : int64 Tensor of shape (n_samples,), default=None
        Numbers of the rows' groups.
    rows : int64 Tensor of shape (n_rows,), default=None
        Indices of the selected rows; all rows by default. The tensors are shared.
    bags : Bags, default=None
        Inputs with any number of entries per row.
    """

    codes: Tensor
    numeric: Tensor
    y: Tensor | None = None
    sample_weight: Tensor | None = None
    groups: Tensor | None = None
    rows: Tensor | None = None
    bags: Bags | None = None

    def __len__(self) -> int:
        """Return the number of selected rows."""
        return len(self.codes) if self.rows is None else len(self.rows)

    def __getitem__(self, rows: Tensor | slice) -> Batch:
        """Return one batch: the inputs by name, and the labels."""
        inputs = {
            name: _index(tensor, rows)
            for name in ("codes", "numeric", "sample_weight", "groups")
            if (tensor := getattr(self, name)) is not None
        }
        if self.bags is not None:
            n_bags = (len(self.bags.offsets) - 1) // len(self.codes)
            gathered = gather_bags(self.bags, rows, n_bags)
            inputs |= {f"bag_{k}": tensor for k, tensor in gathered.tensors.items()}
        # Without labels the numeric inputs take their place: they are not read, and
        # every batch has the same form.
        return inputs, inputs["numeric"] if self.y is None else _index(self.y, rows)

    @property
    def device(self) -> torch.device:
        """The device of the tensors."""
        return self.codes.device

    def parts(self, shuffled: bool) -> Iterator["Impressions"]:
        """Yield the tables that batches are drawn from: these rows alone."""
        yield self

    @property
    def sample(self) -> "Impressions":
        """Rows for checks that need some rows only: all of them."""
        return self

    def at(self, rows: Tensor) -> "Impressions":
        """Return the impressions with other selected rows."""
        return replace(self, rows=rows)

    def select(self, tensor: Tensor) -> Tensor:
        """Return the selected rows of a tensor that has all rows."""
        return tensor if self.rows is None else tensor[self.rows]

    def labels(self) -> Tensor:
        """Return the labels of the selected rows, of shape `(n_rows, n_tasks)`."""
        assert self.y is not None
        return self.select(self.y)

    def weights(self) -> Tensor | None:
        """Return the weights of the selected rows, or None."""
        return None if self.sample_weight is None else self.select(self.sample_weight)

    @cached_property
    def n_missing(self) -> list[int] | None:
        """Numbers of missing labels of the tasks after the first, or None."""
        weights = self.weights()
        if weights is None or weights.dim() == 1:
            return None
        return (weights[:, 1:] == 0).sum(dim=0).tolist()

    def pinned(self) -> "Impressions":
        """Return the same in pinned memory, from which copies to CUDA are faster."""
        pinned: dict[str, Any] = {k: t.pin_memory() for k, t in self._tensors().items()}
        if self.bags is not None:
            pinned["bags"] = Bags(
                **{k: t.pin_memory() for k, t in self.bags.tensors.items()}
            )
        return replace(self, **pinned)

    def _tensors(self) -> dict[str, Tensor]:
        """Return the tensors of the rows by name."""
        names = ("codes", "numeric", "y", "sample_weight", "groups", "rows")
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}

    def to(self, device: torch.device) -> "Impressions":
        """Move the tensors to a device if half of its free memory holds them."""
        tensors = self._tensors()
        of_bags = {} if self.bags is None else self.bags.tensors
        n_bytes = sum(
            tensor.nbytes for tensor in [*tensors.values(), *of_bags.values()]
        )
        if device.type == "cuda" and n_bytes > _free_memory(device) // 2:
            return self
        moved: dict[str, Any] = {name: t.to(device) for name, t in tensors.items()}
        if self.bags is not None:
            moved["bags"] = self.bags.to(device)
        return replace(self, **moved)


def _index(tensor: Tensor, rows: Tensor | slice) -> Tensor:
    # index_select is several times faster than general indexing by a tensor.
    return tensor[rows] if isinstance(rows, slice) else tensor.index_select(0, rows)


def _free_memory(device: torch.device) -> int:
    free, _ = torch.cuda.mem_get_info(device)
    return free

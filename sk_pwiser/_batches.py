"""Whole-tensor batches: a batch is one indexing of tensors, not a list of rows."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import Dataset

Batch = tuple[dict[str, Tensor], Tensor]


@dataclass(frozen=True)
class Impressions(Dataset[Batch]):
    """Encoded impressions, or a part of them.

    Parameters
    ----------
    codes : int64 Tensor of shape (n_samples, n_category_columns)
        Codes of the category columns.
    numeric : float32 Tensor of shape (n_samples, n_numeric)
        Standardised numeric inputs.
    y : float32 Tensor of shape (n_samples, n_tasks), default=None
        Labels; None for rows to predict.
    sample_weight : float32 Tensor of shape (n_samples,), default=None
        Weights of the rows.
    rows : int64 Tensor of shape (n_rows,), default=None
        The rows of this part; all of them by default. The tensors are shared.
    """

    codes: Tensor
    numeric: Tensor
    y: Tensor | None = None
    sample_weight: Tensor | None = None
    rows: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.codes) if self.rows is None else len(self.rows)

    def __getitem__(self, rows: Tensor | slice) -> Batch:
        """Return one batch: the inputs by name, and the labels."""
        inputs = {"codes": self.codes[rows], "numeric": self.numeric[rows]}
        if self.sample_weight is not None:
            inputs["sample_weight"] = self.sample_weight[rows]
        # Without labels the numeric inputs stand in for them: nobody reads them, and
        # every batch has the same form.
        return inputs, (self.numeric if self.y is None else self.y)[rows]

    def part(self, rows: Tensor) -> "Impressions":
        """Return a view of some rows."""
        return replace(self, rows=rows)

    def labels(self) -> Tensor:
        """Return the labels of the rows, of shape `(n_rows, n_tasks)`."""
        assert self.y is not None
        return self.y if self.rows is None else self.y[self.rows]

    def weights(self) -> Tensor | None:
        """Return the weights of the rows, where there are any."""
        if self.sample_weight is None or self.rows is None:
            return self.sample_weight
        return self.sample_weight[self.rows]

    def to(self, device: torch.device) -> "Impressions":
        """Move the tensors to a device where they fit there; else leave them."""
        tensors = {
            name: value
            for name in ("codes", "numeric", "y", "sample_weight", "rows")
            if (value := getattr(self, name)) is not None
        }
        n_bytes = sum(tensor.nbytes for tensor in tensors.values())
        if device.type == "cuda" and n_bytes > _free_memory(device) // 2:
            return self
        return replace(self, **{name: t.to(device) for name, t in tensors.items()})


def _free_memory(device: torch.device) -> int:
    free, _ = torch.cuda.mem_get_info(device)
    return free


class BatchIterator:
    """Batches of impressions of nearly equal size, one indexing each.

    The rows are spread evenly over the batches, so that no small remainder takes a
    step of its own. The order comes from torch's global generator.

    Parameters
    ----------
    impressions : Impressions
        The rows to go through.
    batch_size : int
        The largest number of rows of a batch.
    shuffle : bool, default=False
        Whether every pass takes the rows in a new random order.
    device : torch.device, default=None
        Where the batches are to be; by default where the tensors are.
    """

    def __init__(
        self,
        impressions: Impressions,
        batch_size: int,
        shuffle: bool = False,
        device: torch.device | None = None,
    ) -> None:
        self.dataset = impressions
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.device = impressions.codes.device if device is None else device

    def __len__(self) -> int:
        """Return the number of batches of a pass."""
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Go through the rows once."""
        order = self._order()
        for start, stop in self._bounds():
            rows = slice(start, stop) if order is None else order[start:stop]
            inputs, y = self.dataset[rows]
            yield {k: self._move(v) for k, v in inputs.items()}, self._move(y)

    def _order(self) -> Tensor | None:
        rows, here = self.dataset.rows, self.dataset.codes.device
        if not self.shuffle:
            return rows
        order = torch.randperm(len(self.dataset)).to(here)
        return order if rows is None else rows[order]

    def _bounds(self) -> Iterator[tuple[int, int]]:
        n_rows, n_batches = len(self.dataset), len(self)
        for batch in range(n_batches):
            yield n_rows * batch // n_batches, n_rows * (batch + 1) // n_batches

    def _move(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)

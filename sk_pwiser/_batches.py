"""Whole-tensor batches: a batch is one indexing of tensors, not a list of rows."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor
from torch.utils.data import Dataset

from sk_pwiser._plans import Plan, as_they_are, grouped, shuffled, stratified

Batch = tuple[dict[str, Tensor], Tensor]


@dataclass(frozen=True)
class Impressions(Dataset[Batch]):
    """Encoded impressions, or a part of them.

    Parameters
    ----------
    codes : integer Tensor of shape (n_samples, n_category_columns)
        Codes of the category columns, in any integer type that holds them.
    numeric : float32 Tensor of shape (n_samples, n_numeric)
        Standardised numeric inputs.
    y : float32 Tensor of shape (n_samples, n_tasks), default=None
        Labels; None for rows to predict.
    sample_weight : float32 Tensor of shape (n_samples,), default=None
        Weights of the rows.
    groups : int64 Tensor of shape (n_samples,), default=None
        Numbers of the rows' groups.
    rows : int64 Tensor of shape (n_rows,), default=None
        The rows of this part; all of them by default. The tensors are shared.
    """

    codes: Tensor
    numeric: Tensor
    y: Tensor | None = None
    sample_weight: Tensor | None = None
    groups: Tensor | None = None
    rows: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.codes) if self.rows is None else len(self.rows)

    def __getitem__(self, rows: Tensor | slice) -> Batch:
        """Return one batch: the inputs by name, and the labels."""
        inputs = {
            name: _take(tensor, rows)
            for name in ("codes", "numeric", "sample_weight", "groups")
            if (tensor := getattr(self, name)) is not None
        }
        # Without labels the numeric inputs stand in for them: nobody reads them, and
        # every batch has the same form.
        return inputs, inputs["numeric"] if self.y is None else _take(self.y, rows)

    def part(self, rows: Tensor) -> "Impressions":
        """Return a view of some rows."""
        return replace(self, rows=rows)

    def select(self, tensor: Tensor) -> Tensor:
        """Return the rows of this part of a tensor that has all rows."""
        return tensor if self.rows is None else tensor[self.rows]

    def labels(self) -> Tensor:
        """Return the labels of the rows, of shape `(n_rows, n_tasks)`."""
        assert self.y is not None
        return self.select(self.y)

    def weights(self) -> Tensor | None:
        """Return the weights of the rows, where there are any."""
        return None if self.sample_weight is None else self.select(self.sample_weight)

    def to(self, device: torch.device) -> "Impressions":
        """Move the tensors to a device where they fit there; else leave them."""
        tensors = {
            name: value
            for name in ("codes", "numeric", "y", "sample_weight", "groups", "rows")
            if (value := getattr(self, name)) is not None
        }
        n_bytes = sum(tensor.nbytes for tensor in tensors.values())
        if device.type == "cuda" and n_bytes > _free_memory(device) // 2:
            return self
        return replace(self, **{name: t.to(device) for name, t in tensors.items()})


def _take(tensor: Tensor, rows: Tensor | slice) -> Tensor:
    # Several times faster than indexing by a tensor, which has more cases to think of.
    return tensor[rows] if isinstance(rows, slice) else tensor.index_select(0, rows)


def _free_memory(device: torch.device) -> int:
    free, _ = torch.cuda.mem_get_info(device)
    return free


class BatchIterator:
    """Batches of impressions, one indexing each.

    Random orders come from torch's global generator.

    Parameters
    ----------
    impressions : Impressions
        The rows to go through.
    batch_size : int
        The largest number of rows of a batch.
    plan : {"as_they_are", "shuffled", "grouped", "stratified"}, default="as_they_are"
        Which rows make up a batch; every pass is planned anew.
    device : torch.device, default=None
        Where the batches are to be; by default where the tensors are.
    """

    def __init__(
        self,
        impressions: Impressions,
        batch_size: int,
        plan: str = "as_they_are",
        device: torch.device | None = None,
    ) -> None:
        self.dataset = impressions
        self.batch_size = batch_size
        self.plan = plan
        self.device = impressions.codes.device if device is None else device

    def __iter__(self) -> Iterator[Batch]:
        """Go through the rows once."""
        order, bounds, weight = self._make_plan()
        for start, stop in pairwise(bounds):
            rows = slice(start, stop) if order is None else order[start:stop]
            inputs, y = self.dataset[rows]
            if weight is not None:
                own = inputs.get("sample_weight")
                part = weight[start:stop]
                inputs["sample_weight"] = part if own is None else own * part
            yield {k: self._move(v) for k, v in inputs.items()}, self._move(y)

    def _make_plan(self) -> Plan:
        data = self.dataset
        if self.plan == "grouped" and data.groups is not None:
            plan = grouped(data.select(data.groups), self.batch_size)
        elif self.plan == "stratified":
            converted = data.labels().amin(dim=1) == 1
            plan = stratified(converted, self.batch_size)
        elif self.plan == "as_they_are":
            plan = as_they_are(len(data), self.batch_size)
        else:
            plan = shuffled(len(data), self.batch_size)
        return self._place(plan)

    def _place(self, plan: Plan) -> Plan:
        """Point the plan at the rows of the part, on the device of the tensors."""
        rows, here = self.dataset.rows, self.dataset.codes.device
        order = None if plan.order is None else plan.order.to(here)
        if rows is not None:
            order = rows if order is None else rows[order]
        weight = None if plan.weight is None else plan.weight.to(here)
        return Plan(order, plan.bounds, weight)

    def _move(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)

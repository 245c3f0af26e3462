"""Plans of an epoch: which rows make up which batch."""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from sk_pwiser._training._dataset import Batch, Impressions


class Plan(NamedTuple):
    """The batches of one pass.

    Parameters
    ----------
    order : int64 Tensor of shape (n_planned,) or None
        Positions of rows, one batch after the other; None for the order they have.
    bounds : list of int
        Where each batch starts in `order`, and where the last one ends.
    weight : float32 Tensor of shape (n_planned,) or None
        Factors of the rows' weights that make up for rows that come more than once.
    """

    order: Tensor | None
    bounds: list[int]
    weight: Tensor | None = None


def evenly(n_rows: int, batch_size: int) -> list[int]:
    """Return bounds of batches whose sizes differ by one row at most.

    No small remainder takes a step of its own.
    """
    n_batches = -(-n_rows // batch_size)
    return [n_rows * batch // n_batches for batch in range(n_batches + 1)]


def as_they_are(n_rows: int, batch_size: int) -> Plan:
    """Take the rows in the order they have."""
    return Plan(None, evenly(n_rows, batch_size))


def shuffled(n_rows: int, batch_size: int) -> Plan:
    """Take the rows in a random order."""
    return Plan(torch.randperm(n_rows), evenly(n_rows, batch_size))


def grouped(groups: Tensor, batch_size: int) -> Plan:
    """Take the groups in a random order, each within one batch.

    A group of more than `batch_size` rows is cut.
    """
    _, groups = groups.cpu().unique(return_inverse=True)
    rank = torch.randperm(int(groups.max()) + 1)[groups]
    order = torch.argsort(rank, stable=True)
    starts = [0, *torch.bincount(rank).cumsum(0).tolist()]
    bounds = [0]
    while bounds[-1] < len(groups):
        last = starts[bisect_right(starts, bounds[-1] + batch_size) - 1]
        bounds.append(last if last > bounds[-1] else bounds[-1] + batch_size)
    return Plan(order, bounds)


def stratified(converted: Tensor, batch_size: int) -> Plan:
    """Put a converted row into every batch.

    The converted rows are dealt out to the batches. Where they are fewer than these,
    they come more than once, with weights that sum to those of one pass: with the
    batches' means weighted by their sizes, the expected loss is that of all rows.
    """
    converted = converted.cpu()
    n_rows, deep = len(converted), converted.nonzero().squeeze(1)
    others = (~converted).nonzero().squeeze(1)
    n_batches = -(-n_rows // batch_size)
    if len(deep) < n_batches:
        n_batches = -(-len(others) // (batch_size - 1))
    if len(deep) == 0 or len(others) < n_batches:
        return shuffled(n_rows, batch_size)
    rounds = -(-n_batches // len(deep))
    dealt = torch.cat([deep[torch.randperm(len(deep))] for _ in range(rounds)])
    dealt = dealt[: max(n_batches, len(deep))]
    batch_of_dealt = torch.arange(len(dealt)) % n_batches
    n_planned = len(dealt) + len(others)
    # Batches with one converted row more are those with one row more in all.
    sizes = torch.full((n_batches,), n_planned // n_batches)
    sizes[: n_planned % n_batches] += 1
    n_others = sizes - torch.bincount(batch_of_dealt, minlength=n_batches)
    batch_of_others = torch.repeat_interleave(torch.arange(n_batches), n_others)
    rows = torch.cat([dealt, others[torch.randperm(len(others))]])
    order = torch.argsort(torch.cat([batch_of_dealt, batch_of_others]), stable=True)
    bounds = [0, *sizes.cumsum(0).tolist()]
    return Plan(rows[order], bounds, _make_up(rows[order], n_rows))


def _make_up(rows: Tensor, n_rows: int) -> Tensor | None:
    if len(rows) == n_rows:
        return None
    times = torch.bincount(rows, minlength=n_rows)[rows]
    return (len(rows) / n_rows) / times.float()


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

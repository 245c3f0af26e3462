"""Batch samplers: which rows make up which batch of an epoch."""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from sk_pwiser._training._copies import copied_ahead
from sk_pwiser._training._dataset import Batch, Impressions
from sk_pwiser._training._streamed import TrainingRows
from sk_pwiser._utils import generator_on

CPU = torch.device("cpu")


class BatchIndices(NamedTuple):
    """The rows of the batches of one epoch.

    Parameters
    ----------
    order : int64 Tensor of shape (n_drawn,) or None
        Row indices, one batch after the other; None for all rows in their order.
    bounds : list of int
        Where each batch starts in `order`, and where the last one ends.
    weight : float32 Tensor of shape (n_drawn,) or None
        Factors of the sample weights, for rows that are drawn more than once.
    """

    order: Tensor | None
    bounds: list[int]
    weight: Tensor | None = None


def even_bounds(n_rows: int, batch_size: int) -> list[int]:
    """Return bounds of batches whose sizes differ by at most one row.

    This avoids a small last batch, whose step would have the weight of a full one.
    """
    n_batches = -(-n_rows // batch_size)
    return [n_rows * batch // n_batches for batch in range(n_batches + 1)]


def sequential(n_rows: int, batch_size: int) -> BatchIndices:
    """Sample all rows in their order."""
    return BatchIndices(None, even_bounds(n_rows, batch_size))


def shuffled(n_rows: int, batch_size: int) -> BatchIndices:
    """Sample all rows in a random order."""
    return BatchIndices(_permutation(n_rows), even_bounds(n_rows, batch_size))


def grouped(groups: Tensor, batch_size: int) -> BatchIndices:
    """Sample the groups in a random order, each group within one batch.

    A group of more than `batch_size` rows is split.
    """
    _, groups = torch.unique(groups.cpu(), return_inverse=True)
    rank = _permutation(int(groups.max()) + 1)[groups]
    order = torch.argsort(rank, stable=True)
    starts = [0, *torch.bincount(rank).cumsum(0).tolist()]
    bounds = [0]
    while bounds[-1] < len(groups):
        last = starts[bisect_right(starts, bounds[-1] + batch_size) - 1]
        bounds.append(last if last > bounds[-1] else bounds[-1] + batch_size)
    return BatchIndices(order, bounds)


def stratified(converted: Tensor, batch_size: int) -> BatchIndices:
    """Sample at least one converted row into every batch.

    The converted rows are distributed evenly over the batches. If they are fewer than
    the batches, they are drawn several times, with weights that sum to those of one
    draw. Losses that are weighted sums over rows divided by the size of the batch, the
    pairwise term of PWiseR among them, then have the same expectation as with shuffled
    rows.
    """
    converted = converted.cpu()
    n_rows, deepest = len(converted), converted.nonzero().squeeze(1)
    others = (~converted).nonzero().squeeze(1)
    n_batches = -(-n_rows // batch_size)
    if len(deepest) < n_batches:
        n_batches = -(-len(others) // (batch_size - 1))
    if len(deepest) == 0 or len(others) < n_batches:
        return shuffled(n_rows, batch_size)
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
    bounds = [0, *sizes.cumsum(0).tolist()]
    return BatchIndices(rows[order], bounds, _draw_weights(rows[order], n_rows))


def _draw_weights(rows: Tensor, n_rows: int) -> Tensor | None:
    """Return the weights of rows that make up for repeated draws, if there are any."""
    if len(rows) == n_rows:
        return None
    n_draws = torch.bincount(rows, minlength=n_rows)[rows]
    return (len(rows) / n_rows) / n_draws.float()


def _permutation(n: int) -> Tensor:
    # On the CPU for every device, so that they all train on the same batches.
    return torch.randperm(n, generator=generator_on(CPU))


class BatchIterator:
    """Iterates over the batches of impressions, one indexing operation per batch.

    Parameters
    ----------
    impressions : Impressions or StreamedImpressions
        The rows; of those that are read in parts, batches are drawn within each part.
    batch_size : int
        The largest number of rows per batch.
    sampler : {"sequential", "shuffled", "grouped", "stratified"}, \
            default="sequential"
        Which rows make up a batch; drawn anew for every epoch.
    device : torch.device, default=None
        Device of the batches; by default that of the tensors.
    """

    def __init__(
        self,
        impressions: TrainingRows,
        batch_size: int,
        sampler: str = "sequential",
        device: torch.device | None = None,
    ) -> None:
        self.dataset = impressions
        self.batch_size = batch_size
        self.sampler = sampler
        self.device = impressions.device if device is None else device

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the batches of one epoch."""
        for part in self.dataset.parts(self.sampler != "sequential"):
            batches = self._batches(part)
            if self.device.type == "cuda" and part.device.type == "cpu":
                batches = copied_ahead(batches, self.device)
            for inputs, y in batches:
                moved = {name: t.to(self.device) for name, t in inputs.items()}
                yield moved, y.to(self.device)

    def _batches(self, data: Impressions) -> Iterator[Batch]:
        order, bounds, weight = self._sample(data)
        for start, stop in pairwise(bounds):
            rows = slice(start, stop) if order is None else order[start:stop]
            inputs, y = data[rows]
            if weight is not None:
                own = inputs.get("sample_weight")
                part = weight[start:stop]
                if own is not None:
                    part = own * part.view(-1, *[1] * (own.dim() - 1))
                inputs["sample_weight"] = part
            yield inputs, y

    def _sample(self, data: Impressions) -> BatchIndices:
        """Sample rows, as indices of the tensors and on their device."""
        indices = self._sample_rows(data)
        rows, device = data.rows, data.codes.device
        order = None if indices.order is None else indices.order.to(device)
        if rows is not None:
            order = rows if order is None else rows[order]
        weight = None if indices.weight is None else indices.weight.to(device)
        return BatchIndices(order, indices.bounds, weight)

    def _sample_rows(self, data: Impressions) -> BatchIndices:
        if self.sampler == "grouped" and data.groups is not None:
            return grouped(data.select(data.groups), self.batch_size)
        if self.sampler == "stratified":
            converted = data.labels().amin(dim=1) == 1
            return stratified(converted, self.batch_size)
        if self.sampler == "sequential":
            return sequential(len(data), self.batch_size)
        return shuffled(len(data), self.batch_size)

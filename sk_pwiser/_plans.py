"""Plans of an epoch: which rows make up which batch."""

from bisect import bisect_right
from typing import NamedTuple

import torch
from torch import Tensor


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

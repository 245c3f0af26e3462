"""The bags of some rows, gathered without a loop over rows."""

import torch
from torch import Tensor

from sk_pwiser.networks import Bags


def gather_bags(bags: Bags, rows: Tensor | slice, n_bags: int) -> Bags:
    """Return the bags of some rows, in their order.

    Parameters
    ----------
    bags : Bags
        The bags of all rows.
    rows : int64 Tensor or slice of consecutive rows
        The rows.
    n_bags : int
        Number of bags per row.
    """
    if isinstance(rows, slice):
        offsets = bags.offsets[rows.start * n_bags : rows.stop * n_bags + 1]
        part = slice(int(offsets[0]), int(offsets[-1]))
        weights = None if bags.weights is None else bags.weights[part]
        return Bags(offsets - offsets[0], bags.indices[part], weights)
    starts = bags.offsets.index_select(0, rows * n_bags)
    ends = bags.offsets.index_select(0, (rows + 1) * n_bags)
    sizes = ends - starts
    moves = starts - (sizes.cumsum(0) - sizes)
    n_entries = int(sizes.sum())
    entries = torch.arange(n_entries, device=rows.device)
    entries += torch.repeat_interleave(moves, sizes, output_size=n_entries)
    first = (rows * n_bags).unsqueeze(1)
    inside = first + torch.arange(n_bags, device=rows.device)
    offsets = bags.offsets[inside] - moves.unsqueeze(1)
    offsets = torch.cat([offsets.flatten(), offsets.new_tensor([n_entries])])
    weights = None if bags.weights is None else bags.weights.index_select(0, entries)
    return Bags(offsets, bags.indices.index_select(0, entries), weights)

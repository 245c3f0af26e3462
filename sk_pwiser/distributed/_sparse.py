"""Sums of sparse gradients: only the rows that some process used are exchanged."""

from collections.abc import Callable

import torch
from torch import Tensor

from sk_pwiser.distributed._exchange import gather_rows


def sum_sparse(
    gradient: Tensor | None,
    table: Tensor,
    gather_numbers: Callable[..., list[list[int]]],
) -> Tensor:
    """Return the sum over the processes of the sparse gradient of an embedding table.

    Parameters
    ----------
    gradient : sparse Tensor of shape (n_rows, width) or None
        The gradient of this process; None stands for 0.
    table : Tensor of shape (n_rows, width)
        The table.
    gather_numbers : callable
        Returns the integers of every process.

    Returns
    -------
    sparse Tensor of shape (n_rows, width)
        Coalesced.
    """
    if gradient is None:
        rows = torch.zeros(0, dtype=torch.int64, device=table.device)
        values = table.new_zeros(0, table.shape[1])
    else:
        gradient = gradient.coalesce()
        rows, values = gradient.indices()[0], gradient.values()
    sizes = [n for (n,) in gather_numbers(len(rows))]
    all_rows, all_values = (torch.cat(gather_rows(t, sizes)) for t in (rows, values))
    joined = torch.sparse_coo_tensor(all_rows.unsqueeze(0), all_values, table.shape)
    return joined.coalesce()

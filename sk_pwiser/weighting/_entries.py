"""The gradients of several tasks side by side, without rows that hold nothing."""

from collections.abc import Sequence

import torch
from torch import Tensor

# Where a table is smaller, looking for its rows costs more than it saves.
LARGE_TABLE = 4096


class Entries:
    """The tasks' gradients of several parameter tensors as one matrix.

    Of a large embedding table a batch touches few rows, and the gradients of the
    others are 0. Leaving these out spares several passes over the table.

    Parameters
    ----------
    gradients : sequence of sequences of Tensor or None
        The gradients of each parameter tensor, one a task, None for 0; one of them at
        least is a Tensor. The tensors belong to this object from here on.
    skips_rows : bool
        Whether to leave out the rows of large tables that no task has a gradient in.

    Attributes
    ----------
    matrix : Tensor of shape (n_tasks, n_entries)
        The gradients of all parameter tensors.
    """

    def __init__(
        self, gradients: Sequence[Sequence[Tensor | None]], skips_rows: bool
    ) -> None:
        self.first = [next(g for g in tasks if g is not None) for tasks in gradients]
        dense = [
            [torch.zeros_like(first) if g is None else g for g in tasks]
            for first, tasks in zip(self.first, gradients, strict=True)
        ]
        self.rows = [touched_rows(tasks) if skips_rows else None for tasks in dense]
        parts = [
            [g if rows is None else g.index_select(0, rows) for g in tasks]
            for tasks, rows in zip(dense, self.rows, strict=True)
        ]
        self.sizes = [tasks[0].numel() for tasks in parts]
        self.matrix = self.first[0].new_empty(len(parts[0]), sum(self.sizes))
        for k, row in enumerate(self.matrix):
            torch.cat([tasks[k].reshape(-1) for tasks in parts], out=row)

    def split(self, matrix: Tensor) -> list[Tensor]:
        """Return the part of each parameter tensor, `(n_tasks, n_entries)` each."""
        return list(torch.split(matrix, self.sizes, dim=1))

    def unfold(self, total: Tensor) -> list[Tensor]:
        """Return `total`, of shape `(n_entries,)`, in the form of the parameters."""
        found = []
        for first, rows, part in zip(
            self.first, self.rows, torch.split(total, self.sizes), strict=True
        ):
            if rows is None:
                found.append(part.view(first.shape))
                continue
            # The gradient of one task has its zeros in place already.
            whole = first if self._is_alone(first) else first.clone()
            found.append(whole.index_copy_(0, rows, part.view(len(rows), -1)))
        return found

    def _is_alone(self, gradient: Tensor) -> bool:
        """Whether no other parameter was given the same memory for its gradient."""
        place = gradient.data_ptr()
        same = [g for g in self.first if g.data_ptr() == place]
        return len(same) == 1 and gradient.is_contiguous()


def touched_rows(gradients: Sequence[Tensor]) -> Tensor | None:
    """Return the rows of a table that a task has a gradient in, or None for all.

    Parameters
    ----------
    gradients : sequence of Tensor of shape (n_rows, width)
        One a task.

    Returns
    -------
    int64 Tensor of shape (n_touched,) or None
        Rows in ascending order.
    """
    table = gradients[0]
    if table.dim() != 2 or len(table) < LARGE_TABLE or table.device.type != "cpu":
        # Elsewhere the host would have to wait for the number of rows, and the passes
        # over the table cost little.
        return None
    touched = _has_bits(table)
    for other in gradients[1:]:
        touched |= _has_bits(other)
    return touched.nonzero().squeeze(1)


def _has_bits(table: Tensor) -> Tensor:
    # Two float32 at a time: three times as quick. A negative zero counts as touched,
    # which does no harm.
    size = table.element_size()
    starts_and_widths = size * table.storage_offset(), size * table.shape[1]
    by_twos = table.is_contiguous() and not any(n % 8 for n in starts_and_widths)
    return (table.view(torch.int64) if by_twos else table).any(dim=1)

"""The gradients of several tasks as one matrix, without rows that hold only zeros."""

from collections.abc import Sequence

import torch
from torch import Tensor

# In a smaller table, the search for nonzero rows costs more than it saves.
LARGE_TABLE = 4096


class GradientMatrix:
    """The tasks' gradients, None for 0, of several tensors as one matrix.

    It lacks rows of large tables that are 0 for every task, which are most in a batch.
    """

    def __init__(
        self, gradients: Sequence[Sequence[Tensor | None]], skips_rows: bool
    ) -> None:
        dense = [fill_missing(of_tasks) for of_tasks in gradients]
        self.shapes = [of_tasks[0].shape for of_tasks in dense]
        self.rows = [
            nonzero_rows(of_tasks) if skips_rows else None for of_tasks in dense
        ]
        parts = [
            [g if rows is None else g.index_select(0, rows) for g in of_tasks]
            for of_tasks, rows in zip(dense, self.rows, strict=True)
        ]
        self.sizes = [of_tasks[0].numel() for of_tasks in parts]
        matrix = dense[0][0].new_empty(len(dense[0]), sum(self.sizes))
        for k, row in enumerate(matrix):
            torch.cat([of_tasks[k].reshape(-1) for of_tasks in parts], out=row)
        # One per parameter tensor, of shape (n_tasks, n_entries).
        self.matrices = list(torch.split(matrix, self.sizes, dim=1))

    def restore(
        self, combined: Sequence[Tensor], buffers: Sequence[Tensor]
    ) -> list[Tensor]:
        """Return combined gradients in the shapes of the parameter tensors.

        The skipped rows are those of `buffers`, gradients of one task, in which they
        are 0; a buffer is overwritten and returned if rows were skipped.
        """
        return [
            part.view(shape).to(buffer.dtype)
            if rows is None
            else buffer.index_copy_(0, rows, part.view(len(rows), -1))
            for part, shape, rows, buffer in zip(
                combined, self.shapes, self.rows, buffers, strict=True
            )
        ]


def fill_missing(gradients: Sequence[Tensor | None]) -> list[Tensor]:
    """Return the gradients of one parameter tensor with zeros in place of None."""
    first = next(g for g in gradients if g is not None)
    return [torch.zeros_like(first) if g is None else g for g in gradients]


def copy_overlapping(gradients: Sequence[Tensor]) -> list[Tensor]:
    """Return gradients that can be changed in place, one without the others.

    Autograd may return the same memory for two parameters, or an expanded tensor.
    """
    storages: set[int] = set()
    separate = []
    for gradient in gradients:
        storage = gradient.untyped_storage()
        owns_all = storage.nbytes() == gradient.numel() * gradient.element_size()
        is_new = storage.data_ptr() not in storages
        storages.add(storage.data_ptr())
        separate.append(
            gradient
            if owns_all and is_new
            else gradient.clone(memory_format=torch.contiguous_format)
        )
    return separate


def nonzero_rows(gradients: Sequence[Tensor]) -> Tensor | None:
    """Return the rows in which a task has a nonzero gradient; None stands for all."""
    table = gradients[0]
    if table.dim() != 2 or len(table) < LARGE_TABLE or table.device.type != "cpu":
        # On other devices the number of rows would have to be copied to the host, and
        # passes over the table are cheap.
        return None
    has_nonzero = _has_nonzero_bits(table)
    for other in gradients[1:]:
        has_nonzero |= _has_nonzero_bits(other)
    return has_nonzero.nonzero().squeeze(1)


def _has_nonzero_bits(table: Tensor) -> Tensor:
    # Reading two float32 values as one int64 is three times as fast. A negative zero
    # counts as nonzero, which does no harm.
    size = table.element_size()
    start, width = size * table.storage_offset(), size * table.shape[1]
    fits_int64 = table.is_contiguous() and start % 8 == 0 and width % 8 == 0
    return (table.view(torch.int64) if fits_int64 else table).any(dim=1)

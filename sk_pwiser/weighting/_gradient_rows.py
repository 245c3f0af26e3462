"""Gradients that can be changed in place, and their rows that are not 0."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

# In a smaller table, the search for nonzero rows costs more than it saves.
LARGE_TABLE = 4096


def copy_overlapping(gradients: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield gradients that can be changed in place, one without the others.

    Autograd may return the same memory for two parameters, or an expanded tensor.
    """
    storages: set[int] = set()
    for gradient in gradients:
        storage = gradient.untyped_storage()
        owns_all = storage.nbytes() == gradient.nbytes
        if owns_all and storage.data_ptr() not in storages:
            yield gradient
        else:
            yield gradient.clone(memory_format=torch.contiguous_format)
        storages.add(storage.data_ptr())


def nonzero_rows(gradients: Sequence[Tensor]) -> Tensor | None:
    """Return the rows in which any task has a nonzero gradient; None means all rows."""
    table, *later_tables = gradients
    if table.dim() != 2 or len(table) < LARGE_TABLE or table.device.type != "cpu":
        # On other devices the number of rows would have to be copied to the host, and
        # passes over the table are cheap.
        return None
    has_nonzero = _has_nonzero_bits(table)
    for later_table in later_tables:
        has_nonzero |= _has_nonzero_bits(later_table)
    return has_nonzero.nonzero().squeeze(1)


def _has_nonzero_bits(table: Tensor) -> Tensor:
    # Reading two float32 values as one int64 is three times as fast. A negative zero
    # counts as nonzero, which does no harm.
    start_byte = table.element_size() * table.storage_offset()
    row_bytes = table.element_size() * table.shape[1]
    is_aligned = start_byte % 8 == 0 and row_bytes % 8 == 0
    if table.is_contiguous() and is_aligned:
        table = table.view(torch.int64)
    return table.any(dim=1)

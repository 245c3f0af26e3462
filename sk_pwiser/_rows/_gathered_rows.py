"""Some of the encoded rows of a training, gathered in memory."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sk_pwiser._rows._encoded_rows import Impressions, TrainingRows, fields_of


def gather_rows(
    rows: TrainingRows, choose: Callable[[Impressions], Tensor]
) -> Impressions:
    """Return the rows that `choose` returns the indices of, in each part of the rows.

    Indices count the selected rows of a part.
    """
    chosen_parts = []
    for part in rows.parts(shuffled=False):
        chosen = choose(part)
        if part.rows is not None:
            chosen = part.rows[chosen]
        chosen_parts.append(replace(part, rows=chosen))
    if len(chosen_parts) == 1:
        return chosen_parts[0]
    return join_rows(chosen_parts)


def join_rows(parts: Sequence[Impressions]) -> Impressions:
    """Return the selected rows of several tables as one, with copies of tensors."""
    tables = []
    for part in parts:
        assert part.rows is not None
        inputs, y = part.batch(part.rows)
        tables.append({**inputs, "y": y})
    joined = {}
    for name in tables[0]:
        tensors = [table[name] for table in tables]
        if name == "bag_offsets":
            # Each part counts the entries of its bags from 0.
            n_entries = 0
            moved = [tensors[0][:1]]
            for offsets in tensors:
                moved.append(offsets[1:] + n_entries)
                n_entries += int(offsets[-1])
            tensors = moved
        joined[name] = torch.cat(tensors)
    return Impressions(**fields_of(joined))

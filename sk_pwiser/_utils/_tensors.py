"""Small functions on tensors that several folders use."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


@cache
def widest_float(device: torch.device) -> torch.dtype:
    """Return float64 if the device has it, float32 otherwise, as on Apple's GPUs."""
    try:
        torch.ones(1, dtype=torch.float64, device=device).sum()
    except (TypeError, RuntimeError):
        return torch.float32
    return torch.float64


def widest(tensor: Tensor) -> Tensor:
    return tensor.to(widest_float(tensor.device))


def labels_of_parents(y: Tensor, parents: Sequence[int]) -> Tensor:
    """Return the labels of the task that each task presupposes, 1 without one."""
    columns, ones = y.unbind(dim=1), torch.ones_like(y[:, 0])
    return torch.stack([columns[p] if p >= 0 else ones for p in parents], dim=1)


def conditional_labels(y: Tensor, parents: Sequence[int]) -> Tensor:
    """Divide the labels of each task by those of its parent, at most to 1.

    Probabilities become P(Y_k = 1 | parent = 1); labels do not change.
    """
    before = labels_of_parents(y, parents)
    return (y / torch.where(before > 0, before, 1.0)).clamp(max=1)

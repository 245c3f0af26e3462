"""The precision of tensors."""

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

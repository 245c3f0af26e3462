"""Small functions on tensors that several folders use."""

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return a tensor as float32, or unchanged if its type is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def widest_float(device: torch.device) -> torch.dtype:
    """Return float64 if the device has it, float32 otherwise (on Apple's GPUs)."""
    return torch.float32 if device.type == "mps" else torch.float64


def conditional_labels(y: Tensor) -> Tensor:
    """Divide the labels of each task by those of the task before, at most to 1.

    Of probabilities, this gives P(Y_k = 1 | Y_{k-1} = 1, impression). Labels of 0 and 1
    do not change.
    """
    before = torch.where(y[:, :-1] > 0, y[:, :-1], 1.0)
    return torch.cat([y[:, :1], (y[:, 1:] / before).clamp(max=1)], dim=1)

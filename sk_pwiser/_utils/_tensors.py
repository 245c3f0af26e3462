"""Small functions of tensors that several folders share."""

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return a tensor in float32, or as it is if its type is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def widest_float(device: torch.device) -> torch.dtype:
    """Return float64 if the device has it, float32 otherwise (on Apple's GPUs)."""
    return torch.float32 if device.type == "mps" else torch.float64


def conditional_labels(y: Tensor) -> Tensor:
    """Divide the labels of each task by those of the task before it.

    Parameters
    ----------
    y : float Tensor of shape (batch, n_tasks)
        Labels, or probabilities P(Y_k = 1 | impression) in their place.

    Returns
    -------
    Tensor of shape (batch, n_tasks)
        P(Y_k = 1 | Y_{k-1} = 1, impression), at most 1. Labels of 0 and 1 are not
        changed, also where the task before did not happen.
    """
    before = torch.where(y[:, :-1] > 0, y[:, :-1], 1.0)
    return torch.cat([y[:, :1], (y[:, 1:] / before).clamp(max=1)], dim=1)

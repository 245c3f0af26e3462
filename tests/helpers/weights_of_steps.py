"""The weights that a weighting of losses gives to given losses, step by step."""

import numpy as np
import torch


def weights_of(weighting, losses):
    """Train on one row of losses per step; return the weights of all steps."""
    found = []
    for step in torch.as_tensor(losses, dtype=torch.float32):
        step.requires_grad_().register_hook(weighting.record)
        weighting(step).backward()
        found.append(step.grad.tolist())
    return np.array(found)

"""Labels of tasks given those of the tasks that they presuppose, as tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor


def labels_of_parents(y: Tensor, parents: Sequence[int]) -> Tensor:
    """Return the labels of the task that each task presupposes, 1 without one."""
    columns = y.unbind(dim=1)
    ones = torch.ones_like(y[:, 0])
    return torch.stack([columns[p] if p >= 0 else ones for p in parents], dim=1)


def has_label_of_parent(
    sample_weight: Tensor | None, parents: Sequence[int]
) -> Tensor | float:
    """Return 1 where the task that each task presupposes has a label, or none exists.

    A weight of 0 per row and task stands for a missing label.
    """
    if sample_weight is None or sample_weight.dim() == 1:
        return 1.0
    has_label = (sample_weight > 0).to(sample_weight.dtype)
    return labels_of_parents(has_label, parents)


def conditional_labels(y: Tensor, parents: Sequence[int]) -> Tensor:
    """Divide the labels of each task by those of its parent, at most to 1.

    Probabilities become P(Y_k = 1 | parent = 1); labels do not change.
    """
    parent_labels = labels_of_parents(y, parents)
    return (y / torch.where(parent_labels > 0, parent_labels, 1.0)).clamp(max=1)

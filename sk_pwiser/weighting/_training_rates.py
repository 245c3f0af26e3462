"""Rates at which the tasks' losses change, and weights from them."""

import torch
from torch import Tensor, nn


class TrainingRates(nn.Module):
    """Ratios of the tasks' mean losses in the last two epochs.

    A loss that is not above 0 comes from a batch without rows of the task, and is left
    out.
    """

    def __init__(self, n_tasks: int) -> None:
        super().__init__()
        # In float32, since not every device has float64.
        self.mean = nn.Buffer(torch.zeros(n_tasks))
        self.n_losses = nn.Buffer(torch.zeros(n_tasks, dtype=torch.int64))
        # The last two epochs, the older one first; 0 if there is no mean.
        self.means = nn.Buffer(torch.zeros(2, n_tasks))

    def observe(self, losses: Tensor) -> None:
        """Add the losses of a step, of shape `(n_tasks,)`, to the epoch's means."""
        losses = losses.detach().to(self.mean)
        is_positive = losses > 0
        self.n_losses.add_(is_positive)
        change = (losses - self.mean) / self.n_losses.clamp(min=1)
        self.mean.add_(torch.where(is_positive, change, 0.0))

    def end_epoch(self) -> None:
        """Store the mean losses of the epoch, unless it had no step."""
        if not self.n_losses.any():
            return
        self.means.copy_(torch.stack([self.means[1], self.mean]))
        self.mean.zero_()
        self.n_losses.zero_()

    def forward(self) -> Tensor:
        """Return the rates, float32 of shape `(n_tasks,)`; unknown rates are 1."""
        earlier_mean, later_mean = self.means
        is_known = (self.means > 0).all(dim=0)
        divisor = torch.where(is_known, earlier_mean, 1.0)
        return torch.where(is_known, later_mean / divisor, 1.0)


def softmax_weights(rates: Tensor, temperature: float) -> Tensor:
    """Return weights with sum `n_tasks`, which are larger for slower tasks."""
    return len(rates) * (rates / temperature).softmax(dim=0)

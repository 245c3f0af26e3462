"""How fast the tasks learn, from one epoch to the next."""

import torch
from torch import Tensor, nn


class TrainingRates(nn.Module):
    """Ratios of the tasks' mean losses in the last two epochs.

    A loss that is not above 0 comes from a batch without a signal for its task, and is
    left out of the means.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.
    """

    total: Tensor
    n_losses: Tensor
    means: Tensor

    def __init__(self, n_tasks: int) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(n_tasks, dtype=torch.float64))
        self.register_buffer("n_losses", torch.zeros(n_tasks, dtype=torch.int64))
        # The last epoch but one, and the last; 0 where there is no mean.
        self.register_buffer("means", torch.zeros(2, n_tasks, dtype=torch.float64))

    def observe(self, losses: Tensor) -> None:
        """Count the losses of a step, of shape `(n_tasks,)`."""
        losses = losses.detach()
        has_signal = losses > 0
        self.total += torch.where(has_signal, losses, 0.0)
        self.n_losses += has_signal

    def end_epoch(self) -> None:
        """Begin another epoch; one without any step is none."""
        if not self.n_losses.any():
            return
        means = self.total / self.n_losses.clamp(min=1)
        self.means.copy_(torch.stack([self.means[1], means]))
        self.total.zero_()
        self.n_losses.zero_()

    def forward(self) -> Tensor:
        """Return the rates, float64 of shape `(n_tasks,)`; 1 where there is none."""
        earlier, later = self.means
        is_known = (self.means > 0).all(dim=0)
        return torch.where(is_known, later / torch.where(is_known, earlier, 1.0), 1.0)


def softmax_weights(rates: Tensor, temperature: float) -> Tensor:
    """Return weights, with the sum `n_tasks`, that favour the slower tasks."""
    return len(rates) * (rates / temperature).softmax(dim=0)

"""Exponential moving average of the network's weights."""

import torch
from torch import nn

# Steps between two updates of the average after the first `EVERY_STEP`: an update per
# step would cost about as much as the optimiser's own step on large embedding tables.
INTERVAL, EVERY_STEP = 8, 64


class WeightAverage:
    r"""An exponential moving average of parameters, swapped in for evaluation.

    After step n the average keeps the share :math:`\min(d, (1 + n) / (10 + n))`, with d
    the decay, so that the initial weights are soon forgotten.

    Parameters
    ----------
    module : Module
        The network.
    decay : float
        Largest share of the average that a step of the optimiser keeps, in (0, 1).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.average = [p.detach().clone() for p in self.parameters]
        self.decay = decay
        self.n_steps = 0
        self.n_pending = 0
        self.is_in_module = False

    def step(self) -> None:
        """Count a step of the optimiser, and update the average if it is due."""
        self.n_steps += 1
        self.n_pending += 1
        if self.n_steps <= EVERY_STEP or self.n_pending == INTERVAL:
            self._update()

    @torch.no_grad()
    def _update(self) -> None:
        decay = min(self.decay, (1 + self.n_steps) / (10 + self.n_steps))
        weights = [p.detach() for p in self.parameters]
        torch._foreach_lerp_(self.average, weights, 1 - decay**self.n_pending)
        self.n_pending = 0

    def swap_in(self) -> None:
        """Put the average into the module."""
        if not self.is_in_module:
            if self.n_pending:
                self._update()
            self._swap()

    def swap_out(self) -> None:
        """Put the weights of the last step back into the module."""
        if self.is_in_module:
            self._swap()

    def _swap(self) -> None:
        # Exchanges the tensors and copies nothing.
        for index, parameter in enumerate(self.parameters):
            parameter.data, self.average[index] = self.average[index], parameter.data
        self.is_in_module = not self.is_in_module

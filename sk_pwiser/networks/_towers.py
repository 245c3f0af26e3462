"""Towers, which map the representation of each task to its logit."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sk_pwiser.networks._layers import MLP, Linear, StackedLinear, pair


class TaskTowers(nn.ModuleList):
    """One tower per task: a perceptron and a linear map to the task's logit.

    `base_logits`, of shape `(n_tasks,)`, are the initial output biases.
    """

    def __init__(
        self, n_in: int, units: Sequence[int], base_logits: Tensor, dropout: float = 0.0
    ) -> None:
        super().__init__(
            Tower(n_in, units, logit, dropout) for logit in base_logits.tolist()
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, n_in)` or `(n_tasks, batch, n_in)` to `(batch, n_tasks)`."""
        return torch.cat([tower(each) for tower, each in pair(self, inputs)], dim=1)


class Tower(nn.Module):
    """The tower of one task."""

    def __init__(
        self, n_in: int, units: Sequence[int], base_logit: float, dropout: float
    ) -> None:
        super().__init__()
        self.hidden = MLP(n_in, units, dropout)
        self.output = OutputLayer(Linear(self.hidden.n_out, 1))
        nn.init.constant_(self.output.linear.bias, base_logit)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, n_in)` to `(batch, 1)`."""
        logits: Tensor = self.output(self.hidden(inputs))
        return logits


class OutputLayer(nn.Module):
    """The last linear map, to logits: in float32 also under mixed precision.

    Logits of half precision have three digits, so that many rows would tie.
    """

    # Factor of the initial weights: small ones keep the first predictions near the
    # base rates.
    initial_gain = 0.1

    def __init__(self, linear: Linear | StackedLinear) -> None:
        super().__init__()
        self.linear = linear
        with torch.no_grad():
            linear.weight.mul_(self.initial_gain)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs of any shape that the linear map takes."""
        with torch.autocast(inputs.device.type, enabled=False):
            logits: Tensor = self.linear(inputs.to(self.linear.weight.dtype))
        return logits

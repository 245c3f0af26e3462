"""Groups of experts, and the gates that mix their outputs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sk_pwiser.networks._layers import Activation, Linear, StackedMLP, pair


class ExpertGroups(nn.ModuleList):
    """Groups of experts, of each task or shared ones, with tensors of their own."""

    def __init__(
        self,
        sizes: Sequence[int],
        n_in: int,
        units: Sequence[int],
        dropout: float,
        activation: Activation = torch.relu,
    ) -> None:
        super().__init__(
            StackedMLP(size, n_in, units, dropout, activation) for size in sizes
        )
        self.n_out = [n_in, *units][-1]

    def forward(self, inputs: Tensor) -> Tensor:
        """Map one input or one per group to `(n_experts, batch, n_out)`, by group."""
        outputs = [group(each) for group, each in pair(self, inputs)]
        return torch.cat(outputs)


class Gates(nn.ModuleList):
    """Softmax gates with tensors of their own, which mix the outputs of experts."""

    def __init__(self, n_in: int, n_gates: int, n_experts: int) -> None:
        gates = [Linear(n_in, n_experts) for _ in range(n_gates)]
        # Gates start uniform: no expert is preferred before training.
        for gate in gates:
            nn.init.zeros_(gate.weight)
        super().__init__(gates)

    def weights(self, inputs: Tensor) -> Tensor:
        """Return the gate weights, of shape `(batch, n_gates, n_experts)`."""
        return self.logits(inputs).softmax(dim=2)

    def logits(self, inputs: Tensor) -> Tensor:
        """Return the gate weights before the softmax, of the same shape."""
        return torch.stack([gate(each) for gate, each in pair(self, inputs)], dim=1)

    def forward(self, inputs: Tensor, experts: Tensor) -> Tensor:
        """Mix `(n_experts, batch, width)` to `(n_gates, batch, width)`."""
        return mix(self.weights(inputs), experts)


def mix(weights: Tensor, experts: Tensor) -> Tensor:
    """Mix `(n_experts, batch, width)` by `(batch, n_gates, n_experts)`, gates first."""
    return torch.bmm(weights, experts.transpose(0, 1)).transpose(0, 1)

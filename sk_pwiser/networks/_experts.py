"""Groups of experts, and the gates that mix their outputs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sk_pwiser.networks._layers import Activation, Linear, StackedMLP, pair


class ExpertGroups(nn.ModuleList):
    """Groups of experts: those of each task, or shared ones.

    Every group has parameter tensors of its own.

    Parameters
    ----------
    sizes : sequence of int
        Number of experts in each group.
    n_in : int
        Width of an input.
    units : sequence of int
        Widths of each expert's layers.
    dropout : float
        Share of activations that are dropped in training.
    activation : callable, default=torch.relu
        Applied after every linear map.
    """

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
        self.sizes = list(sizes)
        self.n_out = [n_in, *units][-1]

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, n_in)`, shared, or `(n_groups, batch, n_in)`, one per group.

        Returns a tensor of shape `(n_experts, batch, n_out)`, group after group.
        """
        outputs = [group(each) for group, each in pair(self, inputs)]
        return torch.cat(outputs)


class Gates(nn.ModuleList):
    """Softmax gates that mix the outputs of experts.

    Every gate has parameter tensors of its own.

    Parameters
    ----------
    n_in : int
        Width of a gate's input.
    n_gates : int
        Number of gates.
    n_experts : int
        Number of experts that each gate mixes.
    """

    def __init__(self, n_in: int, n_gates: int, n_experts: int) -> None:
        gates = [Linear(n_in, n_experts) for _ in range(n_gates)]
        # Gates start uniform: no expert is preferred before training.
        for gate in gates:
            nn.init.zeros_(gate.weight)
        super().__init__(gates)

    def weights(self, inputs: Tensor) -> Tensor:
        """Return the gate weights, of shape `(batch, n_gates, n_experts)`.

        `inputs` is `(batch, n_in)`, shared, or `(n_gates, batch, n_in)`, one per gate.
        """
        return self._logits(inputs).softmax(dim=2)

    def log_weights(self, inputs: Tensor) -> Tensor:
        """Return the logarithms of the gate weights, of the same shape."""
        return self._logits(inputs).log_softmax(dim=2)

    def _logits(self, inputs: Tensor) -> Tensor:
        return torch.stack([gate(each) for gate, each in pair(self, inputs)], dim=1)

    def forward(self, inputs: Tensor, experts: Tensor) -> Tensor:
        """Mix `(n_experts, batch, width)` to `(n_gates, batch, width)`."""
        return mix(self.weights(inputs), experts)


def mix(weights: Tensor, experts: Tensor) -> Tensor:
    """Compute weighted sums of the outputs of experts.

    Parameters
    ----------
    weights : Tensor of shape (batch, n_gates, n_experts)
        Weights of the experts.
    experts : Tensor of shape (n_experts, batch, width)
        Outputs of the experts.

    Returns
    -------
    Tensor of shape (n_gates, batch, width)
        One mixture per gate.
    """
    return torch.bmm(weights, experts.transpose(0, 1)).transpose(0, 1)

"""Layers that networks are built from; stacks of layers run as one batched product."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class StackedLinear(nn.Module):
    """Independent linear maps of one shape, computed as one product.

    Parameters
    ----------
    n_stacked : int
        Number of maps.
    n_in, n_out : int
        Width of an input and of an output.
    """

    def __init__(self, n_stacked: int, n_in: int, n_out: int) -> None:
        super().__init__()
        # He et al. (2015): keeps the scale of activations through ReLU layers. Every
        # map draws its own weights, so that experts differ from the start.
        bound = math.sqrt(6.0 / n_in) if n_in else 0.0
        weight = torch.empty(n_stacked, n_in, n_out).uniform_(-bound, bound)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(n_stacked, 1, n_out))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, n_in)`, shared, or `(n_stacked, batch, n_in)`, one each.

        Returns a tensor of shape `(n_stacked, batch, n_out)`.
        """
        if inputs.dim() == 3:
            return torch.baddbmm(self.bias, inputs, self.weight)
        n_stacked, n_in, n_out = self.weight.shape
        weight = self.weight.transpose(0, 1).reshape(n_in, n_stacked * n_out)
        flat = torch.addmm(self.bias.view(-1), inputs, weight)
        return flat.view(-1, n_stacked, n_out).transpose(0, 1)


class OutputLayer(StackedLinear):
    """The last linear maps, to logits: in float32 under mixed precision too.

    Logits of half precision hold three digits, so that many rows would tie.
    """

    # A small output map leaves the first predictions at the base rates.
    initial_scale = 0.1

    def __init__(self, n_stacked: int, n_in: int) -> None:
        super().__init__(n_stacked, n_in, 1)
        with torch.no_grad():
            self.weight.mul_(self.initial_scale)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(n_stacked, batch, n_in)` to `(n_stacked, batch, 1)`."""
        with torch.autocast(inputs.device.type, enabled=False):
            return super().forward(inputs.to(self.weight.dtype))


class StackedMLP(nn.Module):
    """Independent multi-layer perceptrons of one shape, computed together.

    Every layer is a linear map, an activation and dropout. Without layers the inputs
    pass through.

    Parameters
    ----------
    n_stacked : int
        Number of perceptrons.
    n_in : int
        Width of an input.
    units : sequence of int
        Widths of the layers.
    dropout : float, default=0.0
        Share of activations dropped in training.
    activation : callable, default=torch.relu
        Applied after every linear map.
    """

    def __init__(
        self,
        n_stacked: int,
        n_in: int,
        units: Sequence[int],
        dropout: float = 0.0,
        activation: Callable[[Tensor], Tensor] = torch.relu,
    ) -> None:
        super().__init__()
        self.n_stacked = n_stacked
        self.activation = activation
        self.n_out = [n_in, *units][-1]
        self.layers = nn.ModuleList(
            StackedLinear(n_stacked, a, b) for a, b in pairwise([n_in, *units])
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, n_in)` or `(n_stacked, batch, n_in)` to 3-D, one each."""
        hidden = inputs
        for layer in self.layers:
            hidden = self.dropout(self.activation(layer(hidden)))
        return hidden if hidden.dim() == 3 else hidden.expand(self.n_stacked, -1, -1)


class MLP(nn.Module):
    """A multi-layer perceptron: linear maps, each with ReLU and dropout.

    Parameters
    ----------
    n_in : int
        Width of an input.
    units : sequence of int
        Widths of the layers.
    dropout : float, default=0.0
        Share of activations dropped in training.
    """

    def __init__(self, n_in: int, units: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.stack = StackedMLP(1, n_in, units, dropout)
        self.n_out = self.stack.n_out

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, n_in)` to `(batch, n_out)`."""
        hidden: Tensor = self.stack(inputs)
        return hidden[0]


class TaskTowers(nn.Module):
    """One tower a task: a perceptron and a linear map to the task's logit.

    Parameters
    ----------
    n_in : int
        Width of an input.
    units : sequence of int
        Widths of a tower's hidden layers.
    base_logits : Tensor of shape (n_tasks,)
        Initial output biases.
    dropout : float, default=0.0
        Share of activations dropped in training.
    """

    def __init__(
        self, n_in: int, units: Sequence[int], base_logits: Tensor, dropout: float = 0.0
    ) -> None:
        super().__init__()
        n_tasks = len(base_logits)
        self.hidden = StackedMLP(n_tasks, n_in, units, dropout)
        self.output = OutputLayer(n_tasks, self.hidden.n_out)
        with torch.no_grad():
            self.output.bias.copy_(base_logits.view(-1, 1, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, n_in)` or `(n_tasks, batch, n_in)` to `(batch, n_tasks)`."""
        logits: Tensor = self.output(self.hidden(inputs))
        return logits.squeeze(2).t()


class Gates(nn.Module):
    """Softmax gates that mix the outputs of experts.

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
        super().__init__()
        self.linear = StackedLinear(n_gates, n_in, n_experts)
        # Gates start even: no expert is chosen before it has learnt anything.
        nn.init.zeros_(self.linear.weight)

    def weights(self, inputs: Tensor) -> Tensor:
        """Return the gate weights, of shape `(batch, n_gates, n_experts)`.

        `inputs` is `(batch, n_in)`, shared, or `(n_gates, batch, n_in)`, one each.
        """
        return self._logits(inputs).softmax(dim=2)

    def log_weights(self, inputs: Tensor) -> Tensor:
        """Return the logarithms of the gate weights, of the same shape."""
        return self._logits(inputs).log_softmax(dim=2)

    def _logits(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.linear(inputs)
        return logits.transpose(0, 1)

    def forward(self, inputs: Tensor, experts: Tensor) -> Tensor:
        """Mix `(n_experts, batch, width)` to `(n_gates, batch, width)`."""
        return mix(self.weights(inputs), experts)


def mix(weights: Tensor, experts: Tensor) -> Tensor:
    """Sum experts up by weights.

    Parameters
    ----------
    weights : Tensor of shape (batch, n_gates, n_experts)
        Weights of the experts.
    experts : Tensor of shape (n_experts, batch, width)
        Their outputs.

    Returns
    -------
    Tensor of shape (n_gates, batch, width)
        One mixture a gate.
    """
    return torch.bmm(weights, experts.transpose(0, 1)).transpose(0, 1)

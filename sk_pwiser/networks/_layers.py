"""Layers that networks are built from; stacked layers run as one batched product."""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from sk_pwiser._utils import dropout


class StackedLinear(nn.Module):
    """Independent linear maps of one shape, computed as one product.

    Parameters
    ----------
    parts : sequence of int
        Number of maps in each parameter tensor. Maps of different tasks belong in
        different tensors, since weightings of gradients decide per tensor whether
        tasks share it. One tensor for all maps is slightly faster.
    n_in, n_out : int
        Width of an input and of an output.
    """

    def __init__(self, parts: Sequence[int], n_in: int, n_out: int) -> None:
        super().__init__()
        self.n_stacked, self.n_out = sum(parts), n_out
        # He et al. (2015): keeps the scale of activations through ReLU layers. Every
        # map has random weights of its own, so that experts differ from the start.
        bound = math.sqrt(6.0 / n_in) if n_in else 0.0
        self.weight = nn.ParameterList(
            torch.empty(n, n_in, n_out).uniform_(-bound, bound) for n in parts
        )
        self.bias = nn.ParameterList(torch.zeros(n, 1, n_out) for n in parts)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, n_in)`, shared, or `(n_stacked, batch, n_in)`, one per map.

        Returns a tensor of shape `(n_stacked, batch, n_out)`.
        """
        if inputs.dim() == 3:
            return torch.baddbmm(_join(self.bias), inputs, _join(self.weight))
        weight = _join((w.transpose(0, 1).flatten(1) for w in self.weight), dim=1)
        bias = _join(b.flatten() for b in self.bias)
        flat = torch.addmm(bias, inputs, weight)
        shape = (len(inputs), self.n_stacked, self.n_out)
        return flat.view(shape).transpose(0, 1)


def _join(tensors: Iterable[Tensor], dim: int = 0) -> Tensor:
    """Concatenate tensors; a single one is not copied."""
    found = list(tensors)
    return found[0] if len(found) == 1 else torch.cat(found, dim)


class OutputLayer(StackedLinear):
    """The last linear maps, to logits: in float32 also under mixed precision.

    Logits of half precision have three digits, so that many rows would tie.
    """

    # Factor of the initial weights: small ones keep the first predictions near the
    # base rates.
    initial_gain = 0.1

    def __init__(self, parts: Sequence[int], n_in: int) -> None:
        super().__init__(parts, n_in, 1)
        with torch.no_grad():
            for weight in self.weight:
                weight.mul_(self.initial_gain)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(n_stacked, batch, n_in)` to `(n_stacked, batch, 1)`."""
        with torch.autocast(inputs.device.type, enabled=False):
            return super().forward(inputs.to(self.weight[0].dtype))


class StackedMLP(nn.Module):
    """Independent multi-layer perceptrons of one shape, computed together.

    Every layer is a linear map, an activation and dropout. Without layers, the
    perceptrons are identities.

    Parameters
    ----------
    parts : sequence of int
        Number of perceptrons in each parameter tensor, see `StackedLinear`.
    n_in : int
        Width of an input.
    units : sequence of int
        Widths of the layers.
    dropout : float, default=0.0
        Share of activations that are dropped in training.
    activation : callable, default=torch.relu
        Applied after every linear map.
    """

    def __init__(
        self,
        parts: Sequence[int],
        n_in: int,
        units: Sequence[int],
        dropout: float = 0.0,
        activation: Callable[[Tensor], Tensor] = torch.relu,
    ) -> None:
        super().__init__()
        self.n_stacked = sum(parts)
        self.activation = activation
        self.dropout = dropout
        self.n_out = [n_in, *units][-1]
        self.layers = nn.ModuleList(
            StackedLinear(parts, a, b) for a, b in pairwise([n_in, *units])
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, n_in)` or `(n_stacked, batch, n_in)`.

        Returns a tensor of shape `(n_stacked, batch, n_out)`.
        """
        hidden = inputs
        for layer in self.layers:
            hidden = self.activation(layer(hidden))
            hidden = dropout(hidden, self.dropout, self.training)
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
        Share of activations that are dropped in training.
    """

    def __init__(self, n_in: int, units: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.stack = StackedMLP([1], n_in, units, dropout)
        self.n_out = self.stack.n_out

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, n_in)` to `(batch, n_out)`."""
        hidden: Tensor = self.stack(inputs)
        return hidden[0]


class TaskTowers(nn.Module):
    """One tower per task: a perceptron and a linear map to the task's logit.

    Every tower has parameter tensors of its own.

    Parameters
    ----------
    n_in : int
        Width of an input.
    units : sequence of int
        Widths of a tower's hidden layers.
    base_logits : Tensor of shape (n_tasks,)
        Initial output biases.
    dropout : float, default=0.0
        Share of activations that are dropped in training.
    """

    def __init__(
        self, n_in: int, units: Sequence[int], base_logits: Tensor, dropout: float = 0.0
    ) -> None:
        super().__init__()
        parts = [1] * len(base_logits)
        self.hidden = StackedMLP(parts, n_in, units, dropout)
        self.output = OutputLayer(parts, self.hidden.n_out)
        for bias, start in zip(self.output.bias, base_logits.tolist(), strict=True):
            nn.init.constant_(bias, start)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, n_in)` or `(n_tasks, batch, n_in)` to `(batch, n_tasks)`."""
        logits: Tensor = self.output(self.hidden(inputs))
        return logits.squeeze(2).t()


class Gates(nn.Module):
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
        super().__init__()
        self.linear = StackedLinear([1] * n_gates, n_in, n_experts)
        # Gates start uniform: no expert is preferred before training.
        for weight in self.linear.weight:
            nn.init.zeros_(weight)

    def weights(self, inputs: Tensor) -> Tensor:
        """Return the gate weights, of shape `(batch, n_gates, n_experts)`.

        `inputs` is `(batch, n_in)`, shared, or `(n_gates, batch, n_in)`, one per gate.
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

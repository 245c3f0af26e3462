"""Layers that networks are built from; stacks of layers run as one batched product."""

import math
from collections.abc import Sequence
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


class StackedMLP(nn.Module):
    """Independent multi-layer perceptrons of one shape, computed together.

    Every layer is a linear map, ReLU and dropout. Without layers the inputs pass
    through.

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
    """

    def __init__(
        self, n_stacked: int, n_in: int, units: Sequence[int], dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.n_stacked = n_stacked
        self.n_out = [n_in, *units][-1]
        self.layers = nn.ModuleList(
            StackedLinear(n_stacked, a, b) for a, b in pairwise([n_in, *units])
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, n_in)` or `(n_stacked, batch, n_in)` to 3-D, one each."""
        hidden = inputs
        for layer in self.layers:
            hidden = self.dropout(torch.relu(layer(hidden)))
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
        self.output = StackedLinear(n_tasks, self.hidden.n_out, 1)
        with torch.no_grad():
            # A small output map leaves the first predictions at the base rates.
            self.output.weight.mul_(0.1)
            self.output.bias.copy_(base_logits.view(-1, 1, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, n_in)` or `(n_tasks, batch, n_in)` to `(batch, n_tasks)`."""
        logits: Tensor = self.output(self.hidden(inputs))
        return logits.squeeze(2).t()


class Gates(nn.Module):
    """Softmax gates, one a task, that mix the outputs of experts.

    Parameters
    ----------
    n_in : int
        Width of the gates' input.
    n_gates : int
        Number of gates.
    n_experts : int
        Number of experts that each gate mixes.
    """

    def __init__(self, n_in: int, n_gates: int, n_experts: int) -> None:
        super().__init__()
        self.shape = (n_gates, n_experts)
        self.linear = nn.Linear(n_in, n_gates * n_experts)
        # Gates start even: no expert is chosen before it has learnt anything.
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def weights(self, inputs: Tensor) -> Tensor:
        """Return the gate weights, of shape `(batch, n_gates, n_experts)`."""
        logits: Tensor = self.linear(inputs)
        return logits.view(-1, *self.shape).softmax(dim=2)

    def forward(self, inputs: Tensor, experts: Tensor) -> Tensor:
        """Mix `(n_experts, batch, width)` to `(n_gates, batch, width)`."""
        mixed = torch.bmm(self.weights(inputs), experts.transpose(0, 1))
        return mixed.transpose(0, 1)

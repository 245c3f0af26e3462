"""The layers of the networks: perceptrons, experts with gates, towers with a logit."""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from sk_pwiser._utils import check_integer, is_iterable
from sk_pwiser._utils import dropout as drop

Activation = Callable[[Tensor], Tensor]


def he_bound(n_in: int) -> float:
    """Return the bound of uniform initial weights for ReLU layers (He et al., 2015)."""
    return math.sqrt(6.0 / n_in) if n_in else 0.0


class Linear(nn.Linear):
    """A linear map with He-uniform initial weights and a bias of 0."""

    def reset_parameters(self) -> None:
        bound = he_bound(self.in_features)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.zeros_(self.bias)


class StackedLinear(nn.Module):
    """Independent linear maps of the same sizes, computed by one matrix product."""

    def __init__(self, n_stacked: int, n_in: int, n_out: int) -> None:
        super().__init__()
        bound = he_bound(n_in)
        weight = torch.empty(n_stacked, n_in, n_out).uniform_(-bound, bound)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(n_stacked, 1, n_out))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, n_in)` or `(n_stacked, batch, n_in)` to one output per map."""
        if inputs.dim() == 3:
            return torch.baddbmm(self.bias, inputs, self.weight)
        n_stacked, n_in, n_out = self.weight.shape
        # All maps read one input: side by side they are one map, which is faster than a
        # batch of products.
        weight = self.weight.transpose(0, 1).reshape(n_in, n_stacked * n_out)
        flat = torch.addmm(self.bias.view(-1), inputs, weight)
        return flat.view(inputs.shape[0], n_stacked, n_out).transpose(0, 1)


class MLP(nn.Module):
    """Linear maps, each with ReLU and dropout; without layers, the identity."""

    def __init__(self, n_in: int, units: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.n_out = [n_in, *units][-1]
        self.layers = nn.ModuleList(Linear(a, b) for a, b in pairwise([n_in, *units]))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, n_in)` to `(batch, n_out)`."""
        hidden = inputs
        for layer in self.layers:
            hidden = drop(torch.relu(layer(hidden)), self.dropout, self.training)
        return hidden


class StackedMLP(nn.Module):
    """Independent multi-layer perceptrons of one shape, computed together."""

    def __init__(
        self,
        n_stacked: int,
        n_in: int,
        units: Sequence[int],
        dropout: float = 0.0,
        activation: Activation = torch.relu,
    ) -> None:
        super().__init__()
        self.n_stacked = n_stacked
        self.activation = activation
        self.dropout = dropout
        self.n_out = [n_in, *units][-1]
        self.layers = nn.ModuleList(
            StackedLinear(n_stacked, a, b) for a, b in pairwise([n_in, *units])
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, n_in)` or `(n_stacked, batch, n_in)` to one output per MLP."""
        hidden = inputs
        for layer in self.layers:
            hidden = self.activation(layer(hidden))
            hidden = drop(hidden, self.dropout, self.training)
        return hidden if hidden.dim() == 3 else hidden.expand(self.n_stacked, -1, -1)


def pair(modules: nn.ModuleList, inputs: Tensor) -> Iterable[tuple[nn.Module, Tensor]]:
    """Pair modules with a shared input, `(batch, n_in)`, or with one each, 3-D."""
    each = inputs.unbind() if inputs.dim() == 3 else [inputs] * len(modules)
    return zip(modules, each, strict=True)


class TaskTowers(nn.ModuleList):
    """One tower per task, with the output biases `base_logits` at the start.

    On devices other than a CPU, training computes all towers together, by fewer
    kernels. The parameters of each tower stay separate tensors, since those of rare
    tasks have another weight decay.
    """

    def __init__(
        self, n_in: int, units: Sequence[int], base_logits: Tensor, dropout: float = 0.0
    ) -> None:
        super().__init__(
            Tower(n_in, units, logit, dropout) for logit in base_logits.tolist()
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, n_in)` or `(n_tasks, batch, n_in)` to `(batch, n_tasks)`."""
        if inputs.is_cpu or not self.training or len(self) == 1:
            return torch.cat([tower(each) for tower, each in pair(self, inputs)], dim=1)
        return self._jointly(inputs)

    def _jointly(self, inputs: Tensor) -> Tensor:
        """Compute all towers by the same kernels."""
        towers = cast(list[Tower], list(self))
        hidden, dropout = inputs, towers[0].hidden.dropout
        *layers, (weight, bias) = _join([tower.linears for tower in towers])
        for layer in layers:
            hidden = torch.relu(_apply_jointly(*layer, hidden))
            hidden = drop(hidden, dropout, self.training)
        with torch.autocast(inputs.device.type, enabled=False):
            logits = _apply_jointly(weight, bias, hidden.to(weight.dtype))
        return logits.squeeze(2).t()


def _join(towers: Sequence[Sequence[nn.Linear]]) -> list[tuple[Tensor, Tensor]]:
    """Copy the weights `(n_towers, n_out, n_in)` and biases of each layer together."""
    parts, shapes = [], []
    for layers in zip(*towers, strict=True):
        n_out, n_in = layers[0].weight.shape
        parts += [layer.weight.flatten() for layer in layers]
        parts += [layer.bias for layer in layers]
        shapes += [(len(towers), n_out, n_in), (len(towers), 1, n_out)]
    # One copy of all tensors takes one kernel; the layers are views of it.
    joined = torch.split(torch.cat(parts), [math.prod(shape) for shape in shapes])
    views = [part.view(shape) for part, shape in zip(joined, shapes, strict=True)]
    return list(zip(views[::2], views[1::2], strict=True))


def _apply_jointly(weight: Tensor, bias: Tensor, inputs: Tensor) -> Tensor:
    """Map inputs like those of `TaskTowers` to `(n_towers, batch, n_out)`."""
    if inputs.dim() == 3:
        return torch.baddbmm(bias, inputs, weight.transpose(1, 2))
    outputs = nn.functional.linear(inputs, weight.flatten(0, 1), bias.flatten())
    return outputs.view(len(inputs), len(weight), -1).transpose(0, 1)


class Tower(nn.Module):
    def __init__(
        self, n_in: int, units: Sequence[int], base_logit: float, dropout: float
    ) -> None:
        super().__init__()
        self.hidden = MLP(n_in, units, dropout)
        self.output = OutputLayer(Linear(self.hidden.n_out, 1))
        nn.init.constant_(self.output.linear.bias, base_logit)

    @property
    def linears(self) -> list[Linear]:
        return cast(list[Linear], [*self.hidden.layers, self.output.linear])

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, n_in)` to `(batch, 1)`."""
        logits: Tensor = self.output(self.hidden(inputs))
        return logits


class OutputLayer(nn.Module):
    """The last linear map, in float32: many logits would tie in half precision."""

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


def check_units(name: str, units: Sequence[int]) -> tuple[int, ...]:
    if not is_iterable(units):
        raise TypeError(f"{name} must be a sequence of layer widths; got {units!r}.")
    return tuple(
        check_integer(f"{name}[{index}]", width, at_least=1)
        for index, width in enumerate(units)
    )


class ExpertGroups(nn.ModuleList):
    """Groups of experts, one per task and a shared one, each with its own tensors.

    Weightings of gradients decide per tensor whether tasks share it.
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
        self.n_out = [n_in, *units][-1]

    def forward(self, inputs: Tensor) -> Tensor:
        """Map one input or one per group to `(n_experts, batch, n_out)`, by group."""
        outputs = [group(each) for group, each in pair(self, inputs)]
        return torch.cat(outputs)


class Gates(nn.ModuleList):
    """Softmax gates that mix the outputs of experts, each with its own tensors."""

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

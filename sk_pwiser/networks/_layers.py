"""The layers of networks: perceptrons, towers, experts and gates."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sk_pwiser._utils._checks import check_integer, check_number, is_iterable
from sk_pwiser._utils._random import generator_on

Activation = Callable[[Tensor], Tensor]


# A tensor that moves with a module, but is not part of its saved state.
constant = partial(nn.Buffer, persistent=False)


# Standard deviation of initial embeddings. If it is small, the embedding of a rare
# value stays near 0: it departs only as far as the value's few rows require.
INITIAL_STD = 0.01


class Linear(nn.Linear):
    """A linear map with the initial weights of He et al. (2015), and a bias of 0."""

    def reset_parameters(self) -> None:
        bound = math.sqrt(6.0 / max(self.in_features, 1))
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.zeros_(self.bias)


class StackedLinear(nn.Module):
    """Independent linear maps of the same sizes, computed by one matrix product."""

    def __init__(self, n_stacked: int, n_in: int, n_out: int) -> None:
        super().__init__()
        bound = math.sqrt(6.0 / max(n_in, 1))
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


def drop(inputs: Tensor, p: float, training: bool) -> Tensor:
    """Set a share `p` of the entries to 0 in training, and scale the others up."""
    if not training or p == 0:
        return inputs
    generator = generator_on(inputs.device)
    if generator is None:
        return F.dropout(inputs, p)
    is_kept = torch.empty_like(inputs).bernoulli_(1 - p, generator=generator)
    return inputs * is_kept.div_(1 - p)


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
            hidden = torch.relu(layer(hidden))
            if self.dropout:
                hidden = drop(hidden, self.dropout, self.training)
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
        units = check_units("expert_units", units)
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
    per_module = inputs.unbind() if inputs.dim() == 3 else [inputs] * len(modules)
    return zip(modules, per_module, strict=True)


class TaskTowers(nn.ModuleList):
    """One tower per task: hidden layers, and an output that starts at a base logit.

    On devices other than a CPU, training computes all towers together, by fewer
    kernels. The parameters of each tower stay separate tensors, since those of rare
    tasks have another weight decay.
    """

    def __init__(
        self, n_in: int, units: Sequence[int], base_logits: Tensor, dropout: float = 0.0
    ) -> None:
        units = check_units("tower_units", units)
        dropout = check_number("dropout", dropout, at_least=0, below=1)
        towers = []
        for base_logit in base_logits.tolist():
            hidden = MLP(n_in, units, dropout)
            output = OutputLayer(Linear(hidden.n_out, 1))
            nn.init.constant_(output.linear.bias, base_logit)
            towers.append(nn.ModuleDict({"hidden": hidden, "output": output}))
        super().__init__(towers)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, n_in)` or `(n_tasks, batch, n_in)` to `(batch, n_tasks)`."""
        if not inputs.is_cpu and self.training and len(self) > 1:
            return self._jointly(inputs)
        pairs: Any = pair(self, inputs)
        logits = [
            tower["output"](tower["hidden"](features)) for tower, features in pairs
        ]
        return torch.cat(logits, dim=1)

    def _jointly(self, inputs: Tensor) -> Tensor:
        """Compute all towers by the same kernels."""
        towers: Any = list(self)
        hidden = inputs
        dropout = towers[0]["hidden"].dropout
        *layers, (weight, bias) = _join(
            [[*tower["hidden"].layers, tower["output"].linear] for tower in towers]
        )
        for layer in layers:
            hidden = torch.relu(_apply_jointly(*layer, hidden))
            hidden = drop(hidden, dropout, self.training)
        with torch.autocast(inputs.device.type, enabled=False):
            logits = _apply_jointly(weight, bias, hidden.to(weight.dtype))
        return logits.squeeze(2).t()


def _join(towers: Sequence[Sequence[Any]]) -> list[tuple[Tensor, Tensor]]:
    """Copy the weights `(n_towers, n_out, n_in)` and biases of each layer together."""
    tensors = []
    shapes = []
    for layers in zip(*towers, strict=True):
        n_out, n_in = layers[0].weight.shape
        tensors += [layer.weight.flatten() for layer in layers]
        tensors += [layer.bias for layer in layers]
        shapes += [(len(towers), n_out, n_in), (len(towers), 1, n_out)]
    # One copy of all tensors takes one kernel; the layers are views of it.
    joined = torch.split(torch.cat(tensors), [math.prod(shape) for shape in shapes])
    views = [flat.view(shape) for flat, shape in zip(joined, shapes, strict=True)]
    return list(zip(views[::2], views[1::2], strict=True))


def _apply_jointly(weight: Tensor, bias: Tensor, inputs: Tensor) -> Tensor:
    """Map inputs like those of `TaskTowers` to `(n_towers, batch, n_out)`."""
    if inputs.dim() == 3:
        return torch.baddbmm(bias, inputs, weight.transpose(1, 2))
    outputs = nn.functional.linear(inputs, weight.flatten(0, 1), bias.flatten())
    return outputs.view(len(inputs), len(weight), -1).transpose(0, 1)


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
        self.n_out = cast(StackedMLP, self[0]).n_out

    def forward(self, inputs: Tensor) -> Tensor:
        """Map one input or one per group to `(n_experts, batch, n_out)`, by group."""
        return torch.cat([group(features) for group, features in pair(self, inputs)])


class Gates(nn.ModuleList):
    """Softmax gates for the outputs of experts, each with its own tensors."""

    def __init__(self, n_in: int, n_gates: int, n_experts: int) -> None:
        gates = [Linear(n_in, n_experts) for _ in range(n_gates)]
        # Gates start uniform: no expert is preferred before training.
        for gate in gates:
            nn.init.zeros_(gate.weight)
        super().__init__(gates)

    def logits(self, inputs: Tensor) -> Tensor:
        """Return logarithms of the weights, up to a constant, in their shape."""
        logits = [gate(features) for gate, features in pair(self, inputs)]
        return torch.stack(logits, dim=1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the gate weights, of shape `(batch, n_gates, n_experts)`."""
        return self.logits(inputs).softmax(dim=2)


def mix(weights: Tensor, experts: Tensor) -> Tensor:
    """Mix `(n_experts, batch, width)` by `(batch, n_gates, n_experts)`, gates first."""
    return torch.bmm(weights, experts.transpose(0, 1)).transpose(0, 1)


def mix_trained(to_own: Tensor, to_shared: Tensor, experts: Tensor) -> Tensor:
    """Mix the experts that each task trains: its own and the shared ones.

    The weights are `(batch, n_tasks, n_experts)`, those `to_own` for the experts of the
    same task only.
    """
    n_tasks, n_own = to_own.shape[1:]
    specific, shared = experts.tensor_split([n_tasks * n_own])
    specific = torch.unflatten(specific, 0, (n_tasks, n_own))
    return torch.einsum("bkj,kjbw->kbw", to_own, specific) + mix(to_shared, shared)

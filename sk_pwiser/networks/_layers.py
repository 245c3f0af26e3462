"""The layers of the networks: perceptrons, towers, experts with gates, products."""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sk_pwiser._utils import check_integer, check_number, is_iterable
from sk_pwiser._utils import dropout as drop

Activation = Callable[[Tensor], Tensor]


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
        units = check_units("tower_units", units)
        dropout = check_number("dropout", dropout, at_least=0, below=1)
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
        *layers, (weight, bias) = _join(
            [[*tower.hidden.layers, tower.output.linear] for tower in towers]
        )
        for layer in layers:
            hidden = torch.relu(_apply_jointly(*layer, hidden))
            hidden = drop(hidden, dropout, self.training)
        with torch.autocast(inputs.device.type, enabled=False):
            logits = _apply_jointly(weight, bias, hidden.to(weight.dtype))
        return logits.squeeze(2).t()


def _join(towers: Sequence[Sequence[Any]]) -> list[tuple[Tensor, Tensor]]:
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
        self.n_out = cast(StackedMLP, self[0]).n_out

    def forward(self, inputs: Tensor) -> Tensor:
        """Map one input or one per group to `(n_experts, batch, n_out)`, by group."""
        outputs = [group(each) for group, each in pair(self, inputs)]
        return torch.cat(outputs)


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
        return torch.stack([gate(each) for gate, each in pair(self, inputs)], dim=1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the gate weights, of shape `(batch, n_gates, n_experts)`."""
        return self.logits(inputs).softmax(dim=2)


def mix(weights: Tensor, experts: Tensor) -> Tensor:
    """Mix `(n_experts, batch, width)` by `(batch, n_gates, n_experts)`, gates first."""
    return torch.bmm(weights, experts.transpose(0, 1)).transpose(0, 1)


class CrossNetwork(nn.Module):
    r"""The cross layers of DCN-v2, :math:`x_{l+1} = x_0 \odot (W_l x_l + b_l) + x_l`.

    They start as the identity. `width` is that of the dense input.
    """

    def __init__(self, width: int, n_layers: int, rank: int | None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CrossLayer(width, rank) for _ in range(n_layers))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, width)` to the same shape."""
        hidden = inputs
        for layer in self.layers:
            # Equation 1 of DCN-v2, with the product W x + b from the layer.
            hidden = inputs * layer(hidden) + hidden
        return hidden


class CrossLayer(nn.Module):
    """The linear map of a cross layer: a matrix, or two of a low rank if faster."""

    def __init__(self, width: int, rank: int | None) -> None:
        super().__init__()
        self.reduction: nn.Parameter | None = None
        n_in = width
        if rank is not None and 2 * rank < width:
            self.reduction = nn.Parameter(torch.randn(width, rank) / math.sqrt(width))
            n_in = rank
        # Zeros make the layer the identity at the start; the gradient is not 0, since
        # it is multiplied by the input.
        self.weight = nn.Parameter(torch.zeros(n_in, width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, width)` to the same shape."""
        reduced = inputs if self.reduction is None else inputs @ self.reduction
        return torch.addmm(self.bias, reduced, self.weight)


class FactorizationMachine(nn.Module):
    """The input, followed by the second-order term of a factorisation machine.

    The term is the elementwise sum of e_i * e_j over pairs i < j, where e_i is one of
    `n_embedded` embeddings, of category columns or sums over bags, or one of the
    `n_numeric` numbers after them times a learned vector. It has `dim` elements, which
    the network weights. Lemma 3.1 of Rendle (2010) computes it in linear time.
    """

    # Standard deviation of initial vectors, the same as that of embeddings: products
    # start near 0.
    initial_std = 0.01

    def __init__(self, n_embedded: int, dim: int, n_numeric: int) -> None:
        super().__init__()
        self.fields = (n_embedded, dim)
        self.vectors = nn.Parameter(torch.randn(n_numeric, dim) * self.initial_std)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, n_in)` to `(batch, n_in + dim)`."""
        n_columns = math.prod(self.fields)
        embedded = inputs[:, :n_columns].reshape(inputs.shape[0], *self.fields)
        numeric = inputs[:, n_columns:]
        # The difference of two large sums: half precision would lose most digits.
        with torch.autocast(inputs.device.type, enabled=False):
            total = torch.addmm(embedded.sum(1), numeric, self.vectors)
            squares = torch.addmm(
                embedded.square().sum(1), numeric.square(), self.vectors.square()
            )
        # Lemma 3.1: the sum over pairs from the square of the sum and the sum of
        # squares.
        pairs = (total.square() - squares) / 2
        return torch.cat([inputs, pairs], dim=1)


class DomainGate(nn.Module):
    """Multiplies every column by a factor in (0, 2), computed from domain features.

    The factors are 2 sigmoid(W relu(V d + c) + b), where d are the columns of the
    features. They start at 1. Embeddings in d are divided by the root of their mean
    square, since they start near 0, and the effects of the domain would, too.
    """

    n_units = 32
    places: Tensor

    def __init__(
        self, owners: Sequence[int], features: Sequence[int], n_embedded: int
    ) -> None:
        super().__init__()
        self.is_embedded = [feature < n_embedded for feature in features]
        places = [[p for p, own in enumerate(owners) if own == f] for f in features]
        self.sizes = [len(of_feature) for of_feature in places]
        buffer = torch.tensor([p for of_feature in places for p in of_feature])
        self.register_buffer("places", buffer, persistent=False)
        self.hidden = Linear(len(buffer), self.n_units)
        self.output = Linear(self.n_units, len(owners))
        # With zeros, all factors are 2 sigmoid(0) = 1 before training.
        nn.init.zeros_(self.output.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, width)` to the same shape."""
        parts = []
        features = torch.split(inputs.index_select(1, self.places), self.sizes, dim=1)
        for part, is_embedded in zip(features, self.is_embedded, strict=True):
            if is_embedded:
                length = math.sqrt(part.shape[1])
                part = F.normalize(part, dim=1, eps=1e-4) * length
            parts.append(part)
        hidden = torch.relu(self.hidden(torch.cat(parts, dim=1)))
        return inputs * (2 * torch.sigmoid(self.output(hidden)))

"""The layers: perceptrons, towers, experts with gates, products, bins of numbers."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sk_pwiser._utils import check_integer, check_number, generator_on, is_iterable

Activation = Callable[[Tensor], Tensor]

# A tensor that moves with a module, but is not part of its saved state.
constant = partial(nn.Buffer, persistent=False)


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
    each = inputs.unbind() if inputs.dim() == 3 else [inputs] * len(modules)
    return zip(modules, each, strict=True)


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
        own = inputs.unbind() if inputs.dim() == 3 else [inputs] * len(self)
        pairs: Any = zip(self, own, strict=True)
        logits = [tower["output"](tower["hidden"](each)) for tower, each in pairs]
        return torch.cat(logits, dim=1)

    def _jointly(self, inputs: Tensor) -> Tensor:
        """Compute all towers by the same kernels."""
        towers: Any = list(self)
        hidden, dropout = inputs, towers[0]["hidden"].dropout
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
        return torch.cat([group(each) for group, each in pair(self, inputs)])


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
        return torch.cat([inputs, (total.square() - squares) / 2], dim=1)


class DomainGate(nn.Module):
    """Multiplies every column by a factor in (0, 2), computed from domain features.

    The factors are 2 sigmoid(W relu(V d + c) + b), where d are the columns of the
    features. They start at 1. Embeddings in d are divided by the root of their mean
    square, since they start near 0, and the effects of the domain would, too.
    """

    n_units = 32

    def __init__(
        self, owners: Sequence[int], features: Sequence[int], n_embedded: int
    ) -> None:
        super().__init__()
        self.is_embedded = [feature < n_embedded for feature in features]
        places = [[p for p, own in enumerate(owners) if own == f] for f in features]
        self.sizes = [len(of_feature) for of_feature in places]
        self.places = constant(torch.tensor([p for each in places for p in each]))
        self.hidden = Linear(len(self.places), self.n_units)
        self.output = Linear(self.n_units, len(owners))
        # With zeros, all factors are 2 sigmoid(0) = 1 before training.
        nn.init.zeros_(self.output.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, width)` to the same shape."""
        parts = []
        features = torch.split(inputs.index_select(1, self.places), self.sizes, dim=1)
        for part, is_embedded in zip(features, self.is_embedded, strict=True):
            if is_embedded:
                part = F.normalize(part, dim=1, eps=1e-4) * math.sqrt(part.shape[1])
            parts.append(part)
        hidden = torch.relu(self.hidden(torch.cat(parts, dim=1)))
        return inputs * (2 * torch.sigmoid(self.output(hidden)))


# Columns with more bins than `FEW_BINS` are projected to fewer inputs, since a first
# layer that reads all bins takes most of the time of training. If many columns are
# projected, each one has fewer inputs. Smooth effects, which the score represents,
# need fewer than values that act like categories.
FEW_BINS, SMALLEST_DIM = 8, 2
LARGEST_SMOOTH_DIM, LARGEST_SMOOTH_WIDTH = 4, 128
LARGEST_DIM, LARGEST_WIDTH = 8, 256


def edge_scores(n_bins: int) -> Tensor:
    """Return the normal scores of the edges of bins, of shape (n_bins + 1,)."""
    shares = torch.linspace(0, 1, n_bins + 1)
    scores: Tensor = torch.special.ndtri(shares.clamp(0.01, 0.99))
    return scores


class BinExpansion(nn.Module):
    """Expand positions among the edges of bins to one component per bin.

    Component t of a position u is u - t, clipped to [0, 1]: the piecewise linear
    encoding of :arxiv:`2203.05556`, equation 1, except that values beyond the outer
    edges are clipped to these. Inputs with 0 bins stay unchanged, and come first.

    With `scales`, the factors of the components, a position is also mapped to its
    normal score. At edge t of n, this is the normal quantile of t / n, limited to
    [0.01, 0.99]; between the edges it is linear. The score is all that smooth effects
    need. Scores come before the components; inputs with one bin have none.

    The layer reads the numeric inputs `columns`; `owners` has that of each output.
    """

    def __init__(
        self, n_bins: Sequence[int], scales: Sequence[float], columns: Sequence[int]
    ) -> None:
        super().__init__()
        plain = [j for j in columns if n_bins[j] == 0]
        scored = [j for j in columns if n_bins[j] > 1 and scales]
        binned = [j for j in columns for _ in range(n_bins[j])]
        self.owners = [*plain, *scored, *binned]
        self.sizes = [len(plain), len(scored), len(binned)]
        starts = [float(t) for j in columns for t in range(n_bins[j])]
        factors = [float(scales[j]) if scales else 1.0 for j in binned]
        n_edges = torch.tensor([0, *(n_bins[j] + 1 for j in scored)])
        scores = [edge_scores(n_bins[j]) for j in scored]
        self.inputs = constant(torch.tensor(self.owners))
        self.starts = constant(torch.tensor(starts))
        self.factors = constant(torch.tensor(factors))
        self.first_edges = constant(n_edges.cumsum(0)[:-1])
        self.last_bins = constant(torch.tensor([n_bins[j] - 1.0 for j in scored]))
        self.edge_scores = constant(torch.cat([*scores, torch.zeros(0)]))

    def forward(self, numeric: Tensor) -> Tensor:
        """Map `(batch, n_numeric)` to `(batch, n_out)`."""
        inputs = numeric.index_select(1, self.inputs)
        plain, scored, positions = torch.split(inputs, self.sizes, dim=1)
        # Equation 1 of the paper, for bins of width 1.
        components = (positions - self.starts).clamp(0, 1)
        if not self.sizes[1]:
            return torch.cat([plain, components], dim=1)
        # Normal scores, interpolated between the edges. The last edge itself belongs to
        # the last bin.
        bins = torch.minimum(scored.floor(), self.last_bins)
        edges = bins.long() + self.first_edges
        low, high = self.edge_scores[edges], self.edge_scores[edges + 1]
        scores = low + (scored - bins) * (high - low)
        return torch.cat([plain, scores, components * self.factors], dim=1)


class BinProjection(nn.Module):
    """Map positions among many bins to few inputs, by a learned matrix per column.

    The result is the normal score, followed by the components of :class:`BinExpansion`
    times the matrix: a linear layer on the encoding (:arxiv:`2203.05556`, section 3.4).
    It has no bias, since the next layer has one. The layer reads the numeric inputs
    `columns`; `owners` has that of each output.
    """

    def __init__(
        self,
        n_bins: Sequence[int],
        scales: Sequence[float],
        columns: Sequence[int],
        dim: int,
    ) -> None:
        super().__init__()
        self.has_scores = len(scales) > 0
        n_columns, width = len(columns), dim + self.has_scores
        self.owners = [column for column in columns for _ in range(width)]
        reads_all = [*columns] == [*range(len(n_bins))]  # in their order
        n_bins = [n_bins[column] for column in columns]
        n_rows, longest = sum(n_bins), max(n_bins)
        # Columns with fewer bins than the longest are padded by any row times 0.
        # All columns have the bins of the longest, so that they are one batched
        # product.
        is_used = torch.arange(longest) < torch.tensor(n_bins).unsqueeze(1)
        rows = (is_used.flatten().cumsum(0) - 1).view(is_used.shape)
        self.first_scores = constant(torch.zeros(n_columns, 1, width))
        self.score_steps = constant(torch.zeros(n_columns, longest, 1))
        for column, n in enumerate(n_bins if self.has_scores else ()):
            scores = edge_scores(n)
            self.first_scores[column, 0, 0] = scores[0]
            self.score_steps[column, :n, 0] = scores.diff()
        factors = torch.tensor(
            [scales[j] if scales else 1.0 for j in columns], dtype=torch.float32
        )
        # Smaller weights than those of variance 1 / dim, and even smaller ones where
        # the components count half, gave a higher AUC on validation rows.
        sizes = (factors / (2 * dim)).sqrt().repeat_interleave(torch.tensor(n_bins))
        self.weight = nn.Parameter(torch.randn(n_rows, dim) * sizes.unsqueeze(1))
        self.inputs = None if reads_all else constant(torch.tensor(columns))
        self.starts = constant(torch.arange(longest, dtype=torch.float32))
        self.rows = None if bool(is_used.all()) else constant(rows)
        self.factors = constant((factors.view(-1, 1) * is_used).unsqueeze(2))

    def forward(self, numeric: Tensor) -> Tensor:
        """Map `(batch, n_numeric)` to `(batch, n_out)`, column after column."""
        if self.inputs is not None:
            numeric = numeric.index_select(1, self.inputs)
        components = (numeric.t().unsqueeze(2) - self.starts).clamp_(0, 1)
        weight: Tensor = self.weight
        if self.rows is not None:
            weight = F.embedding(self.rows, weight)
        n_columns, longest, _ = self.factors.shape
        matrices = weight.view(n_columns, longest, -1) * self.factors
        if self.has_scores:
            # Scores are linear within a bin, like the components, so that one product
            # computes both: the steps of the score are one more column.
            matrices = torch.cat([self.score_steps, matrices], dim=2)
        inputs = torch.baddbmm(self.first_scores, components, matrices)
        return inputs.transpose(0, 1).flatten(1)


def numeric_groups(
    n_bins: Sequence[int], scales: Sequence[float]
) -> list[tuple[list[int], int]]:
    """Group numeric inputs by the number of inputs to which they are projected.

    Each group comes with this number, which is 0 without a projection.
    """
    # A group has one width, so that it is computed by one batched product.
    few = [j for j, n in enumerate(n_bins) if n <= FEW_BINS]
    many = [j for j, n in enumerate(n_bins) if n > FEW_BINS]
    smooth = [j for j in many if scales and scales[j] < 1]
    other = [j for j in many if not scales or scales[j] >= 1]
    groups = [(few, 0)] if few else []
    for columns, largest, largest_width in (
        (smooth, LARGEST_SMOOTH_DIM, LARGEST_SMOOTH_WIDTH),
        (other, LARGEST_DIM, LARGEST_WIDTH),
    ):
        if columns:
            dim = max(SMALLEST_DIM, largest_width // len(columns))
            groups.append((columns, min(largest, dim)))
    return groups


class NumericInputs(nn.Module):
    """The numeric inputs. An input with bins becomes several.

    With at most `FEW_BINS` bins, there is one component per bin. With more bins, the
    components are projected: to at most `LARGEST_SMOOTH_DIM` inputs if a normal score
    represents smooth effects beside them (a factor below 1), and to at most
    `LARGEST_DIM` otherwise.
    """

    def __init__(
        self, n_bins: Sequence[int], scales: Sequence[float] = (), n_others: int = 0
    ) -> None:
        super().__init__()
        layers: list[BinExpansion | BinProjection] = [
            BinProjection(n_bins, scales, columns, dim)
            if dim
            else BinExpansion(n_bins, scales, columns)
            for columns, dim in numeric_groups(n_bins, scales)
        ]
        self.layers = nn.ModuleList(layers)
        self.owners = [owner for layer in layers for owner in layer.owners]
        # The initial variance of a first layer's weights falls with its width. This
        # ratio gives a component, whose weight is now a product of two, the variance
        # that it would have without a projection.
        n_components = sum(max(1, n) + (n > 1 and len(scales) > 0) for n in n_bins)
        ratio = (len(self.owners) + n_others) / (n_components + n_others)
        for weight in self.parameters():
            weight.data *= math.sqrt(ratio)

    def forward(self, numeric: Tensor) -> Tensor:
        """Map `(batch, n_numeric)` to `(batch, n_out)`."""
        parts = [layer(numeric) for layer in self.layers]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

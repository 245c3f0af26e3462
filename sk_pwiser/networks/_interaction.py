"""Products and factors of columns, for the dense input of any network."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sk_pwiser.networks._layers import Linear


class Interaction(nn.Module):
    """Base class: maps a dense input to one of `width` columns.

    It is built from `widths, embedding_dim, n_numeric` and `options`, by name. The
    columns of the input are the embeddings of category columns, whose `widths` are
    at most `embedding_dim`, the sums over bags, and `n_numeric` numbers. `options` are
    fields of the specification.
    """

    width: int
    needs_equal_widths = False
    options: tuple[str, ...] = ()


class CrossNetwork(Interaction):
    r"""The cross layers of DCN-v2, :math:`x_{l+1} = x_0 \odot (W_l x_l + b_l) + x_l`.

    They start as the identity.
    """

    options = ("n_cross_layers", "cross_rank")

    def __init__(
        self,
        widths: Sequence[int],
        embedding_dim: int,
        n_numeric: int,
        *,
        n_cross_layers: int = 1,
        cross_rank: int | None = None,
    ) -> None:
        super().__init__()
        self.width = sum(widths) + n_numeric
        layers = [CrossLayer(self.width, cross_rank) for _ in range(n_cross_layers)]
        self.layers = nn.ModuleList(layers)

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


class FactorizationMachine(Interaction):
    """The input, followed by the second-order term of a factorisation machine.

    The term is the elementwise sum of e_i * e_j over pairs i < j, where e_i is the
    embedding of a category column, or a numeric input times a learned vector. It has
    `embedding_dim` elements, which the network weights. Lemma 3.1 of Rendle (2010)
    computes it in linear time.
    """

    # Standard deviation of initial vectors, the same as that of embeddings: products
    # start near 0.
    initial_std = 0.01
    needs_equal_widths = True

    def __init__(
        self, widths: Sequence[int], embedding_dim: int, n_numeric: int
    ) -> None:
        super().__init__()
        self.fields = (len(widths), embedding_dim)
        self.n_embedded = len(widths) * embedding_dim
        self.width = self.n_embedded + n_numeric + embedding_dim
        vectors = torch.randn(n_numeric, embedding_dim)
        self.vectors = nn.Parameter(vectors * self.initial_std)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, n_in)` to `(batch, width)`."""
        embedded = inputs[:, : self.n_embedded].reshape(inputs.shape[0], *self.fields)
        numeric = inputs[:, self.n_embedded :]
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

    def __init__(
        self, owners: Sequence[int], features: Sequence[int], n_embedded: int
    ) -> None:
        super().__init__()
        self.is_embedded = [feature < n_embedded for feature in features]
        places = [[p for p, own in enumerate(owners) if own == f] for f in features]
        for index, of_feature in enumerate(places):
            buffer = torch.tensor(of_feature)
            self.register_buffer(f"places_{index}", buffer, persistent=False)
        self.scales = [math.sqrt(len(of_feature)) for of_feature in places]
        self.hidden = Linear(sum(map(len, places)), self.n_units)
        self.output = Linear(self.n_units, len(owners))
        # With zeros, all factors are 2 sigmoid(0) = 1 before training.
        nn.init.zeros_(self.output.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, width)` to the same shape."""
        parts = []
        for index, is_embedded in enumerate(self.is_embedded):
            part = inputs.index_select(1, self.get_buffer(f"places_{index}"))
            if is_embedded:
                part = F.normalize(part, dim=1, eps=1e-4) * self.scales[index]
            parts.append(part)
        hidden = torch.relu(self.hidden(torch.cat(parts, dim=1)))
        return inputs * (2 * torch.sigmoid(self.output(hidden)))


INTERACTIONS: dict[str, type[Interaction]] = {
    "cross": CrossNetwork,
    "fm": FactorizationMachine,
}

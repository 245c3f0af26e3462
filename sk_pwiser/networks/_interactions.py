"""Products of the columns of a dense input: cross layers, factorisation machine."""

import math

import torch
from torch import Tensor, nn


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

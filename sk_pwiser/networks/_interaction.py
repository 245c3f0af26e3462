"""Products of columns, for the dense input of any network."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Interaction(nn.Module):
    """Base class: maps a dense input to one of `width` columns.

    The columns of the input are the embeddings of the category columns, of `widths` up
    to `embedding_dim`, the sums over bags, which count as category columns, and
    `n_numeric` numeric inputs.
    """

    width: int
    needs_equal_widths = False

    def __init__(
        self, widths: Sequence[int], embedding_dim: int, n_numeric: int
    ) -> None:
        super().__init__()

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, n_in)` to `(batch, width)`."""
        raise NotImplementedError


class CrossLayer(Interaction):
    """A cross layer of DCN-v2, x * (W x + b) + x, which starts as the identity."""

    def __init__(
        self, widths: Sequence[int], embedding_dim: int, n_numeric: int
    ) -> None:
        super().__init__(widths, embedding_dim, n_numeric)
        self.width = sum(widths) + n_numeric
        self.weight = nn.Parameter(torch.zeros(self.width, self.width))
        self.bias = nn.Parameter(torch.zeros(self.width))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, width)` to the same shape."""
        return inputs * torch.addmm(self.bias, inputs, self.weight) + inputs


class FactorizationMachine(Interaction):
    """The input, followed by the second-order term of a factorisation machine.

    The term is the sum over pairs i < j of e_i * e_j, elementwise, with e_i the
    embedding of a category column, or a numeric input times a learned vector. Rendle's
    term is the sum of its `embedding_dim` elements; here the network weights these.
    Lemma 3.1 of Rendle (2010), "Factorization Machines", computes the sum over pairs in
    linear time.
    """

    # Standard deviation of initial vectors, the same as that of embeddings: products
    # start near 0.
    initial_std = 0.01
    needs_equal_widths = True

    def __init__(
        self, widths: Sequence[int], embedding_dim: int, n_numeric: int
    ) -> None:
        super().__init__(widths, embedding_dim, n_numeric)
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
        pairs = (total.square() - squares) / 2
        return torch.cat([inputs, pairs], dim=1)


INTERACTIONS: dict[str, type[Interaction]] = {
    "cross": CrossLayer,
    "fm": FactorizationMachine,
}

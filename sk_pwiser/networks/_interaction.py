"""Products of columns, for the dense input of any network."""

import torch
from torch import Tensor, nn


class Interaction(nn.Module):
    """Base class: maps a dense input to one of `width` columns.

    The input holds the embeddings of the category columns, one after the other, and
    the numeric inputs behind these. Each table has parameters of its own.

    Parameters
    ----------
    n_tables : int
        Number of embedding tables.
    n_columns : int
        Number of category columns.
    embedding_dim : int
        Width of an embedding.
    n_numeric : int
        Number of numeric inputs, after bins were spread.
    """

    width: int

    def __init__(
        self, n_tables: int, n_columns: int, embedding_dim: int, n_numeric: int
    ) -> None:
        super().__init__()

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, n_in)`, one table, or `(n_tables, batch, n_in)`."""
        if inputs.dim() == 3:
            return self.stacked(inputs)
        return self.stacked(inputs.unsqueeze(0)).squeeze(0)

    def stacked(self, inputs: Tensor) -> Tensor:
        """Map `(n_tables, batch, n_in)` to `(n_tables, batch, width)`."""
        raise NotImplementedError


class CrossLayer(Interaction):
    """A cross layer of DCN-v2 on its own input, x * (W x + b) + x.

    It starts as the identity, W = 0 and b = 0: products come in as the rows ask for
    them. Parameters as those of `Interaction`.

    References
    ----------
    Wang, Shivanna, Cheng, Jain, Lin, Hong and Chi (2021). "DCN V2: Improved Deep &
    Cross Network." WWW. :arxiv:`2008.13535`. Equation 1, for the first layer.
    """

    def __init__(
        self, n_tables: int, n_columns: int, embedding_dim: int, n_numeric: int
    ) -> None:
        super().__init__(n_tables, n_columns, embedding_dim, n_numeric)
        self.width = n_columns * embedding_dim + n_numeric
        self.weight = nn.Parameter(torch.zeros(n_tables, self.width, self.width))
        self.bias = nn.Parameter(torch.zeros(n_tables, 1, self.width))

    def stacked(self, inputs: Tensor) -> Tensor:
        """Map `(n_tables, batch, width)` to the same shape."""
        return inputs * torch.baddbmm(self.bias, inputs, self.weight) + inputs


class FactorizationMachine(Interaction):
    """The input, and behind it the second-order term of a factorisation machine.

    The term is the sum over pairs i < j of e_i * e_j, elementwise, where e_i is the
    embedding of a category column, or a numeric input times a vector that is learnt
    for it. The sum of its `embedding_dim` elements is Rendle's; the network weighs
    these instead. Parameters as those of `Interaction`.

    References
    ----------
    Rendle (2010). "Factorization Machines." ICDM. Lemma 3.1 computes the sum over
    pairs in linear time.
    """

    # Vectors start as small as embeddings do, so that products start near 0.
    initial_scale = 0.01

    def __init__(
        self, n_tables: int, n_columns: int, embedding_dim: int, n_numeric: int
    ) -> None:
        super().__init__(n_tables, n_columns, embedding_dim, n_numeric)
        self.fields = (n_columns, embedding_dim)
        self.n_embedded = n_columns * embedding_dim
        self.width = self.n_embedded + n_numeric + embedding_dim
        vectors = torch.randn(n_tables, n_numeric, embedding_dim)
        self.vectors = nn.Parameter(vectors * self.initial_scale)

    def stacked(self, inputs: Tensor) -> Tensor:
        """Map `(n_tables, batch, n_in)` to `(n_tables, batch, width)`."""
        embedded = inputs[..., : self.n_embedded]
        embedded = embedded.reshape(*inputs.shape[:2], *self.fields)
        numeric = inputs[..., self.n_embedded :]
        # Two large sums nearly cancel: half precision would leave little of them.
        with torch.autocast(inputs.device.type, enabled=False):
            total = torch.baddbmm(embedded.sum(2), numeric, self.vectors)
            squares = torch.baddbmm(
                embedded.square().sum(2), numeric.square(), self.vectors.square()
            )
        pairs = (total.square() - squares) / 2
        return torch.cat([inputs, pairs], dim=2)


INTERACTIONS: dict[str, type[Interaction]] = {
    "cross": CrossLayer,
    "fm": FactorizationMachine,
}

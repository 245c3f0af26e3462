"""The dense input of every network, from category codes and numeric inputs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class InputLayer(nn.Module):
    """Category embeddings beside numeric inputs.

    All category columns share one embedding table, each from its own offset on, and
    are looked up in one call. In training some values are taken for unseen ones: this
    trains the code of these, and keeps the network from leaning on single values.

    Parameters
    ----------
    cardinalities : sequence of int
        Number of codes of each category column.
    n_numeric : int
        Number of numeric inputs.
    embedding_dim : int
        Width of an embedding.
    n_tables : int, default=1
        Number of independent embedding tables, held side by side.
    unseen_code : int, default=1
        Code of an unseen value, in every column.
    unseen_rate : float, default=0.0
        Share of values taken for unseen ones in training.
    """

    offsets: Tensor

    # Embeddings that start small leave a value seen a few times near its column's
    # neutral value: the network learns it only as far as the rows insist.
    initial_scale = 0.01

    def __init__(
        self,
        cardinalities: Sequence[int],
        n_numeric: int,
        embedding_dim: int,
        *,
        n_tables: int = 1,
        unseen_code: int = 1,
        unseen_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.unseen_code = unseen_code
        self.unseen_rate = unseen_rate
        self.n_tables = n_tables
        self.embedding_dim = embedding_dim
        self.width = len(cardinalities) * embedding_dim + n_numeric
        sizes = torch.tensor([0, *cardinalities], dtype=torch.int64)
        self.register_buffer("offsets", sizes.cumsum(0)[:-1], persistent=False)
        self.embedding = nn.Embedding(int(sizes.sum()), n_tables * embedding_dim)
        nn.init.normal_(self.embedding.weight, std=self.initial_scale)

    def forward(self, codes: Tensor, numeric: Tensor) -> Tensor:
        """Return `(batch, width)`, or `(n_tables, batch, width)` for several tables."""
        if self.training and self.unseen_rate > 0:
            unseen = torch.rand(codes.shape, device=codes.device) < self.unseen_rate
            codes = codes.masked_fill(unseen, self.unseen_code)
        embedded = self.embedding(codes + self.offsets)
        if self.n_tables == 1:
            return torch.cat([embedded.flatten(1), numeric], dim=1)
        batch, n_columns = codes.shape
        embedded = embedded.view(batch, n_columns, self.n_tables, self.embedding_dim)
        embedded = embedded.permute(2, 0, 1, 3).flatten(2)
        return torch.cat([embedded, numeric.expand(self.n_tables, -1, -1)], dim=2)

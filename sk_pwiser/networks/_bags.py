"""Bags: inputs with any number of weighted entries per row, pooled by sums."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sk_pwiser._utils import generator_on


class Bags(NamedTuple):
    """The entries of the bags of a batch, bag after bag and row after row.

    Parameters
    ----------
    offsets : int64 Tensor of shape (batch * n_bags + 1,)
        Where the entries of each bag start, and where the last ones end.
    indices : int64 Tensor of shape (n_entries,)
        The vector that each entry selects, counted over all bags: those of the second
        bag follow those of the first.
    weights : float32 Tensor of shape (n_entries,), default=None
        Weights of the entries; None if all are 1.

    Examples
    --------
    Two rows with one bag each, of two entries and of one.

    >>> import torch
    >>> from sk_pwiser.networks import Bags
    >>> bags = Bags(torch.tensor([0, 2, 3]), torch.tensor([4, 0, 4]))
    >>> bags.indices[bags.offsets[0] : bags.offsets[1]].tolist()
    [4, 0]
    """

    offsets: Tensor
    indices: Tensor
    weights: Tensor | None = None

    def to(self, device: torch.device) -> "Bags":
        """Move the tensors to a device.

        Parameters
        ----------
        device : torch.device
            The device.

        Returns
        -------
        Bags
            The same entries there.
        """
        weights = None if self.weights is None else self.weights.to(device)
        return Bags(self.offsets.to(device), self.indices.to(device), weights)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name; without weights if all are 1."""
        return {k: v for k, v in self._asdict().items() if v is not None}


class BagSpec(NamedTuple):
    """An input that holds any number of entries per row.

    Parameters
    ----------
    n_vectors : int
        Number of vectors that its entries select from.
    has_unseen : bool, default=False
        Whether one of the vectors, that of `unseen_code`, stands for unseen values.
        Category dropout then applies to the entries.

    Examples
    --------
    >>> from sk_pwiser.networks import BagSpec, NetworkSpec
    >>> spec = NetworkSpec([], 0, 4, [0.1], bags=[BagSpec(1_000)])
    >>> spec.bags[0].n_vectors
    1000
    """

    n_vectors: int
    has_unseen: bool = False


class BagEmbeddings(nn.Module):
    """Weighted sums of vectors, one sum per bag: a linear layer of sparse inputs."""

    starts: Tensor
    unseen: Tensor

    def __init__(
        self,
        bags: Sequence[BagSpec],
        dim: int,
        n_tables: int,
        *,
        initial_std: float,
        unseen_code: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.n_bags = len(bags)
        self.width = len(bags) * dim
        self.dropout = dropout if any(bag.has_unseen for bag in bags) else 0.0
        ends = torch.tensor([bag.n_vectors for bag in bags]).cumsum(0)
        starts = torch.cat([ends.new_zeros(1), ends[:-1]])
        has_unseen = torch.tensor([bag.has_unseen for bag in bags])
        unseen = torch.where(has_unseen, starts + unseen_code, -1)
        self.register_buffer("starts", starts, persistent=False)
        self.register_buffer("unseen", unseen, persistent=False)
        self.embeddings = nn.ModuleList(
            nn.EmbeddingBag(int(ends[-1]), dim, mode="sum", include_last_offset=True)
            for _ in range(n_tables)
        )
        for table in self.embeddings:
            nn.init.normal_(table.get_parameter("weight"), std=initial_std)

    def forward(self, bags: Bags) -> Tensor:
        """Return `(batch, n_tables * n_bags * dim)`, table after table."""
        indices = self._drop(bags.indices)
        sums = [
            table(indices, bags.offsets, bags.weights).reshape(-1, self.width)
            for table in self.embeddings
        ]
        return torch.cat(sums, dim=1)

    def _drop(self, indices: Tensor) -> Tensor:
        """Apply category dropout in training."""
        if not self.training or self.dropout == 0:
            return indices
        bag = torch.bucketize(indices, self.starts, right=True) - 1
        unseen = self.unseen[bag]
        drawn = torch.empty(indices.shape, device=indices.device)
        drawn.uniform_(generator=generator_on(indices.device))
        return torch.where((drawn < self.dropout) & (unseen >= 0), unseen, indices)

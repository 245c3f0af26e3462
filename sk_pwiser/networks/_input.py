"""The dense input of every network, from category codes and numeric inputs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sk_pwiser.networks._interaction import INTERACTIONS


class BinExpansion(nn.Module):
    """Spread positions among the edges of bins over one component a bin.

    Component t of a position u is u - t, kept in [0, 1]: 1 in bins below the value, 0
    in those above, and its share of the way through its own bin. This is the piecewise
    linear encoding, but for values beyond the outer edges, which count as the edge.

    Parameters
    ----------
    n_bins : sequence of int
        Number of bins of each numeric input; inputs with 0 are left as they are, and
        come first.

    References
    ----------
    Gorishniy, Rubachev and Babenko (2022). "On Embeddings for Numerical Features in
    Tabular Deep Learning." NeurIPS. :arxiv:`2203.05556`. Equation 1.
    """

    plain: Tensor
    binned: Tensor
    starts: Tensor

    def __init__(self, n_bins: Sequence[int]) -> None:
        super().__init__()
        plain = [j for j, n in enumerate(n_bins) if n == 0]
        binned = [j for j, n in enumerate(n_bins) for _ in range(n)]
        starts = [float(t) for n in n_bins for t in range(n)]
        self.n_out = len(plain) + len(binned)
        for name, values, dtype in (
            ("plain", plain, torch.int64),
            ("binned", binned, torch.int64),
            ("starts", starts, torch.float32),
        ):
            buffer = torch.tensor(values, dtype=dtype)
            self.register_buffer(name, buffer, persistent=False)

    def forward(self, numeric: Tensor) -> Tensor:
        """Map `(batch, n_numeric)` to `(batch, n_out)`."""
        positions = numeric.index_select(1, self.binned)
        components = (positions - self.starts).clamp(0, 1)
        return torch.cat([numeric.index_select(1, self.plain), components], dim=1)


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
    numeric_bins : sequence of int, default=()
        Number of bins of each numeric input, see `BinExpansion`; empty for none.
    interaction : {"cross", "fm"} or None, default=None
        Products of columns; each table has its own.
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
        numeric_bins: Sequence[int] = (),
        interaction: str | None = None,
    ) -> None:
        super().__init__()
        _check_options(n_numeric, numeric_bins, interaction)
        self.unseen_code = unseen_code
        self.unseen_rate = unseen_rate
        self.n_tables = n_tables
        self.embedding_dim = embedding_dim
        sizes = torch.tensor([0, *cardinalities], dtype=torch.int64)
        self.register_buffer("offsets", sizes.cumsum(0)[:-1], persistent=False)
        self.embedding = nn.Embedding(int(sizes.sum()), n_tables * embedding_dim)
        nn.init.normal_(self.embedding.weight, std=self.initial_scale)
        self.bins = BinExpansion(numeric_bins) if any(numeric_bins) else None
        n_numeric = n_numeric if self.bins is None else self.bins.n_out
        self.width = len(cardinalities) * embedding_dim + n_numeric
        self.interaction = None
        if interaction is not None:
            self.interaction = INTERACTIONS[interaction](
                n_tables, len(cardinalities), embedding_dim, n_numeric
            )
            self.width = self.interaction.width

    def forward(self, codes: Tensor, numeric: Tensor) -> Tensor:
        """Return `(batch, width)`, or `(n_tables, batch, width)` for several tables."""
        if self.training and self.unseen_rate > 0:
            unseen = torch.rand(codes.shape, device=codes.device) < self.unseen_rate
            codes = codes.masked_fill(unseen, self.unseen_code)
        numeric = numeric if self.bins is None else self.bins(numeric)
        inputs = self._join(self.embedding(codes + self.offsets), numeric)
        return inputs if self.interaction is None else self.interaction(inputs)

    def _join(self, embedded: Tensor, numeric: Tensor) -> Tensor:
        if self.n_tables == 1:
            return torch.cat([embedded.flatten(1), numeric], dim=1)
        batch, n_columns, _ = embedded.shape
        embedded = embedded.view(batch, n_columns, self.n_tables, self.embedding_dim)
        embedded = embedded.permute(2, 0, 1, 3).flatten(2)
        return torch.cat([embedded, numeric.expand(self.n_tables, -1, -1)], dim=2)


def _check_options(
    n_numeric: int, numeric_bins: Sequence[int], interaction: str | None
) -> None:
    if len(numeric_bins) not in (0, n_numeric) or min(numeric_bins, default=0) < 0:
        raise ValueError(
            f"numeric_bins must hold one number >= 0 an input, {n_numeric}, or be "
            f"empty; got {numeric_bins!r}."
        )
    if interaction is not None and interaction not in INTERACTIONS:
        raise ValueError(
            f"interaction must be one of {sorted(INTERACTIONS)} or None; got "
            f"{interaction!r}."
        )

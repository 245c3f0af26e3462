"""Bags: inputs with any number of weighted entries per row, pooled by sums."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
        Weights of the entries. With None, all are 1.
    ages : float32 Tensor of shape (n_entries,), default=None
        Scaled ages of the entries, NaN if unknown; None if no bag has ages.

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
    ages: Tensor | None = None

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
        return Bags(**{name: t.to(device) for name, t in self.tensors.items()})

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name, without those that are None."""
        return {k: v for k, v in self._asdict().items() if v is not None}


# Vectors of a bag before those of its column: of empty and of missing lists.
N_SPECIAL = 2


class BagSpec(NamedTuple):
    """An input that holds any number of entries per row.

    Parameters
    ----------
    n_vectors : int
        Number of vectors from which the entries select.
    has_unseen : bool, default=False
        Whether one of the vectors, that of `unseen_code`, stands for unseen values.
        Category dropout then applies to the entries.
    column : int, default=None
        Index of a category column whose embeddings the bag shares. They follow two
        vectors of its own, which stand for an empty and for a missing list, so that
        `n_vectors` is 2 plus the cardinality of the column.
    attends : bool, default=False
        Whether attention to the value of `column` in the same row weights the entries.
        Otherwise they have their own weights only.
    has_ages : bool, default=False
        Whether the ages of the entries are inputs of the attention.

    Examples
    --------
    >>> from sk_pwiser.networks import BagSpec, NetworkSpec
    >>> spec = NetworkSpec([], 0, 4, [0.1], bags=[BagSpec(1_000)])
    >>> spec.bags[0].n_vectors
    1000
    """

    n_vectors: int
    has_unseen: bool = False
    column: int | None = None
    attends: bool = False
    has_ages: bool = False


class TargetAttention(nn.Module):
    r"""Weights of the entries of a bag by their relation to the target of their row.

    For a target with embedding q, and an entry with embedding k and age s, which may be
    unknown,

    .. math:: a = w^T \operatorname{relu}(W [q, k, q - k, q \odot k, s, known] + b) + c

    The weights are not normalised, so that their sum measures how well the bag fits
    the target. They start near 1 / `USUAL_ENTRIES`, so that the first sums are about
    means. This is equation 3 of the Deep Interest Network (Zhou et al. 2018,
    :arxiv:`1706.06978`) with other layers, and with ages.
    """

    n_units = 32
    USUAL_ENTRIES = 10

    def __init__(self, dim: int, has_ages: bool) -> None:
        super().__init__()
        self.has_ages = has_ages
        self.hidden = nn.Linear(4 * dim + 2 * has_ages, self.n_units)
        self.output = nn.Linear(self.n_units, 1)
        nn.init.constant_(self.output.bias, 1 / self.USUAL_ENTRIES)

    def forward(self, target: Tensor, entries: Tensor, ages: Tensor | None) -> Tensor:
        """Return the weights `(n_entries,)`; target and entries have `dim` columns."""
        inputs = [target, entries, target - entries, target * entries]
        if self.has_ages:
            assert ages is not None
            # An unknown age becomes 0 with the flag `known` at 0: NaN would spread to
            # all weights.
            is_unknown = ages.isnan()
            known = torch.where(is_unknown, torch.zeros_like(ages), ages)
            inputs.append(torch.stack([known, (~is_unknown).to(ages.dtype)], dim=1))
        hidden = torch.relu(self.hidden(torch.cat(inputs, dim=1)))
        weights: Tensor = self.output(hidden).squeeze(1)
        return weights


def _own_starts(bags: Sequence[BagSpec]) -> Tensor:
    """Return where the vectors of each bag begin among those of the layer, and end."""
    n_own = [bag.n_vectors if bag.column is None else N_SPECIAL for bag in bags]
    return torch.tensor([0, *n_own]).cumsum(0)


class BagEmbeddings(nn.Module):
    """Sums per bag of the vectors of this layer, or of tables of category columns."""

    starts: Tensor
    unseen: Tensor
    own_starts: Tensor
    rows: Tensor
    is_shared: Tensor
    dropout: Tensor

    def __init__(
        self,
        bags: Sequence[BagSpec],
        dim: int,
        n_tables: int,
        *,
        initial_std: float,
        unseen_code: int,
        dropouts: Sequence[float],
    ) -> None:
        super().__init__()
        self.n_bags = len(bags)
        self.width = len(bags) * dim
        self.unseen_code = unseen_code
        self.drops = any(
            dropout and bag.has_unseen
            for dropout, bag in zip(dropouts, bags, strict=True)
        )
        dropout = torch.tensor([*dropouts], dtype=torch.float32)
        self.register_buffer("dropout", dropout, persistent=False)
        self.shares = any(bag.column is not None for bag in bags)
        # One table holds the vectors of all bags, one bag after another.
        own_starts = _own_starts(bags)
        has_column = torch.tensor([bag.column is not None for bag in bags])
        self.register_buffer("is_shared", has_column, persistent=False)
        # `set_columns` sets their values, from the tables of the columns.
        for name in ("starts", "unseen", "own_starts", "rows"):
            self.register_buffer(name, own_starts[:-1], persistent=False)
        self.embeddings = nn.ModuleList(
            nn.EmbeddingBag(
                int(own_starts[-1]), dim, mode="sum", include_last_offset=True
            )
            for _ in range(n_tables)
        )
        for table in self.embeddings:
            nn.init.normal_(table.get_parameter("weight"), std=initial_std)
        self.attended = [(b, bag) for b, bag in enumerate(bags) if bag.attends]
        self.attention = nn.ModuleList(  # per table, one layer per bag
            nn.ModuleList(
                TargetAttention(dim, bag.has_ages) for _, bag in self.attended
            )
            for _ in range(n_tables if self.attended else 0)
        )

    def set_columns(self, bags: Sequence[BagSpec], offsets: Tensor) -> None:
        """Set the sizes of the bags; `offsets` has the first row of each column."""
        device, columns = offsets.device, [bag.column or 0 for bag in bags]
        sizes = torch.tensor([0, *(bag.n_vectors for bag in bags)], device=device)
        self.starts = sizes.cumsum(0)[:-1]
        self.own_starts = _own_starts(bags)[:-1].to(device)
        has_unseen = torch.tensor([bag.has_unseen for bag in bags], device=device)
        # In a shared bag, the codes of the column follow the special vectors.
        unseen = self.starts + self.unseen_code + N_SPECIAL * self.is_shared.to(device)
        self.unseen = torch.where(has_unseen, unseen, -1)
        if self.shares:
            self.rows = offsets[torch.tensor(columns, device=device)]

    @property
    def tables(self) -> list[nn.Parameter]:
        """The vectors of this layer, one row per vector, bag after bag."""
        return [table.get_parameter("weight") for table in self.embeddings]

    def set_tables(self, weights: Sequence[Tensor]) -> None:
        """Replace the vectors, in place, unless there are no `weights`."""
        for table, weight in zip(self.embeddings, weights, strict=len(weights) > 0):
            table.get_parameter("weight").data = weight
            table.num_embeddings = len(weight)  # type: ignore[assignment]

    def forward(
        self, bags: Bags, codes: Tensor | None, tables: Sequence[nn.Module]
    ) -> Tensor:
        """Return `(batch, n_tables * n_bags * dim)`; `codes` are those of targets."""
        bags = bags._replace(indices=self._drop(bags.indices))
        # EmbeddingBag is faster, but reads one table only. The other form is also the
        # one that exports use.
        if self.shares or torch.jit.is_tracing():  # type: ignore[no-untyped-call]
            sums = self._sums_of_entries(bags, codes, tables)
        else:
            sums = [
                table(bags.indices, bags.offsets, bags.weights)
                for table in self.embeddings
            ]
        return torch.cat([each.reshape(-1, self.width) for each in sums], dim=1)

    def locate(self, bags: Bags) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return where the vectors of the entries are, as four tensors `(n_entries,)`.

        These are the bag of each entry, counted over all rows; whether its vector
        belongs to this layer; the row of the vector in this layer; and its row in the
        tables of category columns. The row that is not used is a valid one.
        """
        n_entries = bags.indices.shape[0]
        ends = bags.offsets[1:-1]
        # A mark at the start of each bag after the first: their running sum numbers the
        # bags, also empty ones. The extra place takes the marks of empty bags at the
        # end.
        marks = torch.zeros(n_entries + 1, dtype=ends.dtype, device=ends.device)
        marks = marks.scatter_add(0, ends, torch.ones_like(ends))
        bag = marks.cumsum(0)[:-1]
        of_row = bag % self.n_bags
        local = bags.indices - self.starts[of_row]
        is_own = ~self.is_shared[of_row] | (local < N_SPECIAL)
        # Both rows are computed for all entries: to select entries would block the
        # host.
        own = self.own_starts[of_row] + torch.where(is_own, local, 0)
        code = torch.where(is_own, self.unseen_code, local - N_SPECIAL)
        return bag, is_own, own, self.rows[of_row] + code

    def _sums_of_entries(
        self, bags: Bags, codes: Tensor | None, tables: Sequence[nn.Module]
    ) -> list[Tensor]:
        """Return the sums of each table, from one vector per entry."""
        bag, is_own, own, shared = self.locate(bags)
        n_sums, sums = bags.offsets.shape[0] - 1, []
        for t, table in enumerate(self.embeddings):
            assert isinstance(table, nn.EmbeddingBag)
            vectors = F.embedding(own, table.weight, sparse=table.sparse)
            if self.shares:
                vectors = torch.where(is_own.unsqueeze(1), vectors, tables[t](shared))
            weights = bags.weights
            if weights is None:
                weights = torch.ones_like(vectors[:, 0])
            for i, (b, spec) in enumerate(self.attended):
                assert codes is not None
                assert spec.column is not None
                layers = self.attention[t]
                assert isinstance(layers, nn.ModuleList)
                attention = layers[i]
                # Special vectors, of empty and missing lists, keep their weights.
                chosen = ((bag % self.n_bags == b) & ~is_own).nonzero().squeeze(1)
                targets = tables[t](codes[:, spec.column])[bag[chosen] // self.n_bags]
                ages = None if bags.ages is None else bags.ages[chosen]
                found = attention(targets, vectors[chosen], ages).to(weights.dtype)
                weights = weights.index_put((chosen,), found * weights[chosen])
            vectors = vectors * weights.unsqueeze(1)
            zeros = vectors.new_zeros(n_sums, vectors.shape[1])
            places = bag.unsqueeze(1).expand_as(vectors)
            sums.append(zeros.scatter_add(0, places, vectors))
        return sums

    def _drop(self, indices: Tensor) -> Tensor:
        """Apply category dropout in training."""
        if not self.training or not self.drops:
            return indices
        bag = torch.bucketize(indices, self.starts, right=True) - 1
        unseen = self.unseen[bag]
        drawn = torch.empty(indices.shape, device=indices.device)
        drawn.uniform_(generator=generator_on(indices.device))
        is_dropped = (drawn < self.dropout[bag]) & (unseen >= 0)
        return torch.where(is_dropped, unseen, indices)

"""Sums over bags: embeddings of lists, with attention to a target."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sk_pwiser._utils._random import generator_on
from sk_pwiser.networks._layers import INITIAL_STD, constant
from sk_pwiser.networks._spec import N_SPECIAL, Bags, BagSpec, NetworkSpec


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
            filled_ages = torch.where(is_unknown, torch.zeros_like(ages), ages)
            is_known = (~is_unknown).to(ages.dtype)
            inputs.append(torch.stack([filled_ages, is_known], dim=1))
        hidden = torch.relu(self.hidden(torch.cat(inputs, dim=1)))
        weights: Tensor = self.output(hidden).squeeze(1)
        return weights


class BagEmbeddings(nn.Module):
    """Sums per bag of the vectors of this layer, or of tables of category columns.

    `offsets` has the first row of each category column in its table.
    """

    def __init__(self, spec: NetworkSpec, n_tables: int, offsets: Tensor) -> None:
        super().__init__()
        bags = spec.bags
        dim = spec.embedding_dim
        self.n_bags = len(bags)
        self.width = len(bags) * dim
        self.unseen_code = spec.unseen_code
        dropouts = spec.dropouts[len(spec.cardinalities) :]
        self.drops = any(
            dropout and bag.has_unseen
            for dropout, bag in zip(dropouts, bags, strict=True)
        )
        self.shares = any(bag.column is not None for bag in bags)
        self.dropout = constant(torch.tensor(dropouts, dtype=torch.float32))
        is_shared = torch.tensor([bag.column is not None for bag in bags])
        self.is_shared = constant(is_shared)
        n_vectors = self.set_columns(bags, offsets)
        # One table holds the vectors of all bags, one bag after another.
        self.embeddings = nn.ModuleList(
            nn.EmbeddingBag(n_vectors, dim, mode="sum", include_last_offset=True)
            for _ in range(n_tables)
        )
        for weight in self.embeddings.parameters():
            nn.init.normal_(weight, std=INITIAL_STD)
        # The bag and its column
        self.attended = [(b, bag.column) for b, bag in enumerate(bags) if bag.attends]
        self.attention = nn.ModuleList(  # per table, one layer per bag
            nn.ModuleList(
                TargetAttention(dim, bag.has_ages) for bag in bags if bag.attends
            )
            for _ in range(n_tables if self.attended else 0)
        )

    def set_columns(self, bags: Sequence[BagSpec], offsets: Tensor) -> int:
        """Set the sizes of the bags; return the number of vectors of the layer."""
        device = offsets.device
        sizes = torch.tensor([0, *(bag.n_vectors for bag in bags)], device=device)
        self.starts = constant(sizes.cumsum(0)[:-1])
        n_own = [bag.n_vectors if bag.column is None else N_SPECIAL for bag in bags]
        own_starts = torch.tensor([0, *n_own[:-1]], device=device).cumsum(0)
        self.own_starts = constant(own_starts)
        has_unseen = torch.tensor([bag.has_unseen for bag in bags], device=device)
        # In a shared bag, the codes of the column follow the special vectors.
        unseen = self.starts + self.unseen_code + N_SPECIAL * self.is_shared.to(device)
        self.unseen = constant(torch.where(has_unseen, unseen, -1))
        columns = torch.tensor([bag.column or 0 for bag in bags], device=device)
        self.rows = constant(offsets[columns] if self.shares else own_starts)
        return sum(n_own)

    @property
    def tables(self) -> list[nn.Parameter]:
        """The vectors of this layer, one row per vector, bag after bag."""
        return [table.get_parameter("weight") for table in self.embeddings]

    def forward(self, bags: Bags, codes: Any, tables: Sequence[nn.Module]) -> Tensor:
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
        return torch.cat([table.reshape(-1, self.width) for table in sums], dim=1)

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
        place_in_row = bag % self.n_bags
        vector = bags.indices - self.starts[place_in_row]
        is_in_layer = ~self.is_shared[place_in_row] | (vector < N_SPECIAL)
        # Both rows are computed for all entries: to select entries would block the
        # host.
        row_in_layer = self.own_starts[place_in_row] + torch.where(
            is_in_layer, vector, 0
        )
        code = torch.where(is_in_layer, self.unseen_code, vector - N_SPECIAL)
        row_in_column = self.rows[place_in_row] + code
        return bag, is_in_layer, row_in_layer, row_in_column

    def _sums_of_entries(
        self, bags: Bags, codes: Any, tables: Sequence[nn.Module]
    ) -> list[Tensor]:
        """Return the sums of each table, from one vector per entry."""
        bag, is_in_layer, row_in_layer, row_in_column = self.locate(bags)
        n_sums = bags.offsets.shape[0] - 1
        sums = []
        for t, table in enumerate(self.embeddings):
            assert isinstance(table, nn.EmbeddingBag)
            vectors = F.embedding(row_in_layer, table.weight, sparse=table.sparse)
            if self.shares:
                shared_vectors = tables[t](row_in_column)
                vectors = torch.where(is_in_layer.unsqueeze(1), vectors, shared_vectors)
            weights = bags.weights
            if weights is None:
                weights = torch.ones_like(vectors[:, 0])
            layers: Any = self.attention[t] if self.attended else ()
            for attention, (b, column) in zip(layers, self.attended, strict=True):
                # Special vectors, of empty and missing lists, keep their weights.
                chosen = ((bag % self.n_bags == b) & ~is_in_layer).nonzero().squeeze(1)
                targets = tables[t](codes[:, column])[bag[chosen] // self.n_bags]
                ages = None if bags.ages is None else bags.ages[chosen]
                attended = attention(targets, vectors[chosen], ages).to(weights.dtype)
                weights = weights.index_put((chosen,), attended * weights[chosen])
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
        return torch.where((drawn < self.dropout[bag]) & (unseen >= 0), unseen, indices)

"""The dense input of every network, from category codes and numeric inputs."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sk_pwiser._utils import generator_on
from sk_pwiser.networks._layers import CrossNetwork, DomainGate, FactorizationMachine
from sk_pwiser.networks._spec import N_SPECIAL, Bags, BagSpec, NetworkSpec

# Columns with more bins than `FEW_BINS` are projected to fewer inputs, since a first
# layer that reads all bins takes most of the time of training. If many columns are
# projected, each one has fewer inputs. Smooth effects, which the score represents,
# need fewer than values that act like categories.
FEW_BINS, SMALLEST_DIM = 8, 2
LARGEST_SMOOTH_DIM, LARGEST_SMOOTH_WIDTH = 4, 128
LARGEST_DIM, LARGEST_WIDTH = 8, 256

# Standard deviation of initial embeddings. If it is small, the embedding of a rare
# value stays near 0: it departs only as far as the value's few rows require.
INITIAL_STD = 0.01

# The default of `embedding_dim`: "auto" makes embeddings narrower, never wider, so that
# the memory of large vocabularies does not depend on it.
LARGEST_AUTOMATIC_DIM = 16


def automatic_dims(cardinalities: Sequence[int]) -> tuple[int, ...]:
    """Return min(16, round(1.6 * n**0.56)) for each column with n codes."""
    return tuple(
        min(LARGEST_AUTOMATIC_DIM, round(1.6 * n**0.56)) for n in cardinalities
    )


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

    inputs: Tensor
    starts: Tensor
    factors: Tensor
    first_edges: Tensor
    last_bins: Tensor
    edge_scores: Tensor

    def __init__(
        self, n_bins: Sequence[int], scales: Sequence[float], columns: Sequence[int]
    ) -> None:
        super().__init__()
        plain = [j for j in columns if n_bins[j] == 0]
        scored = [j for j in columns if n_bins[j] > 1 and scales]
        binned = [j for j in columns for _ in range(n_bins[j])]
        self.owners = [*plain, *scored, *binned]
        self.sizes = [len(plain), len(scored), len(binned)]
        starts = [t for j in columns for t in range(n_bins[j])]
        factors = [scales[j] if scales else 1 for j in binned]
        n_edges = torch.tensor([0, *(n_bins[j] + 1 for j in scored)])
        scores = [edge_scores(n_bins[j]) for j in scored]
        for name, buffer in (
            ("inputs", torch.tensor(self.owners)),
            ("starts", torch.tensor(starts).float()),
            ("factors", torch.tensor(factors, dtype=torch.float32)),
            ("first_edges", n_edges.cumsum(0)[:-1]),
            ("last_bins", torch.tensor([n_bins[j] - 1.0 for j in scored])),
            ("edge_scores", torch.cat([*scores, torch.zeros(0)])),
        ):
            self.register_buffer(name, buffer, persistent=False)

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

    inputs: Tensor | None
    starts: Tensor
    rows: Tensor | None
    factors: Tensor
    first_scores: Tensor
    score_steps: Tensor

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
        first_scores = torch.zeros(n_columns, 1, width)
        score_steps = torch.zeros(n_columns, longest, 1)
        for column, n in enumerate(n_bins if self.has_scores else ()):
            scores = edge_scores(n)
            first_scores[column, 0, 0] = scores[0]
            score_steps[column, :n, 0] = scores.diff()
        factors = torch.tensor(
            [scales[j] if scales else 1.0 for j in columns], dtype=torch.float32
        )
        # Smaller weights than those of variance 1 / dim, and even smaller ones where
        # the components count half, gave a higher AUC on validation rows.
        sizes = (factors / (2 * dim)).sqrt().repeat_interleave(torch.tensor(n_bins))
        self.weight = nn.Parameter(torch.randn(n_rows, dim) * sizes.unsqueeze(1))
        for name, buffer in (
            ("inputs", None if reads_all else torch.tensor(columns)),
            ("starts", torch.arange(longest, dtype=torch.float32)),
            ("rows", None if bool(is_used.all()) else rows),
            ("factors", (factors.view(-1, 1) * is_used).unsqueeze(2)),
            ("first_scores", first_scores),
            ("score_steps", score_steps),
        ):
            self.register_buffer(name, buffer, persistent=False)

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


def numeric_widths(spec: NetworkSpec) -> list[int]:
    """Return how many dense inputs each numeric input becomes.

    Parameters
    ----------
    spec : NetworkSpec
        The table that a network reads.

    Returns
    -------
    list of int, of length n_numeric
        1 for an input without bins. Otherwise, the components of its bins or their
        learned sums, and the normal score.

    Examples
    --------
    >>> from sk_pwiser.networks import NetworkSpec, numeric_widths
    >>> spec = NetworkSpec([], 3, 4, base_rates=[0.1], numeric_bins=[0, 5, 64])
    >>> numeric_widths(spec)
    [1, 5, 8]
    """
    n_bins, scales = spec.numeric_bins, spec.bin_scales
    widths = [1] * spec.n_numeric
    for columns, width in numeric_groups(n_bins, scales):
        for j in columns:
            has_score = n_bins[j] > 1 and len(scales) > 0
            widths[j] = (width or max(1, n_bins[j])) + has_score
    return widths


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


class BagEmbeddings(nn.Module):
    """Sums per bag of the vectors of this layer, or of tables of category columns.

    `offsets` has the first row of each category column in its table.
    """

    starts: Tensor
    unseen: Tensor
    own_starts: Tensor
    rows: Tensor
    is_shared: Tensor
    dropout: Tensor

    def __init__(self, spec: NetworkSpec, n_tables: int, offsets: Tensor) -> None:
        super().__init__()
        bags, dim = spec.bags, spec.embedding_dim
        self.n_bags = len(bags)
        self.width = len(bags) * dim
        self.unseen_code = spec.unseen_code
        dropouts = spec.dropouts[len(spec.cardinalities) :]
        self.drops = any(
            dropout and bag.has_unseen
            for dropout, bag in zip(dropouts, bags, strict=True)
        )
        self.shares = any(bag.column is not None for bag in bags)
        for name, buffer in (
            ("dropout", torch.tensor(dropouts, dtype=torch.float32)),
            ("is_shared", torch.tensor([bag.column is not None for bag in bags])),
            *((name, None) for name in ("starts", "unseen", "own_starts", "rows")),
        ):
            self.register_buffer(name, buffer, persistent=False)
        n_vectors = self.set_columns(bags, offsets)
        # One table holds the vectors of all bags, one bag after another.
        self.embeddings = nn.ModuleList(
            nn.EmbeddingBag(n_vectors, dim, mode="sum", include_last_offset=True)
            for _ in range(n_tables)
        )
        for table in self.embeddings:
            nn.init.normal_(table.get_parameter("weight"), std=INITIAL_STD)
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
        self.starts = sizes.cumsum(0)[:-1]
        n_own = [bag.n_vectors if bag.column is None else N_SPECIAL for bag in bags]
        self.own_starts = torch.tensor([0, *n_own[:-1]], device=device).cumsum(0)
        has_unseen = torch.tensor([bag.has_unseen for bag in bags], device=device)
        # In a shared bag, the codes of the column follow the special vectors.
        unseen = self.starts + self.unseen_code + N_SPECIAL * self.is_shared.to(device)
        self.unseen = torch.where(has_unseen, unseen, -1)
        columns = torch.tensor([bag.column or 0 for bag in bags], device=device)
        self.rows = offsets[columns] if self.shares else self.own_starts
        return sum(n_own)

    @property
    def tables(self) -> list[nn.Parameter]:
        """The vectors of this layer, one row per vector, bag after bag."""
        return [table.get_parameter("weight") for table in self.embeddings]

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
            layers: Any = self.attention[t] if self.attended else ()
            for attention, (b, column) in zip(layers, self.attended, strict=True):
                assert codes is not None
                # Special vectors, of empty and missing lists, keep their weights.
                chosen = ((bag % self.n_bags == b) & ~is_own).nonzero().squeeze(1)
                targets = tables[t](codes[:, column])[bag[chosen] // self.n_bags]
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


class InputLayer(nn.Module):
    """Category embeddings, sums over bags and numeric inputs, side by side.

    All category columns share one embedding table, in which each has an offset. A
    column with narrower embeddings uses their first components. In training, category
    dropout replaces random values by the code of unseen values, whose embedding is
    trained by this, and numeric inputs that depend on them by those of unseen values.
    Each of `n_tables` tables has its own projections of numeric columns, gate and
    interaction.
    """

    offsets: Tensor
    unseen: Tensor  # the rows of the tables for unseen values, one per column
    used: Tensor | None
    dropout: Tensor  # of each column
    unseen_inputs: Tensor  # the numeric inputs of unseen values
    values_of: Tensor  # the column of each numeric input; n_columns for none

    def __init__(self, spec: NetworkSpec, *, n_tables: int = 1) -> None:
        super().__init__()
        self.unseen_code = spec.unseen_code
        n_columns, dim = len(spec.cardinalities), spec.embedding_dim
        n_fields, each_table = n_columns + len(spec.bags), range(n_tables)
        dropouts = spec.dropouts[:n_columns]
        self.drops = any(dropouts)
        self.depends = len(spec.unseen_inputs) > 0
        values_of = torch.full((spec.n_numeric,), n_columns)
        unseen_inputs = torch.zeros(spec.n_numeric)
        for index, column, value in spec.unseen_inputs:
            values_of[index], unseen_inputs[index] = column, value
        # One lookup reads all columns at full width; `used` then drops the unused
        # components.
        used = None
        if sum(spec.widths) < n_columns * dim:
            components = torch.arange(dim) < torch.tensor(spec.widths).unsqueeze(1)
            used = components.flatten().nonzero().squeeze(1)
        for name, buffer in (
            ("dropout", torch.tensor(dropouts, dtype=torch.float32)),
            ("values_of", values_of),
            ("unseen_inputs", unseen_inputs),
            ("used", used),
            ("offsets", torch.zeros(0)),
            ("unseen", torch.zeros(0)),
        ):
            self.register_buffer(name, buffer, persistent=False)
        self._set_cardinalities(spec.cardinalities)
        tables = [nn.Embedding(sum(spec.cardinalities), dim) for _ in each_table]
        for table in tables:
            nn.init.normal_(table.weight, std=INITIAL_STD)
        self.embeddings = nn.ModuleList(tables)
        # Lists read the whole vectors of their column.
        of_lists = {bag.column for bag in spec.bags}
        self.read_widths = [
            dim if column in of_lists else width
            for column, width in enumerate(spec.widths)
        ]
        # Numeric projections, gates and interactions are built per table: tasks with
        # their own tables share no weights.
        widths = [*spec.widths, *[dim] * len(spec.bags)]
        numbers: Sequence[int] = range(spec.n_numeric)
        self.bins = nn.ModuleList()
        if any(spec.numeric_bins):
            args = spec.numeric_bins, spec.bin_scales, sum(widths)
            expanded = [NumericInputs(*args) for _ in each_table]
            self.bins.extend(expanded)
            numbers = expanded[0].owners
        # Which input each column of the dense input belongs to, counted in the order
        # category columns, bags, numeric inputs.
        self.owners = [
            owner for owner, width in enumerate(widths) for _ in range(width)
        ]
        self.owners += [n_fields + owner for owner in numbers]
        self.width = len(self.owners)
        # Bags may share the embeddings of columns: they read the columns' offsets.
        self.bags: BagEmbeddings | None = None
        if spec.bags:
            self.bags = BagEmbeddings(spec, n_tables, self.offsets)
        self.gates = nn.ModuleList()
        if features := spec.domain_features:
            gates = [DomainGate(self.owners, features, n_fields) for _ in each_table]
            self.gates.extend(gates)
        self.interactions = nn.ModuleList()
        if spec.interaction == "cross":
            depth = spec.n_cross_layers, spec.cross_rank
            self.interactions.extend(
                CrossNetwork(self.width, *depth) for _ in each_table
            )
        elif spec.interaction == "fm":
            self.interactions.extend(
                FactorizationMachine(n_fields, dim, len(numbers)) for _ in each_table
            )
            self.width += dim

    def forward(self, codes: Tensor, numeric: Tensor) -> Tensor:
        """Return `(batch, width)`, or `(n_tables, batch, width)` for several tables."""
        places, dropped = self._look_up(codes)
        embedded = [table(places).flatten(1) for table in self.embeddings]
        if self.used is not None:
            embedded = [each.index_select(1, self.used) for each in embedded]
        n_tables, parts = len(embedded), [embedded]
        if self.bags is not None:  # the sums over bags come before the numeric inputs
            n_sums = n_tables * self.bags.width
            parts.append(list(numeric[:, :n_sums].chunk(n_tables, dim=1)))
            numeric = numeric[:, n_sums:]
        if dropped is not None and self.depends:
            # Inputs that depend on no value read the last, added column.
            is_unseen = F.pad(dropped, (0, 1)).index_select(1, self.values_of)
            numeric = torch.where(is_unseen, self.unseen_inputs, numeric)
        parts.append([bins(numeric) for bins in self.bins] or [numeric] * n_tables)
        inputs = [torch.cat(of_table, dim=1) for of_table in zip(*parts, strict=True)]
        # Gates come first: their factors then apply to the products, too.
        for layers in (self.gates, self.interactions):
            if layers:
                pairs = zip(layers, inputs, strict=True)
                inputs = [layer(columns) for layer, columns in pairs]
        return inputs[0] if n_tables == 1 else torch.stack(inputs)

    def _look_up(self, codes: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the rows of the tables, and which values category dropout replaces."""
        places = codes + self.offsets
        if not self.training or not self.drops:
            return places, None
        # Not torch.rand, which torch.compile cannot call with `generator`.
        drawn = torch.empty(codes.shape, device=codes.device)
        drawn.uniform_(generator=generator_on(codes.device))
        dropped = drawn < self.dropout
        return torch.where(dropped, self.unseen, places), dropped

    def with_sums(self, codes: Tensor, numeric: Tensor, bags: Bags) -> Tensor:
        """Put the sums over bags before the numeric inputs.

        Networks pass both on together, so that their `forward` takes no bags.
        """
        assert self.bags is not None
        # For attention, this draws another category dropout than `forward` does.
        targets = self._look_up(codes)[0] if self.bags.attended else None
        return torch.cat([self.bags(bags, targets, self.embeddings), numeric], dim=1)

    @property
    def tables(self) -> list[nn.Parameter]:
        """The weights of the embedding tables, one row per code of each column."""
        return [table.get_parameter("weight") for table in self.embeddings]

    def column_embeddings(self, column: int) -> Tensor:
        """Return a column's embeddings, one row per code, tables side by side.

        Components that nothing reads are left out.
        """
        start = int(self.offsets[column])
        rows = slice(start, start + self.cardinalities[column])
        width = self.read_widths[column]
        found = [table[rows, :width] for table in self.tables]
        return torch.cat(found, dim=1).detach()

    def set_unseen_inputs(self, found: Sequence[tuple[int, int, float]]) -> None:
        """Set the numeric inputs of unseen values, as in the network's `spec`."""
        for index, _, value in found:
            self.unseen_inputs[index] = value

    def set_tables(
        self,
        cardinalities: Sequence[int],
        weights: Sequence[Tensor],
        bags: Sequence[BagSpec],
    ) -> None:
        """Replace the embedding tables, in place, by those of other cardinalities.

        Those of the bags follow in `weights`.
        """
        self._set_cardinalities(cardinalities)
        tables = list(self.embeddings)
        if self.bags is not None:
            self.bags.set_columns(bags, self.offsets)
            tables += self.bags.embeddings
        for table, weight in zip(tables, weights, strict=True):
            table.get_parameter("weight").data = weight
            table.num_embeddings = len(weight)  # type: ignore[assignment]

    def _set_cardinalities(self, cardinalities: Sequence[int]) -> None:
        """Set the first row of each column, and that of its unseen values."""
        self.cardinalities = list(cardinalities)
        ends = torch.tensor([0, *cardinalities], dtype=torch.int64).cumsum(0)
        self.offsets = ends[:-1].to(self.offsets.device)
        self.unseen = self.offsets + self.unseen_code

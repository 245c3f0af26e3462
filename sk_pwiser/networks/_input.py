"""The dense input of every network, from category codes and numeric inputs."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sk_pwiser._utils import generator_on
from sk_pwiser.networks._bags import BagEmbeddings, Bags, BagSpec
from sk_pwiser.networks._interaction import INTERACTIONS, DomainGate
from sk_pwiser.networks._spec import NetworkSpec

# Columns with more bins than `FEW_BINS` are projected to fewer inputs, since a first
# layer that reads all bins takes most of the time of training. If many columns are
# projected, each one has fewer inputs. Smooth effects, which the score represents,
# need fewer than values that act like categories.
FEW_BINS, SMALLEST_DIM = 8, 2
LARGEST_SMOOTH_DIM, LARGEST_SMOOTH_WIDTH = 4, 128
LARGEST_DIM, LARGEST_WIDTH = 8, 256


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
    """

    plain: Tensor
    binned: Tensor
    starts: Tensor
    factors: Tensor
    scored: Tensor
    first_edges: Tensor
    last_bins: Tensor
    edge_scores: Tensor

    def __init__(self, n_bins: Sequence[int], scales: Sequence[float] = ()) -> None:
        super().__init__()
        scored = [j for j, n in enumerate(n_bins) if n > 1 and scales]
        plain = [j for j, n in enumerate(n_bins) if n == 0]
        binned = [j for j, n in enumerate(n_bins) for _ in range(n)]
        starts = [float(t) for n in n_bins for t in range(n)]
        self.n_out = len(plain) + len(scored) + len(binned)
        self.has_scores = len(scored) > 0
        scores = [edge_scores(n_bins[j]) for j in scored]
        n_edges = [0, *(n_bins[j] + 1 for j in scored)]
        for name, values, dtype in (
            ("plain", plain, torch.int64),
            ("binned", binned, torch.int64),
            ("starts", starts, torch.float32),
            ("factors", [scales[j] if scales else 1 for j in binned], torch.float32),
            ("scored", scored, torch.int64),
            ("first_edges", n_edges, torch.int64),
            ("last_bins", [n_bins[j] - 1 for j in scored], torch.float32),
        ):
            buffer = torch.tensor(values, dtype=dtype)
            self.register_buffer(name, buffer, persistent=False)
        self.first_edges = self.first_edges.cumsum(0)[:-1]
        self.owners = [*plain, *scored, *binned]  # the input of each output
        all_scores = torch.cat(scores) if scores else torch.zeros(0)
        self.register_buffer("edge_scores", all_scores, persistent=False)

    def forward(self, numeric: Tensor) -> Tensor:
        """Map `(batch, n_numeric)` to `(batch, n_out)`."""
        positions = numeric.index_select(1, self.binned)
        # Equation 1 of the paper, for bins of width 1.
        components = (positions - self.starts).clamp(0, 1)
        parts = [numeric.index_select(1, self.plain)]
        if self.has_scores:
            parts.append(self._scores(numeric.index_select(1, self.scored)))
            components = components * self.factors
        return torch.cat([*parts, components], dim=1)

    def _scores(self, positions: Tensor) -> Tensor:
        """Return the normal scores of positions, interpolated between the edges."""
        # The last edge itself belongs to the last bin.
        bins = torch.minimum(positions.floor(), self.last_bins)
        edges = bins.long() + self.first_edges
        low, high = self.edge_scores[edges], self.edge_scores[edges + 1]
        return low + (positions - bins) * (high - low)


class BinProjection(nn.Module):
    """Map positions among many bins to few inputs, by a learned matrix per column.

    The result is the normal score, followed by the components of :class:`BinExpansion`
    times the matrix: a linear layer on the encoding (:arxiv:`2203.05556`, section 3.4).
    It has no bias, since the next layer has one.
    """

    starts: Tensor
    rows: Tensor | None
    factors: Tensor
    first_scores: Tensor
    score_steps: Tensor

    def __init__(
        self, n_bins: Sequence[int], scales: Sequence[float], dim: int
    ) -> None:
        super().__init__()
        n_columns, n_rows, longest = len(n_bins), sum(n_bins), max(n_bins)
        self.has_scores = len(scales) > 0
        width = dim + self.has_scores
        self.n_out = n_columns * width
        self.owners = [column for column in range(n_columns) for _ in range(width)]
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
        factors = torch.tensor([*scales] or [1.0] * n_columns, dtype=torch.float32)
        # Smaller weights than those of variance 1 / dim, and even smaller ones where
        # the components count half, gave a higher AUC on validation rows.
        sizes = (factors / (2 * dim)).sqrt().repeat_interleave(torch.tensor(n_bins))
        self.weight = nn.Parameter(torch.randn(n_rows, dim) * sizes.unsqueeze(1))
        for name, buffer in (
            ("starts", torch.arange(longest, dtype=torch.float32)),
            ("rows", None if bool(is_used.all()) else rows),
            ("factors", (factors.view(-1, 1) * is_used).unsqueeze(2)),
            ("first_scores", first_scores),
            ("score_steps", score_steps),
        ):
            self.register_buffer(name, buffer, persistent=False)

    def forward(self, positions: Tensor) -> Tensor:
        """Map `(batch, n_columns)` to `(batch, n_out)`, column after column."""
        components = (positions.t().unsqueeze(2) - self.starts).clamp_(0, 1)
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


def projected_dim(columns: Sequence[int], largest: int, largest_width: int) -> int:
    """Return to how many inputs each of the columns is projected."""
    return min(largest, max(SMALLEST_DIM, largest_width // max(1, len(columns))))


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
    smooth_dim = projected_dim(smooth, LARGEST_SMOOTH_DIM, LARGEST_SMOOTH_WIDTH)
    dim = projected_dim(other, LARGEST_DIM, LARGEST_WIDTH)
    return [
        group for group in ((few, 0), (smooth, smooth_dim), (other, dim)) if group[0]
    ]


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
        self.layers = nn.ModuleList()
        self.columns: list[str] = []
        self.n_out = 0
        self.owners: list[int] = []
        for columns, width in numeric_groups(n_bins, scales):
            bins = [n_bins[j] for j in columns]
            factors = [scales[j] for j in columns] if scales else []
            layer: BinExpansion | BinProjection = (
                BinProjection(bins, factors, width)
                if width
                else BinExpansion(bins, factors)
            )
            self.layers.append(layer)
            self.n_out += layer.n_out
            self.owners += [columns[owner] for owner in layer.owners]
            self.columns.append(f"columns_{len(self.layers)}")
            buffer = torch.tensor(columns)
            self.register_buffer(self.columns[-1], buffer, persistent=False)
        # The initial variance of a first layer's weights falls with its width. This
        # ratio gives a component, whose weight is now a product of two, the variance
        # that it would have without a projection.
        n_components = BinExpansion(n_bins, scales).n_out
        ratio = (self.n_out + n_others) / (n_components + n_others)
        for weight in self.parameters():
            weight.data *= math.sqrt(ratio)

    def forward(self, numeric: Tensor) -> Tensor:
        """Map `(batch, n_numeric)` to `(batch, n_out)`."""
        if len(self.layers) == 1:  # of all columns, in their order
            inputs: Tensor = self.layers[0](numeric)
            return inputs
        parts = [
            layer(numeric.index_select(1, self.get_buffer(columns)))
            for layer, columns in zip(self.layers, self.columns, strict=True)
        ]
        return torch.cat(parts, dim=1)


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

    # Standard deviation of initial embeddings. If it is small, the embedding of a rare
    # value stays near 0: it departs only as far as the value's few rows require.
    initial_std = 0.01

    def __init__(self, spec: NetworkSpec, *, n_tables: int = 1) -> None:
        super().__init__()
        self.unseen_code = spec.unseen_code
        n_columns, dim = len(spec.cardinalities), spec.embedding_dim
        dropouts = spec.dropouts
        self.drops = any(dropouts[:n_columns])
        self.depends = len(spec.unseen_inputs) > 0
        values_of = torch.full((spec.n_numeric,), n_columns)
        for index, column, _ in spec.unseen_inputs:
            values_of[index] = column
        for name, buffer in (
            ("dropout", torch.tensor(dropouts[:n_columns], dtype=torch.float32)),
            ("values_of", values_of),
            ("unseen_inputs", torch.zeros(spec.n_numeric)),
        ):
            self.register_buffer(name, buffer, persistent=False)
        self.set_unseen_inputs(spec.unseen_inputs)
        for name in ("offsets", "unseen"):
            self.register_buffer(name, torch.zeros(0), persistent=False)
        self._set_cardinalities(spec.cardinalities)
        each_table = range(n_tables)
        tables = [nn.Embedding(sum(spec.cardinalities), dim) for _ in each_table]
        for table in tables:
            nn.init.normal_(table.weight, std=self.initial_std)
        self.embeddings = nn.ModuleList(tables)
        # Lists read the whole vectors of their column.
        of_lists = {bag.column for bag in spec.bags}
        self.read_widths = [
            dim if column in of_lists else width
            for column, width in enumerate(spec.widths)
        ]
        # Numeric projections, gates and interactions are built per table: tasks with
        # their own tables share no weights.
        n_embedded = sum(spec.widths) + dim * len(spec.bags)
        self.bins = nn.ModuleList()
        if any(spec.numeric_bins):
            args = spec.numeric_bins, spec.bin_scales, n_embedded
            self.bins.extend(NumericInputs(*args) for _ in each_table)
        owners, n_fields = self.owners(spec), n_columns + len(spec.bags)
        self.width = len(owners)
        # One lookup reads all columns at full width; `used` then drops the unused
        # components.
        used = None
        if sum(spec.widths) < n_columns * dim:
            components = torch.arange(dim) < torch.tensor(spec.widths).unsqueeze(1)
            used = components.flatten().nonzero().squeeze(1)
        self.register_buffer("used", used, persistent=False)
        self.bags: BagEmbeddings | None = None
        if spec.bags:
            self.bags = BagEmbeddings(
                spec.bags,
                dim,
                n_tables,
                initial_std=self.initial_std,
                unseen_code=spec.unseen_code,
                dropouts=dropouts[n_columns:],
            )
            # Bags may share the embeddings of columns: they read the columns' offsets.
            self.bags.set_columns(spec.bags, self.offsets)
        self.gates = nn.ModuleList()
        if features := spec.domain_features:
            gates = [DomainGate(owners, features, n_fields) for _ in each_table]
            self.gates.extend(gates)
        self.interactions = nn.ModuleList()
        if spec.interaction is not None:
            kind = INTERACTIONS[spec.interaction]
            widths = [*spec.widths, *[dim] * len(spec.bags)]
            n_numeric = self.width - n_embedded
            options = {name: getattr(spec, name) for name in kind.options}
            layers = [kind(widths, dim, n_numeric, **options) for _ in each_table]
            self.interactions.extend(layers)
            self.width = layers[0].width

    def forward(self, codes: Tensor, numeric: Tensor) -> Tensor:
        """Return `(batch, width)`, or `(n_tables, batch, width)` for several tables."""
        # Gates come first: their factors then apply to the products, too.
        inputs = self.columns(codes, numeric)
        for layers in (self.gates, self.interactions):
            if layers:
                pairs = zip(layers, inputs, strict=True)
                inputs = [layer(columns) for layer, columns in pairs]
        return inputs[0] if len(inputs) == 1 else torch.stack(inputs)

    def set_unseen_inputs(self, found: Sequence[tuple[int, int, float]]) -> None:
        """Set the numeric inputs of unseen values, as in the network's `spec`."""
        for index, _, value in found:
            self.unseen_inputs[index] = value

    def columns(self, codes: Tensor, numeric: Tensor) -> list[Tensor]:
        """Return the dense input of each table, without gates and interactions."""
        dropped, n_tables = self._draw(codes), len(self.embeddings)
        places = self._places(codes, dropped)
        embedded = [table(places).flatten(1) for table in self.embeddings]
        if self.used is not None:
            embedded = [each.index_select(1, self.used) for each in embedded]
        parts: list[Sequence[Tensor]] = [embedded]
        if self.bags is not None:  # the sums over bags come before the numeric inputs
            n_sums = n_tables * self.bags.width
            parts.append(numeric[:, :n_sums].chunk(n_tables, dim=1))
            numeric = numeric[:, n_sums:]
        if dropped is not None and self.depends:
            # Inputs that depend on no value read the last, added column.
            is_unseen = F.pad(dropped, (0, 1)).index_select(1, self.values_of)
            numeric = torch.where(is_unseen, self.unseen_inputs, numeric)
        parts.append([numeric] * n_tables)
        if self.bins:
            parts[-1] = [bins(numeric) for bins in self.bins]
        return [torch.cat(of_table, dim=1) for of_table in zip(*parts, strict=True)]

    def owners(self, spec: NetworkSpec) -> list[int]:
        """Return which input each column of the dense input belongs to.

        Inputs are counted in the order category columns, bags, numeric inputs.
        """
        widths = [*spec.widths, *[spec.embedding_dim] * len(spec.bags)]
        found = [owner for owner, width in enumerate(widths) for _ in range(width)]
        of_numbers = list(range(spec.n_numeric))
        if self.bins:
            of_numbers = self.bins[0].owners  # type: ignore[assignment]
        return found + [len(widths) + owner for owner in of_numbers]

    @property
    def tables(self) -> list[nn.Parameter]:
        """The weights of the embedding tables, one row per code of each column."""
        return [table.get_parameter("weight") for table in self.embeddings]

    def set_tables(
        self,
        cardinalities: Sequence[int],
        weights: Sequence[Tensor],
        bags: Sequence[BagSpec],
        bag_weights: Sequence[Tensor] = (),
    ) -> None:
        """Replace the embedding tables, in place, by those of other cardinalities."""
        self._set_cardinalities(cardinalities)
        for embedding, weight in zip(self.embeddings, weights, strict=True):
            embedding.get_parameter("weight").data = weight
            embedding.num_embeddings = len(weight)  # type: ignore[assignment]
        if self.bags is not None:
            self.bags.set_columns(bags, self.offsets)
            self.bags.set_tables(bag_weights)

    def with_sums(self, codes: Tensor, numeric: Tensor, bags: Bags) -> Tensor:
        """Put the sums over bags before the numeric inputs.

        Networks pass both on together, so that their `forward` takes no bags.
        """
        assert self.bags is not None
        targets = None
        if self.bags.attended:
            # This draws another category dropout than `forward` does.
            targets = self._places(codes, self._draw(codes))
        sums = self.bags(bags, targets, self.embeddings)
        return torch.cat([sums, numeric], dim=1)

    def column_embeddings(self, column: int) -> Tensor:
        """Return a column's embeddings, one row per code, tables side by side.

        Components that nothing reads are left out.
        """
        start = int(self.offsets[column])
        rows = slice(start, start + self.cardinalities[column])
        width = self.read_widths[column]
        found = [table[rows, :width] for table in self.tables]
        return torch.cat(found, dim=1).detach()

    def _set_cardinalities(self, cardinalities: Sequence[int]) -> None:
        """Set the first row of each column, and that of its unseen values."""
        self.cardinalities = list(cardinalities)
        ends = torch.tensor([0, *cardinalities], dtype=torch.int64).cumsum(0)
        self.offsets = ends[:-1].to(self.offsets.device)
        self.unseen = self.offsets + self.unseen_code

    def _draw(self, codes: Tensor) -> Tensor | None:
        """Return which values category dropout replaces, None if it replaces none."""
        if not self.training or not self.drops:
            return None
        # Not torch.rand, which torch.compile cannot call with `generator`.
        drawn = torch.empty(codes.shape, device=codes.device)
        drawn.uniform_(generator=generator_on(codes.device))
        return drawn < self.dropout

    def _places(self, codes: Tensor, dropped: Tensor | None) -> Tensor:
        """Return the rows of the tables, after category dropout."""
        places = codes + self.offsets
        return places if dropped is None else torch.where(dropped, self.unseen, places)

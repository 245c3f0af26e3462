"""Numbers as positions among the edges of bins, and what these become."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sk_pwiser.networks._layers import constant
from sk_pwiser.networks._spec import NetworkSpec

# Columns with more bins are projected to fewer inputs, since a first layer that reads
# all bins takes most of the time of training.
FEW_BINS = 8
# Most inputs of a projected column, and of all such columns together: if there are many
# columns, each one has fewer inputs.
LARGEST_DIM = 8
LARGEST_WIDTH = 256
# The same for columns whose score represents smooth effects: these need fewer inputs
# than values that act like categories.
LARGEST_SMOOTH_DIM = 4
LARGEST_SMOOTH_WIDTH = 128
# Least inputs of a projected column, however many columns there are.
SMALLEST_DIM = 2


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

    def __init__(
        self, n_bins: Sequence[int], scales: Sequence[float], columns: Sequence[int]
    ) -> None:
        super().__init__()
        plain = [j for j in columns if n_bins[j] == 0]
        scored = [j for j in columns if n_bins[j] > 1 and scales]
        binned = [j for j in columns for _ in range(n_bins[j])]
        self.owners = [*plain, *scored, *binned]
        self.sizes = [len(plain), len(scored), len(binned)]
        starts = [float(t) for j in columns for t in range(n_bins[j])]
        factors = [float(scales[j]) if scales else 1.0 for j in binned]
        n_edges = torch.tensor([0, *(n_bins[j] + 1 for j in scored)])
        scores = [edge_scores(n_bins[j]) for j in scored]
        self.inputs = constant(torch.tensor(self.owners))
        self.starts = constant(torch.tensor(starts))
        self.factors = constant(torch.tensor(factors))
        self.first_edges = constant(n_edges.cumsum(0)[:-1])
        self.last_bins = constant(torch.tensor([n_bins[j] - 1.0 for j in scored]))
        self.edge_scores = constant(torch.cat([*scores, torch.zeros(0)]))

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
        low = self.edge_scores[edges]
        high = self.edge_scores[edges + 1]
        scores = low + (scored - bins) * (high - low)
        return torch.cat([plain, scores, components * self.factors], dim=1)


class BinProjection(nn.Module):
    """Map positions among many bins to few inputs, by a learned matrix per column.

    The result is the normal score, followed by the components of :class:`BinExpansion`
    times the matrix: a linear layer on the encoding (:arxiv:`2203.05556`, section 3.4).
    It has no bias, since the next layer has one. The layer reads the numeric inputs
    `columns`; `owners` has that of each output.
    """

    def __init__(
        self,
        n_bins: Sequence[int],
        scales: Sequence[float],
        columns: Sequence[int],
        dim: int,
    ) -> None:
        super().__init__()
        self.has_scores = len(scales) > 0
        n_columns = len(columns)
        width = dim + self.has_scores
        self.owners = [column for column in columns for _ in range(width)]
        reads_all = [*columns] == [*range(len(n_bins))]  # in their order
        n_bins = [n_bins[column] for column in columns]
        n_rows = sum(n_bins)
        longest = max(n_bins)
        # Columns with fewer bins than the longest are padded by any row times 0.
        # All columns have the bins of the longest, so that they are one batched
        # product.
        is_used = torch.arange(longest) < torch.tensor(n_bins).unsqueeze(1)
        rows = (is_used.flatten().cumsum(0) - 1).view(is_used.shape)
        self.first_scores = constant(torch.zeros(n_columns, 1, width))
        self.score_steps = constant(torch.zeros(n_columns, longest, 1))
        for column, n in enumerate(n_bins if self.has_scores else ()):
            scores = edge_scores(n)
            self.first_scores[column, 0, 0] = scores[0]
            self.score_steps[column, :n, 0] = scores.diff()
        factors = torch.tensor(
            [scales[j] if scales else 1.0 for j in columns], dtype=torch.float32
        )
        # Smaller weights than those of variance 1 / dim, and even smaller ones where
        # the components count half, gave a higher AUC on validation rows.
        sizes = (factors / (2 * dim)).sqrt().repeat_interleave(torch.tensor(n_bins))
        self.weight = nn.Parameter(torch.randn(n_rows, dim) * sizes.unsqueeze(1))
        self.inputs = None if reads_all else constant(torch.tensor(columns))
        self.starts = constant(torch.arange(longest, dtype=torch.float32))
        self.rows = None if bool(is_used.all()) else constant(rows)
        self.factors = constant((factors.view(-1, 1) * is_used).unsqueeze(2))

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
    not_smooth = [j for j in many if not scales or scales[j] >= 1]
    groups = [(few, 0)] if few else []
    for columns, largest, largest_width in (
        (smooth, LARGEST_SMOOTH_DIM, LARGEST_SMOOTH_WIDTH),
        (not_smooth, LARGEST_DIM, LARGEST_WIDTH),
    ):
        if columns:
            dim = max(SMALLEST_DIM, largest_width // len(columns))
            groups.append((columns, min(largest, dim)))
    return groups


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
        blocks = [layer(numeric) for layer in self.layers]
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)


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
    n_bins = spec.numeric_bins
    scales = spec.bin_scales
    widths = [1] * spec.n_numeric
    for columns, width in numeric_groups(n_bins, scales):
        for j in columns:
            has_score = n_bins[j] > 1 and len(scales) > 0
            widths[j] = (width or max(1, n_bins[j])) + has_score
    return widths

"""Means of a surrogate over all pairs of two score vectors, in near-linear time.

The hinge and its square: one sort and running sums
---------------------------------------------------
A pair (v, c) is active if u = margin - (v - c) > 0. For fixed v that holds for all c
above a bound that increases with v. If the higher scores are sorted, the active ones
for a lower score c are therefore the first k of them, and a binary search finds k. The
scores of the other side, which is the larger one, are searched for and binned.

With the active scores v_1 <= .. <= v_k of c and the violation u_k of v_k,

    sum_i w_i (margin - v_i + c) = S1_k + u_k S0_k,
    S0_k = sum_i w_i,    S1_k = sum_i w_i (v_k - v_i),

and S1 is the running sum of gap * S0 with gap = v_{k+1} - v_k. All terms are
non-negative, and scores are subtracted from each other before anything is summed, so
that large scores cause no cancellation. The square has one more running sum,

    sum_i w_i (margin - v_i + c)^2 = S2_k + 2 u_k S1_k + u_k^2 S0_k,
    S2_k = sum_i w_i (v_k - v_i)^2,

where S2 is the running sum of gap * (2 S1 + gap * S0). The functional form of Rust and
Hocking (2023), arXiv 2302.11062, expands the square into powers of the scores, which
cancel. Here the origin moves with k, and all terms are non-negative.

The logistic surrogate log(1 + exp(u)): a grid, in linear time
--------------------------------------------------------------
With x = v - margin and y = c, the loss of a pair is k(y - x) with the smooth kernel
k(z) = log(1 + exp(z)). Lagrange's formula of order 8 interpolates it between the nodes
of a grid of spacing 1/8. The weights of both sides are therefore distributed to one
grid, sums over its nodes are computed with the kernel matrix, and the sums of
k' = sigmoid are interpolated at the scores for the gradients. Time and memory are
linear in the number of scores.

Error: between the two middle ones of its eight nodes, the error of the formula is at
most (1/8)^8 / 8! * (1*3*5*7 / 2^4)^2 = 6.4e-11 times the largest eighth derivative
among the nodes, which is below 3.7 k(z) for k and below 9.2 k'(z) for k'. The formula
is applied to x and to y; the second application enlarges the error of the first at most
1.6 times. Relative to a single pair the error is thus at most 1e-9 in the value and
2e-9 in the slope (the largest found were 3e-10 and 8e-10), and at most the same in
sums over pairs, since all terms have the same sign.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sk_pwiser._utils._precision import at_least_float32, widest_float

# The largest block of the matrix of pairs on a CPU: 2 MB, which stay in the cache.
CHUNK_PAIRS = 2**18
# The same on other devices, where a few large blocks need fewer kernels.
CHUNK_PAIRS_DEVICE = 2**22

# The scores of one side of the pairs, and their weights, in float64.
Side = tuple[Tensor, Tensor]


class PairSums(NamedTuple):
    """The weighted sum over all pairs and its gradients, in float64."""

    value: Tensor
    higher_gradient: Tensor
    lower_gradient: Tensor


def softplus(z: Tensor) -> Tensor:
    """Return log(1 + exp(z)); torch's own is linear above z = 20, this is exact."""
    return -F.logsigmoid(-z)


# h(u), for which the hinges overwrite u with max(u, 0); and h'(u) in the memory of what
# is then left of u. The slope at a kink is 0.
SURROGATES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "hinge": (Tensor.relu_, Tensor.sign_),
    "squared_hinge": (lambda u: u.relu_().square(), lambda u: u.mul_(2)),
    "logistic": (softplus, Tensor.sigmoid_),
}


def brute_force_sums(
    higher_side: Side, lower_side: Side, margin: float, surrogate: str
) -> PairSums:
    """Sum over the matrix of pairs, a block of rows at a time."""
    higher, higher_weight = higher_side
    lower, lower_weight = lower_side
    loss, slope = SURROGATES[surrogate]
    value = higher.new_zeros(())
    lower_gradient = torch.zeros_like(lower)
    higher_gradients = []
    n_pairs = CHUNK_PAIRS if lower.is_cpu else CHUNK_PAIRS_DEVICE
    n_rows = max(1, n_pairs // lower.numel())
    for start in range(0, higher.numel(), n_rows):
        rows = slice(start, start + n_rows)
        weight = higher_weight[rows]
        # margin - (v - c). Few matrices are made: memory takes longer than arithmetic.
        violation = (lower - higher[rows, None]).add_(margin)
        value += torch.dot(weight, loss(violation) @ lower_weight)
        slopes = slope(violation)
        higher_gradients.append((slopes @ lower_weight).mul_(weight).neg_())
        lower_gradient += weight @ slopes
    return PairSums(
        value, torch.cat(higher_gradients), lower_gradient.mul_(lower_weight)
    )


def inactive_bound(higher: Tensor, margin: float) -> Tensor:
    """Return for each v the largest c with margin - (v - c) <= 0 in float64.

    v - margin, which is rounded, would be wrong for scores within rounding of the kink.
    """
    # The rounded v - c reaches the margin from half a spacing below it.
    half_spacing = (margin - math.nextafter(margin, -math.inf)) / 2
    bound = higher - margin + half_spacing
    # After two roundings the bound is within two steps of the answer; the formula
    # itself decides on which side.
    infinity = bound.new_full((), math.inf)
    above = bound.nextafter(infinity)
    bound = torch.where(higher - above >= margin, above, bound)
    for _ in range(2):
        bound = torch.where(higher - bound >= margin, bound, bound.nextafter(-infinity))
    return bound


def running_distance(gaps: Tensor, step: Tensor) -> Tensor:
    """Return the running sum of gap * step for k = 0..n; it is 0 up to k = 1."""
    return F.pad((gaps * step[1:-1]).cumsum(0), (2, 0))


def bin_sums(n_active: Tensor, values: Tensor, n_bins: int) -> Tensor:
    """Sum the values of the lower scores with equal numbers of active pairs."""
    sums = torch.zeros(n_bins, dtype=torch.float64, device=values.device)
    return sums.index_add_(0, n_active, values)


def sums_from_right(values: Tensor) -> Tensor:
    """Return the running sum from the last entry to the first."""
    return values.flip(0).cumsum(0).flip(0)


def hinge_sums(
    higher_side: Side, lower_side: Side, margin: float, squared: bool = False
) -> PairSums:
    """Sum w_v w_c max(margin - (v - c), 0), or its square, and return the gradients."""
    higher, higher_weight = higher_side
    lower, lower_weight = lower_side
    ordered, order = torch.sort(higher)
    # The active scores of a lower score are the first n_active in this order.
    bound = inactive_bound(ordered, margin)
    n_active = torch.searchsorted(bound, lower, out_int32=True)
    # u_k, the violation of the last of them. Entry k of the padded scores is the last
    # of the first k; for k = 0 any finite score serves.
    last_active = torch.cat((ordered[:1], ordered)).index_select(0, n_active)
    violation = last_active.sub_(lower).neg_().add_(margin)
    gaps = ordered.diff()
    weight = higher_weight.index_select(0, order)
    # S0 and S1 of the first k scores, k = 0..n.
    s0 = F.pad(weight.cumsum(0), (1, 0))
    s1 = running_distance(gaps, s0)
    b0 = bin_sums(n_active, lower_weight, s0.numel())
    moment = violation * lower_weight
    b1 = bin_sums(n_active, moment, s0.numel())
    lower_gradient = s0.index_select(0, n_active)
    if not squared:
        # The first equation at the top, summed over the lower scores.
        value = torch.dot(s0, b1) + torch.dot(s1, b0)
        higher_gradient = sums_from_right(b0[1:]).mul_(weight).neg_()
        lower_gradient.mul_(lower_weight)
    else:
        b2 = bin_sums(n_active, moment.mul_(violation), s0.numel())
        s2 = running_distance(gaps, 2 * s1 + F.pad(gaps, (1, 1)) * s0)
        # The second equation at the top, summed over the lower scores.
        value = torch.dot(s2, b0) + 2 * torch.dot(s1, b1) + torch.dot(s0, b2)
        distance = b1[1:].clone()
        distance[:-1].add_(sums_from_right(b0[1:])[1:].mul_(gaps))
        higher_gradient = sums_from_right(distance).mul_(weight).mul_(-2.0)
        lower_gradient.mul_(violation).add_(s1.index_select(0, n_active))
        lower_gradient.mul_(lower_weight).mul_(2.0)
    unsorted = torch.empty_like(higher_gradient).index_copy_(0, order, higher_gradient)
    return PairSums(value, unsorted, lower_gradient)


# Where rows can be selected without blocking the host, unlike on a GPU.
SELECTING = ("cpu",)


def joint_hinge_sums(
    scores: Tensor,
    margins: Tensor | float,
    higher_weight: Tensor,
    lower_weight: Tensor,
    squared: bool,
) -> tuple[Tensor, Tensor]:
    """Sum w_v q_c h(m_c - (f_v - f_c)) over all pairs of rows; return its gradient too.

    The scores f, (n_heads, batch), and the margins m of the lower rows, (batch,), serve
    all levels of the weights w and q, (n_heads, n_levels, batch). Both sides, f and f +
    m, are sorted in one array, so that there are few kernels, and their shapes do not
    depend on the scores. Pairs within rounding of f + m of the kink may be on either
    side of it.
    """
    n_heads, n_rows = scores.shape
    # At ties the lower row comes first: it is not above the higher one.
    keys = torch.cat([scores + margins, scores], dim=-1)
    ordered, order = torch.sort(keys, stable=True)
    gaps = ordered.diff().unsqueeze(1)
    zeros = torch.zeros_like(lower_weight)
    weights = torch.cat([zeros, higher_weight, lower_weight, zeros], dim=-1)
    weights = weights.view(n_heads, -1, 2, 2 * n_rows)
    weights = weights.gather(-1, order[:, None, None].expand(weights.shape))
    sums = weights.cumsum(-1)
    higher, lower = weights.unbind(2)
    s0, from_left = sums.unbind(2)  # S0 of all higher rows up to each place
    from_right = from_left[..., -1:] - from_left
    s1 = (gaps * s0[..., :-1]).cumsum(-1)  # from the second place on
    if squared:
        steps = gaps * s0[..., :-1]
        steps[..., 1:].add_(s1[..., :-1], alpha=2)
        value = (gaps * steps).cumsum(-1).mul_(lower[..., 1:])
        distance = (gaps * from_right[..., :-1]).cumsum(-1)
        distance = distance[..., -1:] - F.pad(distance, (1, 0))
        gradient = (lower * F.pad(s1, (1, 0))).addcmul_(higher, distance, value=-1)
        gradient.mul_(2)
    else:
        value = s1 * lower[..., 1:]
        gradient = (lower * s0).addcmul_(higher, from_right, value=-1)
    in_rows = torch.empty_like(ordered).scatter_(-1, order, gradient.sum(1))
    return value.sum((1, 2)), in_rows.view(n_heads, 2, n_rows).sum(1)


# The spacing 1/8 of the grid, and the order of Lagrange's formula: both are in the
# bound of the error at the top of this file.
NODES_PER_UNIT = 8
ORDER = 8
# Scores processed at once. On a CPU, ORDER times as many stay below 2**15 elements:
# beyond that torch starts threads, which are slower here.
CHUNK_SCORES = 2**11
# On other devices, few large kernels are fast.
CHUNK_SCORES_DEVICE = 2**18
# Nodes of a block, within which and between neighbours the kernel is evaluated. It is
# 32 units wide: farther away, the kernel has a simple form to within 1e-14.
BLOCK_NODES = 256
BLOCK_UNITS = BLOCK_NODES // NODES_PER_UNIT
# The largest grid: 2**20 nodes, 131072 units.
MAX_BLOCKS = 4096
# exp(-GAP) is 0 in float64: the kernel is 0 below -GAP and linear above GAP.
GAP = 768.0


def logistic_sums(higher_side: Side, lower_side: Side, margin: float) -> PairSums:
    """Sum w_v w_c log(1 + exp(margin - (v - c))) over all pairs, with its gradients.

    The weights are distributed to a grid, summed over its nodes, and the slopes are
    interpolated. If the grid had more than MAX_BLOCKS blocks, all pairs are evaluated.
    The result is NaN if a score is not finite. All tensors are float64 and not empty.
    """
    higher, higher_weight = higher_side
    lower, lower_weight = lower_side
    # The margin is subtracted from small numbers; large ones would absorb it.
    origin = torch.minimum(higher.amin(), lower.amin())
    x = higher - origin - margin
    y = lower - origin
    origin = torch.minimum(x.amin(), y.amin())
    x_nodes = (x - origin).mul_(NODES_PER_UNIT)
    y_nodes = (y - origin).mul_(NODES_PER_UNIT)
    largest = float(torch.maximum(x_nodes.amax(), y_nodes.amax()))
    if not math.isfinite(largest):
        nan = x.new_tensor(math.nan)
        return PairSums(nan, nan.expand(x.shape), nan.expand(y.shape))
    n_blocks = math.ceil((int(largest) + ORDER) / BLOCK_NODES)
    if n_blocks > MAX_BLOCKS:
        return brute_force_sums(higher_side, lower_side, margin, "logistic")
    n_nodes = BLOCK_NODES * n_blocks
    x_mass = _distribute(x_nodes, higher_weight, n_nodes)
    values, x_slopes = _node_sums(_distribute(y_nodes, lower_weight, n_nodes))
    # y - x = (-x) - (-y): for the other side the kernel is the same on a mirrored axis.
    _, y_slopes = _node_sums(x_mass.flip(0))
    return PairSums(
        torch.dot(x_mass, values),
        _interpolate(x_slopes, x_nodes).mul_(higher_weight).neg_(),
        _interpolate(y_slopes.flip(0), y_nodes).mul_(lower_weight),
    )


def _stencils(positions: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield chunks of positions with ORDER nodes, floor(p) on, and Lagrange weights."""
    offsets = torch.arange(ORDER, device=positions.device)[:, None]
    scale = (offsets - offsets.T).double().fill_diagonal_(1.0).prod(1)[:, None]
    size = CHUNK_SCORES if positions.is_cpu else CHUNK_SCORES_DEVICE
    for start in range(0, positions.numel(), size):
        chunk = slice(start, start + size)
        cell = positions[chunk].long()
        distance = (positions[chunk] - cell + (ORDER // 2 - 1)) - offsets
        left = torch.ones_like(distance)
        right = torch.ones_like(distance)
        for i in range(1, ORDER):
            torch.mul(left[i - 1], distance[i - 1], out=left[i])
            torch.mul(right[-i], distance[-i], out=right[-i - 1])
        yield chunk, cell + offsets, left.mul_(right).div_(scale)


def _distribute(positions: Tensor, weight: Tensor, n_nodes: int) -> Tensor:
    """Distribute the weight of each score to its neighbours on the grid."""
    mass = positions.new_zeros(n_nodes)
    for chunk, nodes, lagrange in _stencils(positions):
        mass.index_add_(0, nodes.view(-1), lagrange.mul_(weight[chunk]).view(-1))
    return mass


def _interpolate(node_values: Tensor, positions: Tensor) -> Tensor:
    """Interpolate values at the nodes of the grid at the positions."""
    values = torch.empty_like(positions)
    for chunk, nodes, lagrange in _stencils(positions):
        near = node_values.index_select(0, nodes.view(-1)).view(nodes.shape)
        torch.sum(lagrange.mul_(near), 0, out=values[chunk])
    return values


def _node_sums(mass: Tensor) -> tuple[Tensor, Tensor]:
    """Return at each node x the sums of mass * k(y - x) and of mass * k'(y - x).

    At a distance of over 32, a block, the kernel is z or exp(z) to within 1e-14, whose
    sums need only the moments of the blocks; for nearer nodes it is evaluated.
    """
    blocks = mass.view(-1, BLOCK_NODES)
    # Each block with its two neighbours, times the kernel matrix between them.
    zeros = mass.new_zeros(BLOCK_NODES)
    near = torch.cat((zeros, mass, zeros)).unfold(0, 3 * BLOCK_NODES, BLOCK_NODES)
    z = _coordinates(1 - 2 * BLOCK_NODES, 2 * BLOCK_NODES, mass)
    values, slopes = (
        (near @ kernel.unfold(0, 3 * BLOCK_NODES, 1).T).flip(1)
        for kernel in (softplus(z), torch.sigmoid(z))
    )
    if len(blocks) > 2:
        _add_far_blocks(blocks, values, slopes)
    return values.view(-1), slopes.view(-1)


def _coordinates(start: int, end: int, like: Tensor) -> Tensor:
    """Return the coordinates of the nodes start .. end - 1, in units of the scores."""
    nodes = torch.arange(start, end, dtype=like.dtype, device=like.device)
    return nodes.div_(NODES_PER_UNIT)


def _add_far_blocks(blocks: Tensor, values: Tensor, slopes: Tensor) -> None:
    """Add the contributions of blocks at a distance of two or more."""
    coordinate = _coordinates(0, BLOCK_NODES, blocks)
    weight = blocks.sum(1)
    moment = blocks @ coordinate
    weight_right = sums_from_right(weight)
    # The sum over J >= I + 2 of (J - I) weight_J, then of the coordinate in the block.
    distance = weight_right + sums_from_right(weight_right)
    linear = distance.mul_(BLOCK_UNITS).add_(sums_from_right(moment))
    values[:-2] += linear[2:, None] - coordinate * weight_right[2:, None]
    slopes[:-2] += weight_right[2:, None]
    exponential = blocks @ coordinate.exp()
    decayed = torch.zeros_like(exponential)
    for step in range(2, min(len(blocks), int(GAP) // BLOCK_UNITS)):
        decayed[step:] += exponential[:-step] * math.exp(-step * BLOCK_UNITS)
    tail = torch.exp(-coordinate) * decayed[:, None]
    values += tail
    slopes += tail


# Up to this number of pairs, their matrix is faster on a CPU than sorting or a grid.
BRUTE_FORCE_PAIRS = 2**17
# On other devices the number of kernels decides, and the matrix needs few.
BRUTE_FORCE_PAIRS_DEVICE = 2**22

_SUMS: dict[str, Callable[[Side, Side, float], PairSums]] = {
    "hinge": hinge_sums,
    "squared_hinge": partial(hinge_sums, squared=True),
    "logistic": logistic_sums,
}


class WithGradients(torch.autograd.Function):
    """Attach a value to the graph of scores by the gradients that are known already."""

    @staticmethod
    def forward(ctx: Any, sums: Sequence[Tensor], *scores: Tensor) -> Tensor:
        """Return the first of the sums; the others are the gradients of the scores."""
        value, *gradients = sums
        ctx.save_for_backward(*gradients)
        return value

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True
            # A second derivative would treat the gradients as constants.
            raise RuntimeError(
                "means over pairs can be differentiated once, not twice."
            )
        return None, *(grad_outputs[0] * gradient for gradient in ctx.saved_tensors)


class WeightedScores(NamedTuple):
    """One score per row and, if the rows are weighted, one weight per row."""

    values: Tensor
    weight: Tensor | None = None

    def at(self, is_chosen: Tensor) -> "WeightedScores":
        """Return the chosen rows.

        Where the host would have to wait for their number, as on a GPU, all rows are
        returned, and the others have weight 0.
        """
        if self.values.device.type in SELECTING:
            rows = is_chosen.nonzero().squeeze(1)
            weight = self.weight
            if weight is not None:
                weight = weight.index_select(0, rows)
            return WeightedScores(self.values.index_select(0, rows), weight)
        if self.weight is None:
            return WeightedScores(self.values, is_chosen.to(self.values.dtype))
        return WeightedScores(self.values, self.weight * is_chosen)

    def weight_per_row(self, n_rows: int) -> Tensor | float:
        """Return the sum of the weights divided by the number of rows of the batch."""
        if self.weight is None:
            return self.values.numel() / max(n_rows, 1)
        return self.weight.sum(dtype=widest_float(self.weight.device)) / max(n_rows, 1)


def pairwise_mean(
    higher: WeightedScores, lower: WeightedScores, margin: float, surrogate: str
) -> Tensor:
    """Mean over all pairs (v, c) of h(margin - (higher_v - lower_c)).

    The scores of both sides are finite, and h(u) is `max(u, 0)`, its square, or
    `log(1 + exp(u))`. The mean is weighted by the products of two weights, which get no
    gradient; it is 0 with gradient 0 without weighted pairs. It is float64 or float32,
    and can be differentiated once; a second derivative raises a RuntimeError.

    For n scores, with m on the smaller side, the hinges take O(n log m) time and the
    logistic surrogate O(n); all take O(n) memory. Everything is computed in
    float64: on the CPU if the device of the scores has no float64. On a CPU, equal
    inputs give bitwise equal results.

    The hinges are exact: a pair is active if `margin - (v - c) > 0` in float64, and the
    gradient at the kink is 0. The logistic surrogate is exact up to `BRUTE_FORCE_PAIRS`
    pairs; beyond that, it has the relative errors that the top of this file names. If
    scores span more than 131072 units, it evaluates all pairs, which is slow.
    """
    higher_scores = at_least_float32(higher.values)
    lower_scores = at_least_float32(lower.values)
    both_scores = (higher_scores, lower_scores)
    n_pairs = len(higher_scores) * len(lower_scores)
    result: Tensor
    if n_pairs == 0:
        zeros = [higher_scores.new_zeros(()), *map(torch.zeros_like, both_scores)]
        result = WithGradients.apply(zeros, *both_scores)  # type: ignore[no-untyped-call]
        return result
    device_of_scores = higher_scores.device
    device = device_of_scores
    if widest_float(device) != torch.float64:
        device = torch.device("cpu")
    pair: list[Side] = []
    both_weights = (higher.weight, lower.weight)
    for values, weight in zip(both_scores, both_weights, strict=True):
        scores = values.detach().to(device).double().contiguous()
        if weight is None:
            pair.append((scores, torch.ones_like(scores)))
            continue
        # A mean does not depend on the scale of the weights. With a maximum of 1,
        # neither a product of two weights nor their total can underflow: the total is 0
        # or at least 1.
        weight = weight.detach().to(device).double()
        largest = weight.amax()
        pair.append((scores, weight / torch.where(largest > 0, largest, 1.0)))
    higher_side, lower_side = pair
    is_cpu = device.type == "cpu"
    if n_pairs <= (BRUTE_FORCE_PAIRS if is_cpu else BRUTE_FORCE_PAIRS_DEVICE):
        sums = brute_force_sums(higher_side, lower_side, margin, surrogate)
    elif len(higher_scores) <= len(lower_scores):
        sums = _SUMS[surrogate](higher_side, lower_side, margin)
    else:
        # v - c = (-c) - (-v): the same pairs with the sides exchanged. The sorted side
        # is the smaller one.
        v, v_weight = higher_side
        c, c_weight = lower_side
        mirror = _SUMS[surrogate]((-c, c_weight), (-v, v_weight), margin)
        sums = PairSums(
            mirror.value,
            higher_gradient=-mirror.lower_gradient,
            lower_gradient=-mirror.higher_gradient,
        )
    # If all weights are 0, so are the sums; a divisor of 1 keeps them 0.
    total = (higher_side[1].sum() * lower_side[1].sum()).clamp(min=1.0)
    means = [
        (value / total).to(higher_scores.dtype).to(device_of_scores) for value in sums
    ]
    result = WithGradients.apply(means, *both_scores)  # type: ignore[no-untyped-call]
    return result

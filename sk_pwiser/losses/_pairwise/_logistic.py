r"""Sum of the logistic surrogate log(1 + exp(u)) over all pairs in linear time.

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
from collections.abc import Iterator

import torch
from torch import Tensor

from sk_pwiser.losses._pairwise._hinge import hinge_sums, sums_from_right
from sk_pwiser.losses._pairwise._surrogates import (
    PairSums,
    brute_force_sums,
    surrogate_value,
)

# Scores processed at once. On a CPU, ORDER times as many stay below 2**15 elements:
# beyond that torch starts threads, which are slower here.
CHUNK_SCORES = 2**11
CHUNK_SCORES_DEVICE = 2**18
NODES_PER_UNIT = 8
ORDER = 8
BLOCK_NODES = 256
BLOCK_UNITS = BLOCK_NODES // NODES_PER_UNIT
MAX_BLOCKS = 4096
# exp(-GAP) is 0 in float64: the kernel is 0 below -GAP and linear above GAP.
GAP = 768.0


def logistic_sums(
    higher: Tensor,
    lower: Tensor,
    margin: float,
    higher_weight: Tensor,
    lower_weight: Tensor,
) -> PairSums:
    """Sum w_v w_c log(1 + exp(margin - (v - c))) over all pairs, with its gradients.

    If the scores span more than MAX_BLOCKS blocks, wide gaps between them are closed
    first. The result is NaN if a score is not finite. All tensors are float64 and not
    empty.
    """
    weights = higher_weight, lower_weight
    # The margin is subtracted from small numbers; large ones would absorb it.
    origin = torch.minimum(higher.amin(), lower.amin())
    x, y = higher - origin - margin, lower - origin
    n_blocks = _n_blocks(x, y)
    if not math.isfinite(n_blocks):
        nan = x.new_tensor(math.nan)
        return PairSums(nan, nan.expand(x.shape), nan.expand(y.shape))
    if n_blocks <= MAX_BLOCKS:
        return _grid_sums(x, y, *weights)
    x, y, x_shift, y_shift = _close_gaps(higher, lower, GAP + abs(margin))
    x -= margin
    if _n_blocks(x, y) > MAX_BLOCKS:
        return brute_force_sums(higher, lower, margin, *weights, "logistic")
    sums = _grid_sums(x, y, *weights)
    # The loss of a pair with u > 0 across a gap is u: add what closing the gap removed.
    excess = hinge_sums(x_shift, y_shift, 0.0, *weights).value
    return sums._replace(value=sums.value + excess)


def _n_blocks(x: Tensor, y: Tensor) -> float:
    """Return the number of blocks of the grid that the scores span."""
    spread = torch.maximum(x.amax(), y.amax()) - torch.minimum(x.amin(), y.amin())
    return float(spread) / BLOCK_UNITS


def _close_gaps(
    higher: Tensor, lower: Tensor, widest: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Close wide gaps; return the scores of both sides, and their shifts."""
    scores, order = torch.sort(torch.cat((higher, lower)))
    starts_cluster = torch.cat((scores.new_ones(1) > 0, scores.diff() > widest))
    cluster = starts_cluster.cumsum(0) - 1
    start = scores[starts_cluster]
    end = scores[starts_cluster.roll(-1)]
    closed_start = torch.zeros_like(start)
    torch.cumsum((end - start + widest)[:-1], 0, out=closed_start[1:])
    closed = torch.empty_like(scores)
    closed[order] = scores - start[cluster] + closed_start[cluster]
    shift = torch.empty_like(scores)
    shift[order] = (start - closed_start)[cluster]
    n = higher.numel()
    return closed[:n], closed[n:], shift[:n], shift[n:]


def _grid_sums(
    x: Tensor, y: Tensor, higher_weight: Tensor, lower_weight: Tensor
) -> PairSums:
    """Distribute the weights to a grid, sum over its nodes, interpolate the slopes."""
    origin = torch.minimum(x.amin(), y.amin())
    x_nodes, y_nodes = ((s - origin).mul_(NODES_PER_UNIT) for s in (x, y))
    n_nodes = int(torch.maximum(x_nodes.amax(), y_nodes.amax())) + ORDER
    n_nodes = BLOCK_NODES * math.ceil(n_nodes / BLOCK_NODES)
    x_mass = _distribute(x_nodes, higher_weight, n_nodes)
    y_mass = _distribute(y_nodes, lower_weight, n_nodes)
    values, x_slopes = _node_sums(y_mass)
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
    ratios = (offsets - offsets.T).double()
    scale = ratios.fill_diagonal_(1.0).prod(1)[:, None]
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
        for kernel in (surrogate_value(z, "logistic"), torch.sigmoid(z))
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
    weight, moment = blocks.sum(1), blocks @ coordinate
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

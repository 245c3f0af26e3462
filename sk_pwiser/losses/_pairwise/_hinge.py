r"""Sums of the hinge and its square over all pairs by one sort and running sums.

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
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sk_pwiser.losses._pairwise._surrogates import PairSums


class ActivePairs(NamedTuple):
    """The active pairs: for each lower score the first of the sorted higher scores."""

    order: Tensor  # (n_higher,) indices that sort the higher scores
    gaps: Tensor  # (n_higher - 1,) between neighbours in that order
    n_active: Tensor  # (n_lower,) number of active scores, the first in that order
    violation: Tensor  # (n_lower,) u of the last active score; not positive if none


def inactive_bound(higher: Tensor, margin: float) -> Tensor:
    """Return for each v the largest c with margin - (v - c) <= 0 in float64.

    The rounded v - margin would be wrong within rounding of the kink.
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
        below = bound.nextafter(-infinity)
        bound = torch.where(higher - bound >= margin, bound, below)
    return bound


def find_active_pairs(higher: Tensor, lower: Tensor, margin: float) -> ActivePairs:
    """Sort the higher scores and count the active ones for each lower score."""
    ordered, order = torch.sort(higher)
    bound = inactive_bound(ordered, margin)
    n_active = torch.searchsorted(bound, lower, out_int32=True)
    # Entry k of the padded scores is the last of the first k; for k = 0 any finite
    # score serves.
    last_active = torch.cat((ordered[:1], ordered)).index_select(0, n_active)
    violation = last_active.sub_(lower).neg_().add_(margin)
    return ActivePairs(order, ordered.diff(), n_active, violation)


def running_weight(weight: Tensor) -> Tensor:
    """Return S0: entry k is the sum of the first k weights, k = 0..n."""
    sums = weight.new_zeros(weight.numel() + 1)
    torch.cumsum(weight, 0, out=sums[1:])
    return sums


def running_distance(gaps: Tensor, step: Tensor) -> Tensor:
    """Return the running sum of gap * step for k = 0..n; it is 0 up to k = 1."""
    sums = gaps.new_zeros(gaps.numel() + 2)
    torch.cumsum(gaps * step[1:-1], 0, out=sums[2:])
    return sums


def bin_sums(n_active: Tensor, values: Tensor, n_bins: int) -> Tensor:
    """Sum the values of the lower scores with equal numbers of active pairs."""
    sums = torch.zeros(n_bins, dtype=torch.float64, device=values.device)
    return sums.index_add_(0, n_active, values)


def sums_from_right(values: Tensor) -> Tensor:
    """Return the running sum from the last entry to the first."""
    return values.flip(0).cumsum(0).flip(0)


def unsort(values: Tensor, order: Tensor) -> Tensor:
    """Invert the sorting by `order`."""
    return torch.empty_like(values).index_copy_(0, order, values)


def hinge_sums(
    higher: Tensor,
    lower: Tensor,
    margin: float,
    higher_weight: Tensor,
    lower_weight: Tensor,
    squared: bool = False,
) -> PairSums:
    """Sum w_v w_c max(margin - (v - c), 0), or its square, and return the gradients."""
    pairs = find_active_pairs(higher, lower, margin)
    gaps, n_active = pairs.gaps, pairs.n_active
    weight = higher_weight.index_select(0, pairs.order)
    s0 = running_weight(weight)
    s1 = running_distance(gaps, s0)
    b0 = bin_sums(n_active, lower_weight, s0.numel())
    moment = pairs.violation * lower_weight
    b1 = bin_sums(n_active, moment, s0.numel())
    lower_gradient = s0.index_select(0, n_active)
    if not squared:
        value = torch.dot(s0, b1) + torch.dot(s1, b0)
        higher_gradient = sums_from_right(b0[1:]).mul_(weight).neg_()
        lower_gradient.mul_(lower_weight)
    else:
        b2 = bin_sums(n_active, moment.mul_(pairs.violation), s0.numel())
        s2 = running_distance(gaps, 2 * s1 + F.pad(gaps, (1, 1)) * s0)
        value = torch.dot(s2, b0) + 2 * torch.dot(s1, b1) + torch.dot(s0, b2)
        distance = b1[1:].clone()
        distance[:-1].add_(sums_from_right(b0[1:])[1:].mul_(gaps))
        higher_gradient = sums_from_right(distance).mul_(weight).mul_(-2.0)
        lower_gradient.mul_(pairs.violation).add_(s1.index_select(0, n_active))
        lower_gradient.mul_(lower_weight).mul_(2.0)
    return PairSums(value, unsort(higher_gradient, pairs.order), lower_gradient)


def joint_hinge_sums(
    scores: Tensor,
    margins: Tensor | float,
    higher_weight: Tensor,
    lower_weight: Tensor,
    squared: bool,
) -> tuple[Tensor, Tensor]:
    """Sum w_v q_c h(m_c - (f_v - f_c)) over all pairs of rows; return its gradient too.

    The scores f, (n_heads, batch), and the margins m of the lower rows, (batch,), serve
    all levels of the weights w and q, (n_heads, n_levels, batch). Both sides are sorted
    together, so that few kernels and no value decide: both are f and f + m in one
    array. Rounding of f + m makes pairs active, or not, that are within it of the kink.
    """
    n_heads, n_rows = scores.shape
    # At ties the lower row comes first: it is not above the higher one.
    keys = torch.cat([scores + margins, scores], dim=-1)
    ordered, order = torch.sort(keys, stable=True)
    gaps, zeros = ordered.diff().unsqueeze(1), torch.zeros_like(lower_weight)
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

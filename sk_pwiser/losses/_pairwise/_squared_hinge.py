r"""Sum of the squared hinge over all pairs by one sort and running sums.

In the notation of `_hinge`, with one more running sum,

    sum_i w_i (margin - v_i + c)^2 = S2_k + 2 u_k S1_k + u_k^2 S0_k,
    S2_k = sum_i w_i (v_k - v_i)^2,

where S2 is the running sum of gap * (2 S1 + gap * S0). The functional form of Rust and
Hocking (2023), arXiv 2302.11062, expands the square into powers of the scores, which
cancel. Here the origin moves with k, and all terms are non-negative.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sk_pwiser.losses._pairwise._hinge import (
    bin_sums,
    find_active_pairs,
    running_distance,
    running_weight,
    sums_from_right,
    unsort,
)
from sk_pwiser.losses._pairwise._surrogates import PairSums


def squared_hinge_sums(
    higher: Tensor,
    lower: Tensor,
    margin: float,
    higher_weight: Tensor,
    lower_weight: Tensor,
) -> PairSums:
    """Sum w_v w_c max(margin - (v - c), 0)^2 over all pairs, with its gradients.

    Takes O(n log n_small) time and O(n) memory for n scores of which n_small are on the
    smaller side. All tensors are float64, contiguous and not empty.
    """
    if higher.numel() > lower.numel():
        # v - c = (-c) - (-v): the same pairs with the sides exchanged.
        mirror = squared_hinge_sums(
            -lower, -higher, margin, lower_weight, higher_weight
        )
        return PairSums(
            mirror.value, mirror.lower_gradient.neg_(), mirror.higher_gradient.neg_()
        )
    pairs = find_active_pairs(higher, lower, margin)
    weight = higher_weight.index_select(0, pairs.order)
    s0 = running_weight(weight)
    s1 = running_distance(pairs.gaps, s0)
    lower_gradient = s0.index_select(0, pairs.n_active).mul_(pairs.violation)
    lower_gradient.add_(s1.index_select(0, pairs.n_active)).mul_(lower_weight).mul_(2.0)
    b0 = bin_sums(pairs.n_active, lower_weight, s0.numel())
    moment = pairs.violation * lower_weight
    b1 = bin_sums(pairs.n_active, moment, s0.numel())
    b2 = bin_sums(pairs.n_active, moment.mul_(pairs.violation), s0.numel())
    return PairSums(
        _value(pairs.gaps, s0, s1, b0, b1, b2),
        unsort(_higher_gradient(pairs.gaps, weight, b0, b1), pairs.order),
        lower_gradient,
    )


def _value(
    gaps: Tensor, s0: Tensor, s1: Tensor, b0: Tensor, b1: Tensor, b2: Tensor
) -> Tensor:
    """Sum S2 + 2 u S1 + u^2 S0 over the lower scores, which are binned by k."""
    s2 = s1.new_zeros(s1.shape)
    torch.cumsum(gaps * (2 * s1[1:-1] + gaps * s0[1:-1]), 0, out=s2[2:])
    return torch.dot(s2, b0) + 2 * torch.dot(s1, b1) + torch.dot(s0, b2)


def _higher_gradient(gaps: Tensor, weight: Tensor, b0: Tensor, b1: Tensor) -> Tensor:
    """Return -2 w_v sum_c w_c u in sorted order, by the running sums from the right."""
    distance = b1[1:].clone()
    distance[:-1].add_(sums_from_right(b0[1:])[1:].mul_(gaps))
    return sums_from_right(distance).mul_(weight).mul_(-2.0)

"""Means of a surrogate over all pairs of two score vectors, in near-linear time."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sk_pwiser._utils import at_least_float32, widest_float
from sk_pwiser.losses._pairwise._hinge import hinge_sums, joint_hinge_sums
from sk_pwiser.losses._pairwise._logistic import logistic_sums
from sk_pwiser.losses._pairwise._surrogates import (
    SURROGATES,
    PairSums,
    brute_force_sums,
)

__all__ = ["SURROGATES", "WithGradients", "joint_hinge_sums", "pairwise_mean"]

# Up to this number of pairs their matrix is faster than sorting or a grid. The time of
# other devices goes into the number of kernels, of which the matrix needs few.
BRUTE_FORCE_PAIRS, BRUTE_FORCE_PAIRS_DEVICE = 2**17, 2**22

_SUMS: dict[str, Callable[[Tensor, Tensor, float, Tensor, Tensor], PairSums]] = {
    "hinge": hinge_sums,
    "squared_hinge": partial(hinge_sums, squared=True),
    "logistic": logistic_sums,
}


class WithGradients(torch.autograd.Function):
    """Attach a value to the graph of scores whose gradients are computed with it."""

    @staticmethod
    def forward(
        ctx: Any, compute: Callable[..., Iterable[Tensor]], *scores: Tensor
    ) -> Tensor:
        value, *gradients = compute(*scores)
        ctx.save_for_backward(*scores, *gradients)
        return value

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        n_scores = len(ctx.saved_tensors) // 2
        scores, gradients = ctx.saved_tensors[:n_scores], ctx.saved_tensors[n_scores:]
        gradients = [grad_outputs[0] * gradient for gradient in gradients]
        if torch.is_grad_enabled():  # create_graph=True
            gradients = [
                _DifferentiableOnce.apply(gradient, *scores)  # type: ignore[no-untyped-call]
                for gradient in gradients
            ]
        return None, *gradients


class _DifferentiableOnce(torch.autograd.Function):
    """Raise on a second backward pass, which would treat the gradients as constants."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *scores: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError("means over pairs can be differentiated once, not twice.")


def pairwise_mean(
    higher: Tensor,
    lower: Tensor,
    margin: float,
    surrogate: str = "hinge",
    higher_weight: Tensor | None = None,
    lower_weight: Tensor | None = None,
) -> Tensor:
    """Mean over all pairs (v, c) of h(margin - (higher_v - lower_c)).

    `higher` and `lower` are finite scores, 1-D, and h(u) is `max(u, 0)`, its square, or
    `log(1 + exp(u))`. The mean is weighted by the products of two weights, which get no
    gradient; it is 0 with gradient 0 without weighted pairs. It is float64 or float32,
    and can be differentiated once; a second derivative raises a RuntimeError.

    For n scores, of which m are on the smaller side, the hinges take O(n log m) time
    and the logistic surrogate O(n); all take O(n) memory. Everything is computed in
    float64: on the CPU if the device of the scores has no float64. On a CPU, equal
    inputs give bitwise equal results.

    The hinges are exact: a pair is active if `margin - (v - c) > 0` in float64, and the
    gradient at the kink is 0. The logistic surrogate is exact up to `BRUTE_FORCE_PAIRS`
    pairs, and has the relative errors of `_logistic` beyond. If scores fill a range of
    more than 131072 units without wide gaps, it evaluates all pairs, which is slow.
    """
    compute = partial(
        _mean,
        margin=margin,
        surrogate=surrogate,
        higher_weight=higher_weight,
        lower_weight=lower_weight,
    )
    sides = at_least_float32(higher), at_least_float32(lower)
    result: Tensor = WithGradients.apply(compute, *sides)  # type: ignore[no-untyped-call]
    return result


def _mean(
    higher: Tensor,
    lower: Tensor,
    margin: float,
    surrogate: str,
    higher_weight: Tensor | None,
    lower_weight: Tensor | None,
) -> PairSums:
    """Divide the sums over the pairs by their total weight, in the scores' dtype."""
    n_pairs = higher.numel() * lower.numel()
    if n_pairs == 0:
        return PairSums(
            higher.new_zeros(()), torch.zeros_like(higher), torch.zeros_like(lower)
        )
    device = higher.device
    if widest_float(device) != torch.float64:
        device = torch.device("cpu")
    scores = higher.to(device).double(), lower.to(device).double()
    weights = (
        relative_weight(higher_weight, scores[0]),
        relative_weight(lower_weight, scores[1]),
    )
    scores = scores[0].contiguous(), scores[1].contiguous()
    most = BRUTE_FORCE_PAIRS if device.type == "cpu" else BRUTE_FORCE_PAIRS_DEVICE
    if n_pairs <= most:
        sums = brute_force_sums(*scores, margin, *weights, surrogate)
    elif scores[0].numel() <= scores[1].numel():
        sums = _SUMS[surrogate](*scores, margin, *weights)
    else:
        # v - c = (-c) - (-v): the same pairs with the sides exchanged. The sorted side
        # is the smaller one.
        sides = -scores[1], -scores[0]
        mirror = _SUMS[surrogate](*sides, margin, *reversed(weights))
        gradients = -mirror.lower_gradient, -mirror.higher_gradient
        sums = PairSums(mirror.value, *gradients)
    # If all weights are 0, so are the sums; a divisor of 1 keeps them 0.
    total = (weights[0].sum() * weights[1].sum()).clamp(min=1.0)
    means = ((part / total).to(higher.dtype) for part in sums)
    return PairSums(*(mean.to(higher.device) for mean in means))


def relative_weight(weight: Tensor | None, scores: Tensor) -> Tensor:
    """Return float64 weights with a maximum of 1, or all 0 if all weights are 0.

    A mean does not depend on the scale of the weights. After rescaling, neither a
    product of two weights nor their total can underflow: the total is 0 or at least 1.
    """
    if weight is None or weight.numel() == 0:
        return torch.ones_like(scores, dtype=torch.float64, requires_grad=False)
    weight = weight.detach().to(scores.device).double()
    largest = weight.amax()
    return weight / torch.where(largest > 0, largest, 1.0)

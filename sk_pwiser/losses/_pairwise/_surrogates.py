"""Surrogates of the 0-1 ranking error, and their means from the matrix of pairs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sk_pwiser._utils import check_choice

SURROGATES: tuple[str, ...] = ("hinge", "squared_hinge", "logistic")
CHUNK_PAIRS = 2**18  # largest part of the matrix of pairs held in memory


class PairSums(NamedTuple):
    """The weighted sum over all pairs and its gradients, in float64."""

    value: Tensor
    higher_gradient: Tensor
    lower_gradient: Tensor


def surrogate_value(violation: Tensor, surrogate: str) -> Tensor:
    """Apply the surrogate h to u = margin - (higher score - lower score)."""
    if surrogate == "hinge":
        return torch.relu(violation)
    if surrogate == "squared_hinge":
        return torch.relu(violation).square()
    # log(1 + exp(u)); torch's softplus is linear above u = 20, this is exact.
    return -torch.nn.functional.logsigmoid(-violation)


def result_dtype(higher: Tensor, lower: Tensor) -> torch.dtype:
    """Return float64 if a score vector has it, float32 otherwise."""
    dtype = torch.promote_types(higher.dtype, lower.dtype)
    return dtype if dtype == torch.float64 else torch.float32


def relative_weight(weight: Tensor | None, scores: Tensor) -> Tensor:
    """Return float64 weights with a maximum of 1, or all 0 if all weights are 0.

    A mean does not depend on the scale of the weights. After rescaling, neither a
    product of two weights nor their total can underflow: the total is 0 or at least 1.
    """
    if weight is None or weight.numel() == 0:
        return torch.ones_like(scores, dtype=torch.float64, requires_grad=False)
    weight = weight.detach().to(scores.device).double()
    largest = weight.amax()
    return weight / torch.where(largest > 0, largest, torch.ones_like(largest))


def brute_force_sums(
    higher: Tensor,
    lower: Tensor,
    margin: float,
    higher_weight: Tensor,
    lower_weight: Tensor,
    surrogate: str,
) -> PairSums:
    """Sum over the matrix of pairs, a block of rows at a time.

    This is the fastest way for few pairs. It needs memory for `CHUNK_PAIRS` pairs, or
    for one row of the matrix if that is longer. All tensors are float64 and not empty.
    """
    value = higher.new_zeros(())
    lower_gradient = torch.zeros_like(lower)
    higher_gradients = []
    n_rows = max(1, CHUNK_PAIRS // lower.numel())
    for start in range(0, higher.numel(), n_rows):
        rows = slice(start, start + n_rows)
        weight = higher_weight[rows]
        violation = margin - (higher[rows, None] - lower)
        losses, slopes = _value_and_slope(violation, surrogate)
        value += torch.dot(weight, losses @ lower_weight)
        higher_gradients.append((slopes @ lower_weight).mul_(weight).neg_())
        lower_gradient += weight @ slopes
    return PairSums(
        value, torch.cat(higher_gradients), lower_gradient.mul_(lower_weight)
    )


def _value_and_slope(violation: Tensor, surrogate: str) -> tuple[Tensor, Tensor]:
    """Return h(u) and h'(u); the slope at a kink is 0."""
    if surrogate == "logistic":
        return surrogate_value(violation, surrogate), torch.sigmoid(violation)
    active = violation.relu_()
    if surrogate == "hinge":
        return active, active.sign()
    return active.square(), active.mul_(2)


def pairwise_mean_brute_force(
    higher: Tensor,
    lower: Tensor,
    margin: float,
    surrogate: str = "hinge",
    higher_weight: Tensor | None = None,
    lower_weight: Tensor | None = None,
) -> Tensor:
    """Mean of the surrogate over all pairs, from the matrix of pairs in float64.

    This is a reference for tests: time and memory grow as n_higher * n_lower, and it
    can be differentiated any number of times. It has the same parameters and result as
    `pairwise_mean`.
    """
    check_choice("surrogate", surrogate, SURROGATES)
    w_higher = relative_weight(higher_weight, higher)
    w_lower = relative_weight(lower_weight, lower)
    violation = margin - (higher.double()[:, None] - lower.double()[None, :])
    losses = surrogate_value(violation, surrogate)
    total = (w_higher.sum() * w_lower.sum()).clamp(min=1.0)
    mean = (losses * w_higher[:, None] * w_lower[None, :]).sum() / total
    return mean.to(result_dtype(higher, lower))

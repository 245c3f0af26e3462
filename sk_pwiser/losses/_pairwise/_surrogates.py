"""Surrogates of the 0-1 ranking error, and their sums over the matrix of pairs."""

from typing import NamedTuple

import torch
from torch import Tensor

SURROGATES: tuple[str, ...] = ("hinge", "squared_hinge", "logistic")
# Largest part of the matrix of pairs held in memory
CHUNK_PAIRS, CHUNK_PAIRS_DEVICE = 2**18, 2**22


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


def brute_force_sums(
    higher: Tensor,
    lower: Tensor,
    margin: float,
    higher_weight: Tensor,
    lower_weight: Tensor,
    surrogate: str,
) -> PairSums:
    """Sum over the matrix of pairs, a block of rows at a time."""
    value = higher.new_zeros(())
    lower_gradient = torch.zeros_like(lower)
    higher_gradients = []
    n_pairs = CHUNK_PAIRS if lower.is_cpu else CHUNK_PAIRS_DEVICE
    n_rows = max(1, n_pairs // lower.numel())
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

"""Pairs of rows at different depths of the funnel."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sk_pwiser.losses._weighted_scores import WeightedScores, weighted_pairwise_mean

PAIRS = ("conversion", "funnel")


def rows_by_depth(y: Tensor, sample_weight: Tensor | None = None) -> Tensor:
    """Return a bool mask, (n_tasks + 1, batch), of the rows at each depth.

    A weight of 0 for a task after the first stands for a missing label. A row is at no
    depth if its labels break the funnel, or if a label before the first 0 is missing.
    """
    leading = y.cumprod(dim=1).sum(dim=1)
    depth = torch.where(leading == y.sum(dim=1), leading, -1)
    if sample_weight is not None and sample_weight.dim() == 2:
        later = (sample_weight[:, 1:] > 0).cumprod(dim=1)
        n_known = 1 + later.sum(dim=1)
        is_known = (leading < n_known) | (n_known == y.shape[1])
        depth = torch.where(is_known, depth, -1)
    return depth == torch.arange(y.shape[1] + 1, device=y.device).unsqueeze(1)


def means_over_pairs(
    scores: WeightedScores,
    is_at_depth: Tensor,
    margins: Sequence[float],
    surrogate: str,
    pairs: str,
) -> Iterator[tuple[WeightedScores, Tensor]]:
    """Yield the rows of the greater depth, and the mean, for each pair of depths.

    `is_at_depth` is the result of `rows_by_depth`, and `margins` run from the deepest
    lower depth to depth 0.
    """
    parts = [scores.at(rows) for rows in is_at_depth]
    deepest = len(parts) - 1
    for depth in range(deepest, 0, -1) if pairs == "funnel" else [deepest]:
        for lower in range(depth):
            margin = margins[len(margins) - 1 - lower]
            mean = weighted_pairwise_mean(parts[depth], parts[lower], margin, surrogate)
            yield parts[depth], mean


def has_pairs(is_present: Tensor, pairs: str) -> Tensor:
    """Return whether there is a pair of rows to compare, from the depths with rows."""
    if pairs == "funnel":
        return is_present.sum() > 1
    return is_present[-1] & is_present[:-1].any()

"""Scores with weights, and means over pairs of rows at different depths."""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from sk_pwiser._utils import widest_float
from sk_pwiser.losses._pairwise import joint_hinge_sums, pairwise_mean

PAIRS = ("conversion", "funnel")


class WeightedScores(NamedTuple):
    """One score per row and, if the rows are weighted, one weight per row."""

    values: Tensor
    weight: Tensor | None = None

    def at(self, is_chosen: Tensor) -> "WeightedScores":
        """Return the chosen rows.

        Where the host would have to wait for their number, as on a GPU, all rows are
        returned, and the others have weight 0.
        """
        if selects_without_sync(self.values.device):
            rows = is_chosen.nonzero().squeeze(1)
            weight = self.weight
            if weight is not None:
                weight = weight.index_select(0, rows)
            return WeightedScores(self.values.index_select(0, rows), weight)
        if self.weight is None:
            return WeightedScores(self.values, is_chosen.to(self.values.dtype))
        return WeightedScores(self.values, self.weight * is_chosen)

    def mean_above(
        self, lower: "WeightedScores", margin: float, surrogate: str
    ) -> Tensor:
        """Return the weighted mean of a surrogate over all pairs; 0 without pairs."""
        weights = self.weight, lower.weight
        return pairwise_mean(self.values, lower.values, margin, surrogate, *weights)

    def weight_per_row(self, n_rows: int) -> Tensor | float:
        """Return the sum of the weights divided by the number of rows of the batch."""
        if self.weight is None:
            return self.values.numel() / max(n_rows, 1)
        dtype = widest_float(self.weight.device)
        return self.weight.sum(dtype=dtype) / max(n_rows, 1)


def selects_without_sync(device: torch.device) -> bool:
    """Return whether rows can be selected without blocking the host; not on a GPU."""
    return device.type == "cpu"


def rows_by_depth(
    y: Tensor,
    sample_weight: Tensor | None = None,
    path: Sequence[int] | None = None,
) -> Tensor:
    """Return a bool mask, (n_tasks + 1, batch), of the rows at each depth.

    A weight of 0 for a task after the first stands for a missing label. A row is at no
    depth if its labels break the funnel, or if a label before the first 0 is missing.
    The funnel consists of the tasks of `path`, by default of all tasks.
    """
    starts_with_first = path is None or path[0] == 0
    if path is not None and len(path) < y.shape[1]:
        y = _columns(y, path)
        if sample_weight is not None and sample_weight.dim() == 2:
            sample_weight = _columns(sample_weight, path)
    happened, may_lack = _labels_by_depth(y.shape[1], starts_with_first, y.device)
    # A row is at a depth if all its labels are those of the depth: others break the
    # funnel.
    is_found = y.t().unsqueeze(1) == happened
    if sample_weight is not None and sample_weight.dim() == 2:
        is_found &= (sample_weight.t().unsqueeze(1) > 0) | may_lack
    return is_found.all(dim=0)


@cache
def _labels_by_depth(
    n_tasks: int, starts_with_first: bool, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the labels at each depth, and which of them may be missing.

    Both tensors have shape `(n_tasks, n_tasks + 1, 1)`. Labels after the first 0 may be
    missing. The first task has a label in every row.
    """
    task, depth = torch.arange(n_tasks).view(-1, 1, 1), torch.arange(n_tasks + 1)
    happened = task < depth.unsqueeze(1)
    may_lack = task > depth.unsqueeze(1)
    may_lack[0] |= starts_with_first
    return happened.to(device), may_lack.to(device)


def _columns(values: Tensor, path: Sequence[int]) -> Tensor:
    columns = values.unbind(dim=1)
    return torch.stack([columns[k] for k in path], dim=1)


def means_over_pairs(
    scores: WeightedScores,
    is_at_depth: Tensor,
    margins: Sequence[float],
    surrogate: str,
    pairs: str,
) -> Iterator[tuple[WeightedScores, Tensor]]:
    """Yield the rows of the greater depth, and the mean, for each pair of depths."""
    # Each depth is selected once, and used in several pairs of depths.
    parts = [scores.at(rows) for rows in is_at_depth]
    deepest = len(parts) - 1
    for depth in range(deepest, 0, -1) if pairs == "funnel" else [deepest]:
        for lower in range(depth):
            # Margins run from the deepest lower depth to depth 0; a shorter path uses
            # the last ones.
            margin = margins[len(margins) - 1 - lower]
            yield parts[depth], parts[depth].mean_above(parts[lower], margin, surrogate)


def is_joint(device: torch.device, surrogate: str) -> bool:
    """Return whether `joint_terms` computes the terms of a device."""
    has_float64 = widest_float(device) == torch.float64
    return not selects_without_sync(device) and surrogate != "logistic" and has_float64


def joint_terms(
    scores: Tensor,
    is_at_depth: Tensor,
    weight: Tensor | None,
    margins: Sequence[float],
    surrogate: str,
    pairs: str,
    factor: float,
) -> tuple[Tensor, Tensor]:
    """Sum `factor` times mean times higher weight over the lower depths.

    All heads are computed at once from `scores`, `(n_heads, batch)`. The second result
    is the gradient. The weight of the higher rows cancels out against the divisor of
    the mean.
    """
    scores, is_at_depth = scores.double(), is_at_depth.double()
    at_depth = is_at_depth if weight is None else is_at_depth * weight.unsqueeze(1)
    at_depth = at_depth.expand(len(scores), -1, -1)
    # A depth without rows has weights of 0, which stay 0 after this division.
    total = at_depth.sum(-1, keepdim=True).clamp_(min=torch.finfo(torch.float64).tiny)
    lower = (at_depth / total.div_(factor))[:, :-1]
    if pairs == "funnel":
        higher = at_depth.flip(1).cumsum(1).flip(1)[:, 1:]  # deeper than each level
    else:  # one level, as the higher rows of all lower depths are the same
        higher, lower = at_depth[:, -1:], lower.sum(1, keepdim=True)
    margin: Tensor | float = margins[-1]
    if len({*margins}) > 1:
        of_depths = zip(is_at_depth, reversed(margins), strict=False)
        margin = torch.stack([rows * value for rows, value in of_depths]).sum(0)
    return joint_hinge_sums(scores, margin, higher, lower, surrogate == "squared_hinge")


def lacks_pairs(is_present: Tensor, pairs: str) -> Tensor:
    """Return whether no pair can be formed from the depths that have rows."""
    if pairs == "funnel":
        return is_present.sum() < 2
    return ~(is_present[-1] & is_present[:-1].any())

"""Scores with weights, and means over pairs of rows at different depths."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sk_pwiser._utils import widest_float
from sk_pwiser.losses._pairwise import pairwise_mean

PAIRS = ("conversion", "funnel")


class WeightedScores(NamedTuple):
    """One score per row and, if the rows are weighted, one weight per row."""

    values: Tensor
    weight: Tensor | None = None

    def at(self, is_chosen: Tensor) -> "WeightedScores":
        """Return the chosen rows.

        On a device whose host would have to wait for the number of chosen rows, all
        rows are returned, and the other rows have the weight 0.
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
    """Return whether rows can be selected without blocking the host, as on a GPU."""
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
    leading = y.cumprod(dim=1).sum(dim=1)
    depth = torch.where(leading == y.sum(dim=1), leading, -1)
    if sample_weight is not None and sample_weight.dim() == 2:
        is_known = sample_weight > 0
        # The first task has a label in every row.
        later = is_known[:, 1:] if starts_with_first else is_known
        n_known = later.cumprod(dim=1).sum(dim=1) + int(starts_with_first)
        is_known = (leading < n_known) | (n_known == y.shape[1])
        depth = torch.where(is_known, depth, -1)
    return depth == torch.arange(y.shape[1] + 1, device=y.device).unsqueeze(1)


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
    parts = [scores.at(rows) for rows in is_at_depth]
    deepest = len(parts) - 1
    for depth in range(deepest, 0, -1) if pairs == "funnel" else [deepest]:
        for lower in range(depth):
            margin = margins[len(margins) - 1 - lower]
            yield parts[depth], parts[depth].mean_above(parts[lower], margin, surrogate)


def has_pairs(is_present: Tensor, pairs: str) -> Tensor:
    """Return whether there is a pair of rows to compare, from the depths with rows."""
    if pairs == "funnel":
        return is_present.sum() > 1
    return is_present[-1] & is_present[:-1].any()

"""Scores with weights, and the choice of rows among them."""

from typing import NamedTuple

import torch
from torch import Tensor

from sk_pwiser._utils import widest_float
from sk_pwiser.losses._pairwise import pairwise_mean


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

    def weight_per_row(self, n_rows: int) -> Tensor | float:
        """Return the sum of the weights divided by the number of rows of the batch."""
        if self.weight is None:
            return self.values.numel() / max(n_rows, 1)
        dtype = widest_float(self.weight.device)
        return self.weight.sum(dtype=dtype) / max(n_rows, 1)


def selects_without_sync(device: torch.device) -> bool:
    """Return whether rows can be selected on a device without blocking the host.

    A selection has a shape that depends on the data. On a GPU the host has to wait for
    it, and the queue of kernels runs empty.
    """
    return device.type == "cpu"


def weighted_pairwise_mean(
    higher: WeightedScores, lower: WeightedScores, margin: float, surrogate: str
) -> Tensor:
    """Return the weighted mean of a surrogate over all pairs; 0 without pairs."""
    return pairwise_mean(
        higher.values, lower.values, margin, surrogate, higher.weight, lower.weight
    )

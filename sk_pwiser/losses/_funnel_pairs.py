"""Pairs of rows at different depths of the funnel."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sk_pwiser.losses._weighted_scores import WeightedScores, weighted_pairwise_mean

PAIRS = ("conversion", "funnel")


def rows_by_depth(y: Tensor, sample_weight: Tensor | None = None) -> Tensor:
    """Find the rows at each depth of the funnel, from 0 to n_tasks.

    Parameters
    ----------
    y : Tensor of shape (batch, n_tasks)
        Labels, 0 or 1, tasks in the order of the funnel.
    sample_weight : Tensor of shape (batch,) or (batch, n_tasks), default=None
        Weights of the rows. If they are given per row and task, a weight of 0 for a
        task after the first stands for a missing label.

    Returns
    -------
    bool Tensor of shape (n_tasks + 1, batch)
        Row d marks the impressions of depth d. A row is at no depth if its labels break
        the funnel, or if a label before the first 0 is missing.
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
    """Yield the mean of the surrogate for each pair of depths that are compared.

    Parameters
    ----------
    scores : WeightedScores
        Scores of the batch.
    is_at_depth : bool Tensor of shape (n_tasks + 1, batch)
        Rows at each depth, see `rows_by_depth`.
    margins : sequence of float of length n_tasks
        Margins from the deepest lower depth to depth 0.
    surrogate : str
        The surrogate of a pair.
    pairs : {"conversion", "funnel"}
        Which depths are compared.

    Yields
    ------
    higher : WeightedScores
        The rows of the greater depth.
    mean : Tensor of shape ()
        The mean over the pairs; 0 with gradient 0 if there are none.
    """
    parts = [scores.at(rows) for rows in is_at_depth]
    deepest = len(parts) - 1
    for depth in range(deepest, 0, -1) if pairs == "funnel" else [deepest]:
        for lower in range(depth):
            margin = margins[len(margins) - 1 - lower]
            mean = weighted_pairwise_mean(parts[depth], parts[lower], margin, surrogate)
            yield parts[depth], mean


def has_pairs(is_present: Tensor, pairs: str) -> Tensor:
    """Return whether there is a pair of rows to compare.

    Parameters
    ----------
    is_present : bool Tensor of shape (n_tasks + 1,)
        Whether there are rows of each depth.
    pairs : {"conversion", "funnel"}
        Which depths are compared.

    Returns
    -------
    bool Tensor of shape ()
    """
    if pairs == "funnel":
        return is_present.sum() > 1
    return is_present[-1] & is_present[:-1].any()

"""The pairwise ranking term of PWiseR, over all pairs of a batch."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sk_pwiser._utils import check_number
from sk_pwiser.losses._pairwise import pairwise_mean

PAIRS = ("conversion", "funnel")


class Scores(NamedTuple):
    """Scores of some rows, and their weights where there are any."""

    values: Tensor
    weight: Tensor | None = None

    def take(self, is_taken: Tensor) -> "Scores":
        """Return those of some rows."""
        rows = is_taken.nonzero().squeeze(1)
        weight = None if self.weight is None else self.weight.index_select(0, rows)
        return Scores(self.values.index_select(0, rows), weight)

    def among(self, is_chosen: Tensor) -> "Scores":
        """Return those of some rows, or all of them, the others without weight."""
        if host_knows(self.values.device):
            return self.take(is_chosen)
        return Scores(self.values, self.weights() * is_chosen)

    def weights(self) -> Tensor:
        """Return the weights, 1 where there are none."""
        if self.weight is not None:
            return self.weight
        return torch.ones_like(self.values, requires_grad=False)

    def joined(self, others: "Scores | None") -> "Scores":
        """Return these and the others."""
        if others is None:
            return self
        weight = None
        if self.weight is not None or others.weight is not None:
            weight = torch.cat([self.weights(), others.weights()])
        return Scores(torch.cat([self.values, others.values]), weight)


def host_knows(device: torch.device) -> bool:
    """Tell whether the host need not wait to be told how many rows a device chose."""
    return device.type == "cpu"


def pwiser_loss(
    scores: Tensor,
    y: Tensor,
    *,
    margins: float | Sequence[float] = 1.0,
    surrogate: str = "hinge",
    pairs: str = "conversion",
    sample_weight: Tensor | None = None,
) -> Tensor:
    r"""Pairwise ranking term of PWiseR for one score an impression.

    For two tasks, with V the converted rows, C those clicked without conversion, N
    those not clicked, f the scores and h the surrogate:

    .. math::
        \underset{V \times C}{mean}\ h(m_{click} - (f_v - f_c))
        + \underset{V \times N}{mean}\ h(m_{no\,click} - (f_v - f_n))

    With more tasks, the rows at the end of the funnel stand against the rows of each
    lower depth, one mean each; with one task, positives stand against negatives.
    Exact over all pairs, in near-linear time and linear memory.

    Parameters
    ----------
    scores : Tensor of shape (batch,)
        One task's scores: logits or probabilities.
    y : Tensor of shape (batch, n_tasks)
        Labels, 0 or 1, tasks in the order of the funnel. Rows that break it (a later
        task 1 under an earlier 0) join no pair.
    margins : float or sequence of float of length n_tasks, default=1.0
        Margins in the unit of the scores, from the deepest lower depth down to depth
        0: `(m_click, m_no_click)` for two tasks. A float serves for all.
    surrogate : {"hinge", "squared_hinge", "logistic"}, default="hinge"
        h(u) is `max(u, 0)`, its square, or `log(1 + exp(u))`.
    pairs : {"conversion", "funnel"}, default="conversion"
        Whether the deepest rows alone stand against each lower depth, or the rows of
        every depth against each depth below it.
    sample_weight : Tensor of shape (batch,), default=None
        Weights of the rows; a pair counts with the product of its rows' weights.

    Returns
    -------
    Tensor of shape ()
        The sum of the means. A mean over no pairs is 0 and has gradient 0.

    Raises
    ------
    ValueError
        If the shapes do not fit, `surrogate` or `pairs` is unknown or a margin is not
        finite.

    Notes
    -----
    The means are over pairs, so the term does not depend on the size of a batch. The
    paper, as far as it can be read, squares the hinge of probabilities and divides
    each sum by the number of its lower rows alone.

    References
    ----------
    Durmus, Saribas, Aldemir, Yang and Cevikalp (2024). :arxiv:`2406.02163`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.losses import pwiser_loss
    >>> y = torch.tensor([[1, 1], [1, 0], [0, 0]])
    >>> pwiser_loss(torch.tensor([2.0, 1.5, 0.0]), y)
    tensor(0.5000)
    """
    if y.dim() != 2 or scores.shape != y.shape[:1]:
        raise ValueError(
            "scores must have shape (batch,) and y shape (batch, n_tasks); got "
            f"{tuple(scores.shape)} and {tuple(y.shape)}."
        )
    checked = check_margins(margins, y.shape[1])
    check_pairs(pairs)
    at = rows_by_depth(y)
    return ranking_term(Scores(scores, sample_weight), at, checked, surrogate, pairs)


def rows_by_depth(y: Tensor) -> Tensor:
    """Tell which rows are at each funnel depth, from 0 to n_tasks.

    Returns
    -------
    bool Tensor of shape (n_tasks + 1, batch)
        Rows that break the funnel are at none.
    """
    leading = y.cumprod(dim=1).sum(dim=1)
    depth = torch.where(leading == y.sum(dim=1), leading, -1)
    return depth == torch.arange(y.shape[1] + 1, device=y.device).unsqueeze(1)


def ranking_term(
    scores: Scores,
    at: Tensor,
    margins: Sequence[float],
    surrogate: str,
    pairs: str,
    remembered: Scores | None = None,
) -> Tensor:
    """Return the sum of the means over pairs, for rows whose depth `at` tells.

    `remembered` scores stand beside those of the deepest rows.
    """
    parts = [scores.among(rows) for rows in at]
    parts[-1] = parts[-1].joined(remembered)
    dtype = torch.promote_types(scores.values.dtype, torch.float32)
    total = scores.values.new_zeros((), dtype=dtype)
    for higher in range(len(at) - 1, 0, -1):
        for lower in range(higher):
            total = total + pairwise_mean(
                parts[higher].values,
                parts[lower].values,
                # They run from the deepest lower depth to depth 0.
                margins[len(margins) - 1 - lower],
                surrogate,
                parts[higher].weight,
                parts[lower].weight,
            )
        if pairs == "conversion":
            break
    return total


def has_pairs(is_present: Tensor, pairs: str) -> Tensor:
    """Tell whether there is any pair to compare.

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


def check_margins(margins: float | Sequence[float], n_tasks: int) -> list[float]:
    """Return one margin a lower depth; a ValueError tells what is wrong."""
    values = list(margins) if isinstance(margins, Sequence) else [margins] * n_tasks
    if len(values) != n_tasks:
        raise ValueError(
            f"margins must be a number or hold one a lower depth, {n_tasks} here; "
            f"got {margins!r}."
        )
    return [check_number("margins", value) for value in values]


def check_pairs(pairs: str) -> str:
    """Return the kind of pairs; a ValueError where it is unknown."""
    if pairs not in PAIRS:
        raise ValueError(f"pairs must be one of {list(PAIRS)}; got {pairs!r}.")
    return pairs

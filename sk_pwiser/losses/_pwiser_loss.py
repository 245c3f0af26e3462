"""The pairwise ranking term of PWiseR as a function."""

from collections.abc import Mapping, Sequence, Set
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from sk_pwiser._utils import check_choice, check_number, is_iterable
from sk_pwiser.losses._pairwise import SURROGATES
from sk_pwiser.losses._weighted_scores import (
    PAIRS,
    WeightedScores,
    means_over_pairs,
    rows_by_depth,
)


def pwiser_loss(
    scores: Tensor,
    y: Tensor,
    *,
    margins: float | Sequence[float] = 1.0,
    surrogate: str = "hinge",
    pairs: str = "conversion",
    sample_weight: Tensor | None = None,
) -> Tensor:
    r"""Pairwise ranking term of PWiseR for one score per impression.

    For two tasks, with the converted rows V, the rows C clicked without conversion, the
    rows N not clicked, the scores f and the surrogate h:

    .. math::
        \underset{V \times C}{mean}\ h(m_{click} - (f_v - f_c))
        + \underset{V \times N}{mean}\ h(m_{no\,click} - (f_v - f_n))

    With more tasks, the rows at the end of the funnel are compared with the rows of
    each lower depth, with one mean per lower depth. With one task, positives are
    compared with negatives. The means are exact over all pairs, in near-linear time
    and linear memory.

    Parameters
    ----------
    scores : Tensor of shape (batch,)
        Scores of one task: logits or probabilities.
    y : Tensor of shape (batch, n_tasks)
        Labels, 0 or 1, tasks in the order of the funnel. Rows that break it (a later
        task is 1 although an earlier one is 0) are in no pair.
    margins : float or array-like of shape (n_tasks,), default=1.0
        Margins in the unit of the scores, from the deepest lower depth to depth 0:
        `(m_click, m_no_click)` for two tasks. A float applies to all depths.
    surrogate : {"hinge", "squared_hinge", "logistic"}, default="hinge"
        h(u) is `max(u, 0)`, its square, or `log(1 + exp(u))`.
    pairs : {"conversion", "funnel"}, default="conversion"
        Whether only the deepest rows are compared with each lower depth, or the rows of
        every depth with each depth below it.
    sample_weight : Tensor of shape (batch,), default=None
        Non-negative weights of the rows. The weight of a pair is the product of the
        weights of its rows.

    Returns
    -------
    Tensor of shape ()
        The sum of the means. A mean over no pairs is 0 and has gradient 0.

    Raises
    ------
    ValueError
        If the shapes do not fit, `surrogate` or `pairs` is unknown, or a margin is not
        finite.

    Notes
    -----
    Since these are means over pairs, the gradient of a converted row grows as their
    rate falls. :class:`PWiseR` multiplies the means by the share of the converted rows,
    which removes that dependence.

    The paper, as far as it can be read, squares the hinge of probabilities and divides
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
    if not scores.is_floating_point():
        raise ValueError(f"scores must be floats; got dtype {scores.dtype}.")
    if sample_weight is not None and sample_weight.shape != scores.shape:
        raise ValueError(
            f"sample_weight must have the shape of scores, {tuple(scores.shape)}; got "
            f"{tuple(sample_weight.shape)}."
        )
    means = means_over_pairs(
        WeightedScores(scores, sample_weight),
        rows_by_depth(y),
        check_margins(margins, y.shape[1]),
        check_choice("surrogate", surrogate, SURROGATES),
        check_choice("pairs", pairs, PAIRS),
    )
    return torch.stack([mean for _, mean in means]).sum()


def check_margins(margins: Any, n_tasks: int) -> list[float]:
    """Return one margin per lower depth."""
    # Convert arrays, tensors, series and NumPy scalars to lists and Python numbers.
    values = margins.tolist() if hasattr(margins, "tolist") else margins
    if isinstance(values, Real):
        return [check_number("margins", values)] * n_tasks
    if not is_iterable(values) or isinstance(values, Mapping | Set):
        raise TypeError(
            "margins must be a number or a sequence with one number per lower depth; "
            f"got {margins!r}."
        )
    values = list(values)
    if len(values) != n_tasks:
        raise ValueError(
            "margins must be a number or a sequence with one number per lower depth, "
            f"{n_tasks} here; got {margins!r}."
        )
    return [check_number(f"margins[{i}]", value) for i, value in enumerate(values)]

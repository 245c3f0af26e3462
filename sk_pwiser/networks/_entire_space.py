"""Losses of conditional heads over all rows, including those without a label.

The functions take the heads after the first, whose labels are known only in the rows in
which the previous task happened.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sk_pwiser.networks._multi_task_network import Labels


def entire_space_loss(
    labels: Labels,
    conditional_logits: Tensor,
    propensity: Tensor,
    imputed: Tensor | None = None,
    weight: float = 1.0,
) -> Tensor:
    """Compute the loss of conditional heads over the entire space, `(n_tasks,)`.

    The formulas, without and with imputation, are those of :class:`ESCM2`. The result
    is 0 for the first task, whose labels are all known, and for tasks of which no label
    is known. `propensity`, P(Y_k = 1 | impression), and `imputed`, the log-odds of the
    imputed labels, are `(batch, n_tasks - 1)`. The first sums estimate the mean over
    all rows consistently if the propensities are right up to a common factor; the form
    with imputation also if the imputed labels are right (X. Wang et al. 2019, ICML).
    The paper imputes the loss itself, a number that does not depend on the head and has
    no gradient for it: rows without a label would not train the head.
    """
    heads, target = conditional_logits[:, 1:], labels.y[:, 1:]
    known = later_weights(labels) * labels.y[:, :-1] / propensity.detach()
    delta = later_losses(labels, heads, target)
    if imputed is None:
        losses = weighted_mean(delta, known)
    else:
        guess = imputed.detach().sigmoid()
        guessed = later_losses(labels, heads, guess)
        training = later_losses(labels, imputed, target)
        losses = (guessed * later_weights(labels)).mean(dim=0)
        losses = losses + weighted_mean(delta - guessed + training, known)
    return weight * F.pad(losses, (1, 0))


def later_losses(labels: Labels, logits: Tensor, targets: Tensor) -> Tensor:
    """Compute losses of heads after the first, `(batch, n_tasks - 1)`, unweighted."""
    # The loss takes one column per task; that of the first is not used.
    logits = torch.cat([logits.new_zeros(len(logits), 1), logits], dim=1)
    targets = torch.cat([labels.y[:, :1], targets], dim=1)
    return labels.row_losses(logits, targets)[:, 1:]


def later_weights(labels: Labels) -> Tensor:
    """Return the weights of rows for tasks after the first, ones if there are none."""
    return _weights(labels)[:, 1:]


def earlier_weights(labels: Labels) -> Tensor:
    """Return the weights of the rows for the task before each task after the first.

    These are the weights of losses that use the label of the previous task only: a
    missing label has the weight 0.
    """
    return _weights(labels)[:, :-1]


def _weights(labels: Labels) -> Tensor:
    if labels.sample_weight is None:
        return torch.ones_like(labels.y)
    return labels.sample_weight.view(len(labels.y), -1).expand_as(labels.y)


def weighted_mean(losses: Tensor, weights: Tensor) -> Tensor:
    """Average `(batch, n)` over the rows, by weights; 0 where all weights are 0."""
    tiny = torch.finfo(losses.dtype).tiny
    return (losses * weights).sum(dim=0) / weights.sum(dim=0).clamp(min=tiny)


def smallest_propensities(base_rates: Sequence[float], share: float) -> Tensor:
    """Return the smallest propensities with and without a task, `(2, n_tasks - 1)`.

    They are a `share` of the base rates, for each task but the last.
    """
    rates = torch.tensor(list(base_rates[:-1]), dtype=torch.float64)
    return (share * torch.stack([rates, 1 - rates])).float()


def both_propensities(logits: Tensor, smallest: Tensor) -> tuple[Tensor, Tensor]:
    """Return the probabilities that the previous task happened, and that it did not.

    Both are `(batch, n_tasks - 1)`, without gradient, and not below `smallest`.
    """
    logits = logits[:, :-1].detach()
    happened, absent = logits.sigmoid(), (-logits).sigmoid()
    return torch.maximum(happened, smallest[0]), torch.maximum(absent, smallest[1])

"""Losses of conditional heads over all rows, including those without a label.

The functions take the heads after the first, whose labels are known only in the rows in
which the previous task happened.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from sk_pwiser._utils import conditional_labels
from sk_pwiser.networks._base import Labels


def entire_space_loss(
    labels: Labels,
    conditional_logits: Tensor,
    propensity: Tensor,
    imputed: Tensor | None = None,
    weight: float = 1.0,
) -> Tensor:
    r"""Compute the loss of conditional heads over the entire space.

    The label of a later task is known for rows with the previous task, o = 1. With
    :math:`\delta` the loss of the head in a row and p the propensity,

    .. math:: \frac{1}{n} \sum_i \frac{o_i \delta_i}{p_i}
        \quad\text{or}\quad
        \frac{1}{n} \sum_i \Big[\hat\delta_i
        + \frac{o_i (\delta_i - \hat\delta_i)}{p_i}\Big]
        + \frac{1}{n} \sum_i \frac{o_i (\delta_i - \hat\delta_i)^2}{p_i},

    without and with imputation, where :math:`\hat\delta` is the loss of the head for
    an imputed label in (0, 1). The first sums are unbiased estimates of the mean of
    :math:`\delta` over all rows if the propensities are right; the second form also if
    the imputed labels are right. The last sum trains only the imputation.

    Parameters
    ----------
    labels : Labels
        Labels and weights of the rows, and the loss per row.
    conditional_logits : Tensor of shape (batch, n_tasks)
        Log-odds of P(Y_k = 1 | Y_{k-1} = 1, impression).
    propensity : Tensor of shape (batch, n_tasks - 1)
        P(Y_k = 1 | impression), above 0; no gradient is taken.
    imputed : Tensor of shape (batch, n_tasks - 1), default=None
        Log-odds of the imputed labels.
    weight : float, default=1.0
        Factor of the losses.

    Returns
    -------
    Tensor of shape (n_tasks,)
        One loss per conditional head; 0 for the first task, whose labels are all known.

    Notes
    -----
    The paper imputes the loss itself. A number that does not depend on the head has no
    gradient for it: rows without a label would not train the head.

    References
    ----------
    H. Wang, T.-W. Chang, T. Liu, J. Huang, Z. Chen, C. Yu, R. Li and W. Chu (2022).
    ESCM2: Entire Space Counterfactual Multi-Task Model for Post-Click Conversion Rate
    Estimation. SIGIR. :arxiv:`2204.05125`

    X. Wang, R. Zhang, Y. Sun and J. Qi (2019). Doubly Robust Joint Learning for
    Recommendation on Data Missing Not at Random. ICML.
    """
    y, row_losses = labels.y, labels.row_losses
    observed = y[:, :-1] / propensity.detach()
    delta = row_losses(conditional_logits, conditional_labels(y))[:, 1:]
    if imputed is None:
        losses = observed * delta
    else:
        targets = torch.cat([y[:, :1], imputed.sigmoid()], dim=1)
        guessed = row_losses(conditional_logits, targets.detach())[:, 1:]
        # Without a gradient to the head: this difference trains only the imputation.
        fixed_head = row_losses(conditional_logits.detach(), targets)[:, 1:]
        error = (delta.detach() - fixed_head) ** 2
        losses = guessed + observed * (delta - guessed) + observed * error
    losses = losses * later_weights(labels)
    return weight * F.pad(losses.mean(dim=0), (1, 0))


def later_losses(labels: Labels, logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the pointwise losses of heads after the first.

    Parameters
    ----------
    labels : Labels
        Labels of the rows, and the loss per row.
    logits, targets : Tensor of shape (batch, n_tasks - 1)
        Logits of the heads, and targets in [0, 1].

    Returns
    -------
    Tensor of shape (batch, n_tasks - 1)
        Losses without weights.
    """
    # The loss takes one column per task; that of the first is not used.
    logits = torch.cat([logits.new_zeros(len(logits), 1), logits], dim=1)
    targets = torch.cat([labels.y[:, :1], targets], dim=1)
    return labels.row_losses(logits, targets)[:, 1:]


def later_weights(labels: Labels) -> Tensor:
    """Return the weights of the rows for tasks after the first.

    Returns
    -------
    Tensor of shape (batch, n_tasks - 1)
        Ones if the rows have no weights.
    """
    return _weights(labels)[:, 1:]


def earlier_weights(labels: Labels) -> Tensor:
    """Return the weights of the rows for the task before each task after the first.

    These are the weights of losses that use the label of the previous task only: a
    missing label has the weight 0.

    Returns
    -------
    Tensor of shape (batch, n_tasks - 1)
        Ones if the rows have no weights.
    """
    return _weights(labels)[:, :-1]


def _weights(labels: Labels) -> Tensor:
    if labels.sample_weight is None:
        return torch.ones_like(labels.y)
    return labels.sample_weight.view(len(labels.y), -1).expand_as(labels.y)


def weighted_mean(losses: Tensor, weights: Tensor) -> Tensor:
    """Average losses of shape `(batch, n)` over the rows, by weights of this shape.

    Returns a tensor of shape `(n,)`; 0 where all weights are 0.
    """
    tiny = torch.finfo(losses.dtype).tiny
    return (losses * weights).sum(dim=0) / weights.sum(dim=0).clamp(min=tiny)


def both_propensities(logits: Tensor, smallest: float) -> tuple[Tensor, Tensor]:
    """Return the probabilities that the previous task happened, and that it did not.

    Parameters
    ----------
    logits : Tensor of shape (batch, n_tasks)
        Log-odds of P(Y_k = 1 | impression).
    smallest : float
        Smallest value of both.

    Returns
    -------
    two Tensors of shape (batch, n_tasks - 1)
        One per head after the first, without gradient.
    """
    p = logits[:, :-1].detach().sigmoid()
    return p.clamp(min=smallest), (1 - p).clamp(min=smallest)

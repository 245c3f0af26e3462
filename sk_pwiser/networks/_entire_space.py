"""The loss of conditional heads over all rows, including those without a label."""

import torch
from torch import Tensor
from torch.nn import functional as F

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
    delta = row_losses(conditional_logits, y)[:, 1:]
    if imputed is None:
        losses = observed * delta
    else:
        targets = torch.cat([y[:, :1], imputed.sigmoid()], dim=1)
        guessed = row_losses(conditional_logits, targets.detach())[:, 1:]
        # Without a gradient to the head: this difference trains only the imputation.
        fixed_head = row_losses(conditional_logits.detach(), targets)[:, 1:]
        error = (delta.detach() - fixed_head) ** 2
        losses = guessed + observed * (delta - guessed) + observed * error
    if labels.sample_weight is not None:
        # One weight per row, or one per row and task: the last columns are the heads'.
        weights = labels.sample_weight.view(len(y), -1)
        losses = losses * weights[:, -losses.shape[1] :]
    return weight * F.pad(losses.mean(dim=0), (1, 0))

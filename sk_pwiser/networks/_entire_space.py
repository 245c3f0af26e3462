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
    r"""Compute the loss of conditional heads over the entire space.

    The label of a later task is known for rows with the previous task, o = 1. With
    :math:`\delta` the loss of the head in a row, p the propensity and w = o / p,

    .. math:: \frac{\sum_i w_i \delta_i}{\sum_i w_i}
        \quad\text{or}\quad
        \frac{1}{n} \sum_i \hat\delta_i
        + \frac{\sum_i w_i (\delta_i - \hat\delta_i)}{\sum_i w_i}
        + \frac{\sum_i w_i\, \delta(\tilde q_i, r_i)}{\sum_i w_i},

    without and with imputation, where :math:`\hat\delta` is the loss of the head for
    an imputed label :math:`\tilde q` in (0, 1), and r is the label. The first sums
    estimate the mean of :math:`\delta` over all rows consistently if the propensities
    are right up to a common factor; the second form also if the imputed labels are
    right. The last term trains only the imputation.

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
        One loss per conditional head; 0 for the first task, whose labels are all known,
        and for tasks of which no label is known.

    Notes
    -----
    The paper imputes the loss itself. A number that does not depend on the head has no
    gradient for it: rows without a label would not train the head.

    References
    ----------
    H. Wang, T.-W. Chang, T. Liu, J. Huang, Z. Chen, C. Yu, R. Li and W. Chu (2022).
    ESCM2: Entire Space Counterfactual Multi-Task Model for Post-Click Conversion Rate
    Estimation. SIGIR. :arxiv:`2204.05125`

    A. Swaminathan and T. Joachims (2015). The Self-Normalized Estimator for
    Counterfactual Learning. NIPS.

    X. Wang, R. Zhang, Y. Sun and J. Qi (2019). Doubly Robust Joint Learning for
    Recommendation on Data Missing Not at Random. ICML.
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


def smallest_propensities(base_rates: Sequence[float], share: float) -> Tensor:
    """Return the smallest propensities of rows with and without the previous task.

    Parameters
    ----------
    base_rates : sequence of float of length n_tasks
        Mean of the labels of each task.
    share : float
        Smallest propensity, as a share of the base rate.

    Returns
    -------
    Tensor of shape (2, n_tasks - 1)
        Of P(Y_k = 1 | impression) and of P(Y_k = 0 | impression), for each task but the
        last.
    """
    rates = torch.tensor(list(base_rates[:-1]), dtype=torch.float64)
    return (share * torch.stack([rates, 1 - rates])).float()


def both_propensities(logits: Tensor, smallest: Tensor) -> tuple[Tensor, Tensor]:
    """Return the probabilities that the previous task happened, and that it did not.

    Parameters
    ----------
    logits : Tensor of shape (batch, n_tasks)
        Log-odds of P(Y_k = 1 | impression).
    smallest : Tensor of shape (2, n_tasks - 1)
        Smallest values of both.

    Returns
    -------
    two Tensors of shape (batch, n_tasks - 1)
        One per head after the first, without gradient.
    """
    logits = logits[:, :-1].detach()
    happened, absent = logits.sigmoid(), (-logits).sigmoid()
    return torch.maximum(happened, smallest[0]), torch.maximum(absent, smallest[1])

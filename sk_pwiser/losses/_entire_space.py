"""The loss of a conditional head over rows where its condition was not met."""

import torch
from torch import Tensor
from torch.nn import functional as F


def entire_space_loss(
    logits: Tensor,
    y: Tensor,
    propensity: Tensor,
    imputed: Tensor | None = None,
    sample_weight: Tensor | None = None,
) -> Tensor:
    r"""Compute the cross-entropy of conditional heads over the entire space.

    The label of a later task is known where the task before it happened, o = 1. With
    :math:`\delta` the cross-entropy of the head and p the propensity,

    .. math:: \frac{1}{n} \sum_i \frac{o_i \delta_i}{p_i}
        \quad\text{or}\quad
        \frac{1}{n} \sum_i \Big[\hat\delta_i
        + \frac{o_i (\delta_i - \hat\delta_i)}{p_i}\Big]
        + \frac{1}{n} \sum_i \frac{o_i (\delta_i - \hat\delta_i)^2}{p_i},

    without and with imputation, where :math:`\hat\delta` is the head's cross-entropy
    against an imputed label in (0, 1). The first sums estimate the mean of
    :math:`\delta` over all rows without bias where the propensity is right; the second
    form also where the imputed labels are. The last sum trains these, and these alone.

    Parameters
    ----------
    logits : Tensor of shape (batch, n_tasks - 1)
        Log-odds of P(Y_{k+1} = 1 | Y_k = 1, impression).
    y : float Tensor of shape (batch, n_tasks)
        Labels, 0 or 1.
    propensity : Tensor of shape (batch, n_tasks - 1)
        P(Y_k = 1 | impression), above 0; no gradient is taken.
    imputed : Tensor of shape (batch, n_tasks - 1), default=None
        Log-odds of the imputed labels.
    sample_weight : Tensor of shape (batch,), default=None
        Weights of the rows, with a mean of 1 over the training rows.

    Returns
    -------
    Tensor of shape (n_tasks - 1,)
        One loss a conditional head.

    Notes
    -----
    The paper imputes the loss itself. A number that does not depend on the head has no
    gradient for it: rows without a label would teach it nothing, in either form.

    References
    ----------
    H. Wang, T.-W. Chang, T. Liu, J. Huang, Z. Chen, C. Yu, R. Li and W. Chu (2022).
    ESCM2: Entire Space Counterfactual Multi-Task Model for Post-Click Conversion Rate
    Estimation. SIGIR. :arxiv:`2204.05125`

    X. Wang, R. Zhang, Y. Sun and J. Qi (2019). Doubly Robust Joint Learning for
    Recommendation on Data Missing Not at Random. ICML.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.losses import entire_space_loss
    >>> y = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    >>> entire_space_loss(torch.zeros(2, 1), y, torch.full((2, 1), 0.5))
    tensor([0.6931])
    """
    labels, observed = y[:, 1:], y[:, :-1] / propensity.detach()
    delta = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    if imputed is None:
        losses = observed * delta
    else:
        guesses = imputed.sigmoid()
        guessed = F.binary_cross_entropy_with_logits(
            logits, guesses.detach(), reduction="none"
        )
        # The two cross-entropies differ by the logit times the labels' difference.
        error = (logits.detach() * (labels - guesses)) ** 2
        losses = guessed + observed * (delta - guessed) + observed * error
    if sample_weight is not None:
        losses = losses * sample_weight.unsqueeze(1)
    return torch.mean(losses, dim=0)

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

    without and with imputed losses :math:`\hat\delta`. The first sums estimate the
    mean of :math:`\delta` over all rows without bias where the propensity is right;
    the second form also where the imputed losses are. The last sum trains these.

    Parameters
    ----------
    logits : Tensor of shape (batch, n_tasks - 1)
        Log-odds of P(Y_{k+1} = 1 | Y_k = 1, impression).
    y : float Tensor of shape (batch, n_tasks)
        Labels, 0 or 1.
    propensity : Tensor of shape (batch, n_tasks - 1)
        P(Y_k = 1 | impression), above 0; no gradient is taken.
    imputed : Tensor of shape (batch, n_tasks - 1), default=None
        Predicted cross-entropy of each head, >= 0.
    sample_weight : Tensor of shape (batch,), default=None
        Weights of the rows, with a mean of 1 over the training rows.

    Returns
    -------
    Tensor of shape (n_tasks - 1,)
        One loss a conditional head.

    References
    ----------
    H. Wang, T.-W. Chang, T. Liu, J. Huang, Z. Chen, C. Yu, R. Li and W. Chu (2022).
    ESCM2: Entire Space Counterfactual Multi-Task Model for Post-Click Conversion Rate
    Estimation. SIGIR. :arxiv:`2204.05125`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.losses import entire_space_loss
    >>> y = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    >>> entire_space_loss(torch.zeros(2, 1), y, torch.full((2, 1), 0.5))
    tensor([0.6931])
    """
    delta = F.binary_cross_entropy_with_logits(logits, y[:, 1:], reduction="none")
    observed = y[:, :-1] / propensity.detach()
    if imputed is None:
        losses = observed * delta
    else:
        # The imputation learns from the loss; the loss is not drawn to its imputation.
        error = (delta.detach() - imputed) ** 2
        losses = imputed + observed * (delta - imputed) + observed * error
    if sample_weight is not None:
        losses = losses * sample_weight.unsqueeze(1)
    return torch.mean(losses, dim=0)

"""A penalty of probabilities that rise along the funnel."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sk_pwiser._tasks._tree import chain_parents


def funnel_monotonicity_penalty(
    logits: Tensor,
    sample_weight: Tensor | None = None,
    parents: Sequence[int] | None = None,
) -> Tensor:
    r"""Penalise probabilities that rise along the funnel.

    .. math:: \frac{1}{n} \sum_i \sum_k w_{i,k+1} \max(p_{i,k+1} - p_{ik}, 0)

    with the probabilities p and the sample weights w. The paper of AITM calls it the
    behavioral expectation calibrator and sums over the rows. Here it is a mean, so that
    its weight does not depend on the batch size.

    Parameters
    ----------
    logits : Tensor of shape (batch, n_tasks)
        Log-odds of P(Y_k = 1 | impression), tasks in the order of the funnel.
    sample_weight : Tensor of shape (batch,) or (batch, n_tasks), default=None
        Weights of the rows, with a mean of 1 over the training rows. If they are given
        per row and task, the weight of the later task of each pair applies.
    parents : sequence of int, default=None
        Index of the task that each task presupposes, -1 if there is none; by default
        the task before it.

    Returns
    -------
    Tensor of shape ()
        The penalty on the scale of probabilities. It is 0 if no probability rises or
        there is only one task.

    References
    ----------
    D. Xi, Z. Chen, P. Yan, Y. Zhang, Y. Zhu, F. Zhuang and Y. Chen (2021). Modeling
    the Sequential Dependence among Audience Multi-step Conversions with Multi-task
    Learning in Targeted Display Advertising. KDD. :arxiv:`2105.08489`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.losses import funnel_monotonicity_penalty
    >>> logits = torch.logit(torch.tensor([[0.5, 0.25], [0.25, 0.75]]))
    >>> funnel_monotonicity_penalty(logits)
    tensor(0.2500)
    """
    if parents is None:
        parents = chain_parents(logits.shape[1])
    weight = sample_weight
    if weight is not None:
        weight = weight.view(len(logits), -1).expand_as(logits)
    p = logits.sigmoid().unbind(dim=1)
    # A first summand, since a single task has no pair.
    rises = [torch.zeros_like(p[0])]
    for k, parent in enumerate(parents):
        if parent >= 0:
            rise = (p[k] - p[parent]).relu()
            rises.append(rise if weight is None else rise * weight[:, k])
    return torch.stack(rises).sum(dim=0).mean()

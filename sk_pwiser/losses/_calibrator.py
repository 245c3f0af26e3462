"""The calibrator of AITM: a later task is no likelier than an earlier one."""

from torch import Tensor


def funnel_calibrator(logits: Tensor, sample_weight: Tensor | None = None) -> Tensor:
    r"""Penalise probabilities that rise along the funnel.

    .. math:: \frac{1}{n} \sum_i w_i \sum_k \max(p_{i,k+1} - p_{ik}, 0)

    A mean over rows, so that its weight does not depend on the batch.

    Parameters
    ----------
    logits : Tensor of shape (batch, n_tasks)
        Log-odds of P(Y_k = 1 | impression), tasks in the order of the funnel.
    sample_weight : Tensor of shape (batch,), default=None
        Weights of the rows, with a mean of 1 over the training rows.

    Returns
    -------
    Tensor of shape ()
        The penalty on the scale of probabilities; 0 where no row rises, and with one
        task.

    References
    ----------
    D. Xi, Z. Chen, P. Yan, Y. Zhang, Y. Zhu, F. Zhuang and Y. Chen (2021). Modeling
    the Sequential Dependence among Audience Multi-step Conversions with Multi-task
    Learning in Targeted Display Advertising. KDD. :arxiv:`2105.08489`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.losses import funnel_calibrator
    >>> funnel_calibrator(torch.logit(torch.tensor([[0.5, 0.25], [0.25, 0.75]])))
    tensor(0.2500)
    """
    rises = logits.sigmoid().diff(dim=1).relu().sum(dim=1)
    if sample_weight is not None:
        rises = rises * sample_weight
    return rises.mean()

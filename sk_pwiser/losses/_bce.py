"""Binary cross-entropy."""

from torch import Tensor
from torch.nn import functional as F

from sk_pwiser.losses._base import MultiTaskLoss


class BCE(MultiTaskLoss):
    r"""Binary cross-entropy of each task over all impressions.

    .. math:: L_k = \frac{1}{n} \sum_i w_i [\log(1 + e^{z_{ik}}) - y_{ik} z_{ik}]

    with z the logits, y the labels and w the sample weights.

    Parameters
    ----------
    task_names : sequence of str
        Names of the tasks, in the order of the logits' columns.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.losses import BCE
    >>> loss = BCE(["click", "conversion"])
    >>> loss(torch.zeros(4, 2), torch.ones(4, 2))
    tensor([0.6931, 0.6931])
    """

    def forward(
        self,
        logits: Tensor,
        y: Tensor,
        sample_weight: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> Tensor:
        """Compute the mean cross-entropy of each task, of shape `(n_tasks,)`."""
        losses = F.binary_cross_entropy_with_logits(logits, y, reduction="none")
        if sample_weight is not None:
            losses = losses * sample_weight.unsqueeze(1)
        return losses.mean(dim=0)

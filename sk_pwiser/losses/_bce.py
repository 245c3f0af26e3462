"""Binary cross-entropy."""

from torch import Tensor
from torch.nn import functional as F

from sk_pwiser.losses._task_loss import MultiTaskLoss, mean_over_rows


class BCE(MultiTaskLoss):
    r"""Binary cross-entropy of each task over all impressions.

    .. math:: L_k = \frac{1}{n} \sum_i w_i [\log(1 + e^{z_{ik}}) - y_{ik} z_{ik}]

    with the logits z, the labels y and the sample weights w.

    Parameters
    ----------
    task_names : sequence of str
        Names of the tasks, in the order of the columns of the logits.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.losses import BCE
    >>> loss = BCE(["click", "conversion"])
    >>> loss(torch.zeros(4, 2), torch.ones(4, 2))
    tensor([0.6931, 0.6931])
    """

    takes_task_weights = True

    def forward(
        self,
        logits: Tensor,
        y: Tensor,
        sample_weight: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> Tensor:
        """Compute the mean cross-entropy of each task, of shape `(n_tasks,)`."""
        return mean_over_rows(self.row_losses(logits, y), sample_weight)

    def row_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the cross-entropy per row and task; targets may be probabilities."""
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")

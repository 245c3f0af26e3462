"""Binary cross-entropy of each task."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sk_pwiser.losses._base import MultiTaskLoss


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
    averages_rows = True

    def forward(
        self,
        logits: Tensor,
        y: Tensor,
        sample_weight: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> Tensor:
        """Compute the mean of `row_losses` of each task, of shape `(n_tasks,)`."""
        losses = self.row_losses(logits, y)
        if sample_weight is not None:
            losses = losses * sample_weight.view(len(y), -1)
        # Not by the sum of the weights: it differs between batches, and rare heavy rows
        # would count less in the batches that have them.
        return losses.mean(dim=0)

    def row_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the cross-entropy per row and task; targets may be probabilities."""
        if logits.is_cpu:
            return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        losses: Tensor = _CrossEntropy.apply(logits, targets)  # type: ignore[no-untyped-call]
        return losses


class _CrossEntropy(torch.autograd.Function):
    """Cross-entropy by fewer kernels than torch's own, for devices other than a CPU."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        ctx.save_for_backward(logits, targets)
        # z - z y - log sigmoid(z), which is finite for all logits.
        loss = torch.addcmul(logits, logits, targets, value=-1)
        return loss.sub_(F.logsigmoid(logits))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        logits, targets = ctx.saved_tensors
        logits_gradient = grad_outputs[0] * (logits.sigmoid() - targets)
        targets_gradient = None
        if ctx.needs_input_grad[1]:
            targets_gradient = -grad_outputs[0] * logits
        return logits_gradient, targets_gradient

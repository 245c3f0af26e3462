"""Binary cross-entropy."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sk_pwiser._utils import at_least_float32, check_number
from sk_pwiser.losses._task_loss import _PointwiseLoss


class BCE(_PointwiseLoss):
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

    def row_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the cross-entropy per row and task; targets may be probabilities."""
        if logits.is_cpu:
            return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        losses: Tensor = _CrossEntropy.apply(logits, targets)  # type: ignore[no-untyped-call]
        return losses


class _CrossEntropy(torch.autograd.Function):
    """Cross-entropy by fewer kernels than torch's own."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        ctx.save_for_backward(logits, targets)
        loss = torch.addcmul(logits, logits, targets, value=-1)
        return loss.sub_(F.logsigmoid(logits))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        logits, targets = ctx.saved_tensors
        of_targets = -grad_outputs[0] * logits if ctx.needs_input_grad[1] else None
        return grad_outputs[0] * (logits.sigmoid() - targets), of_targets


class _BCEWithRanking(BCE):
    """Base class of the losses `s * BCE + (1 - s) * ranking`, with s = bce_share."""

    averages_rows = False

    def __init__(self, task_names: Sequence[str], *, bce_share: float) -> None:
        super().__init__(task_names)
        self.bce_share = check_number("bce_share", bce_share, at_least=0, at_most=1)

    def forward(
        self,
        logits: Tensor,
        y: Tensor,
        sample_weight: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> Tensor:
        """Compute the combined loss of each task, of shape `(n_tasks,)`."""
        logits = at_least_float32(logits)
        y = y.to(logits.dtype)
        calibration = super().forward(logits, y, sample_weight)
        if self.bce_share == 1:
            return calibration
        ranking = self._ranking(logits, y, sample_weight, groups)
        return self.bce_share * calibration + (1 - self.bce_share) * ranking

    def _ranking(
        self,
        logits: Tensor,
        y: Tensor,
        sample_weight: Tensor | None,
        groups: Tensor | None,
    ) -> Tensor:
        """Compute the ranking loss of each task, of shape `(n_tasks,)`."""
        raise NotImplementedError

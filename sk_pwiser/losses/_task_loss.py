"""Base class of the losses, and what is computed row by row.

These are cross-entropy, focal loss and the penalty of probabilities that rise along the
funnel.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sk_pwiser._utils import (
    at_least_float32,
    chain_parents,
    check_base_init,
    check_number,
    check_signature,
)


class MultiTaskLoss(nn.Module):
    """Base class of the losses, which compute one value per task for a batch.

    A subclass takes the names of the tasks and its own keyword parameters, and defines
    `forward`. The class can then be passed as `loss` to
    :class:`~sk_pwiser.MultiTaskCTRCVRClassifier`. The losses of this package raise
    TypeError or ValueError for parameters of a wrong type or out of range.

    Parameters
    ----------
    task_names : sequence of str
        Names of the tasks, in the order of the columns of the logits.

    Attributes
    ----------
    estimator_parameters : tuple of str
        Parameters of the estimator that are passed to the loss as well, such as
        `pwiser_weight`.
    heads : sequence of int
        Indices of the tasks that the term of weight `pwiser_weight` ranks, by default
        the last one, if the loss takes this parameter.
    asks_for_groups : bool
        Whether the loss compares rows within groups. Batches then keep the rows of a
        group together.
    takes_task_weights : bool
        Whether `sample_weight` may have shape `(batch, n_tasks)`.
    averages_rows : bool
        Whether the loss is the mean of `row_losses`, times the weights, apart from
        pairwise terms. Its expected value at the base rates is then known, which the
        weighting "gradnorm" uses, and `partial_fit` shrinks the labels of rare tasks.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.losses import MultiTaskLoss
    >>> class Brier(MultiTaskLoss):
    ...     def forward(self, logits, y, sample_weight=None, groups=None):
    ...         errors = (logits.sigmoid() - y) ** 2
    ...         if sample_weight is not None:
    ...             errors = errors * sample_weight.unsqueeze(1)
    ...         return errors.mean(dim=0)
    >>> Brier(["click", "conversion"])(torch.zeros(4, 2), torch.ones(4, 2))
    tensor([0.2500, 0.2500])
    """

    estimator_parameters: ClassVar[tuple[str, ...]] = ()
    heads: Sequence[int] = (-1,)
    asks_for_groups: bool = False
    takes_task_weights: bool = False
    averages_rows: bool = False

    def __init__(self, task_names: Sequence[str]) -> None:
        super().__init__()
        self.task_names = tuple(task_names)

    def forward(
        self,
        logits: Tensor,
        y: Tensor,
        sample_weight: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss of each task.

        Parameters
        ----------
        logits : Tensor of shape (batch, n_tasks)
            Log-odds of P(Y_k = 1 | impression).
        y : float Tensor of shape (batch, n_tasks)
            Labels, 0 or 1; 0 where they are missing, with a weight of 0 for the task.
        sample_weight : Tensor of shape (batch,) or (batch, n_tasks), default=None
            Non-negative weights of the rows, with a mean of 1 over the training rows.
            Weights per row and task are passed only if `takes_task_weights` is True. A
            weight of 0 excludes the row from the task; the losses are still divided by
            the number of rows of the batch.
        groups : int64 Tensor of shape (batch,), default=None
            Group of each row, a number; None if no groups were passed to `fit`.

        Returns
        -------
        Tensor of shape (n_tasks,)
            Means over the rows of the batch.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward.")

    def row_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the pointwise part of the loss per row and task.

        Networks use it in their extra losses.

        Parameters
        ----------
        logits : Tensor of shape (batch, n_tasks)
            Log-odds of the targets.
        targets : float Tensor of shape (batch, n_tasks)
            Labels, or probabilities of the label 1, within [0, 1].

        Returns
        -------
        Tensor of shape (batch, n_tasks)
            Losses without weights, not reduced.

        Raises
        ------
        NotImplementedError
            If the loss has no pointwise part.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define row_losses to be combined with a "
            "network that uses them."
        )

    def cautions(self, base_rates: Sequence[float]) -> list[str]:
        """Return warnings about parameters that are unsuitable at these rates.

        Parameters
        ----------
        base_rates : sequence of float of length n_tasks
            Share of ones of each task in the training rows.

        Returns
        -------
        list of str
            Messages, by default none.
        """
        return []

    def observe(self, y: Tensor, sample_weight: Tensor | None = None) -> None:
        """Update the figures for the history.

        This method is called once per training or validation batch, whereas `forward`
        is called once per set of heads. By default nothing is recorded.

        Parameters
        ----------
        y : float Tensor of shape (batch, n_tasks)
            Labels, 0 or 1.
        sample_weight : Tensor of shape (batch,) or (batch, n_tasks), default=None
            Weights of the rows.
        """

    def pop_epoch_record(self) -> dict[str, float]:
        """Return the epoch's figures for the history and reset them.

        This method is also called before the first batch, to obtain the names of the
        figures.

        Returns
        -------
        dict of str to float
            Figures, under their names in the history.
        """
        return {}


def checked_loss(loss: MultiTaskLoss) -> MultiTaskLoss:
    """Return a loss after a check of its methods: its class may be a user's own."""
    check_base_init(loss, "task_names", "task_names")
    arguments = "logits", "y", "sample_weight", "groups"
    check_signature(type(loss), "forward", *arguments)
    check_signature(type(loss), "observe", "y", "sample_weight")
    return loss


def per_task(sample_weight: Tensor) -> Tensor:
    """Return weights with one column per task, or one column for all tasks."""
    return sample_weight.unsqueeze(1) if sample_weight.dim() == 1 else sample_weight


def weights_of_task(sample_weight: Tensor | None, task: int) -> Tensor | None:
    """Return the weights of the rows for one task, of shape `(batch,)`."""
    if sample_weight is None or sample_weight.dim() == 1:
        return sample_weight
    return sample_weight[:, task]


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
            losses = losses * per_task(sample_weight)
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
        of_targets = -grad_outputs[0] * logits if ctx.needs_input_grad[1] else None
        return grad_outputs[0] * (logits.sigmoid() - targets), of_targets


class Focal(BCE):
    r"""Focal loss: cross-entropy that reduces the influence of well-classified rows.

    .. math::
        L_k = -\frac{1}{n} \sum_i w_i\, \alpha_{ik}\, (1 - q_{ik})^\gamma \log q_{ik}

    where q is the predicted probability of the row's own label, that is
    :math:`\sigma(z_{ik})` for a positive and :math:`\sigma(-z_{ik})` for a negative
    row, z are the logits, w the sample weights, and :math:`\alpha_{ik}` is alpha for
    positives and 1 - alpha for negatives, or 1 for both.

    Parameters
    ----------
    task_names : sequence of str
        Names of the tasks, in the order of the columns of the logits.
    gamma : float, default=2.0
        Focusing parameter, >= 0. The larger it is, the less well-classified rows
        count; 0 is cross-entropy.
    alpha : float, default=None
        Weight of the positives, within (0, 1); the negatives have 1 - alpha. If None,
        both have the weight 1.

    Notes
    -----
    For gamma above 0 the probabilities that minimise the expected loss are not the true
    probabilities: they are nearer to 1/2 (Charoenphakdee et al. 2021), so that rare
    events are predicted several times too often, but they have the right order.
    Calibrate the probabilities if their values matter. An alpha other than 1/2 shifts
    them as well.

    The paper divides the sum by the number of positive anchors. This implementation
    divides it by the number of rows, which is defined for batches without positives
    too. The paper sets alpha to 0.25.

    `row_losses` with a probability t as target returns t times the loss of a positive
    plus 1 - t times the loss of a negative row.

    References
    ----------
    Lin, Goyal, Girshick, He and Dollár (2017), "Focal loss for dense object
    detection", ICCV. :arxiv:`1708.02002`

    Charoenphakdee et al. (2021), "On focal loss for class-posterior probability
    estimation: a theoretical perspective", CVPR. :arxiv:`2011.09172`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.losses import Focal
    >>> loss = Focal(["click", "conversion"], gamma=2.0)
    >>> loss(torch.tensor([[0.0, 3.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([0.1733, 2.7663])
    """

    def __init__(
        self,
        task_names: Sequence[str],
        *,
        gamma: float = 2.0,
        alpha: float | None = None,
    ) -> None:
        super().__init__(task_names)
        self.gamma = check_number("gamma", gamma, at_least=0)
        self.alpha = alpha
        if alpha is not None:
            self.alpha = check_number("alpha", alpha, above=0, below=1)

    def row_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the focal loss per row and task; targets may be probabilities."""
        logits = at_least_float32(logits)
        targets = targets.to(logits.dtype)
        log_p, log_not_p = F.logsigmoid(logits), F.logsigmoid(-logits)
        # The logarithm of 1 - q is at most 0, so neither the power nor its derivative
        # overflows. The derivative of (1 - q) ** gamma is infinite at q = 1 for a
        # gamma below 1.
        positive = -(self.gamma * log_not_p).exp() * log_p
        negative = -(self.gamma * log_p).exp() * log_not_p
        if self.alpha is not None:
            positive, negative = self.alpha * positive, (1 - self.alpha) * negative
        return targets * positive + (1 - targets) * negative


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
    p = logits.sigmoid().unbind(dim=1)
    # A first summand, since a single task has no pair.
    rises = [torch.zeros_like(p[0])]
    for k, parent in enumerate(parents):
        if parent >= 0:
            weight = weights_of_task(sample_weight, k)
            rise = (p[k] - p[parent]).relu()
            rises.append(rise if weight is None else rise * weight)
    return torch.stack(rises).sum(dim=0).mean()

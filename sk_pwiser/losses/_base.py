"""What every loss is given and what it gives back."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn


class MultiTaskLoss(nn.Module):
    """Base class of the losses: from a batch of logits to one loss a task.

    A subclass takes the tasks' names and its own keyword parameters and defines
    `forward`. The class itself is then a valid `loss=` of
    :class:`~sk_pwiser.MultiTaskCTRCVRClassifier`.

    Parameters
    ----------
    task_names : sequence of str
        Names of the tasks, in the order of the logits' columns.

    Attributes
    ----------
    estimator_parameters : tuple of str
        Parameters of the estimator itself that are handed to the loss as well, such
        as `pwiser_weight`.
    asks_for_groups : bool
        Whether the loss compares rows of a group. Batches then keep the rows of a
        group together.
    counted : sequence of int or None
        The tasks that a loss with a memory, or one that counts batches, is to take
        note of in the coming call, None for all. A batch may take several calls: one
        for auxiliary heads, which are not counted, or one a task where tasks learn
        from rows of their own.

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
    asks_for_groups: bool = False
    counted: Sequence[int] | None = None

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
            Labels, 0 or 1.
        sample_weight : Tensor of shape (batch,), default=None
            Weights of the rows, with a mean of 1 over the training rows.
        groups : int64 Tensor of shape (batch,), default=None
            Group of each row, a number; None where `fit` was given no groups.

        Returns
        -------
        Tensor of shape (n_tasks,)
            Means over the rows of the batch.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward.")

    def pop_epoch_record(self) -> dict[str, float]:
        """Return what the loss has to tell of the epoch that ends, and forget it.

        Returns
        -------
        dict of str to float
            Figures for the history, under their names there.
        """
        return {}

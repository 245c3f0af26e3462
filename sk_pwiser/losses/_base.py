"""The base class of the losses."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn


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
        pairwise terms. `partial_fit` then shrinks the labels of rare tasks, and moves
        predictions to the level of the labels.

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

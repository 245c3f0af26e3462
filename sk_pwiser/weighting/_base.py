"""What every task weighting is given and what it gives back."""

from torch import Tensor, nn


class TaskWeighting(nn.Module):
    """Base class of the weightings: from one loss a task to one loss.

    A subclass takes the number of tasks and its own keyword parameters and defines
    `forward`. The class itself is then a valid `weighting=` of
    :class:`~sk_pwiser.MultiTaskCTRCVRClassifier`.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.weighting import TaskWeighting
    >>> class Worst(TaskWeighting):
    ...     def forward(self, losses):
    ...         return losses.max()
    >>> Worst(2)(torch.tensor([0.5, 0.25]))
    tensor(0.5000)
    """

    def __init__(self, n_tasks: int) -> None:
        super().__init__()
        self.n_tasks = n_tasks

    def forward(self, losses: Tensor) -> Tensor:
        """Combine the losses of the tasks.

        Parameters
        ----------
        losses : Tensor of shape (n_tasks,)
            One loss a task.

        Returns
        -------
        Tensor of shape ()
            The loss to minimise.
        """
        raise NotImplementedError

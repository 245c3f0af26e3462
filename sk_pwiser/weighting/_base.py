"""What every task weighting is given and what it does."""

from collections.abc import Iterable

from torch import Tensor, nn


class TaskWeighting(nn.Module):
    """Base class of the weightings: from one loss a task to one step.

    A subclass takes the number of tasks and its own keyword parameters and defines
    `forward`. The class itself is then a valid `weighting=` of
    :class:`~sk_pwiser.MultiTaskCTRCVRClassifier`. Parameters and persistent buffers are
    its state: they are kept with the fitted estimator, and `partial_fit` goes on from
    them. What the user sets must not be among them.

    With one task there is nothing to weigh, and `forward` is not asked.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.

    Attributes
    ----------
    goes_backward_per_task : bool
        Whether a step with several tasks goes through the network's graph backward
        once a task, in place of once.

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

    goes_backward_per_task: bool = False

    def __init__(self, n_tasks: int) -> None:
        super().__init__()
        self.n_tasks = n_tasks
        self._weights: Tensor | None = None
        self._n_steps = 0

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
        raise NotImplementedError(f"{type(self).__name__} must define forward.")

    def backward(
        self,
        losses: Tensor,
        penalty: Tensor | None,
        parameters: Iterable[nn.Parameter],
    ) -> None:
        """Compute the gradients of a step and leave them in the parameters.

        Parameters
        ----------
        losses : Tensor of shape (n_tasks,)
            One loss a task, with its graph.
        penalty : Tensor of shape () or None
            What the network adds for no task in particular.
        parameters : iterable of Parameter
            The network's parameters.
        """
        if losses.requires_grad:
            # The weight of a loss is the derivative of the whole by it.
            losses.register_hook(self.record)  # type: ignore[no-untyped-call]
        total: Tensor = self(losses) if self.n_tasks > 1 else losses.sum()
        if not isinstance(total, Tensor) or total.dim() != 0:
            raise ValueError(
                f"weighting {type(self).__name__} must combine the losses to a Tensor "
                f"of shape (); got {total!r}."
            )
        if penalty is not None:
            total = total + penalty
        total.backward()  # type: ignore[no-untyped-call]

    def report(self, losses: Tensor) -> Tensor:
        """Sum the losses up for the history and for early stopping.

        Weights that move would make epochs incomparable, so they play no part.

        Parameters
        ----------
        losses : Tensor of shape (n_tasks,)
            One loss a task.

        Returns
        -------
        Tensor of shape ()
            Their sum.
        """
        return losses.sum()

    def record(self, weights: Tensor) -> None:
        """Keep the weights of a step for the history.

        Parameters
        ----------
        weights : Tensor of shape (n_tasks,)
            What each task's loss, or gradient, was multiplied by.
        """
        weights = weights.detach()
        self._weights = weights if self._weights is None else self._weights + weights
        self._n_steps += 1

    def end_epoch(self) -> list[float]:
        """Return the mean weights of the epoch that ends, and forget them.

        Methods that change between epochs do so here.

        Returns
        -------
        list of float
            One weight a task; empty where no step was made.
        """
        weights, n_steps = self._weights, self._n_steps
        self._weights, self._n_steps = None, 0
        return [] if weights is None else (weights / n_steps).tolist()

"""Base class of the task weightings."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class TaskWeighting(nn.Module):
    """Base class of the weightings, which combine one loss per task.

    A subclass takes the number of tasks and its own keyword parameters, and defines
    `forward`. The class can then be passed as `weighting` to
    :class:`~sk_pwiser.MultiTaskCTRCVRClassifier`. The weightings of this package raise
    TypeError or ValueError for parameters of a wrong type or out of range.

    Parameters and persistent buffers are the state of a weighting: they are stored
    with the fitted estimator, and `partial_fit` continues from them. Settings of the
    user must not be stored in them.

    With one task there is nothing to combine, and `forward` is not called.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.

    Attributes
    ----------
    needs_task_gradients : bool
        Whether the weighting combines the tasks' gradients instead of their losses. A
        step then needs one backward pass per task.

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

    needs_task_gradients: bool = False
    _sums: Tensor
    _n_steps: Tensor
    _one: Tensor

    def __init__(self, n_tasks: int) -> None:
        super().__init__()
        self.n_tasks = n_tasks
        # In place, as graphs require.
        for name, value in (
            ("_sums", torch.zeros(n_tasks)),
            ("_n_steps", torch.zeros(1)),
            ("_one", torch.ones(1)),
        ):
            self.register_buffer(name, value, persistent=False)

    @property
    def uses_task_gradients(self) -> bool:
        """Whether a step computes one gradient per task: only with several tasks."""
        return self.needs_task_gradients and self.n_tasks > 1

    def set_base_losses(self, losses: Tensor) -> None:
        """Receive the losses of predictions that equal the base rates of the tasks.

        Called once before training, with values that do not depend on the labels of a
        single batch. By default they are not used. A weighting that is used alone, or
        with a loss whose `averages_rows` is False, does not receive them.

        Parameters
        ----------
        losses : Tensor of shape (n_tasks,)
            Expected loss of each task per row of weight 1, without penalties and
            pairwise parts; for cross-entropy the entropy of the base rate. In
            conditional task space, that of the rate among the rows where the task that
            it presupposes happened.
        """

    def set_sample_weight(self, sample_weight: Tensor | None) -> None:
        """Receive the weights of the rows of a step.

        Called before `backward`. By default they are not used.

        Parameters
        ----------
        sample_weight : Tensor of shape (batch,) or (batch, n_tasks), or None
            Weights of the rows in the losses, 0 for missing labels and, in conditional
            task space, for rows without the task that is presupposed; None if all are
            1. The losses are divided by the number of rows, not by these weights.
        """

    def set_extra_losses(self, losses: Tensor) -> None:
        """Receive the part of a step's losses that the network adds to them.

        Called before `backward`, if the network has extra losses per task, such as the
        corrections of ESCM2. The base losses do not contain them. By default they are
        not used.

        Parameters
        ----------
        losses : Tensor of shape (n_tasks,)
            Extra loss of each task, without its graph.
        """

    def forward(self, losses: Tensor) -> Tensor:
        """Combine the losses of the tasks.

        Parameters
        ----------
        losses : Tensor of shape (n_tasks,)
            One loss per task.

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
        """Compute the gradients of a step and store them in the parameters.

        Parameters
        ----------
        losses : Tensor of shape (n_tasks,)
            One loss per task, with its graph.
        penalty : Tensor of shape () or None
            Sum of the penalties, which belong to no task.
        parameters : iterable of Parameter
            The network's parameters.
        """
        if losses.requires_grad:
            # The weight of a loss is the derivative of the total with respect to it.
            losses.register_hook(self.record)  # type: ignore[no-untyped-call]
        total: Tensor = self(losses) if self.n_tasks > 1 else losses.sum()
        if not isinstance(total, Tensor) or total.dim() != 0:
            raise ValueError(
                f"weighting {type(self).__name__} must return a Tensor of shape () "
                f"from forward; got {total!r}."
            )
        if losses.requires_grad and not total.requires_grad:
            raise ValueError(
                f"weighting {type(self).__name__} must return a Tensor from forward "
                "through which gradients reach the losses; it has none."
            )
        if penalty is not None:
            total = total + penalty
        total.backward()  # type: ignore[no-untyped-call]

    def report(self, losses: Tensor) -> Tensor:
        """Return the sum of the losses, for the history and for early stopping.

        Weights that change during training would make epochs incomparable, so they
        are ignored here.

        Parameters
        ----------
        losses : Tensor of shape (n_tasks,)
            One loss per task.

        Returns
        -------
        Tensor of shape ()
            Sum of the losses.
        """
        return losses.sum()

    def record(self, weights: Tensor) -> None:
        """Add the weights of a step to the mean of the epoch.

        Parameters
        ----------
        weights : Tensor of shape (n_tasks,)
            Factor of each task's loss or gradient in the step.
        """
        # Weightings of gradients compute their weights on the CPU. The host does not
        # wait for the copy to another device.
        sums, on_device = self._sums, self._sums.device.type != "cpu"
        weights = weights.detach().to(sums, non_blocking=on_device)
        torch._foreach_add_([sums, self._n_steps], [weights, self._one])  # one kernel

    def end_epoch(self) -> list[float]:
        """Return the epoch's mean weights and reset them.

        Methods whose weights change between epochs override this method.

        Returns
        -------
        list of float
            One weight per task, or an empty list if there was no step.
        """
        weights, n_steps = self._sums / self._n_steps, float(self._n_steps)
        self._sums.zero_()
        self._n_steps.zero_()
        return weights.tolist() if n_steps else []

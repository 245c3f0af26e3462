"""Weightings with the same weights in all steps."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sk_pwiser._utils import check_number, is_iterable
from sk_pwiser.weighting._task_weighting import TaskWeighting


class Equal(TaskWeighting):
    """The sum of the tasks' losses.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.weighting import Equal
    >>> Equal(2)(torch.tensor([0.5, 0.25]))
    tensor(0.7500)
    """

    def forward(self, losses: Tensor) -> Tensor:
        """Return the sum of the losses, of shape `()`."""
        return losses.sum()


class Fixed(TaskWeighting):
    """A weighted sum of the tasks' losses, with weights given by the user.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.
    weights : sequence of float of length n_tasks
        Weights >= 0, at least one of them > 0. They are not normalised.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.weighting import Fixed
    >>> Fixed(2, weights=[1.0, 4.0])(torch.tensor([0.5, 0.25]))
    tensor(1.5000)
    """

    weights: Tensor

    def __init__(self, n_tasks: int, *, weights: Sequence[float]) -> None:
        super().__init__(n_tasks)
        if isinstance(weights, Mapping) or not is_iterable(weights):
            raise TypeError(
                f"weights must be a sequence of numbers, one per task; got {weights!r}."
            )
        values = list(weights)
        if len(values) != n_tasks:
            raise ValueError(
                f"weights must hold one number per task, {n_tasks} in total; got "
                f"{weights!r}."
            )
        values = [
            check_number(f"weights[{k}]", value, at_least=0)
            for k, value in enumerate(values)
        ]
        if not any(values):
            raise ValueError(
                f"weights must hold at least one number > 0; got {weights!r}."
            )
        # A setting of the user is not part of the state: `partial_fit` may change it.
        self.register_buffer(
            "weights", torch.tensor(values, dtype=torch.float32), persistent=False
        )

    def forward(self, losses: Tensor) -> Tensor:
        """Return the weighted sum of the losses, of shape `()`."""
        return (self.weights * losses).sum()

    def report(self, losses: Tensor) -> Tensor:
        """Return the loss that is minimised: the weighted sum, of shape `()`."""
        return self(losses) if self.n_tasks > 1 else losses.sum()

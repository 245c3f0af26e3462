"""Weights that stay as they are."""

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real

import torch
from torch import Tensor

from sk_pwiser.weighting._base import TaskWeighting


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
    """The sum of the tasks' losses, each times a weight given by the user.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.
    weights : sequence of float of length n_tasks
        Weights >= 0, at least one of them above 0, taken as they are.

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
        if isinstance(weights, Mapping) or not isinstance(weights, Iterable):
            raise TypeError(
                "weights must be a sequence of numbers, one a task in their order; got "
                f"{weights!r}."
            )
        values = list(weights)
        if len(values) != n_tasks:
            raise ValueError(
                f"weights must hold one number a task, {n_tasks} here; got {weights!r}."
            )
        valid = all(isinstance(w, Real) and 0 <= w < float("inf") for w in values)
        if not valid or not any(values):
            raise ValueError(
                f"weights must be numbers >= 0, one of them above 0; got {weights!r}."
            )
        weights_as_given = torch.tensor(values, dtype=torch.float32)
        # A parameter, no state: training that goes on may take others.
        self.register_buffer("weights", weights_as_given, persistent=False)

    def forward(self, losses: Tensor) -> Tensor:
        """Return the weighted sum of the losses, of shape `()`."""
        return (self.weights * losses).sum()

    def report(self, losses: Tensor) -> Tensor:
        """Return what is minimised: the weighted sum, of shape `()`."""
        return self(losses) if self.n_tasks > 1 else losses.sum()

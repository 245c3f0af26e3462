"""A weighted sum of the tasks' losses, with weights of the user."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sk_pwiser._utils._checks import check_number, is_iterable
from sk_pwiser.weighting._equal import Equal


class Fixed(Equal):
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

    def __init__(self, n_tasks: int, *, weights: Sequence[float]) -> None:
        is_sequence = is_iterable(weights) and not isinstance(weights, Mapping)
        values = [
            check_number(f"weights[{k}]", value, at_least=0)
            for k, value in enumerate(weights if is_sequence else ())
        ]
        if len(values) != n_tasks or not any(values):
            raise ValueError(
                f"weights must be a sequence of {n_tasks} numbers, one per task, and "
                f"not only 0; got {weights!r}."
            )
        super().__init__(n_tasks)
        if n_tasks > 1:  # the weight of a single task does not count
            self.weights.copy_(torch.tensor(values))

    def report(self, losses: Tensor) -> Tensor:
        """Return the loss that is minimised: the weighted sum, of shape `()`."""
        return (self.weights * losses).sum()

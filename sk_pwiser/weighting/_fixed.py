"""Weightings with the same weights in all steps."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from sk_pwiser._utils import check_number, is_iterable
from sk_pwiser.weighting._task_weighting import TaskWeighting


class _Constant(TaskWeighting):
    """Base class of the weightings whose weights do not change."""

    weights: Tensor

    def __init__(self, n_tasks: int, weights: Sequence[float]) -> None:
        super().__init__(n_tasks)
        # A setting of the user is not part of the state: `partial_fit` may change it.
        self.register_buffer(
            "weights", torch.tensor(weights, dtype=torch.float32), persistent=False
        )

    def backward(
        self,
        losses: Tensor,
        penalty: Tensor | None,
        parameters: Iterable[nn.Parameter],
    ) -> None:
        """Compute the gradients of a step, for which the weights are known before."""
        if type(self).forward not in (Equal.forward, Fixed.forward):
            super().backward(losses, penalty, parameters)  # of a subclass
            return
        terms: list[tuple[Tensor, Tensor | None]] = [(losses, self._factors)]
        if penalty is not None:
            terms.append((penalty, None))
        # As in a sum, a constant term has no gradient.
        terms = [term for term in terms if term[0].requires_grad] or terms
        torch.autograd.backward([term for term, _ in terms], [w for _, w in terms])

    def end_epoch(self) -> list[float]:
        """Return the weights."""
        return super().end_epoch() or self._factors.tolist()

    @property
    def _factors(self) -> Tensor:
        return self.weights if self.n_tasks > 1 else torch.ones_like(self.weights)


class Equal(_Constant):
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

    def __init__(self, n_tasks: int) -> None:
        super().__init__(n_tasks, [1.0] * n_tasks)

    def forward(self, losses: Tensor) -> Tensor:
        """Return the sum of the losses, of shape `()`."""
        return losses.sum()


class Fixed(_Constant):
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
        super().__init__(n_tasks, values)

    def forward(self, losses: Tensor) -> Tensor:
        """Return the weighted sum of the losses, of shape `()`."""
        return (self.weights * losses).sum()

    def report(self, losses: Tensor) -> Tensor:
        """Return the loss that is minimised: the weighted sum, of shape `()`."""
        return self(losses) if self.n_tasks > 1 else losses.sum()

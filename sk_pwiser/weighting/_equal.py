"""The sum of the tasks' losses."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

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

    def __init__(self, n_tasks: int) -> None:
        super().__init__(n_tasks)
        # Settings, and no part of the state: `partial_fit` may change them.
        self.weights = nn.Buffer(torch.ones(n_tasks), persistent=False)

    def forward(self, losses: Tensor) -> Tensor:
        """Return the weighted sum of the losses, of shape `()`."""
        return (self.weights * losses).sum()

    def backward(
        self, losses: Tensor, penalty: Tensor | None, parameters: Iterable[nn.Parameter]
    ) -> None:
        """Compute the gradients of a step from the weights, without a total loss."""
        if type(self).forward is not Equal.forward:
            # A subclass with its own `forward` may compute any total.
            super().backward(losses, penalty, parameters)
            return
        terms: list[tuple[Tensor, Tensor | None]] = [(losses, self.weights)]
        if penalty is not None:
            terms.append((penalty, None))
        # As in a sum, a constant term has no gradient.
        terms = [term for term in terms if term[0].requires_grad] or terms
        torch.autograd.backward([term for term, _ in terms], [w for _, w in terms])

    def end_epoch(self) -> list[float]:
        """Return the weights."""
        if type(self).forward is Equal.forward:
            return list(self.weights.tolist())
        return super().end_epoch()  # of a subclass with its own `forward`

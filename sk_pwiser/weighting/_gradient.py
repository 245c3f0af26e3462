"""Methods that combine gradients in place of losses."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from sk_pwiser.weighting._base import TaskWeighting


class GradientWeighting(TaskWeighting):
    """Base class of the weightings that combine the tasks' gradients.

    Entries of the parameters that two or more tasks have a gradient in are shared;
    their gradients go through `combine`. Other entries take the gradient of the one
    task that has any.

    A subclass defines `combine`, or, where the inner products of the gradients are all
    that it needs, `weigh`.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.weighting import GradientWeighting
    >>> class UnitNorm(GradientWeighting):
    ...     def weigh(self, gram):
    ...         return gram.diagonal().rsqrt()
    >>> UnitNorm(2).combine([torch.tensor([[3.0, 0.0], [0.0, 5.0]])])
    [tensor([1., 1.])]
    """

    def combine(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Combine the tasks' gradients of the shared parameters.

        Parameters
        ----------
        gradients : sequence of Tensor of shape (n_tasks, n_entries)
            One matrix a parameter tensor, 0 where an entry is not shared. Never empty.

        Returns
        -------
        list of Tensor of shape (n_entries,)
            The step's gradient of each tensor.
        """
        weights = self.weigh(gram_matrix(gradients))
        self.record(weights)
        return [weights.to(gradient.dtype) @ gradient for gradient in gradients]

    def weigh(self, gram: Tensor) -> Tensor:
        """Compute the weights of the tasks' gradients.

        Parameters
        ----------
        gram : float64 Tensor of shape (n_tasks, n_tasks)
            Inner products of the tasks' gradients over all shared parameters.

        Returns
        -------
        Tensor of shape (n_tasks,)
            Weights of the gradients in the step.
        """
        raise NotImplementedError

    def backward(
        self,
        losses: Tensor,
        penalty: Tensor | None,
        parameters: Iterable[nn.Parameter],
    ) -> None:
        """Combine the gradients of the tasks and leave them in the parameters."""
        if self.n_tasks == 1:
            super().backward(losses, penalty, parameters)
            return
        trained = [p for p in parameters if p.requires_grad]
        parts = list(losses.unbind()) + ([] if penalty is None else [penalty])
        gradients = [
            torch.autograd.grad(
                part, trained, retain_graph=part is not parts[-1], allow_unused=True
            )
            for part in parts
        ]
        by_task = [
            _stack(of_parts[: self.n_tasks], p)
            for p, *of_parts in zip(trained, *gradients, strict=True)
        ]
        totals = self._combine_shared(by_task)
        for p, total in zip(trained, totals, strict=True):
            p.grad = total.view_as(p)
        if penalty is not None:
            for p, gradient in zip(trained, gradients[-1], strict=True):
                if gradient is not None:
                    p.grad = gradient if p.grad is None else p.grad + gradient

    def _combine_shared(self, by_task: list[Tensor]) -> list[Tensor]:
        is_shared = [(g != 0).sum(dim=0) > 1 for g in by_task]
        private = [g.sum(dim=0) for g in by_task]
        shared = [g * mask for g, mask in zip(by_task, is_shared, strict=True)]
        combined = self.combine(shared)
        return [
            torch.where(mask, ours, alone)
            for mask, ours, alone in zip(is_shared, combined, private, strict=True)
        ]


def _stack(gradients: Sequence[Tensor | None], parameter: nn.Parameter) -> Tensor:
    """Return the tasks' gradients of one tensor, of shape `(n_tasks, n_entries)`."""
    flat = [
        torch.zeros_like(parameter).flatten() if g is None else g.flatten()
        for g in gradients
    ]
    return torch.stack(flat)


def gram_matrix(gradients: Sequence[Tensor]) -> Tensor:
    """Compute the inner products of the tasks' gradients, in float64.

    Parameters
    ----------
    gradients : sequence of Tensor of shape (n_tasks, n_entries)
        One matrix a parameter tensor.

    Returns
    -------
    float64 Tensor of shape (n_tasks, n_tasks)
        Sums over all entries of all tensors.
    """
    return torch.stack([(g @ g.t()).double() for g in gradients]).sum(dim=0)

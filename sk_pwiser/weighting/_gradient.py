"""Methods that combine gradients in place of losses."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from sk_pwiser.weighting._base import TaskWeighting
from sk_pwiser.weighting._entries import Entries


class GradientWeighting(TaskWeighting):
    """Base class of the weightings that combine the tasks' gradients.

    Entries of the parameters that two or more tasks have a gradient in are shared;
    their gradients go through `combine`. Other entries take the gradient of the one
    task that has any. Penalties are added to the outcome as they are.

    A subclass defines `combine`, or, where the inner products of the gradients are all
    that it needs, `weigh`.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.

    Attributes
    ----------
    skips_rows : bool
        Whether `combine` may do without the rows of embedding tables that no task has
        a gradient in. Then the number of entries differs from step to step.
    places : sequence of int or None
        Where each of the tensors that `combine` is given stands among all that are
        trained, for methods that keep something of each. A tensor that no task has a
        gradient in is left out.

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

    goes_backward_per_task: bool = True
    skips_rows: bool = True
    places: Sequence[int] | None = None

    def combine(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Combine the tasks' gradients of the shared parameters.

        Where nothing is shared, `weigh` is not asked: the weights are 1. Gradients
        that are not finite lead to weights that are NaN, so that the training loop
        sees that training diverged.

        Parameters
        ----------
        gradients : sequence of Tensor of shape (n_tasks, n_entries)
            One matrix a parameter tensor, 0 where an entry is not shared. Never empty.

        Returns
        -------
        list of Tensor of shape (n_entries,)
            The step's gradient of each tensor.
        """
        # The only time that a step waits for the device: small matrices are quicker
        # on the CPU, and float64 is not to be had everywhere else.
        gram = gram_matrix(gradients)
        if not bool(gram.isfinite().all()):
            weights = torch.full_like(gram[0], torch.nan)
        elif not bool(gram.any()):
            weights = torch.ones_like(gram[0])
        else:
            weights = self.weigh(gram)
            if not isinstance(weights, Tensor) or weights.shape != gram.shape[:1]:
                raise ValueError(
                    f"weighting {type(self).__name__} must return one weight a task "
                    f"from weigh, a Tensor of shape {tuple(gram.shape[:1])}; got "
                    f"{weights!r}."
                )
        self.record(weights)
        weights = weights.to(gradients[0])
        return [weights @ gradient for gradient in gradients]

    def weigh(self, gram: Tensor) -> Tensor:
        """Compute the weights of the tasks' gradients.

        Parameters
        ----------
        gram : float64 Tensor of shape (n_tasks, n_tasks)
            Inner products of the tasks' gradients over all shared parameters, on the
            CPU: finite, and not all of them 0.

        Returns
        -------
        Tensor of shape (n_tasks,)
            Weights of the gradients in the step.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define weigh or combine."
        )

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
        parts = list(losses.unbind())
        if penalty is not None and penalty.requires_grad:
            parts.append(penalty)
        gradients = [
            torch.autograd.grad(
                part, trained, retain_graph=part is not parts[-1], allow_unused=True
            )
            for part in parts
        ]
        with torch.no_grad():
            self._leave(trained, gradients[: self.n_tasks])
            if len(parts) > self.n_tasks:
                _add(trained, gradients[-1])

    def _leave(
        self,
        trained: Sequence[nn.Parameter],
        gradients: Sequence[Sequence[Tensor | None]],
    ) -> None:
        """Combine the gradients, one sequence a task, into those of the parameters."""
        of_all = list(zip(trained, *gradients, strict=True))
        self.places = [
            place
            for place, (_, *of_tasks) in enumerate(of_all)
            if any(g is not None for g in of_tasks)
        ]
        reached = [
            (p, of_tasks) for p, *of_tasks in map(of_all.__getitem__, self.places)
        ]
        for p in trained:
            p.grad = None
        if not reached:
            return
        entries = Entries([of_tasks for _, of_tasks in reached], self.skips_rows)
        n_reaching = (entries.matrix != 0).sum(dim=0, dtype=torch.int32)
        is_shared = n_reaching > 1
        shared = entries.matrix * is_shared
        combined = torch.cat(self.combine(entries.split(shared)))
        total = torch.where(is_shared, combined, entries.matrix.sum(dim=0))
        for (p, _), gradient in zip(reached, entries.unfold(total), strict=True):
            p.grad = gradient


def _add(
    parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]
) -> None:
    for p, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            p.grad = gradient if p.grad is None else p.grad.add_(gradient)


def gram_matrix(gradients: Sequence[Tensor]) -> Tensor:
    """Compute the inner products of the tasks' gradients, in float64 on the CPU.

    Parameters
    ----------
    gradients : sequence of Tensor of shape (n_tasks, n_entries)
        One matrix a parameter tensor.

    Returns
    -------
    float64 Tensor of shape (n_tasks, n_tasks)
        Sums over all entries of all tensors.
    """
    products = torch.stack([g @ g.t() for g in gradients])
    return products.cpu().double().sum(dim=0)

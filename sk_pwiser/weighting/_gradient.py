"""Methods that combine the tasks' gradients instead of their losses."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from sk_pwiser.weighting._dependencies import LossDependencies
from sk_pwiser.weighting._gradient_matrix import GradientMatrix, copy_overlapping
from sk_pwiser.weighting._task_weighting import TaskWeighting

Gradients = Sequence[Tensor | None]


class GradientWeighting(TaskWeighting):
    """Base class of the weightings that combine the tasks' gradients.

    A parameter tensor is shared if the losses of two or more tasks depend on it. The
    computational graph decides, not the values of the gradients, so the labels of a
    batch have no influence. The gradients of shared tensors are passed to `combine`;
    a tensor on which one task's loss depends takes the plain gradient of that task.
    Gradients of penalties are added to the result.

    A subclass defines `weigh` if the inner products of the gradients are all that it
    needs, and `combine` otherwise.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.

    Attributes
    ----------
    skips_rows : bool
        Whether the matrices for `combine` may lack the rows of large embedding tables
        in which the gradients of all tasks are 0. The number of entries then differs
        between steps.
    indices : sequence of int or None
        Position of each tensor that is passed to `combine` among all trained
        parameters, for methods with a state per tensor. None before the first step.
    join_gradients : callable or None
        Set where a batch is divided among processes: returns the sums over them of the
        gradients of one loss, in the order of the parameters.

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

    needs_task_gradients: bool = True
    skips_rows: bool = True
    indices: Sequence[int] | None = None
    join_gradients: Callable[[Gradients], Gradients] | None = None

    def __init__(self, n_tasks: int) -> None:
        super().__init__(n_tasks)
        self._dependencies = LossDependencies()

    def combine(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Combine the tasks' gradients of the shared parameters.

        This implementation multiplies them by the weights that `weigh` returns. The
        weights are 1 if all gradients are 0, and NaN if a gradient is not finite, so
        that the training loop can detect divergence.

        Parameters
        ----------
        gradients : sequence of Tensor of shape (n_tasks, n_entries)
            One matrix per shared parameter tensor, at least one.

        Returns
        -------
        list of Tensor of shape (n_entries,)
            The combined gradient of each tensor.
        """
        # Here the host waits for the device. Small matrices are faster on the CPU, and
        # some devices do not support float64.
        products = torch.stack([g @ g.t() for g in gradients])
        gram = products.cpu().double().sum(dim=0)
        if not bool(gram.isfinite().all()):
            weights = torch.full_like(gram[0], torch.nan)
        elif not bool(gram.any()):
            weights = torch.ones_like(gram[0])
        else:
            weights = self.weigh(gram)
            if not isinstance(weights, Tensor) or weights.shape != gram.shape[:1]:
                raise ValueError(
                    f"weighting {type(self).__name__} must return one weight per task "
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
            CPU. All entries are finite, and at least one is not 0.

        Returns
        -------
        Tensor of shape (n_tasks,)
            Weights of the tasks' gradients in this step.
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
        """Combine the tasks' gradients and store the result in the parameters."""
        if self.n_tasks == 1 or not self.needs_task_gradients:
            super().backward(losses, penalty, parameters)
            return
        trained = [p for p in parameters if p.requires_grad]
        self._dependencies.find(losses, trained)
        parts = list(losses.unbind())
        if penalty is not None and penalty.requires_grad:
            parts.append(penalty)
        gradients: list[Gradients] = [
            torch.autograd.grad(
                part, trained, retain_graph=part is not parts[-1], allow_unused=True
            )
            for part in parts
        ]
        if self.join_gradients is not None:
            gradients = [self.join_gradients(of_part) for of_part in gradients]
        with torch.no_grad():
            self._set_gradients(trained, gradients[: self.n_tasks])
            if len(parts) > self.n_tasks:
                for p, gradient in zip(trained, gradients[-1], strict=True):
                    if gradient is not None:
                        p.grad = gradient if p.grad is None else p.grad.add_(gradient)

    def _set_gradients(
        self,
        trained: Sequence[nn.Parameter],
        gradients: Sequence[Sequence[Tensor | None]],
    ) -> None:
        """Set the parameters' gradients from one sequence of gradients per task."""
        self._dependencies.add_nonzero(gradients)
        depends = list(zip(*self._dependencies.depends, strict=True))
        by_tensor = list(zip(*gradients, strict=True))
        plain: dict[int, Tensor] = {}
        for i, p in enumerate(trained):
            p.grad = None
            gradient = plain_gradient(by_tensor[i], depends[i])
            if gradient is not None:
                plain[i] = gradient
        # Later steps, such as gradient clipping, change gradients in place.
        plain = dict(zip(plain, copy_overlapping(list(plain.values())), strict=True))
        for i, gradient in plain.items():
            trained[i].grad = gradient
        self.indices = shared = [i for i in plain if sum(depends[i]) > 1]
        if not shared:
            self.record(torch.ones(self.n_tasks, dtype=torch.float64))
            return
        matrix = GradientMatrix([by_tensor[i] for i in shared], self.skips_rows)
        combined = self.combine(matrix.matrices)
        self._check_combined(combined, matrix.sizes)
        restored = matrix.restore(combined, [plain[i] for i in shared])
        for i, gradient in zip(shared, restored, strict=True):
            trained[i].grad = gradient

    def _check_combined(self, combined: object, sizes: Sequence[int]) -> None:
        """Raise an error unless a subclass returns one gradient per tensor."""
        expected = [(size,) for size in sizes]
        found: object = combined
        if isinstance(combined, Sequence) and all(
            isinstance(gradient, Tensor) for gradient in combined
        ):
            found = [tuple(gradient.shape) for gradient in combined]
        if found != expected:
            raise ValueError(
                f"weighting {type(self).__name__} must return one Tensor per shared "
                f"parameter tensor from combine, of the shapes {expected}; got "
                f"{found!r}."
            )


def plain_gradient(
    gradients: Sequence[Tensor | None], depends: Sequence[bool]
) -> Tensor | None:
    """Return the gradient of the first task that depends on a tensor, if any."""
    in_graph = [g for g in gradients if g is not None]
    dependent = [g for g, is_used in zip(gradients, depends, strict=True) if is_used]
    return next((g for g in [*dependent, *in_graph] if g is not None), None)

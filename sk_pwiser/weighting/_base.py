"""The base classes of the weightings: of losses, and of gradients."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from sk_pwiser.weighting._dependencies import LossDependencies
from sk_pwiser.weighting._gradient_rows import copy_overlapping, nonzero_rows

# The gradients of one loss, in the order of the parameters.
Gradients = Sequence[Tensor | None]


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
        step then needs one backward pass per task. A class attribute; an object has
        False if there is only one task.

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

    def __init__(self, n_tasks: int) -> None:
        super().__init__()
        self.n_tasks = n_tasks
        self.needs_task_gradients = self.needs_task_gradients and n_tasks > 1
        # In place, as graphs require.
        self._sums = nn.Buffer(torch.zeros(n_tasks), persistent=False)
        self._n_steps = nn.Buffer(torch.zeros(1), persistent=False)

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
        self, losses: Tensor, penalty: Tensor | None, parameters: Iterable[nn.Parameter]
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
        is_scalar = isinstance(total, Tensor) and total.dim() == 0
        if not is_scalar or total.requires_grad < losses.requires_grad:
            raise ValueError(
                f"weighting {type(self).__name__} must return a Tensor of shape () from"
                f" forward, through which gradients reach the losses; got {total!r}."
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
        on_device = self._sums.device.type != "cpu"
        self._sums.add_(weights.detach().to(self._sums, non_blocking=on_device))
        self._n_steps.add_(1)

    def end_epoch(self) -> list[float]:
        """Return the epoch's mean weights and reset them.

        Methods whose weights change between epochs override this method.

        Returns
        -------
        list of float
            One weight per task, or an empty list if there was no step.
        """
        weights = self._sums / self._n_steps
        n_steps = float(self._n_steps)
        self._sums.zero_()
        self._n_steps.zero_()
        return weights.tolist() if n_steps else []


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
        gram = torch.stack([g @ g.t() for g in gradients]).cpu().double().sum(dim=0)
        if not bool(gram.isfinite().all()):
            weights = torch.full_like(gram[0], torch.nan)
        elif not bool(gram.any()):
            weights = torch.ones_like(gram[0])
        else:
            weights = self.weigh(gram)
            if not isinstance(weights, Tensor) or weights.shape != gram.shape[:1]:
                raise ValueError(
                    f"weighting {type(self).__name__} must return a Tensor of shape "
                    f"{tuple(gram.shape[:1])} from weigh; got {weights!r}."
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
        self, losses: Tensor, penalty: Tensor | None, parameters: Iterable[nn.Parameter]
    ) -> None:
        """Combine the tasks' gradients and store the result in the parameters."""
        if not self.needs_task_gradients:
            super().backward(losses, penalty, parameters)
            return
        trained = [p for p in parameters if p.requires_grad]
        self._dependencies.find(losses, trained)
        summands = list(losses.unbind())
        if penalty is not None and penalty.requires_grad:
            summands.append(penalty)
        gradients: list[Gradients] = [
            torch.autograd.grad(
                summand,
                trained,
                retain_graph=summand is not summands[-1],
                allow_unused=True,
            )
            for summand in summands
        ]
        if self.join_gradients is not None:
            gradients = [self.join_gradients(own_rows) for own_rows in gradients]
        with torch.no_grad():
            self._set_gradients(trained, gradients[: self.n_tasks])
            if len(summands) > self.n_tasks:
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
            # That of the first task that depends on the tensor, if there is one.
            dependent = [
                gradient
                for gradient, does_depend in zip(by_tensor[i], depends[i], strict=True)
                if does_depend
            ]
            for gradient in (*dependent, *by_tensor[i]):
                if gradient is not None:
                    plain[i] = gradient
                    break
        # Later steps, such as gradient clipping, change gradients in place.
        for i, gradient in zip(plain, copy_overlapping(plain.values()), strict=True):
            trained[i].grad = gradient
        shared = [i for i in plain if sum(depends[i]) > 1]
        if shared:
            self._set_shared(trained, by_tensor, shared)
        else:
            self.record(torch.ones(self.n_tasks, dtype=torch.float64))

    def _set_shared(
        self,
        trained: Sequence[nn.Parameter],
        by_tensor: Sequence[Sequence[Tensor | None]],
        shared: Sequence[int],
    ) -> None:
        """Replace the gradients of shared parameters by their combination."""
        # Rows of large tables that are 0 for every task are left out. In most batches,
        # these are most rows.
        matrices: list[Tensor] = []
        combined_rows: list[Tensor | None] = []  # None means all rows
        for i in shared:
            p = trained[i]
            by_task = [torch.zeros_like(p) if g is None else g for g in by_tensor[i]]
            rows = nonzero_rows(by_task) if self.skips_rows else None
            if rows is not None:
                by_task = [gradient.index_select(0, rows) for gradient in by_task]
            matrices.append(torch.stack([gradient.flatten() for gradient in by_task]))
            combined_rows.append(rows)
        combined = self.combine(matrices)
        expected_shapes = [(matrix.shape[1],) for matrix in matrices]
        shapes: object = combined
        if isinstance(combined, Sequence):
            shapes = [tuple(g.shape) if isinstance(g, Tensor) else g for g in combined]
        if shapes != expected_shapes:
            raise ValueError(
                f"weighting {type(self).__name__} must return Tensors from combine, of "
                f"the shapes {expected_shapes}; got {shapes!r}."
            )
        for i, rows, gradient in zip(shared, combined_rows, combined, strict=True):
            p = trained[i]
            assert p.grad is not None
            if rows is None:
                p.grad = gradient.view(p.shape).to(p.dtype)
            else:  # in the other rows, the gradient of the one task is 0, too
                p.grad.index_copy_(0, rows, gradient.view(len(rows), -1))

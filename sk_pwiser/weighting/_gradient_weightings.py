"""The weightings that combine the gradients of the tasks, and their base class."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sk_pwiser._utils import check_integer, check_number
from sk_pwiser.weighting._loss_weightings import TaskWeighting

# Number of steps in which further dependencies of a loss are searched. The search reads
# the gradients of other tasks' large embedding tables, so it is not free.
N_SEARCHED = 100


class LossDependencies:
    """Finds on which parameter tensors the loss of each task depends, see `depends`.

    The graph of the first step decides, not the values of the gradients.
    """

    def __init__(self) -> None:
        self.depends: list[list[bool]] = []
        self._parameter_ids: tuple[int, ...] = ()
        self._n_looks: list[int] = []

    def __reduce__(self) -> tuple[Any, ...]:
        # The ids of objects are not valid in a copy or in another process.
        return type(self), ()

    def find(self, losses: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        """Find the dependencies, if they are not known for these parameters yet."""
        ids = tuple(map(id, parameters))
        if ids != self._parameter_ids:
            self._parameter_ids = ids
            self.depends = [
                depends_on(losses, task, parameters) for task in range(len(losses))
            ]
            self._n_looks = [0] * len(losses)

    def add_nonzero(self, gradients: Sequence[Sequence[Tensor | None]]) -> None:
        """Add the dependencies that follow from the nonzero gradients of a step.

        The graph of the first step may lack some of them if no unit of a ReLU layer is
        active, or if a loss is constant in a batch without labels of its task. Steps in
        which the loss is not constant are searched, up to a number of them.
        """
        searched = [
            (k, i, gradient)
            for k, of_task in enumerate(gradients)
            for i, gradient in enumerate(of_task)
            if gradient is not None and self._n_looks[k] < N_SEARCHED
        ]
        unknown = [each for each in searched if not self.depends[each[0]][each[1]]]
        if not unknown:
            return
        # The last tensor that each loss is known to depend on, often an output bias.
        known = {each[0]: each for each in searched if self.depends[each[0]][each[1]]}
        searched = [*unknown, *known.values()]
        # All at once, so that the host waits for the device only once.
        is_nonzero = torch.stack([gradient.any() for _, _, gradient in searched])
        for (k, i, _), found in zip(searched, is_nonzero.tolist(), strict=True):
            if self.depends[k][i]:
                self._n_looks[k] += found
            self.depends[k][i] |= found


def depends_on(
    losses: Tensor, task: int, parameters: Sequence[nn.Parameter]
) -> list[bool]:
    """Return whether the loss of a task depends on each parameter tensor.

    As the losses are entries of one tensor, gradients of other tasks' towers are zeros,
    not None. Therefore NaN is propagated from the loss of the task, and 0 from the
    others: NaN times 0 is NaN, also where the labels make a gradient 0. The graph is
    retained.
    """
    probe = torch.zeros_like(losses)
    probe[task] = torch.nan
    # Anomaly detection would raise on these intended NaN.
    with torch.autograd.set_detect_anomaly(False):
        gradients = torch.autograd.grad(
            losses, parameters, probe, retain_graph=True, allow_unused=True
        )
    # Large embedding tables may have sparse gradients.
    values = [g._values() if g is not None and g.is_sparse else g for g in gradients]
    return [g is not None and bool(g.isnan().any()) for g in values]


# In a smaller table, the search for nonzero rows costs more than it saves.
LARGE_TABLE = 4096


def copy_overlapping(gradients: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield gradients that can be changed in place, one without the others.

    Autograd may return the same memory for two parameters, or an expanded tensor.
    """
    storages: set[int] = set()
    for gradient in gradients:
        storage = gradient.untyped_storage()
        owns_all = storage.nbytes() == gradient.nbytes
        if owns_all and storage.data_ptr() not in storages:
            yield gradient
        else:
            yield gradient.clone(memory_format=torch.contiguous_format)
        storages.add(storage.data_ptr())


def nonzero_rows(gradients: Sequence[Tensor]) -> Tensor | None:
    """Return the rows in which any task has a nonzero gradient; None means all rows."""
    table = gradients[0]
    if table.dim() != 2 or len(table) < LARGE_TABLE or table.device.type != "cpu":
        # On other devices the number of rows would have to be copied to the host, and
        # passes over the table are cheap.
        return None
    has_nonzero = _has_nonzero_bits(table)
    for other in gradients[1:]:
        has_nonzero |= _has_nonzero_bits(other)
    return has_nonzero.nonzero().squeeze(1)


def _has_nonzero_bits(table: Tensor) -> Tensor:
    # Reading two float32 values as one int64 is three times as fast. A negative zero
    # counts as nonzero, which does no harm.
    size = table.element_size()
    start, width = size * table.storage_offset(), size * table.shape[1]
    fits_int64 = table.is_contiguous() and start % 8 == 0 and width % 8 == 0
    return (table.view(torch.int64) if fits_int64 else table).any(dim=1)


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
            # That of the first task that depends on the tensor, if there is one.
            own = [g for g, used in zip(by_tensor[i], depends[i], strict=True) if used]
            gradient = next((g for g in [*own, *by_tensor[i]] if g is not None), None)
            if gradient is not None:
                plain[i] = gradient
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
        matrices, rows = [], []
        for i in shared:
            p = trained[i]
            of_tasks = [torch.zeros_like(p) if g is None else g for g in by_tensor[i]]
            kept = nonzero_rows(of_tasks) if self.skips_rows else None
            if kept is not None:
                of_tasks = [g.index_select(0, kept) for g in of_tasks]
            matrices.append(torch.stack([g.flatten() for g in of_tasks]))
            rows.append(kept)
        combined = self.combine(matrices)
        expected = [(matrix.shape[1],) for matrix in matrices]
        found: object = combined
        if isinstance(combined, Sequence):
            found = [tuple(g.shape) if isinstance(g, Tensor) else g for g in combined]
        if found != expected:
            raise ValueError(
                f"weighting {type(self).__name__} must return Tensors from combine, of "
                f"the shapes {expected}; got {found!r}."
            )
        for i, kept, gradient in zip(shared, rows, combined, strict=True):
            p = trained[i]
            assert p.grad is not None
            if kept is None:
                p.grad = gradient.view(p.shape).to(p.dtype)
            else:  # in the other rows, the gradient of the one task is 0, too
                p.grad.index_copy_(0, kept, gradient.view(len(kept), -1))


# Lower bound of 1 + cosine of two gradients; a smaller value is rounding error of
# gradients in float32.
NEARLY_OPPOSITE = 1e-6
# Larger weights of unit vectors only occur below this bound.
TOO_LARGE = NEARLY_OPPOSITE**-0.5


class Nash(GradientWeighting):
    r"""Nash-MTL: the bargaining solution over the tasks' gradients.

    The gain of task k from a step d is :math:`g_k^\top d`. Among all steps of bounded
    length, the product of the gains is largest for :math:`d = \sum_k \alpha_k g_k` with

    .. math:: G G^\top \alpha = 1 / \alpha, \qquad \alpha > 0,

    where the rows of G are the gradients :math:`g_k` of the shared parameters and
    :math:`1 / \alpha` is taken elementwise. The step does not depend on the scale of
    the losses. :math:`\lVert d \rVert^2` is the number of tasks, and the gain of task k
    is :math:`1 / \alpha_k > 0`.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.
    max_norm : float or None, default=1.0
        Largest length of the combined gradient of the shared parameters; a longer
        gradient is scaled down. With None, the length is the square root of the
        number of tasks.
    tol : float, default=1e-8
        Tolerance for the largest entry of :math:`|\alpha \circ G G^\top \alpha - 1|`.
    max_iter : int, default=100
        Largest number of Newton steps.

    Notes
    -----
    :math:`\alpha` is the unique minimiser of :math:`\frac{1}{2} \alpha^\top G G^\top
    \alpha - \sum_k \log \alpha_k`, which is computed by damped Newton steps on the
    cosines between the gradients. For two tasks with cosine c it is
    :math:`\alpha_k = 1 / (\lVert g_k \rVert \sqrt{1 + c})`.

    There is no solution if a convex combination of the gradients is 0, for example if
    two gradients are opposite. The cosines are then bounded away from this case by
    1e-6. A task whose gradient is 0 is ignored, and its weight is 0.

    The length of the step does not decrease near an optimum. Use an optimiser such as
    Adam, or a decreasing learning rate.

    The authors' code solves a sequence of convex programs to a tolerance of 1e-3, takes
    steps whose length depends on the scale of the gradients, multiplies the gradients
    of parameters of one task by the weights as well, and may reuse weights for several
    steps.

    References
    ----------
    Navon, Shamsian, Achituve, Maron, Kawaguchi, Chechik and Fetaya (2022), "Multi-task
    learning as a bargaining game", ICML. :arxiv:`2202.01017`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.weighting import Nash
    >>> weighting = Nash(2, max_norm=None)
    >>> weighting.combine([torch.tensor([[1.0, 0.0], [0.0, 500.0]])])
    [tensor([1., 1.])]
    """

    def __init__(
        self,
        n_tasks: int,
        *,
        max_norm: float | None = 1.0,
        tol: float = 1e-8,
        max_iter: int = 100,
    ) -> None:
        super().__init__(n_tasks)
        self.max_norm = max_norm
        if max_norm is not None:
            self.max_norm = check_number("max_norm", max_norm, above=0)
        self.tol = check_number("tol", tol, above=0)
        self.max_iter = check_integer("max_iter", max_iter, at_least=1)

    def weigh(self, gram: Tensor) -> Tensor:
        """Return the bargaining weights, of shape `(n_tasks,)`."""
        norms = gram.diagonal().sqrt()
        active = norms > 0
        cosines = (gram / norms / norms.unsqueeze(1))[active][:, active]
        weights = torch.zeros_like(norms)
        weights[active] = self._bargain(cosines) / norms[active]
        if self.max_norm is not None:
            length = (weights @ gram @ weights).clamp(min=0).sqrt()
            weights = weights * (self.max_norm / length).clamp(max=1)
        return weights

    def _bargain(self, cosines: Tensor) -> Tensor:
        """Return the weights of unit vectors with the given cosines."""
        if len(cosines) == 2:
            return (1 + cosines[0, 1]).clamp(min=NEARLY_OPPOSITE).rsqrt().expand(2)
        weights = nash_weights(cosines, self.tol, self.max_iter)
        if weights.max() > TOO_LARGE:
            shift = NEARLY_OPPOSITE - torch.linalg.eigvalsh(cosines)[0].clamp(max=0)
            identity = torch.eye(len(cosines), dtype=cosines.dtype)
            cosines = (cosines + shift * identity) / (1 + shift)
            weights = nash_weights(cosines, self.tol, self.max_iter)
        return weights


def nash_weights(gram: Tensor, tol: float, max_iter: int) -> Tensor:
    """Solve `gram @ weights = 1 / weights` by a damped Newton method.

    The minimised function is self-concordant: steps damped by 1 / (1 + decrement) keep
    the weights positive and converge from any start. Without a solution, the iteration
    is stopped at large weights.
    """
    n_tasks = len(gram)
    identity = torch.eye(n_tasks, dtype=gram.dtype)
    # The optimal multiple of equal weights, which is the solution if all rows of the
    # matrix have the same sum.
    total = gram.sum().clamp(min=0.1 * NEARLY_OPPOSITE * n_tasks)
    weights = (n_tasks / total).sqrt().expand(n_tasks)
    for _ in range(max_iter):
        residual = weights * (gram @ weights) - 1
        if residual.abs().max() <= tol or weights.max() > 10 * TOO_LARGE:
            break
        # Variables are scaled by the weights, so that the smallest eigenvalue of the
        # Hessian is at least 1.
        hessian = weights * gram * weights.unsqueeze(1) + identity
        step = torch.linalg.solve(hessian, -residual)
        decrement = (-residual @ step).clamp(min=0).sqrt()
        length = 1.0 if decrement < 0.25 else 1 / (1 + decrement)
        weights = weights * (1 + length * step)
    return weights

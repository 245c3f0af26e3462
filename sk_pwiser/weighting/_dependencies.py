"""Which parameters the loss of each task depends on."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

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
        undecided: list[tuple[int, int, Tensor]] = []
        # The last tensor that each loss is known to depend on, often an output bias.
        last_dependent: dict[int, tuple[int, int, Tensor]] = {}
        for task, task_gradients in enumerate(gradients):
            if self._n_looks[task] >= N_SEARCHED:
                continue
            for i, gradient in enumerate(task_gradients):
                if gradient is None:
                    continue
                if self.depends[task][i]:
                    last_dependent[task] = (task, i, gradient)
                else:
                    undecided.append((task, i, gradient))
        if not undecided:
            return
        searched = [*undecided, *last_dependent.values()]
        # All at once, so that the host waits for the device only once.
        has_nonzero = torch.stack([gradient.any() for _, _, gradient in searched])
        for (task, i, _), is_nonzero in zip(
            searched, has_nonzero.tolist(), strict=True
        ):
            if self.depends[task][i]:
                self._n_looks[task] += is_nonzero
            self.depends[task][i] |= is_nonzero


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

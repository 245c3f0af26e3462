"""MetaBalance: gradients scaled to the length of a target task's gradient."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sk_pwiser._utils import check_integer, check_number
from sk_pwiser.weighting._gradcraft import LONGEST
from sk_pwiser.weighting._gradient import GradientWeighting


class MetaBalance(GradientWeighting):
    r"""MetaBalance: gradients scaled to the length of a target task's gradient.

    Each shared parameter tensor is treated separately. With the target task 0 and a
    moving average :math:`n_k` of the lengths of the gradients of each task,

    .. math::
        g_k \leftarrow r \frac{n_0}{n_k} g_k + (1 - r) g_k, \quad\text{then}\quad
        n_k \leftarrow \beta n_k + (1 - \beta) \lVert g_k \rVert

    with the original gradient in the second formula. The step is the sum over the
    tasks.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.
    relax : float, default=0.7
        The factor r, in [0, 1]. With 0 the step is the plain sum, with 1 all moving
        averages of the lengths become equal.
    decay : float, default=0.9
        Decay :math:`\beta` of the moving averages, in [0, 1).
    target : int, default=0
        Index of the target task. A negative index counts from the last task.

    Notes
    -----
    The weights differ between tensors. The history contains the mean weight of each
    task over the tensors in which its gradient is not 0.

    The paper has three strategies. This is the one that both increases and decreases
    lengths; the other two only increase or only decrease them.

    This implementation differs from the authors' code in two points: the averages start
    with the first length and exclude the current batch; and they skip batches in which
    the gradient of the task is 0, such as those without a known label or, in
    conditional task space, without a click. Otherwise a batch with a positive row of a
    rare task, whose gradient is long, would reduce its own weight, and the first batch
    after many without a label would have an arbitrarily large one.

    As in the authors' code, the ratio of the averages has no limit, so that tasks with
    short gradients may have weights of hundreds. A single gradient, however, is
    lengthened to at most 100 times the average of the target. In the authors' code the
    limit is :math:`1/(1-\beta)`, as the average includes the gradient; it would shorten
    the gradient of a positive row if fewer than about one in ten batches has such a
    row.

    References
    ----------
    He et al. (2022), "MetaBalance: improving multi-task recommendations via adapting
    gradient magnitudes of auxiliary tasks", WWW. :arxiv:`2203.06801`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.weighting import MetaBalance
    >>> weighting = MetaBalance(2, relax=1.0)
    >>> weighting.combine([torch.tensor([[2.0, 0.0], [0.0, 1.0]])])
    [tensor([2., 2.])]
    """

    lengths: Tensor

    def __init__(
        self,
        n_tasks: int,
        *,
        relax: float = 0.7,
        decay: float = 0.9,
        target: int = 0,
    ) -> None:
        super().__init__(n_tasks)
        self.relax = check_number("relax", relax, at_least=0, at_most=1)
        self.decay = check_number("decay", decay, at_least=0, below=1)
        self.target = check_integer("target", target, at_least=-n_tasks)
        if self.target >= n_tasks:
            raise ValueError(
                f"target must be the index of one of {n_tasks} tasks; got {target!r}."
            )
        # One row per trained tensor; rows are added when a tensor is first combined.
        self.register_buffer("lengths", torch.zeros(0, n_tasks))
        self._rows: tuple[list[int], Tensor] | None = None  # indices, on the device

    def combine(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Return the weighted sum of each tensor, of shape `(n_entries,)`."""
        current = torch.stack([torch.linalg.vector_norm(g, dim=1) for g in gradients])
        indices = list(range(len(gradients)) if self.indices is None else self.indices)
        if self._rows is None or self._rows[0] != indices:
            self._rows = indices, torch.tensor(indices, device=current.device)
        rows = self._rows[1]
        n_missing = max(indices) + 1 - len(self.lengths)
        if n_missing > 0:
            new = current.new_zeros(n_missing, self.n_tasks)
            self.lengths = torch.cat([self.lengths.to(new), new])
        before = self.lengths[rows].to(current)
        lengths = torch.where(before > 0, before, current)
        moved = lengths.lerp(current, 1 - self.decay)
        moved = torch.where(current > 0, moved, before)
        self.lengths[rows] = moved.to(self.lengths.dtype)
        lengths = lengths.maximum(current / LONGEST)
        is_known = lengths > 0
        target_lengths = lengths[:, self.target].unsqueeze(1)
        ratios = torch.where(
            is_known & (target_lengths > 0), target_lengths / lengths, 1.0
        )
        weights = self.relax * ratios + (1 - self.relax)
        mean = torch.where(is_known, weights, 0.0).sum(dim=0) / is_known.sum(dim=0)
        self.record(mean.nan_to_num(nan=1.0))
        return [w @ g for w, g in zip(weights, gradients, strict=True)]

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # A new instance does not know the number of tensors.
        found = state_dict.get(f"{prefix}lengths")
        if found is not None and found.shape[1:] == self.lengths.shape[1:]:
            self.lengths = torch.zeros_like(found, device=self.lengths.device)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

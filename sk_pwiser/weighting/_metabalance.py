"""MetaBalance: the tasks' gradients of each tensor, brought to one length."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sk_pwiser._utils import check_number
from sk_pwiser.weighting._gradient import GradientWeighting


class MetaBalance(GradientWeighting):
    r"""MetaBalance: other tasks' gradients are brought to the target task's length.

    For every parameter tensor by itself, with moving lengths :math:`n_k \leftarrow
    \beta n_k + (1 - \beta) \lVert g_k \rVert` and the target task 0:

    .. math:: g_k \leftarrow r \frac{n_0}{n_k} g_k + (1 - r) g_k

    The step is the sum over the tasks.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.
    relax : float, default=0.7
        The r above, in [0, 1]: 0 is the plain sum, 1 makes the moving lengths equal.
    decay : float, default=0.9
        The decay :math:`\beta` of the moving lengths, in [0, 1).
    target : int, default=0
        Position of the target task; the last one of a funnel is -1.

    Raises
    ------
    ValueError, TypeError
        If a parameter is no number in its range.

    Notes
    -----
    The weights differ from tensor to tensor. The history holds each task's mean over
    the tensors in which the task has a gradient.

    Departures: lengths are those of the shared entries of a tensor. This is the
    strategy of the paper that both raises and lowers lengths; it has two others, which
    only do one of these.

    References
    ----------
    He, Feng, Cheng, Ji, Guo and Caverlee (2022), "MetaBalance: improving multi-task
    recommendations via adapting gradient magnitudes of auxiliary tasks", WWW.
    :arxiv:`2203.06801`

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
        if not isinstance(target, int) or not -n_tasks <= target < n_tasks:
            raise ValueError(
                f"target must be the position of one of {n_tasks} tasks; got "
                f"{target!r}."
            )
        self.target = target
        # A row a tensor, as far as they are known. Lengths start at 0, which ratios do
        # not see.
        self.register_buffer("lengths", torch.zeros(0, n_tasks))

    def combine(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Return the balanced sums of each tensor, of shape `(n_entries,)`."""
        now = torch.stack([torch.linalg.vector_norm(g, dim=1) for g in gradients])
        places = range(len(gradients)) if self.places is None else self.places
        rows = torch.tensor(list(places), device=now.device)
        n_missing = max(places) + 1 - len(self.lengths)
        if n_missing > 0:
            new = now.new_zeros(n_missing, self.n_tasks)
            self.lengths = torch.cat([self.lengths.to(new), new])
        self.lengths[rows] = lengths = self.lengths[rows].lerp(now, 1 - self.decay)
        has_any = lengths > 0
        of_target = lengths[:, self.target].unsqueeze(1)
        ratios = torch.where(
            has_any & has_any[:, self.target].unsqueeze(1), of_target / lengths, 1.0
        )
        weights = self.relax * ratios + (1 - self.relax)
        mean = torch.where(has_any, weights, 0.0).sum(dim=0) / has_any.sum(dim=0)
        self.record(mean.nan_to_num(nan=1.0))
        return [w @ g for w, g in zip(weights, gradients, strict=True)]

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # Before the first step, the number of tensors is not known.
        found = state_dict.get(f"{prefix}lengths")
        if found is not None and found.shape[1:] == self.lengths.shape[1:]:
            self.lengths = torch.zeros_like(found, device=self.lengths.device)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

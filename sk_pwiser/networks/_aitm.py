"""AITM: information passes along the funnel."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sk_pwiser.networks._base import MultiTaskNetwork, NetworkOutput
from sk_pwiser.networks._layers import MLP, StackedLinear, TaskTowers, check_units
from sk_pwiser.networks._spec import NetworkSpec


class AITM(MultiTaskNetwork):
    r"""Adaptive information transfer multi-task: information passes along the funnel.

    Task k has a tower :math:`q_k` on the shared input. The representation of the
    previous task, :math:`h_{k-1}`, is passed on as a vector
    :math:`i_k = ReLU(V_k h_{k-1} + d_k)`, and attention weights the two,

    .. math:: h_1 = q_1, \quad h_k = \sum_{v \in \{q_k, i_k\}} a_k(v)\, W^3_k v, \quad
        a_k(v) = softmax_v \frac{\langle W^1_k v, W^2_k v \rangle}{\sqrt{d}}

    with d the width of a tower. The logit is linear in :math:`h_k`. In a tree of tasks,
    the task that task k presupposes takes the place of k - 1.

    Training adds 0.6 times :func:`~sk_pwiser.losses.funnel_monotonicity_penalty`, which
    penalises a probability of a later task above that of an earlier task;
    `monotonicity_weight` sets another weight.

    Parameters
    ----------
    spec : NetworkSpec
        The table, the tasks and the shared options.
    tower_units : sequence of int, default=(128, 64, 32)
        Widths of each tower's layers, at least one.
    dropout : float, default=0.0
        Share of activations that are dropped in towers in training.

    Notes
    -----
    This implementation differs from the paper in two points: the penalty, the
    calibrator of the paper, is a mean over rows, so that its weight does not depend on
    the batch size; and the linear maps of a transfer have biases.

    References
    ----------
    D. Xi, Z. Chen, P. Yan, Y. Zhang, Y. Zhu, F. Zhuang and Y. Chen (2021). Modeling
    the Sequential Dependence among Audience Multi-step Conversions with Multi-task
    Learning in Targeted Display Advertising. KDD. :arxiv:`2105.08489`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks import AITM, NetworkSpec
    >>> spec = NetworkSpec([3, 5], n_numeric=2, embedding_dim=4, base_rates=[0.1, 0.01])
    >>> codes, numeric = torch.tensor([[0, 1]]), torch.zeros(1, 2)
    >>> tuple(AITM(spec)(codes, numeric).logits.shape)
    (1, 2)
    """

    monotonicity_weight: float = 0.6

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        tower_units: Sequence[int] = (128, 64, 32),
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec)
        units = check_units("tower_units", tower_units)
        if not units:
            raise ValueError("tower_units must hold at least one width; got ().")
        self.bottoms = nn.ModuleList(
            MLP(self.width, units, dropout) for _ in range(spec.n_tasks)
        )
        self.transfers = nn.ModuleList(
            Transfer(units[-1]) for parent in spec.parents if parent >= 0
        )
        self.towers = TaskTowers(units[-1], (), self.base_logits, dropout)

    def forward(self, codes: Tensor, numeric: Tensor) -> NetworkOutput:
        """Compute the logits of a batch, of shape `(batch, n_tasks)`."""
        inputs = self.input_layer(codes, numeric)
        hidden = [bottom(inputs) for bottom in self.bottoms]
        transfers = iter(self.transfers)
        for k, parent in enumerate(self.spec.parents):
            if parent >= 0:
                # Parents come first, so that their vectors already hold what they
                # received.
                hidden[k] = next(transfers)(hidden[k], hidden[parent])
        return NetworkOutput(self.towers(torch.stack(hidden)))


class Transfer(nn.Module):
    """Attention over a task's own tower and the vector from the previous task."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = 1 / math.sqrt(width)
        self.information = nn.Linear(width, width)
        self.attention = StackedLinear(3, width, width)

    def forward(self, tower: Tensor, previous: Tensor) -> Tensor:
        """Map the vectors of a task and the previous one, `(batch, width)`, to one."""
        passed = torch.relu(self.information(previous))
        # Both vectors go through the three maps W^1, W^2 and W^3 in one product.
        projected = self.attention(torch.cat([tower, passed])).unflatten(1, (2, -1))
        keys, queries, values = projected.unbind()
        scores = (keys * queries).sum(dim=2) * self.scale
        return torch.sum(scores.softmax(dim=0).unsqueeze(2) * values, dim=0)

"""PLE: shared experts beside the experts of each task."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sk_pwiser._utils._checks import check_integer
from sk_pwiser.networks._base import MultiTaskNetwork, NetworkOutput
from sk_pwiser.networks._layers import ExpertGroups, Gates, TaskTowers, mix, mix_trained
from sk_pwiser.networks._spec import NetworkSpec


class PLE(MultiTaskNetwork):
    r"""Progressive layered extraction: shared experts beside the experts of each task.

    In every level, the gate of task k mixes the experts of the task and the shared
    experts, and a shared gate mixes all experts,

    .. math:: x_k' = \sum_j g_k(x_k)_j\, e_j(x_{t(j)}), \quad
        g_k(x) = softmax(W_k x + c_k)

    with j over the experts that the gate mixes, t(j) the task, or the shared stream,
    that expert j belongs to, and :math:`x_k = x`, the input of embeddings and numeric
    values, in the first level. The last level has no shared gate, since no layer would
    read its output. The logit is :math:`z_k = t_k(x_k)` with t_k the tower. One level
    is the CGC of the paper.

    Parameters
    ----------
    spec : NetworkSpec
        The table, the tasks and the shared options.
    n_experts : int, default=1
        Number of experts per task and level.
    n_shared_experts : int, default=2
        Total number of shared experts per level.
    n_levels : int, default=2
        Number of levels.
    expert_units : sequence of int, default=(128, 64)
        Widths of each expert's layers.
    tower_units : sequence of int, default=(32,)
        Widths of each tower's hidden layers.
    dropout : float, default=0.0
        Share of activations that are dropped in experts and towers in training.

    Notes
    -----
    This implementation differs from the paper in the gates, which have a bias and start
    uniform.

    References
    ----------
    H. Tang, J. Liu, M. Zhao and X. Gong (2020). Progressive Layered Extraction (PLE):
    A Novel Multi-Task Learning (MTL) Model for Personalized Recommendations. RecSys.
    :doi:`10.1145/3383313.3412236`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks import PLE, NetworkSpec
    >>> spec = NetworkSpec([3, 5], n_numeric=2, embedding_dim=4, base_rates=[0.1, 0.01])
    >>> codes, numeric = torch.tensor([[0, 1]]), torch.zeros(1, 2)
    >>> tuple(PLE(spec, n_shared_experts=3)(codes, numeric).logits.shape)
    (1, 2)
    """

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        n_experts: int = 1,
        n_shared_experts: int = 2,
        n_levels: int = 2,
        expert_units: Sequence[int] = (128, 64),
        tower_units: Sequence[int] = (32,),
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec)
        n_experts = check_integer("n_experts", n_experts, at_least=1)
        n_shared_experts = check_integer(
            "n_shared_experts", n_shared_experts, at_least=1
        )
        n_levels = check_integer("n_levels", n_levels, at_least=1)
        width = self.width
        levels = []
        for level in range(n_levels):
            levels.append(
                ExtractionLevel(
                    width,
                    n_tasks=spec.n_tasks,
                    n_experts=n_experts,
                    n_shared_experts=n_shared_experts,
                    units=expert_units,
                    dropout=dropout,
                    is_last=level + 1 == n_levels,
                )
            )
            width = levels[-1].n_out
        self.levels = nn.ModuleList(levels)
        self.towers = TaskTowers(width, tower_units, self.base_logits, dropout)

    def forward(self, codes: Tensor, numeric: Tensor) -> NetworkOutput:
        """Compute the logits of a batch, of shape `(batch, n_tasks)`."""
        streams = self.input_layer(codes, numeric)
        for level in self.levels:
            streams = level(streams)
        return NetworkOutput(self.towers(streams))


class ExtractionLevel(nn.Module):
    """One level: experts of each task, shared ones, and gates."""

    def __init__(
        self,
        n_in: int,
        *,
        n_tasks: int,
        n_experts: int,
        n_shared_experts: int,
        units: Sequence[int],
        dropout: float,
        is_last: bool,
    ) -> None:
        super().__init__()
        self.n_tasks = n_tasks
        self.n_experts = n_experts
        n_all = n_tasks * n_experts + n_shared_experts
        sizes = [n_experts] * n_tasks + [n_shared_experts]
        self.experts = ExpertGroups(sizes, n_in, units, dropout)
        self.n_out = self.experts.n_out
        self.task_gates = Gates(n_in, n_tasks, n_experts + n_shared_experts)
        # No layer reads the shared stream of the last level: its gate would never be
        # trained.
        self.shared_gate = Gates(n_in, 1, n_all) if not is_last else None

    def forward(self, streams: Tensor) -> Tensor:
        """Map the streams of tasks and the shared one, the last, to the next level."""
        n_tasks = self.n_tasks
        is_first = streams.dim() == 2
        experts = self.experts(streams)
        weights = self.task_gates(streams if is_first else streams[:n_tasks])
        to_own, to_shared = weights.tensor_split([self.n_experts], dim=2)
        mixed = mix_trained(to_own, to_shared, experts)
        if self.shared_gate is None:
            return mixed
        stream = streams if is_first else streams[n_tasks:]
        return torch.cat([mixed, mix(self.shared_gate(stream), experts)])

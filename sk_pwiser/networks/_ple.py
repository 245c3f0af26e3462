"""Progressive layered extraction."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sk_pwiser._utils import check_integer
from sk_pwiser.networks._base import MultiTaskNetwork, NetworkOutput, NetworkSpec
from sk_pwiser.networks._checks import check_dropout, check_units
from sk_pwiser.networks._layers import Gates, StackedMLP, TaskTowers, mix


class PLE(MultiTaskNetwork):
    r"""Progressive layered extraction: shared experts beside those of each task.

    In every level the gate of task k mixes the task's own experts with the shared
    ones, and a shared gate mixes all of them,

    .. math:: x_k' = \sum_j g_k(x_k)_j\, e_j(x_{t(j)}), \quad
        g_k(x) = softmax(W_k x + c_k)

    with j over the experts that the gate sees, t(j) the task, or the shared stream,
    that expert j belongs to, and :math:`x_k = x`, the input of embeddings and numeric
    values, in the first level. The last level has no shared gate, since nothing would
    read it. The logit is :math:`z_k = t_k(x_k)` with t_k the tower. One level is the
    CGC of the paper.

    Parameters
    ----------
    spec : NetworkSpec
        The table and the tasks.
    n_experts : int, default=1
        Number of experts of each task in a level.
    n_shared_experts : int, default=2
        Number of shared experts in a level.
    n_levels : int, default=2
        Number of levels.
    expert_units : sequence of int, default=(128, 64)
        Widths of each expert's layers.
    tower_units : sequence of int, default=(32,)
        Widths of each tower's hidden layers.
    dropout : float, default=0.0
        Share of activations dropped in experts and towers in training.

    Notes
    -----
    Departures: gates have a bias and start even.

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
        counts = (
            spec.n_tasks,
            check_integer("n_experts", n_experts, at_least=1),
            check_integer("n_shared_experts", n_shared_experts, at_least=1),
        )
        units = check_units("expert_units", expert_units)
        dropout = check_dropout(dropout)
        n_levels = check_integer("n_levels", n_levels, at_least=1)
        width = self.width
        levels = []
        for level in range(n_levels):
            goes_on = level + 1 < n_levels
            levels.append(ExtractionLevel(width, counts, units, dropout, goes_on))
            width = levels[-1].n_out
        self.levels = nn.ModuleList(levels)
        self.towers = TaskTowers(
            width, check_units("tower_units", tower_units), spec.base_logits(), dropout
        )

    def forward(self, codes: Tensor, numeric: Tensor) -> NetworkOutput:
        """Compute the logits of a batch, of shape `(batch, n_tasks)`."""
        streams = self.input_layer(codes, numeric)
        for level in self.levels:
            streams = level(streams)
        return NetworkOutput(self.towers(streams))


class ExtractionLevel(nn.Module):
    """One level: the experts of each task, the shared ones, and the gates.

    Parameters
    ----------
    n_in : int
        Width of a stream.
    counts : tuple of int
        Numbers of tasks, of experts a task, and of shared experts.
    units : sequence of int
        Widths of each expert's layers.
    dropout : float
        Share of activations dropped in training.
    goes_on : bool
        Whether there is a further level, which reads the shared stream.
    """

    source: Tensor

    def __init__(
        self,
        n_in: int,
        counts: tuple[int, int, int],
        units: Sequence[int],
        dropout: float,
        goes_on: bool,
    ) -> None:
        super().__init__()
        self.counts = n_tasks, n_own, n_shared = counts
        n_all = n_tasks * n_own + n_shared
        self.experts = StackedMLP(n_all, n_in, units, dropout)
        self.n_out = self.experts.n_out
        self.task_gates = Gates(n_in, n_tasks, n_own + n_shared)
        self.shared_gate = Gates(n_in, 1, n_all) if goes_on else None
        # The stream that each expert reads: its task's, or the last, which is shared.
        repeats = torch.tensor([n_own] * n_tasks + [n_shared])
        source = torch.arange(n_tasks + 1).repeat_interleave(repeats)
        self.register_buffer("source", source, persistent=False)

    def forward(self, streams: Tensor) -> Tensor:
        """Map the streams of the tasks, and the shared one, to the next ones.

        Parameters
        ----------
        streams : Tensor of shape (batch, n_in) or (n_tasks + 1, batch, n_in)
            One input for all, or one a task and the shared one last.

        Returns
        -------
        Tensor of shape (n_tasks + 1, batch, n_out) or (n_tasks, batch, n_out)
            The last level leaves the shared stream out.
        """
        n_tasks, n_own, _ = self.counts
        is_first = streams.dim() == 2
        experts = self.experts(streams if is_first else streams[self.source])
        own, shared = experts.tensor_split([n_tasks * n_own])
        weights = self.task_gates.weights(streams if is_first else streams[:n_tasks])
        mixed = mix(weights[:, :, n_own:], shared)
        own = own.unflatten(0, (n_tasks, n_own))
        mixed = mixed + torch.einsum("bkj,kjbw->kbw", weights[:, :, :n_own], own)
        if self.shared_gate is None:
            return mixed
        stream = streams if is_first else streams[n_tasks:]
        return torch.cat([mixed, self.shared_gate(stream, experts)])

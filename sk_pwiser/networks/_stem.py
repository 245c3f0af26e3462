"""Shared and task-specific embeddings."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sk_pwiser._utils import check_integer
from sk_pwiser.networks._base import MultiTaskNetwork, NetworkOutput, NetworkSpec
from sk_pwiser.networks._checks import check_dropout, check_units
from sk_pwiser.networks._layers import Gates, StackedMLP, TaskTowers, mix


class STEM(MultiTaskNetwork):
    r"""Shared and task-specific embeddings: a table a task, and one that is shared.

    With :math:`x_k` the input from the embeddings of task k, and :math:`x_0` that from
    the shared ones, experts read one input each, and the gate of task k mixes all of
    them without a gradient to those of other tasks,

    .. math:: u_k = \sum_{t(j) \in \{0, k\}} g_{kj}\, e_j(x_{t(j)})
        + \sum_{t(j) \notin \{0, k\}} g_{kj}\, sg[e_j(x_{t(j)})], \quad
        g_k = softmax(W_k \frac{x_0 + x_k}{2} + c_k)

    with t(j) the input that expert j reads and sg the stop of gradients. The logit is
    :math:`z_k = t_k(u_k)` with t_k the tower. A task's loss moves no other task's
    embeddings, while its predictions use them.

    Parameters
    ----------
    spec : NetworkSpec
        The table and the tasks.
    n_experts : int, default=1
        Number of experts of each task.
    n_shared_experts : int, default=1
        Number of shared experts.
    expert_units : sequence of int, default=(128, 64)
        Widths of each expert's layers.
    tower_units : sequence of int, default=(32,)
        Widths of each tower's hidden layers.
    dropout : float, default=0.0
        Share of activations dropped in experts and towers in training.

    Notes
    -----
    Departures: gates are linear, have a bias, start even, and read the mean in place
    of the sum of the two inputs, in which numeric values keep their size. There is one
    layer of experts.

    References
    ----------
    L. Su, J. Pan, X. Wang, X. Xiao, S. Quan, X. Chen and J. Jiang (2024). STEM:
    Unleashing the Power of Embeddings for Multi-task Recommendation. AAAI.
    :arxiv:`2308.13537`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks import NetworkSpec, STEM
    >>> spec = NetworkSpec([3, 5], n_numeric=2, embedding_dim=4, base_rates=[0.1, 0.01])
    >>> codes, numeric = torch.tensor([[0, 1]]), torch.zeros(1, 2)
    >>> tuple(STEM(spec)(codes, numeric).logits.shape)
    (1, 2)
    """

    source: Tensor
    is_open: Tensor

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        n_experts: int = 1,
        n_shared_experts: int = 1,
        expert_units: Sequence[int] = (128, 64),
        tower_units: Sequence[int] = (32,),
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec, n_tables=spec.n_tasks + 1)
        n_own = check_integer("n_experts", n_experts, at_least=1)
        n_shared = check_integer("n_shared_experts", n_shared_experts, at_least=1)
        units = check_units("expert_units", expert_units)
        dropout = check_dropout(dropout)
        # The input that each expert reads: its task's, or the last, which is shared.
        repeats = torch.tensor([n_own] * spec.n_tasks + [n_shared])
        source = torch.arange(spec.n_tasks + 1).repeat_interleave(repeats)
        tasks = torch.arange(spec.n_tasks).unsqueeze(1)
        is_open = (source == tasks) | (source == spec.n_tasks)
        self.register_buffer("source", source, persistent=False)
        self.register_buffer("is_open", is_open.float(), persistent=False)
        self.experts = StackedMLP(len(source), self.width, units, dropout)
        self.gates = Gates(self.width, spec.n_tasks, len(source))
        self.towers = TaskTowers(
            self.experts.n_out,
            check_units("tower_units", tower_units),
            spec.base_logits(),
            dropout,
        )

    def forward(self, codes: Tensor, numeric: Tensor) -> NetworkOutput:
        """Compute the logits of a batch, of shape `(batch, n_tasks)`."""
        inputs = self.input_layer(codes, numeric)
        experts = self.experts(inputs[self.source])
        weights = self.gates.weights((inputs[:-1] + inputs[-1:]) / 2)
        learning = mix(weights * self.is_open, experts)
        using = mix(weights * (1 - self.is_open), experts.detach())
        return NetworkOutput(self.towers(learning + using))

"""MetaHeac: shared experts and shared critics."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sk_pwiser._utils._checks import check_integer, check_number
from sk_pwiser._utils._precision import at_least_float32
from sk_pwiser.networks._base import MultiTaskNetwork, NetworkOutput
from sk_pwiser.networks._layers import (
    Gates,
    OutputLayer,
    StackedLinear,
    StackedMLP,
    check_units,
    mix,
)
from sk_pwiser.networks._spec import NetworkSpec


class MetaHeac(MultiTaskNetwork):
    r"""Hybrid experts and critics: both are shared, with one mixture per task.

    The meta-learning of the paper is left out, since it needs many campaigns: this is
    its network only, with the tasks in place of the campaigns.

    .. math:: u_k = \sum_j g_k(x)_j\, e_j(x), \quad
        P(Y_k = 1 \mid x) = \sum_m a_k(x)_m\, \sigma(c_m(u_k) + b_k)

    with x the input of embeddings and numeric values, e_j the experts, c_m the
    critics, b_k one bias per task, and the gates :math:`g_k(x), a_k(x)` softmax
    functions of x, one per task. Every critic returns a probability; these are mixed,
    in log space, by weights that sum to 1.

    Parameters
    ----------
    spec : NetworkSpec
        The table, the tasks and the shared options.
    n_experts : int, default=4
        Total number of experts, which all tasks share.
    n_critics : int, default=3
        Total number of critics, which all tasks share.
    expert_units : sequence of int, default=(128, 64)
        Widths of each expert's layers.
    tower_units : sequence of int, default=(32,)
        Widths of each critic's hidden layers.
    dropout : float, default=0.0
        Share of activations that are dropped in experts and critics in training.

    Notes
    -----
    This implementation also differs from the paper in its gates: a gate is linear in x
    with separate weights per task, instead of a network that reads the embedding of a
    campaign; it starts uniform. One bias per task lets tasks with different base rates
    share the critics.

    References
    ----------
    Zhu et al. (2021). Learning to Expand Audience via Meta Hybrid Experts and Critics
    for Recommendation and Advertising. KDD. :arxiv:`2105.14688`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks import MetaHeac, NetworkSpec
    >>> spec = NetworkSpec([3, 5], n_numeric=2, embedding_dim=4, base_rates=[0.1, 0.01])
    >>> codes, numeric = torch.tensor([[0, 1]]), torch.zeros(1, 2)
    >>> tuple(MetaHeac(spec, n_critics=5)(codes, numeric).logits.shape)
    (1, 2)
    """

    towers_name = "critics"

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        n_experts: int = 4,
        n_critics: int = 3,
        expert_units: Sequence[int] = (128, 64),
        tower_units: Sequence[int] = (32,),
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec)
        n_experts = check_integer("n_experts", n_experts, at_least=1)
        n_critics = check_integer("n_critics", n_critics, at_least=1)
        dropout = check_number("dropout", dropout, at_least=0, below=1)
        self.experts = StackedMLP(n_experts, self.width, expert_units, dropout)
        self.gates = Gates(self.width, spec.n_tasks, n_experts)
        units = check_units("tower_units", tower_units)
        self.critics = StackedMLP(n_critics, self.experts.n_out, units, dropout)
        self.critic_gates = Gates(self.width, spec.n_tasks, n_critics)
        output = StackedLinear(n_critics, self.critics.n_out, 1)
        self.output = OutputLayer(output)
        self.task_bias = nn.ParameterList(torch.split(self.base_logits, 1))

    def forward(self, codes: Tensor, numeric: Tensor) -> NetworkOutput:
        """Compute the logits of a batch, of shape `(batch, n_tasks)`."""
        inputs = self.input_layer(codes, numeric)
        mixed = mix(self.gates(inputs), self.experts(inputs))
        # Every critic reads every task's mixture: (n_critics, n_tasks, batch).
        judged = self.output(self.critics(mixed.flatten(0, 1)))
        judged = judged.view(judged.shape[0], *mixed.shape[:2]).permute(2, 1, 0)
        logits = judged + torch.stack(list(self.task_bias))
        log_weights = self.critic_gates.logits(inputs).log_softmax(dim=2)
        return NetworkOutput(mixture_logits(logits, at_least_float32(log_weights)))


def mixture_logits(logits: Tensor, log_weights: Tensor) -> Tensor:
    """Compute log-odds of mixed probabilities, from `(batch, n_tasks, n_critics)`."""
    ones = torch.logsumexp(log_weights + F.logsigmoid(logits), dim=2)
    return ones - torch.logsumexp(log_weights + F.logsigmoid(-logits), dim=2)

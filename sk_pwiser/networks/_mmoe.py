"""MMoE: shared experts and one gate per task."""

from collections.abc import Sequence

from torch import Tensor

from sk_pwiser._utils._checks import check_integer
from sk_pwiser.networks._base import MultiTaskNetwork, NetworkOutput
from sk_pwiser.networks._layers import Gates, StackedMLP, TaskTowers, mix
from sk_pwiser.networks._spec import NetworkSpec


class MMoE(MultiTaskNetwork):
    r"""Multi-gate mixture of experts: shared experts, mixed by one gate per task.

    .. math:: z_k = t_k(\sum_j g_k(x)_j e_j(x)), \quad g_k(x) = softmax(W_k x + c_k)

    with x the input of embeddings and numeric values, e_j expert j, g_k the gate, t_k
    the tower and z_k the logit of task k.

    Parameters
    ----------
    spec : NetworkSpec
        The table, the tasks and the shared options.
    n_experts : int, default=4
        Total number of experts, which all tasks share.
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
    Ma et al. (2018). Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts. KDD. :doi:`10.1145/3219819.3220007`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks import MMoE, NetworkSpec
    >>> spec = NetworkSpec([3, 5], n_numeric=2, embedding_dim=4, base_rates=[0.1, 0.01])
    >>> codes, numeric = torch.tensor([[0, 1]]), torch.zeros(1, 2)
    >>> tuple(MMoE(spec, n_experts=3)(codes, numeric).logits.shape)
    (1, 2)
    """

    has_gate_per_task = True

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        n_experts: int = 4,
        expert_units: Sequence[int] = (128, 64),
        tower_units: Sequence[int] = (32,),
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec)
        n_experts = check_integer("n_experts", n_experts, at_least=1)
        self.experts = StackedMLP(n_experts, self.width, expert_units, dropout)
        n_gates = spec.n_tasks if self.has_gate_per_task else 1
        self.gates = Gates(self.width, n_gates, n_experts)
        self.towers = TaskTowers(
            self.experts.n_out, tower_units, self.base_logits, dropout
        )

    def forward(self, codes: Tensor, numeric: Tensor) -> NetworkOutput:
        """Compute the logits of a batch, of shape `(batch, n_tasks)`."""
        inputs = self.input_layer(codes, numeric)
        mixed = mix(self.gates(inputs), self.experts(inputs))
        return NetworkOutput(self.towers(mixed.expand(self.n_tasks, -1, -1)))

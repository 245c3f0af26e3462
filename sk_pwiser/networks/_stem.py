"""STEM: shared embeddings beside the embeddings of each task."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sk_pwiser._utils._checks import check_integer
from sk_pwiser.networks._base import MultiTaskNetwork, NetworkOutput
from sk_pwiser.networks._layers import (
    ExpertGroups,
    Gates,
    TaskTowers,
    constant,
    mix,
    mix_trained,
)
from sk_pwiser.networks._spec import NetworkSpec


class STEM(MultiTaskNetwork):
    r"""Shared and task-specific embeddings: one table per task and a shared table.

    With :math:`x_k` the input from the embeddings of task k, and :math:`x_0` the input
    from the shared embeddings, every expert reads one of these inputs. The gate of task
    k mixes all experts, without a gradient to those of other tasks,

    .. math:: u_k = \sum_{t(j) \in \{0, k\}} g_{kj}\, e_j(x_{t(j)})
        + \sum_{t(j) \notin \{0, k\}} g_{kj}\, sg[e_j(x_{t(j)})], \quad
        g_k = softmax(W_k \frac{x_0 + x_k}{2} + c_k)

    with t(j) the input that expert j reads and sg the stop of gradients. The logit is
    :math:`z_k = t_k(u_k)` with t_k the tower. Predictions of a task use the embeddings
    of other tasks, but its loss does not change them.

    Parameters
    ----------
    spec : NetworkSpec
        The table, the tasks and the shared options.
    n_experts : int, default=1
        Number of experts per task.
    n_shared_experts : int, default=1
        Total number of shared experts.
    expert_units : sequence of int, default=(128, 64)
        Widths of each expert's layers.
    tower_units : sequence of int, default=(32,)
        Widths of each tower's hidden layers.
    dropout : float, default=0.0
        Share of activations that are dropped in experts and towers in training.

    Notes
    -----
    This implementation differs from the paper in the gates: they are linear, have a
    bias, start uniform, and read the mean of the two inputs instead of their sum, so
    that numeric values keep their scale. There is one layer of experts.

    References
    ----------
    Su et al. (2024). STEM: Unleashing the Power of Embeddings for Multi-task
    Recommendation. AAAI. :arxiv:`2308.13537`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks import NetworkSpec, STEM
    >>> spec = NetworkSpec([3, 5], n_numeric=2, embedding_dim=4, base_rates=[0.1, 0.01])
    >>> codes, numeric = torch.tensor([[0, 1]]), torch.zeros(1, 2)
    >>> tuple(STEM(spec)(codes, numeric).logits.shape)
    (1, 2)
    """

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
        self.n_experts = check_integer("n_experts", n_experts, at_least=1)
        n_shared = check_integer("n_shared_experts", n_shared_experts, at_least=1)
        sizes = [self.n_experts] * spec.n_tasks + [n_shared]
        self.experts = ExpertGroups(sizes, self.width, expert_units, dropout)
        # The task that each expert belongs to; n_tasks for shared experts.
        owner = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        is_other = owner != torch.arange(spec.n_tasks).unsqueeze(1)
        is_other &= owner != spec.n_tasks
        self.is_other = constant(is_other.float())
        self.gates = Gates(self.width, spec.n_tasks, len(owner))
        self.towers = TaskTowers(
            self.experts.n_out, tower_units, self.base_logits, dropout
        )

    def forward(self, codes: Tensor, numeric: Tensor) -> NetworkOutput:
        """Compute the logits of a batch, of shape `(batch, n_tasks)`."""
        inputs = self.input_layer(codes, numeric)
        experts = self.experts(inputs)
        weights = self.gates((inputs[:-1] + inputs[-1:]) / 2)
        n_specific = self.n_tasks * self.n_experts
        to_own, to_shared = weights.tensor_split([n_specific], dim=2)
        # The gate of each task for the experts of the same task. A product with zeros
        # would make the experts of one task part of the losses of all tasks.
        to_own = torch.unflatten(to_own, 2, (self.n_tasks, self.n_experts))
        to_own = to_own.diagonal(dim1=1, dim2=2).mT
        # The experts of other tasks, without a gradient: the second sum of the
        # equation.
        from_other_tasks = mix(weights * self.is_other, experts.detach())
        mixed = mix_trained(to_own, to_shared, experts) + from_other_tasks
        return NetworkOutput(self.towers(mixed))

"""Networks with experts, which gates mix or whose outputs towers read."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sk_pwiser._utils import at_least_float32, check_choice, check_integer, check_number
from sk_pwiser.networks import _layers as layers
from sk_pwiser.networks._input import NetworkSpec
from sk_pwiser.networks._multi_task_network import MultiTaskNetwork, NetworkOutput


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
        self.experts = layers.StackedMLP(n_experts, self.width, expert_units, dropout)
        n_gates = spec.n_tasks if self.has_gate_per_task else 1
        self.gates = layers.Gates(self.width, n_gates, n_experts)
        self.towers = layers.TaskTowers(
            self.experts.n_out, tower_units, self.base_logits, dropout
        )

    def forward(self, codes: Tensor, numeric: Tensor) -> NetworkOutput:
        """Compute the logits of a batch, of shape `(batch, n_tasks)`."""
        inputs = self.input_layer(codes, numeric)
        mixed = layers.mix(self.gates(inputs), self.experts(inputs))
        return NetworkOutput(self.towers(mixed.expand(self.n_tasks, -1, -1)))


class OMoE(MMoE):
    r"""One-gate mixture of experts: shared experts, mixed by one gate for all tasks.

    .. math:: z_k = t_k(\sum_j g(x)_j e_j(x)), \quad g(x) = softmax(W x + c)

    with x the input of embeddings and numeric values, e_j expert j, g the gate, t_k
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
    This implementation differs from the paper in the gate, which has a bias and starts
    uniform.

    References
    ----------
    Ma et al. (2018). Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts. KDD. :doi:`10.1145/3219819.3220007`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks import NetworkSpec, OMoE
    >>> spec = NetworkSpec([3, 5], n_numeric=2, embedding_dim=4, base_rates=[0.1, 0.01])
    >>> codes, numeric = torch.tensor([[0, 1]]), torch.zeros(1, 2)
    >>> tuple(OMoE(spec, n_experts=3)(codes, numeric).logits.shape)
    (1, 2)
    """

    has_gate_per_task = False


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
        counts = (
            spec.n_tasks,
            check_integer("n_experts", n_experts, at_least=1),
            check_integer("n_shared_experts", n_shared_experts, at_least=1),
        )
        n_levels = check_integer("n_levels", n_levels, at_least=1)
        width, shape = self.width, (counts, expert_units, dropout)
        levels = []
        for level in range(n_levels):
            levels.append(ExtractionLevel(width, *shape, level + 1 == n_levels))
            width = levels[-1].n_out
        self.levels = nn.ModuleList(levels)
        self.towers = layers.TaskTowers(width, tower_units, self.base_logits, dropout)

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
        counts: tuple[int, int, int],
        units: Sequence[int],
        dropout: float,
        is_last: bool,
    ) -> None:
        super().__init__()
        self.counts = n_tasks, n_own, n_shared = counts
        n_all = n_tasks * n_own + n_shared
        sizes = [n_own] * n_tasks + [n_shared]
        self.experts = layers.ExpertGroups(sizes, n_in, units, dropout)
        self.n_out = self.experts.n_out
        self.task_gates = layers.Gates(n_in, n_tasks, n_own + n_shared)
        # No layer reads the shared stream of the last level: its gate would never be
        # trained.
        self.shared_gate = layers.Gates(n_in, 1, n_all) if not is_last else None

    def forward(self, streams: Tensor) -> Tensor:
        """Map the streams of tasks and the shared one, the last, to the next level."""
        n_tasks, n_own, _ = self.counts
        is_first = streams.dim() == 2
        experts = self.experts(streams)
        weights = self.task_gates(streams if is_first else streams[:n_tasks])
        to_own, to_shared = weights.tensor_split([n_own], dim=2)
        mixed = mix_trained(to_own, to_shared, experts)
        if self.shared_gate is None:
            return mixed
        stream = streams if is_first else streams[n_tasks:]
        return torch.cat([mixed, layers.mix(self.shared_gate(stream), experts)])


def mix_trained(to_own: Tensor, to_shared: Tensor, experts: Tensor) -> Tensor:
    """Mix the experts that each task trains: its own and the shared ones.

    The weights are `(batch, n_tasks, n_experts)`, those `to_own` for the experts of the
    same task only.
    """
    n_tasks, n_own = to_own.shape[1:]
    own, shared = experts.tensor_split([n_tasks * n_own])
    own = torch.unflatten(own, 0, (n_tasks, n_own))
    return torch.einsum("bkj,kjbw->kbw", to_own, own) + layers.mix(to_shared, shared)


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
        self.experts = layers.ExpertGroups(sizes, self.width, expert_units, dropout)
        # The task that each expert belongs to; n_tasks for shared experts.
        owner = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        is_other = owner != torch.arange(spec.n_tasks).unsqueeze(1)
        is_other &= owner != spec.n_tasks
        self.is_other = layers.constant(is_other.float())
        self.gates = layers.Gates(self.width, spec.n_tasks, len(owner))
        self.towers = layers.TaskTowers(
            self.experts.n_out, tower_units, self.base_logits, dropout
        )

    def forward(self, codes: Tensor, numeric: Tensor) -> NetworkOutput:
        """Compute the logits of a batch, of shape `(batch, n_tasks)`."""
        inputs = self.input_layer(codes, numeric)
        experts = self.experts(inputs)
        weights = self.gates((inputs[:-1] + inputs[-1:]) / 2)
        n_tasks, n_own = self.n_tasks, self.n_experts
        to_own, to_shared = weights.tensor_split([n_tasks * n_own], dim=2)
        # The gate of each task for the experts of the same task. A product with zeros
        # would make the experts of one task part of the losses of all tasks.
        to_own = torch.unflatten(to_own, 2, (n_tasks, n_own))
        to_own = to_own.diagonal(dim1=1, dim2=2).mT
        # The experts of other tasks, without a gradient: the second sum of the
        # equation.
        others = layers.mix(weights * self.is_other, experts.detach())
        mixed = mix_trained(to_own, to_shared, experts) + others
        return NetworkOutput(self.towers(mixed))


class FDN(MultiTaskNetwork):
    r"""Feature decomposition network: pairs of specific and shared experts.

    Task k has pairs of a specific expert :math:`s_{kj}` and a shared expert
    :math:`h_{kj}`, multi-layer perceptrons with ELU. Its tower reads its own specific
    experts and the shared experts of all tasks,

    .. math:: z_k = t_k([s_{k1}; \dots; s_{kn}; h_{11}; \dots; h_{Kn}]).

    An auxiliary head :math:`a_{kj} = v_{kj}^\top s_{kj} + e_{kj}` on every specific
    expert is trained with the loss of the task, and a penalty makes the outputs of a
    pair orthogonal. Predictions depend on neither of them.

    Parameters
    ----------
    spec : NetworkSpec
        The table, the tasks and the shared options.
    n_pairs : int, default=2
        Number of pairs per task.
    expert_units : sequence of int, default=(128, 64)
        Widths of each expert's layers.
    tower_units : sequence of int, default=()
        Widths of each tower's hidden layers; the paper's code has none.
    dropout : float, default=0.0
        Share of activations that are dropped in experts and towers in training.
    aux_weight : float, default=0.1
        Weight of the auxiliary heads' losses, summed over pairs; 1 in the paper's code.
    orthogonality : {"row", "batch", "norm_product"}, default="row"
        The penalty of a pair: the squared cosine of its outputs, averaged over rows
        ("row"); the squared Frobenius norm of the product of the two centred,
        row-normalised output matrices, divided by the squared number of rows
        ("batch"); or the mean product of the lengths of the outputs ("norm_product"),
        as computed by the paper's code. The last one reduces lengths and does not make
        outputs orthogonal.
    orthogonality_weight : float, default=0.1
        Weight of the penalty, summed over pairs; 1 in the paper's code.

    Notes
    -----
    This implementation differs from the paper in several points: there are no class
    weights, since these bias probabilities; the input is not scaled and shifted; there
    is dropout; and all tasks have the same number of pairs.

    References
    ----------
    J. Zhou, Q. Yu, C. Luo and J. Zhang (2023). Feature Decomposition for Reducing
    Negative Transfer: A Novel Multi-Task Learning Method for Recommender System. AAAI
    (student abstract). :arxiv:`2302.05031`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks import FDN, NetworkSpec
    >>> spec = NetworkSpec([3, 5], n_numeric=2, embedding_dim=4, base_rates=[0.1, 0.01])
    >>> codes, numeric = torch.tensor([[0, 1]]), torch.zeros(1, 2)
    >>> output = FDN(spec, n_pairs=3)(codes, numeric)
    >>> tuple(output.logits.shape), len(output.aux_logits)
    ((1, 2), 3)
    """

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        n_pairs: int = 2,
        expert_units: Sequence[int] = (128, 64),
        tower_units: Sequence[int] = (),
        dropout: float = 0.0,
        aux_weight: float = 0.1,
        orthogonality: str = "row",
        orthogonality_weight: float = 0.1,
    ) -> None:
        super().__init__(spec)
        self.aux_weight = check_number("aux_weight", aux_weight, at_least=0)
        self.orthogonality_weight = check_number(
            "orthogonality_weight", orthogonality_weight, at_least=0
        )
        check_choice("orthogonality", orthogonality, PENALTIES)
        self.penalty = PENALTIES[orthogonality]
        self.extra_losses_are_means = orthogonality == "row"
        self.n_pairs = check_integer("n_pairs", n_pairs, at_least=1)
        n_each = spec.n_tasks * n_pairs
        # The specific experts, grouped by task, precede the shared experts, which are
        # in the same order.
        sizes = [n_pairs] * spec.n_tasks + [n_each]
        self.experts = layers.ExpertGroups(
            sizes, self.width, expert_units, dropout, F.elu
        )
        n_read = (n_pairs + n_each) * self.experts.n_out
        self.towers = layers.TaskTowers(n_read, tower_units, self.base_logits, dropout)
        # Each specific expert predicts its task, so it starts at the rate of the task.
        of_pairs = self.base_logits.repeat_interleave(n_pairs)
        self.aux_heads = layers.TaskTowers(self.experts.n_out, (), of_pairs)

    def forward(self, codes: Tensor, numeric: Tensor) -> NetworkOutput:
        """Compute the logits of a batch, of shape `(batch, n_tasks)`."""
        specific, shared = self.experts(self.input_layer(codes, numeric)).chunk(2)
        # A tower reads its own specific experts and all shared ones:
        # (n_tasks, batch, n_pairs * width) and (batch, n_tasks * n_pairs * width).
        own = specific.unflatten(0, (self.n_tasks, self.n_pairs))
        own = own.transpose(1, 2).flatten(2)
        common = shared.transpose(0, 1).flatten(1).expand(self.n_tasks, -1, -1)
        logits = self.towers(torch.cat([own, common], dim=2))
        aux = self.aux_heads(specific).unflatten(1, (self.n_tasks, self.n_pairs))
        # Means of small squares would lose most digits in half precision.
        with torch.autocast(specific.device.type, enabled=False):
            parts = at_least_float32(specific), at_least_float32(shared)
            penalty = self.penalty(*parts).sum()
        return NetworkOutput(
            logits,
            aux_logits=aux.unbind(dim=2),
            aux_weight=self.aux_weight,
            extra_losses={"orthogonality": self.orthogonality_weight * penalty},
        )


def row_penalty(specific: Tensor, shared: Tensor) -> Tensor:
    """Compute the mean squared cosine of each pair's outputs, in [0, 1]."""
    return F.cosine_similarity(specific, shared, dim=2).square().mean(dim=1)


def batch_penalty(specific: Tensor, shared: Tensor) -> Tensor:
    """Compute the dependence of the directions of each pair's outputs, in [0, 1]."""
    s, h = (
        F.normalize(outputs - outputs.mean(dim=1, keepdim=True), dim=2)
        for outputs in (specific, shared)
    )
    products = torch.bmm(s.transpose(1, 2), h) / s.shape[1]
    return products.square().sum(dim=(1, 2))


def norm_product_penalty(specific: Tensor, shared: Tensor) -> Tensor:
    """Compute the mean product of the lengths of each pair's outputs."""
    # The Frobenius norm of the outer product, without forming it.
    lengths: Tensor = torch.linalg.vector_norm(torch.stack([specific, shared]), dim=3)
    return torch.mean(lengths[0] * lengths[1], dim=1)


PENALTIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "row": row_penalty,
    "batch": batch_penalty,
    "norm_product": norm_product_penalty,
}


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
        self.experts = layers.StackedMLP(n_experts, self.width, expert_units, dropout)
        self.gates = layers.Gates(self.width, spec.n_tasks, n_experts)
        units = layers.check_units("tower_units", tower_units)
        self.critics = layers.StackedMLP(n_critics, self.experts.n_out, units, dropout)
        self.critic_gates = layers.Gates(self.width, spec.n_tasks, n_critics)
        output = layers.StackedLinear(n_critics, self.critics.n_out, 1)
        self.output = layers.OutputLayer(output)
        self.task_bias = nn.ParameterList(torch.split(self.base_logits, 1))

    def forward(self, codes: Tensor, numeric: Tensor) -> NetworkOutput:
        """Compute the logits of a batch, of shape `(batch, n_tasks)`."""
        inputs = self.input_layer(codes, numeric)
        mixed = layers.mix(self.gates(inputs), self.experts(inputs))
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

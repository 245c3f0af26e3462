"""FDN: pairs of specific and shared experts."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sk_pwiser._utils._checks import check_choice, check_integer, check_number
from sk_pwiser._utils._precision import at_least_float32
from sk_pwiser.networks._base import MultiTaskNetwork, NetworkOutput
from sk_pwiser.networks._layers import ExpertGroups, TaskTowers
from sk_pwiser.networks._spec import NetworkSpec


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
        self.experts = ExpertGroups(sizes, self.width, expert_units, dropout, F.elu)
        n_read = (n_pairs + n_each) * self.experts.n_out
        self.towers = TaskTowers(n_read, tower_units, self.base_logits, dropout)
        # Each specific expert predicts its task, so it starts at the rate of the task.
        pair_logits = self.base_logits.repeat_interleave(n_pairs)
        self.aux_heads = TaskTowers(self.experts.n_out, (), pair_logits)

    def forward(self, codes: Tensor, numeric: Tensor) -> NetworkOutput:
        """Compute the logits of a batch, of shape `(batch, n_tasks)`."""
        specific, shared = self.experts(self.input_layer(codes, numeric)).chunk(2)
        # A tower reads its own specific experts and all shared ones:
        # (n_tasks, batch, n_pairs * width) and (batch, n_tasks * n_pairs * width).
        task_experts = specific.unflatten(0, (self.n_tasks, self.n_pairs))
        task_experts = task_experts.transpose(1, 2).flatten(2)
        common = shared.transpose(0, 1).flatten(1).expand(self.n_tasks, -1, -1)
        logits = self.towers(torch.cat([task_experts, common], dim=2))
        aux = self.aux_heads(specific).unflatten(1, (self.n_tasks, self.n_pairs))
        # Means of small squares would lose most digits in half precision.
        with torch.autocast(specific.device.type, enabled=False):
            penalty = self.penalty(
                at_least_float32(specific), at_least_float32(shared)
            ).sum()
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

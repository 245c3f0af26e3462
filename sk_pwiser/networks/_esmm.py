"""Entire space multi-task model, and losses of conditional heads over all rows.

The losses take the heads after the first, whose labels are known only in the rows in
which the previous task happened; the others have no label.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sk_pwiser._utils import (
    at_least_float32,
    chain_parents,
    check_number,
    conditional_labels,
)
from sk_pwiser.networks._chain import chain_logits
from sk_pwiser.networks._multi_task_network import (
    Labels,
    MultiTaskNetwork,
    NetworkOutput,
)
from sk_pwiser.networks._spec import NetworkSpec


class ESMM(MultiTaskNetwork):
    r"""Entire space multi-task model: the funnel as a chain of conditional heads.

    .. math:: P(Y_k = 1 \mid x) = \prod_{j \le k} \sigma(c_j), \quad c_j = t_j(x)

    with x the input of shared embeddings and numeric values and t_j the tower of
    conditional head j: for two tasks CTCVR = CTR x CVR. All heads are trained on all
    impressions, the CVR head through the product. The product is computed in log space.
    The probability of a later task never exceeds that of an earlier task.

    Parameters
    ----------
    spec : NetworkSpec
        The table, the tasks and the shared options.
    tower_units : sequence of int, default=(128, 64, 32)
        Widths of each tower's hidden layers.
    dropout : float, default=0.0
        Share of activations that are dropped in training.

    Notes
    -----
    `predict_cvr` is the product of the heads after the first, which is the CVR head for
    two tasks. This implementation differs from the paper in that it takes any number of
    tasks, also in a tree, and numeric values beside embeddings.

    References
    ----------
    Ma et al. (2018). Entire Space Multi-Task Model: An Effective Approach for
    Estimating Post-Click Conversion Rate. SIGIR. :arxiv:`1804.07931`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks import ESMM, NetworkSpec
    >>> spec = NetworkSpec([3, 5], n_numeric=2, embedding_dim=4, base_rates=[0.1, 0.01])
    >>> codes, numeric = torch.tensor([[0, 1]]), torch.zeros(1, 2)
    >>> click, conversion = ESMM(spec)(codes, numeric).logits[0]
    >>> bool(conversion < click)
    True
    """

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        tower_units: Sequence[int] = (128, 64, 32),
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec)
        biases = self.conditional_base_logits
        self.towers = self._make_towers(self.width, tower_units, dropout, biases)

    def forward(self, codes: Tensor, numeric: Tensor) -> NetworkOutput:
        """Compute the logits of a batch, of shape `(batch, n_tasks)`."""
        heads = at_least_float32(self.towers(self.input_layer(codes, numeric)))
        logits = chain_logits(heads, self.spec.parents)
        return NetworkOutput(logits, conditional_logits=heads)


class _CorrectedESMM(ESMM):
    """Base class of networks that correct the heads of ESMM by inverse propensities."""

    smallest_propensities: Tensor

    def __init__(
        self,
        spec: NetworkSpec,
        correction_weight: float,
        min_propensity: float,
        tower_units: Sequence[int],
        dropout: float,
    ) -> None:
        if tuple(spec.parents) != chain_parents(spec.n_tasks):
            raise ValueError(
                f"task_parents must be 'chain' for the network {type(self).__name__}, "
                "whose corrections are made for a funnel; 'esmm' takes any structure."
            )
        super().__init__(spec, tower_units=tower_units, dropout=dropout)
        self.correction_weight = check_number(
            "correction_weight", correction_weight, at_least=0
        )
        share = check_number("min_propensity", min_propensity, above=0, at_most=1)
        rates = torch.tensor(list(spec.base_rates[:-1]), dtype=torch.float64)
        smallest = (share * torch.stack([rates, 1 - rates])).float()
        self.register_buffer("smallest_propensities", smallest, persistent=False)

    def forward(self, codes: Tensor, numeric: Tensor) -> NetworkOutput:
        """Compute the logits of a batch, `(batch, n_tasks)`, and the extra losses."""
        inputs = self.input_layer(codes, numeric)
        heads = at_least_float32(self.towers(inputs))
        logits = chain_logits(heads)
        extra: Mapping[str, Callable[[Labels], Tensor]] = {}
        if self.n_tasks > 1:
            propensities = self._propensities(logits)
            extra = self._corrections(inputs, heads[:, 1:], propensities)
        return NetworkOutput(logits, extra_losses=extra, conditional_logits=heads)

    def _corrections(
        self, inputs: Tensor, heads: Tensor, propensities: tuple[Tensor, Tensor]
    ) -> dict[str, Callable[[Labels], Tensor]]:
        """Return the extra losses, given the input and the heads after the first."""
        raise NotImplementedError

    def _propensities(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return P(previous task) and its complement, for heads after the first."""
        logits, smallest = logits[:, :-1].detach(), self.smallest_propensities
        happened = torch.maximum(logits.sigmoid(), smallest[0])
        return happened, torch.maximum((-logits).sigmoid(), smallest[1])


def entire_space_loss(
    labels: Labels,
    heads: Tensor,
    propensity: Tensor,
    imputed: Tensor | None = None,
    weight: float = 1.0,
) -> Tensor:
    """Compute the loss of :class:`ESCM2`, `(n_tasks,)`, 0 for the first task.

    The other tensors are `(batch, n_tasks - 1)`. The paper imputes the loss itself, a
    number without a gradient for the head: rows without a label would not train it.
    """
    target = later_targets(labels)
    known = later_weights(labels) * labels.y[:, :-1] / propensity.detach()
    delta = later_losses(labels, heads, target)
    if imputed is None:
        losses = weighted_mean(delta, known)
    else:
        guess = imputed.detach().sigmoid()
        guessed = later_losses(labels, heads, guess)
        training = later_losses(labels, imputed, target)
        losses = (guessed * earlier_weights(labels)).mean(dim=0)
        losses = losses + weighted_mean(delta - guessed + training, known)
    return weight * F.pad(losses, (1, 0))


def dual_loss(
    labels: Labels,
    heads: Tensor,
    others: Tensor,
    other_targets: Tensor,
    propensities: tuple[Tensor, Tensor],
    weight: float,
) -> Tensor:
    """Compute the losses of heads for labels, and of `others` in the other rows.

    The result is `(n_tasks,)`, 0 for the first task, and all other tensors are `(batch,
    n_tasks - 1)`; `propensities` are P(previous task) and its complement.
    """
    happened = labels.y[:, :-1]
    known = weighted_mean(
        later_losses(labels, heads, later_targets(labels)),
        later_weights(labels) * happened / propensities[0],
    )
    unknown = weighted_mean(
        later_losses(labels, others, other_targets),
        earlier_weights(labels) * (1 - happened) / propensities[1],
    )
    return weight * F.pad(known + unknown, (1, 0))


def later_losses(labels: Labels, logits: Tensor, targets: Tensor) -> Tensor:
    """Compute losses of heads after the first, `(batch, n_tasks - 1)`, unweighted."""
    # The loss takes one column per task; that of the first is not used.
    logits = torch.cat([logits.new_zeros(len(logits), 1), logits], dim=1)
    targets = torch.cat([labels.y[:, :1], targets], dim=1)
    return labels.row_losses(logits, targets)[:, 1:]


def later_targets(labels: Labels) -> Tensor:
    """Return what heads after the first learn where the previous task happened.

    Of probabilities as labels this is P(task | previous task); labels do not change.
    """
    return conditional_labels(labels.y, chain_parents(labels.y.shape[1]))[:, 1:]


def later_weights(labels: Labels) -> Tensor:
    """Return the weights of rows for tasks after the first."""
    return _weights(labels)[:, 1:]


def earlier_weights(labels: Labels) -> Tensor:
    """Return the weights of the rows for the task before each task after the first."""
    return _weights(labels)[:, :-1]


def _weights(labels: Labels) -> Tensor:
    if labels.sample_weight is None:
        return torch.ones_like(labels.y)
    return labels.sample_weight.view(len(labels.y), -1).expand_as(labels.y)


def weighted_mean(losses: Tensor, weights: Tensor) -> Tensor:
    """Average `(batch, n)` over the rows, by weights; 0 where all weights are 0."""
    tiny = torch.finfo(losses.dtype).tiny
    return (losses * weights).sum(dim=0) / weights.sum(dim=0).clamp(min=tiny)

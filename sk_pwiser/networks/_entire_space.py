"""Losses of conditional heads over all rows, including those without a label.

The functions take the heads after the first, whose labels are known only in the rows in
which the previous task happened.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sk_pwiser._utils import at_least_float32, chain_parents, check_number
from sk_pwiser.networks._chain import chain_logits
from sk_pwiser.networks._esmm import ESMM
from sk_pwiser.networks._multi_task_network import Labels, NetworkOutput
from sk_pwiser.networks._spec import NetworkSpec


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
    target = labels.y[:, 1:]
    known = later_weights(labels) * labels.y[:, :-1] / propensity.detach()
    delta = later_losses(labels, heads, target)
    if imputed is None:
        losses = weighted_mean(delta, known)
    else:
        guess = imputed.detach().sigmoid()
        guessed = later_losses(labels, heads, guess)
        training = later_losses(labels, imputed, target)
        losses = (guessed * later_weights(labels)).mean(dim=0)
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
        later_losses(labels, heads, labels.y[:, 1:]),
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

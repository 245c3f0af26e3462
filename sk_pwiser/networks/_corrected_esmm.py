"""The base class of networks that correct the heads of ESMM after the first."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from sk_pwiser._tasks._conditional_labels import conditional_labels
from sk_pwiser._tasks._tree import chain_parents
from sk_pwiser._utils._checks import check_number
from sk_pwiser._utils._precision import at_least_float32
from sk_pwiser.networks._base import Labels, NetworkOutput
from sk_pwiser.networks._esmm import ESMM
from sk_pwiser.networks._layers import constant
from sk_pwiser.networks._spec import NetworkSpec
from sk_pwiser.networks._task_space import chain_logits


class LaterHeads:
    """The heads after the first, their labels, and the losses that need both.

    All tensors are `(batch, n_tasks - 1)`. The targets are the labels where the
    previous task `happened`; probabilities as labels become P(task | previous task).

    Parameters
    ----------
    labels : Labels
        The labels of all heads.
    logits : Tensor
        The log-odds of the heads, with their offset.
    propensities : tuple of two Tensors
        The probabilities that the previous task happens and that it does not.
    offset : Tensor of shape (..., n_tasks - 1) or float, default=0.0
        The offset of the heads, for towers beside them.
    """

    def __init__(
        self,
        labels: Labels,
        logits: Tensor,
        propensities: tuple[Tensor, Tensor],
        offset: Tensor | float = 0.0,
    ) -> None:
        self.logits = logits
        self.propensities = propensities
        self.offset = offset
        y = labels.y
        weights = labels.sample_weight
        if weights is None:
            weights = torch.ones_like(y)
        self.weights = weights.view(len(y), -1).expand_as(y)
        self.row_losses = labels.row_losses
        self.first = y[:, :1]
        self.happened = y[:, :-1]
        self.targets = conditional_labels(y, chain_parents(y.shape[1]))[:, 1:]

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the unweighted losses of logits."""
        # The loss takes one column per task; that of the first is not used.
        logits = torch.cat([logits.new_zeros(len(logits), 1), logits], dim=1)
        return self.row_losses(logits, torch.cat([self.first, targets], dim=1))[:, 1:]

    def mean(self, losses: Tensor) -> Tensor:
        """Average losses that need no label over all rows."""
        # Rows count as they do for the previous task.
        return (losses * self.weights[:, :-1]).mean(dim=0)

    def mean_where_known(self, losses: Tensor, propensity: Tensor | float) -> Tensor:
        """Average losses over the rows in which the previous task happened."""
        return weighted_mean(losses, self.weights[:, 1:] * self.happened / propensity)

    def mean_elsewhere(self, losses: Tensor, propensity: Tensor) -> Tensor:
        """Average losses over the rows in which the previous task did not happen."""
        weights = self.weights[:, :-1] * (1 - self.happened)
        return weighted_mean(losses, weights / propensity)


def weighted_mean(losses: Tensor, weights: Tensor) -> Tensor:
    """Average `(batch, n)` over the rows, by weights; 0 where all weights are 0."""
    # 0 / tiny is 0: a batch without a click gives no correction, and no NaN.
    tiny = torch.finfo(losses.dtype).tiny
    return (losses * weights).sum(dim=0) / weights.sum(dim=0).clamp(min=tiny)


# Functions by the names of extra losses, which return those of the later heads.
Corrections = dict[str, Callable[[LaterHeads], Tensor]]


class _CorrectedESMM(ESMM):
    """Base class of networks that correct the heads of ESMM by inverse propensities.

    The corrections read heads and propensities from the labels, where they have the
    offset of the level.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        correction_weight: float,
        min_propensity: float,
        tower_units: Sequence[int],
        dropout: float,
    ) -> None:
        if tuple(spec.event_parents) != chain_parents(spec.n_events):
            raise ValueError(
                f"task_parents must be 'chain' for the network {type(self).__name__}, "
                "whose corrections are made for a funnel; 'esmm' takes any structure."
            )
        super().__init__(spec, tower_units=tower_units, dropout=dropout)
        self.correction_weight = check_number(
            "correction_weight", correction_weight, at_least=0
        )
        self.min_propensity = check_number(
            "min_propensity", min_propensity, above=0, at_most=1
        )
        self.smallest_propensities = constant(torch.zeros(2, spec.n_events - 1))
        self.set_base_rates(spec.base_rates)

    def set_base_rates(self, base_rates: Sequence[float]) -> None:
        """Set the smallest propensities by the rates of all rows so far."""
        # Relative to the base rate, so that rare tasks are not clipped everywhere.
        rates = torch.tensor(list(base_rates[:-1]), dtype=torch.float64)
        smallest = self.min_propensity * torch.stack([rates, 1 - rates])
        self.smallest_propensities.copy_(smallest)

    def forward(self, codes: Tensor, numeric: Tensor) -> NetworkOutput:
        """Compute the logits of a batch, `(batch, n_tasks)`, and the extra losses."""
        inputs = self.input_layer(codes, numeric)
        heads = at_least_float32(self.towers(inputs))
        extra_losses = {}
        if self.spec.n_events > 1:
            corrections = self._corrections(inputs)
            extra_losses = {
                name: partial(self._extra_loss, correction)
                for name, correction in corrections.items()
            }
        return NetworkOutput(
            chain_logits(heads), extra_losses=extra_losses, conditional_logits=heads
        )

    def _corrections(self, inputs: Tensor) -> Corrections:
        """Return the extra losses of the heads after the first, given the input."""
        raise NotImplementedError

    def _extra_loss(
        self, correction: Callable[[LaterHeads], Tensor], labels: Labels
    ) -> Tensor:
        """Compute an extra loss `(n_tasks,)`, which is 0 for the first head."""
        heads = labels.conditional_logits
        if heads is None:
            raise ValueError(
                f"The extra losses of {type(self).__name__} need conditional_logits: "
                "return those of its forward method together with its extra_losses."
            )
        offset: Tensor | float = 0.0
        if labels.level_offset is not None:
            offset = labels.level_offset[..., 1:]
        propensities = self._propensities(labels)
        later = LaterHeads(labels, heads[:, 1:], propensities, offset)
        return F.pad(correction(later), (1, 0))

    def _propensities(self, labels: Labels) -> tuple[Tensor, Tensor]:
        """Return P(previous task) and its complement, for heads after the first."""
        assert labels.logits is not None
        # Detached: the correction must not change the propensities that it divides by.
        logits = labels.logits[:, :-1].detach()
        smallest = self.smallest_propensities
        happened = torch.maximum(logits.sigmoid(), smallest[0])
        # The sigmoid of -logit: 1 - sigmoid would round to 0 for a frequent task.
        return happened, torch.maximum((-logits).sigmoid(), smallest[1])

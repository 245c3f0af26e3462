"""Direct entire-space causal multi-task framework."""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor
from torch.nn import functional as F

from sk_pwiser._utils import at_least_float32, check_choice, check_number
from sk_pwiser.networks._esmm import (
    _CorrectedESMM,
    dual_loss,
    earlier_weights,
    later_targets,
)
from sk_pwiser.networks._multi_task_network import Labels
from sk_pwiser.networks._spec import NetworkSpec


class DCMT(_CorrectedESMM):
    r"""Entire-space causal multi-task framework: a CVR with a counterfactual twin.

    The twin tower of the paper is left out, since its form could not be read: here the
    twin is a separate tower, and its label is a parameter.

    The conditional heads are the heads of :class:`ESMM`. Each head after the first,
    with probability q, has a counterfactual twin with probability :math:`q^*`, a tower
    on the same input. The head learns from the rows in which the previous task
    happened, o = 1, and the twin from the others. Both losses are averages by inverse
    propensities,

    .. math:: \frac{\sum_i w_i\, \delta(q_i, r_i)}{\sum_i w_i}
        + \frac{\sum_i w^*_i\, \delta(q^*_i, r^*_i)}{\sum_i w^*_i}, \quad
        w_i = \frac{o_i}{p_i}, \quad w^*_i = \frac{1 - o_i}{1 - p_i},

    with r the label of the task, :math:`\delta` the part of `loss=` that belongs to a
    row, and p the network's probability of the previous task, without gradient. A
    prior ties the two together: the mean over all rows of :math:`|1 - q_i - q^*_i|`.
    Predictions do not depend on the twins.

    Parameters
    ----------
    spec : NetworkSpec
        The table, the tasks and the shared options.
    counterfactual_label : {"mirrored", "observed"}, default="mirrored"
        The label r* of the twin: 1 - r ("mirrored"), or r itself ("observed").
    correction_weight : float, default=0.1
        Weight of the two averages, >= 0.
    prior_weight : float, default=0.001
        Weight of the prior, >= 0.
    min_propensity : float, default=0.1
        Smallest values of p and of 1 - p as a share of their means, the base rates, in
        (0, 1]. With 0.1, no row counts more than ten times as much as a row with an
        average propensity.
    tower_units : sequence of int, default=(128, 64, 32)
        Widths of each tower's hidden layers.
    dropout : float, default=0.0
        Share of activations that are dropped in training.

    Notes
    -----
    Only the abstract of the paper could be read; see :ref:`entire-space-family` for the
    label of the twin. The losses follow a re-implementation by other authors, which
    also divides by the number of rows, and has fixed weights and a propensity of at
    least 0.001. Here there are any number of tasks, and the losses of `loss=`.

    References
    ----------
    Zhu et al. (2023). DCMT: A Direct Entire-Space Causal Multi-Task Framework for
    Post-Click Conversion Estimation. ICDE. :arxiv:`2302.06141`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks import DCMT, NetworkSpec
    >>> spec = NetworkSpec([3, 5], n_numeric=2, embedding_dim=4, base_rates=[0.1, 0.01])
    >>> codes, numeric = torch.tensor([[0, 1]]), torch.zeros(1, 2)
    >>> output = DCMT(spec)(codes, numeric)
    >>> tuple(output.logits.shape), list(output.extra_losses)
    ((1, 2), ['correction', 'prior'])
    """

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        counterfactual_label: str = "mirrored",
        correction_weight: float = 0.1,
        prior_weight: float = 0.001,
        min_propensity: float = 0.1,
        tower_units: Sequence[int] = (128, 64, 32),
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec, correction_weight, min_propensity, tower_units, dropout)
        choices = ("mirrored", "observed")
        check_choice("counterfactual_label", counterfactual_label, choices)
        self.is_mirrored = counterfactual_label == "mirrored"
        self.prior_weight = check_number("prior_weight", prior_weight, at_least=0)
        # The probabilities of a head and its twin add up to 1 at the start.
        opposite = -self.conditional_base_logits[1:]
        self.twins = self._make_towers(self.width, tower_units, dropout, opposite)

    def _corrections(
        self, inputs: Tensor, heads: Tensor, propensities: tuple[Tensor, Tensor]
    ) -> dict[str, Callable[[Labels], Tensor]]:
        twins = at_least_float32(self.twins(inputs))
        correction = partial(
            counterfactual_loss,
            heads=heads,
            twins=twins,
            propensities=propensities,
            is_mirrored=self.is_mirrored,
            weight=self.correction_weight,
        )
        prior = partial(prior_loss, heads=heads, twins=twins, weight=self.prior_weight)
        return {"correction": correction, "prior": prior}


def counterfactual_loss(
    labels: Labels,
    heads: Tensor,
    twins: Tensor,
    propensities: tuple[Tensor, Tensor],
    is_mirrored: bool = True,
    weight: float = 1.0,
) -> Tensor:
    """Compute the losses of heads and of their counterfactual twins."""
    target = later_targets(labels)
    mirrored = 1 - target if is_mirrored else target
    return dual_loss(labels, heads, twins, mirrored, propensities, weight)


def prior_loss(
    labels: Labels, heads: Tensor, twins: Tensor, weight: float = 1.0
) -> Tensor:
    """Compute the mean distance from 1 of the probabilities of head and twin."""
    # 1 - q - q* as a difference of two probabilities, exact also if q is near 1.
    gap = ((-heads).sigmoid() - twins.sigmoid()).abs() * earlier_weights(labels)
    return weight * F.pad(gap.mean(dim=0), (1, 0))

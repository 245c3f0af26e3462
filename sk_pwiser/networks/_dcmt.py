"""DCMT: a CVR with a counterfactual twin."""

from collections.abc import Sequence

from torch import Tensor

from sk_pwiser._utils._checks import check_choice, check_number
from sk_pwiser._utils._precision import at_least_float32
from sk_pwiser.networks._corrected_esmm import Corrections, LaterHeads, _CorrectedESMM
from sk_pwiser.networks._layers import TaskTowers
from sk_pwiser.networks._spec import NetworkSpec


class DCMT(_CorrectedESMM):
    r"""Entire-space causal multi-task framework: a CVR with a counterfactual twin.

    The form of the paper's twin tower could not be read. Here the twin is a separate
    tower, and its label is a parameter.

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
        super().__init__(
            spec,
            correction_weight=correction_weight,
            min_propensity=min_propensity,
            tower_units=tower_units,
            dropout=dropout,
        )
        choices = ("mirrored", "observed")
        check_choice("counterfactual_label", counterfactual_label, choices)
        self.is_mirrored = counterfactual_label == "mirrored"
        self.prior_weight = check_number("prior_weight", prior_weight, at_least=0)
        # The probabilities of a head and its twin add up to 1 at the start.
        opposite = -self.conditional_base_logits[1 : spec.n_events]
        self.twins = TaskTowers(self.width, tower_units, opposite, dropout)

    def _corrections(self, inputs: Tensor) -> Corrections:
        towers = at_least_float32(self.twins(inputs))

        def correction(later: LaterHeads) -> Tensor:
            losses = later.losses(later.logits, later.targets)
            factual = later.mean_where_known(losses, later.propensities[0])
            # A twin starts at the opposite of its head, and moves against it.
            twins = towers - later.offset
            targets = 1 - later.targets if self.is_mirrored else later.targets
            losses = later.losses(twins, targets)
            counterfactual = later.mean_elsewhere(losses, later.propensities[1])
            return self.correction_weight * (factual + counterfactual)

        def prior(later: LaterHeads) -> Tensor:
            twins = towers - later.offset
            # 1 - q - q* as a difference of two probabilities, exact also if q is near
            # 1.
            gap = ((-later.logits).sigmoid() - twins.sigmoid()).abs()
            return self.prior_weight * later.mean(gap)

        return {"correction": correction, "prior": prior}

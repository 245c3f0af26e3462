"""ESCM2: a CVR corrected by inverse propensities, or doubly robust."""

from collections.abc import Sequence

from torch import Tensor

from sk_pwiser._utils._checks import check_choice
from sk_pwiser.networks._corrected_esmm import Corrections, LaterHeads, _CorrectedESMM
from sk_pwiser.networks._layers import TaskTowers
from sk_pwiser.networks._spec import NetworkSpec


class ESCM2(_CorrectedESMM):
    r"""Entire space counterfactual multi-task model: ESMM with a corrected CVR.

    The conditional heads are the heads of :class:`ESMM`. Each head after the first has
    an additional loss over all impressions, although its label r is known only if the
    previous task happened, o = 1. With :math:`\delta(q, r)` the head's own part of
    `loss=` in a row and p the propensity, the loss weights the known rows by
    w = o / p ("ipw"),

    .. math:: \frac{\sum_i w_i\, \delta(q_i, r_i)}{\sum_i w_i},

    or is doubly robust ("dr"): further towers impute labels :math:`\tilde q`, which
    also train the head in the rows without a label,

    .. math:: \frac{1}{n} \sum_i \delta(q_i, \tilde q_i)
        + \frac{\sum_i w_i\, [\delta(q_i, r_i) - \delta(q_i, \tilde q_i)]}{\sum_i w_i}
        + \frac{\sum_i w_i\, \delta(\tilde q_i, r_i)}{\sum_i w_i},

    where only the last term trains the imputation. The propensity is the network's
    probability of the previous task, without gradient,

    .. math:: p_i = \max(P(Y_{k-1} = 1 \mid x_i),\ c\, \bar y_{k-1}),

    with :math:`\bar y_{k-1}` the base rate of that task and c `min_propensity`.

    Parameters
    ----------
    spec : NetworkSpec
        The table, the tasks and the shared options.
    variant : {"ipw", "dr"}, default="ipw"
        Inverse propensity weighting, or the doubly robust form.
    correction_weight : float, default=0.1
        Weight of the additional losses, >= 0.
    min_propensity : float, default=0.1
        Smallest propensity as a share of the base rate of all rows so far, in (0, 1].
        With 0.1, no row counts more than ten times as much as a row with an average
        propensity. Rows with a smaller propensity count less than a consistent estimate
        requires.
    tower_units : sequence of int, default=(128, 64, 32)
        Widths of each tower's hidden layers.
    dropout : float, default=0.0
        Share of activations that are dropped in training.

    Notes
    -----
    This implementation differs from the paper in five points: it takes any number of
    tasks; the propensity takes no gradient and is clipped relative to the base rate;
    the weights are divided by their sum in the batch; the doubly robust form imputes
    labels instead of losses, so that rows without labels train the heads, and trains
    the imputation by the loss of these labels instead of the squared error of the
    imputed loss, whose gradient vanishes where the head's logit is 0 and grows with the
    square of the logit; and the additional losses use the pointwise part of `loss=`,
    cross-entropy or not.

    References
    ----------
    Wang et al. (2022). ESCM2: Entire Space Counterfactual Multi-Task Model for
    Post-Click Conversion Rate Estimation. SIGIR. :arxiv:`2204.05125`

    A. Swaminathan and T. Joachims (2015). The Self-Normalized Estimator for
    Counterfactual Learning. NIPS.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks import ESCM2, NetworkSpec
    >>> spec = NetworkSpec([3, 5], n_numeric=2, embedding_dim=4, base_rates=[0.1, 0.01])
    >>> codes, numeric = torch.tensor([[0, 1]]), torch.zeros(1, 2)
    >>> output = ESCM2(spec, variant="dr")(codes, numeric)
    >>> tuple(output.logits.shape), list(output.extra_losses)
    ((1, 2), ['correction'])
    """

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        variant: str = "ipw",
        correction_weight: float = 0.1,
        min_propensity: float = 0.1,
        tower_units: Sequence[int] = (128, 64, 32),
        dropout: float = 0.0,
    ) -> None:
        variant = check_choice("variant", variant, ("ipw", "dr"))
        super().__init__(
            spec,
            correction_weight=correction_weight,
            min_propensity=min_propensity,
            tower_units=tower_units,
            dropout=dropout,
        )
        self.imputation = None
        if variant == "dr":
            later = self.conditional_base_logits[1 : spec.n_events]
            self.imputation = TaskTowers(self.width, tower_units, later, dropout)

    def _corrections(self, inputs: Tensor) -> Corrections:
        towers = None if self.imputation is None else self.imputation(inputs)

        def correction(later: LaterHeads) -> Tensor:
            losses = later.losses(later.logits, later.targets)
            if towers is None:
                mean = later.mean_where_known(losses, later.propensities[0])
                return self.correction_weight * mean
            imputed = towers + later.offset
            # The paper imputes the loss itself, which has no gradient for the head, so
            # that rows without a label would not train it. Here labels are imputed.
            # Detached in the first two terms: only the loss of the known labels trains
            # the imputation.
            guessed = later.losses(later.logits, imputed.detach().sigmoid())
            losses = losses - guessed + later.losses(imputed, later.targets)
            mean = later.mean_where_known(losses, later.propensities[0])
            return self.correction_weight * (later.mean(guessed) + mean)

        return {"correction": correction}

"""Entire space counterfactual multi-task model."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from sk_pwiser._utils import at_least_float32, check_choice, check_number
from sk_pwiser.networks._base import MultiTaskNetwork, NetworkOutput
from sk_pwiser.networks._checks import check_dropout, check_units
from sk_pwiser.networks._entire_space import entire_space_loss
from sk_pwiser.networks._funnel import chain_logits
from sk_pwiser.networks._spec import NetworkSpec
from sk_pwiser.networks._towers import TaskTowers


class ESCM2(MultiTaskNetwork):
    r"""Entire space counterfactual multi-task model: ESMM with a corrected CVR.

    The conditional heads are those of :class:`ESMM`. Each head after the first has an
    additional loss over all impressions, although its label is known only if the
    previous task happened, o = 1. With :math:`\delta` the head's own part of `loss=` in
    a row, the loss weights the known rows by their inverse propensity p ("ipw"),

    .. math:: \frac{1}{n} \sum_i \frac{o_i \delta_i}{p_i},

    or is doubly robust ("dr"): further towers impute the labels of the other rows, and
    with :math:`\hat\delta` the head's loss for an imputed label,

    .. math:: \frac{1}{n} \sum_i \Big[\hat\delta_i
        + \frac{o_i (\delta_i - \hat\delta_i)}{p_i}\Big]
        + \frac{1}{n} \sum_i \frac{o_i (\delta_i - \hat\delta_i)^2}{p_i},

    where the last sum trains only the imputation. The propensity is the network's
    probability of the previous task,

    .. math:: p_{ik} = \max(P(Y_k = 1 \mid x_i), p_{min}),

    without gradient.

    Parameters
    ----------
    spec : NetworkSpec
        The table, the tasks and the shared options.
    variant : {"ipw", "dr"}, default="ipw"
        Inverse propensity weighting, or the doubly robust form.
    correction_weight : float, default=0.1
        Weight of the additional losses, >= 0.
    min_propensity : float, default=0.05
        Smallest propensity p_min, in (0, 1]: no row has a weight above 1 / p_min. Rows
        with a smaller probability have a lower weight than an unbiased estimate needs.
    tower_units : sequence of int, default=(128, 64, 32)
        Widths of each tower's hidden layers.
    dropout : float, default=0.0
        Share of activations that are dropped in training.

    Notes
    -----
    This implementation differs from the paper in four points: it takes any number of
    tasks; the propensity takes no gradient and is clipped; the doubly robust form
    imputes labels instead of losses, so that rows without labels train the heads; and
    the additional losses are those of `loss=`, cross-entropy or not.

    References
    ----------
    H. Wang, T.-W. Chang, T. Liu, J. Huang, Z. Chen, C. Yu, R. Li and W. Chu (2022).
    ESCM2: Entire Space Counterfactual Multi-Task Model for Post-Click Conversion Rate
    Estimation. SIGIR. :arxiv:`2204.05125`

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

    extra_losses_are_means = True

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        variant: str = "ipw",
        correction_weight: float = 0.1,
        min_propensity: float = 0.05,
        tower_units: Sequence[int] = (128, 64, 32),
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec)
        variant = check_choice("variant", variant, ("ipw", "dr"))
        self.correction_weight = check_number(
            "correction_weight", correction_weight, at_least=0
        )
        self.min_propensity = check_number(
            "min_propensity", min_propensity, above=0, at_most=1
        )
        units, dropout = check_units("tower_units", tower_units), check_dropout(dropout)
        base_logits = self.conditional_base_logits
        self.towers = TaskTowers(self.width, units, base_logits, dropout)
        self.imputation = None
        if variant == "dr" and spec.n_tasks > 1:
            self.imputation = TaskTowers(self.width, units, base_logits[1:], dropout)

    def forward(self, codes: Tensor, numeric: Tensor) -> NetworkOutput:
        """Compute the logits of a batch, `(batch, n_tasks)`, and the correction."""
        inputs = self.input_layer(codes, numeric)
        heads = at_least_float32(self.towers(inputs))
        logits = chain_logits(heads)
        if self.n_tasks == 1:
            return NetworkOutput(logits, conditional_logits=heads)
        correction = partial(
            entire_space_loss,
            conditional_logits=heads,
            propensity=logits[:, :-1].detach().sigmoid().clamp(min=self.min_propensity),
            imputed=None if self.imputation is None else self.imputation(inputs),
            weight=self.correction_weight,
        )
        return NetworkOutput(
            logits,
            extra_losses={"correction": correction},
            conditional_logits=heads,
        )

"""Entire space counterfactual multi-task model."""

from collections.abc import Sequence

from torch import Tensor

from sk_pwiser._utils import check_choice, check_number
from sk_pwiser.networks._base import (
    Correction,
    MultiTaskNetwork,
    NetworkOutput,
    NetworkSpec,
)
from sk_pwiser.networks._checks import check_dropout, check_units
from sk_pwiser.networks._funnel import chain_logits
from sk_pwiser.networks._layers import TaskTowers


class ESCM2(MultiTaskNetwork):
    r"""Entire space counterfactual multi-task model: ESMM with a corrected CVR.

    The conditional heads of :class:`ESMM`, each after the first with a loss of its own
    over all impressions: rows where the task before it happened stand for those where
    it did not, by inverse propensity or doubly robust
    (:func:`~sk_pwiser.losses.entire_space_loss`). The propensity is the network's own
    probability of the task before,

    .. math:: p_{ik} = \max(P(Y_k = 1 \mid x_i), p_{min}),

    without gradient. The doubly robust form has further towers that impute the labels
    of rows where the task before did not happen.

    Parameters
    ----------
    spec : NetworkSpec
        The table and the tasks.
    variant : {"ipw", "dr"}, default="ipw"
        Inverse propensity weighting, or the doubly robust form.
    correction_weight : float, default=0.1
        Weight of the corrected losses beside the tasks' own, >= 0.
    min_propensity : float, default=0.05
        Smallest propensity p_min, in (0, 1]: no row counts more than 1 / p_min times.
        Rows below count less than unbiased estimates ask for.
    tower_units : sequence of int, default=(128, 64, 32)
        Widths of each tower's hidden layers.
    dropout : float, default=0.0
        Share of activations dropped in training.

    Notes
    -----
    Departures: any number of tasks; the propensity takes no gradient and is clipped;
    the doubly robust form imputes labels in place of losses, so that rows without
    labels reach the heads.

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
    >>> tuple(output.logits.shape), tuple(output.correction.imputed.shape)
    ((1, 2), (1, 1))
    """

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
        self.min_propensity = check_number("min_propensity", min_propensity, at_least=0)
        if not 0 < self.min_propensity <= 1:
            raise ValueError(f"min_propensity must be in (0, 1]; got {min_propensity}.")
        units, dropout = check_units("tower_units", tower_units), check_dropout(dropout)
        base_logits = spec.conditional_base_logits()
        self.towers = TaskTowers(self.width, units, base_logits, dropout)
        self.imputation = None
        if variant == "dr" and spec.n_tasks > 1:
            self.imputation = TaskTowers(self.width, units, base_logits[1:], dropout)

    def forward(self, codes: Tensor, numeric: Tensor) -> NetworkOutput:
        """Compute the logits of a batch, `(batch, n_tasks)`, and the correction."""
        inputs = self.input_layer(codes, numeric)
        conditional = self.towers(inputs).float()
        logits = chain_logits(conditional)
        if self.n_tasks == 1:
            return NetworkOutput(logits, conditional_logits=conditional)
        propensity = logits[:, :-1].detach().sigmoid().clamp(min=self.min_propensity)
        imputed = None if self.imputation is None else self.imputation(inputs)
        correction = Correction(propensity, imputed, self.correction_weight)
        return NetworkOutput(
            logits, conditional_logits=conditional, correction=correction
        )

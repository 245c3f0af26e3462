"""DDPO: a CVR with a teacher for rows without a click."""

from collections.abc import Sequence

from torch import Tensor

from sk_pwiser._utils._checks import check_number
from sk_pwiser._utils._precision import at_least_float32
from sk_pwiser.networks._corrected_esmm import Corrections, LaterHeads, _CorrectedESMM
from sk_pwiser.networks._layers import TaskTowers
from sk_pwiser.networks._spec import NetworkSpec


class DDPO(_CorrectedESMM):
    r"""Direct dual propensity optimisation: a teacher labels rows without a click.

    The paper's attention between the networks is left out, since its form could not be
    read.

    The conditional heads are the heads of :class:`ESMM`. Each head after the first,
    with probability q, has a teacher with probability :math:`\tilde q`, a tower on the
    same input that learns only from the rows in which the previous task happened,
    o = 1. The head learns from all rows: from the label r where it is known, and from
    the teacher elsewhere. Both parts are averages by inverse propensities,

    .. math:: \frac{\sum_i w_i\, \delta(q_i, r_i)}{\sum_i w_i}
        + \frac{\sum_i w^*_i\, \delta(q_i, \tilde q_i)}{\sum_i w^*_i}, \quad
        w_i = \frac{o_i}{p_i}, \quad w^*_i = \frac{1 - o_i}{1 - p_i},

    with :math:`\delta` the part of `loss=` that belongs to a row and p the network's
    probability of the previous task. Neither p nor the teacher takes a gradient from
    this loss. Predictions do not depend on the teachers.

    Parameters
    ----------
    spec : NetworkSpec
        The table, the tasks and the shared options.
    correction_weight : float, default=0.1
        Weight of the loss above, >= 0.
    teacher_weight : float, default=0.1
        Weight of the teachers' losses, means over the rows in which the previous task
        happened, >= 0.
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
    Only the abstract of the paper could be read; the losses follow a re-implementation
    by other authors. The default weights of the losses are not the paper's. There is no
    separate network for the propensity: it is the head of the previous task. This
    implementation divides by the sums of the weights (Swaminathan and Joachims 2015)
    instead of the number of rows and clips propensities relative to the base rate; it
    takes any number of tasks, and uses the losses of `loss=`, cross-entropy or not.

    References
    ----------
    Su et al. (2024). DDPO: Direct Dual Propensity Optimization for Post-Click
    Conversion Rate Estimation. SIGIR. :doi:`10.1145/3626772.3657817`

    A. Swaminathan and T. Joachims (2015). The Self-Normalized Estimator for
    Counterfactual Learning. NIPS.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks import DDPO, NetworkSpec
    >>> spec = NetworkSpec([3, 5], n_numeric=2, embedding_dim=4, base_rates=[0.1, 0.01])
    >>> codes, numeric = torch.tensor([[0, 1]]), torch.zeros(1, 2)
    >>> output = DDPO(spec)(codes, numeric)
    >>> tuple(output.logits.shape), list(output.extra_losses)
    ((1, 2), ['teacher', 'correction'])
    """

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        correction_weight: float = 0.1,
        teacher_weight: float = 0.1,
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
        self.teacher_weight = check_number("teacher_weight", teacher_weight, at_least=0)
        later = self.conditional_base_logits[1 : spec.n_events]
        self.teachers = TaskTowers(self.width, tower_units, later, dropout)

    def _corrections(self, inputs: Tensor) -> Corrections:
        towers = at_least_float32(self.teachers(inputs))

        def teacher(later: LaterHeads) -> Tensor:
            losses = later.losses(towers + later.offset, later.targets)
            return self.teacher_weight * later.mean_where_known(losses, 1.0)

        def correction(later: LaterHeads) -> Tensor:
            losses = later.losses(later.logits, later.targets)
            labelled = later.mean_where_known(losses, later.propensities[0])
            # Without a gradient: the heads must not train the teachers.
            taught = (towers + later.offset).detach().sigmoid()
            losses = later.losses(later.logits, taught)
            unlabelled = later.mean_elsewhere(losses, later.propensities[1])
            return self.correction_weight * (labelled + unlabelled)

        return {"teacher": teacher, "correction": correction}

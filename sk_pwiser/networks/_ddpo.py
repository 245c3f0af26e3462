"""Direct dual propensity optimisation."""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor
from torch.nn import functional as F

from sk_pwiser._utils import at_least_float32, check_number
from sk_pwiser.networks._esmm import (
    _CorrectedESMM,
    dual_loss,
    later_losses,
    later_targets,
    later_weights,
    weighted_mean,
)
from sk_pwiser.networks._multi_task_network import Labels
from sk_pwiser.networks._spec import NetworkSpec


class DDPO(_CorrectedESMM):
    r"""Direct dual propensity optimisation: a teacher labels rows without a click.

    The attention of the paper, which transfers between the networks, is left out, since
    its form could not be read.

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
        super().__init__(spec, correction_weight, min_propensity, tower_units, dropout)
        self.teacher_weight = check_number("teacher_weight", teacher_weight, at_least=0)
        later = self.conditional_base_logits[1:]
        self.teachers = self._make_towers(self.width, tower_units, dropout, later)

    def _corrections(
        self, inputs: Tensor, heads: Tensor, propensities: tuple[Tensor, Tensor]
    ) -> dict[str, Callable[[Labels], Tensor]]:
        teachers = at_least_float32(self.teachers(inputs))
        teacher = partial(teacher_loss, teachers=teachers, weight=self.teacher_weight)
        correction = partial(
            dual_propensity_loss,
            heads=heads,
            teachers=teachers,
            propensities=propensities,
            weight=self.correction_weight,
        )
        return {"teacher": teacher, "correction": correction}


def teacher_loss(labels: Labels, teachers: Tensor, weight: float = 1.0) -> Tensor:
    """Compute the mean losses of teachers where the previous task happened."""
    losses = later_losses(labels, teachers, later_targets(labels))
    means = weighted_mean(losses, later_weights(labels) * labels.y[:, :-1])
    return weight * F.pad(means, (1, 0))


def dual_propensity_loss(
    labels: Labels,
    heads: Tensor,
    teachers: Tensor,
    propensities: tuple[Tensor, Tensor],
    weight: float = 1.0,
) -> Tensor:
    """Compute the losses of heads for labels, and for the teachers' probabilities."""
    guesses = teachers.detach().sigmoid()
    return dual_loss(labels, heads, heads, guesses, propensities, weight)

"""Entire space networks: conditional heads, trained on all impressions.

`ESMM` multiplies the heads. `ESCM2`, `DCMT` and `DDPO` also correct the heads after the
first, whose labels are known only in the rows in which the previous task happened.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from sk_pwiser._utils import (
    at_least_float32,
    chain_parents,
    check_choice,
    check_number,
    conditional_labels,
)
from sk_pwiser.networks._input import NetworkSpec
from sk_pwiser.networks._layers import TaskTowers, constant
from sk_pwiser.networks._multi_task_network import (
    Labels,
    MultiTaskNetwork,
    NetworkOutput,
    chain_logits,
)


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
        self.towers = TaskTowers(self.width, tower_units, biases, dropout)

    def forward(self, codes: Tensor, numeric: Tensor) -> NetworkOutput:
        """Compute the logits of a batch, of shape `(batch, n_tasks)`."""
        heads = at_least_float32(self.towers(self.input_layer(codes, numeric)))
        logits = chain_logits(heads, self.spec.parents)
        return NetworkOutput(logits, conditional_logits=heads)


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
    offset : Tensor of shape (n_tasks - 1,) or float, default=0.0
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
        self.min_propensity = check_number(
            "min_propensity", min_propensity, above=0, at_most=1
        )
        self.smallest_propensities = constant(torch.zeros(2, spec.n_tasks - 1))
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
        if self.n_tasks > 1:
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
            offset = labels.level_offset[1:]
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
        super().__init__(spec, correction_weight, min_propensity, tower_units, dropout)
        self.imputation = None
        if variant == "dr":
            later = self.conditional_base_logits[1:]
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
        super().__init__(spec, correction_weight, min_propensity, tower_units, dropout)
        choices = ("mirrored", "observed")
        check_choice("counterfactual_label", counterfactual_label, choices)
        self.is_mirrored = counterfactual_label == "mirrored"
        self.prior_weight = check_number("prior_weight", prior_weight, at_least=0)
        # The probabilities of a head and its twin add up to 1 at the start.
        opposite = -self.conditional_base_logits[1:]
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
        super().__init__(spec, correction_weight, min_propensity, tower_units, dropout)
        self.teacher_weight = check_number("teacher_weight", teacher_weight, at_least=0)
        later = self.conditional_base_logits[1:]
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

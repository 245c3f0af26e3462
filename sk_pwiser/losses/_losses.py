"""The base class of the losses, what is computed row by row, and PWiseR.

Row by row are the cross-entropy, the focal loss and the penalty of probabilities that
rise along the funnel. PWiseR adds means over pairs of rows, from `_pairwise`.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sk_pwiser._utils import (
    at_least_float32,
    build,
    chain_parents,
    check_choice,
    check_number,
    is_iterable,
    place_of,
    read_task_parents,
    task_paths,
    widest_float,
)
from sk_pwiser.losses import _pairwise
from sk_pwiser.losses._pairwise import (
    SURROGATES,
    WeightedScores,
    WithGradients,
    joint_hinge_sums,
    pairwise_mean,
)


class MultiTaskLoss(nn.Module):
    """Base class of the losses, which compute one value per task for a batch.

    A subclass takes the names of the tasks and its own keyword parameters, and defines
    `forward`. The class can then be passed as `loss` to
    :class:`~sk_pwiser.MultiTaskCTRCVRClassifier`. The losses of this package raise
    TypeError or ValueError for parameters of a wrong type or out of range.

    Parameters
    ----------
    task_names : sequence of str
        Names of the tasks, in the order of the columns of the logits.

    Attributes
    ----------
    estimator_parameters : tuple of str
        Parameters of the estimator that are passed to the loss as well, such as
        `pwiser_weight`.
    heads : sequence of int
        Indices of the tasks that the term of weight `pwiser_weight` ranks, by default
        the last one, if the loss takes this parameter.
    asks_for_groups : bool
        Whether the loss compares rows within groups. Batches then keep the rows of a
        group together.
    takes_task_weights : bool
        Whether `sample_weight` may have shape `(batch, n_tasks)`.
    averages_rows : bool
        Whether the loss is the mean of `row_losses`, times the weights, apart from
        pairwise terms. `partial_fit` then shrinks the labels of rare tasks, and moves
        predictions to the level of the labels.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.losses import MultiTaskLoss
    >>> class Brier(MultiTaskLoss):
    ...     def forward(self, logits, y, sample_weight=None, groups=None):
    ...         errors = (logits.sigmoid() - y) ** 2
    ...         if sample_weight is not None:
    ...             errors = errors * sample_weight.unsqueeze(1)
    ...         return errors.mean(dim=0)
    >>> Brier(["click", "conversion"])(torch.zeros(4, 2), torch.ones(4, 2))
    tensor([0.2500, 0.2500])
    """

    estimator_parameters: ClassVar[tuple[str, ...]] = ()
    heads: Sequence[int] = (-1,)
    asks_for_groups: bool = False
    takes_task_weights: bool = False
    averages_rows: bool = False

    def __init__(self, task_names: Sequence[str]) -> None:
        super().__init__()
        self.task_names = tuple(task_names)

    def forward(
        self,
        logits: Tensor,
        y: Tensor,
        sample_weight: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss of each task.

        Parameters
        ----------
        logits : Tensor of shape (batch, n_tasks)
            Log-odds of P(Y_k = 1 | impression).
        y : float Tensor of shape (batch, n_tasks)
            Labels, 0 or 1; 0 where they are missing, with a weight of 0 for the task.
        sample_weight : Tensor of shape (batch,) or (batch, n_tasks), default=None
            Non-negative weights of the rows, with a mean of 1 over the training rows.
            Weights per row and task are passed only if `takes_task_weights` is True. A
            weight of 0 excludes the row from the task; the losses are still divided by
            the number of rows of the batch.
        groups : int64 Tensor of shape (batch,), default=None
            Group of each row, a number; None if no groups were passed to `fit`.

        Returns
        -------
        Tensor of shape (n_tasks,)
            Means over the rows of the batch.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward.")

    def row_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the pointwise part of the loss per row and task.

        Networks use it in their extra losses.

        Parameters
        ----------
        logits : Tensor of shape (batch, n_tasks)
            Log-odds of the targets.
        targets : float Tensor of shape (batch, n_tasks)
            Labels, or probabilities of the label 1, within [0, 1].

        Returns
        -------
        Tensor of shape (batch, n_tasks)
            Losses without weights, not reduced.

        Raises
        ------
        NotImplementedError
            If the loss has no pointwise part.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define row_losses to be combined with a "
            "network that uses them."
        )

    def observe(self, y: Tensor, sample_weight: Tensor | None = None) -> None:
        """Update the figures for the history.

        This method is called once per training or validation batch, whereas `forward`
        is called once per set of heads. By default nothing is recorded.

        Parameters
        ----------
        y : float Tensor of shape (batch, n_tasks)
            Labels, 0 or 1.
        sample_weight : Tensor of shape (batch,) or (batch, n_tasks), default=None
            Weights of the rows.
        """

    def pop_epoch_record(self) -> dict[str, float]:
        """Return the epoch's figures for the history and reset them.

        This method is also called before the first batch, to obtain the names of the
        figures.

        Returns
        -------
        dict of str to float
            Figures, under their names in the history.
        """
        return {}


class BCE(MultiTaskLoss):
    r"""Binary cross-entropy of each task over all impressions.

    .. math:: L_k = \frac{1}{n} \sum_i w_i [\log(1 + e^{z_{ik}}) - y_{ik} z_{ik}]

    with the logits z, the labels y and the sample weights w.

    Parameters
    ----------
    task_names : sequence of str
        Names of the tasks, in the order of the columns of the logits.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.losses import BCE
    >>> loss = BCE(["click", "conversion"])
    >>> loss(torch.zeros(4, 2), torch.ones(4, 2))
    tensor([0.6931, 0.6931])
    """

    takes_task_weights = True
    averages_rows = True

    def forward(
        self,
        logits: Tensor,
        y: Tensor,
        sample_weight: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> Tensor:
        """Compute the mean of `row_losses` of each task, of shape `(n_tasks,)`."""
        losses = self.row_losses(logits, y)
        if sample_weight is not None:
            losses = losses * sample_weight.view(len(y), -1)
        # Not by the sum of the weights: it differs between batches, and rare heavy rows
        # would count less in the batches that have them.
        return losses.mean(dim=0)

    def row_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the cross-entropy per row and task; targets may be probabilities."""
        if logits.is_cpu:
            return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        losses: Tensor = _CrossEntropy.apply(logits, targets)  # type: ignore[no-untyped-call]
        return losses


class _CrossEntropy(torch.autograd.Function):
    """Cross-entropy by fewer kernels than torch's own, for devices other than a CPU."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        ctx.save_for_backward(logits, targets)
        # z - z y - log sigmoid(z), which is finite for all logits.
        loss = torch.addcmul(logits, logits, targets, value=-1)
        return loss.sub_(F.logsigmoid(logits))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        logits, targets = ctx.saved_tensors
        of_targets = -grad_outputs[0] * logits if ctx.needs_input_grad[1] else None
        return grad_outputs[0] * (logits.sigmoid() - targets), of_targets


class Focal(BCE):
    r"""Focal loss: cross-entropy that reduces the influence of well-classified rows.

    .. math::
        L_k = -\frac{1}{n} \sum_i w_i\, \alpha_{ik}\, (1 - q_{ik})^\gamma \log q_{ik}

    where q is the predicted probability of the row's own label, that is
    :math:`\sigma(z_{ik})` for a positive and :math:`\sigma(-z_{ik})` for a negative
    row, z are the logits, w the sample weights, and :math:`\alpha_{ik}` is alpha for
    positives and 1 - alpha for negatives, or 1 for both.

    Parameters
    ----------
    task_names : sequence of str
        Names of the tasks, in the order of the columns of the logits.
    gamma : float, default=2.0
        Focusing parameter, >= 0. The larger it is, the less well-classified rows
        count; 0 is cross-entropy.
    alpha : float, default=None
        Weight of the positives, within (0, 1); the negatives have 1 - alpha. If None,
        both have the weight 1.

    Notes
    -----
    For gamma above 0 the probabilities that minimise the expected loss are not the true
    probabilities: they are nearer to 1/2 (Charoenphakdee et al. 2021), so that rare
    events are predicted several times too often, but they have the right order.
    Calibrate the probabilities if their values matter. An alpha other than 1/2 shifts
    them as well.

    The paper divides the sum by the number of positive anchors. This implementation
    divides it by the number of rows, which is defined for batches without positives
    too. The paper sets alpha to 0.25.

    `row_losses` with a probability t as target returns t times the loss of a positive
    plus 1 - t times the loss of a negative row.

    References
    ----------
    Lin, Goyal, Girshick, He and Dollár (2017), "Focal loss for dense object
    detection", ICCV. :arxiv:`1708.02002`

    Charoenphakdee et al. (2021), "On focal loss for class-posterior probability
    estimation: a theoretical perspective", CVPR. :arxiv:`2011.09172`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.losses import Focal
    >>> loss = Focal(["click", "conversion"], gamma=2.0)
    >>> loss(torch.tensor([[0.0, 3.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([0.1733, 2.7663])
    """

    def __init__(
        self,
        task_names: Sequence[str],
        *,
        gamma: float = 2.0,
        alpha: float | None = None,
    ) -> None:
        super().__init__(task_names)
        self.gamma = check_number("gamma", gamma, at_least=0)
        self.alpha = alpha
        if alpha is not None:
            self.alpha = check_number("alpha", alpha, above=0, below=1)

    def row_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the focal loss per row and task; targets may be probabilities."""
        logits = at_least_float32(logits)
        targets = targets.to(logits.dtype)
        log_p, log_not_p = F.logsigmoid(logits), F.logsigmoid(-logits)
        # The logarithm of 1 - q is at most 0, so neither the power nor its derivative
        # overflows. The derivative of (1 - q) ** gamma is infinite at q = 1 for a
        # gamma below 1.
        positive = -(self.gamma * log_not_p).exp() * log_p
        negative = -(self.gamma * log_p).exp() * log_not_p
        if self.alpha is not None:
            positive, negative = self.alpha * positive, (1 - self.alpha) * negative
        return targets * positive + (1 - targets) * negative


def funnel_monotonicity_penalty(
    logits: Tensor,
    sample_weight: Tensor | None = None,
    parents: Sequence[int] | None = None,
) -> Tensor:
    r"""Penalise probabilities that rise along the funnel.

    .. math:: \frac{1}{n} \sum_i \sum_k w_{i,k+1} \max(p_{i,k+1} - p_{ik}, 0)

    with the probabilities p and the sample weights w. The paper of AITM calls it the
    behavioral expectation calibrator and sums over the rows. Here it is a mean, so that
    its weight does not depend on the batch size.

    Parameters
    ----------
    logits : Tensor of shape (batch, n_tasks)
        Log-odds of P(Y_k = 1 | impression), tasks in the order of the funnel.
    sample_weight : Tensor of shape (batch,) or (batch, n_tasks), default=None
        Weights of the rows, with a mean of 1 over the training rows. If they are given
        per row and task, the weight of the later task of each pair applies.
    parents : sequence of int, default=None
        Index of the task that each task presupposes, -1 if there is none; by default
        the task before it.

    Returns
    -------
    Tensor of shape ()
        The penalty on the scale of probabilities. It is 0 if no probability rises or
        there is only one task.

    References
    ----------
    D. Xi, Z. Chen, P. Yan, Y. Zhang, Y. Zhu, F. Zhuang and Y. Chen (2021). Modeling
    the Sequential Dependence among Audience Multi-step Conversions with Multi-task
    Learning in Targeted Display Advertising. KDD. :arxiv:`2105.08489`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.losses import funnel_monotonicity_penalty
    >>> logits = torch.logit(torch.tensor([[0.5, 0.25], [0.25, 0.75]]))
    >>> funnel_monotonicity_penalty(logits)
    tensor(0.2500)
    """
    if parents is None:
        parents = chain_parents(logits.shape[1])
    weight = sample_weight
    if weight is not None:
        weight = weight.view(len(logits), -1).expand_as(logits)
    p = logits.sigmoid().unbind(dim=1)
    # A first summand, since a single task has no pair.
    rises = [torch.zeros_like(p[0])]
    for k, parent in enumerate(parents):
        if parent >= 0:
            rise = (p[k] - p[parent]).relu()
            rises.append(rise if weight is None else rise * weight[:, k])
    return torch.stack(rises).sum(dim=0).mean()


PAIRS = ("conversion", "funnel")


def pwiser_loss(
    scores: Tensor,
    y: Tensor,
    *,
    margins: float | Sequence[float] = 1.0,
    surrogate: str = "hinge",
    pairs: str = "conversion",
    sample_weight: Tensor | None = None,
) -> Tensor:
    r"""Pairwise ranking term of PWiseR for one score per impression.

    For two tasks, with the converted rows V, the rows C clicked without conversion, the
    rows N not clicked, the scores f and the surrogate h:

    .. math::
        \underset{V \times C}{mean}\ h(m_{click} - (f_v - f_c))
        + \underset{V \times N}{mean}\ h(m_{no\,click} - (f_v - f_n))

    With more tasks, the rows at the end of the funnel are compared with the rows of
    each lower depth, with one mean per lower depth. With one task, positives are
    compared with negatives. The means are exact over all pairs, in near-linear time
    and linear memory.

    Parameters
    ----------
    scores : Tensor of shape (batch,)
        Scores of one task: logits or probabilities.
    y : Tensor of shape (batch, n_tasks)
        Labels, 0 or 1, tasks in the order of the funnel. Rows that break it (a later
        task is 1 although an earlier one is 0) are in no pair.
    margins : float or array-like of shape (n_tasks,), default=1.0
        Margins in the unit of the scores, from the deepest lower depth to depth 0:
        `(m_click, m_no_click)` for two tasks. A float applies to all depths.
    surrogate : {"hinge", "squared_hinge", "logistic"}, default="hinge"
        h(u) is `max(u, 0)`, its square, or `log(1 + exp(u))`.
    pairs : {"conversion", "funnel"}, default="conversion"
        Whether only the deepest rows are compared with each lower depth, or the rows of
        every depth with each depth below it.
    sample_weight : Tensor of shape (batch,), default=None
        Non-negative weights of the rows. The weight of a pair is the product of the
        weights of its rows.

    Returns
    -------
    Tensor of shape ()
        The sum of the means. A mean over no pairs is 0 and has gradient 0.

    Raises
    ------
    ValueError
        If the shapes do not fit, `surrogate` or `pairs` is unknown, or a margin is not
        finite.

    Notes
    -----
    Since these are means over pairs, the gradient of a converted row grows as their
    rate falls. :class:`PWiseR` multiplies the means by the share of the converted rows,
    which removes that dependence.

    The paper, as far as it can be read, squares the hinge of probabilities and divides
    each sum by the number of its lower rows alone.

    References
    ----------
    Durmus, Saribas, Aldemir, Yang and Cevikalp (2024). :arxiv:`2406.02163`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.losses import pwiser_loss
    >>> y = torch.tensor([[1, 1], [1, 0], [0, 0]])
    >>> pwiser_loss(torch.tensor([2.0, 1.5, 0.0]), y)
    tensor(0.5000)
    """
    per_row = [each for each in (scores, sample_weight) if each is not None]
    if y.dim() != 2 or any(each.shape != y.shape[:1] for each in per_row):
        raise ValueError(
            "scores and sample_weight must have shape (batch,), and y (batch, "
            f"n_tasks); got {[tuple(each.shape) for each in (*per_row, y)]}."
        )
    means = means_over_pairs(
        WeightedScores(scores, sample_weight),
        rows_by_depth(y),
        check_margins(margins, y.shape[1]),
        check_choice("surrogate", surrogate, SURROGATES),
        check_choice("pairs", pairs, PAIRS),
    )
    return torch.stack([mean for _, mean in means]).sum()


def check_margins(margins: Any, n_tasks: int) -> list[float]:
    """Return one margin per lower depth."""
    # Convert arrays, tensors, series and NumPy scalars to lists and Python numbers.
    values = margins.tolist() if hasattr(margins, "tolist") else margins
    if isinstance(values, Real):
        return [check_number("margins", values)] * n_tasks
    rule = (
        "margins must be a number or a sequence with one number per lower depth, "
        f"{n_tasks} here; got {margins!r}."
    )
    if not isinstance(values, list | tuple):
        raise TypeError(rule)
    if len(values) != n_tasks:
        raise ValueError(rule)
    return [check_number(f"margins[{i}]", value) for i, value in enumerate(values)]


def rows_by_depth(
    y: Tensor, sample_weight: Tensor | None = None, path: Sequence[int] | None = None
) -> Tensor:
    """Return a bool mask, (n_tasks + 1, batch), of the rows at each depth.

    A weight of 0 for a task after the first stands for a missing label. A row is at no
    depth if its labels break the funnel, or if a label before the first 0 is missing.
    The funnel consists of the tasks of `path`, by default of all tasks.
    """
    tasks = range(y.shape[1]) if path is None else path
    happened, may_lack = _labels_by_depth(len(tasks), tasks[0] == 0, y.device)
    # A row is at a depth if all its labels are those of the depth: others break the
    # funnel.
    is_found = _rows(y, tasks).unsqueeze(1) == happened
    if sample_weight is not None and sample_weight.dim() == 2:
        is_found &= (_rows(sample_weight, tasks).unsqueeze(1) > 0) | may_lack
    return is_found.all(dim=0)


@cache
def _labels_by_depth(
    n_tasks: int, starts_with_first: bool, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the labels at each depth, and which of them may be missing.

    Both tensors have shape `(n_tasks, n_tasks + 1, 1)`. Labels after the first 0 may be
    missing. The first task has a label in every row.
    """
    task, depth = torch.arange(n_tasks).view(-1, 1, 1), torch.arange(n_tasks + 1)
    happened = task < depth.unsqueeze(1)
    may_lack = task > depth.unsqueeze(1)
    may_lack[0] |= starts_with_first
    return happened.to(device), may_lack.to(device)


def _rows(values: Tensor, tasks: Sequence[int]) -> Tensor:
    """Return columns in ascending order as rows."""
    rows = values.t()
    if tasks[-1] - tasks[0] + 1 == len(tasks):
        return rows[tasks[0] : tasks[-1] + 1]
    return torch.stack([rows[task] for task in tasks])


def means_over_pairs(
    scores: WeightedScores,
    is_at_depth: Tensor,
    margins: Sequence[float],
    surrogate: str,
    pairs: str,
) -> Iterator[tuple[WeightedScores, Tensor]]:
    """Yield the rows of the greater depth, and the mean, for each pair of depths."""
    # Each depth is selected once, and used in several pairs of depths.
    parts = [scores.at(rows) for rows in is_at_depth]
    deepest = len(parts) - 1
    for depth in range(deepest, 0, -1) if pairs == "funnel" else [deepest]:
        for lower in range(depth):
            # Margins run from the deepest lower depth to depth 0; a shorter path uses
            # the last ones.
            margin = margins[len(margins) - 1 - lower]
            mean = pairwise_mean(parts[depth], parts[lower], margin, surrogate)
            yield parts[depth], mean


class PWiseR(MultiTaskLoss):
    r"""Binary cross-entropy plus the pairwise ranking term of PWiseR.

    For every task k in `tasks`, with the scores f of its head,

    .. math::
        L_k = BCE_k + \lambda \sum_{d < K} \frac{\sum_{v \in V} w_v}{n}\,
        \underset{v \in V,\ c \in C_d}{mean}\ h(m_d - (f_v - f_c))

    where n is the number of rows of the batch, V its converted rows, :math:`C_d` its
    rows at the lower depth d of the funnel, w the sample weights, 1 by default,
    h the surrogate and m the margins. The means are computed as in :func:`pwiser_loss`;
    the weight of a pair is the product of the weights of its rows. A mean over no pairs
    is 0. The other tasks have the cross-entropy alone. A row with a missing label,
    which has the weight 0 for that task, is in no pair of that task's head. If its
    depth is unknown, such as for a clicked row whose conversion label is missing, it is
    in no pair of any head.

    If the tasks are a tree, each path from a task without a parent to one that no other
    task presupposes is such a funnel, with its own depths, V and C. A head with several
    paths takes the mean of their terms.

    Parameters
    ----------
    task_names : sequence of str
        Names of the tasks, in the order of the columns of the logits.
    pwiser_weight : float, default=0.1
        The weight lambda of the term, >= 0. Its effect does not depend on the
        conversion rate or the batch size, see Notes.
    task_parents : "chain", None or dict, default="chain"
        Which task presupposes which, see
        :class:`~sk_pwiser.MultiTaskCTRCVRClassifier`.
    tasks : None, "all", str, int or sequence of (str or int), default=None
        Names or indices of the tasks whose heads take the term; by default the last
        task of each path, in a funnel the last one.
    score : {"logit", "probability"}, default="logit"
        Whether the term ranks logits or probabilities.
    surrogate : {"hinge", "squared_hinge", "logistic"}, default="hinge"
        h(u) is `max(u, 0)`, its square, or `log(1 + exp(u))`.
    margins : float or array-like of shape (n_tasks,), default=1.0
        Margins in the unit of the score, from the deepest lower depth to depth 0. A
        float applies to all depths. In a tree, there is one margin per task of the
        longest path; shorter paths use the last ones.
    pairs : {"conversion", "funnel"}, default="conversion"
        Whether only converted rows are compared with each lower depth, or the rows of
        every depth with each depth below it. In the latter case V stands for the rows
        of the greater depth.
    base : str or class, default="bce"
        The loss in place of the cross-entropy: a name of `LOSSES`, or a subclass of
        :class:`MultiTaskLoss`.
    base_params : dict, default=None
        Keyword arguments of that loss.

    Notes
    -----
    To the gradient of the score of a converted row v, each lower depth contributes
    between :math:`-\lambda w_v / n` and 0 with the hinge, and cross-entropy between
    :math:`-w_v / n` and 0: lambda is the strength of the term per lower depth relative
    to cross-entropy, for frequent and rare conversions and for all batch sizes.

    The term is linear in the weights of the converted rows. If they are drawn more
    often with proportionally smaller weights, as `stratified_batches` does, its
    expected gradient does not change, as long as each batch has rows of every lower
    depth. The number of `batches_without_pairs` is in the history.

    The paper's form, as far as it can be read, is `surrogate="squared_hinge"` with
    `score="probability"`. It divides each sum over pairs by the number of lower rows
    alone, so the paper's weight is lambda / n. The term changes scores and thus
    probabilities: check the log loss too.

    `row_losses` are the row losses of the base loss. The loss can be differentiated
    once, not twice.

    References
    ----------
    Durmus, Saribas, Aldemir, Yang and Cevikalp (2024). :arxiv:`2406.02163`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.losses import PWiseR
    >>> loss = PWiseR(["click", "conversion"], pwiser_weight=0.3, tasks="click")
    >>> loss(torch.zeros(3, 2), torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]))
    tensor([0.8931, 0.6931])
    """

    estimator_parameters = ("pwiser_weight", "task_parents")

    def __init__(
        self,
        task_names: Sequence[str],
        *,
        pwiser_weight: float = 0.1,
        task_parents: str | Mapping[str, str] | None = "chain",
        tasks: str | int | Sequence[str | int] | None = None,
        score: str = "logit",
        surrogate: str = "hinge",
        margins: float | Sequence[float] = 1.0,
        pairs: str = "conversion",
        base: str | type[MultiTaskLoss] = "bce",
        base_params: Mapping[str, Any] | None = None,
    ) -> None:
        from sk_pwiser.losses import LOSSES  # not at the top: it imports this file

        super().__init__(task_names)
        others = {n: each for n, each in LOSSES.items() if not issubclass(each, PWiseR)}
        if isinstance(base, type) and issubclass(base, PWiseR):
            raise ValueError(f"base must be a loss other than PWiseR; got {base!r}.")
        choice = others, MultiTaskLoss, "base", base
        self.base: MultiTaskLoss = build(choice, base_params, self.task_names)
        self.asks_for_groups = self.base.asks_for_groups
        self.takes_task_weights = self.base.takes_task_weights
        self.averages_rows = self.base.averages_rows
        self.pwiser_weight = check_number("pwiser_weight", pwiser_weight, at_least=0)
        paths = task_paths(read_task_parents(task_parents, self.task_names))
        if tasks is None:
            self.heads = [path[-1] for path in paths]
        else:
            self.heads = _find_heads(tasks, self.task_names)
        # The paths that contain heads, each with its heads.
        heads = [[head for head in self.heads if head in path] for path in paths]
        self.paths = [each for each in zip(paths, heads, strict=True) if each[1]]
        self.score = check_choice("score", score, ("logit", "probability"))
        self.surrogate = check_choice("surrogate", surrogate, SURROGATES)
        self.margins = check_margins(margins, max(map(len, paths)))
        self.pairs = check_choice("pairs", pairs, PAIRS)
        # In place, as graphs require.
        n_batches = torch.zeros((), dtype=torch.int64)
        self._batches_without_pairs = nn.Buffer(n_batches, persistent=False)

    def forward(
        self,
        logits: Tensor,
        y: Tensor,
        sample_weight: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> Tensor:
        """Compute the base loss plus the weighted term, of shape `(n_tasks,)`."""
        # Copies: the base may change them in place, and the pairs are formed by them.
        copied = None if sample_weight is None else sample_weight.clone()
        losses: Tensor = self.base(logits, y.clone(), copied, groups)
        if self.pwiser_weight == 0 or not self.heads:
            return losses
        scores = logits if self.score == "logit" else logits.sigmoid()
        weights = None
        if sample_weight is not None:
            weights = sample_weight.detach().view(len(y), -1).expand_as(y)
        # On a GPU, all heads and depths at once: the time goes into the number of
        # kernels.
        jointly = (
            scores.device.type not in _pairwise.SELECTING
            and self.surrogate != "logistic"
            and widest_float(scores.device) == torch.float64
        )
        terms: list[list[Tensor]] = [[] for _ in self.task_names]
        params = self.margins, self.surrogate, self.pairs
        for path, heads in self.paths:
            is_at_depth = rows_by_depth(y, sample_weight, path)
            if jointly:
                joint = self._joint_terms(is_at_depth, weights, scores, heads)
                for head, term in zip(heads, joint.unbind(), strict=True):
                    terms[head].append(term)
                continue
            for head in heads:
                weight = None if weights is None else weights[:, head]
                rows = WeightedScores(scores[:, head], weight)
                # Each mean over pairs, times the share of its higher rows.
                shares = [
                    mean * higher.weight_per_row(len(y))
                    for higher, mean in means_over_pairs(rows, is_at_depth, *params)
                ]
                terms[head].append(torch.stack(shares).sum())
        # A head outside of all paths has no term. A head on several paths takes their
        # mean, so that lambda keeps its meaning.
        means = [losses.new_zeros(())] * len(terms)
        for task, each in enumerate(terms):
            if each:
                mean = each[0] if len(each) == 1 else torch.stack(each).mean()
                means[task] = mean.to(losses.dtype)
        return losses + self.pwiser_weight * torch.stack(means)

    def _joint_terms(
        self,
        is_at_depth: Tensor,
        weights: Tensor | None,
        all_scores: Tensor,
        heads: Sequence[int],
    ) -> Tensor:
        """Sum mean times weight per row of the higher rows over the lower depths.

        All heads are computed at once, with one result for each. The weight of the
        higher rows cancels out against the divisor of the mean.
        """
        of_heads, margins = _rows(all_scores, heads).t(), self.margins
        dtype, n_rows = of_heads.dtype, len(of_heads)
        scores = of_heads.detach().t().double()
        is_at_depth = at_depth = is_at_depth.double()
        if weights is not None:
            at_depth = is_at_depth * _rows(weights, heads).unsqueeze(1)
        at_depth = at_depth.expand(len(scores), -1, -1)
        # A depth without rows has weights of 0, which stay 0 after this division.
        total = at_depth.sum(-1, keepdim=True)
        total = total.clamp_(min=torch.finfo(torch.float64).tiny)
        lower = (at_depth / total.mul_(n_rows))[:, :-1]
        if self.pairs == "funnel":
            higher = at_depth.flip(1).cumsum(1).flip(1)[:, 1:]  # deeper than each level
        else:  # one level, as the higher rows of all lower depths are the same
            higher, lower = at_depth[:, -1:], lower.sum(1, keepdim=True)
        margin: Tensor | float = margins[-1]
        if len({*margins}) > 1:
            of_depths = zip(is_at_depth, reversed(margins), strict=False)
            margin = torch.stack([rows * value for rows, value in of_depths]).sum(0)
        squared = self.surrogate == "squared_hinge"
        terms, gradient = joint_hinge_sums(scores, margin, higher, lower, squared)
        sums = terms.to(dtype), gradient.t().to(dtype)
        joint: Tensor = WithGradients.apply(sums, of_heads)  # type: ignore[no-untyped-call]
        return joint

    def row_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the row losses of the base loss, of shape `(batch, n_tasks)`."""
        return self.base.row_losses(logits, targets)

    def observe(self, y: Tensor, sample_weight: Tensor | None = None) -> None:
        """Count a batch without pairs, and pass the batch to the base loss.

        Only weights for the heads with the term decide whether there are pairs.
        """
        self.base.observe(y, sample_weight)
        if self.pwiser_weight == 0 or not self.heads:
            return
        found = []
        for path, heads in self.paths:
            is_at_depth = rows_by_depth(y, sample_weight, path)
            of_heads = [is_at_depth]
            if sample_weight is not None:
                weights = sample_weight.view(len(y), -1).expand_as(y)
                of_heads = [is_at_depth & (own > 0) for own in _rows(weights, heads)]
            for rows in of_heads:
                is_present = rows.any(dim=1)
                if self.pairs == "funnel":
                    found.append(is_present.sum() < 2)
                else:
                    found.append(~(is_present[-1] & is_present[:-1].any()))
        # A batch counts only if no head has a pair; the sum stays on the device until
        # the epoch ends.
        lacks_all = found[0] if len(found) == 1 else torch.stack(found).all()
        count = self._batches_without_pairs
        count.add_(lacks_all.to(count.device))

    def pop_epoch_record(self) -> dict[str, float]:
        """Return the epoch's figures, with the batches without pairs; reset them."""
        count = int(self._batches_without_pairs)
        self._batches_without_pairs.zero_()
        return {**self.base.pop_epoch_record(), "batches_without_pairs": count}


def _find_heads(tasks: Any, task_names: Sequence[str]) -> list[int]:
    """Return the indices of the tasks that take the term, in ascending order."""
    if isinstance(tasks, str | Integral):
        tasks = task_names if tasks == "all" else [tasks]
    if not is_iterable(tasks):
        raise TypeError(
            "tasks must be 'all', or names or indices of the tasks "
            f"{list(task_names)}; got {tasks!r}."
        )
    return sorted({place_of("tasks", task, task_names) for task in tasks})

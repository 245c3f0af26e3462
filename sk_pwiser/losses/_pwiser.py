"""PWiseR: a loss of each task plus means over pairs of rows of different depths."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

from sk_pwiser._tasks._tree import place_of, read_task_parents, task_paths
from sk_pwiser._utils._checks import check_choice, check_number, is_iterable
from sk_pwiser._utils._components import build
from sk_pwiser._utils._precision import widest_float
from sk_pwiser.losses import _pairwise
from sk_pwiser.losses._base import MultiTaskLoss
from sk_pwiser.losses._pairwise import (
    SURROGATES,
    WeightedScores,
    WithGradients,
    joint_hinge_sums,
    pairwise_mean,
)

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
    row_values = [scores] if sample_weight is None else [scores, sample_weight]
    if y.dim() != 2 or any(values.shape != y.shape[:1] for values in row_values):
        raise ValueError(
            "scores and sample_weight must have shape (batch,), and y (batch, "
            f"n_tasks); got {[tuple(values.shape) for values in (*row_values, y)]}."
        )
    means = means_over_pairs(
        WeightedScores(scores, sample_weight),
        rows_by_depth(y),
        margins=check_margins(margins, y.shape[1]),
        surrogate=check_choice("surrogate", surrogate, SURROGATES),
        pairs=check_choice("pairs", pairs, PAIRS),
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

    A weight of 0 for a task stands for a missing label. A row is at no depth if its
    labels break the funnel, or if a label before the first 0 is missing.
    The funnel consists of the tasks of `path`, by default of all tasks.
    """
    tasks = range(y.shape[1]) if path is None else path
    happened, may_lack = _labels_by_depth(len(tasks), y.device)
    # A row is at a depth if all its labels are those of the depth: others break the
    # funnel.
    fits_depth = _rows(y, tasks).unsqueeze(1) == happened
    if sample_weight is not None and sample_weight.dim() == 2:
        has_label = _rows(sample_weight, tasks).unsqueeze(1) > 0
        fits_depth &= has_label | may_lack
    return fits_depth.all(dim=0)


@cache
def _labels_by_depth(n_tasks: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the labels at each depth, and which of them may be missing.

    Both tensors have shape `(n_tasks, n_tasks + 1, 1)`. Labels after the first 0 may be
    missing.
    """
    task = torch.arange(n_tasks).view(-1, 1, 1)
    depth = torch.arange(n_tasks + 1)
    happened = task < depth.unsqueeze(1)
    may_lack = task > depth.unsqueeze(1)
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
    by_depth = [scores.at(rows) for rows in is_at_depth]
    deepest = len(by_depth) - 1
    for depth in range(deepest, 0, -1) if pairs == "funnel" else [deepest]:
        for lower in range(depth):
            # Margins run from the deepest lower depth to depth 0; a shorter path uses
            # the last ones.
            margin = margins[len(margins) - 1 - lower]
            mean = pairwise_mean(by_depth[depth], by_depth[lower], margin, surrogate)
            yield by_depth[depth], mean


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
        other_losses = {
            name: kind for name, kind in LOSSES.items() if not issubclass(kind, PWiseR)
        }
        if isinstance(base, type) and issubclass(base, PWiseR):
            raise ValueError(f"base must be a loss other than PWiseR; got {base!r}.")
        choice = (other_losses, MultiTaskLoss, "base", base)
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
        self.paths: list[tuple[Sequence[int], list[int]]] = []
        for path in paths:
            heads_on_path = [head for head in self.heads if head in path]
            if heads_on_path:
                self.paths.append((path, heads_on_path))
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
        weight_copy = None if sample_weight is None else sample_weight.clone()
        losses: Tensor = self.base(logits, y.clone(), weight_copy, groups)
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
        for path, heads in self.paths:
            is_at_depth = rows_by_depth(y, sample_weight, path)
            if jointly:
                joint = self._joint_terms(is_at_depth, weights, scores, heads)
                for head, term in zip(heads, joint.unbind(), strict=True):
                    terms[head].append(term)
                continue
            for head in heads:
                weight = None if weights is None else weights[:, head]
                means_of_head = means_over_pairs(
                    WeightedScores(scores[:, head], weight),
                    is_at_depth,
                    margins=self.margins,
                    surrogate=self.surrogate,
                    pairs=self.pairs,
                )
                # Each mean over pairs, times the share of its higher rows.
                shares = [
                    mean * higher.weight_per_row(len(y))
                    for higher, mean in means_of_head
                ]
                terms[head].append(torch.stack(shares).sum())
        # A head outside of all paths has no term. A head on several paths takes their
        # mean, so that lambda keeps its meaning.
        means = [losses.new_zeros(())] * len(terms)
        for task, path_terms in enumerate(terms):
            if path_terms:
                has_one = len(path_terms) == 1
                mean = path_terms[0] if has_one else torch.stack(path_terms).mean()
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
        head_scores = _rows(all_scores, heads).t()
        dtype = head_scores.dtype
        n_rows = len(head_scores)
        scores = head_scores.detach().t().double()
        is_at_depth = is_at_depth.double()
        depth_weight = is_at_depth
        if weights is not None:
            depth_weight = is_at_depth * _rows(weights, heads).unsqueeze(1)
        depth_weight = depth_weight.expand(len(scores), -1, -1)
        # A depth without rows has weights of 0, which stay 0 after this division.
        total = depth_weight.sum(-1, keepdim=True)
        total = total.clamp_(min=torch.finfo(torch.float64).tiny)
        lower = (depth_weight / total.mul_(n_rows))[:, :-1]
        if self.pairs == "funnel":
            # The rows that are deeper than each level.
            higher = depth_weight.flip(1).cumsum(1).flip(1)[:, 1:]
        else:
            # One level, as the higher rows of all lower depths are the same.
            higher = depth_weight[:, -1:]
            lower = lower.sum(1, keepdim=True)
        margin: Tensor | float = self.margins[-1]
        if len({*self.margins}) > 1:
            depths_and_margins = zip(is_at_depth, reversed(self.margins), strict=False)
            row_margins = [rows * value for rows, value in depths_and_margins]
            margin = torch.stack(row_margins).sum(0)
        terms, gradient = joint_hinge_sums(
            scores,
            margin,
            higher_weight=higher,
            lower_weight=lower,
            squared=self.surrogate == "squared_hinge",
        )
        sums = (terms.to(dtype), gradient.t().to(dtype))
        joint: Tensor = WithGradients.apply(sums, head_scores)  # type: ignore[no-untyped-call]
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
        lacks_pairs = []  # per path and head
        for path, heads in self.paths:
            is_at_depth = rows_by_depth(y, sample_weight, path)
            rows_of_heads = [is_at_depth]
            if sample_weight is not None:
                weights = sample_weight.view(len(y), -1).expand_as(y)
                rows_of_heads = [
                    is_at_depth & (head_weight > 0)
                    for head_weight in _rows(weights, heads)
                ]
            for rows in rows_of_heads:
                is_present = rows.any(dim=1)
                if self.pairs == "funnel":
                    lacks_pairs.append(is_present.sum() < 2)
                else:
                    lacks_pairs.append(~(is_present[-1] & is_present[:-1].any()))
        # A batch counts only if no head has a pair; the sum stays on the device until
        # the epoch ends.
        has_one = len(lacks_pairs) == 1
        lacks_all = lacks_pairs[0] if has_one else torch.stack(lacks_pairs).all()
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

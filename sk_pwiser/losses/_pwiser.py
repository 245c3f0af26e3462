"""PWiseR: a loss per task plus a pairwise term that ranks conversions first."""

from collections.abc import Iterator, Mapping, Sequence, Set
from functools import cache, partial
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from sk_pwiser._utils import (
    build,
    check_choice,
    check_number,
    is_iterable,
    read_task_parents,
    task_paths,
)
from sk_pwiser.losses._pairwise import (
    SURROGATES,
    WeightedScores,
    WithGradients,
    is_joint,
    joint_hinge_sums,
    pairwise_mean,
)
from sk_pwiser.losses._task_loss import (
    MultiTaskLoss,
    checked_loss,
    per_task,
    weights_of_task,
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
    if y.dim() != 2 or scores.shape != y.shape[:1]:
        raise ValueError(
            "scores must have shape (batch,) and y shape (batch, n_tasks); got "
            f"{tuple(scores.shape)} and {tuple(y.shape)}."
        )
    if not scores.is_floating_point():
        raise ValueError(f"scores must be floats; got dtype {scores.dtype}.")
    if sample_weight is not None and sample_weight.shape != scores.shape:
        raise ValueError(
            f"sample_weight must have the shape of scores, {tuple(scores.shape)}; got "
            f"{tuple(sample_weight.shape)}."
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
    if not is_iterable(values) or isinstance(values, Mapping | Set):
        raise TypeError(rule)
    values = list(values)
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


# Beyond this weight, and below this rate, the pairs outweigh the few labels.
LARGE_WEIGHT, LOW_RATE = 5.0, 0.01


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

    _batches_without_pairs: Tensor

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
        super().__init__(task_names)
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
        self.base = _build_base(base, base_params, self.task_names)
        self.asks_for_groups = self.base.asks_for_groups
        self.takes_task_weights = self.base.takes_task_weights
        self.averages_rows = self.base.averages_rows
        # In place, as graphs require.
        n_batches = torch.zeros((), dtype=torch.int64)
        self.register_buffer("_batches_without_pairs", n_batches, persistent=False)

    def forward(
        self,
        logits: Tensor,
        y: Tensor,
        sample_weight: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> Tensor:
        """Compute the base loss plus the weighted term, of shape `(n_tasks,)`."""
        # Copies: the base may change them in place, and the pairs are formed by them.
        weight = None if sample_weight is None else sample_weight.clone()
        losses: Tensor = self.base(logits, y.clone(), weight, groups)
        if self.pwiser_weight == 0 or not self.heads:
            return losses
        scores = logits if self.score == "logit" else logits.sigmoid()
        # On a GPU, all heads and depths at once: the time goes into the number of
        # kernels.
        jointly = is_joint(scores.device, self.surrogate)
        terms: list[list[Tensor]] = [[] for _ in self.task_names]
        params = self.margins, self.surrogate, self.pairs
        for path, heads in self.paths:
            is_at_depth = rows_by_depth(y, sample_weight, path)
            if jointly:
                weight = None
                if sample_weight is not None:
                    weight = _rows(per_task(sample_weight).expand_as(y), heads)
                compute = partial(self._joint_terms, is_at_depth, weight)
                of_heads: Tensor = WithGradients.apply(
                    compute, _rows(scores, heads).t()
                )  # type: ignore[no-untyped-call]
                for head, term in zip(heads, of_heads.unbind(), strict=True):
                    terms[head].append(term)
                continue
            for head in heads:
                weight = weights_of_task(sample_weight, head)
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
        self, is_at_depth: Tensor, weight: Tensor | None, scores: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sum mean times weight per row of the higher rows over the lower depths.

        All heads are computed at once from `scores`, `(batch, n_heads)`. The second
        result is the gradient. The weight of the higher rows cancels out against the
        divisor of the mean.
        """
        dtype, n_rows, margins = scores.dtype, len(scores), self.margins
        scores, is_at_depth = scores.t().double(), is_at_depth.double()
        at_depth = is_at_depth if weight is None else is_at_depth * weight.unsqueeze(1)
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
        return terms.to(dtype), gradient.t().to(dtype)

    def cautions(self, base_rates: Sequence[float]) -> list[str]:
        """Return a message if the weight is large and conversions are rare."""
        messages = self.base.cautions(base_rates)
        rate = min((base_rates[path[-1]] for path, _ in self.paths), default=1.0)
        if self.pwiser_weight > LARGE_WEIGHT and rate < LOW_RATE:
            messages.append(
                f"pwiser_weight={self.pwiser_weight:g} with a conversion rate of "
                f"{rate:.2%}: per lower depth, the term pulls the score of each "
                f"converted row up to {self.pwiser_weight:g} times as strongly as its "
                "cross-entropy. Few rows then decide the ranking, and probabilities "
                "are too high. Weights up to 1 are usual."
            )
        return messages

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
            if sample_weight is not None:
                weights = _rows(per_task(sample_weight).expand_as(y), heads)
                is_at_depth = is_at_depth & (weights.amax(dim=0) > 0)
            is_present = is_at_depth.any(dim=1)
            if self.pairs == "funnel":
                found.append(is_present.sum() < 2)
            else:
                found.append(~(is_present[-1] & is_present[:-1].any()))
        # A batch counts only if no path has a pair; the sum stays on the device until
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
    n_tasks = len(task_names)
    if isinstance(tasks, str) and tasks == "all":
        return list(range(n_tasks))
    rule = (
        f"tasks must be 'all', or names or indices of the tasks {list(task_names)}; "
        f"got {tasks!r}."
    )
    if isinstance(tasks, str | Integral):
        tasks = [tasks]
    if not is_iterable(tasks):
        raise TypeError(rule)
    known: dict[str | int, int] = {k: k % n_tasks for k in range(-n_tasks, n_tasks)}
    known |= {name: k for k, name in enumerate(task_names)}
    tasks = list(tasks)
    for task in tasks:
        if not isinstance(task, str | Integral) or isinstance(task, bool):
            raise TypeError(rule)
        if task not in known:
            raise ValueError(rule)
    return sorted({known[task] for task in tasks})


def _build_base(
    base: object, params: Mapping[str, Any] | None, task_names: Sequence[str]
) -> MultiTaskLoss:
    from sk_pwiser.losses import LOSSES  # not at the top: it imports this file

    others = {n: each for n, each in LOSSES.items() if not issubclass(each, PWiseR)}
    if isinstance(base, type) and issubclass(base, PWiseR):
        raise ValueError(f"base must be a loss other than PWiseR; got {base!r}.")
    if params is not None and not isinstance(params, Mapping):
        raise TypeError(
            "base_params must be a dict of keyword arguments of the base loss; "
            f"got {params!r}."
        )
    choice = others, MultiTaskLoss, "base", base
    return checked_loss(build(choice, params, task_names))

"""PWiseR: cross-entropy and a pairwise term that trusts converted impressions."""

import math
from collections.abc import Sequence
from numbers import Integral, Real

import torch
from torch import Tensor

from sk_pwiser.losses._base import MultiTaskLoss
from sk_pwiser.losses._bce import BCE
from sk_pwiser.losses._pairwise import SURROGATES, pairwise_mean


def pwiser_loss(
    scores: Tensor,
    y: Tensor,
    *,
    margins: float | Sequence[float] = 1.0,
    surrogate: str = "hinge",
    sample_weight: Tensor | None = None,
) -> Tensor:
    r"""Pairwise ranking term of PWiseR for one score an impression.

    For two tasks, with V the converted rows, C those clicked without conversion, N
    those not clicked, f the scores and h the surrogate:

    .. math::
        \underset{V \times C}{mean}\ h(m_{click} - (f_v - f_c))
        + \underset{V \times N}{mean}\ h(m_{no\,click} - (f_v - f_n))

    With more tasks, the rows at the end of the funnel stand against the rows of each
    lower depth, one mean each; with one task, positives stand against negatives.

    Parameters
    ----------
    scores : Tensor of shape (batch,)
        One task's scores: logits or probabilities.
    y : Tensor of shape (batch, n_tasks)
        Labels, 0 or 1, tasks in the order of the funnel. Rows that break it (a later
        task 1 under an earlier 0) join no pair.
    margins : float or sequence of float of length n_tasks, default=1.0
        Margins in the unit of the scores, from the deepest lower depth down to depth
        0: `(m_click, m_no_click)` for two tasks. A float serves for all.
    surrogate : {"hinge", "squared_hinge", "logistic"}, default="hinge"
        h(u) is `max(u, 0)`, its square, or `log(1 + exp(u))`.
    sample_weight : Tensor of shape (batch,), default=None
        Weights of the rows; a pair counts with the product of its rows' weights.

    Returns
    -------
    Tensor of shape ()
        The sum of the means. A mean over no pairs is 0 and has gradient 0.

    Raises
    ------
    ValueError
        If the shapes do not fit, the surrogate is unknown or a margin is not finite.

    Notes
    -----
    The means are over pairs, so the term does not depend on the size of a batch. The
    paper, as far as it can be read, squares the hinge of probabilities and divides
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
    n_tasks = y.shape[1]
    margins = _check_margins(margins, n_tasks)
    leading = y.cumprod(dim=1).sum(dim=1)
    depth = torch.where(leading == y.sum(dim=1), leading, -1)

    def part(level: int) -> tuple[Tensor, Tensor | None]:
        rows = (depth == level).nonzero().squeeze(1)
        return scores[rows], None if sample_weight is None else sample_weight[rows]

    higher, higher_weight = part(n_tasks)
    total = scores.new_zeros(())
    for level, margin in zip(range(n_tasks - 1, -1, -1), margins, strict=True):
        lower, lower_weight = part(level)
        total = total + pairwise_mean(
            higher, lower, margin, surrogate, higher_weight, lower_weight
        )
    return total


def _check_margins(margins: float | Sequence[float], n_tasks: int) -> list[float]:
    values = list(margins) if isinstance(margins, Sequence) else [margins] * n_tasks
    if len(values) != n_tasks:
        raise ValueError(
            f"margins must be a number or hold one a lower depth, {n_tasks} here; "
            f"got {margins!r}."
        )
    return [_check_number("margins", value) for value in values]


def _check_number(name: str, value: object, minimum: float = -math.inf) -> float:
    if isinstance(value, Real) and minimum <= float(value) < math.inf:
        number = float(value)
        if number > -math.inf:
            return number
    rule = "finite" if minimum == -math.inf else f"finite and >= {minimum:g}"
    raise ValueError(f"{name} must be {rule}; got {value!r}.")


class PWiseR(MultiTaskLoss):
    r"""Binary cross-entropy plus the pairwise ranking term of PWiseR.

    .. math:: L_k = BCE_k + \lambda\, PWiseR(f_k)

    for every task k whose head takes the term; :func:`pwiser_loss` defines it.

    Parameters
    ----------
    task_names : sequence of str
        Names of the tasks, in the order of the logits' columns.
    pwiser_weight : float, default=0.03
        The weight lambda of the term, >= 0.
    tasks : "all" or sequence of (str or int), default=(-1,)
        The heads whose scores take the term, by name or index; by default that of the
        last task.
    score : {"logit", "probability"}, default="logit"
        What the term ranks.
    surrogate : {"hinge", "squared_hinge", "logistic"}, default="hinge"
        The surrogate of a pair in the wrong order.
    margins : float or sequence of float of length n_tasks, default=1.0
        Margins in the unit of the score, from the deepest lower depth to depth 0.

    References
    ----------
    Durmus, Saribas, Aldemir, Yang and Cevikalp (2024). :arxiv:`2406.02163`

    Notes
    -----
    The paper's form, as far as it can be read, is `surrogate="squared_hinge",
    score="probability"`; its weight is ours divided by the number of converted rows
    in a batch. The term moves scores, hence probabilities: watch the log loss.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.losses import PWiseR
    >>> loss = PWiseR(["click", "conversion"], pwiser_weight=0.1, tasks=["click"])
    >>> loss(torch.zeros(3, 2), torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]))
    tensor([0.8931, 0.6931])
    """

    estimator_parameters = ("pwiser_weight",)

    def __init__(
        self,
        task_names: Sequence[str],
        *,
        pwiser_weight: float = 0.03,
        tasks: str | Sequence[str | int] = (-1,),
        score: str = "logit",
        surrogate: str = "hinge",
        margins: float | Sequence[float] = 1.0,
    ) -> None:
        super().__init__(task_names)
        if score not in ("logit", "probability"):
            raise ValueError(f"score must be 'logit' or 'probability'; got {score!r}.")
        if surrogate not in SURROGATES:
            raise ValueError(
                f"surrogate must be one of {sorted(SURROGATES)}; got {surrogate!r}."
            )
        self.base = BCE(task_names)
        self.pwiser_weight = _check_number("pwiser_weight", pwiser_weight, 0.0)
        self.heads = self._find_heads(tasks)
        self.score = score
        self.surrogate = surrogate
        self.margins = _check_margins(margins, len(self.task_names))

    def _find_heads(self, tasks: str | Sequence[str | int]) -> list[int]:
        n_tasks = len(self.task_names)
        if isinstance(tasks, str) and tasks == "all":
            return list(range(n_tasks))
        heads = set()
        for task in [tasks] if isinstance(tasks, str) else tasks:
            if task in self.task_names:
                heads.add(self.task_names.index(str(task)))
            elif isinstance(task, Integral) and -n_tasks <= task < n_tasks:
                heads.add(int(task) % n_tasks)
            else:
                raise ValueError(
                    f"tasks must be 'all' or hold names or indices of the tasks "
                    f"{list(self.task_names)}; got {task!r}."
                )
        return sorted(heads)

    def forward(
        self, logits: Tensor, y: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        """Compute cross-entropy plus the weighted term, of shape `(n_tasks,)`."""
        losses: Tensor = self.base(logits, y, sample_weight)
        if self.pwiser_weight == 0 or not self.heads:
            return losses
        scores = logits if self.score == "logit" else logits.sigmoid()
        terms = torch.zeros_like(losses)
        for head in self.heads:
            terms[head] = pwiser_loss(
                scores[:, head],
                y,
                margins=self.margins,
                surrogate=self.surrogate,
                sample_weight=sample_weight,
            )
        return losses + self.pwiser_weight * terms

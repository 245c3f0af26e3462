"""PWiseR: a loss a task, and a pairwise term that trusts converted impressions."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from sk_pwiser._utils import check_integer, check_number
from sk_pwiser.losses._base import MultiTaskLoss
from sk_pwiser.losses._pairwise import SURROGATES
from sk_pwiser.losses._pwiser_term import (
    Scores,
    check_margins,
    check_pairs,
    has_pairs,
    ranking_term,
    rows_by_depth,
)


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
    pairs : {"conversion", "funnel"}, default="conversion"
        Whether converted rows alone stand against each lower depth, or the rows of
        every depth against each depth below it.
    memory : int, default=0
        Number of converted rows of earlier batches whose scores, as they were then,
        stand beside those of the batch. They take no gradient; rows of the batch are
        still pushed below them. For conversions so rare that most batches hold none.
        Every `fit` and `partial_fit` begins with an empty memory.
    base : str or class, default="bce"
        The loss under the term: a name of `LOSSES`, or a subclass of
        :class:`MultiTaskLoss`.
    base_params : dict, default=None
        Parameters of that loss.

    Notes
    -----
    The paper's form, as far as it can be read, is `surrogate="squared_hinge",
    score="probability"`; its weight is ours divided by the number of converted rows
    in a batch. The term moves scores, hence probabilities: watch the log loss.

    The history counts `batches_without_pairs`.

    References
    ----------
    Durmus, Saribas, Aldemir, Yang and Cevikalp (2024). :arxiv:`2406.02163`

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
        pairs: str = "conversion",
        memory: int = 0,
        base: str | type[MultiTaskLoss] = "bce",
        base_params: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(task_names)
        if score not in ("logit", "probability"):
            raise ValueError(f"score must be 'logit' or 'probability'; got {score!r}.")
        if surrogate not in SURROGATES:
            raise ValueError(
                f"surrogate must be one of {sorted(SURROGATES)}; got {surrogate!r}."
            )
        self.pwiser_weight = check_number("pwiser_weight", pwiser_weight, at_least=0)
        self.heads = self._find_heads(tasks)
        self.score = score
        self.surrogate = surrogate
        self.margins = check_margins(margins, len(self.task_names))
        self.pairs = check_pairs(pairs)
        self.memory = check_integer("memory", memory, at_least=0)
        self.base = _make_base(base, self.task_names, dict(base_params or {}))
        self.asks_for_groups = self.base.asks_for_groups
        self._remembered: dict[int, Scores] = {}
        self._batches_without_pairs: int | Tensor = 0

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
        self,
        logits: Tensor,
        y: Tensor,
        sample_weight: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> Tensor:
        """Compute the base loss plus the weighted term, of shape `(n_tasks,)`."""
        losses: Tensor = self.base(logits, y, sample_weight, groups)
        if self.pwiser_weight == 0 or not self.heads:
            return losses
        at = rows_by_depth(y)
        if self._is_counted(self.heads[0]):
            self._count(at)
        scores = logits if self.score == "logit" else logits.sigmoid()
        terms = torch.zeros_like(losses)
        for head in self.heads:
            terms[head] = self._term(head, Scores(scores[:, head], sample_weight), at)
        return losses + self.pwiser_weight * terms

    def _is_counted(self, head: int) -> bool:
        return self.counted is None or head in self.counted

    def _term(self, head: int, scores: Scores, at: Tensor) -> Tensor:
        has_memory = self.training and self._is_counted(head)
        remembered = self._remembered.get(head) if has_memory else None
        term = ranking_term(
            scores, at, self.margins, self.surrogate, self.pairs, remembered
        )
        if self.memory and has_memory:
            self._remember(head, scores.take(at[-1]), remembered)
        return term

    def _remember(self, head: int, new: Scores, old: Scores | None) -> None:
        kept = new.joined(old)
        weight = None if kept.weight is None else kept.weight[: self.memory]
        self._remembered[head] = Scores(kept.values[: self.memory].detach(), weight)

    def _count(self, at: Tensor) -> None:
        is_present = at.any(dim=1)
        if self.training and self._remembered:
            remembered = self._remembered[self.heads[0]].values
            is_present[-1] |= len(remembered) > 0
        lacks_pairs = ~has_pairs(is_present, self.pairs)
        self._batches_without_pairs = self._batches_without_pairs + lacks_pairs.int()

    def pop_epoch_record(self) -> dict[str, float]:
        """Return the number of batches without pairs, and what the base has to tell."""
        count, self._batches_without_pairs = self._batches_without_pairs, 0
        return {**self.base.pop_epoch_record(), "batches_without_pairs": int(count)}


def _make_base(
    base: str | type[MultiTaskLoss], task_names: Sequence[str], params: dict[str, Any]
) -> MultiTaskLoss:
    from sk_pwiser.losses import LOSSES  # this module is part of it

    if isinstance(base, str) and base not in LOSSES:
        raise ValueError(f"base must be one of {sorted(LOSSES)}; got {base!r}.")
    kind = LOSSES[base] if isinstance(base, str) else base
    if issubclass(kind, PWiseR):
        raise ValueError(f"base must be a loss without the term; got {base!r}.")
    return kind(task_names, **params)

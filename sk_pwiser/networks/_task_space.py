"""Log-odds over impressions, of conditional heads, and of the full log."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sk_pwiser._tasks._tree import chain_parents
from sk_pwiser._utils._precision import at_least_float32
from sk_pwiser.networks._spec import NetworkSpec

# Upper limit of the initial rate of a conditional head: a head that starts near 1 has
# almost no gradient.
HIGHEST_CONDITIONAL_RATE = 0.99


def initial_logits(spec: NetworkSpec, task_space: str) -> Tensor:
    """Return the log-odds of the base rates in a task space, float32 `(n_tasks,)`.

    They are finite also for rates of 0 and 1. Values start at their means, of score 0.
    """
    base_rates = spec.base_rates
    rates = list(base_rates)
    for k, parent in enumerate(
        spec.event_parents if task_space == "conditional" else ()
    ):
        if parent >= 0:
            # Without rows that have the parent, the conditional rate is unknown.
            rate = rates[k] / base_rates[parent] if base_rates[parent] else 0.5
            rates[k] = min(rate, HIGHEST_CONDITIONAL_RATE)
    # float64, since 1 - 1e-9 is 1 in float32.
    logits = torch.logit(torch.tensor(rates, dtype=torch.float64), eps=1e-9).float()
    return F.pad(logits, (0, len(spec.value_parents)))


def full_log_logits(sampled_logits: Tensor, rate: float) -> Tensor:
    r"""Correct logits for rows without the first task that were left out of the log.

    Let such rows be kept with probability r, independently of all else, and let P be
    the probability in the sampled log. By Bayes' rule, the probability in the full log
    is

    .. math:: P^{full}_k = \frac{r\, P_k}{1 - P_1 + r\, P_1}
        \quad\text{and}\quad
        1 - P^{full}_k = \frac{(1 - r)(1 - P_1) + r\,(1 - P_k)}{1 - P_1 + r\, P_1}.

    For the first task the log-odds change by log r. The probability of a later task
    given an earlier one does not change.

    Parameters
    ----------
    sampled_logits : Tensor of shape (batch, n_tasks)
        Log-odds of P(Y_k = 1 | impression) in the sampled log.
    rate : float
        The share r of the rows without the first task that was kept, in (0, 1].

    Returns
    -------
    Tensor of shape (batch, n_tasks)
        Log-odds in the full log.

    References
    ----------
    King and Zeng (2001), "Logistic regression in rare events data", Political Analysis
    9(2), section 4.1: the correction of the intercept, for one task.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks import full_log_logits
    >>> full_log_logits(torch.logit(torch.tensor([[0.5, 0.25]])), 0.1).sigmoid()
    tensor([[0.0909, 0.0455]])
    """
    if rate == 1:
        return sampled_logits
    # The two numerators above, in logarithms; their common denominator cancels.
    log_rate = math.log(rate)
    log_rest = math.log1p(-rate)
    log_not_first = F.logsigmoid(-sampled_logits[:, :1])
    log_not = torch.logaddexp(
        log_rest + log_not_first, log_rate + F.logsigmoid(-sampled_logits)
    )
    return log_rate + F.logsigmoid(sampled_logits) - log_not


def chain_logits(
    conditional_logits: Tensor, parents: Sequence[int] | None = None
) -> Tensor:
    r"""Compose conditional heads to logits over impressions, in log space.

    .. math:: P_k = \prod_{j \le k} \sigma(c_j), \quad
        \log(1 - P_k) = \log[(1 - P_{k-1}) + P_{k-1}\, \sigma(-c_k)]

    Parameters
    ----------
    conditional_logits : Tensor of shape (batch, n_tasks)
        Log-odds of P(Y_k = 1 | Y_{k-1} = 1, impression), and in the first column of
        P(Y_1 = 1 | impression).
    parents : sequence of int, default=None
        Column of the task that takes the place of k - 1 for each task, or -1 if there
        is none. By default the tasks are a funnel.

    Returns
    -------
    Tensor of shape (batch, n_tasks)
        Log-odds of P(Y_k = 1 | impression). No column exceeds that of its parent.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks import chain_logits
    >>> chain_logits(torch.zeros(1, 3)).sigmoid()
    tensor([[0.5000, 0.2500, 0.1250]])
    """
    if parents is None:
        parents = chain_parents(conditional_logits.shape[1])
    # log P_k and log(1 - P_k) side by side: 1 - P would lose all digits for rare tasks,
    # and P for frequent ones.
    log_p = list(F.logsigmoid(conditional_logits).unbind(dim=1))
    log_not = list(F.logsigmoid(-conditional_logits).unbind(dim=1))
    for k, parent in enumerate(parents):
        if parent >= 0:
            log_not[k] = torch.logaddexp(log_not[parent], log_p[parent] + log_not[k])
            log_p[k] = log_p[parent] + log_p[k]
    # Tasks without a parent are computed like the others, not copied from the input:
    # all columns then have the same rounding errors, and their order is kept.
    return torch.stack([p - n for p, n in zip(log_p, log_not, strict=True)], dim=1)


def shown_logits(logits: Tensor, offset: Tensor, parents: Sequence[int]) -> Tensor:
    r"""Add to log-odds over impressions what the exposure of the rows adds.

    The offset of a task without a parent is added to its log-odds. The probability of
    a later task given its parent does not depend on how a row was shown, apart from
    its own offset, so that its probability over impressions changes by the factor of
    that of its parent:

    .. math:: \log P'_k = \log P_k + \log P'_{k-1} - \log P_{k-1}

    The gradient of the factor is that of the offset alone: the head of the parent does
    not learn from labels of later tasks.

    Parameters
    ----------
    logits : Tensor of shape (batch, n_tasks)
        Log-odds of P(Y_k = 1 | impression) at the reference.
    offset : Tensor of shape (batch, n_tasks)
        What the exposure adds to the log-odds of each task.
    parents : sequence of int
        Column of the task that each task presupposes, -1 for none.

    Returns
    -------
    Tensor of shape (batch, n_tasks)
        Log-odds of P'(Y_k = 1 | impression), as the rows were shown.
    """
    columns = at_least_float32(logits).unbind(dim=1)
    offsets = offset.unbind(dim=1)
    shown: list[Tensor] = []
    gains: list[Tensor] = []  # of the logarithms of probabilities
    for task, parent in enumerate(parents):
        as_shown = columns[task] + offsets[task]
        constant = columns[task].detach()
        gain = F.logsigmoid(constant + offsets[task]) - F.logsigmoid(constant)
        if parent >= 0:
            log_p = F.logsigmoid(as_shown)
            # Incoherent heads may have probabilities above that of the parent, which
            # the factor must not raise above 1.
            most = torch.maximum(log_p, F.logsigmoid(shown[parent].detach()))
            log_p = torch.minimum(log_p + gains[parent], most)
            as_shown = log_p - log_complement(log_p)
            gain = gain + gains[parent]
        shown.append(as_shown)
        gains.append(gain)
    return torch.stack(shown, dim=1)


def log_complement(log_p: Tensor) -> Tensor:
    """Return log(1 - p) of log(p) < 0."""
    tiny = torch.finfo(log_p.dtype).tiny
    log_p = log_p.clamp(max=-tiny)
    # Each form where it is exact (Maechler, 2012).
    is_large = log_p > -0.693
    large = torch.log(-torch.expm1(torch.where(is_large, log_p, -1.0)))
    small = torch.log1p(-torch.exp(torch.where(is_large, -1.0, log_p)))
    return torch.where(is_large, large, small)

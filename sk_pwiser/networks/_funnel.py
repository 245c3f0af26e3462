"""From a chain of conditional heads to the tasks of a funnel."""

import torch
from torch import Tensor
from torch.nn import functional as F

from sk_pwiser.networks._base import NetworkSpec


def chain_logits(conditional: Tensor) -> Tensor:
    r"""Compose conditional heads to the logits of a funnel, in log space.

    .. math:: P_k = \prod_{j \le k} \sigma(c_j), \quad
        \log(1 - P_k) = \log[(1 - P_{k-1}) + P_{k-1}\, \sigma(-c_k)]

    Parameters
    ----------
    conditional : Tensor of shape (batch, n_tasks)
        Log-odds of P(Y_k = 1 | Y_{k-1} = 1, impression); of P(Y_1 = 1 | impression)
        in the first column.

    Returns
    -------
    Tensor of shape (batch, n_tasks)
        Log-odds of P(Y_k = 1 | impression). No column is above the one before it.
    """
    log_passes = F.logsigmoid(conditional).unbind(dim=1)
    log_stops = F.logsigmoid(-conditional).unbind(dim=1)
    log_p, log_not = log_passes[0], log_stops[0]
    logits = [conditional[:, 0]]
    for passes, stops in zip(log_passes[1:], log_stops[1:], strict=True):
        log_not = torch.logaddexp(log_not, log_p + stops)
        log_p = log_p + passes
        logits.append(log_p - log_not)
    return torch.stack(logits, dim=1)


def conditional_base_logits(spec: NetworkSpec) -> Tensor:
    """Compute the log-odds of each task's rate among rows with the task before it.

    Parameters
    ----------
    spec : NetworkSpec
        The table and the tasks.

    Returns
    -------
    Tensor of shape (n_tasks,)
        Logits, finite also where labels break the funnel.
    """
    rates = torch.tensor([1.0, *spec.base_rates], dtype=torch.float64)
    return torch.logit((rates[1:] / rates[:-1]).clamp(max=1.0), eps=1e-9).float()

"""From a chain of conditional heads to the tasks of a funnel."""

import torch
from torch import Tensor
from torch.nn import functional as F

from sk_pwiser.networks._base import NetworkOutput


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
    # Not the first column itself: rounding that all columns share keeps their order.
    logits = [log_p - log_not]
    for passes, stops in zip(log_passes[1:], log_stops[1:], strict=True):
        log_not = torch.logaddexp(log_not, log_p + stops)
        log_p = log_p + passes
        logits.append(log_p - log_not)
    return torch.stack(logits, dim=1)


def as_funnel(output: NetworkOutput) -> NetworkOutput:
    """Read the columns of a network's logits as conditional heads.

    Parameters
    ----------
    output : NetworkOutput
        Output of a network; one that is a chain already is left as it is.

    Returns
    -------
    NetworkOutput
        With logits over impressions, and the heads in `conditional_logits`.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks import NetworkOutput, as_funnel
    >>> heads = NetworkOutput(torch.zeros(1, 3))
    >>> as_funnel(heads).logits.sigmoid()
    tensor([[0.5000, 0.2500, 0.1250]])
    """
    if output.conditional_logits is not None:
        return output
    heads = output.logits.float()
    return output._replace(logits=chain_logits(heads), conditional_logits=heads)

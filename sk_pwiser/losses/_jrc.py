"""Cross-entropy of each task combined with the softmax of its rows in contexts."""

import torch
from torch import Tensor
from torch.nn import functional as F

from sk_pwiser._utils._precision import widest_float
from sk_pwiser.losses._bce_with_ranking import _BCEWithRanking


class JRC(_BCEWithRanking):
    r"""Joint optimisation of ranking and calibration within contexts.

    .. math::
        L_k = s\, BCE_k - \frac{1 - s}{n} \sum_i w_i
        \log \frac{p_{ik}}{\sum_{j \in C(i)} v_j\, p_{jk}},
        \qquad p_{jk} = P_k(y_{ik} \mid x_j)

    The second part is the cross-entropy of finding row i within its context C(i), given
    the label of row i: p_jk is the predicted probability that row j has the label of
    row i. With the logits z it is :math:`\sigma(z_{jk})` if that label is 1 and
    :math:`\sigma(-z_{jk})` if it is 0. The w are the sample weights, and v are the same
    divided by their mean in the context. Contexts are the groups passed to `fit`, such
    as users, sessions or requests, restricted to the batch. Without groups the whole
    batch is one context.

    Parameters
    ----------
    task_names : sequence of str
        Names of the tasks, in the order of the columns of the logits.
    bce_share : float, default=0.5
        Share s of the cross-entropy, from 0 to 1; alpha in the paper.

    Notes
    -----
    This implementation differs from the paper, in which a row has two logits, f[0] and
    f[1], for the joint distribution of row and label, with P(1 | x) =
    :math:`\sigma(f[1] - f[0])`; the softmax over rows takes f[y]. Networks here return
    one logit per task, z = f[1] - f[0], which leaves the marginal weight of each row
    undetermined. All rows of a context are taken to be equally likely, as in the data,
    so that f[y] is the log-probability of the label, and calibrated probabilities
    minimise the expectation of both parts, in any context. Halves, f = (-z/2, z/2),
    would pull the scores of the many negatives together if positives are rare. Bai et
    al. (2023) replace exponentials with probabilities for the same reason.

    The second part is non-negative and grows as the logarithm of the context size. A
    row of weight 0 is excluded from its context too, and a weight of 2 has the gradient
    of the same row given twice. The paper has no weights.

    `row_losses` is the cross-entropy alone, without the factor s.

    References
    ----------
    Sheng et al. (2023), "Joint optimization of ranking and calibration with
    contextualized hybrid model", KDD. :arxiv:`2208.06164`

    Bai et al. (2023), "Regression compatible listwise objectives for calibrated ranking
    with binary relevance", CIKM. :arxiv:`2211.01494`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.losses import JRC
    >>> loss = JRC(["click"], bce_share=0.5)
    >>> logits, y = torch.zeros(4, 1), torch.tensor([[1.0], [0.0], [0.0], [1.0]])
    >>> loss(logits, y)
    tensor([1.0397])
    >>> loss(logits, y, groups=torch.tensor([0, 0, 1, 2]))
    tensor([0.5199])
    """

    asks_for_groups = True

    def _ranking_losses(
        self, logits: Tensor, y: Tensor, weight: Tensor | None, groups: Tensor | None
    ) -> Tensor:
        # A batch may be one context: float32 would lose digits in sums over all its
        # rows.
        z = logits.to(widest_float(logits.device))
        label_logits = torch.stack([F.logsigmoid(-z), F.logsigmoid(z)], dim=2)
        if weight is not None:
            weight = weight.to(z.dtype).view(len(z), -1).expand_as(z)
        losses = context_losses(label_logits, y.to(z.dtype), weight, groups)
        if weight is not None:
            losses = losses * weight
        return losses.mean(dim=0).to(logits.dtype)


def context_losses(
    label_logits: Tensor,
    y: Tensor,
    weight: Tensor | None = None,
    groups: Tensor | None = None,
) -> Tensor:
    """Compute -log softmax of each row's own label over the rows of its context.

    `label_logits`, (n_rows, n_tasks, 2), are the log-probabilities of both labels.
    Weights apply to the sums over a context, not to the losses, (n_rows, n_tasks), of
    its rows. Without `groups`, all rows are one context.
    """
    if groups is None:
        context = torch.zeros_like(y[:, 0], dtype=torch.int64)
        n_contexts = 1
    else:
        # At most one context per row: their true number would block the host of a GPU.
        context = _number_from_0(groups)
        n_contexts = len(groups)
    scores = label_logits
    if weight is not None:
        # A factor v of an exponential is log v in its exponent.
        scores = scores + _log_relative_weight(weight, context, n_contexts)
    log_sums = _log_sum_exp(scores.flatten(1), context, n_contexts)
    losses = log_sums[context].view_as(label_logits) - label_logits
    # Not by indexing: labels may be probabilities.
    return y * losses[..., 1] + (1 - y) * losses[..., 0]


def _number_from_0(groups: Tensor) -> Tensor:
    """Replace the groups by consecutive integers, without blocking the host."""
    ordered, order = groups.sort()
    is_new = torch.zeros_like(ordered)
    is_new[1:] = ordered[1:] != ordered[:-1]
    return torch.empty_like(order).scatter_(0, order, is_new.cumsum(0))


def _log_relative_weight(weight: Tensor, context: Tensor, n_contexts: int) -> Tensor:
    """Return log(weight / mean in the context), `(n_rows, n_tasks, 1)`.

    The mean is over the rows of a weight above 0. If there are none, the result is 0.
    """
    rows = context.unsqueeze(1).expand_as(weight)
    zeros = weight.new_zeros(n_contexts, weight.shape[1])
    total = zeros.scatter_add(0, rows, weight)[context]
    n_weighted = zeros.scatter_add(0, rows, (weight > 0).to(weight.dtype))[context]
    ones = torch.ones_like(weight)
    return torch.where(total > 0, weight * n_weighted / total, ones).log().unsqueeze(2)


def _log_sum_exp(scores: Tensor, context: Tensor, n_contexts: int) -> Tensor:
    """Return log(sum(exp)) of every column over the rows of each context."""
    rows = context.unsqueeze(1).expand_as(scores)
    size = n_contexts, scores.shape[1]
    with torch.no_grad():  # the shift by the maxima cancels
        # The maximum of each context makes its largest exponential 1, at any logit.
        lowest = scores.new_full(size, -torch.inf)
        maxima = lowest.scatter_reduce(0, rows, scores, "amax")
    sums = scores.new_zeros(size).scatter_add(0, rows, (scores - maxima[context]).exp())
    # The logarithm of an unused context's 0 would have no finite gradient.
    return torch.where(sums > 0, sums, 1.0).log() + maxima

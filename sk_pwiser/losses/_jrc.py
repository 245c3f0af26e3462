"""JRC: cross-entropy across the labels, and a softmax down the rows of a context."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from sk_pwiser._utils import check_number
from sk_pwiser.losses._base import MultiTaskLoss
from sk_pwiser.losses._bce import BCE


class JRC(MultiTaskLoss):
    r"""Joint optimisation of ranking and calibration within contexts.

    .. math::
        L_k = \alpha\, BCE_k - \frac{1 - \alpha}{n} \sum_i w_i
        \log \frac{p_{ik}}{\sum_{j \in C(i)} v_j\, p_{jk}},
        \qquad p_{jk} = P_k(y_{ik} \mid x_j)

    The second part asks, given the label of row i, which row of its context C(i) it
    is: p_ik is the probability, by the logits z, of the label of row i at row i, p_jk
    that of the same label at row j, so :math:`\sigma(z_{jk})` down the context of a
    positive and :math:`\sigma(-z_{jk})` down that of a negative. The w are the sample
    weights, and v the same divided by their mean in the context. Contexts are the
    groups given to `fit`, such as users, sessions or requests, as far as they lie in
    the batch; without groups the whole batch is one.

    Parameters
    ----------
    task_names : sequence of str
        Names of the tasks, in the order of the logits' columns.
    alpha : float, default=0.5
        Share of the cross-entropy, from 0 to 1.

    Raises
    ------
    ValueError
        If alpha is not a number from 0 to 1.

    Notes
    -----
    In the paper a row has two logits, f[0] and f[1], with P(1 | x) =
    :math:`\sigma(f[1] - f[0])`, which stand for the joint distribution of row and
    label; the softmax goes down f[y]. Networks here return one logit a task, z =
    f[1] - f[0], so what remains free, the weight of the row itself, has to be set:
    all rows of a context are equally likely, as they are in the data, which makes f[y]
    the log-probability of the label. This departure treats both labels alike, and
    calibrated probabilities minimise the expectation of both parts, in any context.
    Halves, f = (-z/2, z/2), are symmetric as well, but where positives are rare they
    draw the scores of the many negatives together, against the cross-entropy. Bai et
    al. (2023) put probabilities in place of exponentials for the same reason.

    The second part is at least 0 and grows as the logarithm of the size of the
    contexts: compare its values only between batches that are alike. A context of one
    row adds 0. A row of weight 0 counts nowhere, and a weight of 2 has the gradient of
    the row given twice. The paper has no weights.

    References
    ----------
    Sheng, Gao, Cheng, Yang, Han, Deng, Jiang, Xu and Zheng (2023), "Joint optimization
    of ranking and calibration with contextualized hybrid model", KDD.
    :arxiv:`2208.06164`

    Bai, Jagerman, Qin, Yan, Kar, Lin, Wang, Bendersky and Najork (2023), "Regression
    compatible listwise objectives for calibrated ranking with binary relevance", CIKM.
    :arxiv:`2211.01494`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.losses import JRC
    >>> loss = JRC(["click"], alpha=0.5)
    >>> logits, y = torch.zeros(4, 1), torch.tensor([[1.0], [0.0], [0.0], [1.0]])
    >>> loss(logits, y)
    tensor([1.0397])
    >>> loss(logits, y, groups=torch.tensor([0, 0, 1, 2]))
    tensor([0.5199])
    """

    asks_for_groups = True

    def __init__(self, task_names: Sequence[str], *, alpha: float = 0.5) -> None:
        super().__init__(task_names)
        self.alpha = check_number("alpha", alpha, at_least=0, at_most=1)
        self.cross_entropy = BCE(task_names)

    def forward(
        self,
        logits: Tensor,
        y: Tensor,
        sample_weight: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> Tensor:
        """Compute the combined loss of each task, of shape `(n_tasks,)`."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        y = y.to(logits.dtype)
        calibration: Tensor = self.cross_entropy(logits, y, sample_weight)
        if self.alpha == 1:
            return calibration
        z = logits.double()
        columns = torch.stack([logsigmoid(-z), logsigmoid(z)], dim=2)
        ranking = _mean_over_rows(columns, y.double(), sample_weight, groups)
        return self.alpha * calibration + (1 - self.alpha) * ranking.to(logits.dtype)


def _mean_over_rows(
    columns: Tensor, y: Tensor, weight: Tensor | None, groups: Tensor | None
) -> Tensor:
    """Return the second part of each task; rows without weight only enlarge n."""
    n_rows = len(y)
    if weight is None:
        return generative_losses(columns, y, None, groups).sum(dim=0) / n_rows
    kept = weight > 0
    columns, y, weight = columns[kept], y[kept], weight[kept].double()
    groups = None if groups is None else groups[kept]
    losses = generative_losses(columns, y, weight, groups)
    return weight @ losses / n_rows


def generative_losses(
    columns: Tensor,
    y: Tensor,
    weight: Tensor | None = None,
    groups: Tensor | None = None,
) -> Tensor:
    """Take -log softmax of each row's own label down the rows of its context.

    Parameters
    ----------
    columns : Tensor of shape (n_rows, n_tasks, 2)
        Logits of label 0 and of label 1.
    y : Tensor of shape (n_rows, n_tasks)
        Labels, 0 or 1.
    weight : Tensor of shape (n_rows,), default=None
        Weights in the sums, > 0; the mean in a context is brought to 1.
    groups : int64 Tensor of shape (n_rows,), default=None
        Context of each row; None for one context.

    Returns
    -------
    Tensor of shape (n_rows, n_tasks)
        One loss a row and task, not weighted.
    """
    if groups is None:
        context, n_contexts = torch.zeros_like(y[:, 0], dtype=torch.int64), 1
    else:
        numbers, context = torch.unique(groups, return_inverse=True)
        n_contexts = len(numbers)
    scores = columns.flatten(1)
    if weight is not None:
        zeros = weight.new_zeros(n_contexts)
        means = zeros.scatter_reduce(0, context, weight, "mean", include_self=False)
        scores = scores + (weight / means[context]).log().unsqueeze(1)
    log_sums = _log_sum_exp(scores, context, n_contexts)
    losses = log_sums[context].view_as(columns) - columns
    return y * losses[..., 1] + (1 - y) * losses[..., 0]


def _log_sum_exp(scores: Tensor, context: Tensor, n_contexts: int) -> Tensor:
    """Return log(sum(exp)) of every column over the rows of each context."""
    rows = context.unsqueeze(1).expand_as(scores)
    size = n_contexts, scores.shape[1]
    with torch.no_grad():  # the shift by the maxima cancels
        lowest = scores.new_full(size, -torch.inf)
        maxima = lowest.scatter_reduce(0, rows, scores, "amax")
    shifted = (scores - maxima[context]).exp()
    return scores.new_zeros(size).scatter_add(0, rows, shifted).log() + maxima

"""Combined pair: binary cross-entropy and RankNet, task by task."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sk_pwiser._utils import check_number
from sk_pwiser.losses._base import MultiTaskLoss
from sk_pwiser.losses._bce import BCE
from sk_pwiser.losses._pairwise import pairwise_mean


class CombinedPair(MultiTaskLoss):
    r"""Binary cross-entropy of each task combined with RankNet over its pairs.

    .. math::
        L_k = \alpha\, BCE_k + (1 - \alpha)\,
        \underset{i \in P_k,\ j \in N_k}{mean} \log(1 + e^{-(z_{ik} - z_{jk})})

    with z the logits, P and N the rows of the batch that are positive and negative in
    task k. All pairs count, in near-linear time and linear memory. Where positives are
    rare, cross-entropy hardly moves a negative whose probability is near 0; the pairs
    do, as long as positives score no higher.

    Parameters
    ----------
    task_names : sequence of str
        Names of the tasks, in the order of the logits' columns.
    alpha : float, default=0.7
        Share of the cross-entropy, from 0 to 1; at 0 the level of the logits is left
        free, and probabilities mean nothing.

    Raises
    ------
    ValueError
        If alpha is not a number from 0 to 1.

    Notes
    -----
    Calibrated probabilities minimise the expectation of both parts.

    The paper is for one task; here each task has a loss of its own. Two things differ
    from the authors' code: a batch without positives or without negatives keeps the
    cross-entropy and its pair part is 0, and sample weights count inside the pairs, a
    pair with the product of its rows' weights and the mean over the weight. The
    default of alpha is that of the configuration from which their search starts.

    Like :func:`pwiser_loss` it can be differentiated once, not twice, unless alpha
    is 1.

    References
    ----------
    Lin, Pan, Zhang, Wang, Xiao, Huang, Xiao and Jiang (2024), "Understanding the
    ranking loss for recommendation with sparse user feedback", KDD.
    :arxiv:`2403.14144`

    Burges, Shaked, Renshaw, Lazier, Deeds, Hamilton and Hullender (2005), "Learning to
    rank using gradient descent", ICML. :doi:`10.1145/1102351.1102363`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.losses import CombinedPair
    >>> loss = CombinedPair(["click", "conversion"], alpha=0.5)
    >>> logits = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    >>> loss(logits, torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]))
    tensor([0.3300, 0.3466])
    """

    def __init__(self, task_names: Sequence[str], *, alpha: float = 0.7) -> None:
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
        ranking = [
            _rank_net(z, labels, sample_weight)
            for z, labels in zip(logits.unbind(1), y.unbind(1), strict=True)
        ]
        return self.alpha * calibration + (1 - self.alpha) * torch.stack(ranking)


def _rank_net(z: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
    """Return the mean over the pairs of one task; 0 where there are none."""
    positive = y == 1
    negative = ~positive
    return pairwise_mean(
        z[positive],
        z[negative],
        margin=0.0,
        surrogate="logistic",
        higher_weight=None if weight is None else weight[positive],
        lower_weight=None if weight is None else weight[negative],
    )

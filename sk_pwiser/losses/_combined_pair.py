"""Cross-entropy of each task combined with RankNet over its pairs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sk_pwiser.losses._bce_with_ranking import _BCEWithRanking
from sk_pwiser.losses._pairwise import WeightedScores, pairwise_mean


class CombinedPair(_BCEWithRanking):
    r"""Binary cross-entropy of each task combined with RankNet over its pairs.

    .. math::
        L_k = s\, BCE_k + (1 - s)\, \bar w
        \underset{i \in P_k,\ j \in N_k}{mean} \log(1 + e^{-(z_{ik} - z_{jk})})

    with the logits z, the positive rows P and negative rows N of the batch in task k,
    and the mean sample weight :math:`\bar w` of the batch, 1 without weights. The mean
    is over all pairs, and the weight of a pair is the product of the weights of its
    rows. Time is nearly linear and memory linear in the rows. If positives are rare,
    cross-entropy has almost no gradient for a negative with a probability near 0; the
    pairs have one as long as positives score no higher.

    Parameters
    ----------
    task_names : sequence of str
        Names of the tasks, in the order of the columns of the logits.
    bce_share : float, default=0.7
        Share s of the cross-entropy, from 0 to 1; alpha in the paper. At 0 a constant
        added to all logits changes nothing, so the probabilities have no meaning.

    Notes
    -----
    Calibrated probabilities minimise the expectation of both parts.

    The paper is for one task; here each task has its own loss. This implementation
    differs from the authors' code in two ways: the pair part is 0 if a batch has no
    positives or no negatives, and sample weights apply to the pairs too. The default
    of bce_share is the value at which the authors' search starts.

    The pair part is a mean over the pairs of a batch, which does not shrink with the
    rate of positives as cross-entropy does. It dominates the steps of a rare task,
    whose probabilities then need calibration.

    `row_losses` is the cross-entropy alone, without the factor s. Unless bce_share is
    1, the loss can be differentiated once, not twice.

    References
    ----------
    Lin et al. (2024), "Understanding the ranking loss for recommendation with sparse
    user feedback", KDD. :arxiv:`2403.14144`

    Burges, Shaked, Renshaw, Lazier, Deeds, Hamilton and Hullender (2005), "Learning to
    rank using gradient descent", ICML. :doi:`10.1145/1102351.1102363`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.losses import CombinedPair
    >>> loss = CombinedPair(["click", "conversion"], bce_share=0.5)
    >>> logits = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    >>> loss(logits, torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]))
    tensor([0.3300, 0.3466])
    """

    def __init__(self, task_names: Sequence[str], *, bce_share: float = 0.7) -> None:
        super().__init__(task_names, bce_share=bce_share)

    def _ranking_losses(
        self, logits: Tensor, y: Tensor, weight: Tensor | None, groups: Tensor | None
    ) -> Tensor:
        means = []
        if weight is not None:
            weight = weight.view(len(y), -1).expand_as(y)
        for k in range(y.shape[1]):
            task_weight = None if weight is None else weight[:, k]
            scores = WeightedScores(logits[:, k], task_weight)
            is_positive = y[:, k] == 1
            mean = pairwise_mean(
                higher=scores.at(is_positive),
                lower=scores.at(~is_positive),
                margin=0.0,
                surrogate="logistic",
            )
            # Times the mean weight of the rows
            means.append((mean * scores.weight_per_row(len(y))).to(logits.dtype))
        return torch.stack(means)

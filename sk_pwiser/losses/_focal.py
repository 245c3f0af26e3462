"""Focal loss."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from sk_pwiser._utils import check_number
from sk_pwiser.losses._base import MultiTaskLoss


class Focal(MultiTaskLoss):
    r"""Focal loss: cross-entropy that counts rows the less, the better they are told.

    .. math::
        L_k = -\frac{1}{n} \sum_i w_i\, \alpha_{ik}\, (1 - q_{ik})^\gamma \log q_{ik}

    with q the probability of the label that the row has, that is
    :math:`\sigma(z_{ik})` for a positive and :math:`\sigma(-z_{ik})` for a negative,
    z the logits, w the sample weights, and :math:`\alpha_{ik}` alpha for positives and
    1 - alpha for negatives, or 1 for both.

    Parameters
    ----------
    task_names : sequence of str
        Names of the tasks, in the order of the logits' columns.
    gamma : float, default=2.0
        How strongly rows fade that are told well, >= 0; 0 is cross-entropy.
    alpha : float, default=None
        Weight of the positives, within (0, 1); the negatives have 1 - alpha. None
        leaves both at 1.

    Raises
    ------
    ValueError
        If gamma or alpha is out of its range.

    Notes
    -----
    For a gamma above 0 the probabilities that minimise the expectation are not the
    true ones: they lie nearer to 1/2 (Charoenphakdee et al. 2021), which makes rare
    events look several times as frequent. Their order is right. Calibrate them where
    their values matter. An alpha other than 1/2 shifts them as well.

    The paper divides the sum by the number of positive anchors; this is the mean over
    the rows, which a batch without positives has, too. In the paper alpha is 0.25.

    References
    ----------
    Lin, Goyal, Girshick, He and Dollár (2017), "Focal loss for dense object
    detection", ICCV. :arxiv:`1708.02002`

    Charoenphakdee, Vongkulbhisal, Chairatanakul and Sugiyama (2021), "On focal loss
    for class-posterior probability estimation: a theoretical perspective", CVPR.
    :arxiv:`2011.09172`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.losses import Focal
    >>> loss = Focal(["click", "conversion"], gamma=2.0)
    >>> loss(torch.tensor([[0.0, 3.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([0.1733, 2.7663])
    """

    def __init__(
        self,
        task_names: Sequence[str],
        *,
        gamma: float = 2.0,
        alpha: float | None = None,
    ) -> None:
        super().__init__(task_names)
        self.gamma = check_number("gamma", gamma, at_least=0)
        self.alpha = alpha
        if alpha is not None:
            self.alpha = check_number("alpha", alpha, above=0, below=1)

    def forward(
        self,
        logits: Tensor,
        y: Tensor,
        sample_weight: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> Tensor:
        """Compute the mean focal loss of each task, of shape `(n_tasks,)`."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        positive = y == 1
        z = torch.where(positive, logits, -logits)  # the log-odds of the row's label
        # log(1 - q) is at most 0, so the power cannot overflow, nor can its slope,
        # which (1 - q) ** gamma has infinite at q = 1 for a gamma below 1.
        losses = -(self.gamma * logsigmoid(-z)).exp() * logsigmoid(z)
        if self.alpha is not None:
            losses = torch.where(
                positive, self.alpha * losses, (1 - self.alpha) * losses
            )
        if sample_weight is not None:
            losses = losses * sample_weight.unsqueeze(1)
        return losses.mean(dim=0)

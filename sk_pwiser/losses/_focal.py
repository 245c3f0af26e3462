"""Focal loss of each task."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from sk_pwiser._utils._checks import check_number
from sk_pwiser._utils._precision import at_least_float32
from sk_pwiser.losses._bce import BCE


class Focal(BCE):
    r"""Focal loss: cross-entropy that reduces the influence of well-classified rows.

    .. math::
        L_k = -\frac{1}{n} \sum_i w_i\, \alpha_{ik}\, (1 - q_{ik})^\gamma \log q_{ik}

    where q is the predicted probability of the row's own label, that is
    :math:`\sigma(z_{ik})` for a positive and :math:`\sigma(-z_{ik})` for a negative
    row, z are the logits, w the sample weights, and :math:`\alpha_{ik}` is alpha for
    positives and 1 - alpha for negatives, or 1 for both.

    Parameters
    ----------
    task_names : sequence of str
        Names of the tasks, in the order of the columns of the logits.
    gamma : float, default=2.0
        Focusing parameter, >= 0. The larger it is, the less well-classified rows
        count; 0 is cross-entropy.
    alpha : float, default=None
        Weight of the positives, within (0, 1); the negatives have 1 - alpha. If None,
        both have the weight 1.

    Notes
    -----
    For gamma above 0 the probabilities that minimise the expected loss are not the true
    probabilities: they are nearer to 1/2 (Charoenphakdee et al. 2021), so that rare
    events are predicted several times too often, but they have the right order.
    Calibrate the probabilities if their values matter. An alpha other than 1/2 shifts
    them as well.

    The paper divides the sum by the number of positive anchors. This implementation
    divides it by the number of rows, which is defined for batches without positives
    too. The paper sets alpha to 0.25.

    `row_losses` with a probability t as target returns t times the loss of a positive
    plus 1 - t times the loss of a negative row.

    References
    ----------
    Lin, Goyal, Girshick, He and Dollár (2017), "Focal loss for dense object
    detection", ICCV. :arxiv:`1708.02002`

    Charoenphakdee et al. (2021), "On focal loss for class-posterior probability
    estimation: a theoretical perspective", CVPR. :arxiv:`2011.09172`

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

    def row_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the focal loss per row and task; targets may be probabilities."""
        logits = at_least_float32(logits)
        targets = targets.to(logits.dtype)
        log_p = F.logsigmoid(logits)
        log_not_p = F.logsigmoid(-logits)
        # The logarithm of 1 - q is at most 0, so neither the power nor its derivative
        # overflows. The derivative of (1 - q) ** gamma is infinite at q = 1 for a
        # gamma below 1.
        positive = -(self.gamma * log_not_p).exp() * log_p
        negative = -(self.gamma * log_p).exp() * log_not_p
        if self.alpha is not None:
            positive = self.alpha * positive
            negative = (1 - self.alpha) * negative
        return targets * positive + (1 - targets) * negative

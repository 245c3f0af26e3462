"""Dynamic weight average: weights of losses from their rates of change."""

from torch import Tensor

from sk_pwiser._utils._checks import check_number
from sk_pwiser.weighting._base import TaskWeighting
from sk_pwiser.weighting._training_rates import TrainingRates, softmax_weights


class DynamicWeightAverage(TaskWeighting):
    r"""Dynamic weight average: tasks whose loss falls slowly get larger weights.

    .. math::
        L = \sum_k \lambda_k L_k, \qquad
        \lambda_k = \frac{K \exp(r_k / T)}{\sum_j \exp(r_j / T)}, \qquad
        r_k = \frac{\bar L_k(e - 1)}{\bar L_k(e - 2)}

    in epoch e, where :math:`L_k` is the loss of task k in the batch, :math:`\bar L_k`
    its mean over the batches of an epoch, K the number of tasks and T the temperature.
    All weights are 1 in the first two epochs.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.
    temperature : float, default=2.0
        Temperature T of the softmax, > 0. The weights are more uniform for higher
        values.

    Notes
    -----
    The weights depend on the rates of the losses, not on their scale: a task whose
    loss is a hundred times as large as the other losses still dominates the sum. The
    weighting "ema" with `rate="dwa"` also removes the scale.

    This implementation differs from the paper in batches in which the loss of a task
    is exactly 0 because the batch has no rows for it: they do not enter the mean of
    the task. A task without a mean has rate 1. Each call of `partial_fit` counts as
    one epoch.

    References
    ----------
    Liu, Johns and Davison (2019), "End-to-end multi-task learning with attention",
    CVPR. :arxiv:`1803.10704`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.weighting import DynamicWeightAverage
    >>> weighting = DynamicWeightAverage(2)
    >>> for losses in ([1.0, 1.0], [0.5, 1.0], [0.5, 1.0]):
    ...     total = weighting(torch.tensor(losses))
    ...     weights = weighting.end_epoch()
    >>> total  # 0.5 * 0.8756 + 1.0 * 1.1244
    tensor(1.5622)
    """

    def __init__(self, n_tasks: int, *, temperature: float = 2.0) -> None:
        super().__init__(n_tasks)
        self.temperature = check_number("temperature", temperature, above=0.0)
        self.rates = TrainingRates(n_tasks)

    def forward(self, losses: Tensor) -> Tensor:
        """Return the weighted sum of the losses, of shape `()`."""
        if self.training:
            self.rates.observe(losses)
        weights = softmax_weights(self.rates(), self.temperature)
        return (weights.to(losses.dtype) * losses).sum()

    def end_epoch(self) -> list[float]:
        """Return the epoch's mean weights and reset them; update the rates."""
        self.rates.end_epoch()
        return super().end_epoch()

"""Dynamic weight average."""

from torch import Tensor

from sk_pwiser._utils import check_number
from sk_pwiser.weighting._base import TaskWeighting
from sk_pwiser.weighting._rates import TrainingRates, softmax_weights


class DynamicWeightAverage(TaskWeighting):
    r"""Dynamic weight average: tasks whose loss falls slowly weigh more.

    .. math::
        L = \sum_k \lambda_k L_k, \qquad
        \lambda_k = \frac{K \exp(r_k / T)}{\sum_j \exp(r_j / T)}, \qquad
        r_k = \frac{\bar L_k(e - 1)}{\bar L_k(e - 2)}

    in epoch e, with :math:`L_k` the loss of task k in the batch, :math:`\bar L_k` its
    mean over the batches of an epoch, K the number of tasks and T the temperature. In
    the first two epochs all weights are 1.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.
    temperature : float, default=2.0
        How evenly the tasks are weighed, > 0: the higher, the more alike.

    Raises
    ------
    ValueError, TypeError
        If the temperature is no number above 0.

    Notes
    -----
    The weights follow rates, not sizes: a task whose loss is a hundred times as large
    as another's keeps that lead. "ema" with `rate="dwa"` takes it away.

    Batches in which a task has a loss of exactly 0, for want of a signal, do not count
    in its mean; a task without a mean has the rate 1. The paper's losses always have
    a signal. Every call of `partial_fit` is an epoch.

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
    >>> total  # as 0.5 * 0.8756 + 1.0 * 1.1244
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
        """Return the mean weights of the epoch, and take in its mean losses."""
        self.rates.end_epoch()
        return super().end_epoch()

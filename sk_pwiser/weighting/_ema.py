"""Losses divided by their exponential moving averages."""

import torch
from torch import Tensor, nn

from sk_pwiser._utils._checks import check_choice, check_number
from sk_pwiser.weighting._base import TaskWeighting
from sk_pwiser.weighting._training_rates import TrainingRates, softmax_weights

RATES = (None, "dwa", "plain")


class ExponentialMovingAverage(TaskWeighting):
    r"""Each loss divided by its exponential moving average.

    .. math::
        L = \sum_k \lambda_k \frac{L_k(t)}{E_k(t)}, \qquad
        E_k(t) = \frac{(1 - \beta) \sum_{s < t} \beta^{t - 1 - s} L_k(s)}
        {1 - \beta^{t - 1}}

    at step t, where :math:`L_k` is the loss of task k in the batch and :math:`E_k` its
    average over the earlier batches, through which no gradient flows. In the first
    step :math:`E_k` is the loss itself. All tasks have the same influence from the
    first step, regardless of the scale of their losses.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.
    decay : float, default=0.9
        Decay :math:`\beta` of the average, in [0, 1). With 0, each loss is divided by
        the loss of the previous batch.
    rate : {None, "dwa", "plain"}, default=None
        Additional factor :math:`\lambda_k` of each task, from its training rate
        :math:`r_k`, the ratio of its mean losses in the last two epochs:

        - None: :math:`\lambda_k = 1`;
        - "dwa": :math:`\lambda_k = K \exp(r_k / T) / \sum_j \exp(r_j / T)`, where K is
          the number of tasks, as in the weighting "dwa";
        - "plain": :math:`\lambda_k = r_k / \operatorname{mean}_j r_j`.

        The factors are 1 in the first two epochs.
    temperature : float, default=2.0
        Temperature T for `rate="dwa"`, > 0.

    Notes
    -----
    Losses are expected to be > 0. A loss that is not, such as that of a batch without
    rows for the task, does not change the average. The averages are updated in
    training mode only.

    A task with few positive labels then has as much influence as the others. With the
    defaults of the estimator and 50 conversions at a rate of 0.1 %, or 200 at 1 %, the
    ROC AUC of clicks and conversions is lower than with equal weights
    (:ref:`low_rates`).

    The average excludes the current batch. If it included it, a batch with a positive
    row of a rare task would reduce its own weight, and the task would be predicted too
    low: at a rate of 0.1 %, batches of 512 rows and a decay of 0.9, by 17 %.

    The paper combines the averages with training rates in two ways, called Rated EMA
    and Dynamic Weighted EMA. Their formulas were not available: `rate="plain"` and
    `rate="dwa"` are definitions by the names. The bias correction of the average and
    the exclusion of the current loss are choices of this implementation.

    References
    ----------
    Lakkapragada, Sleiman, Surabhi and Wall (2022), "Mitigating negative transfer in
    multi-task learning with exponential moving average loss weighting strategies",
    AAAI 2023 student abstract. :arxiv:`2211.12999`

    Liu, Johns and Davison (2019), "End-to-end multi-task learning with attention",
    CVPR. :arxiv:`1803.10704`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.weighting import ExponentialMovingAverage
    >>> weighting = ExponentialMovingAverage(2, decay=0.5)
    >>> weighting(torch.tensor([100.0, 0.5]))
    tensor(2.)
    >>> weighting(torch.tensor([25.0, 0.5]))  # 25 / 100 + 0.5 / 0.5
    tensor(1.2500)
    >>> weighting(torch.tensor([25.0, 0.5]))  # 25 / 50 + 0.5 / 0.5
    tensor(1.5000)
    """

    def __init__(
        self,
        n_tasks: int,
        *,
        decay: float = 0.9,
        rate: str | None = None,
        temperature: float = 2.0,
    ) -> None:
        super().__init__(n_tasks)
        self.decay = check_number("decay", decay, at_least=0.0, below=1.0)
        self.rate = check_choice("rate", rate, RATES)
        self.temperature = check_number("temperature", temperature, above=0.0)
        self.rates = None if rate is None else TrainingRates(n_tasks)
        # The bias-corrected average, and the sum of the powers of the decay in it: the
        # newest loss enters with the share 1 / mass, which is exactly 1 at first.
        self.average = nn.Buffer(torch.zeros(n_tasks))
        self.mass = nn.Buffer(torch.zeros(n_tasks))

    def forward(self, losses: Tensor) -> Tensor:
        """Return the sum of the scaled losses, of shape `()`."""
        is_known = self.mass > 0
        average: Tensor = self.average
        if self.training:
            observed = losses.detach().float()
            is_positive = observed > 0
            # The averages before this batch, except for the first loss of a task.
            average = torch.where(is_known, average, observed)
            is_known = is_known | is_positive
            mass = 1 + self.decay * self.mass
            moved = torch.lerp(self.average, observed, 1 / mass)
            self.average.copy_(torch.where(is_positive, moved, self.average))
            self.mass.copy_(torch.where(is_positive, mass, self.mass))
            if self.rates is not None:
                self.rates.observe(observed)
        # A small constant in the denominator would make the weights depend on the
        # scale of the losses. Instead, the weight is 0 before the first loss above 0.
        weights = is_known / torch.where(is_known, average, 1.0)
        if self.rates is not None:
            rates = self.rates()
            if self.rate == "dwa":
                weights = weights * softmax_weights(rates, self.temperature)
            else:
                weights = weights * (rates / rates.mean())
        return (weights.to(losses.dtype) * losses).sum()

    def end_epoch(self) -> list[float]:
        """Return the epoch's mean weights and reset them; update the rates."""
        if self.rates is not None:
            self.rates.end_epoch()
        return super().end_epoch()

"""Losses divided by moving averages of themselves."""

import torch
from torch import Tensor

from sk_pwiser._utils import check_number
from sk_pwiser.weighting._base import TaskWeighting
from sk_pwiser.weighting._rates import TrainingRates, softmax_weights

RATES = (None, "dwa", "plain")


class ExponentialMovingAverage(TaskWeighting):
    r"""Each loss divided by an exponential moving average of itself.

    .. math::
        L = \sum_k \lambda_k \frac{L_k(t)}{E_k(t)}, \qquad
        E_k(t) = \frac{(1 - \beta) \sum_{s \le t} \beta^{t - s} L_k(s)}{1 - \beta^t}

    at step t, with :math:`L_k` the loss of task k in the batch and :math:`E_k` its
    average, which takes no gradient. So all tasks count alike whatever the scale of
    their losses, from the first step on.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.
    beta : float, default=0.9
        Share that the average keeps at each step, in [0, 1). At 0 the gradient is that
        of the sum of the logarithms of the losses.
    rate : {None, "dwa", "plain"}, default=None
        Further factor of each task by its training rate :math:`r_k`, the ratio of its
        mean losses in the last two epochs:

        - None: :math:`\lambda_k = 1`;
        - "dwa": :math:`\lambda_k = K \exp(r_k / T) / \sum_j \exp(r_j / T)`, with K the
          number of tasks, as in "dwa";
        - "plain": :math:`\lambda_k = r_k / \operatorname{mean}_j r_j`.

        The factors are 1 in the first two epochs.
    temperature : float, default=2.0
        T, > 0, for `rate="dwa"`.

    Raises
    ------
    ValueError, TypeError
        If a parameter is none of its values.

    Notes
    -----
    A loss of exactly 0, as of a batch without a signal for the task, leaves the
    average as it was. Losses are meant to be above 0; others count as 0 there. Steps
    in training alone move the averages.

    The paper joins the averages with training rates in two ways, which it calls Rated
    EMA and Dynamic Weighted EMA. Their formulas could not be read for this work, nor
    could those that settle how the average starts and whether it holds the current
    loss: `rate="plain"` and `rate="dwa"` are working definitions after the names, and
    the correction of the start and the current loss within the average are choices
    made here.

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
    >>> weighting = ExponentialMovingAverage(2, beta=0.5)
    >>> weighting(torch.tensor([100.0, 0.5]))
    tensor(2.)
    >>> weighting(torch.tensor([25.0, 0.5]))  # 25 / 50 + 0.5 / 0.5
    tensor(1.5000)
    """

    average: Tensor
    mass: Tensor

    def __init__(
        self,
        n_tasks: int,
        *,
        beta: float = 0.9,
        rate: str | None = None,
        temperature: float = 2.0,
    ) -> None:
        super().__init__(n_tasks)
        self.beta = check_number("beta", beta, at_least=0.0, below=1.0)
        if rate not in RATES:
            raise ValueError(f"rate must be one of {list(RATES)}; got {rate!r}.")
        self.rate = rate
        self.temperature = check_number("temperature", temperature, above=0.0)
        self.rates = None if rate is None else TrainingRates(n_tasks)
        # The average as corrected, and the sum of the powers of beta that it holds, so
        # that the newest loss has the share 1 / mass: of the first one, exactly 1.
        self.register_buffer("average", torch.zeros(n_tasks, dtype=torch.float32))
        self.register_buffer("mass", torch.zeros(n_tasks, dtype=torch.float32))

    def forward(self, losses: Tensor) -> Tensor:
        """Return the sum of the scaled losses, of shape `()`."""
        if self.training:
            self._observe(losses.detach())
        # No small number is added to the average: it would tie the weights to the
        # scale of the losses. Where there was no signal yet, there is no weight.
        is_known = self.mass > 0
        weights = is_known / torch.where(is_known, self.average, 1.0)
        if self.rates is not None:
            weights = weights * self._factors(self.rates())
        return (weights.to(losses.dtype) * losses).sum()

    def _observe(self, losses: Tensor) -> None:
        if self.rates is not None:
            self.rates.observe(losses)
        losses = losses.float()
        has_signal = losses > 0
        mass = 1 + self.beta * self.mass
        moved = torch.lerp(self.average, losses, 1 / mass)
        self.average.copy_(torch.where(has_signal, moved, self.average))
        self.mass.copy_(torch.where(has_signal, mass, self.mass))

    def _factors(self, rates: Tensor) -> Tensor:
        if self.rate == "dwa":
            return softmax_weights(rates, self.temperature)
        return rates / rates.mean()

    def end_epoch(self) -> list[float]:
        """Return the mean weights of the epoch, and take in its mean losses."""
        if self.rates is not None:
            self.rates.end_epoch()
        return super().end_epoch()

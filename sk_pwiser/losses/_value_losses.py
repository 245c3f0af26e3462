r"""Losses of amounts: how far a predicted mean is from the amounts of rows.

A head predicts a score, the logarithm of the mean in multiples of the mean amount of
the training rows. Training starts at a score of 0.
"""

from typing import ClassVar

import torch
from torch import Tensor

# Amounts of 0 have no logarithm; amounts below this share of the mean are alike.
SMALLEST_AMOUNT = 1e-3
# Power of the variance in the mean; between 1 (Poisson) and 2 (gamma).
TWEEDIE_POWER = 1.5
# Scores beyond are those of a diverged training, whose exponentials would overflow.
LARGEST_SCORE = 30.0


class ValueLoss:
    """Base class of the losses of amounts; `VALUE_LOSSES` has them by name.

    Attributes
    ----------
    reads_all_rows : bool
        Whether rows without the event count with an amount of 0, so that the head
        predicts the mean per impression. Otherwise, it predicts the mean given the
        event.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.losses import VALUE_LOSSES
    >>> gamma = VALUE_LOSSES["gamma"]
    >>> gamma.row_losses(torch.zeros(2), torch.tensor([0.5, 2.0]))
    tensor([0.5000, 2.0000])
    """

    reads_all_rows: ClassVar[bool] = False

    @staticmethod
    def row_losses(scores: Tensor, amounts: Tensor) -> Tensor:
        """Compute the loss of each row.

        Parameters
        ----------
        scores : Tensor of shape (batch,) or (batch, n_values)
            Logarithms of the predicted means, in multiples of the mean amount.
        amounts : Tensor of shape (batch,) or (batch, n_values)
            Amounts >= 0, in the same multiples.

        Returns
        -------
        Tensor of shape (batch,) or (batch, n_values)
            The losses.
        """
        raise NotImplementedError


class Gamma(ValueLoss):
    r"""Minus the log-likelihood of a gamma distribution of shape 1.

    .. math:: \ell = y e^{-s} + s,

    whose minimum over s is at the logarithm of the mean, whatever the distribution of
    the amounts.
    """

    @staticmethod
    def row_losses(scores: Tensor, amounts: Tensor) -> Tensor:
        """Compute the loss of each row."""
        scores = scores.clamp(-LARGEST_SCORE, LARGEST_SCORE)
        return amounts * torch.exp(-scores) + scores


class LogNormal(ValueLoss):
    r"""Minus the log-likelihood of a log-normal distribution of unit variance.

    .. math:: \ell = (\log y - s)^2 / 2

    The score is the mean of the logarithms; the level that is set after training makes
    totals agree with those of the log (Duan 1983, "Smearing estimate", JASA 78), where
    the mean of a log-normal distribution, :math:`e^{s + \sigma^2 / 2}`, would depend on
    the tail. Wang, Liu and Miao (2019), :arxiv:`1912.07753`, use it for customers'
    values.
    """

    @staticmethod
    def row_losses(scores: Tensor, amounts: Tensor) -> Tensor:
        """Compute the loss of each row."""
        logarithms = torch.log(amounts.clamp(min=SMALLEST_AMOUNT))
        return (logarithms - scores).square() / 2


class Tweedie(ValueLoss):
    r"""Minus the log-likelihood of a Tweedie distribution, up to a constant.

    .. math:: \ell = e^{(2 - p) s} / (2 - p) - y e^{(1 - p) s} / (1 - p)

    with the power p = 1.5: amounts of 0 are possible, so that it is one model of
    impressions with and without the event (Jørgensen 1987, JRSS B 49).
    """

    reads_all_rows = True

    @staticmethod
    def row_losses(scores: Tensor, amounts: Tensor) -> Tensor:
        """Compute the loss of each row."""
        scores = scores.clamp(-LARGEST_SCORE, LARGEST_SCORE)
        mean_term = torch.exp((2 - TWEEDIE_POWER) * scores) / (2 - TWEEDIE_POWER)
        slopes = torch.exp((1 - TWEEDIE_POWER) * scores) / (1 - TWEEDIE_POWER)
        return mean_term - amounts * slopes


VALUE_LOSSES: dict[str, type[ValueLoss]] = {
    "gamma": Gamma,
    "lognormal": LogNormal,
    "tweedie": Tweedie,
}

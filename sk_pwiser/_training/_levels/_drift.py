"""How far levels wander: estimated from what earlier updates of the log asked for.

The level of a log is a random walk, and single updates deviate from it: a day of storms
is no new level. How much of a deviation lasts is not known beforehand. A Kalman filter
of one level runs for each of several pairs of a drift and a deviation; the filters are
weighted by how well they have predicted the updates so far (a bank of filters; Magill
1965, "Optimal adaptive estimation of sampled stochastic processes", IEEE Transactions
on Automatic Control 10). The applied level is the weighted mean of theirs.
"""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

# Standard deviations by which a level wanders in as much time as the first fit spans.
DRIFTS = tuple(0.2 * 2.0**k for k in range(-5, 6))
# Those by which updates deviate, beside what the number of their events explains.
DEVIATIONS = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6)
# Before the first update, drifts are as probable as a normal distribution of their
# binary logarithm around `USUAL_DRIFT` says.
USUAL_DRIFT = 0.2
DRIFT_OCTAVES = 2.0
# A deviation is less probable than the next smaller one by this factor: a new level,
# such as that of new prices, must be followed before there are many updates.
DEVIATION_FACTOR = 3.0
# Share of the evidence of earlier updates that is left at the next: logs change.
REMEMBERED = 0.97
# Squared standard errors above which a surprise counts no more: one update with wrong
# labels must not decide.
LARGEST_SURPRISE = 9.0
# Variance of a level of which nothing is known.
UNKNOWN = 1e4

Correction = Callable[[Tensor, Tensor, Tensor], Tensor]


def linear(errors: Tensor, gains: Tensor, noise: Tensor) -> Tensor:
    """Return the moves of a Kalman filter."""
    return gains * errors


class Drift(nn.Module):
    """A bank of filters per level.

    Parameters
    ----------
    n_levels : int
        Number of levels.

    Attributes
    ----------
    means : Tensor of shape (n_filters, n_levels)
        The levels as the filters see them, less the applied ones.
    variances : Tensor of shape (n_filters, n_levels)
        Their squared errors.
    log_weights : Tensor of shape (n_filters, n_levels)
        Logarithms of the probabilities of the filters, up to a constant per level.
    """

    def __init__(self, n_levels: int) -> None:
        super().__init__()
        for name, values in self._initial(n_levels).items():
            setattr(self, name, nn.Buffer(values))

    means: Tensor
    variances: Tensor
    log_weights: Tensor

    @staticmethod
    def _initial(n_levels: int) -> dict[str, Tensor]:
        drifts, deviations = _pairs()
        octaves = (drifts / USUAL_DRIFT).log2() / DRIFT_OCTAVES
        ranks = [DEVIATIONS.index(deviation) for deviation in deviations.tolist()]
        rank = torch.tensor(ranks, dtype=torch.float64)
        prior = -octaves.square() / 2 - rank * math.log(DEVIATION_FACTOR)
        shape = len(drifts), n_levels
        return {
            "means": torch.zeros(shape),
            "variances": torch.zeros(shape),
            "log_weights": prior.float().unsqueeze(1).expand(shape).clone(),
        }

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        # Files of earlier versions have no drift, or another bank of filters.
        for name, values in self._initial(self.means.shape[1]).items():
            saved = state_dict.get(prefix + name)
            if saved is None or saved.shape != values.shape:
                state_dict[prefix + name] = values
        super()._load_from_state_dict(state_dict, prefix, *args)

    def prior_variance(self, elapsed: float, least_variance: Tensor) -> Tensor:
        """Return the squared distance of rows from the levels, `(n_levels,)`.

        It has the errors of the levels, and the deviations of single updates.
        `least_variance` is the error of levels that do not drift, by the number of all
        rows before.
        """
        _, deviations = _pairs()
        variances = self._variances_now(elapsed, least_variance)
        variances = variances + deviations.square().unsqueeze(1)
        squares = variances + self.means.cpu().double().square()
        return (self._probabilities() * squares).sum(dim=0)

    def move(
        self,
        gaps: Tensor,
        gap_variance: Tensor,
        *,
        elapsed: float,
        least_variance: Tensor,
        correct: Correction = linear,
    ) -> Tensor:
        """Return by how much to move levels that differ from those of rows by `gaps`.

        All tensors have the shape `(n_levels,)`. A gap of infinite variance says
        nothing. `correct` returns the moves of the filters by errors, gains and noise.
        """
        _, deviations = _pairs()
        says_something = gap_variance.isfinite()
        gaps = torch.where(says_something, gaps, 0.0)
        noise = gap_variance + deviations.square().unsqueeze(1)
        variances = self._variances_now(elapsed, least_variance)
        means = self.means.cpu().double()
        errors = gaps - means
        gains = torch.where(says_something, variances / (variances + noise), 0.0)
        moved = means + torch.where(
            says_something, correct(errors, gains, noise.clamp(max=UNKNOWN)), 0.0
        )
        expected_squares = variances + noise
        surprises = (errors.square() / expected_squares).clamp(max=LARGEST_SURPRISE)
        evidence = -(surprises + expected_squares.log()) / 2
        self._remember(torch.where(says_something, evidence, 0.0))
        applied = (self._probabilities() * moved).sum(dim=0)
        self.means.copy_(moved - applied)
        self.variances.copy_((1 - gains) * variances)
        return applied

    def shift(self, moves: Tensor) -> None:
        """Move the applied levels otherwise, by `(n_levels,)`."""
        self.means.sub_(moves.to(self.means))

    def _variances_now(self, elapsed: float, least_variance: Tensor) -> Tensor:
        drifts, _ = _pairs()
        drifted = drifts.square().unsqueeze(1) * elapsed
        least_variance = least_variance.clamp(max=UNKNOWN)
        return self.variances.cpu().double().maximum(least_variance) + drifted

    def _probabilities(self) -> Tensor:
        return self.log_weights.cpu().double().softmax(dim=0)

    def _remember(self, evidence: Tensor) -> None:
        prior = self._initial(evidence.shape[1])["log_weights"]
        earlier = self.log_weights.cpu().double() - prior
        log_weights = prior + REMEMBERED * earlier + evidence
        self.log_weights.copy_(log_weights - log_weights.amax(dim=0))


def _pairs() -> tuple[Tensor, Tensor]:
    """Return the drift and the deviation of each filter, each `(n_filters,)`."""
    pairs = torch.tensor(list(product(DRIFTS, DEVIATIONS)), dtype=torch.float64)
    drifts, deviations = pairs.unbind(dim=1)
    return drifts, deviations

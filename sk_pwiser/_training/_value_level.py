"""The level of predicted amounts: totals that agree with those of the log.

The likelihood of a distribution of amounts sets no exact total, least of all where the
tail is heavy. After training, the predictions of each value are multiplied by a factor
that makes their total that of the rows.

Updates have few amounts, and with a heavy tail the largest of them decide on the ratio
of totals. The mean of the logarithms of amounts over predictions scatters far less, but
differs from the logarithm of this ratio by a gap that the tail decides on. The gap is a
mean over all rows so far, and a move of the level is measured by both, weighted by
their inverse variances.

The logarithms of predictions that were learnt from few amounts differ more by chance
than by what distinguishes the rows: they are shrunk to their mean.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from sk_pwiser._rows._encoded_rows import Impressions, TrainingRows
from sk_pwiser._tasks._amounts import LEVEL_AMOUNTS
from sk_pwiser._training._value_terms import ValueTerms
from sk_pwiser._utils._integers import ceil_div
from sk_pwiser.losses._value_losses import SMALLEST_AMOUNT

# Rows with an amount by which the level is set: the relative error of a total is then
# far below one percent, also with heavy tails.
MOST_ROWS = 200_000
# Earlier amounts count as these at most in the gap, since tails change.
MOST_GAP_AMOUNTS = 10_000.0
# Standard deviation by which the gap of an update differs from that of earlier rows
# beside the scatter of its amounts. With many amounts, totals alone set the level.
GAP_DEVIATION = 0.05
# Amounts by which the differences of predictions are shrunk to half, if the variance of
# the logarithms of amounts over predictions is 1.
SHRINKING_AMOUNTS = 40.0
# Squared logarithm that is added to those of the amounts: one or two of them say
# nothing of how much amounts scatter.
PRIOR_LOG_SQUARE = 1.0
# Shares from which on shrinking would change nothing that matters.
LARGEST_SHARE = 0.98


@dataclass(frozen=True, kw_only=True)
class AmountSums:
    """Weighted sums over the rows with an amount, each `(n_values,)`, float64."""

    n_amounts: Tensor
    weights: Tensor
    observed: Tensor
    predicted: Tensor
    observed_squares: Tensor
    predicted_squares: Tensor
    products: Tensor
    scores: Tensor  # logarithms of predicted amounts
    # Logarithms of observed over predicted amounts.
    logs: Tensor
    log_squares: Tensor

    @property
    def has_totals(self) -> Tensor:
        """Return whether the totals of a value can be compared."""
        return (self.observed > 0) & (self.predicted > 0)

    def log_ratio(self) -> Tensor:
        """Return the logarithm of observed over predicted, 0 without an amount."""
        ratio = torch.where(self.has_totals, self.observed / self.predicted, 1.0)
        return torch.log(torch.nan_to_num(ratio, nan=1.0))

    def log_gap(self) -> Tensor:
        """Return the mean logarithm less the logarithm of the ratio of the totals."""
        return self.logs / self.weights - self.log_ratio()

    def variance_of_log_ratio(self) -> Tensor:
        """Return the squared standard error of `log_ratio`."""
        ratio = self.log_ratio().exp()
        squares = (
            self.observed_squares
            - 2 * ratio * self.products
            + ratio.square() * self.predicted_squares
        )
        relative_squares = squares * self.weights / self.observed.square()
        return relative_squares.clamp(min=0) / self.n_amounts

    def variance_of_mean_log(self) -> Tensor:
        """Return the squared standard error of the mean logarithm."""
        mean = self.logs / self.weights
        variance = self.log_squares / self.weights - mean.square()
        return variance.clamp(min=0) / self.n_amounts

    def squared_logs(self) -> Tensor:
        """Return the sum of squared deviations of the logarithms, 0 without amounts."""
        # Amounts of 0 spread logarithms, a heavy tail the amounts.
        squared_error = torch.minimum(
            self.variance_of_mean_log(), self.variance_of_log_ratio()
        )
        return (self.n_amounts.square() * squared_error).nan_to_num()


def sum_amounts(net: Any, rows: TrainingRows) -> AmountSums:
    """Add up observed and predicted amounts of the rows that have one."""
    terms = net.criterion_.value_terms
    names = [field.name for field in fields(AmountSums)]
    sums = torch.zeros(len(names), len(terms.names), dtype=torch.float64)
    for part in _with_amounts(rows, terms):
        _, scores = net.predict_heads(part)
        amounts, weights = terms.targets(
            part.column("y"), part.column("sample_weight"), part.column("amounts")
        )
        scores = scores.double()
        amounts = amounts.cpu().double()
        weights = weights.cpu().double()
        sums_of_part = _sum_rows(amounts, scores, weights)
        sums += torch.stack([sums_of_part[name] for name in names])
    sums = net.sum_over_workers(rows, sums)
    return AmountSums(**dict(zip(names, sums, strict=True)))


def _sum_rows(amounts: Tensor, scores: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Return the fields of `AmountSums` for some rows."""
    predicted = scores.exp()
    logs = amounts.clamp(min=SMALLEST_AMOUNT).log() - scores
    summands = {
        "observed": amounts,
        "predicted": predicted,
        "observed_squares": amounts.square(),
        "predicted_squares": predicted.square(),
        "products": amounts * predicted,
        "scores": scores,
        "logs": logs,
        "log_squares": logs.square(),
    }
    weighted_sums = {
        name: (terms * weights).sum(dim=0) for name, terms in summands.items()
    }
    return {
        "n_amounts": (weights > 0).sum(dim=0),
        "weights": weights.sum(dim=0),
        **weighted_sums,
    }


def _with_amounts(rows: TrainingRows, terms: Any) -> Iterator[Impressions]:
    """Yield evenly spaced rows of each part, with those only that count for a value."""
    for part in rows.parts(shuffled=False):
        counted = part
        if not terms.loss.reads_all_rows:
            has_amount = ~part.column("amounts").isnan().all(dim=1)
            places = torch.nonzero(has_amount).ravel()
            counted = replace(
                part, rows=places if part.rows is None else part.rows[places]
            )
        if len(counted):
            # All parts take their share: later files may have another level.
            n_most = ceil_div(MOST_ROWS * len(part), len(rows))
            yield counted.spaced(n_most)


def set_level(
    net: Any, train: TrainingRows, late_rows: TrainingRows | None = None
) -> None:
    """Set the level of a fit by its training rows, and by the last rows in time.

    The `late_rows` move the level as far as their amounts tell.
    """
    sums = _shrink_by_amounts(net, train)
    terms = net.criterion_.value_terms
    net.module_.shift_values(sums.log_ratio())
    _count_amounts(terms, sums, sums.log_gap())
    if late_rows is not None:
        follow_rows(net, late_rows)


def follow_rows(net: Any, rows: TrainingRows) -> None:
    """Move the level to that of later rows as far as their amounts tell.

    Earlier amounts count as `LEVEL_AMOUNTS` at most; without any, the rows alone set
    the level.
    """
    terms = net.criterion_.value_terms
    sums = _shrink_by_amounts(net, rows)
    n_earlier = terms.n_amounts.cpu().double()
    log_gap = _pooled_gap(terms, sums)
    variance_of_totals = sums.variance_of_log_ratio()
    variance_of_logs = sums.variance_of_mean_log() + GAP_DEVIATION**2
    share_of_logs = variance_of_totals / (variance_of_totals + variance_of_logs)
    if terms.loss.reads_all_rows:
        # Amounts of 0 have no logarithm.
        share_of_logs = torch.zeros_like(share_of_logs)
    # The mean logarithm less the pooled gap is the level as the logarithms tell it.
    difference_of_logs = torch.nan_to_num(sums.log_gap() - log_gap)
    move = sums.log_ratio() + share_of_logs.nan_to_num() * difference_of_logs
    prior = n_earlier.clamp(max=LEVEL_AMOUNTS)
    trust = sums.n_amounts / (sums.n_amounts + prior).clamp(min=1.0)
    net.module_.shift_values(trust * move)
    _count_amounts(terms, sums, log_gap)


def _shrink_by_amounts(net: Any, rows: TrainingRows) -> AmountSums:
    """Shrink predictions by the number of amounts; return the sums after it."""
    sums = sum_amounts(net, rows)
    terms = net.criterion_.value_terms
    if terms.loss.reads_all_rows:
        return sums
    n_amounts = terms.n_amounts.cpu().double() + sums.n_amounts
    terms.squared_logs.add_(sums.squared_logs().to(terms.squared_logs))
    squared_logs = terms.squared_logs.cpu().double() + PRIOR_LOG_SQUARE
    variance = squared_logs / n_amounts
    slopes = n_amounts / (n_amounts + SHRINKING_AMOUNTS * variance)
    slopes = torch.where(slopes > LARGEST_SHARE, 1.0, slopes)
    earlier_slopes = torch.ones_like(slopes)
    if net.module_.value_slope is not None:
        earlier_slopes = net.module_.value_slope.cpu().double()
    shares = torch.where(sums.has_totals, slopes / earlier_slopes, 1.0)
    if bool((shares == 1).all()):
        return sums
    centres = torch.where(sums.has_totals, sums.scores / sums.weights, 0.0)
    net.module_.shrink_values(shares, centres)
    return sum_amounts(net, rows)


def _pooled_gap(terms: ValueTerms, sums: AmountSums) -> Tensor:
    """Return the gaps over the rows so far and these ones."""
    earlier_gap = terms.log_gaps.cpu().double()
    n_earlier = terms.n_amounts.cpu().double().clamp(max=MOST_GAP_AMOUNTS)
    gap = sums.log_gap()
    n_all = n_earlier + sums.n_amounts
    pooled = (n_earlier * earlier_gap + sums.n_amounts * gap) / n_all
    return torch.where(earlier_gap.isnan(), gap, pooled)


def _count_amounts(terms: ValueTerms, sums: AmountSums, log_gap: Tensor) -> None:
    """Count the amounts of rows; their gap is that over all rows so far."""
    terms.n_amounts.add_(sums.n_amounts.to(terms.n_amounts))
    gap = log_gap.to(terms.log_gaps)
    has_totals = sums.has_totals.to(terms.log_gaps.device)
    terms.log_gaps.copy_(torch.where(has_totals, gap, terms.log_gaps))

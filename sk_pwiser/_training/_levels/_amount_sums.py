"""Sums over the rows with an amount: observed and predicted amounts, and logarithms."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from sk_pwiser._rows._encoded_rows import Impressions, TrainingRows
from sk_pwiser._utils._integers import ceil_div
from sk_pwiser.losses._value_losses import SMALLEST_AMOUNT

# Rows with an amount by which the level is set: the relative error of a total is then
# far below one percent, also with heavy tails.
MOST_ROWS = 200_000


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


def sum_amounts(
    net: Any, rows: TrainingRows, rows_per_weight: float | None = None
) -> AmountSums:
    """Add up observed and predicted amounts of the rows that have one.

    If weights are counts, one of 1 stands for `rows_per_weight` amounts.
    """
    terms = net.criterion_.value_terms
    names = [field.name for field in fields(AmountSums)]
    sums = torch.zeros(len(names), len(terms.names), dtype=torch.float64)
    for impressions in _with_amounts(rows, terms):
        _, scores = net.predict_heads(impressions)
        amounts, weights = terms.targets(
            impressions.column("y"),
            impressions.column("sample_weight"),
            impressions.column("amounts"),
        )
        scores = scores.double()
        amounts = amounts.cpu().double()
        weights = weights.cpu().double()
        further_sums = _sum_rows(amounts, scores, weights, rows_per_weight)
        sums += torch.stack([further_sums[name] for name in names])
    sums = net.sum_over_workers(rows, sums)
    return AmountSums(**dict(zip(names, sums, strict=True)))


def _sum_rows(
    amounts: Tensor, scores: Tensor, weights: Tensor, rows_per_weight: float | None
) -> dict[str, Tensor]:
    """Return the fields of `AmountSums` for some rows."""
    counts = (weights > 0) if rows_per_weight is None else rows_per_weight * weights
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
        "n_amounts": counts.sum(dim=0),
        "weights": weights.sum(dim=0),
        **weighted_sums,
    }


def _with_amounts(rows: TrainingRows, terms: Any) -> Iterator[Impressions]:
    """Yield evenly spaced rows of each part, with those only that count for a value."""
    for impressions in rows.parts(shuffled=False):
        counted = impressions
        if not terms.loss.reads_all_rows:
            has_amount = ~impressions.column("amounts").isnan().all(dim=1)
            places = torch.nonzero(has_amount).ravel()
            if impressions.rows is not None:
                places = impressions.rows[places]
            counted = replace(impressions, rows=places)
        if len(counted):
            # All parts take their share: later files may have another level.
            n_most = ceil_div(MOST_ROWS * len(impressions), len(rows))
            yield counted.spaced(n_most)

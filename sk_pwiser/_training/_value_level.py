"""The level of predicted amounts: totals that agree with those of the log.

The likelihood of a distribution of amounts sets no exact total, least of all where the
tail is heavy. After training, the predictions of each value are multiplied by a factor
that makes their total that of the rows.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sk_pwiser._rows._encoded_rows import Impressions, TrainingRows
from sk_pwiser._tasks._amounts import LEVEL_AMOUNTS
from sk_pwiser._utils._integers import ceil_div

# Rows with an amount by which the level is set: the relative error of a total is then
# far below one percent, also with heavy tails.
MOST_ROWS = 200_000


class Totals(NamedTuple):
    """Sums over rows, each of shape `(n_values,)`, float64."""

    observed: Tensor
    predicted: Tensor
    n_amounts: Tensor

    def log_ratio(self) -> Tensor:
        """Return the logarithm of observed over predicted, 0 without an amount."""
        has_any = (self.observed > 0) & (self.predicted > 0)
        ratio = torch.where(has_any, self.observed / self.predicted, 1.0)
        return torch.log(torch.nan_to_num(ratio, nan=1.0))


def add_totals(net: Any, rows: TrainingRows) -> Totals:
    """Add up observed and predicted amounts of the rows that have one."""
    terms = net.criterion_.value_terms
    zero = torch.zeros(len(terms.names), dtype=torch.float64)
    observed = zero.clone()
    predicted = zero.clone()
    n_amounts = zero.clone()
    for part in _with_amounts(rows, terms):
        _, scores = net.predict_heads(part)
        amounts, weights = terms.targets(
            part.column("y"), part.column("sample_weight"), part.column("amounts")
        )
        amounts = amounts.cpu().double()
        weights = weights.cpu().double()
        observed += (amounts * weights).sum(dim=0)
        predicted += (scores.double().exp() * weights).sum(dim=0)
        n_amounts += (weights > 0).sum(dim=0)
    sums = torch.stack([observed, predicted, n_amounts])
    return Totals(*net.sum_over_workers(rows, sums))


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
    totals = add_totals(net, train)
    net.module_.shift_values(totals.log_ratio())
    n_amounts = net.criterion_.value_terms.n_amounts
    n_amounts.add_(totals.n_amounts.to(n_amounts))
    if late_rows is not None:
        follow_rows(net, late_rows)


def follow_rows(net: Any, rows: TrainingRows) -> None:
    """Move the level to that of later rows as far as their amounts tell.

    Earlier amounts count as `LEVEL_AMOUNTS` at most; without any, the rows alone set
    the level.
    """
    n_earlier = net.criterion_.value_terms.n_amounts
    totals = add_totals(net, rows)
    prior = n_earlier.cpu().double().clamp(max=LEVEL_AMOUNTS)
    trust = totals.n_amounts / (totals.n_amounts + prior).clamp(min=1.0)
    net.module_.shift_values(trust * totals.log_ratio())
    n_earlier.add_(totals.n_amounts.to(n_earlier))

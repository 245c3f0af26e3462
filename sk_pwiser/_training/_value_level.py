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
    n_left = MOST_ROWS
    for part in _with_amounts(rows, terms):
        part = part.spaced(max(n_left, 1))
        n_left -= len(part)
        _, scores = net.predict_heads(part)
        labels = [part.column(name) for name in ("y", "sample_weight", "amounts")]
        y, sample_weight, amounts = (None if t is None else t.cpu() for t in labels)
        amounts, weights = terms.targets(y, sample_weight, amounts)
        observed += (amounts.double() * weights).sum(dim=0)
        predicted += (scores.double().exp() * weights).sum(dim=0)
        n_amounts += (weights > 0).sum(dim=0)
        if n_left <= 0:
            break
    return Totals(observed, predicted, n_amounts)


def _with_amounts(rows: TrainingRows, terms: Any) -> Iterator[Impressions]:
    """Yield the parts of the rows, with those only that count for a value."""
    for part in rows.parts(shuffled=False):
        if terms.loss.reads_all_rows:
            yield part
            continue
        has_amount = ~part.column("amounts").isnan().all(dim=1)
        places = torch.nonzero(has_amount).ravel()
        if not len(places):
            continue
        if part.rows is not None:
            places = part.rows[places]
        yield replace(part, rows=places)


def set_level(
    net: Any, train: TrainingRows, valid: TrainingRows | None, *, follows_valid: bool
) -> None:
    """Set the level of a fit by its training rows, and by the last rows in time.

    Random validation rows join the training rows; those that are the last in time, with
    `follows_valid`, move the level as far as their amounts tell.
    """
    net.module_.shift_values(add_totals(net, train).log_ratio())
    if valid is None:
        return
    totals = add_totals(net, valid)
    if follows_valid:
        net.module_.shift_values(trusted_shift(totals))


def follow_update(net: Any, rows: TrainingRows) -> None:
    """Move the level after an update as far as the amounts of its rows tell."""
    net.module_.shift_values(trusted_shift(add_totals(net, rows)))


def trusted_shift(totals: Totals) -> Tensor:
    """Return the shift to the level of some rows, shrunk by their number."""
    trust = totals.n_amounts / (totals.n_amounts + LEVEL_AMOUNTS)
    return trust * totals.log_ratio()

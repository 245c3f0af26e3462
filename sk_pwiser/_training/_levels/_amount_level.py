"""The level of predicted amounts: totals that agree with those of the log.

The likelihood of a distribution of amounts sets no exact total, least of all where the
tail is heavy. After training, the predictions of each value are multiplied by a factor
that makes their total that of the rows.

Updates have few amounts, and with a heavy tail the largest of them decide on the ratio
of totals. It is followed as far as it is surprising, see `_drift`. The steps of the
training itself do not change the level.

The logarithms of predictions that were learnt from few amounts differ more by chance
than by what distinguishes the rows: they are shrunk to their mean.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sk_pwiser._rows._encoded_rows import TrainingRows
from sk_pwiser._training._levels._amount_sums import MOST_ROWS, AmountSums, sum_amounts
from sk_pwiser._training._levels._drift import UNKNOWN
from sk_pwiser._training._levels._random_rows import random_output
from sk_pwiser._training._value_terms import ValueTerms

# Standard errors that a move of the level has by chance at most. Amounts have heavy
# tails: the ratio of few of them is right on average, but its logarithm too small.
MOST_ERRORS = 3.0
# Rows of an update that tell half of what its training has done to the level.
KEPT_ROWS = 100.0
# Amounts by which the differences of predictions are shrunk to half, if the variance of
# the logarithms of amounts over predictions is 1.
SHRINKING_AMOUNTS = 40.0
# Squared logarithm that is added to those of the amounts: one or two of them say
# nothing of how much amounts scatter.
PRIOR_LOG_SQUARE = 1.0
# Shares from which on shrinking would change nothing that matters.
LARGEST_SHARE = 0.98


def set_level(
    net: Any, train: TrainingRows, rows_per_weight: float | None = None
) -> None:
    """Set the level of a fit by its training rows.

    If weights are counts, one of 1 stands for `rows_per_weight` amounts.
    """
    sums = _shrink_by_amounts(net, train, rows_per_weight)
    terms = net.criterion_.value_terms
    net.module_.shift_values(sums.log_ratio())
    terms.n_amounts.add_(sums.n_amounts.to(terms.n_amounts))


def follow_rows(
    net: Any,
    rows: TrainingRows,
    *,
    elapsed: float,
    rows_per_weight: float | None = None,
) -> None:
    """Move the level to that of later rows as far as their amounts tell.

    Without earlier amounts, the rows alone set the level. If weights are counts, one of
    1 stands for `rows_per_weight` amounts.
    """
    terms = net.criterion_.value_terms
    sums = _shrink_by_amounts(net, rows, rows_per_weight)
    n_earlier = terms.n_amounts.cpu().double()
    variance = sums.variance_of_log_ratio().maximum(_least_variance(terms, sums))
    move = terms.drift.move(
        sums.log_ratio(),
        torch.where(sums.has_totals, variance, torch.inf),
        elapsed=elapsed,
        # The level before has an error that depends on the number of its amounts.
        least_variance=(variance * sums.n_amounts / n_earlier).nan_to_num(UNKNOWN),
        correct=_correct,
    )
    net.module_.shift_values(move)
    terms.log_moves.add_(move.to(terms.log_moves))
    terms.n_amounts.add_(sums.n_amounts.to(terms.n_amounts))


def _correct(errors: Tensor, gains: Tensor, noise: Tensor) -> Tensor:
    """Return the moves of filters, of which the mean of the factors is right."""
    largest_error = MOST_ERRORS * noise.sqrt()
    factors = 1 + gains * (errors.minimum(largest_error).exp() - 1)
    # Many amounts may show a larger move.
    return factors.log().maximum(gains * errors)


class MeansBefore(NamedTuple):
    """Logarithms of mean predicted amounts before a training, each `(n_values,)`."""

    of_rows: Tensor
    of_random_rows: Tensor


def log_means(net: Any, rows: TrainingRows) -> MeansBefore:
    """Return the logarithms of mean predictions of rows, and of random ones."""
    n_rows = 0
    sums = torch.zeros(len(net.criterion_.value_terms.names), dtype=torch.float64)
    for impressions in rows.parts(shuffled=False):
        _, scores = net.predict_heads(impressions.spaced(MOST_ROWS))
        sums += scores.double().exp().sum(dim=0)
        n_rows += len(scores)
    random_scores: Any = random_output(net).value_scores
    random_amounts = random_scores.cpu().double().exp()
    return MeansBefore((sums / n_rows).log(), random_amounts.mean(dim=0).log())


def keep_means(net: Any, rows: TrainingRows, before: MeansBefore) -> None:
    """Shift the predictions of a net to the mean amounts of rows before a training.

    One pass in short steps leaves a level that depends on its last rows, and statistics
    of more rows differ more. Few rows do not tell it, since their own predictions
    change more than those of others: random rows tell it as well.

    The market has not moved: `log_moves` stays. A part of what training compares with
    the amounts, it would make the next training take the same steps again, and the
    scores would run away.
    """
    after = log_means(net, rows)
    share = len(rows) / (len(rows) + KEPT_ROWS)
    shift_of_random_rows = before.of_random_rows - after.of_random_rows
    shift_of_rows = before.of_rows - after.of_rows
    net.module_.shift_values(shift_of_random_rows.lerp(shift_of_rows, share))


def _shrink_by_amounts(
    net: Any, rows: TrainingRows, rows_per_weight: float | None
) -> AmountSums:
    """Shrink predictions by the number of amounts; return the sums after it."""
    sums = sum_amounts(net, rows, rows_per_weight)
    terms = net.criterion_.value_terms
    if terms.loss.reads_all_rows:
        return sums
    n_amounts = terms.n_amounts.cpu().double() + sums.n_amounts
    terms.squared_logs.add_(sums.squared_logs().to(terms.squared_logs))
    variance = _variance_of_logs(terms, n_amounts)
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
    return sum_amounts(net, rows, rows_per_weight)


def _variance_of_logs(terms: ValueTerms, n_amounts: Tensor) -> Tensor:
    """Return the variance of the logarithms of all amounts so far."""
    squared_logs = terms.squared_logs.cpu().double() + PRIOR_LOG_SQUARE
    return squared_logs / n_amounts


def _least_variance(terms: ValueTerms, sums: AmountSums) -> Tensor:
    """Return the squared error of a mean of as many of all amounts so far."""
    n_amounts = terms.n_amounts.cpu().double() + sums.n_amounts
    return _variance_of_logs(terms, n_amounts) / sums.n_amounts

"""The level of predicted amounts: totals that agree with those of the log.

The likelihood of a distribution of amounts sets no exact total, least of all where the
tail is heavy. After training, the predictions of each value are multiplied by a factor
that makes their total that of the rows.

Updates have few amounts, and with a heavy tail the largest of them decide on the ratio
of totals. The mean of the logarithms of amounts over predictions scatters far less, but
differs from the logarithm of this ratio by a gap that the tail decides on. The gap is a
mean over all rows so far, and a move of the level is measured by both, weighted by
their inverse variances. It is followed as far as it exceeds chance: levels drift a
little from update to update, and sometimes jump. The steps of the training itself do
not change the level.

The logarithms of predictions that were learnt from few amounts differ more by chance
than by what distinguishes the rows: they are shrunk to their mean.
"""

from typing import Any

import torch
from torch import Tensor

from sk_pwiser._rows._encoded_rows import TrainingRows
from sk_pwiser._training._amount_sums import MOST_ROWS, AmountSums, sum_amounts
from sk_pwiser._training._value_terms import ValueTerms

# Earlier amounts count as these at most in the gap, since tails change.
MOST_GAP_AMOUNTS = 10_000.0
# Standard deviation by which the gap of an update differs from that of earlier rows
# beside the scatter of its amounts. With many amounts, totals alone set the level.
GAP_DEVIATION = 0.05
# Standard deviation by which the level of amounts drifts from one update to the next.
DRIFT_DEVIATION = 0.05
# Standard errors that a move of the level has by chance at most. One that is clearly
# larger, such as that to new prices, is followed nearly in full.
MOST_ERRORS = 3.0
# Amounts with which half of such a move is followed: a few may be outliers.
JUMP_AMOUNTS = 30.0
# Rows of an update that keep half of the level in its training.
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
    net: Any,
    train: TrainingRows,
    late_rows: TrainingRows | None = None,
    rows_per_weight: float | None = None,
) -> None:
    """Set the level of a fit by its training rows, and by the last rows in time.

    The `late_rows` move the level as far as their amounts tell. If weights are counts,
    one of 1 stands for `rows_per_weight` amounts.
    """
    sums = _shrink_by_amounts(net, train, rows_per_weight)
    terms = net.criterion_.value_terms
    net.module_.shift_values(sums.log_ratio())
    _count_amounts(terms, sums, _log_gap(terms, sums))
    if late_rows is not None:
        follow_rows(net, late_rows, rows_per_weight)


def follow_rows(
    net: Any, rows: TrainingRows, rows_per_weight: float | None = None
) -> None:
    """Move the level to that of later rows as far as their amounts tell.

    Without earlier amounts, the rows alone set the level. If weights are counts, one of
    1 stands for `rows_per_weight` amounts.
    """
    terms = net.criterion_.value_terms
    sums = _shrink_by_amounts(net, rows, rows_per_weight)
    log_gap = _pooled_gap(terms, sums)
    _move_level(net, _expected_move(terms, sums, log_gap))
    _count_amounts(terms, sums, log_gap)


def _expected_move(terms: ValueTerms, sums: AmountSums, log_gap: Tensor) -> Tensor:
    """Return the logarithms of the factors by which the level moves, less chance.

    They are weighted means of what the totals and the mean logarithms tell.
    """
    n_earlier = terms.n_amounts.cpu().double()
    variance_of_totals = _variance_of_totals(terms, sums)
    variance_of_logs = sums.variance_of_mean_log() + GAP_DEVIATION**2
    variance_of_logs = variance_of_logs.maximum(_least_variance(terms, sums))
    share_of_logs = variance_of_totals / (variance_of_totals + variance_of_logs)
    if terms.loss.reads_all_rows:
        # Amounts of 0 have no logarithm.
        share_of_logs = torch.zeros_like(share_of_logs)
    variance = (1 - share_of_logs) * variance_of_totals
    # The mean logarithm less the pooled gap is the level as the logarithms tell it.
    move_of_logs = sums.logs / sums.weights - log_gap
    move_of_totals = sums.log_ratio()
    move = move_of_totals.lerp(move_of_logs, share_of_logs)
    trust = _trust(move, variance, n_amounts=sums.n_amounts, n_earlier=n_earlier)
    # The ratio of few amounts is right on average, but its logarithm is too small.
    largest_move = MOST_ERRORS * variance_of_totals.sqrt()
    ratio = 1 + trust * (move_of_totals.minimum(largest_move).exp() - 1)
    # Many amounts may show a larger move.
    move_of_totals = ratio.log().maximum(trust * move_of_totals)
    expected_move = move_of_totals.lerp(trust * move_of_logs, share_of_logs)
    return torch.where(sums.has_totals, expected_move, 0.0)


def _trust(
    move: Tensor, variance: Tensor, *, n_amounts: Tensor, n_earlier: Tensor
) -> Tensor:
    """Return the share of a move that is not chance: 1 without earlier amounts."""
    # The earlier level has an error that depends on the number of its amounts.
    drift_square = DRIFT_DEVIATION**2 + variance * n_amounts / n_earlier
    share_of_drift = 1 / (1 + variance / drift_square)
    jump_square = (move.square() - MOST_ERRORS**2 * variance).clamp(min=0)
    share_of_jump = jump_square / (jump_square + variance)
    share_of_jump *= n_amounts**2 / (n_amounts**2 + JUMP_AMOUNTS**2)
    return share_of_drift.maximum(share_of_jump)


def log_means(net: Any, rows: TrainingRows) -> Tensor:
    """Return the logarithms of the mean predicted amounts of rows, `(n_values,)`."""
    n_rows = 0
    sums = torch.zeros(len(net.criterion_.value_terms.names), dtype=torch.float64)
    for impressions in rows.parts(shuffled=False):
        _, scores = net.predict_heads(impressions.spaced(MOST_ROWS))
        sums += scores.double().exp().sum(dim=0)
        n_rows += len(scores)
    return (sums / n_rows).log()


def keep_means(net: Any, rows: TrainingRows, earlier_log_means: Tensor) -> None:
    """Shift the predictions of a net to the mean amounts of rows before a training.

    One pass in short steps leaves a level that depends on its last rows, and statistics
    of more rows differ more. Few rows do not tell it, since their own predictions
    change more than those of others.
    """
    shift = earlier_log_means - log_means(net, rows)
    _move_level(net, shift * len(rows) / (len(rows) + KEPT_ROWS))


def _move_level(net: Any, log_factors: Tensor) -> None:
    net.module_.shift_values(log_factors)
    log_moves = net.criterion_.value_terms.log_moves
    log_moves += log_factors.to(log_moves)


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


def _variance_of_totals(terms: ValueTerms, sums: AmountSums) -> Tensor:
    return sums.variance_of_log_ratio().maximum(_least_variance(terms, sums))


def _log_gap(terms: ValueTerms, sums: AmountSums) -> Tensor:
    """Return the gap of rows; the logarithm of a ratio of few amounts is too small."""
    return sums.log_gap() - _variance_of_totals(terms, sums) / 2


def _pooled_gap(terms: ValueTerms, sums: AmountSums) -> Tensor:
    """Return the gaps over the rows so far and these ones."""
    earlier_gap = terms.log_gaps.cpu().double()
    n_earlier = terms.n_amounts.cpu().double().clamp(max=MOST_GAP_AMOUNTS)
    gap = _log_gap(terms, sums)
    n_all = n_earlier + sums.n_amounts
    pooled = (n_earlier * earlier_gap + sums.n_amounts * gap) / n_all
    return torch.where(earlier_gap.isnan(), gap, pooled)


def _count_amounts(terms: ValueTerms, sums: AmountSums, log_gap: Tensor) -> None:
    """Count the amounts of rows; their gap is that over all rows so far."""
    terms.n_amounts.add_(sums.n_amounts.to(terms.n_amounts))
    gap = log_gap.to(terms.log_gaps)
    has_totals = sums.has_totals.to(terms.log_gaps.device)
    terms.log_gaps.copy_(torch.where(has_totals, gap, terms.log_gaps))

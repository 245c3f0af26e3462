"""The level of events: one offset of the log-odds of each head.

An update follows the rates of its rows as far as they are surprising, see `_drift`. Its
training then leaves the level where it is: one pass in short steps leaves one that
depends on its last rows.
"""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sk_pwiser._rows._encoded_rows import TrainingRows
from sk_pwiser._training._levels._random_rows import random_output
from sk_pwiser._training._validation_figures import LOSS_ROWS

# Standard deviation of the offsets before the rows are seen. It decides for a task with
# a few events, whose share in so few rows says little.
PRIOR_DEVIATION = 0.5
# Events of earlier rows that halve its square.
LEVEL_EVENTS = 10
# Earlier rows with and without the event from which on their level is trusted.
TRUSTED_EVENTS = 100
# The level after an update is that before its training, whatever the offset.
ANY_DEVIATION = 10.0
# Events of an update that tell half of what its training has done to the level.
KEPT_EVENTS = 100.0
# Offsets are found within these bounds, in steps of Newton's method until the last one
# is shorter than the smallest.
LARGEST_OFFSET = 50.0
SMALLEST_STEP = 1e-9
MOST_STEPS = 60


class Heads(NamedTuple):
    """The log-odds of rows that an offset is added to, with labels and weights.

    All are on the CPU: not every device has float64.
    """

    logits: Tensor  # (n_rows, n_tasks)
    y: Tensor  # (n_rows, n_tasks)
    weights: Tensor  # (n_rows, n_tasks), 0 where a row says nothing of the task
    given_parents: bool  # whether they are the log-odds given that the parent happened


def read_heads(net: Any, rows: TrainingRows) -> Heads:
    """Return the heads of a net for rows, in the order of the rows."""
    iterator = net.get_iterator(rows)
    given_parents = net.module_.spec.task_space == "conditional"
    batches = []
    net._set_training(False)
    with torch.no_grad():
        for inputs, _ in iterator:
            # Neither composed nor converted to those of the full log.
            output = net.infer(inputs, partial(net.module_, composes=False))
            given_parents |= output.conditional_logits is not None
            logits = output.conditional_logits
            batches.append((output.logits if logits is None else logits).float())
    logits = iterator.in_row_order(torch.cat(batches)).cpu()
    y = rows.column("y").cpu()
    weights = rows.column("sample_weight")
    if weights is None:
        weights = torch.ones(len(y), 1)
    label_weights = weights.cpu().view(len(y), -1).expand_as(y)
    weights = label_weights.clone()
    for task, parent in enumerate(net.module_.spec.event_parents):
        if parent >= 0:
            # Labels that are not known yet are missing in rows with the parent only.
            happened = y[:, parent] == 1
            labelled, with_parent = weights[happened][:, [task, parent]].sum(dim=0)
            share = (labelled / with_parent).nan_to_num(1.0)
            lacks_parent = label_weights[:, parent] == 0
            weights[~happened & ~lacks_parent, task] *= 0 if given_parents else share
            if given_parents:
                weights[lacks_parent, task] = 0
    return Heads(logits, y, weights, given_parents)


def find_offset(heads: Tensor, y: Tensor, weights: Tensor, deviation: Any) -> Tensor:
    """Return the most probable offset of each task, float64 of shape `(n_tasks,)`.

    The other arguments have the shape `(n_rows, n_tasks)`, the deviation any. Labels
    may be probabilities.
    """
    # Tensors of float64 of many rows would need much memory.
    tensors = (torch.split(tensor, LOSS_ROWS) for tensor in (heads, y, weights))
    chunks = list(zip(*tensors, strict=True))
    precision = torch.as_tensor(deviation, dtype=torch.float64) ** -2
    n_tasks = y.shape[1]
    offset = torch.zeros(n_tasks, dtype=torch.float64)
    lowest = torch.full((n_tasks,), -LARGEST_OFFSET, dtype=torch.float64)
    highest = torch.full((n_tasks,), LARGEST_OFFSET, dtype=torch.float64)
    for _ in range(MOST_STEPS):
        slope = -precision * offset
        curvature = precision.expand(n_tasks).clone()
        for heads_of_chunk, y_of_chunk, weights_of_chunk in chunks:
            probabilities = (heads_of_chunk.double() + offset).sigmoid()
            slope += (weights_of_chunk * (y_of_chunk - probabilities)).sum(dim=0)
            squares = probabilities * (1 - probabilities)
            curvature += (weights_of_chunk * squares).sum(dim=0)
        lowest = torch.where(slope > 0, offset, lowest)
        highest = torch.where(slope < 0, offset, highest)
        step = (slope / curvature).nan_to_num()
        if bool((step.abs() < SMALLEST_STEP).all()):
            break
        # The posterior has one maximum: a step of Newton's method that leaves the
        # interval around it is replaced by one to its middle.
        newton = offset + step
        is_inside = (newton > lowest) & (newton < highest)
        offset = torch.where(is_inside, newton, (lowest + highest) / 2)
    return offset


def information(heads: Heads, offset: Tensor) -> Tensor:
    """Return the inverse squared error with which rows tell an offset, `(n_tasks,)`."""
    total = torch.zeros(heads.y.shape[1], dtype=torch.float64)
    for logits, weights in zip(
        heads.logits.split(LOSS_ROWS), heads.weights.split(LOSS_ROWS), strict=True
    ):
        p = (logits.double() + offset).sigmoid()
        total += (weights * p * (1 - p)).sum(dim=0)
    return total


class LevelBefore(NamedTuple):
    """The level of a net before the training of an update."""

    of_rows: Tensor  # probabilities of the heads, (n_rows, n_tasks)
    of_random_rows: Tensor  # (n_random_rows, n_tasks)
    surplus: Tensor  # by how much it is above the level of later rows, (n_tasks,)


def follow_update(
    net: Any,
    rows: TrainingRows,
    *,
    n_earlier: Tensor,
    elapsed: float,
    rows_per_weight: float | None = None,
) -> LevelBefore:
    """Shift the predictions of a net to the level of the rows of an update.

    The rows are trained on at their own level, which the features would learn
    otherwise. `keep_level` leaves the part of it that is expected to last.

    `n_earlier` are the numbers of events, or of rows without them, that earlier rows
    had. With fewer than `TRUSTED_EVENTS`, the shift goes no farther than the rates of
    all rows so far allow. If weights are counts, one of 1 stands for `rows_per_weight`
    rows.
    """
    heads = read_heads(net, rows)
    if rows_per_weight is not None:
        heads = heads._replace(weights=rows_per_weight * heads.weights)
    drift = net.criterion_.event_drift
    n_earlier = n_earlier.cpu().double()
    least_variance = PRIOR_DEVIATION**2 / (1 + n_earlier / LEVEL_EVENTS)
    variance = drift.prior_variance(elapsed, least_variance)
    offset = find_offset(heads.logits, heads.y, heads.weights, variance.sqrt())
    # The gap of a normal distribution that would have led to this offset.
    precision = information(heads, offset)
    gap = offset * (1 + 1 / (variance * precision))
    level = heads.logits.double().sigmoid().mean(dim=0).logit(1e-9)
    move = drift.move(
        gap, 1 / precision, elapsed=elapsed, least_variance=least_variance
    )
    rates = net.criterion_.possible_rates(given_parents=heads.given_parents)
    low, high = rates.cpu().double().logit(1e-9)
    low = torch.where(
        n_earlier >= TRUSTED_EVENTS, -torch.inf, (low - level).clamp(max=0)
    )
    high = torch.where(
        n_earlier >= TRUSTED_EVENTS, torch.inf, (high - level).clamp(min=0)
    )
    lasting = move.clamp(low, high)
    drift.shift(lasting - move)
    of_rows = offset.clamp(low, high)
    net.module_.shift_level(of_rows)
    return LevelBefore(
        of_rows=(heads.logits + of_rows.float()).sigmoid(),
        of_random_rows=random_heads(net).sigmoid(),
        surplus=of_rows - lasting,
    )


def random_heads(net: Any) -> Tensor:
    """Return the log-odds of the heads for random rows."""
    output = random_output(net)
    heads = output.conditional_logits
    return (output.logits if heads is None else heads).float().cpu()


def keep_level(net: Any, rows: TrainingRows, before: LevelBefore) -> None:
    """Shift the predictions of a net to the level that is expected after an update.

    It is that before the training on the rows, less what will not last.

    Few rows do not tell how the training has moved the level, since their own
    predictions change more than those of others: random rows tell it as well.
    """
    heads = read_heads(net, rows)
    of_rows = find_offset(heads.logits, before.of_rows, heads.weights, ANY_DEVIATION)
    random_logits = random_heads(net)
    of_random_rows = find_offset(
        random_logits,
        before.of_random_rows,
        torch.ones_like(random_logits),
        ANY_DEVIATION,
    )
    n_events = (heads.weights * heads.y > 0).sum(dim=0).double()
    share = n_events / (n_events + KEPT_EVENTS)
    net.module_.shift_level(of_random_rows.lerp(of_rows, share) - before.surplus)

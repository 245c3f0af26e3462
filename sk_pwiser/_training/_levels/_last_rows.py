"""The level of the last rows in time, which a fit does not train on.

A fit with a column of times follows its last rows as far as their evidence goes:

- Rows of one user, of one item or of one hour deviate together. The rows count as so
  many independent ones as the variance of the level over such clusters says.
- The level of a log goes up and down. A move counts as much as earlier moves of this
  log have lasted, unless it is larger than these.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sk_pwiser._rows._encoded_rows import TrainingRows
from sk_pwiser._training._levels._clock import TimeSpan
from sk_pwiser._training._levels._event_level import (
    PRIOR_DEVIATION,
    find_offset,
    read_heads,
)

# Blocks of time of the whole log have about as many rows each as are held out, so that
# earlier moves are like the last one. Fewer blocks tell nothing of the moves of a log.
FEWEST_BLOCKS = 5
# More make single blocks too small.
MOST_BLOCKS = 20
# How many earlier moves of its size the last move counts as, which are taken to have
# lasted: a move that is larger than all before it, such as a new page, is followed.
OWN_MOVES = 4.0
# Blocks of time of the held-out rows, over which their level varies.
HELD_OUT_BLOCKS = 10
# A column has ids, whose rows deviate together, from so many values on. Columns with
# target statistics have as many by default.
FEWEST_IDS = 100
# Clusters of equal size from which on their variance can be told; with clusters of
# other sizes, what their inverse Simpson index is.
FEWEST_CLUSTERS = 1.5


@dataclass(kw_only=True)
class LevelRecord:
    """The level of a log over time, and the times of the rows that are held out.

    Rows may be added in several parts.
    """

    parents: Sequence[int]
    times: TimeSpan
    edges: np.ndarray  # the first times of the blocks after the first one
    first_late: float  # rows before this time are not among the last ones
    # Per block and task: the weights of the events, and of the rows in which the parent
    # happened and the label is known.
    events: np.ndarray
    exposures: np.ndarray
    held_out_times: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def of(
        cls, times: np.ndarray, held_out_share: float, parents: Sequence[int]
    ) -> "LevelRecord":
        """Return an empty record of a log with these times, or with more such ones."""
        n_blocks = min(max(round(1 / held_out_share), FEWEST_BLOCKS), MOST_BLOCKS)
        shares = np.arange(1, n_blocks) / n_blocks
        edges = np.unique(np.quantile(times, shares, method="higher"))
        # Groups and equal times may make the last rows more than that share.
        late_share = min(2 * held_out_share, 1.0)
        first_late = float(np.quantile(times, 1 - late_share, method="lower"))
        shape = len(edges) + 1, len(parents)
        return cls(
            parents=parents,
            times=TimeSpan(float(times.min()), float(times.max())),
            edges=edges,
            first_late=first_late,
            events=np.zeros(shape),
            exposures=np.zeros(shape),
        )

    def add(
        self,
        times: np.ndarray,
        y: np.ndarray,
        weights: np.ndarray | None,
        is_held_out: np.ndarray,
    ) -> None:
        """Add rows with their labels, `(n_rows, n_tasks)`."""
        self.held_out_times.append(times[is_held_out])
        block = np.searchsorted(self.edges, times, side="right")
        if weights is None:
            weights = np.ones((len(y), 1))
        weights = np.broadcast_to(weights.reshape(len(y), -1), y.shape)
        for task, parent in enumerate(self.parents):
            exposure = weights[:, task]
            event = exposure * y[:, task]
            if parent >= 0:
                exposure = exposure * y[:, parent]
            n_blocks = len(self.events)
            self.events[:, task] += np.bincount(block, event, n_blocks)
            self.exposures[:, task] += np.bincount(block, exposure, n_blocks)

    def lasting_share(self, offset: np.ndarray, given_parents: bool) -> np.ndarray:
        """Return the share of an offset of each task that is expected to last.

        It is the slope by which the level of a block, relative to that of all blocks
        before the last one, depends on the level of this last one.
        """
        has_rows = self.exposures.max(axis=1) > 0
        events = self.events[has_rows]
        exposures = self.exposures[has_rows]
        if len(events) < FEWEST_BLOCKS:
            return np.ones(len(offset))
        levels = self._log_odds(events, exposures, given_parents)
        n_events = events.cumsum(axis=0)
        n_exposures = exposures.cumsum(axis=0)
        earlier_levels = self._log_odds(n_events, n_exposures, given_parents)[:-2]
        moves = levels[1:-1] - earlier_levels
        later_moves = levels[2:] - earlier_levels
        squared_offset = OWN_MOVES * offset**2
        lasted = squared_offset + (moves * later_moves).sum(axis=0)
        squared_moves = squared_offset + (moves**2).sum(axis=0)
        share = lasted / squared_moves.clip(1e-12)
        return np.asarray(share.clip(0.0, 1.0))

    def _log_odds(
        self, events: np.ndarray, exposures: np.ndarray, given_parents: bool
    ) -> np.ndarray:
        """Return the log-odds of the tasks, with half an event more of both kinds."""
        rates = (events + 0.5) / (exposures + 1.0)
        if not given_parents:
            for task, parent in enumerate(self.parents):
                if parent >= 0:
                    rates[:, task] *= rates[:, parent]
        return np.asarray(np.log(rates) - np.log1p(-rates))


def follow_last_rows(net: Any, rows: TrainingRows, record: LevelRecord) -> None:
    """Shift the predictions of a net towards the level of the last rows in time."""
    offset, lasting_share = offset_of_last_rows(net, rows, record)
    net.module_.shift_level(offset * lasting_share)


def offset_of_last_rows(
    net: Any, rows: TrainingRows, record: LevelRecord
) -> tuple[Tensor, Tensor]:
    """Return the offset that the last rows ask for, and the share of it to expect."""
    logits, y, weights, given_parents = read_heads(net, rows)
    times = np.concatenate(record.held_out_times)
    is_late = times >= record.first_late
    weights = weights * torch.from_numpy(is_late).unsqueeze(1)
    first = find_offset(logits, y, weights, PRIOR_DEVIATION)
    probabilities = (logits.double() + first).sigmoid()
    scores = weights * (y - probabilities)
    information = weights * probabilities * (1 - probabilities)
    effect = design_effect(
        scores.double().numpy(),
        information.double().numpy(),
        _clusters(net, rows, np.searchsorted(np.sort(times[is_late]), times)),
    )
    independent = weights / torch.from_numpy(effect)
    offset = find_offset(logits, y, independent, PRIOR_DEVIATION)
    share = record.lasting_share(offset.numpy(), given_parents)
    return offset, torch.from_numpy(share)


def _clusters(net: Any, rows: TrainingRows, rank: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the numbers of clusters: by time, by group and by each column of ids.

    `rank` has the number of late rows before the time of each row.
    """
    yield rank * HELD_OUT_BLOCKS // (rank.max() + 1)
    groups = rows.column("groups")
    if groups is not None:
        yield groups.cpu().numpy()
    spec = net.module_.spec
    ids = [
        column
        for column, n_values in enumerate(spec.cardinalities)
        if n_values >= FEWEST_IDS
    ]
    if not ids:
        return
    codes = rows.column("codes").cpu()
    for column in ids:
        cluster = codes[:, column].numpy().astype(np.int64)
        # Rows without a value have nothing in common, and rare values have few rows.
        # The codes of both come before those of the values.
        no_value = np.flatnonzero(cluster <= spec.unseen_code)
        cluster[no_value] = -1 - np.arange(len(no_value))
        yield cluster


def design_effect(
    scores: np.ndarray, information: np.ndarray, clusters: Iterator[np.ndarray]
) -> np.ndarray:
    """Return how many rows say as much of an offset as one independent row would.

    It is the variance of the sum of the scores between clusters, over that of
    independent rows: the largest of several kinds of clusters, at least 1, per task.

    Parameters
    ----------
    scores : ndarray of shape (n_rows, n_tasks)
        Derivatives of the log likelihoods of the rows by the offsets.
    information : ndarray of shape (n_rows, n_tasks)
        Minus their second derivatives.
    clusters : iterator of ndarray of shape (n_rows,)
        The numbers of the clusters of the rows, for each kind of clusters.

    Returns
    -------
    ndarray of shape (n_tasks,)
        The effects.
    """
    total = information.sum(axis=0).clip(1e-12)
    # Those at the most probable offset without a prior, whose sum is 0.
    centred = scores - information * (scores.sum(axis=0) / total)
    effect = np.ones(scores.shape[1])
    for numbers in clusters:
        _, cluster = np.unique(numbers, return_inverse=True)
        for task in range(scores.shape[1]):
            sums = np.bincount(cluster, centred[:, task])
            shares = np.bincount(cluster, information[:, task]) / total[task]
            concentration = (shares**2).sum()
            if concentration * FEWEST_CLUSTERS < 1:
                # The centre takes a part of the variance, as that of C / (C - 1).
                variance = (sums**2).sum() / (1 - concentration)
                effect[task] = max(effect[task], variance / total[task])
    return effect

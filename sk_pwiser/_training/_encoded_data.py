"""The rows of a fit as tensors, and what the host has learnt of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from sk_pwiser._rows._encoded_rows import Impressions, TrainingRows
from sk_pwiser._training._levels._clock import TimeSpan
from sk_pwiser._training._schema import Schema

if TYPE_CHECKING:
    from sk_pwiser._training._levels._last_rows import LevelRecord


class Epochs(NamedTuple):
    """The epochs of a training."""

    monitor: str | None  # column of the history that early stopping monitors
    first: int  # epoch that may be the best one
    last: int


# An update passes over its rows once.
SINGLE_PASS = Epochs(None, 1, 1)


@dataclass(frozen=True, kw_only=True)
class EncodedData:
    """The rows as tensors, and what the host has learnt of them."""

    train: TrainingRows
    valid: TrainingRows | None = None
    further: Mapping[str, TrainingRows] = field(default_factory=dict)  # only measured
    schema: Schema
    epochs: Epochs
    weight_scale: float  # by which weights were divided
    base_rates: Sequence[float]  # of these rows; in later updates, of the first call
    # Per row, validation rows included: the numbers of events of each task, and the
    # weights of these and of the events of its parent, or of all rows without one.
    event_shares: Sequence[Sequence[float]] = ()
    holds_out: bool = False  # whether a part of the rows is held out
    split_rows: dict[str, Any] | None = None  # that these were drawn from at random
    unrelated: Mapping[int, float] = field(default_factory=dict)  # of `Targets`
    # The level over time, if the last rows in time are held out.
    level: "LevelRecord | None" = None
    times: TimeSpan | None = None  # of the rows of an update, if times are named
    # Whether each training row is in the first half in time, for a trial of the weight.
    is_early: Any = None
    # If weights are counts: the rows that a scaled weight of 1 stands for, and those
    # that a row stands for on average.
    rows_per_weight: float | None = None
    rows_per_row: float = 1.0

    @property
    def n_counted(self) -> float:
        """Number of the rows that the training rows stand for."""
        return len(self.train) * self.rows_per_row

    def to(self, device: torch.device) -> "EncodedData":
        """Move the tensors to a device if they fit."""
        train = self.train.to(device)
        further = {name: rows.to(train.device) for name, rows in self.further.items()}
        valid = self.valid
        if isinstance(valid, Impressions) and valid.rows is not None:
            # Both select rows of the same tensors, which are moved once.
            assert isinstance(train, Impressions)
            valid = replace(train, rows=valid.rows.to(train.device))
        elif valid is not None:
            valid = valid.to(device)
        return replace(self, train=train, valid=valid, further=further)

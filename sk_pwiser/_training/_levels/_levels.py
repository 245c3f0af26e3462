"""The levels of a net: the one place that says when they are set, moved and kept."""

from typing import Any, NamedTuple

import torch

from sk_pwiser._rows._encoded_rows import TrainingRows
from sk_pwiser._training._encoded_data import EncodedData
from sk_pwiser._training._levels import _amount_level, _event_level
from sk_pwiser._training._levels._amount_level import MeansBefore
from sk_pwiser._training._levels._event_level import LevelBefore
from sk_pwiser._training._levels._last_rows import follow_last_rows


class LevelsBefore(NamedTuple):
    """The levels of a net before the training of an update."""

    events: LevelBefore | None  # None if they are not kept
    mean_amounts: MeansBefore | None  # None without a level of amounts


class Levels:
    """The levels of the events and of the amounts of a net.

    Parameters
    ----------
    net : MultiTaskNet
        The net, whose network stores them.

    Examples
    --------
    A fit calls `set_by_fit` after its training. An update calls `follow`, trains, and
    calls `keep`, and `keep_amounts` once its rows are part of the statistics.
    """

    def __init__(self, net: Any) -> None:
        self.net = net
        self.network = net.module_
        self.criterion = net.criterion_

    # ------------------------------------------------------------------- fits

    def set_by_fit(self, data: EncodedData) -> None:
        """Set the levels after the training of a fit.

        Those of events are right on the training rows. The level of a log drifts, and
        its last rows, if they are known, are not trained on.
        """
        times = None if data.level is None else data.level.times
        self.criterion.clock.start(data.n_counted, times)
        late_rows = None if data.level is None else data.valid
        if data.level is not None and late_rows is not None:
            follow_last_rows(self.net, late_rows, data.level)
        if self.criterion.value_terms is None:
            return
        _amount_level.set_level(self.net, data.train, data.rows_per_weight)
        if late_rows is not None:
            _amount_level.follow_rows(
                self.net,
                late_rows,
                elapsed=len(late_rows) / (len(data.train) + len(late_rows)),
                rows_per_weight=data.rows_per_weight,
            )

    def of_events(self) -> list[float] | None:
        """Return the offsets of the log-odds, None if none was set."""
        offset = self.network.level_offset
        return None if offset is None else offset.tolist()

    def moves_of_amounts(self) -> list[float] | None:
        """Return by how much the last rows in time have moved the levels of amounts."""
        terms = self.criterion.value_terms
        return None if terms is None else terms.log_moves.tolist()

    def shift_as_measured(
        self, log_odds: list[float] | None, log_moves: list[float] | None
    ) -> None:
        """Move the levels as an earlier stage of a fit has found it to be right."""
        if log_odds is not None:
            self.network.shift_level(torch.tensor(log_odds))
        if log_moves is not None:
            moves = torch.tensor(log_moves)
            self.network.shift_values(moves)
            log_moves_so_far = self.criterion.value_terms.log_moves
            log_moves_so_far += moves.to(log_moves_so_far)

    # ---------------------------------------------------------------- updates

    def follow(self, data: EncodedData) -> LevelsBefore:
        """Count the rows of an update, and move the levels as far as they tell.

        Returns the levels after it, which the training shall not change.
        """
        criterion = self.criterion
        is_first = bool(criterion.n_rows == 0)
        n_earlier_rows = float(criterion.n_rows)
        if is_first:
            criterion.clock.start(data.n_counted, data.times)
        elapsed = criterion.clock.advance(data.n_counted, data.times, n_earlier_rows)
        events = None
        if self.net.settings.lr_schedule is not None:
            events = self._follow_events(data, elapsed, is_first=is_first)
        log_means = None
        if self._has_amounts():
            self._follow_amounts(data, elapsed)
            log_means = _amount_level.log_means(self.net, data.train)
        return LevelsBefore(events, log_means)

    def keep(self, data: EncodedData, before: LevelsBefore) -> None:
        """Take back what the training of an update has done to the levels.

        The first amounts of a model set their level.
        """
        if before.events is not None:
            _event_level.keep_level(self.net, data.train, before.events)
        if self.criterion.value_terms is not None and before.mean_amounts is None:
            self._follow_amounts(data, elapsed=0.0)

    def keep_amounts(self, rows: TrainingRows, before: LevelsBefore) -> None:
        """Take back what training, and statistics of more rows, did to amounts."""
        if before.mean_amounts is not None:
            _amount_level.keep_means(self.net, rows, before.mean_amounts)

    def _follow_events(
        self, data: EncodedData, elapsed: float, *, is_first: bool
    ) -> LevelBefore | None:
        criterion = self.criterion
        rows = data.train
        n_earlier = torch.minimum(
            criterion.n_events, criterion.n_rows - criterion.n_events
        )
        criterion.count_rows(
            rows.column("y"), rows.column("sample_weight"), data.rows_per_weight
        )
        if is_first:
            return None
        self.network.set_base_rates(criterion.rates_so_far())
        # The steps of updates are short: without a single event in the first call,
        # probabilities would stay a hundred times too low for thousands of rows.
        return _event_level.follow_update(
            self.net,
            rows,
            n_earlier=n_earlier,
            elapsed=elapsed,
            rows_per_weight=data.rows_per_weight,
        )

    def _has_amounts(self) -> bool:
        terms = self.criterion.value_terms
        return terms is not None and bool((terms.n_amounts > 0).any())

    def _follow_amounts(self, data: EncodedData, elapsed: float) -> None:
        _amount_level.follow_rows(
            self.net,
            data.train,
            elapsed=elapsed,
            rows_per_weight=data.rows_per_weight,
        )

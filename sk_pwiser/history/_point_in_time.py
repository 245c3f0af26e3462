"""What was known of keys at an instant: counts, rates, ages and last values.

A row at time t counts an impression at time s if s < t - state_delay, and its label if
s < t - state_delay - label_delay.
Counts are differences of cumulated counts between places in the sorted rows of a key.
"""

import math
from typing import NamedTuple

import numpy as np

from sk_pwiser.history._key_log import (
    add_totals,
    bisect,
    decay,
    decayed_rows,
    no_totals,
)

# Adding and subtracting it rounds to multiples of 2^-32: log-odds near 0 are mostly the
# rounding errors of logarithms, which differ between arrays and single rows.
GRID = 2.0**20


class View(NamedTuple):
    """What queries see of the rows of their keys, one entry per query."""

    code: np.ndarray
    is_on: np.ndarray  # whether the totals of the key count
    start: np.ndarray  # of the rows before the instant, up to `end`
    end: np.ndarray
    last: np.ndarray  # the time of the last row, if it `has_any`
    has_any: np.ndarray


class Past:
    """A `KeyLog` with cumulated counts, for queries at any time from its totals on.

    Another key behind those of the log has no past, for queries of unknown keys.
    With a `max_age`, the rows of a key form stretches: one ends where the key has no
    impression for longer than this age, and only the present one counts.
    """

    def __init__(self, log, plan, key=0):
        self.own, log = log, log.with_empty_key()
        self.log, self.plan, self.lists = log, plan, plan.lists_of(key)
        known, positive = log.labels >= 0, log.labels == 1
        self.known, self.positive = _cumulate(known), _cumulate(positive)
        places = np.where(positive, np.arange(len(positive))[:, np.newaxis], -1)
        # The last row with a label of 1 up to each row, of whichever key.
        self.last_positive = np.maximum.accumulate(places, axis=0)
        self._find_stretches()
        self.decayed = decayed_rows(log, self.stretch, plan.half_lives)

    def _find_stretches(self):
        """Find the first row of each row's stretch, and keys whose totals go on in it.

        `is_linked` says whether the first row of a key continues its totals.
        """
        own, totals, max_age = self.own, self.log.totals, self.plan.max_age
        time, keys = own.time, own.rows.keys()
        first = own.offsets[:-1][keys]
        is_first = np.arange(len(time)) == first
        self.stretch, self.is_linked = first, totals["count"] > 0
        if max_age is None or not len(time):
            return
        before = np.where(
            is_first, totals["last"][keys], np.append(time[:1], time[:-1])
        )
        is_new = time - before > max_age
        places = np.where(is_first | is_new, np.arange(len(time)), 0)
        self.stretch = np.maximum.accumulate(places)
        self.is_linked[keys[is_first & is_new]] = False

    def view(self, code, time):
        """Return what queries see."""
        log, max_age = self.log, self.plan.max_age
        start = log.offsets[code]
        seen = time - self.plan.state_delay
        end = bisect(log.time, start, log.offsets[code + 1], seen)
        has_rows, is_known = end > start, code < log.n_keys
        code = np.where(is_known, code, 0)
        # Totals that are not linked to the first row count before that row.
        is_on = is_known & (log.totals["count"][code] > 0)
        last = log.totals["last"][code]
        if len(log.time):
            before = np.maximum(end - 1, 0)
            begin = np.where(has_rows, self.stretch[before], start)
            is_on &= ~has_rows | (self.is_linked[code] & (begin == start))
            last = np.where(has_rows, log.time[before], last)
            start = begin
        has_any = has_rows | is_on
        if max_age is not None:
            has_any = has_any & (time - last <= max_age)
            start, is_on = np.where(has_any, start, end), is_on & has_any
        return View(code, is_on, start, end, last, has_any)

    def priors(self, code, time):
        """Return, per task, what shrinks the log-odds of others to a key's."""
        view = self.view(code, time)
        seen = self._seen_labels(view, time)
        _, known, positive = next(self._counts(view, seen, time))
        return [
            rate_prior(n, k, self.plan.smoothing)
            for n, k in zip(known, positive, strict=True)
        ]

    def numbers(self, code, time, priors):
        """Return the numbers of `Plan.names_of_key`, for places of keys."""
        view = self.view(code, time)
        seen = self._seen_labels(view, time)
        numbers = self._ages(view, seen, time)
        for impressions, known, positive in self._counts(view, seen, time):
            numbers.append(np.log1p(impressions))
            for n, k, prior in zip(known, positive, priors, strict=True):
                events, others, logit = prior
                numbers += [
                    np.log1p(k),
                    np.log((k + events) / (n - k + others)) - logit + GRID - GRID,
                ]
        return numbers

    def _seen_labels(self, view, time):
        """Return, per task, the end of the rows whose labels are known."""
        ends = {self.plan.state_delay: view.end}
        for lag in self.plan.lags:
            if lag not in ends:
                rows = self.log.time, view.start, view.end
                ends[lag] = bisect(*rows, time - lag)
        return [ends[lag] for lag in self.plan.lags]

    def _ages(self, view, seen, time):
        """Return the ages of the last impression and of the last event per task."""
        log, unit = self.log, self.plan.unit
        ages = [np.where(view.has_any, (time - view.last) / unit, math.nan)]
        for k, end in enumerate(seen):
            last = log.totals["last_positive"][view.code, k]
            has_one = view.is_on & (log.totals["positive"][view.code, k] > 0)
            if len(log.time):
                place = self.last_positive[np.maximum(end - 1, 0), k]
                is_recent = (end > view.start) & (place >= view.start)
                last = np.where(is_recent, log.time[place], last)
                has_one = has_one | is_recent
            ages.append(np.where(has_one, (time - last) / unit, math.nan))
        return ages

    def _counts(self, view, seen, time):
        """Yield, per horizon, the impressions, and labels known and of 1 per task."""
        log, on = self.log, view.is_on
        counts = [view.end - view.start + on * log.totals["count"][view.code]]
        for name, rows in (("known", self.known), ("positive", self.positive)):
            total = log.totals[name]
            counts.append(
                [
                    rows[end, k] - rows[view.start, k] + on * total[view.code, k]
                    for k, end in enumerate(seen)
                ]
            )
        yield counts
        for window in self.plan.windows:
            start = bisect(log.time, view.start, view.end, time - window)
            ends = [np.maximum(end, start) for end in seen]
            yield (
                view.end - start,
                *(
                    [rows[end, k] - rows[start, k] for k, end in enumerate(ends)]
                    for rows in (self.known, self.positive)
                ),
            )
        for h, half_life in enumerate(self.plan.half_lives):
            yield self._decayed_counts(view, seen, time, h, half_life)

    def _decayed_counts(self, view, seen, time, h, half_life):
        log, n_tasks = self.log, len(seen)
        scale = view.is_on * 1.0
        if log.reference is not None:
            scale = scale * np.exp2(-(time - log.reference) / half_life)

        recent = []  # the last row before each end, and its weight
        for end in [view.end, *seen] if len(log.time) else ():
            has_rows = end > view.start
            row = np.where(has_rows, end - 1, 0)
            # Row 0 may be later than the query, and its weight infinite.
            age = np.where(has_rows, time - log.time[row], 0)
            weight = np.exp2(-age / half_life)
            recent.append((row, np.where(has_rows, weight, 0.0)))

        def upto(i, column):
            total = log.totals["decayed"][view.code, h, column] * scale
            if not recent:
                return total
            row, weight = recent[i]
            return total + self.decayed[row, h, column] * weight

        known = [upto(k, k) for k in range(1, n_tasks + 1)]
        positive = [upto(k, n_tasks + k) for k in range(1, n_tasks + 1)]
        return upto(0, 0), known, positive

    def last_values(self, place, code, time):
        """Return sizes, values by index, and ages of the elements of a list."""
        each, log = self.lists[place], self.log.lists[place]
        start, end = log.offsets[code], log.offsets[code + 1]
        if self.plan.max_age is not None:
            view = self.view(code, time)
            first = self.log.totals["first"][view.code]
            if len(self.log.time):
                row = np.minimum(view.start, len(self.log.time) - 1)
                first = np.where(view.is_on, first, self.log.time[row])
            start = bisect(log.time, start, end, first)
            end = np.where(view.has_any, end, start)
        end = bisect(log.time, start, end, time - each.lag)
        found = log.cut(np.maximum(start, end - each.n), end)
        sizes = np.diff(found.offsets)
        ages = (np.repeat(time, sizes) - found.time) / self.plan.unit
        return sizes, found.value, ages

    def folded(self, end):
        """Return the log at its end, with rows that have become old as totals."""
        log, plan = self.own, self.plan
        begin, stops = log.offsets[:-1].copy(), log.offsets[1:]
        has_rows = stops > begin
        begin[has_rows] = self.stretch[stops[has_rows] - 1]
        is_on = log.totals["count"] > 0
        is_linked = self.is_linked[: log.n_keys] & (begin == log.offsets[:-1])
        is_on &= ~has_rows | is_linked
        cut = bisect(log.time, begin, stops, np.full(len(begin), end - plan.horizon))
        totals = {
            name: np.where(is_on.reshape(-1, *[1] * (total.ndim - 1)), total, 0)
            for name, total in log.totals.items()
        }
        if log.reference is not None:
            totals["decayed"] *= decay(end - log.reference, plan.half_lives)[:, None]
        totals = add_totals(totals, self._totals_of(begin, cut, end))
        lists = [
            self._newest(own, each, end, begin, is_on, totals["first"])
            for own, each in zip(log.lists, self.lists, strict=True)
        ]
        rows = log.rows.cut(cut, stops)
        return log.replaced(rows=rows, lists=lists, totals=totals, reference=end)

    def _totals_of(self, begin, cut, end):
        """Return the totals of the rows `begin[i]:cut[i]` of each key at an instant."""
        time, half_lives = self.log.time, self.plan.half_lives
        n_tasks = self.positive.shape[1]
        totals = no_totals(len(cut), n_tasks, len(half_lives), time.dtype)
        has_rows = cut > begin
        first, last = begin[has_rows], cut[has_rows] - 1
        totals["count"] = cut - begin
        totals["known"] = self.known[cut] - self.known[begin]
        totals["positive"] = self.positive[cut] - self.positive[begin]
        totals["first"][has_rows] = time[first]
        totals["last"][has_rows] = time[last]
        place = self.last_positive[last]
        is_own = place >= first[:, np.newaxis]
        totals["last_positive"][has_rows] = np.where(is_own, time[place], 0)
        for h, half_life in enumerate(half_lives):
            weight = decay(end - time[last], half_life)[:, np.newaxis]
            totals["decayed"][has_rows, h] = self.decayed[last, h] * weight
        return totals

    def _newest(self, log, each, end, begin, is_on, first):
        """Return the elements of a list that queries from an instant on may see."""
        start, stop = log.offsets[:-1], log.offsets[1:]
        if self.plan.max_age is not None and len(log.time):
            first = first.astype(log.time.dtype)
            has_rows = ~is_on & (begin < self.own.offsets[1:])
            first[has_rows] = self.log.time[begin[has_rows]]
            start = bisect(log.time, start, stop, first)
        bound = np.full(len(start), end - each.lag)
        start = np.maximum(start, bisect(log.time, start, stop, bound) - each.n)
        return log.cut(start, stop)


def _cumulate(is_counted):
    return np.insert(is_counted.cumsum(axis=0, dtype=np.int64), 0, 0, axis=0)


def rate_prior(known, positive, smoothing):
    """Return the events and the other rows that are added to rates, and the log-odds.

    The rarer of the two are `smoothing`. The rate is 1/2 before any label.
    """
    rate = (positive + 0.5) / (known + 1)
    strength = smoothing / np.minimum(rate, 1 - rate)
    return strength * rate, strength * (1 - rate), np.log(rate / (1 - rate))

"""What was known of keys at an instant: counts, rates, ages and last values.

A row at time t counts an impression at time s if s < t, and its label if s < t - delay.
Counts are differences of cumulated counts between places in the sorted rows of a key.
"""

import copy
import math
from bisect import bisect_left
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from sk_pwiser.history._key_log import (
    ListLog,
    bisect,
    decay,
    decayed_sums,
    ranges,
    replaced,
    select_keys,
    without_keys,
)

# The functions of queries. NumPy needs about a microsecond per call, however short its
# arrays are, and Python reads a number from a memoryview in a twentieth of that.
OF_ARRAYS = SimpleNamespace(
    where=np.where,
    minimum=np.minimum,
    maximum=np.maximum,
    log=np.log,
    log1p=np.log1p,
    exp2=np.exp2,
    bisect=bisect,
)
OF_NUMBERS = SimpleNamespace(
    where=lambda condition, a, b: a if condition else b,
    minimum=min,
    maximum=max,
    log=math.log,
    log1p=math.log1p,
    exp2=math.exp2,
    bisect=lambda values, low, high, bound: bisect_left(values, bound, low, high),
)


class View(NamedTuple):
    """What queries see of the rows of their keys, one entry per query.

    `is_on` says whether the totals of the key count; its rows before the instant are
    those from `start` to `end`, and `last` is the time of the last one, if it
    `has_any`.
    """

    code: np.ndarray
    is_on: np.ndarray
    start: np.ndarray
    end: np.ndarray
    last: np.ndarray
    has_any: np.ndarray


class Past:
    """A `KeyLog` with cumulated counts, for queries at any time from its totals on.

    With a `max_age`, the rows of a key form stretches: one ends where the key has no
    impression for longer than this age, and only the present one counts.

    Queries are arrays of keys and times; those of `for_one_row` are single numbers.
    """

    use = OF_ARRAYS

    def __init__(self, log, plan, windows=(), half_lives=(), lists=()):
        self.is_empty = not log.n_keys
        log = log if log.n_keys else without_keys(log, len(half_lives))
        self.log, self.plan = log, plan
        self.windows, self.half_lives, self.lists = windows, half_lives, lists
        n_rows, n_tasks = log.labels.shape
        known, positive = log.labels >= 0, log.labels == 1
        self.known, self.positive = _cumulate(known), _cumulate(positive)
        places = np.where(positive, np.arange(n_rows)[:, np.newaxis], -1)
        # The last row with a label of 1 up to each row, of whichever key.
        self.last_positive = np.maximum.accumulate(places, axis=0)
        self._find_stretches()
        place = np.arange(n_rows) - self.stretch
        summands = np.concatenate([np.ones((n_rows, 1)), known, positive], axis=1)
        self.decayed = np.zeros((n_rows, len(half_lives), 1 + 2 * n_tasks))
        for h, half_life in enumerate(half_lives):
            self.decayed[:, h] = decayed_sums(log.time, place, summands, half_life)

    def _find_stretches(self):
        """Find the first row of each row's stretch, and if the totals belong to it."""
        log, max_age = self.log, self.plan.max_age
        starts, sizes = log.offsets[:-1], np.diff(log.offsets)
        self.is_linked = log.totals["count"] > 0
        self.stretch = np.repeat(starts, sizes)
        if max_age is None or not len(log.time):
            return
        begins = np.append(True, np.diff(log.time) > max_age)
        begins[starts[sizes > 0]] = True
        places = np.where(begins, np.arange(len(log.time)), 0)
        self.stretch = np.maximum.accumulate(places)
        first = log.time[np.minimum(starts, len(log.time) - 1)]
        is_late = (sizes > 0) & (first - log.totals["last"] > max_age)
        self.is_linked = self.is_linked & ~is_late

    def for_one_row(self):
        """Return the same past for queries of a single key and time."""
        one, log = copy.copy(self), self.log
        one.use = OF_NUMBERS
        one.log = replaced(
            log,
            offsets=_view(log.offsets),
            time=_view(log.time),
            lists=[ListLog(*map(_view, vars(each).values())) for each in log.lists],
            totals={name: _view(total) for name, total in log.totals.items()},
        )
        for name in ("known", "positive", "last_positive", "decayed"):
            setattr(one, name, _view(getattr(self, name)))
        one.stretch, one.is_linked = _view(self.stretch), _view(self.is_linked)
        return one

    def view(self, code, time):
        """Return what queries see; a code of -1 sees nothing."""
        log, use, max_age = self.log, self.use, self.plan.max_age
        is_known = code >= 0
        code = use.where(is_known, code, 0)
        start = use.where(is_known, log.offsets[code], 0)
        end = use.where(is_known, log.offsets[code + 1], 0)
        end = use.bisect(log.time, start, end, time)
        has_rows, has_none = end > start, end == start
        last = log.totals["last"][code]
        is_on = is_known & self.is_linked[code]
        if len(log.time):
            before = use.maximum(end - 1, 0)
            last = use.where(has_rows, log.time[before], last)
            begin = use.where(has_rows, self.stretch[before], start)
            is_on = is_on & (has_none | (begin == start))
            start = begin
        # Totals that are not linked to the first row count for none before it either.
        has_totals = is_known & (log.totals["count"][code] > 0)
        is_on = is_on | (has_totals & has_none)
        has_any = has_rows | is_on
        if max_age is not None:
            has_any = has_any & (time - last <= max_age)
            start, is_on = use.where(has_any, start, end), is_on & has_any
        return View(code, is_on, start, end, last, has_any)

    def priors(self, code, time):
        """Return, per task, what shrinks the log-odds of other keys to those of a key.

        These are the events and the other rows that are added, such that the rarer of
        the two are `smoothing`, and the log-odds. The rate is 1/2 before any label.
        """
        use, view = self.use, self.view(code, time)
        seen = self._seen_labels(view, time)
        _, known, positive = next(self._counts(view, seen, time))
        priors = []
        for n, k in zip(known, positive, strict=True):
            rate = (k + 0.5) / (n + 1)
            strength = self.plan.smoothing / use.minimum(rate, 1 - rate)
            logit = use.log(rate / (1 - rate))
            priors.append((strength * rate, strength * (1 - rate), logit))
        return priors

    def numbers(self, code, time, priors):
        """Return the numbers of `Plan.names_of_key`, for places of keys or -1."""
        log, log1p = self.use.log, self.use.log1p
        view = self.view(code, time)
        seen = self._seen_labels(view, time)
        numbers = self._ages(view, seen, time)
        for impressions, known, positive in self._counts(view, seen, time):
            numbers.append(log1p(impressions))
            for n, k, prior in zip(known, positive, priors, strict=True):
                events, others, logit = prior
                numbers += [log1p(k), log((k + events) / (n - k + others)) - logit]
        return numbers

    def _seen_labels(self, view, time):
        """Return, per task, the end of the rows whose labels are known."""
        ends = {0: view.end}
        for delay in self.plan.delays:
            if delay not in ends:
                rows = self.log.time, view.start, view.end
                ends[delay] = self.use.bisect(*rows, time - delay)
        return [ends[delay] for delay in self.plan.delays]

    def _ages(self, view, seen, time):
        """Return the ages of the last impression and of the last event per task."""
        log, use, unit = self.log, self.use, self.plan.unit
        ages = [use.where(view.has_any, (time - view.last) / unit, math.nan)]
        for k, end in enumerate(seen):
            last = log.totals["last_positive"][view.code, k]
            has_one = view.is_on & (log.totals["positive"][view.code, k] > 0)
            if len(log.time):
                place = self.last_positive[use.maximum(end - 1, 0), k]
                is_recent = (end > view.start) & (place >= view.start)
                last = use.where(is_recent, log.time[place], last)
                has_one = has_one | is_recent
            ages.append(use.where(has_one, (time - last) / unit, math.nan))
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
        for window in self.windows:
            start = self.use.bisect(log.time, view.start, view.end, time - window)
            ends = [self.use.maximum(end, start) for end in seen]
            yield (
                view.end - start,
                *(
                    [rows[end, k] - rows[start, k] for k, end in enumerate(ends)]
                    for rows in (self.known, self.positive)
                ),
            )
        for h, half_life in enumerate(self.half_lives):
            yield self._decayed_counts(view, seen, time, h, half_life)

    def _decayed_counts(self, view, seen, time, h, half_life):
        log, use, n_tasks = self.log, self.use, len(seen)
        scale = view.is_on * 1.0
        if log.reference is not None:
            scale = scale * use.exp2(-(time - log.reference) / half_life)

        recent = []  # the last row before each end, and its weight
        for end in [view.end, *seen] if len(log.time) else ():
            has_rows = end > view.start
            row = use.where(has_rows, end - 1, 0)
            # Row 0 may be later than the query, and its weight infinite.
            age = use.where(has_rows, time - log.time[row], 0)
            weight = use.exp2(-age / half_life)
            recent.append((row, use.where(has_rows, weight, 0.0)))

        def upto(i, column):
            total = log.totals["decayed"][view.code, h, column] * scale
            if not recent:
                return total
            row, weight = recent[i]
            return total + self.decayed[row, h, column] * weight

        known = [upto(k, k) for k in range(1, n_tasks + 1)]
        positive = [upto(k, n_tasks + k) for k in range(1, n_tasks + 1)]
        return upto(0, 0), known, positive

    def slice_of_list(self, place, code, time):
        """Return the slice of the elements of a list that queries see."""
        each, log, use = self.lists[place], self.log.lists[place], self.use
        is_known = code >= 0
        known = use.where(is_known, code, 0)
        start = use.where(is_known, log.offsets[known], 0)
        end = use.where(is_known, log.offsets[known + 1], 0)
        if self.plan.max_age is not None:
            view = self.view(code, time)
            first = self.log.totals["first"][view.code]
            if len(self.log.time):
                row = use.minimum(view.start, len(self.log.time) - 1)
                first = use.where(view.is_on, first, self.log.time[row])
            start = use.bisect(log.time, start, end, first)
            end = use.where(view.has_any, end, start)
        end = use.bisect(log.time, start, end, time - each.delay)
        return use.maximum(start, end - each.n), end

    def last_values(self, place, codes, times):
        """Return sizes, values by index, and ages of the elements of a list."""
        start, end = self.slice_of_list(place, codes, times)
        log, sizes = self.log.lists[place], end - start
        rows = ranges(start, sizes)
        ages = (np.repeat(times, sizes) - log.time[rows]) / self.plan.unit
        return sizes, log.value[rows], ages

    def folded(self, end):
        """Return the log at its end, with rows that have become old as totals."""
        log, half_lives = self.log, self.half_lives
        if self.is_empty:
            return select_keys(log, np.zeros(0, dtype=np.int64))
        starts, ends = log.offsets[:-1], log.offsets[1:]
        begin = starts.copy()
        has_rows = ends > starts
        begin[has_rows] = self.stretch[ends[has_rows] - 1]
        is_on = self.is_linked & (begin == starts)
        is_on |= (log.totals["count"] > 0) & ~has_rows
        bound = np.full(log.n_keys, end - self.plan.horizon)
        cut = bisect(log.time, begin, ends, bound)
        totals = {
            name: np.where(is_on.reshape(-1, *[1] * (total.ndim - 1)), total, 0)
            for name, total in log.totals.items()
        }
        scale = np.ones(len(half_lives))
        if log.reference is not None:
            scale = decay(end - log.reference, half_lives)
        totals["decayed"] = totals["decayed"] * scale[:, np.newaxis]
        self._add_rows(totals, begin, cut, end)
        sizes = ends - cut
        rows = ranges(cut, sizes)
        offsets = np.append(0, sizes.cumsum())
        new = replaced(
            log,
            offsets=offsets,
            time=log.time[rows],
            labels=log.labels[rows],
            totals=totals,
            reference=end,
        )
        new.lists = [
            self._newest(each, plan, end, begin, is_on, totals)
            for each, plan in zip(log.lists, self.lists, strict=True)
        ]
        return self._bounded(new, end)

    def _add_rows(self, totals, begin, cut, end):
        """Add the rows `begin[i]:cut[i]` of each key to its totals."""
        has_rows = cut > begin
        first, last = begin[has_rows], cut[has_rows] - 1
        time = self.log.time
        # Rows that arrived late may be older than the totals.
        had = totals["count"][has_rows] > 0
        for name, chosen, rows in (
            ("first", np.minimum, first),
            ("last", np.maximum, last),
        ):
            old, new = totals[name][has_rows], time[rows]
            totals[name][has_rows] = np.where(had, chosen(old, new), new)
        place = self.last_positive[last]
        is_recent = place >= first[:, np.newaxis]
        had = totals["positive"][has_rows] > 0
        old, new = totals["last_positive"][has_rows], time[place]
        new = np.where(had, np.maximum(old, new), new)
        totals["last_positive"][has_rows] = np.where(is_recent, new, old)
        totals["count"] += cut - begin
        for name, rows in (("known", self.known), ("positive", self.positive)):
            totals[name] += rows[cut] - rows[begin]
        ages = end - time[last]
        for h, half_life in enumerate(self.half_lives):
            weight = decay(ages, half_life)[:, np.newaxis]
            totals["decayed"][has_rows, h] += self.decayed[last, h] * weight

    def _newest(self, log, each, end, begin, is_on, totals):
        """Return a list log with what queries from an instant on may see."""
        start, stop = log.offsets[:-1], log.offsets[1:]
        if self.plan.max_age is not None and len(log.time):
            first = totals["first"].astype(log.time.dtype)
            has_rows = ~is_on & (begin < self.log.offsets[1:])
            first[has_rows] = self.log.time[begin[has_rows]]
            start = bisect(log.time, start, stop, first)
        bound = np.full(len(start), end - each.delay)
        start = np.maximum(start, bisect(log.time, start, stop, bound) - each.n)
        rows = ranges(start, stop - start)
        offsets = np.append(0, (stop - start).cumsum())
        return ListLog(offsets, log.time[rows], log.value[rows])

    def _bounded(self, log, end):
        """Drop the keys that are too old or too many."""
        max_age, max_keys = self.plan.max_age, self.plan.max_keys
        last = log.last_time()
        is_kept = np.ones(log.n_keys, dtype=bool)
        if max_age is not None:
            is_kept &= end - last <= max_age
        if max_keys is not None and is_kept.sum() > max_keys:
            order = np.lexsort(
                [np.arange(log.n_keys), np.where(is_kept, last, -np.inf)]
            )
            is_kept[order[:-max_keys]] = False
        return log if is_kept.all() else select_keys(log, np.flatnonzero(is_kept))


def _cumulate(is_counted):
    zeros = np.zeros((1, is_counted.shape[1]), dtype=np.int64)
    return np.concatenate([zeros, is_counted.cumsum(axis=0, dtype=np.int64)])


def _view(array):
    return memoryview(np.ascontiguousarray(array))

"""What is known of the keys of a kind, and what was known of them at an instant.

A row is an impression of a key. Rows that are older than every window and delay are
summed into totals; the others are kept with their times. All arrays of rows are sorted
by key and time, so that the rows of a key before an instant are a slice.

A row at time t counts an impression at time s if s < t - state_delay, and its label if
s < t - state_delay - label_delay. Counts are differences of cumulated counts between
places in the sorted rows of a key.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import NamedTuple

import numpy as np

# Adding and subtracting it rounds to multiples of 2^-32: log-odds near 0 are mostly the
# rounding errors of logarithms, which differ between arrays and single rows.
GRID = 2.0**20


@dataclass(eq=False)
class Slices:
    """Rows sorted by key and time; those of key i are `offsets[i]:offsets[i + 1]`."""

    offsets: np.ndarray
    time: np.ndarray
    value: np.ndarray  # labels of impressions, or indices of the values of a list

    def keys(self):
        """Return the place of each row's key."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def cut(self, starts, stops):
        """Return the rows from `starts[i]` to `stops[i]` as those of key i."""
        sizes = stops - starts
        rows, offsets = ranges(starts, sizes), np.append(0, sizes.cumsum())
        return Slices(offsets, self.time[rows], self.value[rows])

    def select(self, places):
        return self.cut(self.offsets[places], self.offsets[places + 1])

    def combined(self, other, codes, n_keys):
        """Return the rows of both, of equal times those of this object first.

        `codes` has the new places of the keys of each, in increasing order.
        """
        sizes = np.zeros((2, n_keys), dtype=np.int64)
        for own, code, rows in zip(sizes, codes, (self, other), strict=True):
            own[code] = np.diff(rows.offsets)
        # Both are sorted: the rows of the other are inserted into those of this one.
        dtype = np.result_type(self.time, other.time)
        starts = np.append(0, sizes[0].cumsum())
        keys = codes[1][other.keys()]
        bound = following(other.time.astype(dtype, copy=False))
        place = bisect(self.time, starts[keys], starts[keys + 1], bound)
        is_own = np.ones(len(self.time) + len(other.time), dtype=bool)
        is_own[place + np.arange(len(place))] = False
        time = np.empty(len(is_own), dtype=dtype)
        value = np.empty((len(is_own), *self.value.shape[1:]), dtype=self.value.dtype)
        for array, parts in ((time, "time"), (value, "value")):
            array[is_own], array[~is_own] = getattr(self, parts), getattr(other, parts)
        return Slices(np.append(0, sizes.sum(axis=0).cumsum()), time, value)


@dataclass(eq=False)
class KeyLog:
    """Totals and recent rows of all keys of a kind, such as the users."""

    columns: np.ndarray  # the keys, sorted, by the indices of their values
    rows: Slices
    lists: list  # the elements of each list
    totals: dict  # sums over rows that are no longer kept
    reference: float | None = None  # the time of decayed totals, None without any

    @property
    def n_keys(self):
        return len(self.columns)

    @property
    def size(self):
        """Number of keys, of recent rows and of elements of lists."""
        return self.n_keys + len(self.time) + sum(len(own.time) for own in self.lists)

    @cached_property
    def packed(self):
        """The numbers of values of the columns, and the keys as integers, in order."""
        sizes = self.columns.max(axis=0, initial=0) + 1
        return sizes, pack(self.columns, sizes)

    @property
    def offsets(self):
        return self.rows.offsets

    @property
    def time(self):
        return self.rows.time

    @property
    def labels(self):
        return self.rows.value

    def places(self, ids):
        """Return the places of keys, `n_keys` for those that are not here."""
        if not self.n_keys:
            return np.zeros(len(ids), dtype=np.int64)
        sizes, packed = self.packed
        is_possible = ((ids >= 0) & (ids < sizes)).all(axis=1)
        wanted = pack(np.where(is_possible[:, np.newaxis], ids, 0), sizes)
        place = np.minimum(np.searchsorted(packed, wanted), self.n_keys - 1)
        return np.where(is_possible & (packed[place] == wanted), place, self.n_keys)

    def select(self, places):
        """Return the log of some keys, which are given by their places, in order."""
        return replace(
            self,
            columns=self.columns[places],
            rows=self.rows.select(places),
            lists=[each.select(places) for each in self.lists],
            totals={name: total[places] for name, total in self.totals.items()},
        )

    def without_old(self, end, max_age):
        """Return the log without keys whose last row is too old."""
        has_rows = np.diff(self.offsets) > 0
        last = self.totals["last"].astype(self.time.dtype)
        last[has_rows] = self.time[self.offsets[1:][has_rows] - 1]
        is_kept = end - last <= max_age
        return self if is_kept.all() else self.select(np.flatnonzero(is_kept))

    def with_empty_key(self):
        """Return the log with a key behind the others that has no past."""

        def more(rows):
            return replace(rows, offsets=np.append(rows.offsets, rows.offsets[-1]))

        totals = {
            name: np.append(total, np.zeros_like(total, shape=(1, *total.shape[1:])), 0)
            for name, total in self.totals.items()
        }
        lists = list(map(more, self.lists))
        return replace(self, rows=more(self.rows), lists=lists, totals=totals)


def no_totals(n_keys, n_tasks, n_half_lives, dtype):
    """Return the totals of keys without old rows; times have the dtype."""
    return {
        "count": np.zeros(n_keys, dtype=np.int64),  # of impressions
        "last": np.zeros(n_keys, dtype=dtype),  # the time of the last
        "known": np.zeros((n_keys, n_tasks), dtype=np.int64),  # labels
        "positive": np.zeros((n_keys, n_tasks), dtype=np.int64),  # labels that are 1
        "last_positive": np.zeros((n_keys, n_tasks), dtype=dtype),  # time of the last
        # Of impressions, of known labels per task, and of labels that are 1 per task.
        "decayed": np.zeros((n_keys, n_half_lives, 1 + 2 * n_tasks)),
    }


def log_of_rows(ids, time, labels, lists, n_half_lives):
    """Return the log of new rows, none of which is summed; -1 are missing values.

    `lists` has, per list, the index of each row's value, and the task that must have
    happened, or None.
    """
    has_key = (ids >= 0).all(axis=1)
    if not has_key.all():
        ids, time, labels = ids[has_key], time[has_key], labels[has_key]
        lists = [(values[has_key], task) for values, task in lists]
    columns, codes = unique_keys(ids)
    slices = []
    for values, task in lists:
        is_element = values >= 0
        if task is not None:
            is_element &= labels[:, task] == 1
        parts = (part[is_element] for part in (codes, time, values))
        slices.append(slices_of(*parts, len(columns)))
    rows = slices_of(codes, time, labels, len(columns))
    totals = no_totals(len(columns), labels.shape[1], n_half_lives, time.dtype)
    return KeyLog(columns, rows, slices, totals)


def unique_keys(ids):
    """Return the distinct rows of a table of indices, sorted, and each row's place."""
    if ids.shape[1] == 0:
        return np.zeros((1, 0), dtype=np.int64), np.zeros(len(ids), dtype=np.int64)
    sizes = ids.max(axis=0) + 1 if len(ids) else np.ones(ids.shape[1], dtype=np.int64)
    packed = pack(ids, sizes)
    top = int(packed.max()) + 1 if len(packed) else 0
    if top <= 4 * len(packed) + 1024:
        is_used = np.zeros(top, dtype=bool)
        is_used[packed] = True
        return unpack(np.flatnonzero(is_used), sizes), (is_used.cumsum() - 1)[packed]
    values, codes = np.unique(packed, return_inverse=True)
    return unpack(values, sizes), codes


def check_sizes(sizes):
    """Raise if there are too many possible keys of columns with these sizes."""
    if math.prod(map(int, sizes)) >= 2**63:
        raise ValueError(
            f"a key of columns with {[int(size) for size in sizes]} values has more "
            "than 2^63 possible values; use fewer columns."
        )


def pack(ids, sizes):
    """Return one integer per row, in the order of the rows."""
    check_sizes(sizes)
    return np.ravel_multi_index(tuple(ids.T), tuple(sizes))


def unpack(packed, sizes):
    """Return the rows that `pack` made integers of."""
    return np.stack(np.unravel_index(packed, tuple(sizes)), axis=1)


def slices_of(codes, time, value, n_keys):
    """Return rows in any order as `Slices`; the codes are the places of their keys."""
    order = np.lexsort([time, codes])
    offsets = np.append(0, np.bincount(codes, minlength=n_keys).cumsum())
    return Slices(offsets, time[order], value[order])


def combine(a, b, half_lives):
    """Return the log of the rows of two logs; of equal rows, those of `a` first."""
    if not a.n_keys or not len(b.time) + b.n_keys:
        return b if not a.n_keys else a
    columns, codes = unique_keys(np.concatenate([a.columns, b.columns]))
    codes = codes[: a.n_keys], codes[a.n_keys :]
    n_keys, totals = len(columns), []
    references = [log.reference for log in (a, b) if log.reference is not None]
    reference = max(references, default=None)
    for log, places in zip((a, b), codes, strict=True):
        own = {}
        for name, total in log.totals.items():
            own[name] = np.zeros((n_keys, *total.shape[1:]), dtype=total.dtype)
            own[name][places] = total
        if log.reference is not None:
            own["decayed"] *= decay(reference - log.reference, half_lives)[:, None]
        totals.append(own)
    rows = a.rows.combined(b.rows, codes, n_keys)
    pairs = zip(a.lists, b.lists, strict=True)
    lists = [own.combined(other, codes, n_keys) for own, other in pairs]
    return KeyLog(columns, rows, lists, add_totals(*totals), reference)


def replace_keys(older, newer, half_lives):
    """Return a log of the keys of two, with those of both as in the newer one."""
    is_newer = np.zeros(older.n_keys + 1, dtype=bool)
    is_newer[older.places(newer.columns)] = True
    return combine(older.select(np.flatnonzero(~is_newer[:-1])), newer, half_lives)


def find_keys(logs, ids, half_lives):
    """Return the log of some keys, each as in the last of several logs that has it."""
    wanted, _ = unique_keys(ids[(ids >= 0).all(axis=1)])
    found = []
    for log in reversed(logs):
        places = log.places(wanted)
        is_here = places < log.n_keys
        found.append(log.select(places[is_here]))
        wanted = wanted[~is_here]
    return reduce(lambda a, b: combine(a, b, half_lives), found)


def complete_log(log, code, time, labels, lists):
    """Return a log whose rows have further labels, and which of these fail.

    `code` has the places of the keys, `n_keys` for unknown ones, and `lists`, per list,
    the index of each row's value and the task that must have happened, or None. All
    numbers are sums per key, time and task, so that it does not matter which of several
    rows of the same key and time gets a label. The failures are rows that the log does
    not have, and rows that have one of their labels already.
    """
    time = time.astype(np.result_type(time, log.time), copy=False)
    start = log.offsets[np.minimum(code, log.n_keys)]
    stop = log.offsets[np.minimum(code + 1, log.n_keys)]
    begin = bisect(log.time, start, stop, time)
    end = bisect(log.time, begin, stop, following(time))
    values, is_absent = log.labels.copy(), begin == end
    is_final = np.zeros(len(code), dtype=bool)
    for task in range(labels.shape[1]):
        asked = np.flatnonzero((labels[:, task] >= 0) & ~is_absent)
        row = free_rows(begin[asked], end[asked], values[:, task] < 0)
        is_final[asked[row < 0]] = True
        values[row[row >= 0], task] = labels[asked[row >= 0], task]
    slices = []
    for own, (places, task) in zip(log.lists, lists, strict=True):
        if task is not None:
            # Rows without the event so far were no elements.
            new = np.flatnonzero((labels[:, task] == 1) & (places >= 0) & ~is_absent)
            added = slices_of(code[new], time[new], places[new], log.n_keys)
            keys = np.arange(log.n_keys)
            own = own.combined(added, (keys, keys), log.n_keys)
        slices.append(own)
    log = replace(log, rows=replace(log.rows, value=values), lists=slices)
    return log, is_absent, is_final


def free_rows(begin, end, is_free):
    """Return a free row of each of some slices, -1 where there is none.

    The slices are equal or disjoint; equal ones get different rows.
    """
    free = np.append(np.flatnonzero(is_free), len(is_free))
    order = np.argsort(begin, kind="stable")
    first = np.searchsorted(begin[order], begin[order])
    # The k-th asked for in a slice gets its k-th free row.
    place = np.searchsorted(free, begin)
    place[order] += np.arange(len(begin)) - first
    row = free[np.minimum(place, len(free) - 1)]
    return np.where(row < end, row, -1)


def add_totals(a, b):
    """Return the totals of the rows of two totals of the same keys."""
    summed = "count", "known", "positive", "decayed"
    both = {name: a[name] + b[name] for name in summed}
    for name, counted in (("last", "count"), ("last_positive", "positive")):
        one = np.where(b[counted] > 0, b[name], a[name])
        has_both = (a[counted] > 0) & (b[counted] > 0)
        both[name] = np.where(has_both, np.maximum(a[name], b[name]), one)
    return both


def decay(age, half_lives):
    """Return the weights of events of an age, one per half-life."""
    return np.exp2(-age / np.array(half_lives, dtype=np.float64))


def ranges(starts, sizes):
    """Return the indices start, start + 1, ... of slices, one slice after the other."""
    ends = sizes.cumsum()
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - sizes), sizes)


def following(time):
    """Return the smallest times that are later than these."""
    return time + 1 if time.dtype.kind in "iu" else np.nextafter(time, np.inf)


def bisect(values, low, high, bound):
    """Return the first place of each slice that is not below a bound, or its end."""
    low, high = low.copy(), high.copy()
    if not len(values):
        return low
    while True:
        is_open = low < high
        if not is_open.any():
            return low
        middle = (low + high) >> 1
        is_below = is_open & (values[np.minimum(middle, len(values) - 1)] < bound)
        low = np.where(is_below, middle + 1, low)
        high = np.where(is_open & ~is_below, middle, high)


def decayed_sums(time, place, values, half_life):
    """Return, for each row, the decayed sum over the rows of its slice up to it."""
    # Sums within blocks of four rows, then of the blocks: no weight exceeds 1.
    sums = values.astype(np.float64)
    in_block = place & 3
    for step in (1, 2):
        rows = np.flatnonzero(in_block >= step)
        weight = decay(time[rows] - time[rows - step], half_life)
        sums[rows] += weight[:, np.newaxis] * sums[rows - step]
    is_end = in_block == 3
    if not is_end.any():
        return sums
    of_blocks = decayed_sums(time[is_end], place[is_end] >> 2, sums[is_end], half_life)
    rows = np.flatnonzero(place >= 4)
    end = rows - in_block[rows] - 1  # of the block before
    weight = decay(time[rows] - time[end], half_life)
    block = is_end.cumsum()[end] - 1
    sums[rows] += weight[:, np.newaxis] * of_blocks[block]
    return sums


class View(NamedTuple):
    """What queries see of the rows of their keys, one entry per query."""

    code: np.ndarray
    time: np.ndarray
    is_on: np.ndarray  # whether the totals of the key count
    start: np.ndarray  # of the rows before the instant, up to `end`
    end: np.ndarray
    last: np.ndarray  # the time of the last row, if it `has_any`
    has_any: np.ndarray
    seen: list  # per task, the end of the rows whose labels are known


class Past:
    """A `KeyLog` with cumulated counts, for queries at any time from its totals on.

    Unknown keys are the one behind those of the log, which has no past.
    With a `max_age`, the rows of a key form stretches: one ends where the key has no
    impression for longer than this age, and only the present one counts.
    """

    def __init__(self, log, plan):
        self.own, log = log, log.with_empty_key()
        self.log, self.plan = log, plan
        known, positive = log.labels >= 0, log.labels == 1
        self.known, self.positive = _cumulate(known), _cumulate(positive)
        places = np.where(positive, np.arange(len(positive))[:, np.newaxis], -1)
        # The last row with a label of 1 up to each row, of whichever key.
        self.last_positive = np.maximum.accumulate(places, axis=0)
        self._find_stretches()
        # Sums of each row's stretch, of impressions and of labels that are known and 1.
        values = np.concatenate([np.ones((len(known), 1)), known, positive], axis=1)
        place = np.arange(len(values)) - self.stretch
        self.decayed = [
            decayed_sums(log.time, place, values, half_life)
            for half_life in plan.half_lives
        ]

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
        has_rows = end > start
        # Totals that are not linked to the first row count before that row.
        is_on, last = log.totals["count"][code] > 0, log.totals["last"][code]
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
        ends = {self.plan.state_delay: end}
        for lag in self.plan.lags:
            if lag not in ends:
                ends[lag] = bisect(log.time, start, end, time - lag)
        seen = [ends[lag] for lag in self.plan.lags]
        return View(code, time, is_on, start, end, last, has_any, seen)

    def priors(self, code, time):
        """Return, per task, what shrinks the log-odds of others to a key's."""
        _, known, positive = next(self._counts(self.view(code, time)))
        return [
            rate_prior(n, k, self.plan.smoothing)
            for n, k in zip(known, positive, strict=True)
        ]

    def numbers(self, code, time, priors):
        """Return the numbers of `Plan.number_names`, for places of keys."""
        view = self.view(code, time)
        numbers = numbers_of(self._counts(view), priors, np.log, np.log1p)
        return [*self._ages(view), *numbers]

    def _ages(self, view):
        """Return the ages of the last impression and of the last event per task."""
        log, unit, time = self.log, self.plan.unit, view.time
        ages = [np.where(view.has_any, (time - view.last) / unit, math.nan)]
        for k, end in enumerate(view.seen):
            last = log.totals["last_positive"][view.code, k]
            has_one = view.is_on & (log.totals["positive"][view.code, k] > 0)
            if len(log.time):
                place = self.last_positive[np.maximum(end - 1, 0), k]
                is_recent = (end > view.start) & (place >= view.start)
                last = np.where(is_recent, log.time[place], last)
                has_one = has_one | is_recent
            ages.append(np.where(has_one, (time - last) / unit, math.nan))
        return ages

    def _counts(self, view):
        """Yield, per horizon, the impressions, and labels known and of 1 per task."""
        log, on = self.log, view.is_on
        counts = [view.end - view.start + on * log.totals["count"][view.code]]
        for name, rows in (("known", self.known), ("positive", self.positive)):
            total = log.totals[name]
            counts.append(
                [
                    rows[end, k] - rows[view.start, k] + on * total[view.code, k]
                    for k, end in enumerate(view.seen)
                ]
            )
        yield counts
        for window in self.plan.windows:
            start = bisect(log.time, view.start, view.end, view.time - window)
            ends = [np.maximum(end, start) for end in view.seen]
            yield (
                view.end - start,
                *(
                    [rows[end, k] - rows[start, k] for k, end in enumerate(ends)]
                    for rows in (self.known, self.positive)
                ),
            )
        for h, half_life in enumerate(self.plan.half_lives):
            yield self._decayed_counts(view, h, half_life)

    def _decayed_counts(self, view, h, half_life):
        log, time, n_tasks = self.log, view.time, len(view.seen)
        scale = view.is_on * 1.0
        if log.reference is not None:
            scale = scale * np.exp2(-(time - log.reference) / half_life)

        recent = []  # the last row before each end, and its weight
        for end in [view.end, *view.seen] if len(log.time) else ():
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
            return total + self.decayed[h][row, column] * weight

        known = [upto(k, k) for k in range(1, n_tasks + 1)]
        positive = [upto(k, n_tasks + k) for k in range(1, n_tasks + 1)]
        return upto(0, 0), known, positive

    def last_values(self, place, code, time):
        """Return sizes, values by index, and ages of the elements of a list."""
        each, log = self.plan.lists[place], self.log.lists[place]
        start, end = log.offsets[code], log.offsets[code + 1]
        if self.plan.max_age is not None:
            view = self.view(code, time)
            if len(self.log.time):
                # If the totals count, all elements are of the present stretch.
                row = np.minimum(view.start, len(self.log.time) - 1)
                first = bisect(log.time, start, end, self.log.time[row])
                start = np.where(view.is_on, start, first)
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
            self._newest(own, each, end, begin, is_on)
            for own, each in zip(log.lists, plan.lists, strict=True)
        ]
        rows = log.rows.cut(cut, stops)
        return replace(log, rows=rows, lists=lists, totals=totals, reference=end)

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
        totals["last"][has_rows] = time[last]
        place = self.last_positive[last]
        is_own = place >= first[:, np.newaxis]
        totals["last_positive"][has_rows] = np.where(is_own, time[place], 0)
        for h, half_life in enumerate(half_lives):
            weight = decay(end - time[last], half_life)[:, np.newaxis]
            totals["decayed"][has_rows, h] = self.decayed[h][last] * weight
        return totals

    def _newest(self, log, each, end, begin, is_on):
        """Return the elements of a list that queries from an instant on may see."""
        start, stop = log.offsets[:-1], log.offsets[1:]
        if self.plan.max_age is not None and len(self.own.time):
            row = np.minimum(begin, len(self.own.time) - 1)
            first = bisect(log.time, start, stop, self.own.time[row])
            start = np.where(is_on, start, first)
        bound = np.full(len(start), end - each.lag)
        start = np.maximum(start, bisect(log.time, start, stop, bound) - each.n)
        return log.cut(start, stop)


def _cumulate(is_counted):
    return np.insert(is_counted.cumsum(axis=0, dtype=np.int64), 0, 0, axis=0)


def numbers_of(horizons, priors, log, log1p):
    """Return the numbers of counts per horizon, for a row or for arrays of rows."""
    numbers = []
    for impressions, known, positive in horizons:
        numbers.append(log1p(impressions))
        for n, k, prior in zip(known, positive, priors, strict=True):
            events, others, logit = prior
            log_odds = log((k + events) / (n - k + others)) - logit
            numbers += [log1p(k), log_odds + GRID - GRID]
    return numbers


def rate_prior(known, positive, smoothing):
    """Return the events and the other rows that are added to rates, and the log-odds.

    The rarer of the two are `smoothing`. The rate is 1/2 before any label.
    """
    rate = (positive + 0.5) / (known + 1)
    strength = smoothing / np.minimum(rate, 1 - rate)
    return strength * rate, strength * (1 - rate), np.log(rate / (1 - rate))

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
        offsets = np.append(0, sizes.cumsum())
        # start, start + 1, ... of each slice, one slice after the other
        rows = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], sizes)
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
        rows = [self.rows, *self.lists]
        return self.n_keys + sum(len(own.time) for own in rows)

    @cached_property
    def packed(self):
        """The numbers of values of the columns, and the keys as integers, in order."""
        sizes = self.columns.max(axis=0, initial=0) + 1
        return sizes, pack(self.columns, sizes)

    def places(self, ids):
        """Return the places of keys, `n_keys` for those that are not here."""
        if not self.columns.size:  # no keys, or the one of all rows
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
        offsets, time = self.rows.offsets, self.rows.time
        has_rows = np.diff(offsets) > 0
        last = self.totals["last"][:, 0].astype(time.dtype)
        last[has_rows] = time[offsets[1:][has_rows] - 1]
        is_kept = end - last <= max_age
        return self if is_kept.all() else self.select(np.flatnonzero(is_kept))

    def with_empty_key(self):
        """Return the log with a key behind the others that has no past.

        If there is no row, one of no key follows, so that arrays have an entry.
        """

        def more(rows):
            offsets, time, value = rows.offsets, rows.time, rows.value
            if not len(time):
                time = np.zeros_like(time, shape=1)
                value = np.zeros_like(value, shape=(1, *value.shape[1:]))
            return Slices(np.append(offsets, offsets[-1]), time, value)

        totals = {
            name: np.append(total, np.zeros_like(total, shape=(1, *total.shape[1:])), 0)
            for name, total in self.totals.items()
        }
        lists = list(map(more, self.lists))
        return replace(self, rows=more(self.rows), lists=lists, totals=totals)


def no_totals(n_keys, n_tasks, n_half_lives, dtype):
    """Return the totals of keys without old rows; times have the dtype."""
    # Of impressions, of known labels per task, and of labels that are 1 per task.
    n_columns = 1 + 2 * n_tasks
    return {
        "counts": np.zeros((n_keys, n_columns), dtype=np.int64),
        "decayed": np.zeros((n_keys, n_half_lives, n_columns)),
        # Times of the last impression, and of the last label that is 1 per task.
        "last": np.zeros((n_keys, 1 + n_tasks), dtype=dtype),
    }


def log_of_rows(ids, time, labels, lists, n_half_lives):
    """Return the log of new rows, none of which is summed; -1 are missing values.

    `ids` has the indices of the values of each row's key. `lists` has, per list, the
    index of each row's value, and the task that must have happened, or None.
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
    if not a.n_keys or not b.n_keys:
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


def complete_log(log, ids, time, labels, lists):
    """Return a log whose rows have further labels, and which of these fail.

    The arguments are those of `log_of_rows`. All numbers are sums per key, time and
    task, so that it does not matter which of several rows of the same key and time gets
    a label. The failures are rows that the log does not have, and rows that have one of
    their labels already. Rows without a key, or without a label, cannot fail.
    """
    rows, code = log.rows, log.places(ids)
    time = time.astype(np.result_type(time, rows.time), copy=False)
    start = rows.offsets[np.minimum(code, log.n_keys)]
    stop = rows.offsets[np.minimum(code + 1, log.n_keys)]
    begin = bisect(rows.time, start, stop, time)
    end = bisect(rows.time, begin, stop, following(time))
    has_key = (ids >= 0).all(axis=1)
    is_absent = has_key & (labels >= 0).any(axis=1) & (begin == end)
    labels = np.where((has_key & ~is_absent)[:, np.newaxis], labels, -1)
    values, is_final = rows.value.copy(), np.zeros(len(code), dtype=bool)
    for task in range(labels.shape[1]):
        asked = np.flatnonzero(labels[:, task] >= 0)
        row = free_rows(begin[asked], end[asked], values[:, task] < 0)
        is_final[asked[row < 0]] = True
        values[row[row >= 0], task] = labels[asked[row >= 0], task]
    slices = []
    for own, (places, task) in zip(log.lists, lists, strict=True):
        if task is not None:
            # Rows without the event so far were no elements.
            new = np.flatnonzero((labels[:, task] == 1) & (places >= 0))
            added = slices_of(code[new], time[new], places[new], log.n_keys)
            keys = np.arange(log.n_keys)
            own = own.combined(added, (keys, keys), log.n_keys)
        slices.append(own)
    log = replace(log, rows=replace(rows, value=values), lists=slices)
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
    both = {name: a[name] + b[name] for name in ("counts", "decayed")}
    n_tasks = a["last"].shape[1] - 1
    columns = [0, *range(1 + n_tasks, 1 + 2 * n_tasks)]
    has_a, has_b = (totals["counts"][:, columns] > 0 for totals in (a, b))
    last = np.where(has_b, b["last"], a["last"])
    latest = np.maximum(a["last"], b["last"])
    return both | {"last": np.where(has_a & has_b, latest, last)}


def decay(age, half_lives):
    """Return the weights of events of an age, one per half-life."""
    return np.exp2(-age / np.array(half_lives, dtype=np.float64))


def following(time):
    """Return the smallest times that are later than these."""
    return time + 1 if time.dtype.kind in "iu" else np.nextafter(time, np.inf)


def bisect(values, low, high, bound):
    """Return the first place of each slice that is not below a bound, or its end."""
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
    start: np.ndarray  # of the rows before the instant
    # (1 + n_tasks, n_queries): of these rows, and of those whose labels are known.
    ends: np.ndarray
    last: np.ndarray  # the time of the last row, if it `has_any`
    has_any: np.ndarray


class Past:
    """A `KeyLog` with cumulated counts, for queries at any time from its totals on.

    Unknown keys are the one behind those of the log, which has no past.
    With a `max_age`, the rows of a key form stretches: one ends where the key has no
    impression for longer than this age, and only the present one counts.
    """

    def __init__(self, log, plan):
        self.own, self.log, self.plan = log, log.with_empty_key(), plan
        rows = self.log.rows
        places, known = np.arange(len(rows.time)), rows.value >= 0
        positive = rows.value == 1
        # The columns of the totals.
        values = np.ones((len(places), 1), dtype=bool)
        values = np.concatenate([values, known, positive], axis=1)
        self.counts = np.insert(values.cumsum(axis=0, dtype=np.int64), 0, 0, axis=0)
        # The end among those of a `View` up to which each column counts.
        of_tasks = np.arange(1, 1 + positive.shape[1])
        self.end_of = np.concatenate([[0], of_tasks, of_tasks])
        # The last row with a label of 1 up to each row, of whichever key.
        last = np.where(positive, places[:, np.newaxis], -1)
        self.last_positive = np.maximum.accumulate(last, axis=0)
        self._find_stretches()
        # Sums of each row's stretch.
        self.decayed = [
            decayed_sums(rows.time, places - self.stretch, values, half_life)
            for half_life in plan.half_lives
        ]

    def _find_stretches(self):
        """Find the first row of each row's stretch, and whether it goes on with totals.

        These are the totals of the row's key.
        """
        rows, totals, max_age = self.log.rows, self.log.totals, self.plan.max_age
        has_rows = np.diff(rows.offsets) > 0
        first, time = rows.offsets[:-1][has_rows], rows.time
        is_new, goes_on = np.zeros((2, len(time)), dtype=bool)
        if max_age is not None:
            before = np.append(time[:1], time[:-1])
            before[first] = totals["last"][has_rows, 0]
            is_new = time - before > max_age
        goes_on[first] = (totals["counts"][has_rows, 0] > 0) & ~is_new[first]
        is_new[first] = True
        self.stretch = np.maximum.accumulate(np.where(is_new, np.arange(len(time)), 0))
        self.goes_on = goes_on[self.stretch]

    def view(self, code, time):
        """Return what queries see."""
        rows, totals, plan = self.log.rows, self.log.totals, self.plan
        start, stop = rows.offsets[code], rows.offsets[code + 1]
        end = bisect(rows.time, start, stop, time - plan.state_delay)
        has_rows, row = end > start, np.maximum(end - 1, 0)
        start = np.where(has_rows, self.stretch[row], start)
        # Totals that do not go on in the stretch count before its first row.
        is_on = np.where(has_rows, self.goes_on[row], totals["counts"][code, 0] > 0)
        last = np.where(has_rows, rows.time[row], totals["last"][code, 0])
        has_any = has_rows | is_on
        if plan.max_age is not None:
            has_any &= time - last <= plan.max_age
            start, is_on = np.where(has_any, start, end), is_on & has_any
        ends = {plan.state_delay: end}
        for lag in plan.lags:
            if lag not in ends:
                ends[lag] = bisect(rows.time, start, end, time - lag)
        ends = np.stack([end, *(ends[lag] for lag in plan.lags)])
        return View(code, time, is_on, start, ends, last, has_any)

    def priors(self, code, time):
        """Return, per task, what shrinks the log-odds of others to a key's."""
        _, *labels = next(self._counts(self.view(code, time)))
        n_tasks = len(self.plan.lags)
        pairs = zip(labels[:n_tasks], labels[n_tasks:], strict=True)
        return [rate_prior(n, k, self.plan.smoothing) for n, k in pairs]

    def numbers(self, code, time, priors):
        """Return the numbers of `Plan.number_names`, for places of keys."""
        view = self.view(code, time)
        numbers = numbers_of(self._counts(view), priors, np.log, np.log1p)
        return [*self._ages(view), *numbers]

    def _ages(self, view):
        """Return the ages of the last impression and of the last event per task."""
        code, start, ends = view.code, view.start, view.ends[1:]
        tasks, totals = np.arange(len(ends)), self.log.totals
        place = self.last_positive[np.maximum(ends - 1, 0), tasks[:, np.newaxis]]
        is_recent = (ends > start) & (place >= start)
        has_total = view.is_on & (totals["counts"][code, 1 + len(ends) :].T > 0)
        of_totals = totals["last"][code, 1:].T
        last = np.where(is_recent, self.log.rows.time[place], of_totals)
        last = np.concatenate([[view.last], last])
        has_one = np.concatenate([[view.has_any], is_recent | has_total])
        return np.where(has_one, (view.time - last) / self.plan.unit, math.nan)

    def _counts(self, view):
        """Yield, per horizon, the impressions, and labels known and of 1 per task."""
        totals, ends = self.log.totals, view.ends[self.end_of]
        columns = np.arange(len(ends))[:, np.newaxis]

        def of_rows(start, ends):
            return self.counts[ends, columns] - self.counts[start, columns]

        of_totals = view.is_on * totals["counts"][view.code, columns]
        yield of_rows(view.start, ends) + of_totals
        for window in self.plan.windows:
            bound = view.time - window
            start = bisect(self.log.rows.time, view.start, view.ends[0], bound)
            yield of_rows(start, np.maximum(ends, start))
        for h, half_life in enumerate(self.plan.half_lives):
            scale = view.is_on * 1.0
            if self.log.reference is not None:
                scale *= np.exp2(-(view.time - self.log.reference) / half_life)
            has_rows = view.ends > view.start
            row = np.where(has_rows, view.ends - 1, 0)
            # Row 0 may be later than the query, and its weight infinite.
            age = np.where(has_rows, view.time - self.log.rows.time[row], 0)
            weight = np.where(has_rows, np.exp2(-age / half_life), 0.0)
            sums = self.decayed[h][row[self.end_of], columns] * weight[self.end_of]
            yield totals["decayed"][view.code, h, columns] * scale + sums

    def last_values(self, place, code, time):
        """Return sizes, values by index, and ages of the elements of a list."""
        each, log = self.plan.lists[place], self.log.lists[place]
        start, end = log.offsets[code], log.offsets[code + 1]
        if self.plan.max_age is not None:
            view = self.view(code, time)
            start = self._first_element(log, start, end, view.start, view.is_on)
            end = np.where(view.has_any, end, start)
        end = bisect(log.time, start, end, time - each.lag)
        found = log.cut(np.maximum(start, end - each.n), end)
        sizes = np.diff(found.offsets)
        ages = (np.repeat(time, sizes) - found.time) / self.plan.unit
        return sizes, found.value, ages

    def _first_element(self, log, start, end, row, is_on):
        """Return the first element of each slice that is of the stretch from a row on.

        If the totals count, all elements are of the present stretch.
        """
        time = self.log.rows.time
        first = bisect(log.time, start, end, time[np.minimum(row, len(time) - 1)])
        return np.where(is_on, start, first)

    def folded(self, end):
        """Return the log at its end, with rows that have become old as totals."""
        log, plan = self.own, self.plan
        begin, stops = log.rows.offsets[:-1], log.rows.offsets[1:]
        has_rows, last = stops > begin, np.maximum(stops - 1, 0)
        begin = np.where(has_rows, self.stretch[last], begin)
        is_on = np.where(has_rows, self.goes_on[last], log.totals["counts"][:, 0] > 0)
        bound = np.full(len(begin), end - plan.horizon)
        cut = bisect(log.rows.time, begin, stops, bound)
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
        time, half_lives = self.log.rows.time, self.plan.half_lives
        n_tasks = self.last_positive.shape[1]
        totals = no_totals(len(cut), n_tasks, len(half_lives), time.dtype)
        totals["counts"] = self.counts[cut] - self.counts[begin]
        has_rows = cut > begin
        first, last = begin[has_rows], cut[has_rows] - 1
        place = self.last_positive[last]
        positive = np.where(place >= first[:, np.newaxis], time[place], 0)
        totals["last"][has_rows] = np.column_stack([time[last], positive])
        for h, half_life in enumerate(half_lives):
            weight = decay(end - time[last], half_life)[:, np.newaxis]
            totals["decayed"][has_rows, h] = self.decayed[h][last] * weight
        return totals

    def _newest(self, log, each, end, begin, is_on):
        """Return the elements of a list that queries from an instant on may see."""
        start, stop = log.offsets[:-1], log.offsets[1:]
        if self.plan.max_age is not None:
            start = self._first_element(log, start, stop, begin, is_on)
        bound = np.full(len(start), end - each.lag)
        start = np.maximum(start, bisect(log.time, start, stop, bound) - each.n)
        return log.cut(start, stop)


def numbers_of(horizons, priors, log, log1p):
    """Return the numbers of counts per horizon, for a row or for arrays of rows.

    A horizon has the impressions, and the labels known and of 1 per task.
    """
    numbers, n_tasks = [], len(priors)
    for impressions, *labels in horizons:
        numbers.append(log1p(impressions))
        known, positive = labels[:n_tasks], labels[n_tasks:]
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

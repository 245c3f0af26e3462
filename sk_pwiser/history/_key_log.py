"""What is known of the keys of a kind: totals of old rows, and recent rows in order.

A row is an impression of a key. Rows that are older than every window and delay are
summed into totals; the others are kept with their times. All arrays of rows are sorted
by key and time, so that the rows of a key before an instant are a slice.
"""

import math
from functools import cached_property, reduce

import numpy as np


class Slices:
    """Rows sorted by key and time; those of key i are `offsets[i]:offsets[i + 1]`."""

    def __init__(self, offsets, time, value):
        # The values are labels of impressions, or indices of values of a list.
        self.offsets, self.time, self.value = offsets, time, value

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


class KeyLog:
    """Totals and recent rows of all keys of a kind, such as the users.

    `columns` are the keys, sorted, by the indices of their values in the vocabularies,
    and `lists` the elements of each list. `totals` are sums over rows that are no
    longer kept; decayed ones have their value at `reference`, None without any.
    """

    def __init__(self, columns, rows, lists, totals, reference=None):
        self.columns, self.rows, self.lists = columns, rows, lists
        self.totals, self.reference = totals, reference

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

    def replaced(self, **parts):
        names = "columns", "rows", "lists", "totals", "reference"
        return KeyLog(**{name: getattr(self, name) for name in names} | parts)

    def select(self, places):
        """Return the log of some keys, which are given by their places, in order."""
        return self.replaced(
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
        """Return the log with a key without rows at the end, and totals to read."""

        def more(rows):
            offsets = np.append(rows.offsets, rows.offsets[-1])
            return Slices(offsets, rows.time, rows.value)

        lists, totals = list(map(more, self.lists)), self.totals
        if not self.n_keys:
            totals = {
                n: np.zeros((1, *t.shape[1:]), t.dtype) for n, t in totals.items()
            }
        return self.replaced(rows=more(self.rows), lists=lists, totals=totals)


def no_totals(n_keys, n_tasks, n_half_lives, dtype):
    """Return the totals of keys without old rows; times have the dtype."""
    return {
        "count": np.zeros(n_keys, dtype=np.int64),  # of impressions
        "first": np.zeros(n_keys, dtype=dtype),  # their times
        "last": np.zeros(n_keys, dtype=dtype),
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
    log = log.replaced(rows=Slices(log.offsets, log.time, values), lists=slices)
    return log, is_absent, is_final


def free_rows(begin, end, is_free):
    """Return a free row of each of some slices, -1 where there is none.

    The slices are equal or disjoint; equal ones get different rows.
    """
    first, place, group = np.unique(begin, return_index=True, return_inverse=True)
    rows = ranges(first, end[place] - first)
    group_of_row = np.repeat(np.arange(len(first)), end[place] - first)
    rows, group_of_row = rows[is_free[rows]], group_of_row[is_free[rows]]
    order = np.argsort(group, kind="stable")
    # The k-th asked for in a slice gets its k-th free row.
    _, takers, taken = np.intersect1d(
        _numbered(group[order]),
        _numbered(group_of_row),
        assume_unique=True,
        return_indices=True,
    )
    found = np.full(len(begin), -1)
    found[order[takers]] = rows[taken]
    return found


def _numbered(groups):
    """Return a distinct integer per entry of sorted groups, by group and position."""
    place = np.arange(len(groups))
    is_first = np.append(True, groups[1:] != groups[:-1])[: len(groups)]
    start = np.maximum.accumulate(np.where(is_first, place, 0))
    return (groups << 32) + place - start


def add_totals(a, b):
    """Return the totals of the rows of two totals of the same keys."""
    summed = "count", "known", "positive", "decayed"
    both = {name: a[name] + b[name] for name in summed}
    for name, chosen, counted in (
        ("first", np.minimum, "count"),
        ("last", np.maximum, "count"),
        ("last_positive", np.maximum, "positive"),
    ):
        one = np.where(b[counted] > 0, b[name], a[name])
        has_both = (a[counted] > 0) & (b[counted] > 0)
        both[name] = np.where(has_both, chosen(a[name], b[name]), one)
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


def decayed_rows(log, first, half_lives):
    """Return decayed sums from given first rows on: impressions, labels known and 1."""
    known, positive = log.labels >= 0, log.labels == 1
    values = np.concatenate([np.ones((len(known), 1)), known, positive], axis=1)
    sums = np.zeros((len(values), len(half_lives), values.shape[1]))
    place = np.arange(len(values)) - first
    for h, half_life in enumerate(half_lives):
        sums[:, h] = decayed_sums(log.time, place, values, half_life)
    return sums


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

"""What is known of the keys of a kind: totals of old rows, and recent rows in order.

A row is an impression of a key. Rows that are older than every window and delay are
summed into totals; the others are kept with their times. All arrays of rows are sorted
by key and time, so that the rows of a key are a slice, and those before an instant a
part of it.
"""

import numpy as np


class ListLog:
    """The values of a list column, by their index, in the slice of each key."""

    def __init__(self, offsets, time, value):
        self.offsets, self.time, self.value = offsets, time, value


class KeyLog:
    """Totals and recent rows of all keys of a kind, such as the users.

    `columns` are the keys, sorted, by the indices of their values in the vocabularies,
    and `offsets` their slices in the rows. `totals` are sums over rows that are no
    longer kept, see `no_totals`; decayed ones have their value at `reference`, None
    without any.
    """

    def __init__(self, columns, offsets, time, labels, lists, totals, reference=None):
        self.columns, self.offsets = columns, offsets
        self.time, self.labels, self.lists = time, labels, lists
        self.totals, self.reference = totals, reference

    @property
    def n_keys(self):
        """Number of keys."""
        return len(self.columns)

    def last_time(self):
        """Return the time of the last impression of each key."""
        has_rows = np.diff(self.offsets) > 0
        last = self.totals["last"].astype(self.time.dtype)
        last[has_rows] = self.time[self.offsets[1:][has_rows] - 1]
        return last


def no_totals(n_keys, n_tasks, n_half_lives, dtype):
    """Return the totals of keys without old rows.

    `count` is the number of impressions, `first` and `last` their times. `known` are
    the known labels per task, `positive` those that are 1, `last_positive` the time of
    the last of them. `decayed` has, per half-life, the decayed numbers of impressions,
    of known labels per task, and of labels that are 1 per task.
    """
    return {
        "count": np.zeros(n_keys, dtype=np.int64),
        "first": np.zeros(n_keys, dtype=dtype),
        "last": np.zeros(n_keys, dtype=dtype),
        "known": np.zeros((n_keys, n_tasks), dtype=np.int64),
        "positive": np.zeros((n_keys, n_tasks), dtype=np.int64),
        "last_positive": np.zeros((n_keys, n_tasks), dtype=dtype),
        "decayed": np.zeros((n_keys, n_half_lives, 1 + 2 * n_tasks)),
    }


def log_of_rows(ids, time, labels, lists, n_half_lives):
    """Return the log of new rows, none of which is summed.

    Rows in which one of `ids` is missing, -1, belong to no key. `lists` has, per list,
    the index of each row's value, -1 if missing, and the task that must have happened,
    or None.
    """
    has_key = (ids >= 0).all(axis=1)
    if not has_key.all():
        ids, time, labels = ids[has_key], time[has_key], labels[has_key]
        lists = [(values[has_key], task) for values, task in lists]
    columns, codes = unique_keys(ids)
    order = np.lexsort([time, codes])
    offsets = _offsets(codes, len(columns))
    codes, time, labels = codes[order], time[order], labels[order]
    logs = []
    for values, task in lists:
        values = values[order]
        is_element = values >= 0
        if task is not None:
            is_element &= labels[:, task] == 1
        own = _offsets(codes[is_element], len(columns))
        logs.append(ListLog(own, time[is_element], values[is_element]))
    totals = no_totals(len(columns), labels.shape[1], n_half_lives, time.dtype)
    return KeyLog(columns, offsets, time, labels, logs, totals)


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


def pack(ids, sizes):
    """Return one integer per row, in the order of the rows."""
    if np.prod([float(size) for size in sizes]) > 2.0**63 - 1:
        raise ValueError(
            f"a key of columns with {[int(size) for size in sizes]} values has more "
            "than 2^63 possible values; use fewer columns."
        )
    packed = np.zeros(len(ids), dtype=np.int64)
    for column, size in zip(ids.T, sizes, strict=True):
        packed = packed * int(size) + column
    return packed


def unpack(packed, sizes):
    """Return the rows that `pack` made integers of."""
    columns = []
    for size in sizes[::-1]:
        packed, column = np.divmod(packed, int(size))
        columns.append(column)
    return np.stack(columns[::-1], axis=1)


def _offsets(codes, n_keys):
    return np.append(0, np.bincount(codes, minlength=n_keys).cumsum())


def combine(a, b, half_lives):
    """Return the log of the rows of two logs; of equal rows, those of `a` first."""
    if not a.n_keys or not len(b.time) + b.n_keys:
        return b if not a.n_keys else a
    columns, codes = unique_keys(np.concatenate([a.columns, b.columns]))
    codes = codes[: a.n_keys], codes[a.n_keys :]
    references = [log.reference for log in (a, b) if log.reference is not None]
    reference = max(references, default=None)
    totals = _add_totals((a, b), codes, len(columns), reference, half_lives)
    key_of_row = [
        np.repeat(of_log, np.diff(log.offsets))
        for of_log, log in zip(codes, (a, b), strict=True)
    ]
    of_row, time = np.concatenate(key_of_row), np.concatenate([a.time, b.time])
    order = np.lexsort([time, of_row])
    labels = np.concatenate([a.labels, b.labels])[order]
    lists = [
        _combine_lists(*pair, codes, len(columns))
        for pair in zip(a.lists, b.lists, strict=True)
    ]
    offsets = _offsets(of_row, len(columns))
    return KeyLog(columns, offsets, time[order], labels, lists, totals, reference)


def _add_totals(logs, codes, n_keys, reference, half_lives):
    dtype = np.result_type(*(log.time for log in logs))
    n_tasks = logs[0].labels.shape[1]
    totals = no_totals(n_keys, n_tasks, len(half_lives), dtype)
    for log, places in zip(logs, codes, strict=True):
        own = log.totals
        for name, chosen, counted in (
            ("first", np.minimum, "count"),
            ("last", np.maximum, "count"),
            ("last_positive", np.maximum, "positive"),
        ):
            old, new = totals[name][places], own[name]
            had, has = totals[counted][places] > 0, own[counted] > 0
            both = np.where(had & has, chosen(old, new), np.where(has, new, old))
            totals[name][places] = both
        for name in ("count", "known", "positive"):
            totals[name][places] += own[name]
        if log.reference is not None:
            scale = decay(reference - log.reference, half_lives)
            totals["decayed"][places] += own["decayed"] * scale[:, np.newaxis]
    return totals


def decay(age, half_lives):
    """Return the weights of events of an age, one per half-life."""
    return np.exp2(-age / np.array(half_lives, dtype=np.float64))


def _combine_lists(a, b, codes, n_keys):
    of_element = np.concatenate(
        [
            np.repeat(of_log, np.diff(log.offsets))
            for of_log, log in zip(codes, (a, b), strict=True)
        ]
    )
    time = np.concatenate([a.time, b.time])
    order = np.lexsort([time, of_element])
    value = np.concatenate([a.value, b.value])[order]
    return ListLog(_offsets(of_element, n_keys), time[order], value)


def without_keys(log, n_half_lives):
    """Return a log with one key that has no row, in place of one without keys."""
    columns = np.zeros((1, log.columns.shape[1]), dtype=np.int64)
    totals = no_totals(1, log.labels.shape[1], n_half_lives, log.time.dtype)
    offsets = np.zeros(2, dtype=np.int64)
    lists = [ListLog(offsets, each.time, each.value) for each in log.lists]
    return replaced(log, columns=columns, offsets=offsets, totals=totals, lists=lists)


def replaced(log, **parts):
    """Return the log with some parts replaced."""
    return KeyLog(**{**vars(log), **parts})


def select_keys(log, places):
    """Return the log of some keys, which are given by their places, in this order."""
    sizes = np.diff(log.offsets)[places]
    rows = ranges(log.offsets[places], sizes)
    lists = []
    for each in log.lists:
        own = np.diff(each.offsets)[places]
        elements = ranges(each.offsets[places], own)
        offsets = np.append(0, own.cumsum())
        lists.append(ListLog(offsets, each.time[elements], each.value[elements]))
    return KeyLog(
        log.columns[places],
        np.append(0, sizes.cumsum()),
        log.time[rows],
        log.labels[rows],
        lists,
        {name: total[places] for name, total in log.totals.items()},
        log.reference,
    )


def ranges(starts, sizes):
    """Return the indices start, start + 1, ... of slices, one slice after the other."""
    ends = sizes.cumsum()
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - sizes), sizes)


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
    """Return the decayed sums up to each row, from given first rows on.

    The last axis has the impressions, the known labels, and those that are 1.
    """
    known, positive = log.labels >= 0, log.labels == 1
    values = np.concatenate([np.ones((len(known), 1)), known, positive], axis=1)
    sums = np.zeros((len(values), len(half_lives), values.shape[1]))
    for h, half_life in enumerate(half_lives):
        place = np.arange(len(values)) - first
        sums[:, h] = decayed_sums(log.time, place, values, half_life)
    return sums


def decayed_sums(time, place, values, half_life):
    """Return, for each row, the decayed sum over the rows of its slice up to it.

    Sums within blocks of four rows, then sums of the blocks by the same function, then
    both together: only positive terms are added, and no weight exceeds 1.
    """
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

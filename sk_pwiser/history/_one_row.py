"""The new columns of a single row, from what a state has of each of its keys.

NumPy needs about a microsecond per call, however short its arrays are; the loops of
this module need less for one row. A state is folded at its end, and the row is later:
the totals of a key, and its earlier rows, count unless the key is over by `max_age`.
"""

import math
from array import array
from bisect import bisect_left
from collections.abc import Mapping
from functools import lru_cache
from itertools import chain

import numpy as np

from sk_pwiser._columns._frames import is_missing
from sk_pwiser._columns._value_kinds import inexact_classes
from sk_pwiser._times import read_time
from sk_pwiser.history._key_log import decay, decayed_sums, numbers_of, rate_prior
from sk_pwiser.history._store_blocks import EMPTY, Block, KeyPast, newest, seen


class PastsOfKeys:
    """The pasts of the keys of a log, by their places."""

    def __init__(self, log, plan):
        self.reference, labels = log.reference, log.rows.value
        totals, n_tasks = log.totals, labels.shape[1]
        counts, decayed, last = totals["counts"], totals["decayed"], totals["last"]

        def sequence(*parts):
            return _sequence(log, plan.half_lives, *parts)

        of_all = counts[:, 0], last[:, 0], decayed[:, :, 0]
        sequences = [sequence(*of_all, slice(None))]
        for k in range(n_tasks):
            known, positive = 1 + k, 1 + n_tasks + k
            events = counts[:, positive], last[:, 1 + k], decayed[:, :, positive]
            n_missing = counts[:, 0] - counts[:, known]
            missing = decayed[:, :, 0] - decayed[:, :, known]
            sequences.append(sequence(*events, labels[:, k] == 1))
            parts = n_missing, last[:, 0], missing, labels[:, k] < 0
            sequences.append(sequence(*parts))
        # Views are read faster than arrays, one number at a time.
        self.sequences = [list(map(memoryview, arrays)) for arrays in sequences]
        self.lists = [
            list(map(memoryview, (each.offsets, each.time, each.value)))
            for each in log.lists
        ]
        self.width = len(plan.half_lives)

    def __getitem__(self, place):
        blocks, width = [], self.width
        for offsets, times, sums, n_before in self.sequences:
            start, stop = offsets[place], offsets[place + 1]
            block = EMPTY
            if stop > start:
                parts = times, start, stop, sums, start * width, width
                block = Block(*parts, n_before[place])
            blocks.append(block)
        for offsets, times, values in self.lists:
            start, stop = offsets[place], offsets[place + 1]
            values = values[start:stop]
            blocks.append(Block(times, start, stop, EMPTY.sums, 0, 0, 0, values))
        return KeyPast(self.reference, blocks)


def _sequence(log, half_lives, count, last, decayed, rows):
    """Return offsets, times, decayed sums and earlier events of sequences, per key.

    `count`, `last` and `decayed` are the totals of the events that are no longer kept,
    the last of which comes first here, and `rows` selects the others.
    """
    keys, own_times = log.rows.keys()[rows], log.rows.time[rows]
    has_old = count > 0
    sizes = np.bincount(keys, minlength=log.n_keys) + has_old
    offsets = np.append(0, sizes.cumsum())
    place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], sizes)
    is_old = (place == 0) & np.repeat(has_old, sizes)
    times = np.empty(len(place), dtype=np.result_type(own_times, last))
    times[is_old], times[~is_old] = last[has_old], own_times
    sums = np.empty((len(place), len(half_lives)))
    for h, half_life in enumerate(half_lives):
        values = np.ones((len(place), 1))
        if has_old.any():
            # The sum at the time of the last event; too small ones never count.
            weight = decay(log.reference - last[has_old], half_life)
            own = decayed[has_old, h]
            value = np.divide(own, weight, out=np.ones(len(own)), where=weight > 1e-200)
            values[is_old, 0] = value
        sums[:, h] = decayed_sums(times, place, values, half_life)[:, 0]
    return offsets, times, sums.reshape(-1), np.maximum(count - 1, 0)


def look(past, time, plan, read):
    """Return what a row sees of a key, or None if nothing.

    These are the ages of the last impression and of the last event per task, and per
    horizon the impressions, and the labels that are known, and that are 1, per task.
    """
    blocks, half_lives, unit = past.blocks, plan.half_lives, plan.unit
    rows, tasks = blocks[0], range(len(plan.lags))
    of_rows = seen(rows, time - plan.state_delay, time, half_lives, read)
    count, last, sums = of_rows
    if not count or (plan.max_age is not None and time - last > plan.max_age):
        return None
    by_lag, none = {plan.state_delay: of_rows}, (0, None, [0.0] * len(half_lives))
    ages, known, positive, of_missing = [(time - last) / unit], [], [], []
    known_sums, positive_sums = [], []
    for k, lag in enumerate(plan.lags):
        events, missing = blocks[1 + 2 * k], blocks[2 + 2 * k]
        if lag not in by_lag:
            by_lag[lag] = seen(rows, time - lag, time, half_lives, read)
        n_rows, _, own_sums = by_lag[lag]
        of_events, n_missing = none, 0
        if events is not EMPTY:
            of_events = seen(events, time - lag, time, half_lives, read)
        if missing is not EMPTY:
            n_missing, _, less = seen(missing, time - lag, time, half_lives, read)
            own_sums = [a - b for a, b in zip(own_sums, less, strict=True)]
        n_events, last, event_sums = of_events
        ages.append((time - last) / unit if n_events else math.nan)
        known.append(n_rows - n_missing)
        positive.append(n_events)
        of_missing.append(n_missing)
        known_sums.append(own_sums)
        positive_sums.append(event_sums)
    horizons = [[count, *known, *positive]]
    for window in plan.windows:
        bound = time - window
        before = seen(rows, bound, time, (), read)[0]
        own_known, own_positive = [], []
        for k in tasks:
            n, n_events = known[k] - before, positive[k]
            if of_missing[k]:
                n += seen(blocks[2 + 2 * k], bound, time, (), read)[0]
            if n_events:
                n_events -= seen(blocks[1 + 2 * k], bound, time, (), read)[0]
            own_known.append(max(n, 0))
            own_positive.append(max(n_events, 0))
        horizons.append([max(count - before, 0), *own_known, *own_positive])
    sums = [sums, *known_sums, *positive_sums]
    for h in range(len(half_lives)):
        horizons.append([max(own[h], 0.0) for own in sums])
    return ages, horizons


class OneRow:
    """The new columns of a history for rows as dictionaries."""

    def __init__(self, state, plan):
        self.state, self.plan, self.plan_of_all = state, plan, plan.of_all
        self.of_all = self.past_of_all()
        self.names = plan.number_names
        self.inexact = {
            name: inexact_classes(index.kinds) for name, index in state.indices.items()
        }
        n_tasks = len(plan.lags)
        counts = [[0] * (1 + 2 * n_tasks)] * len(plan.horizons)
        self.nothing = [math.nan] * (1 + n_tasks), counts
        # The rates over all keys are the same once their labels are known.
        self.prior = lru_cache(maxsize=1024)(self.prior)

    # Return a block by its number; a state in memory has no blocks but roots.
    read_block = None

    def past_of_all(self):
        return PastsOfKeys(self.state.everything, self.plan_of_all)[0]

    def prior(self, known, positive):
        """Return what shrinks the log-odds of keys, as numbers of Python."""
        return tuple(map(float, rate_prior(known, positive, self.plan.smoothing)))

    def key_field(self, row, name):
        """Return a field; raise if it, or keys of the state, are rounded integers."""
        value = field_of(row, name)
        is_inexact = isinstance(value, self.inexact[name]) and not is_missing(value)
        if is_inexact and 2**53 < abs(value) < math.inf:
            self.state.indices[name].check_exact([value], name)
        return value

    def features(self, row):
        """Return the new columns of a row, and whether it is from before the end."""
        if not isinstance(row, Mapping):
            raise TypeError(
                f"row must be a dict, with the fields of a row; got {type(row)}."
            )
        plan, end = self.plan, self.state.end
        time = read_time(field_of(row, plan.time), plan.time, plan.kind)
        is_early = time < end
        time = end if is_early else time
        read, of_all = self.read_block, self.of_all
        # The records of a store may be newer than the state, whose end is read once.
        own_time = max(time, of_all.reference)
        _, horizons = look(of_all, own_time, self.plan_of_all, read) or self.nothing
        _, *labels = horizons[0]
        n_tasks = len(plan.lags)
        priors = list(map(self.prior, labels[:n_tasks], labels[n_tasks:]))
        numbers, pasts = [], []
        for key, names in enumerate(plan.keys):
            past = self.look_up(key, names, row)
            own_time = max(time, past.reference) if past else time
            is_early |= own_time > time
            seen = past and look(past, own_time, plan, read)
            pasts.append((past, own_time) if seen else None)
            ages, horizons = seen or self.nothing
            numbers += ages + numbers_of(horizons, priors, math.log, math.log1p)
        # Those of a table are float32, and a model serves what it has learnt.
        features = dict(zip(self.names, array("f", numbers), strict=True))
        for each in plan.lists:
            times = values = []
            if pasts[each.key]:
                past, own_time = pasts[each.key]
                block = past.blocks[1 + 2 * len(plan.lags) + each.place]
                times, values = newest(block, own_time - each.lag, each.n, read)
                values = self.values_of(each.column, values)
            features[each.name] = values
            if each.ages:
                ages = [(own_time - t) / plan.unit for t in times]
                if each.ages == "buckets":
                    ages = [int(math.log2(1 + age)) for age in ages]
                features[f"{each.name}_ages"] = ages
        return features, is_early


class MemoryRow(OneRow):
    """The new columns of single rows, from a state in memory.

    Logs that an `earlier` object has read are not read again.
    """

    def __init__(self, state, plan, earlier=None):
        super().__init__(state, plan)
        known, self.readable = earlier.readable if earlier else {}, {}
        for own in chain.from_iterable(state.levels):
            readable = known.get(id(own))
            if readable is None:
                sizes, keys = own.packed
                readable = own, sizes.tolist(), memoryview(keys), PastsOfKeys(own, plan)
            self.readable[id(own)] = readable
        # Per key, from the newest level to the oldest.
        self.levels = [
            [self.readable[id(own)][1:] for own in logs]
            for logs in zip(*reversed(state.levels), strict=True)
        ]

    def values_of(self, column, elements):
        return self.state.indices[column].at(elements)

    def look_up(self, key, names, row):
        """Return the past of the key of a row, None for none."""
        places = []
        for name in names:
            value, index = self.key_field(row, name), self.state.indices[name]
            try:
                place = index.place(value)
            except TypeError as error:
                raise TypeError(
                    f"Column {name!r} must hold a value for keys; got {value!r}."
                ) from error
            if place < 0 and not is_missing(value):
                index.check_kinds([value], name)
            places.append(place)
        if min(places) < 0:
            return None
        for sizes, keys, pasts in self.levels[key]:
            packed = 0
            for place, size in zip(places, sizes, strict=True):
                packed = packed * size + place if place < size else math.inf
            found = bisect_left(keys, packed)
            if found < len(keys) and keys[found] == packed:
                return pasts[found]
        return None


def field_of(row, name):
    try:
        return row[name]
    except KeyError:
        raise ValueError(
            f"The row has no field {name!r}; its fields are {list(row)}."
        ) from None

"""The new columns of a single row, from what a state has of each of its keys.

NumPy needs about a microsecond per call, however short its arrays are; the loops of
this module need less for one row. A state is folded at its end, and the row is later:
the totals of a key, and its earlier rows, count unless the key is over by `max_age`.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping
from functools import lru_cache
from math import exp2, log, log1p
from typing import NamedTuple

import numpy as np

from sk_pwiser._table import LARGE, is_missing
from sk_pwiser._times import read_time
from sk_pwiser.history._key_log import columns_of_totals, decayed_rows, pack
from sk_pwiser.history._point_in_time import shrinkage


class KeyPast(NamedTuple):
    """What a state has of one key, or of all rows; see `PastsOfKeys`."""

    reference: float  # the time of the decayed totals
    totals: list
    starts: list  # part i of the rows is views[i][starts[i] : stops[i]]
    stops: list
    views: list
    values: list  # of the elements, per list


class PastsOfKeys:
    """The pasts of the keys of a log, by their places.

    The totals are the `columns_of_totals`. The parts of the rows are their times; per
    task the places of labels that are 1 and of missing ones, from the first row of the
    key on; per list the times of the elements; and the decayed sums up to each row.
    """

    def __init__(self, log, plan):
        starts = log.offsets[log.rows.keys()]
        columns = columns_of_totals(log.totals).values()
        parts = [(log.offsets, log.time)]
        for labels in log.labels.T:
            for value in (1, -1):
                rows = np.flatnonzero(labels == value)
                offsets = np.searchsorted(rows, log.offsets)
                parts.append((offsets, rows - starts[rows]))
        parts += [(each.offsets, each.time) for each in log.lists]
        decayed = decayed_rows(log, starts, plan.half_lives)
        n_columns = math.prod(decayed.shape[1:])
        parts.append((log.offsets * n_columns, decayed.reshape(-1)))
        self.reference, self.totals = log.reference, list(map(memoryview, columns))
        self.offsets = [memoryview(offsets) for offsets, _ in parts]
        self.views = [memoryview(array) for _, array in parts]
        self.values = [memoryview(each.value) for each in log.lists]

    def __getitem__(self, place):
        starts = [offsets[place] for offsets in self.offsets]
        stops = [offsets[place + 1] for offsets in self.offsets]
        first = len(starts) - 1 - len(self.values)
        values = [
            view[starts[i] : stops[i]] for i, view in enumerate(self.values, first)
        ]
        totals = [column[place] for column in self.totals]
        return KeyPast(self.reference, totals, starts, stops, self.views, values)


def look(past, time, plan):
    """Return what a row sees of a key, or None if nothing.

    These are the ages of the last impression and of the last event per task, and per
    horizon the impressions, and the labels that are known, and that are 1, per task.
    """
    _, totals, starts, stops, views, _ = past
    rows, first, n_tasks, unit = views[0], starts[0], len(plan.lags), plan.unit
    end = bisect_left(rows, time - plan.state_delay, first, stops[0])
    if not (end > first or totals[0]):
        return None
    last = rows[end - 1] if end > first else totals[1 + 2 * n_tasks]
    if plan.max_age is not None and time - last > plan.max_age:
        return None
    ages, seen, known, positive = [(time - last) / unit], [], [], []
    for k, lag in enumerate(plan.lags):
        i, j = 1 + 2 * k, 2 + 2 * k
        is_later = lag > plan.state_delay
        stop = bisect_left(rows, time - lag, first, end) if is_later else end
        event = bisect_left(views[i], stop - first, starts[i], stops[i])
        missing = bisect_left(views[j], stop - first, starts[j], stops[j])
        n_before, age = totals[1 + n_tasks + k], math.nan
        if event > starts[i]:
            age = (time - rows[first + views[i][event - 1]]) / unit
        elif n_before:
            age = (time - totals[2 + 2 * n_tasks + k]) / unit
        ages.append(age)
        seen.append((stop, event, missing))
        known.append(stop - first - missing + starts[j] + totals[1 + k])
        positive.append(event - starts[i] + n_before)
    horizons = [(end - first + totals[0], known, positive)]
    for window in plan.windows:
        start = bisect_left(rows, time - window, first, end)
        known, positive = [0] * n_tasks, [0] * n_tasks
        for k, (stop, event, missing) in enumerate(seen):
            if stop > start:
                i, j = 1 + 2 * k, 2 + 2 * k
                positive[k] = event - bisect_left(
                    views[i], start - first, starts[i], event
                )
                before = bisect_left(views[j], start - first, starts[j], missing)
                known[k] = stop - start - missing + before
        horizons.append((end - start, known, positive))
    if plan.half_lives:
        ends = [end, *(stop for stop, _, _ in seen)]
        horizons += _decayed_counts(past, time, plan.half_lives, ends)
    return ages, horizons


def _decayed_counts(past, time, half_lives, ends):
    """Return the decayed counts of the rows before each of `ends`, per half-life."""
    reference, totals, starts, _, views, _ = past
    n_tasks, first = len(ends) - 1, starts[0]
    width, n_columns = 1 + 2 * n_tasks, len(half_lives) * (1 + 2 * n_tasks)
    horizons = []
    for h, half_life in enumerate(half_lives):
        column = 3 + 3 * n_tasks + h * width
        scale = exp2(-(time - reference) / half_life)
        counts = [total * scale for total in totals[column : column + width]]
        for k, end in enumerate(ends):
            if end > first:
                weight = exp2(-(time - views[0][end - 1]) / half_life)
                place = starts[-1] + (end - 1 - first) * n_columns + h * width + k
                counts[k] += views[-1][place] * weight
                if k:
                    counts[k + n_tasks] += views[-1][place + n_tasks] * weight
        horizons.append((counts[0], counts[1 : 1 + n_tasks], counts[1 + n_tasks :]))
    return horizons


class OneRow:
    """The new columns of a history for rows as dictionaries."""

    def __init__(self, state, plan):
        self.state, self.plan, self.plan_of_all = state, plan, plan.of_all
        self.of_all = PastsOfKeys(state.everything, self.plan_of_all)[0]
        self.names = [plan.names_of_key(key) for key in range(len(plan.keys))]
        self.inexact = {
            name: _inexact_classes(index.kinds) for name, index in state.indices.items()
        }
        none = [0] * len(plan.lags)
        counts = [(0, none, none)] * len(plan.horizons)
        self.nothing = [math.nan] * (1 + len(none)), counts
        # The rates over all keys are the same once their labels are known.
        self.prior = lru_cache(maxsize=1024)(self.prior)

    def prior(self, known, positive):
        """Return what shrinks the log-odds of keys, as numbers of Python."""
        return tuple(map(float, shrinkage(known, positive, self.plan.smoothing)))

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
        is_early = end is not None and time < end
        time = end if is_early else time
        _, horizons = look(self.of_all, time, self.plan_of_all) or self.nothing
        priors = list(map(self.prior, *horizons[0][1:]))
        features, pasts = {}, []
        for key, names in enumerate(plan.keys):
            past = self.look_up(key, names, row)
            # The record of a key may be newer than the state, whose end is read once.
            own_time = time
            if past and past.reference is not None:
                own_time = max(time, past.reference)
            is_early |= own_time > time
            seen = past and look(past, own_time, plan)
            pasts.append((past, own_time) if seen else None)
            numbers, horizons = seen or self.nothing
            numbers = numbers[:]
            for impressions, known, positive in horizons:
                numbers.append(log1p(impressions))
                for n, k, prior in zip(known, positive, priors, strict=True):
                    events, others, logit = prior
                    numbers += log1p(k), log((k + events) / (n - k + others)) - logit
            features.update(zip(self.names[key], numbers, strict=True))
        for each in plan.lists:
            part = 1 + 2 * len(plan.lags) + each.place
            values = ages = []
            if pasts[each.key]:
                past, own_time = pasts[each.key]
                times, first = past.views[part], past.starts[part]
                stop = bisect_left(times, own_time - each.lag, first, past.stops[part])
                start = max(first, stop - each.n)
                values = past.values[each.place][start - first : stop - first]
                values = self.values_of(each.column, values)
                if each.ages:
                    ages = [(own_time - t) / plan.unit for t in times[start:stop]]
            features[each.name] = values
            if each.ages == "buckets":
                ages = [int(math.log2(1 + age)) for age in ages]
            if each.ages:
                features[f"{each.name}_ages"] = ages
        return features, is_early


def _inexact_classes(kinds):
    """Return the classes of large numbers that equal no value of a state.

    `kinds` are those of its values: integers that became floats are rounded.
    """
    absent = LARGE.keys() - kinds
    return LARGE[absent.pop()] if len(absent) == 1 else ()


class MemoryRow(OneRow):
    """The new columns of single rows, from a state in memory."""

    def __init__(self, state, plan):
        super().__init__(state, plan)
        self.places = {name: index.places for name, index in state.indices.items()}
        self.pasts = [PastsOfKeys(log, plan) for log in state.logs]
        self.sizes = [
            [len(self.places[name]) + 1 for name in names] for names in plan.keys
        ]
        self.keys = [
            memoryview(pack(log.columns, sizes))
            for log, sizes in zip(state.logs, self.sizes, strict=True)
        ]

    def values_of(self, column, elements):
        values = self.state.indices[column].values
        return [values[i] for i in elements]

    def look_up(self, key, names, row):
        """Return the past of the key of a row, None for none."""
        packed, is_seen = 0, True
        for name, size in zip(names, self.sizes[key], strict=True):
            value = self.key_field(row, name)
            try:
                place = self.places[name].get(value, -1)
            except TypeError as error:
                raise TypeError(
                    f"Column {name!r} must hold a value for keys; got {value!r}."
                ) from error
            if place < 0:
                is_seen = False
                if not is_missing(value):
                    self.state.indices[name].check_kinds([value], name)
            packed = packed * size + place
        if not is_seen:
            return None
        keys = self.keys[key]
        place = bisect_left(keys, packed)
        is_known = place < len(keys) and keys[place] == packed
        return self.pasts[key][place] if is_known else None


def field_of(row, name):
    try:
        return row[name]
    except KeyError:
        raise ValueError(
            f"The row has no field {name!r}; its fields are {list(row)}."
        ) from None

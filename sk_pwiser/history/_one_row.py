"""The past of a single row: `Past` for one query, without arrays.

NumPy needs about a microsecond per operation, however short its arrays are, and Python
reads a number from a memoryview in a twentieth of that. The formulas are those of
`Past`, and the tests compare their results.
"""

import math
from bisect import bisect_left

import numpy as np

from sk_pwiser._table import is_missing
from sk_pwiser._times import read_time
from sk_pwiser.history._key_log import pack


def _view(array):
    return memoryview(np.ascontiguousarray(array))


class OnePast:
    """Answers the queries of `Past` one by one."""

    def __init__(self, past):
        log, self.plan = past.log, past.plan
        self.windows, self.half_lives = past.windows, past.half_lives
        self.lists, self.reference = past.lists, log.reference
        self.offsets, self.time = _view(log.offsets), _view(log.time)
        self.stretch, self.is_linked = _view(past.stretch), _view(past.is_linked)
        self.known, self.positive = _view(past.known), _view(past.positive)
        self.last_positive = _view(past.last_positive)
        self.decayed = _view(past.decayed)
        self.totals = {name: _view(total) for name, total in log.totals.items()}
        self.list_logs = [
            (_view(each.offsets), _view(each.time), _view(each.value))
            for each in log.lists
        ]

    def view(self, code, time):
        """Return the fields of `View` for a key; all are 0 for the code -1."""
        if code < 0:
            return 0, False, 0, 0, 0, False
        start = self.offsets[code]
        end = bisect_left(self.time, time, start, self.offsets[code + 1])
        if end > start:
            last = self.time[end - 1]
            begin = self.stretch[end - 1]
            is_on = begin == start and self.is_linked[code]
            has_any = True
        else:
            last, begin = self.totals["last"][code], start
            is_on = has_any = self.totals["count"][code] > 0
        max_age = self.plan.max_age
        if has_any and max_age is not None and time - last > max_age:
            return code, False, end, end, last, False
        return code, is_on, begin, end, last, has_any

    def seen_labels(self, view, time):
        """Return, per task, the end of the rows whose labels are known."""
        _, _, start, end, _, _ = view
        ends = {0: end}
        for delay in self.plan.delays:
            if delay not in ends:
                ends[delay] = bisect_left(self.time, time - delay, start, end)
        return [ends[delay] for delay in self.plan.delays]

    def priors(self, time):
        """Return, per task, what `shrunk_log_odds` adds to counts and subtracts."""
        view = self.view(0, time)
        seen = self.seen_labels(view, time)
        _, known, positive = self.counts(view, seen)
        priors = []
        for n, k in zip(known, positive, strict=True):
            rate = (k + 0.5) / (n + 1)
            strength = self.plan.smoothing / min(rate, 1 - rate)
            logit = math.log(rate / (1 - rate))
            priors.append((strength * rate, strength * (1 - rate), logit))
        return priors

    def counts(self, view, seen):
        """Return the impressions, and labels known and of 1 per task, of all past."""
        code, is_on, start, end, _, _ = view
        impressions = end - start
        known = [self.known[e, k] - self.known[start, k] for k, e in enumerate(seen)]
        positive = [
            self.positive[e, k] - self.positive[start, k] for k, e in enumerate(seen)
        ]
        if is_on:
            totals = self.totals
            impressions += totals["count"][code]
            for k in range(len(seen)):
                known[k] += totals["known"][code, k]
                positive[k] += totals["positive"][code, k]
        return impressions, known, positive

    def numbers(self, code, time, priors):
        """Return the numbers of a key, in the order of `Plan.names_of_key`."""
        view = self.view(code, time)
        seen = self.seen_labels(view, time)
        numbers = self._ages(view, seen, time)
        _append(numbers, priors, *self.counts(view, seen))
        _, _, start, end, _, _ = view
        for window in self.windows:
            begin = bisect_left(self.time, time - window, start, end)
            ends = [max(e, begin) for e in seen]
            known = [
                self.known[e, k] - self.known[begin, k] for k, e in enumerate(ends)
            ]
            positive = [
                self.positive[e, k] - self.positive[begin, k]
                for k, e in enumerate(ends)
            ]
            _append(numbers, priors, end - begin, known, positive)
        for h, half_life in enumerate(self.half_lives):
            counts = self._decayed(view, seen, time, h, half_life)
            _append(numbers, priors, *counts)
        return numbers

    def _ages(self, view, seen, time):
        code, is_on, start, _, last, has_any = view
        unit = self.plan.unit
        ages = [(time - last) / unit if has_any else math.nan]
        for k, end in enumerate(seen):
            age = math.nan
            place = self.last_positive[end - 1, k] if end > start else -1
            if place >= start:
                age = (time - self.time[place]) / unit
            elif is_on and self.totals["positive"][code, k]:
                age = (time - self.totals["last_positive"][code, k]) / unit
            ages.append(age)
        return ages

    def _decayed(self, view, seen, time, h, half_life):
        code, is_on, start, end, _, _ = view
        n_tasks = len(seen)
        scale = 0.0
        if is_on and self.reference is not None:
            scale = 2.0 ** (-(time - self.reference) / half_life)

        def upto(end, column):
            total = self.totals["decayed"][code, h, column] * scale if scale else 0.0
            if end > start:
                weight = 2.0 ** (-(time - self.time[end - 1]) / half_life)
                total += self.decayed[end - 1, h, column] * weight
            return total

        known = [upto(end, 1 + k) for k, end in enumerate(seen)]
        positive = [upto(end, 1 + n_tasks + k) for k, end in enumerate(seen)]
        return upto(end, 0), known, positive

    def last_values(self, place, code, time):
        """Return the places and the ages of the elements of a list."""
        if code < 0:
            return [], []
        each, (offsets, times, values) = self.lists[place], self.list_logs[place]
        start, end = offsets[code], offsets[code + 1]
        if self.plan.max_age is not None:
            _, is_on, begin, _, _, has_any = self.view(code, time)
            if not has_any:
                return [], []
            first = self.totals["first"][code] if is_on else self.time[begin]
            start = bisect_left(times, first, start, end)
        end = bisect_left(times, time - each.delay, start, end)
        start = max(start, end - each.n)
        ages = [(time - t) / self.plan.unit for t in times[start:end]]
        return values[start:end].tolist(), ages


def _append(numbers, priors, impressions, known, positive):
    numbers.append(math.log1p(impressions))
    for k, (events, others, logit) in enumerate(priors):
        n = positive[k]
        numbers.append(math.log1p(n))
        numbers.append(math.log((n + events) / (known[k] - n + others)) - logit)


class OneRow:
    """The new columns of a history for rows as dictionaries."""

    def __init__(self, state, plan, pasts, of_all):
        self.state, self.plan = state, plan
        self.pasts, self.of_all = [OnePast(past) for past in pasts], OnePast(of_all)
        self.names = [plan.names_of_key(key) for key in range(len(plan.keys))]
        self.places = {name: index.places for name, index in state.indices.items()}
        self.keys, self.sizes = [], []
        for key, log in zip(plan.keys, state.logs, strict=True):
            sizes = [len(self.places[name]) + 1 for name in key]
            self.sizes.append(sizes)
            self.keys.append(_view(pack(log.columns, sizes)))

    def features(self, row):
        """Return the new columns of a row, and whether it is from before the end."""
        plan, state = self.plan, self.state
        time = read_time(_field(row, plan.time), plan.time, state.kind)
        is_early = state.end is not None and time < state.end
        time = state.end if is_early else time
        priors = self.of_all.priors(time)
        features, codes = {}, []
        for key, names in enumerate(plan.keys):
            code = self._code(key, names, row)
            codes.append(code)
            numbers = self.pasts[key].numbers(code, time, priors)
            features.update(zip(self.names[key], numbers, strict=True))
        places = [0] * len(plan.keys)
        for each in plan.lists:
            own = self.pasts[each.key]
            found, ages = own.last_values(places[each.key], codes[each.key], time)
            places[each.key] += 1
            values = state.indices[each.column].values
            features[each.name] = [values[place] for place in found]
            if each.ages == "buckets":
                ages = [int(math.log2(1 + age)) for age in ages]
            if each.ages:
                features[f"{each.name}_ages"] = ages
        return features, is_early

    def _code(self, key, names, row):
        packed = 0
        for name, size in zip(names, self.sizes[key], strict=True):
            value = _field(row, name)
            try:
                place = self.places[name].get(value, -1)
            except TypeError as error:
                raise TypeError(
                    f"Column {name!r} must hold a value for keys; got {value!r}."
                ) from error
            if place < 0 or is_missing(value):
                return -1
            packed = packed * size + place
        keys = self.keys[key]
        code = bisect_left(keys, packed)
        return code if code < len(keys) and keys[code] == packed else -1


def _field(row, name):
    try:
        return row[name]
    except KeyError:
        raise ValueError(
            f"The row has no field {name!r}; its fields are {list(row)}."
        ) from None

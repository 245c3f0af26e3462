"""The new columns of a single row, without arrays."""

import math
from bisect import bisect_left

from sk_pwiser._table import is_missing
from sk_pwiser._times import read_time
from sk_pwiser.history._key_log import pack


class OneRow:
    """The new columns of a history for rows as dictionaries."""

    def __init__(self, state, plan, pasts, of_all):
        self.state, self.plan = state, plan
        self.pasts = [past.for_one_row() for past in pasts]
        self.of_all = of_all.for_one_row()
        self.names = [plan.names_of_key(key) for key in range(len(plan.keys))]
        self.places = {name: index.places for name, index in state.indices.items()}
        self.keys, self.sizes = [], []
        for key, log in zip(plan.keys, state.logs, strict=True):
            sizes = [len(self.places[name]) + 1 for name in key]
            self.sizes.append(sizes)
            self.keys.append(memoryview(pack(log.columns, sizes)))

    def features(self, row):
        """Return the new columns of a row, and whether it is from before the end."""
        plan, state = self.plan, self.state
        time = read_time(field_of(row, plan.time), plan.time, state.kind)
        is_early = state.end is not None and time < state.end
        time = state.end if is_early else time
        priors = self.of_all.priors(0, time)
        features, found = {}, []
        for key, names in enumerate(plan.keys):
            past, code = self.look_up(key, names, row)
            found.append((past, code))
            numbers = past.numbers(code, time, priors)
            features.update(zip(self.names[key], numbers, strict=True))
        places = [0] * len(plan.keys)
        for each in plan.lists:
            (past, code), place = found[each.key], places[each.key]
            start, end = past.slice_of_list(place, code, time)
            places[each.key] += 1
            log = past.log.lists[place]
            features[each.name] = self.values_of(each.column, log.value[start:end])
            ages = [(time - t) / plan.unit for t in log.time[start:end]]
            if each.ages == "buckets":
                ages = [int(math.log2(1 + age)) for age in ages]
            if each.ages:
                features[f"{each.name}_ages"] = ages
        return features, is_early

    def values_of(self, column, elements):
        """Return the values of elements of a list."""
        values = self.state.indices[column].values
        return [values[i] for i in elements]

    def look_up(self, key, names, row):
        """Return the past with the key of a row, and the key's place, -1 for none."""
        past, packed = self.pasts[key], 0
        for name, size in zip(names, self.sizes[key], strict=True):
            value = field_of(row, name)
            try:
                place = self.places[name].get(value, -1)
            except TypeError as error:
                raise TypeError(
                    f"Column {name!r} must hold a value for keys; got {value!r}."
                ) from error
            if place < 0 or is_missing(value):
                return past, -1
            packed = packed * size + place
        keys = self.keys[key]
        code = bisect_left(keys, packed)
        return past, code if code < len(keys) and keys[code] == packed else -1


def field_of(row, name):
    """Return a field of a row."""
    try:
        return row[name]
    except KeyError:
        raise ValueError(
            f"The row has no field {name!r}; its fields are {list(row)}."
        ) from None

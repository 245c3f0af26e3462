"""The new columns of a single row, from what a state has of each of its keys.

NumPy needs about a microsecond per call, however short its arrays are; the loops of
this module need less for one row. A state is folded at its end, and the row is later:
the totals of a key, and its earlier rows, count unless the key is over by `max_age`.
"""

import math
from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from sk_pwiser._columns._frames import is_missing
from sk_pwiser._columns._value_kinds import inexact_classes
from sk_pwiser._times import read_time
from sk_pwiser.history._history_state import HistoryState
from sk_pwiser.history._key_log import (
    AmountSums,
    Array,
    KeyLog,
    Slices,
    amount_numbers,
    amount_prior,
    decay,
    decayed_sums,
    numbers_of,
    rate_prior,
)
from sk_pwiser.history._plan import Plan, amount_half_lives
from sk_pwiser.history._store_blocks import (
    EMPTY,
    Block,
    KeyPast,
    Numbers,
    ReadBlock,
    newest,
    seen,
)

# What a row sees of a key: the ages of the last impression and of the last event per
# task, per horizon the impressions, and the labels that are known, and that are 1, per
# task, and per value and horizon the number of known amounts and their sum.
Sight = tuple[
    list[float], Sequence[Sequence[float]], Sequence[Sequence[tuple[float, float]]]
]


# The half-life of the first sum of amounts.
WITHOUT_DECAY = (math.inf,)


class Sequences(NamedTuple):
    """The times of one kind of events of all keys, those of a key one after another.

    Where events of a key are no longer kept, its first time stands for them.
    """

    offsets: Numbers  # those of key i are `offsets[i]:offsets[i + 1]`
    times: Numbers
    sums: Numbers  # the decayed sums at each time, `width` numbers
    width: int
    n_before: Numbers  # per key, the events before its first time


class Elements(NamedTuple):
    """The elements of a list of all keys, those of a key one after another."""

    offsets: Numbers
    times: Numbers
    values: Numbers


class PastsOfKeys:
    """The pasts of the keys of a log, by their places."""

    def __init__(self, log: KeyLog, plan: Plan) -> None:
        self.reference = log.reference
        labels = log.rows.value
        n_tasks = labels.shape[1]
        counts = log.totals["counts"]
        decayed = log.totals["decayed"]
        last = log.totals["last"]
        n_impressions = counts[:, 0]
        last_impression = last[:, 0]
        self.sequences = [
            _sequences(
                log,
                plan.half_lives,
                count=n_impressions,
                last=last_impression,
                decayed=decayed[:, :, 0],
                is_event=np.ones(len(labels), dtype=bool),
            )
        ]
        for k in range(n_tasks):
            known_column = 1 + k
            positive_column = 1 + n_tasks + k
            events = _sequences(
                log,
                plan.half_lives,
                count=counts[:, positive_column],
                last=last[:, 1 + k],
                decayed=decayed[:, :, positive_column],
                is_event=labels[:, k] == 1,
            )
            missing = _sequences(
                log,
                plan.half_lives,
                count=n_impressions - counts[:, known_column],
                last=last_impression,
                decayed=decayed[:, :, 0] - decayed[:, :, known_column],
                is_event=labels[:, k] < 0,
            )
            self.sequences += [events, missing]
        for value, task in enumerate(plan.values.parents):
            amounts = _amount_sequences(
                log, plan.half_lives, value, last_event=last[:, 1 + task]
            )
            self.sequences.append(amounts)
        self.lists = [
            Elements(
                offsets=elements.offsets.data,
                times=elements.time.data,
                values=elements.value.data,
            )
            for elements in log.lists
        ]

    def __getitem__(self, place: int) -> KeyPast:
        blocks = []
        for offsets, times, sums, width, n_before in self.sequences:
            start = offsets[place]
            stop = offsets[place + 1]
            block = EMPTY
            if stop > start:
                # In the order of the fields: arguments by name take twice as long, and
                # a row makes some twenty blocks.
                block = Block._make(
                    (
                        times,
                        start,
                        stop,
                        sums,
                        start * width,  # place of the first sum
                        width,
                        n_before[place],
                        None,  # values
                        0,  # level
                        None,  # numbers
                        0,  # at
                    )
                )
            blocks.append(block)
        for offsets, times, values in self.lists:
            start = offsets[place]
            stop = offsets[place + 1]
            block = Block(
                times,
                start,
                stop,
                sums=EMPTY.sums,
                place=0,
                width=0,
                values=values[start:stop],
            )
            blocks.append(block)
        return KeyPast(self.reference, blocks)


def _sequences(
    log: KeyLog,
    half_lives: Sequence[float],
    *,
    count: Array,
    last: Array,
    decayed: Array,
    is_event: Array,
) -> Sequences:
    """Return the times of the events of keys, with decayed sums.

    `count`, `last` and `decayed` are the totals of the events that are no longer kept,
    the last of which comes first here, and `is_event` selects the others.
    """
    keys = log.rows.keys()[is_event]
    recent_times = log.rows.time[is_event]
    has_old = count > 0
    sizes = np.bincount(keys, minlength=log.n_keys) + has_old
    offsets = np.append(0, sizes.cumsum())
    place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], sizes)
    is_old = (place == 0) & np.repeat(has_old, sizes)
    times = np.empty(len(place), dtype=np.result_type(recent_times, last))
    times[is_old] = last[has_old]
    times[~is_old] = recent_times
    sums = np.empty((len(place), len(half_lives)))
    for h, half_life in enumerate(half_lives):
        values = np.ones((len(place), 1))
        if has_old.any():
            # The sum at the time of the last event; too small ones never count.
            weight = decay(log.reference - last[has_old], half_life)
            old_sums = decayed[has_old, h]
            values[is_old, 0] = np.divide(
                old_sums, weight, out=np.ones(len(old_sums)), where=weight > 1e-200
            )
        sums[:, h] = decayed_sums(times, place, values, half_life)[:, 0]
    # Views are read faster than arrays, one number at a time.
    return Sequences(
        offsets=offsets.data,
        times=times.data,
        sums=sums.reshape(-1).data,
        width=len(half_lives),
        n_before=np.maximum(count - 1, 0).data,
    )


def _amount_sequences(
    log: KeyLog, half_lives: Sequence[float], value: int, *, last_event: Array
) -> Sequences:
    """Return the times of the known amounts of keys, with their sums.

    An amount that is no longer kept was known at the time of an event that is no longer
    kept, so that the last one of these stands for all such amounts.
    """
    amounts = log.amounts[value]
    count = log.totals["amount_counts"][:, value]
    has_old = count > 0
    old_slices = Slices(
        offsets=np.append(0, has_old.cumsum()),
        time=last_event[has_old],
        value=np.zeros(np.count_nonzero(has_old)),
    )
    keys = np.arange(log.n_keys)
    events = old_slices.combined(amounts, (keys, keys), log.n_keys)
    first = events.offsets[:-1][has_old]
    all_half_lives = amount_half_lives(half_lives)
    first_sums = None
    if log.reference is not None:
        # The sums at the time of the last event; too small ones never count.
        age = (log.reference - last_event[has_old])[:, np.newaxis]
        weights = decay(age, all_half_lives)
        old_sums = log.totals["amount_sums"][has_old, value]
        first_sums = np.divide(
            old_sums, weights, out=np.zeros_like(old_sums), where=weights > 1e-200
        )
    first_of_key = events.offsets[events.keys()]
    sums = AmountSums(events, first_of_key, all_half_lives, first, first_sums).sums
    return Sequences(
        offsets=events.offsets.data,
        times=events.time.data,
        sums=sums.reshape(-1).data,
        width=len(all_half_lives),
        n_before=np.maximum(count - 1, 0).data,
    )


def look(past: KeyPast, time: Any, plan: Plan, read: ReadBlock | None) -> Sight | None:
    """Return what a row sees of a key, or None if nothing."""
    blocks = past.blocks
    half_lives = plan.half_lives
    impressions = blocks[0]
    impressions_seen = seen(
        impressions, time - plan.state_delay, time, half_lives, read
    )
    n_impressions, last, impression_sums = impressions_seen
    if not n_impressions or (plan.max_age is not None and time - last > plan.max_age):
        return None
    seen_by_lag = {plan.state_delay: impressions_seen}
    ages = [(time - last) / plan.unit]
    known_counts: list[int] = []
    positive_counts: list[int] = []
    missing_counts: list[int] = []
    known_sums = []
    positive_sums = []
    for k, lag in enumerate(plan.lags):
        if lag not in seen_by_lag:
            bound = time - lag
            seen_by_lag[lag] = seen(impressions, bound, time, half_lives, read)
        n_rows, _, row_sums = seen_by_lag[lag]
        event_block = blocks[1 + 2 * k]
        n_events = 0
        event_sums = [0.0] * len(half_lives)
        if event_block is not EMPTY:
            n_events, last, event_sums = seen(
                event_block, time - lag, time, half_lives, read
            )
        missing_block = blocks[2 + 2 * k]
        n_missing = 0
        if missing_block is not EMPTY:
            n_missing, _, missing_sums = seen(
                missing_block, time - lag, time, half_lives, read
            )
            row_sums = [a - b for a, b in zip(row_sums, missing_sums, strict=True)]
        ages.append((time - last) / plan.unit if n_events else math.nan)
        known_counts.append(n_rows - n_missing)
        positive_counts.append(n_events)
        missing_counts.append(n_missing)
        known_sums.append(row_sums)
        positive_sums.append(event_sums)
    counts = [n_impressions, *known_counts, *positive_counts]
    horizons: list[Sequence[float]] = [counts]
    for window in plan.windows:
        bound = time - window
        horizons.append(_counts_from(bound, counts, missing_counts, blocks, read))
    all_sums = [impression_sums, *known_sums, *positive_sums]
    for h in range(len(half_lives)):
        horizons.append([max(sums[h], 0.0) for sums in all_sums])
    amounts = [
        _amounts_of(blocks[plan.first_value_block + value], task, time, plan, read)
        for value, task in enumerate(plan.values.parents)
    ]
    return ages, horizons, amounts


def _amounts_of(
    block: Block, task: int, time: Any, plan: Plan, read: ReadBlock | None
) -> list[tuple[float, float]]:
    """Return, per horizon, the number of known amounts and their sum."""
    if block is EMPTY:
        return [(0, 0.0)] * len(plan.horizons)
    bound = time - plan.lags[task]
    n_amounts, _, sums = seen(block, bound, time, plan.amount_half_lives, read)
    horizons: list[tuple[float, float]] = [(n_amounts, sums[0])]
    for window in plan.windows:
        start = time - window
        n_before, _, sums_before = seen(block, start, start, WITHOUT_DECAY, read)
        n_within = n_amounts - n_before
        is_within = n_within > 0
        total = max(sums[0] - sums_before[0], 0.0) if is_within else 0.0
        horizons.append((max(n_within, 0), total))
    for h in range(len(plan.half_lives)):
        horizons.append((max(sums[2 + 2 * h], 0.0), max(sums[1 + 2 * h], 0.0)))
    return horizons


def _counts_from(
    bound: Any,
    counts: Sequence[int],
    missing_counts: Sequence[int],
    blocks: Sequence[Block],
    read: ReadBlock | None,
) -> list[float]:
    """Return counts, as of a horizon, without those of what is before a bound."""
    n_tasks = len(missing_counts)
    n_impressions_before, _, _ = seen(blocks[0], bound, bound, (), read)
    known_from: list[float] = []
    positive_from: list[float] = []
    for k in range(n_tasks):
        n_known = counts[1 + k] - n_impressions_before
        n_positive = counts[1 + n_tasks + k]
        if n_positive:
            n_positive_before, _, _ = seen(blocks[1 + 2 * k], bound, bound, (), read)
            n_positive -= n_positive_before
        if missing_counts[k]:
            n_missing_before, _, _ = seen(blocks[2 + 2 * k], bound, bound, (), read)
            n_known += n_missing_before
        known_from.append(max(n_known, 0))
        positive_from.append(max(n_positive, 0))
    return [max(counts[0] - n_impressions_before, 0), *known_from, *positive_from]


class OneRow:
    """The new columns of a history for rows as dictionaries."""

    def __init__(self, state: HistoryState, plan: Plan) -> None:
        self.state = state
        self.plan = plan
        self.all_rows_plan = plan.all_rows_plan
        self.all_rows_past = self.read_all_rows_past()
        self.names = plan.number_names
        self.inexact = {
            name: inexact_classes(index.kinds) for name, index in state.indices.items()
        }
        n_tasks = len(plan.lags)
        no_ages = [math.nan] * (1 + n_tasks)
        no_counts: list[list[float]] = [[0] * (1 + 2 * n_tasks)] * len(plan.horizons)
        no_amounts = [[(0, 0.0)] * len(plan.horizons) for _ in plan.values.names]
        self.nothing: Sight = (no_ages, no_counts, no_amounts)
        # The rates over all keys are the same once their labels are known.
        self.prior = lru_cache(maxsize=1024)(self._prior)
        self.amount_prior = lru_cache(maxsize=1024)(self._amount_prior)

    # Return a block by its number; a state in memory has no blocks but roots.
    read_block: ReadBlock | None = None

    def read_all_rows_past(self) -> KeyPast:
        return PastsOfKeys(self.state.everything, self.all_rows_plan)[0]

    def look_up(
        self, key: int, names: Sequence[str], row: Mapping[str, Any]
    ) -> KeyPast | None:
        """Return the past of the key of a row, None for none."""
        raise NotImplementedError

    def values_of(self, column: str, elements: Sequence[Any]) -> Sequence[Any]:
        """Return the values of elements of a list."""
        raise NotImplementedError

    def _prior(self, n_known: float, n_positive: float) -> tuple[float, ...]:
        """Return what shrinks the log-odds of keys, as numbers of Python."""
        return tuple(map(float, rate_prior(n_known, n_positive, self.plan.smoothing)))

    def _amount_prior(self, n_amounts: float, total: float) -> tuple[float, ...]:
        """Return what relates the amounts of keys to all, as numbers of Python."""
        inverse_mean, is_without_mean = amount_prior(n_amounts, total)
        return float(inverse_mean), float(is_without_mean)

    def key_field(self, row: Mapping[str, Any], name: str) -> Any:
        """Return a field; raise if it, or keys of the state, are rounded integers."""
        value = field_of(row, name)
        is_inexact = isinstance(value, self.inexact[name]) and not is_missing(value)
        if is_inexact and 2**53 < abs(value) < math.inf:
            self.state.indices[name].check_exact([value], name)
        return value

    def features(self, row: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """Return the new columns of a row, and whether it is from before the end."""
        if not isinstance(row, Mapping):
            raise TypeError(
                f"row must be a dict, with the fields of a row; got {type(row)}."
            )
        plan = self.plan
        end = self.state.end
        read = self.read_block
        time = read_time(field_of(row, plan.time), plan.time, plan.kind)
        is_early = time < end
        time = end if is_early else time
        priors, amount_priors = self._priors(time)
        numbers: list[float] = []
        # Per key, its past and the time as of which it is seen, None for nothing.
        pasts: list[tuple[KeyPast, Any] | None] = []
        for key, names in enumerate(plan.keys):
            past = self.look_up(key, names, row)
            sight = None
            if past is not None:
                # The record of a store may be newer than the state.
                key_time = max(time, past.reference)
                is_early |= key_time > time
                sight = look(past, key_time, plan, read)
            pasts.append((past, key_time) if past and sight else None)
            ages, horizons, amounts = sight or self.nothing
            numbers += ages
            numbers += numbers_of(horizons, priors, math.log, math.log1p)
            for value_amounts, prior in zip(amounts, amount_priors, strict=True):
                numbers += amount_numbers(
                    value_amounts, prior, plan.smoothing, math.log, math.log1p
                )
        # Those of a table are float32, and a model serves what it has learnt.
        features: dict[str, Any] = dict(
            zip(self.names, array("f", numbers), strict=True)
        )
        for list_plan in plan.lists:
            times: Sequence[float] = []
            values: Sequence[Any] = []
            past_and_time = pasts[list_plan.key]
            if past_and_time is not None:
                past, key_time = past_and_time
                block = past.blocks[plan.first_list_block + list_plan.place]
                bound = key_time - list_plan.lag
                times, values = newest(block, bound, list_plan.n, read)
                values = self.values_of(list_plan.column, values)
            features[list_plan.name] = values
            if list_plan.ages:
                list_ages: list[float] = [(key_time - t) / plan.unit for t in times]
                if list_plan.ages == "buckets":
                    list_ages = [int(math.log2(1 + age)) for age in list_ages]
                features[f"{list_plan.name}_ages"] = list_ages
        return features, is_early

    def _priors(
        self, time: Any
    ) -> tuple[list[tuple[float, ...]], list[tuple[float, ...]]]:
        """Return what keys are compared with at a time, per task and per value."""
        past = self.all_rows_past
        # The records of a store may be newer than the state, whose end is read once.
        time = max(time, past.reference)
        sight = look(past, time, self.all_rows_plan, self.read_block)
        _, horizons, amounts = sight or self.nothing
        _, *labels = horizons[0]
        n_tasks = len(self.plan.lags)
        priors = list(map(self.prior, labels[:n_tasks], labels[n_tasks:]))
        return priors, [self.amount_prior(*value[0]) for value in amounts]


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadableLog:
    """A log whose keys are looked up one at a time."""

    log: KeyLog
    sizes: list[int]  # the numbers of values of the columns
    keys: Numbers  # the keys as integers, in order
    pasts: PastsOfKeys


class MemoryRow(OneRow):
    """The new columns of single rows, from a state in memory.

    Logs that a `former` object has read are not read again.
    """

    def __init__(
        self, state: HistoryState, plan: Plan, former: "MemoryRow | None" = None
    ) -> None:
        super().__init__(state, plan)
        former_logs = former.readable if former else {}
        self.readable: dict[int, ReadableLog] = {}
        for log in chain.from_iterable(state.levels):
            readable = former_logs.get(id(log))
            if readable is None:
                sizes, keys = log.packed
                readable = ReadableLog(
                    log=log,
                    sizes=sizes.tolist(),
                    keys=keys.data,
                    pasts=PastsOfKeys(log, plan),
                )
            self.readable[id(log)] = readable
        # Per key, from the newest level to the oldest.
        self.levels = [
            [self.readable[id(log)] for log in logs]
            for logs in zip(*reversed(state.levels), strict=True)
        ]

    def values_of(self, column: str, elements: Sequence[int]) -> list[Any]:
        return self.state.indices[column].at(elements)

    def look_up(
        self, key: int, names: Sequence[str], row: Mapping[str, Any]
    ) -> KeyPast | None:
        """Return the past of the key of a row, None for none."""
        places = []
        for name in names:
            value = self.key_field(row, name)
            index = self.state.indices[name]
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
        for readable in self.levels[key]:
            packed: float = 0
            for place, size in zip(places, readable.sizes, strict=True):
                packed = packed * size + place if place < size else math.inf
            keys = readable.keys
            position = bisect_left(keys, packed)
            if position < len(keys) and keys[position] == packed:
                return readable.pasts[position]
        return None


def field_of(row: Mapping[str, Any], name: str) -> Any:
    try:
        return row[name]
    except KeyError:
        raise ValueError(
            f"The row has no field {name!r}; its fields are {list(row)}."
        ) from None

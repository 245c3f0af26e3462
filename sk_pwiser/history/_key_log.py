"""What is known of the keys of a kind, and what was known of them at an instant.

A row is an impression of a key. Rows that are older than every window and delay are
summed into totals; the others are kept with their times. All arrays of rows are sorted
by key and time, so that the rows of a key before an instant are a slice.

A row at time t counts an impression at time s if s < t - state_delay, and its label if
s < t - state_delay - label_delay. Counts are differences of cumulated counts between
places in the sorted rows of a key.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from sk_pwiser.history._plan import ListPlan, Plan, amount_half_lives

Array = npt.NDArray[Any]
# Of the rows of a key: "counts", "decayed" and "last", see `no_totals`.
Totals = dict[str, Array]

# Adding and subtracting it rounds to multiples of 2^-32: log-odds near 0 are mostly the
# rounding errors of logarithms, which differ between arrays and single rows.
GRID = 2.0**20


@dataclass(eq=False)
class Slices:
    """Rows sorted by key and time; those of key i are `offsets[i]:offsets[i + 1]`."""

    offsets: Array
    time: Array
    value: Array  # labels of impressions, indices of the values of a list, or amounts

    def keys(self) -> Array:
        """Return the place of each row's key."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def cut(self, starts: Array, stops: Array) -> "Slices":
        """Return the rows from `starts[i]` to `stops[i]` as those of key i."""
        sizes = stops - starts
        offsets = np.append(0, sizes.cumsum())
        # start, start + 1, ... of each slice, one slice after the other
        rows = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], sizes)
        return Slices(offsets, self.time[rows], self.value[rows])

    def select(self, places: Array) -> "Slices":
        return self.cut(self.offsets[places], self.offsets[places + 1])

    def combined(
        self, added: "Slices", codes: tuple[Array, Array], n_keys: int
    ) -> "Slices":
        """Return the rows of both, of equal times those of this object first.

        `codes` has the new places of the keys of each, in increasing order.
        """
        own_codes, added_codes = codes
        own_sizes = np.zeros(n_keys, dtype=np.int64)
        own_sizes[own_codes] = np.diff(self.offsets)
        added_sizes = np.zeros(n_keys, dtype=np.int64)
        added_sizes[added_codes] = np.diff(added.offsets)
        # Both are sorted: the added rows are inserted into those of this object.
        dtype = np.result_type(self.time, added.time)
        starts = np.append(0, own_sizes.cumsum())
        keys = added_codes[added.keys()]
        bound = following(added.time.astype(dtype, copy=False))
        place = bisect(self.time, starts[keys], starts[keys + 1], bound)
        is_own = np.ones(len(self.time) + len(added.time), dtype=bool)
        is_own[place + np.arange(len(place))] = False
        time = np.empty(len(is_own), dtype=dtype)
        time[is_own] = self.time
        time[~is_own] = added.time
        value = np.empty((len(is_own), *self.value.shape[1:]), dtype=self.value.dtype)
        value[is_own] = self.value
        value[~is_own] = added.value
        offsets = np.append(0, (own_sizes + added_sizes).cumsum())
        return Slices(offsets, time, value)


@dataclass(eq=False)
class KeyLog:
    """Totals and recent rows of all keys of a kind, such as the users."""

    columns: Array  # the keys, sorted, by the indices of their values
    rows: Slices
    lists: list[Slices]  # the elements of each list
    totals: Totals  # sums over rows that are no longer kept
    reference: float | None = None  # the time of decayed totals, None without any
    # Per value the events whose amounts are known.
    amounts: Sequence[Slices] = ()

    @property
    def n_keys(self) -> int:
        return len(self.columns)

    @property
    def size(self) -> int:
        """Number of keys, of recent rows and amounts, and of elements of lists."""
        slices = [self.rows, *self.lists, *self.amounts]
        return self.n_keys + sum(len(rows.time) for rows in slices)

    @cached_property
    def packed(self) -> tuple[Array, Array]:
        """The numbers of values of the columns, and the keys as integers, in order."""
        sizes = self.columns.max(axis=0, initial=0) + 1
        return sizes, pack(self.columns, sizes)

    def places(self, ids: Array) -> Array:
        """Return the places of keys, `n_keys` for those that are not here."""
        if not self.columns.size:  # no keys, or the one of all rows
            return np.zeros(len(ids), dtype=np.int64)
        sizes, packed = self.packed
        is_possible = np.all((ids >= 0) & (ids < sizes), axis=1)
        wanted = pack(np.where(is_possible[:, np.newaxis], ids, 0), sizes)
        place = np.minimum(np.searchsorted(packed, wanted), self.n_keys - 1)
        return np.where(is_possible & (packed[place] == wanted), place, self.n_keys)

    def select(self, places: Array) -> Self:
        """Return the log of some keys, which are given by their places, in order."""
        return replace(
            self,
            columns=self.columns[places],
            rows=self.rows.select(places),
            lists=[elements.select(places) for elements in self.lists],
            amounts=[amounts.select(places) for amounts in self.amounts],
            totals={name: total[places] for name, total in self.totals.items()},
        )

    def without_old(self, end: float, max_age: float) -> Self:
        """Return the log without keys whose last row is too old."""
        offsets = self.rows.offsets
        time = self.rows.time
        has_rows = np.diff(offsets) > 0
        last = self.totals["last"][:, 0].astype(time.dtype)
        last[has_rows] = time[offsets[1:][has_rows] - 1]
        is_recent = end - last <= max_age
        return self if is_recent.all() else self.select(np.flatnonzero(is_recent))

    def with_empty_key(self) -> Self:
        """Return the log with a key behind the others that has no past.

        If there is no row, one of no key follows, so that arrays have an entry.
        """

        def extended(rows: Slices) -> Slices:
            time = rows.time
            value = rows.value
            if not len(time):
                time = np.zeros_like(time, shape=1)
                value = np.zeros_like(value, shape=(1, *value.shape[1:]))
            return Slices(np.append(rows.offsets, rows.offsets[-1]), time, value)

        totals = {
            name: np.append(total, np.zeros_like(total, shape=(1, *total.shape[1:])), 0)
            for name, total in self.totals.items()
        }
        return replace(
            self,
            rows=extended(self.rows),
            lists=[extended(elements) for elements in self.lists],
            amounts=[extended(amounts) for amounts in self.amounts],
            totals=totals,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class RowsOfKeys:
    """Rows of a table, as the log of a kind of keys takes them; -1 are missing values.

    `ids`, (n_rows, n_columns), has the indices of the values of each row's key.
    `lists` has, per list, the index of each row's value, and the task that must have
    happened, or None. `amounts`, (n_rows, n_values), are NaN where none is known.
    """

    ids: Array
    time: Array
    labels: Array
    lists: list[tuple[Array, int | None]]
    amounts: Array


def no_totals(
    n_keys: int, n_tasks: int, n_half_lives: int, n_values: int, dtype: Any
) -> Totals:
    """Return the totals of keys without old rows; times have the dtype."""
    # Of impressions, of known labels per task, and of labels that are 1 per task.
    n_columns = 1 + 2 * n_tasks
    totals = {
        "counts": np.zeros((n_keys, n_columns), dtype=np.int64),
        "decayed": np.zeros((n_keys, n_half_lives, n_columns)),
        # Times of the last impression, and of the last label that is 1 per task.
        "last": np.zeros((n_keys, 1 + n_tasks), dtype=dtype),
    }
    if n_values:
        # Numbers of known amounts, and their sums as in `Plan.amount_half_lives`.
        n_sums = 1 + 2 * n_half_lives
        totals["amount_counts"] = np.zeros((n_keys, n_values), dtype=np.int64)
        totals["amount_sums"] = np.zeros((n_keys, n_values, n_sums))
    return totals


def decay_totals(totals: Totals, age: Any, half_lives: Sequence[float]) -> None:
    """Decay totals, in place, to a time that is later by an age."""
    totals["decayed"] *= decay(age, half_lives)[:, np.newaxis]
    if "amount_sums" in totals:
        totals["amount_sums"] *= decay(age, amount_half_lives(half_lives))


def log_of_rows(rows: RowsOfKeys, n_half_lives: int) -> KeyLog:
    """Return the log of new rows, none of which is summed."""
    ids = rows.ids
    time = rows.time
    labels = rows.labels
    lists = rows.lists
    amounts = rows.amounts
    has_key = (ids >= 0).all(axis=1)
    if not has_key.all():
        ids = ids[has_key]
        time = time[has_key]
        labels = labels[has_key]
        lists = [(values[has_key], task) for values, task in lists]
        amounts = amounts[has_key]
    columns, codes = unique_keys(ids)
    n_keys = len(columns)
    slices = []
    for values, task in lists:
        is_element = values >= 0
        if task is not None:
            is_element &= labels[:, task] == 1
        elements = slices_of(
            codes[is_element], time[is_element], values[is_element], n_keys
        )
        slices.append(elements)
    n_values = amounts.shape[1]
    totals = no_totals(n_keys, labels.shape[1], n_half_lives, n_values, time.dtype)
    return KeyLog(
        columns=columns,
        rows=slices_of(codes, time, labels, n_keys),
        lists=slices,
        totals=totals,
        amounts=slices_of_amounts(codes, time, amounts, n_keys),
    )


def unique_keys(ids: Array) -> tuple[Array, Array]:
    """Return the distinct rows of a table of indices, sorted, and each row's place."""
    if ids.shape[1] == 0:
        return np.zeros((1, 0), dtype=np.int64), np.zeros(len(ids), dtype=np.int64)
    sizes = ids.max(axis=0) + 1 if len(ids) else np.ones(ids.shape[1], dtype=np.int64)
    packed = pack(ids, sizes)
    n_possible = int(packed.max()) + 1 if len(packed) else 0
    if n_possible <= 4 * len(packed) + 1024:
        is_used = np.zeros(n_possible, dtype=bool)
        is_used[packed] = True
        places = is_used.cumsum() - 1
        return unpack(np.flatnonzero(is_used), sizes), places[packed]
    values, codes = np.unique(packed, return_inverse=True)
    return unpack(values, sizes), codes


def check_sizes(sizes: Iterable[Any]) -> None:
    """Raise if there are too many possible keys of columns with these sizes."""
    n_values = [int(size) for size in sizes]
    if math.prod(n_values) >= 2**63:
        raise ValueError(
            f"a key of columns with {n_values} values has more than 2^63 possible "
            "values; use fewer columns."
        )


def pack(ids: Array, sizes: Array) -> Array:
    """Return one integer per row, in the order of the rows."""
    check_sizes(sizes)
    return np.ravel_multi_index(tuple(ids.T), tuple(sizes))


def unpack(packed: Array, sizes: Array) -> Array:
    """Return the rows that `pack` made integers of."""
    return np.stack(np.unravel_index(packed, tuple(sizes)), axis=1)


def slices_of(codes: Array, time: Array, value: Array, n_keys: int) -> Slices:
    """Return rows in any order as `Slices`; the codes are the places of their keys."""
    order = np.lexsort([time, codes])
    offsets = np.append(0, np.bincount(codes, minlength=n_keys).cumsum())
    return Slices(offsets, time[order], value[order])


def slices_of_amounts(
    codes: Array, time: Array, amounts: Array, n_keys: int
) -> list[Slices]:
    """Return the known amounts of rows in any order as `Slices`, one per value."""
    slices = []
    for column in amounts.T:
        is_known = ~np.isnan(column)
        slices.append(
            slices_of(codes[is_known], time[is_known], column[is_known], n_keys)
        )
    return slices


def combine(a: KeyLog, b: KeyLog, half_lives: Sequence[float]) -> KeyLog:
    """Return the log of the rows of two logs; of equal rows, those of `a` first."""
    if not a.n_keys:
        return b
    if not b.n_keys:
        return a
    columns, all_codes = unique_keys(np.concatenate([a.columns, b.columns]))
    codes = all_codes[: a.n_keys], all_codes[a.n_keys :]
    n_keys = len(columns)
    references = [log.reference for log in (a, b) if log.reference is not None]
    reference = max(references, default=None)
    aligned_totals = []
    for log, places in zip((a, b), codes, strict=True):
        totals = {}
        for name, total in log.totals.items():
            totals[name] = np.zeros((n_keys, *total.shape[1:]), dtype=total.dtype)
            totals[name][places] = total
        if log.reference is not None and reference is not None:
            decay_totals(totals, reference - log.reference, half_lives)
        aligned_totals.append(totals)
    return KeyLog(
        columns=columns,
        rows=a.rows.combined(b.rows, codes, n_keys),
        lists=[
            elements.combined(added, codes, n_keys)
            for elements, added in zip(a.lists, b.lists, strict=True)
        ],
        totals=add_totals(*aligned_totals),
        reference=reference,
        amounts=[
            amounts.combined(added, codes, n_keys)
            for amounts, added in zip(a.amounts, b.amounts, strict=True)
        ],
    )


def replace_keys(older: KeyLog, newer: KeyLog, half_lives: Sequence[float]) -> KeyLog:
    """Return a log of the keys of two, with those of both as in the newer one."""
    is_newer = np.zeros(older.n_keys + 1, dtype=bool)
    is_newer[older.places(newer.columns)] = True
    return combine(older.select(np.flatnonzero(~is_newer[:-1])), newer, half_lives)


def find_keys(
    logs: Sequence[KeyLog], ids: Array, half_lives: Sequence[float]
) -> KeyLog:
    """Return the log of some keys, each as in the last of several logs that has it."""
    wanted, _ = unique_keys(ids[(ids >= 0).all(axis=1)])
    logs_of_wanted = []
    for log in reversed(logs):
        places = log.places(wanted)
        is_here = places < log.n_keys
        logs_of_wanted.append(log.select(places[is_here]))
        wanted = wanted[~is_here]
    return reduce(lambda a, b: combine(a, b, half_lives), logs_of_wanted)


def complete_log(log: KeyLog, labelled: RowsOfKeys) -> tuple[KeyLog, Array, Array]:
    """Return a log whose rows have further labels, and which of these fail.

    All numbers are sums per key, time and task, so that it does not matter which of
    several rows of the same key and time gets a label. The failures are rows that the
    log does not have, and rows that have one of their labels already. Rows without a
    key, or without a label, cannot fail.
    """
    rows = log.rows
    code = log.places(labelled.ids)
    dtype = np.result_type(labelled.time, rows.time)
    time = labelled.time.astype(dtype, copy=False)
    start = rows.offsets[np.minimum(code, log.n_keys)]
    stop = rows.offsets[np.minimum(code + 1, log.n_keys)]
    begin = bisect(rows.time, start, stop, time)
    end = bisect(rows.time, begin, stop, following(time))
    has_key = (labelled.ids >= 0).all(axis=1)
    has_label = (labelled.labels >= 0).any(axis=1)
    is_absent = has_key & has_label & (begin == end)
    is_present = has_key & ~is_absent
    labels = np.where(is_present[:, np.newaxis], labelled.labels, -1)
    values = rows.value.copy()
    is_final = np.zeros(len(code), dtype=bool)
    for task in range(labels.shape[1]):
        asked = np.flatnonzero(labels[:, task] >= 0)
        row = free_rows(begin[asked], end[asked], values[:, task] < 0)
        is_final[asked[row < 0]] = True
        values[row[row >= 0], task] = labels[asked[row >= 0], task]
    slices = []
    keys = np.arange(log.n_keys)
    for elements, (places, required) in zip(log.lists, labelled.lists, strict=True):
        if required is None:
            slices.append(elements)
            continue
        # Rows without the event so far were no elements.
        new = np.flatnonzero((labels[:, required] == 1) & (places >= 0))
        added = slices_of(code[new], time[new], places[new], log.n_keys)
        slices.append(elements.combined(added, (keys, keys), log.n_keys))
    is_new = is_present[:, np.newaxis]
    new_amounts = np.where(is_new, labelled.amounts, np.nan)
    added_amounts = slices_of_amounts(code, time, new_amounts, log.n_keys)
    completed = replace(
        log,
        rows=replace(rows, value=values),
        lists=slices,
        amounts=[
            amounts.combined(added, (keys, keys), log.n_keys)
            for amounts, added in zip(log.amounts, added_amounts, strict=True)
        ],
    )
    return completed, is_absent, is_final


def free_rows(begin: Array, end: Array, is_free: Array) -> Array:
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


def add_totals(a: Totals, b: Totals) -> Totals:
    """Return the totals of the rows of two totals of the same keys."""
    n_tasks = a["last"].shape[1] - 1
    # Of impressions, and of labels that are 1.
    columns = [0, *range(1 + n_tasks, 1 + 2 * n_tasks)]
    has_a = a["counts"][:, columns] > 0
    has_b = b["counts"][:, columns] > 0
    later = np.maximum(a["last"], b["last"])
    only_one = np.where(has_b, b["last"], a["last"])
    sums = {name: a[name] + b[name] for name in a if name != "last"}
    return sums | {"last": np.where(has_a & has_b, later, only_one)}


def decay(age: Any, half_lives: Any) -> Array:
    """Return the weights of events of an age, one per half-life."""
    weights: Array = np.exp2(-age / np.array(half_lives, dtype=np.float64))
    return weights


def following(time: Array) -> Array:
    """Return the smallest times that are later than these."""
    later: Array = time + 1 if time.dtype.kind in "iu" else np.nextafter(time, np.inf)
    return later


def bisect(values: Array, low: Array, high: Array, bound: Array) -> Array:
    """Return the first place of each slice that is not below a bound, or its end."""
    while True:
        is_open = low < high
        if not is_open.any():
            return low
        middle = (low + high) >> 1
        is_below = is_open & (values[np.minimum(middle, len(values) - 1)] < bound)
        low = np.where(is_below, middle + 1, low)
        high = np.where(is_open & ~is_below, middle, high)


def decayed_sums(time: Array, place: Array, values: Array, half_life: float) -> Array:
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
    block_sums = decayed_sums(time[is_end], place[is_end] >> 2, sums[is_end], half_life)
    rows = np.flatnonzero(place >= 4)
    end = rows - in_block[rows] - 1  # of the block before
    weight = decay(time[rows] - time[end], half_life)
    block = is_end.cumsum()[end] - 1
    sums[rows] += weight[:, np.newaxis] * block_sums[block]
    return sums


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """What queries see of the rows of their keys, one entry per query."""

    code: Array
    time: Array
    counts_totals: Array  # whether the totals of the key count
    start: Array  # of the rows before the instant
    # (1 + n_tasks, n_queries): of these rows, and of those whose labels are known.
    ends: Array
    last: Array  # the time of the last row, if it `has_any`
    has_any: Array


class AmountSums:
    """The amounts of a value in a `KeyLog`, with sums from the first of their stretch.

    Sums are those of `Plan.amount_half_lives`. They begin with each stretch, since a
    difference of sums over all keys would lose the digits of small amounts.
    """

    def __init__(
        self,
        amounts: Slices,
        first: Array,
        half_lives: list[float],
        old: Array | None = None,
        old_sums: Array | None = None,
    ) -> None:
        """Sum amounts, given the first of each one's stretch.

        Those at the places `old` stand for several, with these sums.
        """
        self.amounts = amounts
        place = np.arange(len(amounts.time)) - first
        is_number = np.arange(len(half_lives)) % 2 == 0
        is_number[0] = False
        values = np.where(is_number, 1.0, amounts.value[:, np.newaxis])
        if old is not None and old_sums is not None:
            values[old] = old_sums
        sums = [
            decayed_sums(amounts.time, place, values[:, [column]], half_life)
            for column, half_life in enumerate(half_lives)
        ]
        self.half_lives = half_lives
        self.sums = np.concatenate(sums, axis=1)

    def sums_at(self, start: Array, end: Array, time: Array) -> Array:
        """Return the sums of the amounts from a start to an end, as of a time.

        The start is the first of a stretch. The result is (n_queries, n_sums).
        """
        has_any = end > start
        last = np.where(has_any, end - 1, 0)
        # Amount 0 may be later than the query, and its weight infinite.
        age = np.where(has_any, time - self.amounts.time[last], 0)
        weights = decay(age[:, np.newaxis], self.half_lives)
        sums: Array = np.where(has_any[:, np.newaxis], self.sums[last] * weights, 0.0)
        return sums


class Past:
    """A `KeyLog` with cumulated counts, for queries at any time from its totals on.

    Unknown keys are the one behind those of the log, which has no past.
    With a `max_age`, the rows of a key form stretches: one ends where the key has no
    impression for longer than this age, and only the present one counts.
    """

    def __init__(self, log: KeyLog, plan: Plan) -> None:
        self.unpadded_log = log
        self.log = log.with_empty_key()
        self.plan = plan
        rows = self.log.rows
        places = np.arange(len(rows.time))
        is_known = rows.value >= 0
        is_positive = rows.value == 1
        n_tasks = is_positive.shape[1]
        # The columns of the totals.
        is_impression = np.ones((len(places), 1), dtype=bool)
        values = np.concatenate([is_impression, is_known, is_positive], axis=1)
        counts = values.cumsum(axis=0, dtype=np.int64)
        self.counts = np.insert(counts, 0, 0, axis=0)
        # The end among those of a `View` up to which each column counts.
        task_ends = np.arange(1, 1 + n_tasks)
        self.end_of = np.concatenate([[0], task_ends, task_ends])
        # The last row with a label of 1 up to each row, of whichever key.
        last = np.where(is_positive, places[:, np.newaxis], -1)
        self.last_positive = np.maximum.accumulate(last, axis=0)
        self._find_stretches()
        # Sums of each row's stretch.
        self.decayed = [
            decayed_sums(rows.time, places - self.stretch, values, half_life)
            for half_life in plan.half_lives
        ]
        self.amounts = [
            AmountSums(amounts, self._first_of_stretch(amounts), plan.amount_half_lives)
            for amounts in self.log.amounts
        ]

    def _first_of_stretch(self, amounts: Slices) -> Array:
        """Return the place of the first amount of each amount's stretch."""
        rows = self.log.rows
        first = np.zeros(len(amounts.time), dtype=np.int64)
        keys = amounts.keys()
        n_amounts = len(keys)  # one of no key may follow
        start = amounts.offsets[keys]
        first[:n_amounts] = start
        if self.plan.max_age is None or not n_amounts:
            return first
        time = amounts.time[:n_amounts].astype(rows.time.dtype, copy=False)
        row = bisect(
            rows.time, rows.offsets[keys], rows.offsets[keys + 1], following(time)
        )
        # An amount is as recent as its row, so that the log has both or none.
        bound = rows.time[self.stretch[row - 1]]
        first[:n_amounts] = bisect(
            amounts.time, start, amounts.offsets[keys + 1], bound
        )
        return first

    def _find_stretches(self) -> None:
        """Find the first row of each row's stretch, and whether it goes on with totals.

        These are the totals of the row's key.
        """
        rows = self.log.rows
        totals = self.log.totals
        time = rows.time
        has_rows = np.diff(rows.offsets) > 0
        first = rows.offsets[:-1][has_rows]
        is_new = np.zeros(len(time), dtype=bool)
        if self.plan.max_age is not None:
            time_before = np.append(time[:1], time[:-1])
            time_before[first] = totals["last"][has_rows, 0]
            is_new = time - time_before > self.plan.max_age
        has_totals = totals["counts"][has_rows, 0] > 0
        goes_on = np.zeros(len(time), dtype=bool)
        goes_on[first] = has_totals & ~is_new[first]
        is_new[first] = True
        starts = np.where(is_new, np.arange(len(time)), 0)
        self.stretch = np.maximum.accumulate(starts)
        self.goes_on = goes_on[self.stretch]

    def view(self, code: Array, time: Array) -> View:
        """Return what queries see."""
        rows = self.log.rows
        totals = self.log.totals
        plan = self.plan
        start = rows.offsets[code]
        stop = rows.offsets[code + 1]
        end = bisect(rows.time, start, stop, time - plan.state_delay)
        has_rows = end > start
        row = np.maximum(end - 1, 0)
        start = np.where(has_rows, self.stretch[row], start)
        # Totals that do not go on in the stretch count before its first row.
        has_totals = totals["counts"][code, 0] > 0
        counts_totals = np.where(has_rows, self.goes_on[row], has_totals)
        last = np.where(has_rows, rows.time[row], totals["last"][code, 0])
        has_any = has_rows | counts_totals
        if plan.max_age is not None:
            has_any &= time - last <= plan.max_age
            start = np.where(has_any, start, end)
            counts_totals = counts_totals & has_any
        end_by_lag = {plan.state_delay: end}
        for lag in plan.lags:
            if lag not in end_by_lag:
                end_by_lag[lag] = bisect(rows.time, start, end, time - lag)
        return View(
            code=code,
            time=time,
            counts_totals=counts_totals,
            start=start,
            ends=np.stack([end, *(end_by_lag[lag] for lag in plan.lags)]),
            last=last,
            has_any=has_any,
        )

    def priors(self, code: Array, time: Array) -> list[tuple[Any, Any, Any]]:
        """Return, per task, what shrinks the log-odds of others to a key's."""
        _, *labels = next(self._counts(self.view(code, time)))
        n_tasks = len(self.plan.lags)
        n_known = labels[:n_tasks]
        n_positive = labels[n_tasks:]
        return [
            rate_prior(n, k, self.plan.smoothing)
            for n, k in zip(n_known, n_positive, strict=True)
        ]

    def amount_priors(self, code: Array, time: Array) -> list[tuple[Any, Any]]:
        """Return, per value, what relates the amounts of others to a key's."""
        view = self.view(code, time)
        priors = []
        for value in range(len(self.amounts)):
            (n_amounts, total), *_ = self._amounts_of(view, value)
            priors.append(amount_prior(n_amounts, total))
        return priors

    def numbers(
        self,
        code: Array,
        time: Array,
        priors: Sequence[Sequence[Any]],
        amount_priors: Sequence[Sequence[Any]],
    ) -> list[Array]:
        """Return the numbers of `Plan.number_names`, for places of keys."""
        view = self.view(code, time)
        numbers = numbers_of(self._counts(view), priors, np.log, np.log1p)
        for value, prior in enumerate(amount_priors):
            amounts = self._amounts_of(view, value)
            smoothing = self.plan.smoothing
            numbers += amount_numbers(amounts, prior, smoothing, np.log, np.log1p)
        return [*self._ages(view), *numbers]

    def _amounts_of(self, view: View, value: int) -> list[tuple[Array, Array]]:
        """Return, per horizon, the number of known amounts and their sum."""
        plan = self.plan
        sums = self.amounts[value]
        amounts = sums.amounts
        start = amounts.offsets[view.code]
        end = amounts.offsets[view.code + 1]
        if plan.max_age is not None:
            first = self._first_element(amounts, start, end, view.start)
            start = np.where(view.counts_totals, start, first)
            end = np.where(view.has_any, end, start)
        lag = plan.lags[plan.values.parents[value]]
        end = bisect(amounts.time, start, end, view.time - lag)
        recent = sums.sums_at(start, end, view.time)
        totals = self.log.totals
        old_count = view.counts_totals * totals["amount_counts"][view.code, value]
        old_sums = totals["amount_sums"][view.code, value]
        scale = view.counts_totals[:, np.newaxis] * 1.0
        if self.log.reference is not None:
            age = view.time - self.log.reference
            scale = scale * decay(age[:, np.newaxis], plan.amount_half_lives)
        all_sums = old_sums * scale + recent
        horizons = [(end - start + old_count, all_sums[:, 0])]
        for window in plan.windows:
            bound = view.time - window
            window_start = bisect(amounts.time, start, end, bound)
            sums_before = sums.sums_at(start, window_start, view.time)[:, 0]
            n_amounts = end - window_start
            total = np.where(n_amounts > 0, recent[:, 0] - sums_before, 0.0)
            horizons.append((n_amounts, total))
        for h in range(len(plan.half_lives)):
            horizons.append((all_sums[:, 2 + 2 * h], all_sums[:, 1 + 2 * h]))
        return horizons

    def _ages(self, view: View) -> Array:
        """Return the ages of the last impression and of the last event per task."""
        totals = self.log.totals
        ends = view.ends[1:]
        n_tasks = len(ends)
        tasks = np.arange(n_tasks)[:, np.newaxis]
        place = self.last_positive[np.maximum(ends - 1, 0), tasks]
        is_recent = (ends > view.start) & (place >= view.start)
        total_events = totals["counts"][view.code, 1 + n_tasks :].T
        has_total = view.counts_totals & (total_events > 0)
        last_of_totals = totals["last"][view.code, 1:].T
        last_event = np.where(is_recent, self.log.rows.time[place], last_of_totals)
        last = np.concatenate([[view.last], last_event])
        has_last = np.concatenate([[view.has_any], is_recent | has_total])
        return np.where(has_last, (view.time - last) / self.plan.unit, math.nan)

    def _counts(self, view: View) -> Iterator[Array]:
        """Yield, per horizon, the impressions, and labels known and of 1 per task."""
        totals = self.log.totals
        ends = view.ends[self.end_of]
        columns = np.arange(len(ends))[:, np.newaxis]

        def row_counts(start: Array, ends: Array) -> Array:
            counts: Array = self.counts[ends, columns] - self.counts[start, columns]
            return counts

        total_counts = view.counts_totals * totals["counts"][view.code, columns]
        yield row_counts(view.start, ends) + total_counts
        for window in self.plan.windows:
            bound = view.time - window
            start = bisect(self.log.rows.time, view.start, view.ends[0], bound)
            yield row_counts(start, np.maximum(ends, start))
        for h, half_life in enumerate(self.plan.half_lives):
            scale = view.counts_totals * 1.0
            if self.log.reference is not None:
                scale *= np.exp2(-(view.time - self.log.reference) / half_life)
            has_rows = view.ends > view.start
            row = np.where(has_rows, view.ends - 1, 0)
            # Row 0 may be later than the query, and its weight infinite.
            age = np.where(has_rows, view.time - self.log.rows.time[row], 0)
            weight = np.where(has_rows, np.exp2(-age / half_life), 0.0)
            sums = self.decayed[h][row[self.end_of], columns] * weight[self.end_of]
            yield totals["decayed"][view.code, h, columns] * scale + sums

    def last_values(
        self, place: int, code: Array, time: Array
    ) -> tuple[Array, Array, Array]:
        """Return sizes, values by index, and ages of the elements of a list."""
        list_plan = self.plan.lists[place]
        elements = self.log.lists[place]
        start = elements.offsets[code]
        end = elements.offsets[code + 1]
        if self.plan.max_age is not None:
            view = self.view(code, time)
            first = self._first_element(elements, start, end, view.start)
            # If the totals count, all elements are of the present stretch.
            start = np.where(view.counts_totals, start, first)
            end = np.where(view.has_any, end, start)
        end = bisect(elements.time, start, end, time - list_plan.lag)
        newest = elements.cut(np.maximum(start, end - list_plan.n), end)
        sizes = np.diff(newest.offsets)
        ages = (np.repeat(time, sizes) - newest.time) / self.plan.unit
        return sizes, newest.value, ages

    def _first_element(
        self, elements: Slices, start: Array, end: Array, row: Array
    ) -> Array:
        """Return the first element of each slice that is not earlier than a row."""
        time = self.log.rows.time
        bound = time[np.minimum(row, len(time) - 1)]
        return bisect(elements.time, start, end, bound)

    def folded(self, end: Any) -> KeyLog:
        """Return the log at its end, with rows that have become old as totals."""
        log = self.unpadded_log
        plan = self.plan
        begin = log.rows.offsets[:-1]
        stops = log.rows.offsets[1:]
        has_rows = stops > begin
        last = np.maximum(stops - 1, 0)
        begin = np.where(has_rows, self.stretch[last], begin)
        has_totals = log.totals["counts"][:, 0] > 0
        counts_totals = np.where(has_rows, self.goes_on[last], has_totals)
        bound = np.full(len(begin), end - plan.horizon)
        cut = bisect(log.rows.time, begin, stops, bound)
        totals = {}
        for name, total in log.totals.items():
            per_key = counts_totals.reshape(-1, *[1] * (total.ndim - 1))
            totals[name] = np.where(per_key, total, 0)
        if log.reference is not None:
            decay_totals(totals, end - log.reference, plan.half_lives)
        added_totals = self._totals_of(begin, cut, end)
        lists = []
        for elements, list_plan in zip(log.lists, plan.lists, strict=True):
            start = elements.offsets[:-1]
            if plan.max_age is not None:
                stop = elements.offsets[1:]
                first = self._first_element(elements, start, stop, begin)
                start = np.where(counts_totals, start, first)
            lists.append(newest_elements(elements, list_plan, start, end))
        recent_amounts = []
        for value, (amounts, sums) in enumerate(
            zip(log.amounts, self.amounts, strict=True)
        ):
            start = amounts.offsets[:-1]
            stop = amounts.offsets[1:]
            if plan.max_age is not None:
                first = self._first_element(amounts, start, stop, begin)
                start = np.where(counts_totals, start, first)
            first_recent = bisect(amounts.time, start, stop, bound)
            recent_amounts.append(amounts.cut(first_recent, stop))
            added_totals["amount_counts"][:, value] = first_recent - start
            all_ends = np.full(len(start), end)
            old_sums = sums.sums_at(start, first_recent, all_ends)
            added_totals["amount_sums"][:, value] = old_sums
        return replace(
            log,
            rows=log.rows.cut(cut, stops),
            lists=lists,
            totals=add_totals(totals, added_totals),
            reference=end,
            amounts=recent_amounts,
        )

    def _totals_of(self, begin: Array, cut: Array, end: Any) -> Totals:
        """Return the totals of the rows `begin[i]:cut[i]` of each key at an instant."""
        time = self.log.rows.time
        half_lives = self.plan.half_lives
        n_tasks = self.last_positive.shape[1]
        n_values = len(self.amounts)
        totals = no_totals(len(cut), n_tasks, len(half_lives), n_values, time.dtype)
        totals["counts"] = self.counts[cut] - self.counts[begin]
        has_rows = cut > begin
        first = begin[has_rows]
        last = cut[has_rows] - 1
        place = self.last_positive[last]
        # The last label of 1 up to a row may be one of another key.
        is_own = place >= first[:, np.newaxis]
        last_positive = np.where(is_own, time[place], 0)
        totals["last"][has_rows] = np.column_stack([time[last], last_positive])
        for h, half_life in enumerate(half_lives):
            weight = decay(end - time[last], half_life)[:, np.newaxis]
            totals["decayed"][has_rows, h] = self.decayed[h][last] * weight
        return totals


def newest_elements(
    elements: Slices, list_plan: ListPlan, start: Array, end: Any
) -> Slices:
    """Return the elements of a list that queries from an instant on may see."""
    stop = elements.offsets[1:]
    bound = np.full(len(start), end - list_plan.lag)
    first_seen = bisect(elements.time, start, stop, bound) - list_plan.n
    return elements.cut(np.maximum(start, first_seen), stop)


def numbers_of(
    horizons: Iterable[Iterable[Any]],
    priors: Sequence[Sequence[Any]],
    log: Callable[[Any], Any],
    log1p: Callable[[Any], Any],
) -> list[Any]:
    """Return the numbers of counts per horizon, for a row or for arrays of rows.

    A horizon has the impressions, and the labels known and of 1 per task.
    """
    numbers = []
    n_tasks = len(priors)
    for impressions, *labels in horizons:
        numbers.append(log1p(impressions))
        n_known = labels[:n_tasks]
        n_positive = labels[n_tasks:]
        for n, k, prior in zip(n_known, n_positive, priors, strict=True):
            added_events, added_others, prior_logit = prior
            odds = (k + added_events) / (n - k + added_others)
            log_odds = log(odds) - prior_logit
            numbers += [log1p(k), log_odds + GRID - GRID]
    return numbers


def rate_prior(n_known: Any, n_positive: Any, smoothing: float) -> tuple[Any, Any, Any]:
    """Return the events and the other rows that are added to rates, and the log-odds.

    The rarer of the two are `smoothing`. The rate is 1/2 before any label.
    """
    rate = (n_positive + 0.5) / (n_known + 1)
    strength = smoothing / np.minimum(rate, 1 - rate)
    return strength * rate, strength * (1 - rate), np.log(rate / (1 - rate))


def amount_numbers(
    horizons: Iterable[tuple[Any, Any]],
    prior: Sequence[Any],
    smoothing: float,
    log: Callable[[Any], Any],
    log1p: Callable[[Any], Any],
) -> list[Any]:
    """Return the numbers of amounts per horizon, for a row or for arrays of rows.

    A horizon has the number of known amounts and their sum. Both numbers are relative
    to the mean amount over all keys, so that they do not depend on the currency.
    """
    inverse_mean, is_without_mean = prior
    numbers = []
    for n_amounts, total in horizons:
        # The number of events of mean amounts that are worth as much.
        n_mean_amounts = total * inverse_mean + n_amounts * is_without_mean
        ratio = (n_mean_amounts + smoothing) / (n_amounts + smoothing)
        numbers += [log1p(n_mean_amounts), log(ratio) + GRID - GRID]
    return numbers


def amount_prior(n_amounts: Any, total: Any) -> tuple[Any, Any]:
    """Return the inverse of the mean amount over all keys, and whether there is none.

    There is no mean before the first amount, or if all amounts are 0.
    """
    is_without_mean = total <= 0
    return n_amounts / np.where(is_without_mean, np.inf, total), is_without_mean * 1.0

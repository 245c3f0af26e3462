"""The state of a history: the logs of all keys, and the values of their columns."""

import copy
from dataclasses import replace
from itertools import compress
from typing import NamedTuple

import numpy as np

from sk_pwiser._columns import _factorize, _value_kinds
from sk_pwiser._columns._frames import selectable
from sk_pwiser._tasks import _labels
from sk_pwiser._tasks._row_match import check_match
from sk_pwiser.history import _key_log


class Labels(NamedTuple):
    """Labels of rows: int8 (n_samples, n_tasks), -1 if missing."""

    values: np.ndarray
    names: list
    classes: list | None  # of a single task, if its labels are not 0 and 1


def read_history_labels(y, table, names=None, classes=None):
    """Read labels, of which any may be missing, for the tasks of `names` if given."""
    n_rows, y = table.n_rows, selectable(y)
    if y is None or (names is not None and n_rows == len(y) == 0):
        names = names or []
        return Labels(np.full((n_rows, len(names)), -1, dtype=np.int8), names, None)
    labels, missing, columns = _labels.read_labels(y, "any", input_name="y")
    labels = labels.reshape(len(labels), -1)
    check_match(table.X, len(labels), y=y)
    n_tasks = labels.shape[1]
    if names is None:
        default = [f"task_{k}" for k in range(n_tasks)]
        names = _labels.choose_task_names(n_tasks, None, columns, default)
    names = list(names)
    if n_tasks != len(names):
        rule = f"have the tasks {names}" if names else "be None, as it was in fit"
        raise ValueError(f"y must {rule}; it has {n_tasks} columns.")
    if columns is not None and n_tasks > 1 and columns != names:
        raise ValueError(f"The columns of y must be the tasks {names}; got {columns}.")
    seen = np.ones(labels.shape, dtype=bool)
    if missing is not None:
        seen = ~missing.reshape(labels.shape)
    labels, classes = _zero_one(labels, seen, columns, classes)
    return Labels(np.where(seen, labels, -1).astype(np.int8), names, classes)


def _zero_one(labels, seen, columns, classes):
    """Return labels as 0 and 1, and the classes if these are two other values."""
    is_single, is_free = labels.shape[1] == 1, classes in (None, [0, 1])
    if is_single and not (is_free and np.isin(labels[seen], [0, 1]).all()):
        if classes is None and len(found := set(labels[seen].tolist())) == 1:
            raise ValueError(
                f"y contains only the label {found.pop()!r}, so that it is not known "
                "if it is the event. Pass 0 and 1, or begin with rows of both labels."
            )
        own, classes = _labels.one_task_labels(
            labels[seen], columns, None if classes is None else np.array(classes)
        )
        values = np.zeros(labels.shape, dtype=np.float32)
        values[seen] = own[:, 0]
        return values, np.asarray(classes).tolist()
    return _labels.zero_one_labels(labels, columns, input_name="y"), None


class ValueIndex:
    """The distinct values of a column, each with its place.

    Indices that grow out of each other share a list and a dict of places, which may
    have entries of a later one behind the `size` of an earlier one. `kinds` are text,
    numbers or other objects, and kinds of `LARGE` numbers; `earlier_kinds` are those of
    values that are not here: in a store, or dropped.
    """

    def __init__(self, values, earlier_kinds=()):
        self.all_values, self.all_places, self.size = [], {}, 0
        self.kinds, self.samples = set(earlier_kinds), {}
        self._append(values)

    def _append(self, values):
        # First the list: it tells if an interrupt or another index has added values.
        self.all_values.extend(values)
        self.all_places |= {value: i for i, value in enumerate(values, self.size)}
        self.size = len(self.all_values)
        self.kinds = self.kinds | _value_kinds.kinds_of(values, with_large=True)
        # The first value of each type.
        samples = {(type(v), type(v) is int and v >= 2**63): v for v in values[::-1]}
        self.samples = samples | self.samples

    def __getstate__(self):
        return {"values": self.values, "earlier_kinds": sorted(self.kinds)}

    def __setstate__(self, state):
        self.__init__(**state)

    @property
    def values(self):
        return self.all_values[: self.size]

    def check_kinds(self, values, name):
        """Raise if values are of other kinds than these, such as text, not numbers."""
        parts = f"Column {name!r} contained", " before; it now contains"
        _value_kinds.check_kinds(values, self.kinds, *parts)

    def check_exact(self, values, name):
        """Raise if integers were rounded to floats here or there: they equal none."""
        parts = f"Column {name!r} contained", " before; it now contains"
        _value_kinds.check_exact(values, self.kinds, *parts)

    def extended(self, values):
        """Return an index that has these distinct values as well."""
        new = [value for value in values if self.place(value) < 0]
        if not new:
            return self
        if len(self.all_values) > self.size:
            return ValueIndex(self.values + new, self.kinds)
        index = object.__new__(ValueIndex)
        vars(index).update(vars(self))
        index._append(new)
        return index

    def selected(self, is_kept):
        """Return an index of some of the values."""
        return ValueIndex(list(compress(self.values, is_kept)), self.kinds)

    def place(self, value):
        """Return the place of a value, -1 if it is not here."""
        place = self.all_places.get(value, -1)
        return place if place < self.size else -1

    def places(self, values):
        """Return the places of values as an array."""
        return np.fromiter(map(self.place, values), np.int64, len(values))

    def at(self, places):
        """Return the values at places."""
        return [self.all_values[place] for place in places]


class Rows(NamedTuple):
    """Rows of a log: per column, the index of each row's value, and the values."""

    columns: dict
    time: np.ndarray
    labels: Labels


def read_columns(table, names):
    """Return the index of each row's value, -1 if it is missing, and the values."""
    found = {}
    for name in names:
        column = table.column(name)
        try:
            indices, values = _factorize.factorize(column)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise TypeError(
                f"Column {name!r} must hold one value per row: {error}."
            ) from error
        found[name] = indices.astype(np.int64), values
    return found


class HistoryState:
    """What a history has learnt. It is not changed: methods return new ones.

    `indices` has the values of each column, and `everything` all rows as those of one
    key, for the base rates. `levels` has one `KeyLog` per key in each of some levels: a
    key is as in the last level that has it, so that a change of some keys is a new
    level. `n_values` is the number of values when unused ones were dropped, and
    `has_labels` whether a label is known.
    """

    def __init__(self, classes, end, indices, logs, everything):
        self.classes, self.end, self.indices = classes, end, indices
        self.levels, self.everything = [logs], everything
        is_known = (everything.rows.value >= 0).any()
        is_known |= everything.totals["counts"][:, 1:].any()
        self.has_labels, self.n_values = bool(is_known), self._count_values()

    @property
    def logs(self):
        """The logs of a state of one level."""
        (logs,) = self.levels
        return logs

    @property
    def known_classes(self):
        """The two labels of a single task, None before any label and of more tasks."""
        if self.classes or self.everything.rows.value.shape[1] != 1:
            return self.classes
        return [0, 1] if self.has_labels else None

    def _count_values(self):
        return sum(index.size for index in self.indices.values())

    def with_values(self, rows):
        """Return the state with the values and the classes of rows."""
        new = copy.copy(self)
        new.indices = {
            name: self.indices[name].extended(values)
            for name, (_, values) in rows.columns.items()
        }
        new.classes = self.classes or rows.labels.classes
        new.has_labels |= bool((rows.labels.values >= 0).any())
        return new

    def with_logs(self, logs):
        """Return the state with other logs, in one level; that of all rows is last."""
        new = copy.copy(self)
        *logs, new.everything = logs
        new.levels = [logs]
        return new

    def logs_and_plans(self, plan):
        """Yield the logs of a state of one level, each with the plan of its key."""
        return zip([*self.logs, self.everything], plan.of_keys, strict=True)

    def pasts(self, plan):
        """Return the `Past` of every key, and at last that of all rows."""
        return [_key_log.Past(*pair) for pair in self.logs_and_plans(plan)]

    def places(self, columns):
        """Return the places of rows' values by column, -1 for unseen ones."""
        return {
            name: np.append(self.indices[name].places(values), -1)[indices]
            for name, (indices, values) in columns.items()
        }

    def ids(self, columns, plan):
        """Return the places of rows' values per key, one column per value."""
        places = self.places(columns)
        for names in plan.keys:
            _key_log.check_sizes([self.indices[name].size for name in names])
        return [np.stack([places[name] for name in key], axis=1) for key in plan.keys]

    def codes(self, columns, plan):
        """Return the places of rows' keys per log, `n_keys` for those that it lacks."""
        ids = self.ids(columns, plan)
        return [log.places(own) for log, own in zip(self.logs, ids, strict=True)]

    def part(self, rows, plan):
        """Return the state of the keys of rows alone, in one level."""
        ids = self.ids(rows.columns, plan)
        logs = [
            _key_log.find_keys(levels, own, plan.half_lives)
            for levels, own in zip(zip(*self.levels, strict=True), ids, strict=True)
        ]
        return self.with_logs([*logs, self.everything])

    def with_rows(self, rows, plan):
        """Yield each log, its plan, and of rows the keys, times, labels and lists."""
        places = self.places(rows.columns)
        # All rows have the same key, without a column.
        ids = [*self.ids(rows.columns, plan), np.zeros((len(rows.time), 0), np.int64)]
        for own, (log, of_key) in zip(ids, self.logs_and_plans(plan), strict=True):
            lists = [(places[each.column], each.task) for each in of_key.lists]
            yield log, of_key, (own, rows.time, rows.labels.values, lists)

    def extended(self, rows, plan):
        """Return the `part` with the keys of new rows, and these rows, not summed."""
        new, logs = self.with_values(rows).part(rows, plan), []
        for log, of_key, parts in new.with_rows(rows, plan):
            half_lives = of_key.half_lives
            added = _key_log.log_of_rows(*parts, len(half_lives))
            log = _key_log.combine(log, added, half_lives)
            logs.append(new.with_sorted_ties(log, of_key.lists))
        new = new.with_logs(logs)
        if len(rows.time):
            last = rows.time.max().item()
            new.end = last if self.end is None else max(last, self.end)
        return new

    def joined(self, part, plan):
        """Return the state with a later state of some keys, with its other values."""

        def size(logs):
            return sum(log.size for log in logs)

        new, levels = copy.copy(part), [*self.levels, part.logs]
        # Each level is more than twice as large as the next one: a key is copied a
        # logarithmic number of times, however many small changes there are.
        while len(levels) > 1 and 2 * size(levels[-1]) >= size(levels[-2]):
            levels[-2:] = [_merged(levels[-2:], plan)]
        new.levels = levels
        # The work on all keys is due after changes of as many.
        if len(levels) == 1 or new._count_values() > 2 * self.n_values:
            return new.whole(plan)
        return new

    def whole(self, plan):
        """Return the state in one level, folded and compacted."""
        new = self.with_logs([*_merged(self.levels, plan), self.everything])
        return new.folded(plan).compacted(plan)

    def completed(self, rows, plan):
        """Return the `part` of rows with labels that these lacked, and which rows fail.

        The latter are two arrays: rows that the state does not have, and rows whose
        labels it has already.
        """
        new, logs = self.with_values(rows).part(rows, plan), []
        is_absent, is_final = np.zeros((2, len(rows.time)), dtype=bool)
        for log, of_key, parts in new.with_rows(rows, plan):
            log, own_absent, own_final = _key_log.complete_log(log, *parts)
            # With `max_age`, keys have forgotten rows that the log of all rows has.
            if of_key.max_age is None:
                is_absent |= own_absent
            is_final |= own_final
            logs.append(new.with_sorted_ties(log, of_key.lists))
        return new.with_logs(logs), is_absent, is_final & ~is_absent

    def with_sorted_ties(self, log, lists):
        """Return a log in whose lists with a task values of equal times are sorted.

        Labels come in any order, on which the lists do not depend then.
        """
        return replace(
            log,
            lists=[
                own if each.task is None else sort_ties(own, self.indices[each.column])
                for own, each in zip(log.lists, lists, strict=True)
            ],
        )

    def folded(self, plan, pasts=None):
        """Return a state of one level with old rows as totals."""
        pasts = self.pasts(plan) if pasts is None else pasts
        return self.with_logs([past.folded(self.end) for past in pasts])

    def compacted(self, plan):
        """Return a state of one level without keys and values that are over."""
        new, logs = copy.copy(self), self.logs
        if plan.max_age is not None:
            logs = [log.without_old(self.end, plan.max_age) for log in logs]
        used = {name: np.zeros(each.size, bool) for name, each in self.indices.items()}
        pairs = list(zip(plan.of_keys[:-1], logs, strict=True))
        for of_key, log in pairs:
            for name, places in zip(of_key.keys[0], log.columns.T, strict=True):
                used[name][places] = True
            for each, own in zip(of_key.lists, log.lists, strict=True):
                used[each.column][own.value] = True
        for is_used in used.values():
            # One value stays, since it gives lists their type.
            is_used[:1] |= not is_used.any()
        new.indices = {
            name: each if used[name].all() else each.selected(used[name])
            for name, each in self.indices.items()
        }
        new.n_values = new._count_values()
        moves = {name: is_used.cumsum() - 1 for name, is_used in used.items()}
        new.levels = [[_moved(log, moves, of_key) for of_key, log in pairs]]
        return new


def _merged(levels, plan):
    """Return the logs of one level in place of several."""
    found = []
    for logs in zip(*levels, strict=True):
        merged, *newer = logs
        for log in newer:
            merged = _key_log.replace_keys(merged, log, plan.half_lives)
        found.append(merged)
    return found


def sort_ties(rows, index):
    """Return the elements of a list, those of a key and time in the order of values."""
    keys = rows.keys()
    is_tie = (keys[1:] == keys[:-1]) & (rows.time[1:] == rows.time[:-1])
    if not is_tie.any():
        return rows
    tied = np.flatnonzero(np.append(is_tie, False) | np.append(False, is_tie))
    elements = rows.value[tied]
    places, own = np.unique(elements, return_inverse=True)
    values = index.at(places.tolist())
    ranks = {value: rank for rank, value in enumerate(_value_kinds.sort_values(values))}
    ranks = np.array([ranks[value] for value in values])
    order = np.lexsort([ranks[own], rows.time[tied], keys[tied]])
    value = rows.value.copy()
    value[tied] = elements[order]
    return replace(rows, value=value)


def refuse_labels(is_absent, is_final, state, plan):
    """Raise if rows are not in a state, or have their labels already."""
    reasons = []
    if is_absent.any():
        first = plan.as_time(state.end - plan.of_all.horizon)
        reasons.append(
            f"{is_absent.sum()} rows are not in the state, the first in row "
            f"{is_absent.argmax()}; it keeps the rows from {first} on, and finds them "
            f"by their keys and column {plan.time!r}"
        )
    if is_final.any():
        reasons.append(
            f"{is_final.sum()} rows have one of their labels already, the first in row "
            f"{is_final.argmax()}; pass NaN for known labels"
        )
    if reasons:
        raise ValueError(f"y cannot be filled in: {'; '.join(reasons)}.")


def _moved(log, moves, plan):
    """Return a log with the new places of values, per column."""
    pairs = zip(plan.keys[0], log.columns.T, strict=True)
    lists = [
        replace(own, value=moves[each.column][own.value])
        for each, own in zip(plan.lists, log.lists, strict=True)
    ]
    columns = np.stack([moves[name][places] for name, places in pairs], axis=1)
    return replace(log, columns=columns, lists=lists)


def empty_state(plan, classes):
    """Return the state of a log without rows."""
    labels = np.zeros((0, len(plan.task_names)), dtype=np.int8)
    none, logs = np.zeros(0, dtype=np.int64), []
    for of_key in plan.of_keys:
        ids = np.zeros((0, len(of_key.keys[0])), dtype=np.int64)
        lists = [(none, None) for _ in of_key.lists]
        parts = none, labels, lists, len(of_key.half_lives)
        logs.append(_key_log.log_of_rows(ids, *parts))
    indices = {name: ValueIndex([]) for name in plan.columns}
    return HistoryState(classes, None, indices, logs[:-1], logs[-1])

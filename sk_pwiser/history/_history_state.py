"""The state of a history: the logs of all keys, and the values of their columns."""

import copy
from functools import cached_property
from typing import NamedTuple

import numpy as np

from sk_pwiser._table import (
    LARGE,
    as_table,
    check_exact,
    check_match,
    choose_task_names,
    collected,
    factorize,
    kinds_of,
    large_kinds,
    one_task_labels,
    read_labels,
    zero_one_labels,
)
from sk_pwiser.history._completion import complete_log
from sk_pwiser.history._key_log import Slices, combine, log_of_rows, pack
from sk_pwiser.history._point_in_time import Past


class Labels(NamedTuple):
    """Labels of rows: int8 (n_samples, n_tasks), -1 if missing."""

    values: np.ndarray
    names: list
    classes: list | None  # of a single task, if its labels are not 0 and 1


def read_history_labels(y, table, names=None, classes=None):
    """Read labels, of which any may be missing, for the tasks of `names` if given."""
    n_rows = table.n_rows
    y = collected(y)
    if hasattr(y, "column_names"):
        y = as_table(y)
    if y is None or (names is not None and n_rows == len(y) == 0):
        names = names or []
        return Labels(np.full((n_rows, len(names)), -1, dtype=np.int8), names, None)
    labels, missing, columns = read_labels(y, "any", input_name="y")
    labels = labels.reshape(len(labels), -1)
    if len(labels) != n_rows:
        raise ValueError(
            f"X and y have inconsistent numbers of samples: X has {n_rows} rows, y has "
            f"{len(labels)}."
        )
    if table.kind == "pandas":
        check_match(table.X, n_rows, y=y)
    n_tasks = labels.shape[1]
    if names is None:
        default = [f"task_{k}" for k in range(n_tasks)]
        names = choose_task_names(n_tasks, None, columns, default)
    names = list(names)
    _check_tasks(n_tasks, columns, names)
    seen = np.ones(labels.shape, dtype=bool)
    if missing is not None:
        seen = ~missing.reshape(labels.shape)
    labels, classes = _zero_one(labels, seen, columns, classes)
    return Labels(np.where(seen, labels, -1).astype(np.int8), names, classes)


def _check_tasks(n_tasks, columns, names):
    if n_tasks != len(names):
        rule = f"have the tasks {names}" if names else "be None, as it was in fit"
        raise ValueError(f"y must {rule}; it has {n_tasks} columns.")
    if columns is not None and n_tasks > 1 and columns != names:
        raise ValueError(f"The columns of y must be the tasks {names}; got {columns}.")


def _zero_one(labels, seen, columns, classes):
    """Return labels as 0 and 1, and the classes if these are two other values."""
    is_single, is_free = labels.shape[1] == 1, classes in (None, [0, 1])
    if is_single and not (is_free and np.isin(labels[seen], [0, 1]).all()):
        if classes is None and len(found := set(labels[seen].tolist())) == 1:
            raise ValueError(
                f"y contains only the label {found.pop()!r}, so that it is not known "
                "which label is the event. Pass 0 and 1, or begin with rows of both "
                "labels."
            )
        own, classes = one_task_labels(
            labels[seen], columns, None if classes is None else np.array(classes)
        )
        values = np.zeros(labels.shape, dtype=np.float32)
        values[seen] = own[:, 0]
        return values, np.asarray(classes).tolist()
    return zero_one_labels(labels, columns, input_name="y"), None


class ValueIndex:
    """The distinct values of a column, each with its place.

    `earlier_kinds` are those of values that are not here: in a store, or dropped.
    """

    def __init__(self, values, earlier_kinds=()):
        self.values, self.earlier_kinds = values, earlier_kinds
        self.places = {value: i for i, value in enumerate(values)}

    def __getstate__(self):
        return {"values": self.values, "earlier_kinds": self.earlier_kinds}

    def __setstate__(self, state):
        self.__init__(**state)

    @cached_property
    def kinds(self):
        """Text, numbers or other objects, and kinds of `LARGE` numbers, as a set."""
        of_values = kinds_of(self.values) | large_kinds(self.values)
        return of_values.union(self.earlier_kinds)

    def check_kinds(self, values, name):
        """Raise if values are of other kinds than these, such as text, not numbers."""
        kinds, known = kinds_of(values), self.kinds - LARGE.keys()
        if kinds and known and kinds.isdisjoint(known):
            raise ValueError(
                f"Column {name!r} contained {' and '.join(sorted(known))} before; "
                f"it now contains {' and '.join(sorted(kinds))}, such as "
                f"{values[0]!r}, which cannot equal any of its values."
            )

    def check_exact(self, values, name):
        """Raise if integers were rounded to floats here or there: they equal none."""
        if large_kinds(values):  # before all values of the index are read
            start = f"Column {name!r} contained"
            check_exact(values, self.kinds, start, " before; it now contains")

    def extended(self, values):
        """Return an index that has these distinct values as well."""
        new = [value for value in values if value not in self.places]
        return ValueIndex(self.values + new, self.earlier_kinds) if new else self

    def places_of(self, values):
        """Return the place of each of some distinct values, -1 where it has none."""
        places = self.places
        return np.fromiter(
            (places.get(value, -1) for value in values), np.int64, len(values)
        )


def check_values(indices, added, plan):
    """Raise if values of columns, by name, can equal none of those of the indices."""
    of_keys = {name for key in plan.keys for name in key}
    for name, values in added.items():
        indices[name].check_kinds(values, name)
        if name in of_keys:
            indices[name].check_exact(values, name)


class Rows(NamedTuple):
    """Rows of a log: per column, the index of each row's value, and the values."""

    columns: dict
    time: np.ndarray
    labels: Labels


def read_column(column, name):
    """Return the index of each row's value, -1 where it is missing, and the values."""
    try:
        indices, values = factorize(column)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise TypeError(
            f"Column {name!r} must hold one value per row for keys and lists: {error}."
        ) from error
    return indices.astype(np.int64), values


class HistoryState:
    """What a history has learnt. It is not changed: methods return new ones.

    `indices` has the values of each column, `logs` one `KeyLog` per key, and
    `everything` all rows as those of one key, for the base rates.
    """

    def __init__(self, classes, end, indices, logs, everything):
        self.classes, self.end, self.indices = classes, end, indices
        self.logs, self.everything = logs, everything

    @property
    def known_classes(self):
        """The two labels of a single task, None before any label and of more tasks."""
        if self.classes or self.everything.labels.shape[1] != 1:
            return self.classes
        return [0, 1] if self.has_labels else None

    @property
    def has_labels(self):
        """Whether a label is known."""
        labels, totals = self.everything.labels, self.everything.totals
        return bool((labels >= 0).any() or totals["known"].any())

    def with_values(self, rows):
        """Return the state with the values and the classes of rows."""
        new = copy.copy(self)
        new.indices = {
            name: self.indices[name].extended(values)
            for name, (_, values) in rows.columns.items()
        }
        new.classes = self.classes or rows.labels.classes
        return new

    def pasts(self, plan):
        """Return the `Past` of every key, and that of all rows."""
        pasts = [Past(log, plan, key) for key, log in enumerate(self.logs)]
        return pasts, Past(self.everything, plan.of_all)

    def places(self, columns):
        """Return the places of rows' values by column, -1 for unseen ones."""
        return {
            name: np.append(self.indices[name].places_of(values), -1)[indices]
            for name, (indices, values) in columns.items()
        }

    def codes(self, columns, plan):
        """Return the places of rows' keys per log, `n_keys` for those that it lacks."""
        places, codes = self.places(columns), []
        for names, log in zip(plan.keys, self.logs, strict=True):
            ids = np.stack([places[name] for name in names], axis=1)
            found = np.full(len(ids), log.n_keys)
            if log.n_keys:
                sizes = [len(self.indices[name].values) + 1 for name in names]
                keys = pack(log.columns, sizes)
                is_known = (ids >= 0).all(axis=1)
                wanted = pack(np.where(is_known[:, np.newaxis], ids, 0), sizes)
                place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
                is_known &= keys[place] == wanted
                found[is_known] = place[is_known]
            codes.append(found)
        return codes

    def extended(self, rows, plan):
        """Return the state with new rows, of which none is summed into totals yet."""
        new, labels = self.with_values(rows), rows.labels
        places, n_half_lives = new.places(rows.columns), len(plan.half_lives)
        new.logs = []
        for key, (names, log) in enumerate(zip(plan.keys, self.logs, strict=True)):
            lists = [(places[each.column], each.task) for each in plan.lists_of(key)]
            ids = np.stack([places[name] for name in names], axis=1)
            added = log_of_rows(ids, rows.time, labels.values, lists, n_half_lives)
            new.logs.append(combine(log, added, plan.half_lives))
        none = np.zeros((len(rows.time), 0), dtype=np.int64)
        added = log_of_rows(none, rows.time, labels.values, [], 0)
        new.everything = combine(self.everything, added, [])
        if len(rows.time):
            last = rows.time.max().item()
            new.end = last if self.end is None else max(last, self.end)
        return new

    def completed(self, rows, plan):
        """Return the state with labels that rows of it lacked, and which rows fail.

        The latter are two arrays: rows that the state does not have, and rows whose
        labels it has already.
        """
        labels, time = rows.labels.values, rows.time
        asked = np.flatnonzero((labels >= 0).any(axis=1))
        labels, time = labels[asked], time[asked]
        new = self.with_values(rows)
        places = {n: each[asked] for n, each in new.places(rows.columns).items()}
        codes = [code[asked] for code in new.codes(rows.columns, plan)]
        is_absent, is_final = np.zeros((2, len(rows.time)), dtype=bool)

        def complete(log, code, lists, chosen):
            parts = code[chosen], time[chosen], labels[chosen]
            lists = [(values[chosen], task) for values, task in lists]
            completion = complete_log(log, *parts, lists)
            # With `max_age`, keys have forgotten rows that the log of all rows has.
            if plan.max_age is None or log is self.everything:
                is_absent[asked[chosen]] |= completion.is_absent
            is_final[asked[chosen]] |= completion.is_final
            return completion.log

        logs = []
        for key, (names, log) in enumerate(zip(plan.keys, self.logs, strict=True)):
            has_key = np.all([places[name] >= 0 for name in names], axis=0)
            lists = [(places[each.column], each.task) for each in plan.lists_of(key)]
            logs.append(complete(log, codes[key], lists, np.flatnonzero(has_key)))
        new.logs = logs
        everyone = np.arange(len(asked))
        new.everything = complete(self.everything, 0 * everyone, [], everyone)
        return new, is_absent, is_final & ~is_absent

    def folded(self, plan, pasts=None):
        """Return the state with old rows as totals, and without keys that are over."""
        if self.end is None:
            return self
        pasts, of_all = pasts or self.pasts(plan)
        new = copy.copy(self)
        new.logs = [past.folded(self.end) for past in pasts]
        new.everything = of_all.folded(self.end)
        return new.compacted(plan)

    def compacted(self, plan):
        """Return the state without values that no key and no list has any more."""
        used = {name: [] for name in self.indices}
        for key, (names, log) in enumerate(zip(plan.keys, self.logs, strict=True)):
            for j, name in enumerate(names):
                used[name].append(log.columns[:, j])
            for each, own in zip(plan.lists_of(key), log.lists, strict=True):
                used[each.column].append(own.value)
        moves, indices = {}, {}
        for name, index in self.indices.items():
            is_used = np.zeros(len(index.values), dtype=bool)
            is_used[np.concatenate(used[name])] = True
            # One value stays, since it gives lists their type.
            is_used[:1] |= not is_used.any()
            if is_used.sum() <= len(is_used) / 2:
                moves[name] = is_used.cumsum() - 1
                kept = np.flatnonzero(is_used)
                values = [index.values[i] for i in kept]
                indices[name] = ValueIndex(values, index.kinds)
        if not indices:
            return self
        new = copy.copy(self)
        new.indices = self.indices | indices
        new.logs = [_moved(log, moves, plan, k) for k, log in enumerate(self.logs)]
        return new


def _moved(log, moves, plan, key):
    """Return a log with other places of values; `moves` has those of some columns."""
    columns = log.columns.copy()
    for j, name in enumerate(plan.keys[key]):
        if name in moves:
            columns[:, j] = moves[name][columns[:, j]]
    lists = [
        Slices(own.offsets, own.time, moves[each.column][own.value])
        if each.column in moves
        else own
        for each, own in zip(plan.lists_of(key), log.lists, strict=True)
    ]
    return log.replaced(columns=columns, lists=lists)


def empty_state(plan, classes):
    none = np.zeros((0, len(plan.task_names)), dtype=np.int8)
    time = np.zeros(0, dtype=np.int64)

    def log(n_columns, lists, n_half_lives):
        ids = np.zeros((0, n_columns), dtype=np.int64)
        empty = [(np.zeros(0, dtype=np.int64), None) for _ in lists]
        return log_of_rows(ids, time, none, empty, n_half_lives)

    logs = [
        log(len(key), plan.lists_of(i), len(plan.half_lives))
        for i, key in enumerate(plan.keys)
    ]
    indices = {name: ValueIndex([]) for name in plan.columns}
    return HistoryState(classes, None, indices, logs, log(0, [], 0))

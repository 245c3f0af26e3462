"""Single rows from a state in a key-value store: one record per key."""

import copy
import json
import math
import struct
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from sk_pwiser._table import is_missing
from sk_pwiser.history._history_features import HistoryFeatures
from sk_pwiser.history._history_files import FORM
from sk_pwiser.history._history_state import (
    Labels,
    ValueIndex,
    empty_state,
    lists_of,
    read_column,
)
from sk_pwiser.history._history_tables import Table
from sk_pwiser.history._key_log import (
    KeyLog,
    ListLog,
    decay,
    select_keys,
    unique_keys,
)
from sk_pwiser.history._one_row import OneRow, field_of
from sk_pwiser.history._plan import Plan
from sk_pwiser.history._point_in_time import Past

DTYPES = {"q": np.dtype("<i8"), "d": np.dtype("<f8")}


class Place(NamedTuple):
    """Where an array is in a record, and what it is an attribute of."""

    part: str  # "past" (of a `Past`), "log" (of its `KeyLog`), "total" or "list"
    name: str
    start: int
    stop: int
    kind: str
    shape: tuple


class Form(NamedTuple):
    """The form of the records of a kind of keys: numbers of 8 bytes, and JSON.

    A record has the numbers of its rows and of the elements of each list, the arrays of
    a `Past` and of its `KeyLog` for this key, and the values of the lists as JSON.
    """

    n_tasks: int
    n_half_lives: int
    n_lists: int

    def arrays(self, n_rows, is_whole, sizes):
        """Yield the part, name, type and shape of each array of a record."""
        k, h = self.n_tasks, self.n_half_lives
        width, time = 1 + 2 * k, "q" if is_whole else "d"
        yield "log", "time", time, (n_rows,)
        yield "past", "stretch", "q", (n_rows,)
        yield "past", "known", "q", (n_rows + 1, k)
        yield "past", "positive", "q", (n_rows + 1, k)
        yield "past", "last_positive", "q", (n_rows, k)
        yield "past", "decayed", "d", (n_rows, h, width)
        yield "past", "is_linked", "q", (1,)
        yield "total", "count", "q", (1,)
        yield "total", "first", time, (1,)
        yield "total", "last", time, (1,)
        yield "total", "known", "q", (1, k)
        yield "total", "positive", "q", (1, k)
        yield "total", "last_positive", time, (1, k)
        yield "total", "decayed", "d", (1, h, width)
        yield "log", "reference", "d", (1,)
        for place, size in enumerate(sizes):
            yield "list", place, time, (size,)

    def write(self, past, key, values):
        """Return the record of a key of a `Past`; `values` has those of its lists.

        Cumulated counts and places of rows begin anew with the first row of the key.
        """
        log = past.log
        start, end = (int(log.offsets[key + i]) for i in (0, 1))
        rows, ends = slice(start, end), slice(start, end + 1)
        found = {
            "past": {
                "stretch": past.stretch[rows] - start,
                "known": past.known[ends] - past.known[start],
                "positive": past.positive[ends] - past.positive[start],
                "last_positive": np.maximum(past.last_positive[rows] - start, -1),
                "decayed": past.decayed[rows],
                "is_linked": past.is_linked[key],
            },
            "log": {"time": log.time[rows], "reference": log.reference or 0.0},
            "total": {name: total[key] for name, total in log.totals.items()},
            "list": [
                each.time[each.offsets[key] : each.offsets[key + 1]]
                for each in log.lists
            ],
        }
        sizes = list(map(len, values))
        is_whole = log.time.dtype.kind == "i"
        parts = [
            struct.pack(
                self.head, end - start, is_whole, log.reference is not None, *sizes
            )
        ]
        for part, name, kind, _ in self.arrays(end - start, is_whole, sizes):
            array = np.asarray(found[part][name], dtype=DTYPES[kind])
            parts.append(array.tobytes())
        return b"".join([*parts, json.dumps(values).encode() if values else b""])

    @property
    def head(self):
        """Form of the first numbers of a record."""
        return f"<{3 + self.n_lists}q"

    def places(self, record):
        """Return the places of arrays, where values begin, and if there is a reference.

        The places of records of equal sizes are computed once.
        """
        if len(record) < struct.calcsize(self.head):
            raise ValueError("a record is damaged.")
        sizes = struct.unpack_from(self.head, record)
        return *_places(self, *sizes[:2], sizes[3:]), bool(sizes[2])

    def values(self, record, end):
        """Return the values of each list of a record, which begin at `end`."""
        return json.loads(record[end:]) if self.n_lists else []

    def past(self, record, past):
        """Return the past of the one key of a record, with the plan of another."""
        places, end, has_reference = self.places(record)
        view, found = memoryview(record), {"past": {}, "log": {}, "total": {}}
        times = found["list"] = {}
        for part, name, start, stop, kind, shape in places:
            # No view has an axis of size 0, and nothing reads such an array.
            has_any = stop > start
            found[part][name] = view[start:stop].cast(kind, shape) if has_any else ()
        values = self.values(record, end)
        lists = [ListLog((0, len(v)), times[i], v) for i, v in enumerate(values)]
        time, reference = found["log"].values()
        reference = reference[0] if has_reference else None
        own = object.__new__(Past)
        log = KeyLog(None, (0, len(time)), time, None, lists, found["total"], reference)
        vars(own).update(vars(past), log=log, **found["past"])
        return own

    def log(self, records, columns, indices, half_lives):
        """Return the log of the keys of records, by the indices of their values.

        `indices` has the `ValueIndex` of each list.
        """
        found, references = {}, []
        values = [[] for _ in indices]
        for record in records:
            places, end, has_reference = self.places(record)
            for part, name, start, _, kind, shape in places:
                array = np.ndarray(shape, DTYPES[kind], record, start)
                found.setdefault((part, name), []).append(array)
            for of_list, own in zip(values, self.values(record, end), strict=True):
                of_list += own
            last = found["log", "reference"][-1].item()
            references.append(last if has_reference else None)

        def offsets(key):
            return np.append(0, np.cumsum([len(array) for array in found[key]]))

        joined = {key: np.concatenate(arrays) for key, arrays in found.items()}
        totals = {key[1]: joined[key] for key in joined if key[0] == "total"}
        reference = max((r for r in references if r is not None), default=None)
        for place, own in enumerate(references):
            if own is not None:
                scale = decay(reference - own, half_lives)
                totals["decayed"][place] *= scale[:, np.newaxis]
        known, positive = (
            np.concatenate([np.diff(array, axis=0) for array in found["past", name]])
            for name in ("known", "positive")
        )
        labels = np.where(known > 0, positive, -1).astype(np.int8)
        lists = [
            ListLog(offsets(key := ("list", place)), joined[key], index.places_of(own))
            for place, (index, own) in enumerate(zip(indices, values, strict=True))
        ]
        time = "log", "time"
        log = KeyLog(
            columns, offsets(time), joined[time], labels, lists, totals, reference
        )
        return select_keys(log, np.argsort(unique_keys(columns)[1]))


@lru_cache(maxsize=4096)
def _places(form, n_rows, is_whole, sizes):
    """Return the places of the arrays of records of equal sizes, and their end."""
    end, places = struct.calcsize(form.head), []
    for part, name, kind, shape in form.arrays(n_rows, is_whole, sizes):
        start, end = end, end + 8 * math.prod(shape)
        places.append(Place(part, name, start, end, kind, shape))
    return tuple(places), end


class StoredHistory:
    """Features of the past of single rows, with the state in a key-value store.

    Servers that share a store, such as Redis, need no memory for the state: a row reads
    one record per key. The values are those of
    :meth:`~sk_pwiser.history.HistoryFeatures.transform_row`. See :ref:`history`.

    Parameters
    ----------
    store : MutableMapping
        Maps text to bytes: a dict, :class:`shelve.Shelf`, or an object with the methods
        of a dict that writes to a server. :meth:`write` has filled it.
    prefix : str, default="history"
        What the keys of the store begin with.

    Attributes
    ----------
    end_ : int, float or numpy.datetime64
        Time of the last row, as of the last `refresh` or `update`.

    Raises
    ------
    ValueError
        If the store has no valid history with this prefix.

    See Also
    --------
    HistoryFeatures : Computes the state, and columns of whole tables.

    Notes
    -----
    The rate over all keys, to which rates are shrunk, and `end_` are read once;
    `refresh` reads them again. One process at a time may update a store.

    Examples
    --------
    >>> import pandas as pd
    >>> from sk_pwiser.history import HistoryFeatures, StoredHistory
    >>> log = pd.DataFrame({"user": ["a", "a", "b"], "time": [1, 2, 2]})
    >>> click = pd.Series([1, 0, 1], name="click")
    >>> history = HistoryFeatures(["user"], time="time", passthrough=False)
    >>> store = {}
    >>> stored = StoredHistory.write(history.fit(log, click), store)
    >>> sorted(store)
    ['history', 'history:', 'history:user:["a"]', 'history:user:["b"]']
    >>> stored.transform_row({"user": "a", "time": 6})["user__since_click"]
    5.0
    """

    def __init__(self, store, *, prefix="history"):
        self.store, self.prefix = store, prefix
        self.refresh()

    @classmethod
    def write(cls, history, store, *, prefix="history"):
        """Write the state of a history to a store.

        Records of other keys stay; clear a store that has another history.

        Parameters
        ----------
        history : HistoryFeatures
            The fitted history.
        store : MutableMapping
            The store.
        prefix : str, default="history"
            What the keys of the store begin with.

        Returns
        -------
        StoredHistory
            The history in the store.

        Raises
        ------
        TypeError
            If values of keys or lists are neither text nor numbers.
        """
        store.update(_records(history, prefix))
        return cls(store, prefix=prefix)

    def refresh(self):
        """Read again what the store has about all keys, after another's `update`.

        Returns
        -------
        StoredHistory
            This object.
        """

        def build(content):
            names = content["task_names"]
            plan = Plan(content["params"], content["kind"], names)
            none = Labels(np.zeros((0, len(names)), np.int8), names, content["classes"])
            state = empty_state(plan, content["kind"], none)
            of_all, record = Form(len(names), 0, 0), self.store[f"{self.prefix}:"]
            everything = of_all.log([record], np.zeros((1, 0), np.int64), [], [])
            return state.indices, state.logs, everything

        text = self.store.get(self.prefix, b"null")
        self._history = HistoryFeatures._build(
            f"store[{self.prefix!r}]", lambda: FORM.decode(json.loads(text), {}), build
        )
        self._history._one_row = StoredRow(self._history, self.store, self.prefix)
        return self

    def transform_row(self, row):
        """Return a row with what is known at its time.

        Parameters
        ----------
        row : dict
            The fields of the row, as for
            :meth:`~sk_pwiser.history.HistoryFeatures.transform_row`.

        Returns
        -------
        dict
            The new columns, after the fields of the row with ``passthrough=True``.

        Raises
        ------
        ValueError, TypeError
            If a field is absent, or the time is none.
        """
        return self._history.transform_row(row)

    def update(self, X, y=None, *, overlap="error"):
        """Append a later period of the log to the records of its keys.

        The cost depends on the number of rows alone. `max_keys` does not apply: the
        store bounds the number of its keys, for example by their age.

        Parameters
        ----------
        X : table of shape (n_samples, n_features)
            The rows, as for :meth:`~sk_pwiser.history.HistoryFeatures.update`.
        y : array-like of shape (n_samples, n_tasks) or (n_samples,), default=None
            Labels. None if no label is known.
        overlap : {"error", "merge"}, default="error"
            What rows from before the end of the state are.

        Returns
        -------
        StoredHistory
            This object.

        Raises
        ------
        ValueError, TypeError
            As in `fit` of the history; the store is unchanged.
        """
        self.refresh()
        history, one_row = copy.copy(self._history), self._history._one_row
        state, plan = history._fitted()
        plan = copy.copy(plan)
        plan.max_keys = None
        read, state = one_row.state_of(Table(X))
        history._set_state(state, plan)
        history.update(X, y, overlap=overlap)
        records = _records(history, self.prefix)
        for name in read:
            if name not in records:  # the key was too old
                del self.store[name]
        self.store.update(records)
        return self.refresh()

    def __getstate__(self):
        return {"store": self.store, "prefix": self.prefix}

    def __setstate__(self, state):
        self.__init__(**state)

    @property
    def end_(self):
        """Time of the last row, as of the last `refresh` or `update`."""
        return self._history.end_


class StoredRow(OneRow):
    """The new columns of single rows, whose keys are looked up in a store."""

    def __init__(self, history, store, prefix):
        self.state, self.plan = history._fitted()
        self.store, self.prefix = store, prefix
        pasts, of_all = self.state.pasts(self.plan)
        self.pasts = [past.for_one_row() for past in pasts]
        self.of_all = of_all.for_one_row()
        self.names = [self.plan.names_of_key(key) for key in range(len(pasts))]
        self.forms = forms_of(self.plan)

    def look_up(self, key, names, row):
        """Return the past of the key of a row, and its place there, -1 for none."""
        values = [field_of(row, name) for name in names]
        name = store_key(self.prefix, self.plan.key_names[key], values)
        record = None if name is None else self.store.get(name)
        if record is None:
            return self.pasts[key], -1
        return self.forms[key].past(record, self.pasts[key]), 0

    def values_of(self, column, elements):
        """Return the values of elements of a list."""
        return list(elements)

    def state_of(self, table):
        """Return the names of the records of the keys of a table, and their state."""
        plan, state = self.plan, copy.copy(self.state)
        half_lives = [half_life for _, half_life in plan.half_lives]
        names, of_keys = [], []
        for key, columns in enumerate(plan.keys):
            read = [read_column(table.column(name), name) for name in columns]
            ids = np.stack([indices for indices, _ in read], axis=1)
            distinct, _ = unique_keys(ids[(ids >= 0).all(axis=1)])
            found = []
            for row in distinct:
                values = [own[i] for (_, own), i in zip(read, row, strict=True)]
                name = store_key(self.prefix, plan.key_names[key], values)
                if name is not None and (record := self.store.get(name)) is not None:
                    names.append(name)
                    found.append((values, record))
            of_keys.append(found)
        state.indices = {name: ValueIndex([]) for name in plan.columns}

        def add(name, values):
            index = state.indices[name].extended(list(dict.fromkeys(values)))
            state.indices[name] = index
            return index.places_of(list(values))

        logs = []
        for key, (columns, found) in enumerate(zip(plan.keys, of_keys, strict=True)):
            if not found:
                logs.append(self.state.logs[key])
                continue
            places = [
                add(name, [values[j] for values, _ in found])
                for j, name in enumerate(columns)
            ]
            form, records = self.forms[key], [record for _, record in found]
            for place, each in enumerate(lists_of(plan, key)):
                for record in records:
                    end = form.places(record)[1]
                    add(each.column, form.values(record, end)[place])
            lists = [state.indices[each.column] for each in lists_of(plan, key)]
            logs.append(form.log(records, np.stack(places, axis=1), lists, half_lives))
        state.logs = logs
        return names, state


def forms_of(plan):
    """Return the form of the records of each key."""
    n_tasks, n_half_lives = len(plan.task_names), len(plan.half_lives)
    return [
        Form(n_tasks, n_half_lives, len(lists_of(plan, key)))
        for key in range(len(plan.keys))
    ]


def store_key(prefix, name, values):
    """Return the name of the record of a key, None if one of its values is missing."""
    plain = []
    for value in values:
        if is_missing(value):
            return None
        plain.append(_plain(value, name))
    return f"{prefix}:{name}:{json.dumps(plain)}"


def _plain(value, name):
    """Return a value as text or a number; equal numbers become the same one."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool | float) and math.isfinite(value):
        value = int(value) if value == int(value) else value
    if not isinstance(value, str | int | float):
        raise TypeError(
            f"A store holds values that are text or numbers; {name!r} has {value!r}."
        )
    return value


def _records(history, prefix):
    """Return all records of a history by their names."""
    state, plan = history._fitted()
    pasts, of_all = history._pasts()
    records, forms = {}, forms_of(plan)
    for key, (names, past) in enumerate(zip(plan.keys, pasts, strict=True)):
        indices = [state.indices[name].values for name in names]
        lists = lists_of(plan, key)
        for place, row in enumerate(state.logs[key].columns):
            values = [own[i] for own, i in zip(indices, row, strict=True)]
            texts = []
            for each, own in zip(lists, past.log.lists, strict=True):
                known = state.indices[each.column].values
                elements = own.value[own.offsets[place] : own.offsets[place + 1]]
                texts.append([_listed(known[i], each.name) for i in elements])
            name = store_key(prefix, plan.key_names[key], values)
            records[name] = forms[key].write(past, place, texts)
    form = Form(len(plan.task_names), 0, 0)
    records[f"{prefix}:"] = form.write(of_all, 0, [])
    values = FORM.encode(history._describe(), "history")[0]
    return records | {prefix: json.dumps(values).encode()}  # the last one written


def _listed(value, name):
    """Return a value of a list, which JSON keeps."""
    _plain(value, name)
    return value.item() if hasattr(value, "item") else value

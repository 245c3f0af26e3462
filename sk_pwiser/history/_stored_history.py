"""Single rows from a state in a key-value store: one record per key."""

import copy
import hashlib
import json
import math
import struct
from itertools import accumulate, pairwise

import joblib
import numpy as np

from sk_pwiser._table import is_missing
from sk_pwiser.history._history_features import HistoryFeatures
from sk_pwiser.history._history_files import (
    FORM,
    earlier_kinds,
    read_description,
    valid_history,
)
from sk_pwiser.history._history_state import (
    ValueIndex,
    add_values,
    empty_state,
    read_column,
)
from sk_pwiser.history._history_tables import Table
from sk_pwiser.history._key_log import (
    KeyLog,
    Slices,
    columns_of_totals,
    decay,
    no_totals,
    unique_keys,
)
from sk_pwiser.history._one_row import KeyPast, OneRow, PastsOfKeys

# What a record begins with, by the type of its times.
STARTS = {"q": b"history0", "d": b"history1"}
# The form of a store; earlier ones, without a number, lacked kinds of large numbers.
STORE_FORM = 2
to_json = json.JSONEncoder().encode


class RecordForm:
    """The form of the records of a kind of keys: numbers of 8 bytes, then JSON.

    A record is a `KeyPast`: sizes of the parts, reference, totals, parts and values.
    """

    def __init__(self, plan, key=0):
        self.n_tasks, self.half_lives = len(plan.lags), plan.half_lives
        self.n_lists = len(plan.lists_of(key))
        self.n_parts = 2 + 2 * self.n_tasks + self.n_lists
        n_counts = 1 + 2 * self.n_tasks
        self.heads = {
            start: struct.Struct(
                f"=8s{self.n_parts}q{kind}{n_counts}q{2 + self.n_tasks}{kind}"
                f"{n_counts * len(plan.half_lives)}d"
            )
            for kind, start in STARTS.items()
        }

    def write(self, past, values=()):
        """Return the record of a key; `values` has those of its lists."""
        slices = map(slice, past.starts, past.stops)
        parts = [view[own] for view, own in zip(past.views, slices, strict=True)]
        reference = past.reference or 0
        is_whole = isinstance(reference, int) and parts[0].format != "d"
        kind = "q" if is_whole else "d"
        kinds = [kind, *"q" * (2 * self.n_tasks), *kind * self.n_lists, "d"]
        head = self.heads[STARTS[kind]]
        record = head.pack(STARTS[kind], *map(len, parts), reference, *past.totals)
        for part, kind in zip(parts, kinds, strict=True):
            record += np.asarray(part, dtype=kind).tobytes()
        text = to_json(values).encode() if values else b""
        # Views of numbers of 8 bytes need whole ones.
        return record + text.ljust(-(-len(text) // 8) * 8)

    def read(self, record, name):
        """Return the past of the key of a record with a given name."""
        n_parts = self.n_parts
        try:
            head = self.heads[record[:8]]
            _, *numbers = head.unpack_from(record)
            *starts, end = accumulate(numbers[:n_parts], initial=head.size // 8)
            ints, floats = memoryview(record).cast("q"), memoryview(record).cast("d")
            values = json.loads(record[8 * end :]) if self.n_lists else ()
            if end > len(ints):
                raise ValueError("it is too short")
        except (LookupError, TypeError, ValueError, struct.error) as error:
            raise ValueError(f"store[{name!r}] is no valid record: {error}.") from error
        times = ints if head is self.heads[STARTS["q"]] else floats
        views = [times, *[ints] * (2 * self.n_tasks), *[times] * self.n_lists, floats]
        reference, totals = numbers[n_parts], numbers[n_parts + 1 :]
        return KeyPast(reference, totals, starts, [*starts[1:], end], views, values)

    def log(self, pasts, columns, values=()):
        """Return the log of pasts; `columns` and `values` have indices of values."""
        n_keys, n_tasks = len(pasts), self.n_tasks

        def part(i):
            arrays = [np.asarray(p.views[i][p.starts[i] : p.stops[i]]) for p in pasts]
            return np.append(0, np.cumsum(list(map(len, arrays)))), arrays

        offsets, times = part(0)
        labels = np.zeros((offsets[-1], n_tasks), dtype=np.int8)
        for k in range(n_tasks):
            for i, value in ((1 + 2 * k, 1), (2 + 2 * k, -1)):
                for first, places in zip(offsets, part(i)[1], strict=False):
                    labels[first + places, k] = value
        lists = []
        for i, of_list in enumerate(values, 1 + 2 * n_tasks):
            own, arrays = part(i)
            lists.append(Slices(own, np.concatenate(arrays), of_list))
        rows = Slices(offsets, np.concatenate(times), labels)
        totals = no_totals(n_keys, n_tasks, len(self.half_lives), rows.time.dtype)
        numbers = zip(*(past.totals for past in pasts), strict=True)
        columns_of = columns_of_totals(totals).values()
        for column, of_keys in zip(columns_of, numbers, strict=True):
            column[:] = of_keys
        reference = max(past.reference for past in pasts)
        for decayed, past in zip(totals["decayed"], pasts, strict=True):
            decayed *= decay(reference - past.reference, self.half_lives)[:, None]
        return KeyLog(columns, rows, lists, totals, reference).sorted()


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
    `refresh` reads them again. One process at a time may change a store.

    A change is written to a journal first, in one record. If the process ends or the
    store fails while the other records are written, the next call of `update` or
    `complete` finishes the change. If that call repeats the rows of the change, after
    an error or as the first one of a new object, it has no further effect: rows are
    neither lost nor counted twice.

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

    # Whether the last change of this object is known to have been made.
    _is_certain = False

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
        store.pop(f"{prefix}:journal", None)  # of another history
        store.update(_records(history, prefix))
        return cls(store, prefix=prefix)

    def refresh(self):
        """Read again what the store has about all keys, after another's `update`.

        Returns
        -------
        StoredHistory
            This object.
        """
        text = self.store.get(self.prefix, b"null")
        with valid_history(f"store[{self.prefix!r}]"):
            content, plan = read_description(json.loads(text))
            if content.get("form") != STORE_FORM:
                raise ValueError(
                    "another version of sk_pwiser wrote it; write the history again"
                )
            form = RecordForm(plan.of_all)
            past = form.read(self.store[name := f"{self.prefix}:"], name)
            state = empty_state(plan, content["classes"])
            state.end = content["end"]
            state.indices = {
                name: ValueIndex([], earlier_kinds(content, name))
                for name in plan.columns
            }
            state.everything = form.log([past], np.zeros((1, 0), np.int64))
            history = HistoryFeatures._of(content, plan, state)
        history._one_row = StoredRow(history, self.store, self.prefix)
        self._history, self._last_change = history, content["last_change"]
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
            If a field is absent, the time is none, or a key is text where the log has
            numbers, or the reverse, or one of them is an integer rounded to a float.
        """
        return self._history.transform_row(row)

    def update(self, X, y=None, *, overlap="error"):
        """Append a later period of the log to the records of its keys.

        The cost depends on the rows, on the recent rows of their keys, and on the
        number of all rows within the longest delay, whose times are one record. The
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
        return self._change("update", X, y, overlap=overlap)

    def complete(self, X, y):
        """Fill in labels that were not known when their rows were appended.

        Parameters
        ----------
        X : table of shape (n_samples, n_features)
            The rows, as for :meth:`~sk_pwiser.history.HistoryFeatures.complete`.
        y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            The labels that are new. Missing ones change nothing.

        Returns
        -------
        StoredHistory
            This object.

        Raises
        ------
        ValueError, TypeError
            As in :meth:`~sk_pwiser.history.HistoryFeatures.complete`; the store is
            unchanged.
        """
        return self._change("complete", X, y)

    def _change(self, method, X, y, **options):
        """Let a method of the history change the records of the keys of a table."""
        self._finish_change()
        self.refresh()
        history, one_row = copy.copy(self._history), self._history._one_row
        state, plan = history._fitted()
        digest = joblib.hash((method, options, history._read(X, y, state, plan)[0]))
        # After an error or a restart, the caller may repeat a change that was made.
        is_repeated = not self._is_certain and digest == self._last_change
        self._is_certain = False
        if is_repeated:
            self._is_certain = True
            return self
        read, state = one_row.state_of(Table(X))
        history._set_state(state, plan)
        getattr(history, method)(X, y, **options)
        records = _records(history, self.prefix, digest)
        dropped = [name for name in read if name not in records]  # too old
        # From here on the change will be completed, by the next one if need be.
        self.store[self._journal] = write_journal(records, dropped)
        self._finish_change()
        self.refresh()
        self._is_certain = True
        return self

    @property
    def _journal(self):
        return f"{self.prefix}:journal"

    def _finish_change(self):
        """Write the records of a change whose journal is there, once or repeatedly."""
        journal = self.store.get(self._journal)
        if journal is None:
            return
        records, dropped = read_journal(journal)
        self.store.update(records)
        for name in dropped:
            self.store.pop(name, None)
        del self.store[self._journal]

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
        super().__init__(*history._fitted())
        self.store, self.prefix = store, prefix
        self.forms = [RecordForm(self.plan, key) for key in range(len(self.names))]

    def values_of(self, column, elements):
        return elements

    def look_up(self, key, names, row):
        """Return the past of the key of a row, None for none."""
        values = [self.key_field(row, name) for name in names]
        past = self.read(key, values)[1]
        if past is None:
            for name, value in zip(names, values, strict=True):
                if not is_missing(value):
                    self.state.indices[name].check_kinds([value], name)
        return past

    def read(self, key, values):
        """Return the name of the record of a key, and its past, None for none."""
        name = store_key(self.prefix, self.plan.key_names[key], values)
        record = None if name is None else self.store.get(name)
        return name, None if record is None else self.forms[key].read(record, name)

    def state_of(self, table):
        """Return the names of the records of the keys of a table, and their state."""
        plan, state = self.plan, copy.copy(self.state)
        state.indices = dict(state.indices)
        state.logs = list(state.logs)
        names, indices = [], state.indices
        for key, columns in enumerate(plan.keys):
            read = [read_column(table.column(name), name) for name in columns]
            for name, (_, values) in zip(columns, read, strict=True):
                # Of equal numbers, the state below would have those of the table.
                self.state.indices[name].check_exact(values, name)
            ids = np.stack([indices for indices, _ in read], axis=1)
            distinct, _ = unique_keys(ids[(ids >= 0).all(axis=1)])
            keys, pasts = [], []
            for row in distinct:
                values = [own[i] for (_, own), i in zip(read, row, strict=True)]
                name, past = self.read(key, values)
                if past is not None:
                    names.append(name)
                    keys.append(values)
                    pasts.append(past)
            if not pasts:
                continue
            of_keys = zip(columns, zip(*keys, strict=True), strict=True)
            places = [add_values(indices, name, values) for name, values in of_keys]
            lists = []
            for each in plan.lists_of(key):
                values = [v for past in pasts for v in past.values[each.place]]
                lists.append(add_values(indices, each.column, values))
            log = self.forms[key].log(pasts, np.stack(places, axis=1), lists)
            state.logs[key] = log
        return names, state


def store_key(prefix, name, values):
    """Return the name of the record of a key, None if one of its values is missing."""
    texts = []
    for value in values:
        if type(value) not in (int, str):
            if is_missing(value):
                return None
            value = _plain(value, name)
        texts.append(str(value) if type(value) is int else to_json(value))
    return f"{prefix}:{name}:[{', '.join(texts)}]"


def _plain(value, name):
    """Return a value as text or a number; equal numbers become the same one."""
    value = _listed(value, name)
    if isinstance(value, bool | float) and math.isfinite(value):
        value = int(value) if value == int(value) else value
    return value


def _listed(value, name):
    """Return a value as one of Python, which JSON keeps."""
    value = value.item() if hasattr(value, "item") else value
    if not isinstance(value, str | int | float):
        raise TypeError(
            f"A store holds values that are text or numbers; {name!r} has {value!r}."
        )
    return value


def write_journal(records, dropped):
    """Return the records of a change in one, with the names of those that go."""
    names = [[name, len(record)] for name, record in records.items()]
    head = to_json({"records": names, "dropped": dropped}).encode()
    content = struct.pack("=q", len(head)) + head + b"".join(records.values())
    return hashlib.blake2b(content, digest_size=16).digest() + content


def read_journal(journal):
    """Return records and dropped names; none of a journal that is not complete."""
    digest, content = journal[:16], journal[16:]
    if hashlib.blake2b(content, digest_size=16).digest() != digest:
        return {}, []
    start = 8 + struct.unpack_from("=q", content)[0]
    head = json.loads(content[8:start])
    ends = accumulate((size for _, size in head["records"]), initial=start)
    names = [name for name, _ in head["records"]]
    parts = (content[first:end] for first, end in pairwise(ends))
    return dict(zip(names, parts, strict=True)), head["dropped"]


def _records(history, prefix, last_change=None):
    """Return all records of a history by their names."""
    state, plan = history._fitted()
    records = {}
    for key, (names, log) in enumerate(zip(plan.keys, state.logs, strict=True)):
        pasts, form = PastsOfKeys(log, plan), RecordForm(plan, key)
        columns = [state.indices[name].values for name in names]
        lists = [(state.indices[e.column].values, e.name) for e in plan.lists_of(key)]
        for place, row in enumerate(log.columns.tolist()):
            values = [own[i] for own, i in zip(columns, row, strict=True)]
            past = pasts[place]
            texts = [
                [_listed(known[i], name) for i in elements]
                for (known, name), elements in zip(lists, past.values, strict=True)
            ]
            name = store_key(prefix, plan.key_names[key], values)
            records[name] = form.write(past, texts)
    of_all = PastsOfKeys(state.everything, plan.of_all)[0]
    records[f"{prefix}:"] = RecordForm(plan.of_all).write(of_all)
    own = {"form": STORE_FORM, "last_change": last_change}
    values = FORM.encode(history._describe() | own, "history")[0]
    return records | {prefix: json.dumps(values).encode()}  # the last one written

"""A state in a key-value store, one record per key and blocks: rows and changes."""

import copy
import json
import math
import os
from base64 import b64decode, b64encode
from bisect import bisect_right
from functools import lru_cache
from itertools import pairwise
from uuid import uuid4

import numpy as np

from sk_pwiser._columns._frames import is_missing
from sk_pwiser._model_files import refusing
from sk_pwiser._utils._checks import check_choice
from sk_pwiser._utils._warnings import warn_user
from sk_pwiser.history import _history_features
from sk_pwiser.history._history_features import HistoryFeatures
from sk_pwiser.history._history_state import ValueIndex, empty_state, refuse_labels
from sk_pwiser.history._key_log import unique_keys
from sk_pwiser.history._one_row import OneRow, PastsOfKeys
from sk_pwiser.history._store_blocks import (
    Tree,
    empty_blocks,
    listed,
    read_record,
    record_name,
    seen,
    to_json,
    write_record,
)
from sk_pwiser.history._store_changes import (
    StoredChanges,
    check_change_id,
    digest_of_call,
    digest_of_rows,
    digest_of_version_0_1,
)

# How often a record is read again whose blocks another process has just replaced.
N_READS = 10


class BlockIsGone(ValueError):
    """Another process has replaced a block since the record above it was read."""


class StoredHistory:
    """Features of the past of single rows, with the state in a key-value store.

    Servers that share a store, such as Redis, need no memory for the state: a row reads
    one record per key. The record of a key with many recent rows has sums of them, and
    the rows are in blocks of less than a kilobyte, of which a row reads those at the
    beginning and at the end of its windows and delays. The values are those of
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
    The totals over all keys, to whose rates others are shrunk, and `end_` are read
    once; `refresh` reads them again. An object keeps the blocks that it has read last.
    Several processes may change a store in turn, but not at the same time.

    A change is written to a journal first, in one record. If the process ends or the
    store fails while the other records are written, the next call of `update` or
    `complete` finishes the change. Repeat the call that failed, at once or after other
    calls: if its change was made, this has no further effect, so that rows are neither
    lost nor counted twice.

    With `change_id`, any object recognises a repeated call by it, and equal rows with
    another `change_id` are new ones. The store knows the last 1,000 identifiers.
    Without it, a call is taken for a repeated one if method, labels and the values of
    all columns of `X` are equal, and

    - the earlier call failed, in any object; the store knows the last 16 such calls; or
    - it was the last one of another object, and made before this object was created,
      as if this object had replaced the other one. The earlier call may have succeeded
      and its process ended before it could note so, or the rows may be new ones that
      are equal. The change is not made, with a warning.

    An object that lives beside another one repeats none of its calls that succeeded. If
    several rows may be equal in all columns, and processes end at any time, pass
    `change_id`, or a column of `X` with the number of the impression.

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
        self.store = store
        self.prefix = prefix
        self.refresh()
        # From the system: no generator of random numbers changes.
        self._token = uuid4().hex
        # Numbers of the last change of any object when this one was created, and of
        # the last change that this one has seen to its end.
        self._n_created = self._content["n_changes"]
        self._n_confirmed = None

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
        store.pop(f"{prefix}:changes", None)
        with refusing(f"store[{prefix!r}]", "holds no valid history"):
            earlier = json.loads(store.get(prefix, b"{}"))
        # Servers may still have blocks of an earlier history with its numbers, and
        # objects numbers of its changes.
        numbers = {name: earlier.get(name, 0) for name in ("n_changes", "next_id")}
        store.update(_records(history, prefix, **numbers))
        return cls(store, prefix=prefix)

    def refresh(self):
        """Read again what the store has about all keys, after another's `update`.

        Returns
        -------
        StoredHistory
            This object.
        """
        with refusing(f"store[{self.prefix!r}]", "holds no valid history"):
            text = self.store.get(self.prefix)
            if text is None:
                raise ValueError("the store has no such key")
            content, plan = _history_features.read_description(json.loads(text))
            state = empty_state(plan, content["classes"])
            state.end, state.has_labels = content["end"], content["has_labels"]
            state.indices = {
                name: ValueIndex([], content["kinds"][name]) for name in plan.columns
            }
            history = HistoryFeatures._of(content, plan, state)
            history._one_row = StoredRow(history, self.store, self.prefix)
        self._history, self._content = history, content
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

    def update(self, X, y=None, *, overlap="error", change_id=None):
        """Append a later period of the log to the records of its keys.

        The cost depends on the number of rows: per key a record is written, and the
        blocks of its last rows. The store bounds the number of its keys, for example
        by their age.

        Parameters
        ----------
        X : table of shape (n_samples, n_features)
            The rows, as for :meth:`~sk_pwiser.history.HistoryFeatures.update`.
        y : array-like of shape (n_samples, n_tasks) or (n_samples,), default=None
            Labels. None if no label is known.
        overlap : {"error", "merge"}, default="error"
            What rows from before the end of the state are.
        change_id : str, default=None
            An identifier of this change alone, such as that of a message. A call with
            the `change_id` of an earlier call of `update` or `complete` repeats it: if
            its change was made, nothing happens. See the notes above for None.

        Returns
        -------
        StoredHistory
            This object.

        Raises
        ------
        ValueError, TypeError
            As in `fit` of the history, and if `change_id` was that of other rows; the
            store is unchanged.

        Warns
        -----
        UserWarning
            If `change_id=None` and the last change of an earlier object is equal, so
            that the call is taken for a repeated one.
        """
        check_choice("overlap", overlap, ("error", "merge"))
        return self._change("update", X, y, change_id, overlap)

    def complete(self, X, y, *, change_id=None):
        """Fill in labels that were not known when their rows were appended.

        Parameters
        ----------
        X : table of shape (n_samples, n_features)
            The rows, as for :meth:`~sk_pwiser.history.HistoryFeatures.complete`.
        y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            The labels that are new. Missing ones change nothing.
        change_id : str, default=None
            An identifier of this change alone, as for `update`.

        Returns
        -------
        StoredHistory
            This object.

        Raises
        ------
        ValueError, TypeError
            As in :meth:`~sk_pwiser.history.HistoryFeatures.complete`, and if
            `change_id` was that of other rows; the store is unchanged.

        Warns
        -----
        UserWarning
            As in `update`.
        """
        if y is None:
            raise TypeError("y must be labels; got None.")
        return self._change("complete", X, y, change_id)

    def _change(self, method, X, y, change_id, overlap="error"):
        """Change the records of the keys of a table."""
        check_change_id(change_id)
        self._finish_change()
        self.refresh()
        history = copy.copy(self._history)
        state, plan = history._fitted()
        rows, table = history._read(X, y, state, plan)
        content = self._content
        changes = self._read_changes()
        if change_id is None:
            digest = digest_of_call(method, table, rows, plan.time)
            is_repeated = self._is_repeated(changes, method, rows, digest)
        else:
            digest = digest_of_rows(method, rows)
            is_repeated = changes.has_id(change_id, digest)
        change = Change(plan, self.prefix, content["next_id"], self._history._one_row)
        if not is_repeated:
            self._add(change, method, rows, history, overlap)
        number = content["n_changes"] + 1
        numbers = {"n_changes": number, "next_id": change.next_id}
        records = change.records | {self.prefix: _description(history, numbers)}
        of_change = self._writer, number, digest, change_id
        # From here on the change will be completed, by the next one if need be. One
        # record has all others, as text, and the names of those that go. If another
        # call completes the change, this one has failed.
        failed = changes.with_change(*of_change, is_confirmed=False).to_bytes()
        in_journal = records | {self._changes: failed}
        texts = {n: b64encode(r).decode() for n, r in in_journal.items()}
        self.store[self._journal] = to_json([texts, change.dropped]).encode()
        confirmed = changes.with_change(*of_change, is_confirmed=True).to_bytes()
        self._write(records | {self._changes: confirmed}, change.dropped)
        self.refresh()
        del self.store[self._journal]
        self._n_confirmed = number
        return self

    def _read_changes(self):
        with refusing(f"store[{self._changes!r}]", "is no valid record of changes"):
            record = self.store.get(self._changes)
            changes = StoredChanges.read(record, self._content)
        changes.settle(self._writer, self._n_confirmed)
        return changes

    def _is_repeated(self, changes, method, rows, digest):
        """Return whether an equal change was made that the caller may repeat."""
        earlier_digest = None
        if changes.of_version_0_1:
            earlier_digest = digest_of_version_0_1(method, rows)
        place = changes.take(digest, self._n_created, earlier_digest)
        if place == "last":
            warn_user(
                f"The store has an equal change ({method}), made last by an earlier "
                "object: the call is taken for a repeated one, and changes nothing. "
                "To tell equal changes apart, pass change_id."
            )
        return place is not None

    def _add(self, change, method, rows, history, overlap):
        """Add rows or labels to a change, and what it says beside keys to a history."""
        state, plan = history._fitted()
        new = state.with_values(rows)
        if method == "update":
            if overlap == "error" or plan.max_age is not None:
                history._refuse_early(rows, state, plan)
            new.end = max([state.end, *rows.time.tolist()])
            change.append(rows, new.end)
        else:
            refuse_labels(*change.complete(rows, state.end), state, plan)
        history._learnt = new, plan

    @property
    def _journal(self):
        return f"{self.prefix}:journal"

    @property
    def _changes(self):
        return f"{self.prefix}:changes"

    @property
    def _writer(self):
        # The object of a process is another writer in each fork of it.
        return f"{self._token}-{os.getpid()}"

    def _finish_change(self):
        """Write the records of a change whose journal is there, once or repeatedly."""
        journal = self.store.get(self._journal)
        if journal is None:
            return
        try:
            texts, dropped = json.loads(journal)
        except ValueError:  # it is not complete, and no record is written
            texts, dropped = {}, []
        self._write({name: b64decode(text) for name, text in texts.items()}, dropped)
        del self.store[self._journal]

    def _write(self, records, dropped):
        self.store.update(records)
        for name in dropped:
            self.store.pop(name, None)

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
        self.store, self.prefix = store, prefix
        state, plan = history._fitted()
        self.plans = plan.of_keys
        self.read_block = lru_cache(maxsize=1024)(self._read_block)
        super().__init__(state, plan)

    def features(self, row):
        for _ in range(N_READS - 1):
            try:
                return super().features(row)
            except BlockIsGone:
                # The records that are read next have others in place of it.
                self.of_all = self.past_of_all()
        return super().features(row)

    def past_of_all(self):
        name = record_name(self.prefix, self.plan_of_all, ())
        return read_record(self.store[name], name)

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

    def read(self, kind, values):
        """Return the name of the record of a key, and its past, None for none."""
        name = record_name(self.prefix, self.plans[kind], values)
        record = None if name is None else self.store.get(name)
        return name, None if record is None else read_record(record, name)

    def _read_block(self, number):
        record = self.store.get(name := f"{self.prefix}:{number}")
        if record is None:
            raise BlockIsGone(f"The store has no {name!r}; write the history again.")
        return read_record(record, name).blocks[0]


class Change:
    """Records that change, and names of those that go.

    Parameters
    ----------
    plan : Plan
        The plan of the history.
    prefix : str
        What the names of the records begin with.
    next_id : int
        The number of the next block.
    stored : StoredRow
        Reads the records of the store, None if it has none.
    """

    def __init__(self, plan, prefix, next_id, stored=None):
        self.prefix, self.next_id = prefix, next_id
        self.stored, self.records, self.dropped = stored, {}, []
        self.plans = plan.of_keys
        self.trees = list(map(self._trees, self.plans))

    def append(self, rows, end):
        """Append rows."""
        for kind, plan in enumerate(self.plans):
            for values, own in _groups(rows, plan.keys[0]):
                name, past = self.stored.read(kind, values)
                blocks = past.blocks if past else empty_blocks(plan)
                if plan.max_age is not None:
                    blocks, own = self._present(plan, blocks, rows, own)
                    if end - rows.time[own[-1]].item() > plan.max_age:
                        self._drop_blocks(blocks)
                        if past is not None:
                            self.dropped.append(name)
                        continue
                added = _events(rows, own) + [
                    _elements(rows, own, each, is_new=True) for each in plan.lists
                ]
                changes = zip(self.trees[kind], blocks, added, strict=True)
                roots = [t.changed(block, new, end=end)[0] for t, block, new in changes]
                self.records[name] = write_record(end, roots)

    def complete(self, rows, end):
        """Fill in labels; return which rows are absent, and which have a label."""
        labels, horizon = rows.labels.values, self.plans[-1].horizon
        is_asked = (labels >= 0).any(axis=1)
        is_absent = is_asked & (rows.time < end - horizon)
        is_asked &= ~is_absent
        is_final = np.zeros(len(labels), dtype=bool)
        for kind, plan in enumerate(self.plans):
            for values, own in _groups(rows, plan.keys[0], is_asked):
                (name, past), found = self.stored.read(kind, values), own[:0]
                if past is not None:
                    found, roots = self._completed(kind, past, rows, own, is_final)
                    self.records[name] = write_record(past.reference, roots)
                # With `max_age`, keys have forgotten rows that the log of all rows has.
                if plan.max_age is None:
                    is_absent[np.setdiff1d(own, found)] = True
        return is_absent, is_final & ~is_absent

    def _completed(self, kind, past, rows, own, is_final):
        """Return rows that a key has, and its sequences after the change."""
        labels, read, blocks = rows.labels.values, self.read_block, past.blocks
        tree, *_ = trees = self.trees[kind]
        has_row = [
            seen(blocks[0], time, time, (), read, bisect_right)[1] == time
            for time in rows.time[own].tolist()
        ]
        found, new = own[np.array(has_row, dtype=bool)], [blocks[0]]
        for k, of_task in enumerate(labels[found].T):
            events, missing = blocks[1 + 2 * k : 3 + 2 * k]
            asked, positive = found[of_task >= 0], found[of_task == 1]
            added = [(time, None) for time in rows.time[positive].tolist()]
            new.append(tree.changed(events, added)[0])
            root, absent = tree.changed(missing, removed=rows.time[asked].tolist())
            new.append(root)
            for i in asked[::-1].tolist():
                if absent and rows.time[i] == absent[-1]:
                    is_final[i] = True
                    absent.pop()
        for i, each in enumerate(self.plans[kind].lists, len(new)):
            elements = _elements(rows, found, each, is_new=False)
            new.append(trees[i].changed(blocks[i], elements)[0])
        return found, new

    def _present(self, plan, blocks, rows, own):
        """Return the blocks and the rows that `max_age` has not ended."""
        _, last, _ = seen(blocks[0], math.inf, 0, (), self.read_block)
        times = rows.time[own]
        before = np.append(times[0] if last is None else last, times[:-1])
        gaps = np.flatnonzero(times - before > plan.max_age)
        if not len(gaps):
            return blocks, own
        self._drop_blocks(blocks)
        return empty_blocks(plan), own[gaps[-1] :]

    def _drop_blocks(self, blocks):
        for block in blocks:
            self.trees[-1][0].drop(block.ids, block.level)

    def _trees(self, plan):
        """Return the `Tree` that changes each sequence of a key."""
        events = Tree(self, plan.horizon, plan.half_lives)
        # Labels come in any order, on which lists do not depend.
        return [events] * (1 + 2 * len(plan.lags)) + [
            Tree(self, each.lag, n_kept=each.n, sorts_values=each.task is not None)
            for each in plan.lists
        ]

    def write_block(self, block):
        """Write a block, and return its number."""
        number, self.next_id = self.next_id, self.next_id + 1
        self.records[f"{self.prefix}:{number}"] = write_record(0, [block])
        return number

    def read_block(self, number):
        name = f"{self.prefix}:{number}"
        record = self.records.get(name)
        if record is None:
            return self.stored.read_block(number)
        return read_record(record, name).blocks[0]

    def drop_block(self, number):
        name = f"{self.prefix}:{number}"
        if self.records.pop(name, None) is None:
            self.dropped.append(name)


def _groups(rows, names, is_chosen=None):
    """Yield the values of each key, and its rows in the order of time."""
    n_rows = len(rows.time)
    ids = [rows.columns[name][0] for name in names]
    ids = np.array(ids, dtype=np.int64).reshape(len(names), n_rows).T
    has_key = (ids >= 0).all(axis=1)
    chosen = np.flatnonzero(has_key if is_chosen is None else has_key & is_chosen)
    distinct, codes = unique_keys(ids[chosen])
    order = np.lexsort([rows.time[chosen], codes])
    ends = np.bincount(codes, minlength=len(distinct)).cumsum()
    bounds = pairwise([0, *ends.tolist()])
    for row, (start, end) in zip(distinct.tolist(), bounds, strict=True):
        values = [rows.columns[name][1][i] for name, i in zip(names, row, strict=True)]
        yield values, chosen[order[start:end]]


def _events(rows, own):
    """Return the events of rows: impressions, and per task labels 1 and missing."""
    times, labels = rows.time[own], rows.labels.values[own]
    chosen = [times]
    for of_task in labels.T:
        chosen += [times[of_task == 1], times[of_task < 0]]
    return [[(time, None) for time in each.tolist()] for each in chosen]


def _elements(rows, own, each, is_new):
    """Return the elements of a list, those of new rows or of new labels."""
    indices, values = rows.columns[each.column]
    is_element = indices[own] >= 0
    if each.task is not None:
        is_element &= rows.labels.values[own, each.task] == 1
    elif not is_new:
        is_element[:] = False
    own = own[is_element]
    return [
        (time, listed(values[i], each.name))
        for time, i in zip(rows.time[own].tolist(), indices[own].tolist(), strict=True)
    ]


def _description(history, numbers):
    """Return the record of what is known beside the keys."""
    content = history._describe() | numbers | {"has_labels": history._state.has_labels}
    values, _ = _history_features.FORM.encode(content, "history")
    return json.dumps(values).encode()


def _records(history, prefix, n_changes, next_id):
    """Return all records of a history by their names."""
    state, plan = history._fitted()
    state = state.whole(plan)
    change = Change(plan, prefix, next_id)
    for kind, (log, of_key) in enumerate(state.logs_and_plans(plan)):
        pasts = PastsOfKeys(log, of_key)
        columns = [state.indices[name].values for name in of_key.keys[0]]
        lists = [(state.indices[e.column].values, e.name) for e in of_key.lists]
        for place, row in enumerate(log.columns.tolist()):
            values = [own[i] for own, i in zip(columns, row, strict=True)]
            past = pasts[place]
            for i, (known, name) in enumerate(lists, -len(lists)):
                block = past.blocks[i]
                texts = [listed(known[element], name) for element in block.values]
                past.blocks[i] = block._replace(values=texts)
            pairs = zip(change.trees[kind], past.blocks, strict=True)
            roots = [tree.root(block) for tree, block in pairs]
            name = record_name(prefix, of_key, values)
            change.records[name] = write_record(past.reference or 0, roots)
    numbers = {"n_changes": n_changes, "next_id": change.next_id}
    # The last one written.
    return change.records | {prefix: _description(history, numbers)}

"""Single rows from a state in a key-value store: one record per key, and blocks."""

import copy
import json
from functools import lru_cache

import joblib
import numpy as np

from sk_pwiser._table._frames import is_missing
from sk_pwiser._utils import check_choice
from sk_pwiser.history._history_features import (
    FORM,
    HistoryFeatures,
    read_description,
    valid_history,
)
from sk_pwiser.history._history_state import ValueIndex, empty_state, refuse_labels
from sk_pwiser.history._one_row import OneRow, PastsOfKeys
from sk_pwiser.history._store_records import (
    BlockIsGone,
    Change,
    RecordForm,
    listed,
    read_block,
    read_journal,
    store_key,
    write_journal,
)

# The form of a store. A store of form 2 had one record per key, of any size.
STORE_FORM = 3
# Of changes that were made, but whose callers may repeat them, so many are known.
N_UNCONFIRMED = 16
# How often a record is read again whose blocks another process has just replaced.
N_READS = 10


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
    One process at a time may change a store.

    A change is written to a journal first, in one record. If the process ends or the
    store fails while the other records are written, the next call of `update` or
    `complete` finishes the change. Repeat the call that failed, at once or after other
    calls, with this object or a new one: if its change was made, this has no further
    effect, so that rows are neither lost nor counted twice. The same holds for the last
    change before an object was created, which the new process may not know of. The last
    16 of such changes are known, each until it is repeated.

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

    # The number of the last change that this object has seen to its end.
    _n_confirmed = None

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
        with valid_history(f"store[{prefix!r}]"):
            # Servers may still have blocks of an earlier history with these numbers.
            earlier = json.loads(store.get(prefix, b"{}")).get("next_id", 0)
        store.update(_records(history, prefix, earlier))
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
            state = empty_state(plan, content["classes"])
            state.end = content["end"]
            state.everything = _known(state, content["has_labels"])
            state.indices = {
                name: ValueIndex([], content["kinds"][name]) for name in plan.columns
            }
            history = HistoryFeatures._of(content, plan, state)
            history._one_row = StoredRow(history, self.store, self.prefix)
        self._history, self._last_change = history, content["last_change"]
        self._n_changes = content.get("n_changes", 0)
        self._unconfirmed = content.get("unconfirmed", [])
        self._next_id = content["next_id"]
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

        Returns
        -------
        StoredHistory
            This object.

        Raises
        ------
        ValueError, TypeError
            As in `fit` of the history; the store is unchanged.
        """
        check_choice("overlap", overlap, ("error", "merge"))
        return self._change("update", X, y, overlap)

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
        if y is None:
            raise TypeError("y must be labels; got None.")
        return self._change("complete", X, y)

    def _change(self, method, X, y, overlap="error"):
        """Change the records of the keys of a table."""
        self._finish_change()
        self.refresh()
        history = copy.copy(self._history)
        state, plan = history._fitted()
        rows, _ = history._read(X, y, state, plan)
        read_block = self._history._one_row.read_block
        change = Change(plan, self.prefix, read_block, self._next_id)
        digest = joblib.hash((method, rows.columns, rows.time, rows.labels.values))
        unconfirmed = self._unconfirmed
        if self._n_changes != self._n_confirmed:
            unconfirmed = [*unconfirmed, self._last_change]
        # After an error or a restart, the caller may repeat a change that was made.
        if digest not in unconfirmed:
            self._add(change, method, rows, history, overlap)
        others = [each for each in unconfirmed if each not in (digest, None)]
        own = {
            "last_change": digest,
            "n_changes": self._n_changes + 1,
            "unconfirmed": others[-N_UNCONFIRMED:],
            "next_id": change.next_id,
        }
        change.records[self.prefix] = _description(history, own)
        # From here on the change will be completed, by the next one if need be.
        self.store[self._journal] = write_journal(change.records, change.dropped)
        self._finish_change()
        self.refresh()
        self._n_confirmed = self._n_changes
        return self

    def _add(self, change, method, rows, history, overlap):
        """Add rows or labels to a change, and what it says beside keys to a history."""
        (state, plan), read = history._fitted(), self._history._one_row.read
        new = state.with_values(rows)
        if method == "update":
            if overlap == "error" or plan.max_age is not None:
                history._refuse_early(rows, state, plan)
            new.end = max([state.end, *rows.time.tolist()])
            change.append(rows, new.end, read)
        else:
            refuse_labels(*change.complete(rows, state.end, read), state, plan)
        has_labels = state.has_labels or bool((rows.labels.values >= 0).any())
        new.everything = _known(state, has_labels)
        history._learnt = new, plan

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
        self.store, self.prefix = store, prefix
        state, plan = history._fitted()
        self.forms = [RecordForm(plan, key) for key in range(len(plan.keys))]
        self.form_of_all = RecordForm(plan.of_all)
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
        name = f"{self.prefix}:"
        return self.form_of_all.read(self.store[name], name)

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
        """Return the name of the record of a key, and its past, None for none.

        Without a key, they are those of all rows.
        """
        if key is None:
            return f"{self.prefix}:", self.past_of_all()
        name = store_key(self.prefix, self.plan.key_names[key], values)
        record = None if name is None else self.store.get(name)
        return name, None if record is None else self.forms[key].read(record, name)

    def _read_block(self, number):
        record = self.store.get(name := f"{self.prefix}:{number}")
        if record is None:
            raise BlockIsGone(f"The store has no {name!r}; write the history again.")
        return read_block(record, name)


def _known(state, has_labels):
    """Return a log of all rows, in memory, from which only `has_labels` is read."""
    return state.everything.replaced(totals={"known": np.array([has_labels])})


def _description(history, own):
    """Return the record of what is known beside the keys."""
    content = history._describe() | {"has_labels": history._state.has_labels}
    values = FORM.encode(content | {"form": STORE_FORM} | own, "history")[0]
    return json.dumps(values).encode()


def _records(history, prefix, next_id):
    """Return all records of a history by their names."""
    state, plan = history._fitted()
    state = state.whole(plan)
    change = Change(plan, prefix, next_id=next_id)
    for key, (names, log) in enumerate(zip(plan.keys, state.logs, strict=True)):
        pasts = PastsOfKeys(log, plan)
        columns = [state.indices[name].values for name in names]
        lists = [(state.indices[e.column].values, e.name) for e in plan.lists_of(key)]
        for place, row in enumerate(log.columns.tolist()):
            values = [own[i] for own, i in zip(columns, row, strict=True)]
            past = pasts[place]
            for i, (known, name) in enumerate(lists, -len(lists)):
                block = past.blocks[i]
                texts = [listed(known[element], name) for element in block.values]
                past.blocks[i] = block._replace(values=texts)
            change.write_all(key, store_key(prefix, plan.key_names[key], values), past)
    of_all = PastsOfKeys(state.everything, plan.of_all)
    change.write_all(None, change.name_of_all, of_all[0])
    own = {"last_change": None, "next_id": change.next_id}
    return change.records | {prefix: _description(history, own)}  # the last one written

"""A state in a key-value store, one record per key and blocks: rows and changes."""

import copy
import json
import math
import os
from base64 import b64decode, b64encode
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise
from typing import Any, Literal, Self
from uuid import uuid4

import numpy as np

from sk_pwiser._columns._frames import is_missing
from sk_pwiser._model_files import refusing
from sk_pwiser._utils._checks import check_choice
from sk_pwiser._utils._warnings import warn_user
from sk_pwiser.history import _history_features
from sk_pwiser.history._history_features import HistoryFeatures
from sk_pwiser.history._history_state import (
    Rows,
    ValueIndex,
    empty_state,
    refuse_labels,
)
from sk_pwiser.history._key_log import Array, unique_keys
from sk_pwiser.history._one_row import OneRow, PastsOfKeys
from sk_pwiser.history._plan import ListPlan, Plan
from sk_pwiser.history._store_blocks import (
    NUMBER_BYTES,
    AmountTree,
    Block,
    KeyPast,
    ReadBlock,
    Tree,
    all_rows_record_name,
    check_blocks,
    empty_blocks,
    listed,
    read_record,
    record_name,
    seen,
    to_json,
    widths_of_blocks,
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


class OtherSettingsError(ValueError):
    """A record was written with other settings than those that its reader has."""


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
    An object refuses a store that is being written, or whose writing ended half-way,
    and records that were written with other settings than it has read.

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

    def __init__(
        self, store: MutableMapping[str, bytes], *, prefix: str = "history"
    ) -> None:
        self.store = store
        self.prefix = prefix
        self.refresh()
        # From the system: no generator of random numbers changes.
        self._token = uuid4().hex
        # Numbers of the last change of any object when this one was created, and of
        # the last change that this one has seen to its end.
        self._n_created: int = self._content["n_changes"]
        self._n_confirmed: int | None = None

    @classmethod
    def write(
        cls,
        history: HistoryFeatures,
        store: MutableMapping[str, bytes],
        *,
        prefix: str = "history",
    ) -> Self:
        """Write the state of a history to a store.

        Records of other keys stay; clear a store that has another history, or take
        another prefix, which servers may use until the new one is complete. A store
        that fails half-way has no history until it is written again.

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
        with refusing(
            f"store[{prefix!r}]",
            "holds no valid history; clear the store, or take another prefix",
        ):
            former_content = json.loads(store.get(prefix, b"{}"))
        # Servers may still have blocks of an earlier history with its numbers, and
        # objects numbers of its changes.
        n_changes = former_content.get("n_changes", 0)
        records, next_id = _records(
            history, prefix, next_id=former_content.get("next_id", 0)
        )
        numbers = {"n_changes": n_changes, "next_id": next_id}
        # Until the last record is written, the store has no history: rows that its
        # records have already would be appended once more. The journal of another
        # history goes after this mark, without which it is still needed.
        store[prefix] = _mark_of_incomplete_store(numbers)
        store.pop(f"{prefix}:journal", None)
        store.pop(f"{prefix}:changes", None)
        store.update(records)
        store[prefix] = _description(history, numbers)
        return cls(store, prefix=prefix)

    def refresh(self) -> Self:
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
            values = json.loads(text)
            if _is_incomplete(values):
                raise ValueError(
                    "it is being written, or its writing ended half-way; if no process "
                    "writes it, write the history again"
                )
            content, plan = _history_features.read_description(values)
            state = empty_state(plan, content["classes"])
            state.end = content["end"]
            state.has_labels = content["has_labels"]
            state.indices = {
                name: ValueIndex([], content["kinds"][name]) for name in plan.columns
            }
            history = HistoryFeatures._of(content, plan, state)
            history._one_row = StoredRow(history, self.store, self.prefix)
        self._history = history
        self._content = content
        return self

    def transform_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
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

    def update(
        self,
        X: Any,
        y: Any = None,
        *,
        overlap: Literal["error", "merge"] = "error",
        change_id: str | None = None,
    ) -> Self:
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
        return self._change("update", X, y, change_id=change_id, overlap=overlap)

    def complete(self, X: Any, y: Any, *, change_id: str | None = None) -> Self:
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
        return self._change("complete", X, y, change_id=change_id)

    def _change(
        self,
        method: Literal["update", "complete"],
        X: Any,
        y: Any,
        *,
        change_id: str | None,
        overlap: str = "error",
    ) -> Self:
        """Change the records of the keys of a table."""
        check_change_id(change_id)
        self._finish_change()
        self.refresh()
        history = copy.copy(self._history)
        state, plan = history._fitted()
        is_completion = method == "complete"
        rows, table = history._read(X, y, state, plan, is_completion=is_completion)
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
        # If another call completes the change, from its journal, this one has failed.
        failed = changes.with_change(
            self._writer, number, digest, change_id, is_confirmed=False
        )
        confirmed = changes.with_change(
            self._writer, number, digest, change_id, is_confirmed=True
        )
        # From here on the change will be completed, by the next one if need be. One
        # record has all others, as text, and the names of those that go.
        in_journal = records | {self._changes: failed.to_bytes()}
        texts = {
            name: b64encode(record).decode() for name, record in in_journal.items()
        }
        self.store[self._journal] = to_json([texts, change.dropped]).encode()
        self._write(records | {self._changes: confirmed.to_bytes()}, change.dropped)
        self.refresh()
        del self.store[self._journal]
        self._n_confirmed = number
        return self

    def _read_changes(self) -> StoredChanges:
        with refusing(f"store[{self._changes!r}]", "is no valid record of changes"):
            record = self.store.get(self._changes)
            changes = StoredChanges.read(record, self._content)
        changes.settle(self._writer, self._n_confirmed)
        return changes

    def _is_repeated(
        self, changes: StoredChanges, method: str, rows: Rows, digest: str
    ) -> bool:
        """Return whether an equal change was made that the caller may repeat."""
        version_0_1_digest = None
        if changes.version_0_1_digests:
            version_0_1_digest = digest_of_version_0_1(method, rows)
        place = changes.take(digest, self._n_created, version_0_1_digest)
        if place == "last":
            warn_user(
                f"The store has an equal change ({method}), made last by an earlier "
                "object: the call is taken for a repeated one, and changes nothing. "
                "To tell equal changes apart, pass change_id."
            )
        return place is not None

    def _add(
        self,
        change: "Change",
        method: str,
        rows: Rows,
        history: HistoryFeatures,
        overlap: str,
    ) -> None:
        """Add rows or labels to a change, and what it says beside keys to a history."""
        state, plan = history._fitted()
        new = state.with_values(rows)
        if method == "update":
            if overlap == "error" or plan.max_age is not None:
                history._refuse_early(rows, state, plan)
            new.end = max([state.end, *rows.time.tolist()])
            change.append(rows, new.end)
        else:
            is_absent, is_final = change.complete(rows, state.end)
            refuse_labels(is_absent, is_final, state, plan)
        history._learnt = new, plan

    @property
    def _journal(self) -> str:
        return f"{self.prefix}:journal"

    @property
    def _changes(self) -> str:
        return f"{self.prefix}:changes"

    @property
    def _writer(self) -> str:
        # The object of a process is another writer in each fork of it.
        return f"{self._token}-{os.getpid()}"

    def _finish_change(self) -> None:
        """Write the records of a change whose journal is there, once or repeatedly."""
        journal = self.store.get(self._journal)
        if journal is None:
            return
        try:
            is_incomplete = _is_incomplete(json.loads(self.store.get(self.prefix, b"")))
        except ValueError:  # the record is damaged, and the journal may have another
            is_incomplete = False
        if is_incomplete:  # the journal is of the history before
            return
        try:
            texts, dropped = json.loads(journal)
        except ValueError:  # it is not complete, and no record is written
            texts = {}
            dropped = []
        self._write({name: b64decode(text) for name, text in texts.items()}, dropped)
        del self.store[self._journal]

    def _write(self, records: Mapping[str, bytes], dropped: Iterable[str]) -> None:
        self.store.update(records)
        for name in dropped:
            self.store.pop(name, None)

    def __getstate__(self) -> dict[str, Any]:
        return {"store": self.store, "prefix": self.prefix}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @property
    def end_(self) -> Any:
        """Time of the last row, as of the last `refresh` or `update`."""
        return self._history.end_


class StoredRow(OneRow):
    """The new columns of single rows, whose keys are looked up in a store."""

    read_block: ReadBlock

    def __init__(
        self, history: HistoryFeatures, store: MutableMapping[str, bytes], prefix: str
    ) -> None:
        self.store = store
        self.prefix = prefix
        state, plan = history._fitted()
        self.plans = plan.key_plans
        self.settings = number_of_settings(plan)
        self.widths = [widths_of_blocks(key_plan) for key_plan in self.plans]
        self.read_block = lru_cache(maxsize=1024)(self._read_block)
        super().__init__(state, plan)

    def features(self, row: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        for _ in range(N_READS - 1):
            try:
                return super().features(row)
            except BlockIsGone:
                # The records that are read next have others in place of it.
                self.all_rows_past = self.read_all_rows_past()
        return super().features(row)

    def read_all_rows_past(self) -> KeyPast:
        name = all_rows_record_name(self.prefix)
        # The key of all rows is the last one.
        return self._read_past(-1, name, self.store[name])

    def values_of(self, column: str, elements: Sequence[Any]) -> Sequence[Any]:
        return elements

    def look_up(
        self, key: int, names: Sequence[str], row: Mapping[str, Any]
    ) -> KeyPast | None:
        """Return the past of the key of a row, None for none."""
        values = [self.key_field(row, name) for name in names]
        _, past = self.read(key, values)
        if past is None:
            for name, value in zip(names, values, strict=True):
                if not is_missing(value):
                    self.state.indices[name].check_kinds([value], name)
        return past

    def read(
        self, key: int, values: Sequence[Any]
    ) -> tuple[str | None, KeyPast | None]:
        """Return the name of the record of a key, and its past, None for none."""
        name = record_name(self.prefix, self.plans[key], values)
        if name is None:
            return None, None
        record = self.store.get(name)
        if record is None:
            return name, None
        try:
            return name, self._read_past(key, name, record)
        except OtherSettingsError:
            if self._is_current():
                # An earlier history of the store had this key, the present one has not.
                return name, None
            raise

    def _read_past(self, key: int, name: str, record: bytes) -> KeyPast:
        past = read_record(record, name)
        if past.settings not in (None, self.settings):
            raise OtherSettingsError(
                f"store[{name!r}] was written with other settings than those that this "
                f"object has read from store[{self.prefix!r}]: another process has "
                "written the history again, or is writing it. Call refresh() when it "
                "has ended."
            )
        check_blocks(past, name, self.widths[key])
        return past

    def _is_current(self) -> bool:
        """Return whether the history of the store still has these settings."""
        with refusing(f"store[{self.prefix!r}]", "holds no valid history"):
            values = json.loads(self.store[self.prefix])
            if _is_incomplete(values):
                return False
            _, plan = _history_features.read_description(values)
        return number_of_settings(plan) == self.settings

    def _read_block(self, number: int) -> Block:
        name = f"{self.prefix}:{number}"
        record = self.store.get(name)
        if record is None:
            raise BlockIsGone(f"The store has no {name!r}; write the history again.")
        past = read_record(record, name)
        if len(past.blocks) != 1:
            raise ValueError(f"store[{name!r}] is no valid record of a block.")
        return past.blocks[0]


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

    def __init__(
        self, plan: Plan, prefix: str, next_id: int, stored: StoredRow | None = None
    ) -> None:
        self.prefix = prefix
        self.next_id = next_id
        self.stored = stored
        self.records: dict[str, bytes] = {}
        self.dropped: list[str] = []
        self.plans = plan.key_plans
        self.settings = number_of_settings(plan)
        self.trees = [self._trees(key_plan) for key_plan in self.plans]

    def append(self, rows: Rows, end: Any) -> None:
        """Append rows."""
        for key, plan in enumerate(self.plans):
            for values, key_rows in _groups(rows, plan.keys[0]):
                name, past = self._read(key, values)
                blocks = past.blocks if past else empty_blocks(plan)
                if plan.max_age is not None:
                    blocks, key_rows = self._present(plan, blocks, rows, key_rows)
                    last = rows.time[key_rows[-1]].item()
                    if end - last > plan.max_age:
                        self._drop_blocks(blocks)
                        if past is not None:
                            self.dropped.append(name)
                        continue
                events = _events(rows, key_rows) + _known_amounts(rows, key_rows)
                elements = [
                    _elements(rows, key_rows, list_plan, is_new=True)
                    for list_plan in plan.lists
                ]
                roots = []
                for tree, block, added in zip(
                    self.trees[key], blocks, events + elements, strict=True
                ):
                    root, _ = tree.changed(block, added, end=end)
                    roots.append(root)
                self.records[name] = write_record(end, roots, self.settings)

    def complete(self, rows: Rows, end: Any) -> tuple[Array, Array]:
        """Fill in labels; return which rows are absent, and which have a label."""
        labels = rows.labels.values
        horizon = self.plans[-1].horizon
        is_asked = (labels >= 0).any(axis=1)
        is_absent = is_asked & (rows.time < end - horizon)
        is_asked &= ~is_absent
        is_final = np.zeros(len(labels), dtype=bool)
        for key, plan in enumerate(self.plans):
            for values, key_rows in _groups(rows, plan.keys[0], is_asked):
                name, past = self._read(key, values)
                stored_rows = key_rows[:0]
                if past is not None:
                    stored_rows = key_rows[self._has_rows(past, rows.time[key_rows])]
                    roots = self._completed(key, past, rows, stored_rows, is_final)
                    self.records[name] = write_record(
                        past.reference, roots, self.settings
                    )
                # With `max_age`, keys have forgotten rows that the log of all rows has.
                if plan.max_age is None:
                    is_absent[np.setdiff1d(key_rows, stored_rows)] = True
        return is_absent, is_final & ~is_absent

    def _read(self, key: int, values: Sequence[Any]) -> tuple[str, KeyPast | None]:
        """Return the name of the record of a key without missing values, and its past.

        The past is None if the store has no such record.
        """
        assert self.stored is not None
        name, past = self.stored.read(key, values)
        assert name is not None
        return name, past

    def _has_rows(self, past: KeyPast, times: Array) -> Array:
        """Return whether a key has rows of these times."""
        has_row = []
        for time in times.tolist():
            _, last, _ = seen(
                past.blocks[0], time, time, (), self.read_block, search=bisect_right
            )
            has_row.append(last == time)
        return np.array(has_row, dtype=bool)

    def _completed(
        self, key: int, past: KeyPast, rows: Rows, stored_rows: Array, is_final: Array
    ) -> list[Block]:
        """Return the sequences of a key after labels of some of its rows.

        Rows that have their label already are marked in `is_final`.
        """
        trees = self.trees[key]
        blocks = past.blocks
        event_tree = trees[0]
        roots = [blocks[0]]
        for k, task_labels in enumerate(rows.labels.values[stored_rows].T):
            event_block = blocks[1 + 2 * k]
            positive = stored_rows[task_labels == 1]
            added = [(time, None) for time in rows.time[positive].tolist()]
            event_root, _ = event_tree.changed(event_block, added)
            missing_block = blocks[2 + 2 * k]
            asked = stored_rows[task_labels >= 0]
            missing_root, absent = event_tree.changed(
                missing_block, removed=rows.time[asked].tolist()
            )
            roots += [event_root, missing_root]
            for row in asked[::-1].tolist():
                if absent and rows.time[row] == absent[-1]:
                    is_final[row] = True
                    absent.pop()
        for i, amounts in enumerate(_known_amounts(rows, stored_rows), len(roots)):
            amount_root, _ = trees[i].changed(blocks[i], amounts)
            roots.append(amount_root)
        for i, list_plan in enumerate(self.plans[key].lists, len(roots)):
            elements = _elements(rows, stored_rows, list_plan, is_new=False)
            list_root, _ = trees[i].changed(blocks[i], elements)
            roots.append(list_root)
        return roots

    def _present(
        self, plan: Plan, blocks: list[Block], rows: Rows, key_rows: Array
    ) -> tuple[list[Block], Array]:
        """Return the blocks and the rows that `max_age` has not ended."""
        _, last, _ = seen(blocks[0], math.inf, 0, (), self.read_block)
        times = rows.time[key_rows]
        times_before = np.append(times[0] if last is None else last, times[:-1])
        gaps = np.flatnonzero(times - times_before > plan.max_age)
        if not len(gaps):
            return blocks, key_rows
        self._drop_blocks(blocks)
        return empty_blocks(plan), key_rows[gaps[-1] :]

    def _drop_blocks(self, blocks: Iterable[Block]) -> None:
        for block in blocks:
            self.trees[-1][0].drop(block.ids, block.level)

    def _trees(self, plan: Plan) -> list[Tree]:
        """Return the `Tree` that changes each sequence of a key."""
        events = Tree(self, plan.horizon, plan.half_lives)
        lists = [
            Tree(
                self,
                list_plan.lag,
                n_kept=list_plan.n,
                # Labels come in any order, on which lists do not depend.
                sorts_values=list_plan.task is not None,
            )
            for list_plan in plan.lists
        ]
        amounts = AmountTree(self, plan.horizon, plan.amount_half_lives)
        n_values = len(plan.values)
        return [events] * plan.first_value_block + [amounts] * n_values + lists

    def write_block(self, block: Block) -> int:
        """Write a block, and return its number."""
        number = self.next_id
        self.next_id += 1
        self.records[f"{self.prefix}:{number}"] = write_record(
            0, [block], self.settings
        )
        return number

    def read_block(self, number: int) -> Block:
        name = f"{self.prefix}:{number}"
        record = self.records.get(name)
        if record is not None:
            return read_record(record, name).blocks[0]
        assert self.stored is not None
        return self.stored.read_block(number)

    def drop_block(self, number: int) -> None:
        name = f"{self.prefix}:{number}"
        if self.records.pop(name, None) is None:
            self.dropped.append(name)


def _groups(
    rows: Rows, names: Sequence[str], is_chosen: Array | None = None
) -> Iterator[tuple[list[Any], Array]]:
    """Yield the values of each key, and its rows in the order of time."""
    n_rows = len(rows.time)
    indices_and_values = [rows.columns[name] for name in names]
    indices = [indices for indices, _ in indices_and_values]
    ids = np.array(indices, dtype=np.int64).reshape(len(names), n_rows).T
    has_key = (ids >= 0).all(axis=1)
    chosen = np.flatnonzero(has_key if is_chosen is None else has_key & is_chosen)
    distinct, codes = unique_keys(ids[chosen])
    order = np.lexsort([rows.time[chosen], codes])
    ends = np.bincount(codes, minlength=len(distinct)).cumsum()
    bounds = pairwise([0, *ends.tolist()])
    for key, (start, end) in zip(distinct.tolist(), bounds, strict=True):
        key_values = [
            values[i] for i, (_, values) in zip(key, indices_and_values, strict=True)
        ]
        yield key_values, chosen[order[start:end]]


# Events in the order of time, each with its value, if it is an element of a list.
Events = list[tuple[float, Any]]


def _events(rows: Rows, key_rows: Array) -> list[Events]:
    """Return the events of rows: impressions, and per task labels 1 and missing."""
    times = rows.time[key_rows]
    times_of_sequences = [times]
    for task_labels in rows.labels.values[key_rows].T:
        times_of_sequences += [times[task_labels == 1], times[task_labels < 0]]
    return [
        [(time, None) for time in event_times.tolist()]
        for event_times in times_of_sequences
    ]


def _known_amounts(rows: Rows, key_rows: Array) -> list[Events]:
    """Return, per value, the events of rows whose amounts are known."""
    times = rows.time[key_rows]
    events = []
    for amounts in rows.labels.amounts[key_rows].T:
        is_known = ~np.isnan(amounts)
        pairs = zip(times[is_known].tolist(), amounts[is_known].tolist(), strict=True)
        events.append(list(pairs))
    return events


def _elements(
    rows: Rows, key_rows: Array, list_plan: ListPlan, *, is_new: bool
) -> Events:
    """Return the elements of a list, those of new rows or of new labels."""
    indices, values = rows.columns[list_plan.column]
    is_element = indices[key_rows] >= 0
    if list_plan.task is not None:
        is_element &= rows.labels.values[key_rows, list_plan.task] == 1
    elif not is_new:
        is_element[:] = False
    element_rows = key_rows[is_element]
    times = rows.time[element_rows].tolist()
    places = indices[element_rows].tolist()
    return [
        (time, listed(values[place], list_plan.name))
        for time, place in zip(times, places, strict=True)
    ]


def number_of_settings(plan: Plan) -> int:
    """Return a number of what the records of a history depend on, of 8 bytes."""
    settings = [plan.params, plan.kind, plan.task_names]
    values, _ = _history_features.FORM.encode(settings, "settings")
    text = json.dumps(values, sort_keys=True)
    digest = blake2b(text.encode(), digest_size=NUMBER_BYTES)
    return int.from_bytes(digest.digest(), "little")


def _mark_of_incomplete_store(numbers: dict[str, int]) -> bytes:
    """Return what stands for the description while the other records are written."""
    return to_json({"is_incomplete": True} | numbers).encode()


def _is_incomplete(content: Mapping[str, Any]) -> bool:
    return bool(content.get("is_incomplete"))


def _description(history: HistoryFeatures, numbers: dict[str, int]) -> bytes:
    """Return the record of what is known beside the keys."""
    content = history._describe() | numbers
    content["has_labels"] = history._state.has_labels
    values, _ = _history_features.FORM.encode(content, "history")
    return json.dumps(values).encode()


def _records(
    history: HistoryFeatures, prefix: str, *, next_id: int
) -> tuple[dict[str, bytes], int]:
    """Return the records of all keys by their names, and the number of the next block.

    `next_id` is the number of the first block.
    """
    state, plan = history._fitted()
    state = state.whole(plan)
    change = Change(plan, prefix, next_id)
    for key, (log, key_plan) in enumerate(state.logs_and_plans(plan)):
        pasts = PastsOfKeys(log, key_plan)
        columns = [state.indices[name].values for name in key_plan.keys[0]]
        list_values = [
            state.indices[list_plan.column].values for list_plan in key_plan.lists
        ]
        first_list = plan.first_list_block
        for place, value_places in enumerate(log.columns.tolist()):
            past = pasts[place]
            for i, list_plan in enumerate(key_plan.lists):
                block = past.blocks[first_list + i]
                elements = [
                    listed(list_values[i][element], list_plan.name)
                    for element in block.values or []
                ]
                past.blocks[first_list + i] = block._replace(values=elements)
            roots = [
                tree.root(block)
                for tree, block in zip(change.trees[key], past.blocks, strict=True)
            ]
            key_values = [
                values[i] for values, i in zip(columns, value_places, strict=True)
            ]
            name = record_name(prefix, key_plan, key_values)
            assert name is not None  # a key of the state has no missing value
            change.records[name] = write_record(
                past.reference or 0, roots, change.settings
            )
    return change.records, change.next_id

"""The state of a history: the logs of all keys, and the values of their columns."""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from typing import Any, NamedTuple

import numpy as np

from sk_pwiser._columns import _factorize, _value_kinds
from sk_pwiser._columns._frames import selectable
from sk_pwiser._tasks import _amounts, _labels
from sk_pwiser._tasks._row_match import check_match
from sk_pwiser.history import _key_log
from sk_pwiser.history._history_tables import Table
from sk_pwiser.history._key_log import Array, KeyLog, Past, RowsOfKeys, Slices
from sk_pwiser.history._plan import ListPlan, Plan


class Labels(NamedTuple):
    """Labels of rows: int8 (n_samples, n_tasks), -1 if missing."""

    values: Array
    names: list[str]
    classes: list[Any] | None  # of a single task, if its labels are not 0 and 1
    amounts: Array  # (n_samples, n_values), NaN without an event or where it is missing


def read_history_labels(
    y: Any,
    table: Table,
    names: list[str] | None = None,
    classes: list[Any] | None = None,
    *,
    values: Mapping[Any, Any] | None = None,
    is_completion: bool = False,
) -> Labels:
    """Read labels, of which any may be missing, for the tasks of `names` if given.

    `values` maps the columns of amounts to tasks. In a completion, an amount without
    the label of its task is an error: it would be lost.
    """
    n_rows = table.n_rows
    y = selectable(y)
    if y is None or (names is not None and n_rows == len(y) == 0):
        names = names or []
        no_labels = np.full((n_rows, len(names)), -1, dtype=np.int8)
        no_amounts = np.full((n_rows, len(values or ()) if names else 0), np.nan)
        return Labels(no_labels, names, None, no_amounts)
    amount_columns: list[Any] = []
    value_names: tuple[str, ...] = ()
    if values:
        y, amount_columns, value_names = _amounts.split_columns(
            y, values, _labels.names_of_columns(y), parameter="values", input_name="y"
        )
    labels, missing, columns = _labels.read_labels(y, "ignore", input_name="y")
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
    is_known = np.ones(labels.shape, dtype=bool)
    if missing is not None:
        is_known = ~missing.reshape(labels.shape)
    events, classes = _zero_one(labels, is_known, columns, classes)
    learnt_values = _amounts.find_values(values, value_names, names, parameter="values")
    amounts = _amounts.read_amounts(
        amount_columns,
        learnt_values,
        events,
        ~is_known,
        parameter="values",
        input_name="y",
    )
    if is_completion:
        _refuse_early_amounts(amount_columns, learnt_values, names, is_known)
    zero_one = np.where(is_known, events, -1).astype(np.int8)
    return Labels(zero_one, names, classes, amounts)


def _refuse_early_amounts(
    columns: Sequence[Any],
    values: _amounts.Values,
    task_names: Sequence[str],
    is_known: Array,
) -> None:
    """Raise if a row has an amount, but no label of the task of its value."""
    for column, name, task in zip(columns, values.names, values.parents, strict=True):
        amounts = _amounts.read_column(column, f"column {name!r} of y")
        is_early = ~is_known[:, task] & ~np.isnan(amounts)
        if is_early.any():
            row = int(is_early.argmax())
            raise ValueError(
                f"An amount is filled in together with its event: column {name!r} of y "
                f"contains {amounts[row]:g} in row {row}, where the label of "
                f"{task_names[task]!r} is missing. Pass both at once."
            )


def _zero_one(
    labels: Array,
    is_known: Array,
    columns: list[str] | None,
    classes: list[Any] | None,
) -> tuple[Array, list[Any] | None]:
    """Return labels as 0 and 1, and the classes if these are two other values."""
    known_labels = labels[is_known]
    is_single = labels.shape[1] == 1
    may_be_zero_one = classes in (None, [0, 1])
    if not is_single or (may_be_zero_one and np.isin(known_labels, [0, 1]).all()):
        return _labels.zero_one_labels(labels, columns, input_name="y"), None
    if classes is None and len(distinct := set(known_labels.tolist())) == 1:
        raise ValueError(
            f"y contains only the label {distinct.pop()!r}, so that it is not known if "
            "it is the event. Pass 0 and 1, or begin with rows of both labels."
        )
    zero_one, both_classes = _labels.one_task_labels(
        known_labels, columns, None if classes is None else np.array(classes)
    )
    values = np.zeros(labels.shape, dtype=np.float32)
    values[is_known] = zero_one[:, 0]
    return values, np.asarray(both_classes).tolist()


class ValueIndex:
    """The distinct values of a column, each with its place.

    Indices that grow out of each other share a list and a dict of places, which may
    have entries of a later one behind the `size` of an earlier one. `kinds` are text,
    numbers or other objects, and kinds of `LARGE` numbers; `earlier_kinds` are those of
    values that are not here: in a store, or dropped.
    """

    def __init__(self, values: list[Any], earlier_kinds: Iterable[str] = ()) -> None:
        self.all_values: list[Any] = []
        self.all_places: dict[Any, int] = {}
        self.size = 0
        self.kinds = set(earlier_kinds)
        self.samples: dict[Any, Any] = {}
        self._append(values)

    def _append(self, values: list[Any]) -> None:
        # First the list: it tells if an interrupt or another index has added values.
        self.all_values.extend(values)
        self.all_places |= {value: i for i, value in enumerate(values, self.size)}
        self.size = len(self.all_values)
        self.kinds = self.kinds | _value_kinds.kinds_of(values, with_large=True)
        # The first value of each type.
        samples = {(type(v), type(v) is int and v >= 2**63): v for v in values[::-1]}
        self.samples = samples | self.samples

    def __getstate__(self) -> dict[str, Any]:
        return {"values": self.values, "earlier_kinds": sorted(self.kinds)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @property
    def values(self) -> list[Any]:
        return self.all_values[: self.size]

    def check_kinds(self, values: Sequence[Any], name: str) -> None:
        """Raise if values are of other kinds than these, such as text, not numbers."""
        start = f"Column {name!r} contained"
        _value_kinds.check_kinds(values, self.kinds, start, " before; it now contains")

    def check_exact(self, values: Sequence[Any], name: str) -> None:
        """Raise if integers were rounded to floats here or there: they equal none."""
        start = f"Column {name!r} contained"
        _value_kinds.check_exact(values, self.kinds, start, " before; it now contains")

    def extended(self, values: Iterable[Any]) -> "ValueIndex":
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

    def selected(self, is_used: Array) -> "ValueIndex":
        """Return an index of some of the values."""
        return ValueIndex(list(compress(self.values, is_used)), self.kinds)

    def place(self, value: Any) -> int:
        """Return the place of a value, -1 if it is not here."""
        place = self.all_places.get(value, -1)
        return place if place < self.size else -1

    def places(self, values: Sequence[Any]) -> Array:
        """Return the places of values as an array."""
        return np.fromiter(map(self.place, values), np.int64, len(values))

    def at(self, places: Iterable[int]) -> list[Any]:
        """Return the values at places."""
        return [self.all_values[place] for place in places]


# By the name of a column, the index of each row's value, -1 if it is missing, and the
# values.
Columns = dict[str, tuple[Array, list[Any]]]


class Rows(NamedTuple):
    """Rows of a log."""

    columns: Columns
    time: Array
    labels: Labels


def read_columns(table: Table, names: Iterable[str]) -> Columns:
    """Return the index of each row's value, -1 if it is missing, and the values."""
    columns = {}
    for name in names:
        column = table.column(name)
        try:
            indices, values = _factorize.factorize(column)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise TypeError(
                f"Column {name!r} must hold one value per row: {error}."
            ) from error
        columns[name] = indices.astype(np.int64), values
    return columns


class HistoryState:
    """What a history has learnt. It is not changed: methods return new ones.

    `indices` has the values of each column, and `everything` all rows as those of one
    key, for the base rates. `levels` has one `KeyLog` per key in each of some levels: a
    key is as in the last level that has it, so that a change of some keys is a new
    level. `n_values` is the number of values when unused ones were dropped, and
    `has_labels` whether a label is known.
    """

    def __init__(
        self,
        *,
        classes: list[Any] | None,
        end: Any,
        indices: dict[str, ValueIndex],
        logs: list[KeyLog],
        everything: KeyLog,
    ) -> None:
        self.classes = classes
        self.end = end
        self.indices = indices
        self.levels = [logs]
        self.everything = everything
        n_known = everything.totals["counts"][:, 1:]
        has_recent_label = (everything.rows.value >= 0).any()
        self.has_labels = bool(has_recent_label or n_known.any())
        self.n_values = self._count_values()

    @property
    def logs(self) -> list[KeyLog]:
        """The logs of a state of one level."""
        (logs,) = self.levels
        return logs

    @property
    def known_classes(self) -> list[Any] | None:
        """The two labels of a single task, None before any label and of more tasks."""
        if self.classes or self.everything.rows.value.shape[1] != 1:
            return self.classes
        return [0, 1] if self.has_labels else None

    def _count_values(self) -> int:
        return sum(index.size for index in self.indices.values())

    def with_values(self, rows: Rows) -> "HistoryState":
        """Return the state with the values and the classes of rows."""
        new = copy.copy(self)
        new.indices = {
            name: self.indices[name].extended(values)
            for name, (_, values) in rows.columns.items()
        }
        new.classes = self.classes or rows.labels.classes
        new.has_labels |= bool((rows.labels.values >= 0).any())
        return new

    def with_logs(self, logs: Iterable[KeyLog]) -> "HistoryState":
        """Return the state with other logs, in one level; that of all rows is last."""
        new = copy.copy(self)
        *key_logs, new.everything = logs
        new.levels = [key_logs]
        return new

    def logs_and_plans(self, plan: Plan) -> Iterator[tuple[KeyLog, Plan]]:
        """Yield the logs of a state of one level, each with the plan of its key."""
        return zip([*self.logs, self.everything], plan.key_plans, strict=True)

    def pasts(self, plan: Plan) -> list[Past]:
        """Return the `Past` of every key, and at last that of all rows."""
        return [Past(log, key_plan) for log, key_plan in self.logs_and_plans(plan)]

    def places(self, columns: Columns) -> dict[str, Array]:
        """Return the places of rows' values by column, -1 for unseen ones."""
        return {
            name: np.append(self.indices[name].places(values), -1)[indices]
            for name, (indices, values) in columns.items()
        }

    def ids(self, columns: Columns, plan: Plan) -> list[Array]:
        """Return the places of rows' values per key, one column per value."""
        places = self.places(columns)
        for key in plan.keys:
            _key_log.check_sizes(self.indices[name].size for name in key)
        return [np.stack([places[name] for name in key], axis=1) for key in plan.keys]

    def codes(self, columns: Columns, plan: Plan) -> list[Array]:
        """Return the places of rows' keys per log, `n_keys` for those that it lacks."""
        ids_of_keys = self.ids(columns, plan)
        return [
            log.places(ids) for log, ids in zip(self.logs, ids_of_keys, strict=True)
        ]

    def for_keys_of(self, rows: Rows, plan: Plan) -> "HistoryState":
        """Return the state of the keys of rows alone, in one level."""
        ids_of_keys = self.ids(rows.columns, plan)
        logs_of_keys = zip(*self.levels, strict=True)
        logs = [
            _key_log.find_keys(log_levels, ids, plan.half_lives)
            for log_levels, ids in zip(logs_of_keys, ids_of_keys, strict=True)
        ]
        return self.with_logs([*logs, self.everything])

    def with_rows(
        self, rows: Rows, plan: Plan
    ) -> Iterator[tuple[KeyLog, Plan, RowsOfKeys]]:
        """Yield each log, its plan, and the rows as the log takes them."""
        places = self.places(rows.columns)
        # All rows have the same key, without a column.
        no_ids = np.zeros((len(rows.time), 0), np.int64)
        ids_of_logs = [*self.ids(rows.columns, plan), no_ids]
        logs_and_plans = self.logs_and_plans(plan)
        for ids, (log, key_plan) in zip(ids_of_logs, logs_and_plans, strict=True):
            key_rows = RowsOfKeys(
                ids=ids,
                time=rows.time,
                labels=rows.labels.values,
                lists=[
                    (places[list_plan.column], list_plan.task)
                    for list_plan in key_plan.lists
                ],
                amounts=rows.labels.amounts,
            )
            yield log, key_plan, key_rows

    def extended(self, rows: Rows, plan: Plan) -> "HistoryState":
        """Return the state of the keys of new rows, with these rows, not summed."""
        new = self.with_values(rows).for_keys_of(rows, plan)
        logs = []
        for log, key_plan, key_rows in new.with_rows(rows, plan):
            half_lives = key_plan.half_lives
            added = _key_log.log_of_rows(key_rows, len(half_lives))
            log = _key_log.combine(log, added, half_lives)
            logs.append(new.with_sorted_ties(log, key_plan.lists))
        new = new.with_logs(logs)
        if len(rows.time):
            last = rows.time.max().item()
            new.end = last if self.end is None else max(last, self.end)
        return new

    def joined(self, newer: "HistoryState", plan: Plan) -> "HistoryState":
        """Return the state with a later state of some keys, with its other values."""

        def size(logs: list[KeyLog]) -> int:
            return sum(log.size for log in logs)

        new = copy.copy(newer)
        levels = [*self.levels, newer.logs]
        # Each level is more than twice as large as the next one: a key is copied a
        # logarithmic number of times, however many small changes there are.
        while len(levels) > 1 and 2 * size(levels[-1]) >= size(levels[-2]):
            levels[-2:] = [_merged(levels[-2:], plan)]
        new.levels = levels
        # The work on all keys is due after changes of as many.
        if len(levels) == 1 or new._count_values() > 2 * self.n_values:
            return new.whole(plan)
        return new

    def whole(self, plan: Plan) -> "HistoryState":
        """Return the state in one level, folded and compacted."""
        new = self.with_logs([*_merged(self.levels, plan), self.everything])
        return new.folded(plan).compacted(plan)

    def completed(self, rows: Rows, plan: Plan) -> tuple["HistoryState", Array, Array]:
        """Return the state of the keys of rows, with their labels, and which rows fail.

        The latter are two arrays: rows that the state does not have, and rows whose
        labels it has already.
        """
        new = self.with_values(rows).for_keys_of(rows, plan)
        logs = []
        is_absent = np.zeros(len(rows.time), dtype=bool)
        is_final = np.zeros(len(rows.time), dtype=bool)
        for log, key_plan, key_rows in new.with_rows(rows, plan):
            completed, absent_here, final_here = _key_log.complete_log(log, key_rows)
            # With `max_age`, keys have forgotten rows that the log of all rows has.
            if key_plan.max_age is None:
                is_absent |= absent_here
            is_final |= final_here
            logs.append(new.with_sorted_ties(completed, key_plan.lists))
        return new.with_logs(logs), is_absent, is_final & ~is_absent

    def with_sorted_ties(self, log: KeyLog, lists: Sequence[ListPlan]) -> KeyLog:
        """Return a log in whose lists with a task values of equal times are sorted.

        Labels come in any order, on which the lists do not depend then.
        """
        sorted_lists = []
        for elements, list_plan in zip(log.lists, lists, strict=True):
            if list_plan.task is not None:
                elements = sort_ties(elements, self.indices[list_plan.column])
            sorted_lists.append(elements)
        return replace(log, lists=sorted_lists)

    def folded(self, plan: Plan, pasts: list[Past] | None = None) -> "HistoryState":
        """Return a state of one level with old rows as totals."""
        pasts = self.pasts(plan) if pasts is None else pasts
        return self.with_logs([past.folded(self.end) for past in pasts])

    def compacted(self, plan: Plan) -> "HistoryState":
        """Return a state of one level without keys and values that are over."""
        new = copy.copy(self)
        logs = self.logs
        if plan.max_age is not None:
            logs = [log.without_old(self.end, plan.max_age) for log in logs]
        logs_and_plans = list(zip(logs, plan.key_plans[:-1], strict=True))
        is_used = {
            name: np.zeros(index.size, bool) for name, index in self.indices.items()
        }
        for log, key_plan in logs_and_plans:
            for name, places in zip(key_plan.keys[0], log.columns.T, strict=True):
                is_used[name][places] = True
            for list_plan, elements in zip(key_plan.lists, log.lists, strict=True):
                is_used[list_plan.column][elements.value] = True
        for is_used_value in is_used.values():
            # One value stays, since it gives lists their type.
            is_used_value[:1] |= not is_used_value.any()
        new.indices = {
            name: index if is_used[name].all() else index.selected(is_used[name])
            for name, index in self.indices.items()
        }
        new.n_values = new._count_values()
        moves = {name: is_here.cumsum() - 1 for name, is_here in is_used.items()}
        new.levels = [
            [_moved(log, moves, key_plan) for log, key_plan in logs_and_plans]
        ]
        return new


def _merged(levels: Sequence[Sequence[KeyLog]], plan: Plan) -> list[KeyLog]:
    """Return the logs of one level in place of several."""
    merged_logs = []
    for oldest, *newer in zip(*levels, strict=True):
        merged = oldest
        for log in newer:
            merged = _key_log.replace_keys(merged, log, plan.half_lives)
        merged_logs.append(merged)
    return merged_logs


def sort_ties(rows: Slices, index: ValueIndex) -> Slices:
    """Return the elements of a list, those of a key and time in the order of values."""
    keys = rows.keys()
    is_tie = (keys[1:] == keys[:-1]) & (rows.time[1:] == rows.time[:-1])
    if not is_tie.any():
        return rows
    tied = np.flatnonzero(np.append(is_tie, False) | np.append(False, is_tie))
    elements = rows.value[tied]
    places, value_numbers = np.unique(elements, return_inverse=True)
    values = index.at(places.tolist())
    rank_of = {
        value: rank for rank, value in enumerate(_value_kinds.sort_values(values))
    }
    ranks = np.array([rank_of[value] for value in values])
    order = np.lexsort([ranks[value_numbers], rows.time[tied], keys[tied]])
    value = rows.value.copy()
    value[tied] = elements[order]
    return replace(rows, value=value)


def refuse_labels(
    is_absent: Array, is_final: Array, state: HistoryState, plan: Plan
) -> None:
    """Raise if rows are not in a state, or have their labels already."""
    reasons = []
    if is_absent.any():
        first = plan.as_time(state.end - plan.all_rows_plan.horizon)
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


def _moved(log: KeyLog, moves: Mapping[str, Array], plan: Plan) -> KeyLog:
    """Return a log with the new places of values, per column."""
    columns = [
        moves[name][places]
        for name, places in zip(plan.keys[0], log.columns.T, strict=True)
    ]
    lists = [
        replace(elements, value=moves[list_plan.column][elements.value])
        for list_plan, elements in zip(plan.lists, log.lists, strict=True)
    ]
    return replace(log, columns=np.stack(columns, axis=1), lists=lists)


def empty_state(plan: Plan, classes: list[Any] | None) -> HistoryState:
    """Return the state of a log without rows."""
    no_integers = np.zeros(0, dtype=np.int64)
    logs = []
    for key_plan in plan.key_plans:
        no_rows = RowsOfKeys(
            ids=np.zeros((0, len(key_plan.keys[0])), dtype=np.int64),
            time=no_integers,
            labels=np.zeros((0, len(plan.task_names)), dtype=np.int8),
            lists=[(no_integers, None) for _ in key_plan.lists],
            amounts=np.zeros((0, len(key_plan.values))),
        )
        logs.append(_key_log.log_of_rows(no_rows, len(key_plan.half_lives)))
    *key_logs, everything = logs
    return HistoryState(
        classes=classes,
        end=None,
        indices={name: ValueIndex([]) for name in plan.columns},
        logs=key_logs,
        everything=everything,
    )

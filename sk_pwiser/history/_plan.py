"""The parameters of `HistoryFeatures`, checked, in the unit of the log's times."""

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sk_pwiser._columns._frames import find_column
from sk_pwiser._tasks._amounts import (
    NO_VALUES,
    Values,
    check_value_tasks,
    default_name,
    find_values,
)
from sk_pwiser._times import NUMBER, check_duration, duration_label, read_duration
from sk_pwiser._utils._checks import check_boolean, check_integer, check_number
from sk_pwiser._utils._warnings import warn_user

LIST_FIELDS = ("column", "key", "n", "task", "ages")
AGES = (None, "values", "buckets")
# Number of values of a list without "n".
DEFAULT_N = 20


@dataclass(frozen=True, kw_only=True)
class ListPlan:
    """A list of last values of a column, of rows in which a given task happened."""

    key: int
    place: int  # among the lists of its key
    column: str
    n: int
    task: int | None
    lag: float  # how long after its impression a row is in the list
    ages: str | None
    name: str


class Plan:
    """What is computed per row, for checked parameters, a kind of times and tasks."""

    windows: Sequence[float]
    half_lives: Sequence[float]
    lists: Sequence[ListPlan]
    # Plans of earlier versions have none.
    values: Values = NO_VALUES

    def __init__(
        self, params: Mapping[str, Any], kind: str, task_names: Iterable[str]
    ) -> None:
        self.params = copy.deepcopy(params)
        self.kind = kind
        self.task_names = list(task_names)
        self.time: str = params["time"]
        self.passthrough: bool = params["passthrough"]
        # Of ages, which are in seconds; a float, so that arrays and rows round alike.
        self.unit = 1 if kind == NUMBER else 1e9
        self.keys = as_keys(params["keys"])
        self.key_names = ["_x_".join(key) for key in self.keys]
        self.state_delay: float = read_duration(
            params["state_delay"], "state_delay", kind
        )
        self._read_label_delays(params["label_delay"])
        self.windows = [
            read_duration(window, "windows", kind) for window in params["windows"]
        ]
        self.half_lives = [
            read_duration(half_life, "half_lives", kind)
            for half_life in params["half_lives"]
        ]
        # The endings of the names of columns.
        self.horizons = [
            "",
            *(f"_{duration_label(window)}" for window in params["windows"]),
            *(f"_decay_{duration_label(value)}" for value in params["half_lives"]),
        ]
        self.values = _find_values(params["values"], self.task_names)
        self.smoothing = float(params["smoothing"])
        self.max_age: float | None = None
        if params["max_age"] is not None:
            self.max_age = read_duration(params["max_age"], "max_age", kind)
        lists: list[ListPlan] = []
        for entry in params["lists"]:
            lists.append(self._list(entry, lists))
        self.lists = lists

    def _read_label_delays(self, label_delay: Any) -> None:
        tasks = range(len(self.task_names))
        by_task = label_delay
        if not isinstance(label_delay, dict):
            by_task = dict.fromkeys(tasks, label_delay)
        delays = {
            find_column("label_delay", task, self.task_names, "task"): delay
            for task, delay in by_task.items()
        }
        self.without_delay = [self.task_names[k] for k in tasks if k not in delays]
        # How long after its impression a label is seen, per task.
        self.lags: list[float] = [
            self.state_delay + read_duration(delays.get(k, 0), "label_delay", self.kind)
            for k in tasks
        ]

    def warn(self) -> None:
        """Warn about windows without events, and about delays that are not given."""
        if self.without_delay:
            tasks = ", ".join(map(repr, self.without_delay))
            warn_user(
                f"label_delay has no entry for {tasks}, whose labels count as known "
                "at once. Add entries, 0 if this is right."
            )
        labels = map(duration_label, self.params["windows"])
        empty = [
            f"{label} for {task!r}"
            for label, window in zip(labels, self.windows, strict=True)
            for task, lag in zip(self.task_names, self.lags, strict=True)
            if window <= lag
        ]
        if empty:
            warn_user(
                f"No event is known in the windows {', '.join(empty)}: these must be "
                "longer than state_delay and the label_delay of the task together."
            )

    @property
    def columns(self) -> list[str]:
        """Names of the columns that keys and lists read, each once."""
        key_columns = [name for key in self.keys for name in key]
        list_columns = [list_plan.column for list_plan in self.lists]
        return list(dict.fromkeys([*key_columns, *list_columns]))

    @property
    def horizon(self) -> float:
        """How long before the end of the log a row must be kept with its time."""
        return max([self.state_delay, *self.lags, *self.windows])

    @property
    def amount_half_lives(self) -> list[float]:
        """The half-lives of the sums of a value.

        These are the sum of the amounts without decay, and per half-life the decayed
        sum of the amounts and the decayed number of them.
        """
        return amount_half_lives(self.half_lives)

    @property
    def first_value_block(self) -> int:
        """The place of the first value among the sequences of a key in a store.

        It is behind the impressions, and the events and missing labels per task.
        """
        return 1 + 2 * len(self.task_names)

    @property
    def first_list_block(self) -> int:
        """The place of the first list among the sequences of a key in a store."""
        return self.first_value_block + len(self.values)

    @property
    def all_rows_plan(self) -> "Plan":
        """The plan of the log of all rows: only counts, of one key without end."""
        plan = copy.copy(self)
        plan.keys = [()]
        plan.key_names = [""]
        plan.max_age = None
        plan.windows = ()
        plan.half_lives = ()
        plan.lists = ()
        return plan

    @property
    def key_plans(self) -> list["Plan"]:
        """The plans of the logs, each with one key; that of all rows comes last."""
        plans = []
        for place, key in enumerate(self.keys):
            plan = copy.copy(self)
            plan.keys = [key]
            plan.key_names = [self.key_names[place]]
            plan.lists = [
                list_plan for list_plan in self.lists if list_plan.key == place
            ]
            plans.append(plan)
        return [*plans, self.all_rows_plan]

    def as_time(self, value: Any) -> Any:
        """Return a time of the state as users know it."""
        if value is None or self.unit == 1:
            return value
        return np.datetime64(int(value), "ns")

    def passed_through(self, names: Iterable[str]) -> list[str]:
        """Return the names of the columns of the table that precede the new ones."""
        return [name for name in names if name != self.time] if self.passthrough else []

    @property
    def number_names(self) -> list[str]:
        """Names of the numbers of the keys, in their order."""
        names = ["since_impression", *(f"since_{task}" for task in self.task_names)]
        for horizon in self.horizons:
            names.append(f"log_impressions{horizon}")
            for task in self.task_names:
                names += [f"log_{task}{horizon}", f"{task}_logit{horizon}"]
        for value in self.values.names:
            for horizon in self.horizons:
                names += [f"log_{value}{horizon}", f"{value}_log_mean{horizon}"]
        return [f"{key}__{name}" for key in self.key_names for name in names]

    def feature_names(self) -> list[str]:
        names = self.number_names
        for list_plan in self.lists:
            names.append(list_plan.name)
            if list_plan.ages:
                names.append(f"{list_plan.name}_ages")
        return names

    def _list(self, entry: Mapping[str, Any], former: Sequence[ListPlan]) -> ListPlan:
        """Return the plan of an entry of `lists`, given those of the entries before."""
        key = as_keys([entry.get("key", self.keys[0])])[0]
        key_index = self.keys.index(key)
        column = entry["column"]
        name = f"{self.key_names[key_index]}__last_{column}"
        task = entry.get("task")
        lag = self.state_delay
        if task is not None:
            task = find_column("lists", task, self.task_names, "task")
            lag = self.lags[task]
            name = f"{name}_{self.task_names[task]}"
        return ListPlan(
            key=key_index,
            place=sum(list_plan.key == key_index for list_plan in former),
            column=column,
            n=entry.get("n", DEFAULT_N),
            task=task,
            lag=lag,
            ages=entry.get("ages"),
            name=name,
        )


def amount_half_lives(half_lives: Sequence[float]) -> list[float]:
    """Return the half-lives of the sums of a value; see `Plan.amount_half_lives`."""
    return [math.inf, *(half_life for half_life in half_lives for _ in range(2))]


def _find_values(values: Mapping[Any, Any] | None, task_names: list[str]) -> Values:
    """Return the values whose amounts are summed, and the tasks of their events."""
    if not values or not task_names:  # without labels there are no amounts either
        return NO_VALUES
    names = tuple(default_name(column) for column in values)
    return find_values(values, names, task_names, parameter="values")


def as_keys(keys: Iterable[str | tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return each key as a tuple of names of columns."""
    return [key if isinstance(key, tuple) else (key,) for key in keys]


def check_params(params: Mapping[str, Any]) -> None:
    """Raise if a parameter is invalid for every log."""
    _check_keys(params["keys"])
    label_delay = params["label_delay"]
    delays = label_delay.values() if isinstance(label_delay, dict) else [label_delay]
    for delay in delays:
        check_duration(delay, "label_delay", zero=True)
    check_duration(params["state_delay"], "state_delay", zero=True)
    for name in ("windows", "half_lives"):
        durations = params[name]
        if not isinstance(durations, list | tuple):
            raise TypeError(f"{name} must be a list of durations; got {durations!r}.")
        for duration in durations:
            check_duration(duration, name)
    _check_lists(params["lists"], as_keys(params["keys"]))
    check_value_tasks(params["values"], "values")
    for column, task in (params["values"] or {}).items():
        if task is None:
            raise ValueError(
                "values must name the task under which amounts arise, since an amount "
                f"is known with the label of its task; got None for column {column!r}."
            )
    check_number("smoothing", params["smoothing"], above=0)
    if params["max_age"] is not None:
        check_duration(params["max_age"], "max_age")
    check_boolean("passthrough", params["passthrough"])


def _check_keys(keys: Any) -> None:
    if not isinstance(keys, list) or not keys:
        raise TypeError(
            f"keys must be a list of one or more columns or tuples; got {keys!r}."
        )
    for key in as_keys(keys):
        if not key or not all(isinstance(name, str) for name in key):
            raise TypeError(
                f"keys must hold names of columns and tuples of them; got {key!r}."
            )


def _check_lists(lists: Any, keys: list[tuple[str, ...]]) -> None:
    is_list = isinstance(lists, list | tuple)
    if not is_list or not all(isinstance(entry, dict) for entry in lists):
        raise TypeError(f"lists must be a list of dictionaries; got {lists!r}.")
    for entry in lists:
        if unknown := [field for field in entry if field not in LIST_FIELDS]:
            raise ValueError(
                f"lists: {unknown} are unknown; the fields are {list(LIST_FIELDS)}."
            )
        if not isinstance(entry.get("column"), str):
            raise TypeError(
                f"lists: 'column' must be the name of a column; got {entry!r}."
            )
        key = as_keys([entry.get("key", keys[0])])[0]
        if key not in keys:
            raise ValueError(f"lists: 'key' must be one of keys; got {entry['key']!r}.")
        check_integer("lists: 'n'", entry.get("n", DEFAULT_N), at_least=1)
        if entry.get("ages") not in AGES:
            raise ValueError(
                f"lists: 'ages' must be one of {list(AGES)}; got {entry['ages']!r}."
            )

"""The parameters of `HistoryFeatures`, checked, in the unit of the log's times."""

import copy
from dataclasses import dataclass

import numpy as np

from sk_pwiser._columns._frames import find_column
from sk_pwiser._times import NUMBER, check_duration, duration_label, read_duration
from sk_pwiser._utils._checks import check_boolean, check_integer, check_number
from sk_pwiser._utils._warnings import warn_user

LIST_FIELDS = ("column", "key", "n", "task", "ages")
AGES = (None, "values", "buckets")
DEFAULT_N = 20


@dataclass(frozen=True)
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

    def __init__(self, params, kind, task_names):
        self.params, self.kind = copy.deepcopy(params), kind
        self.task_names = list(task_names)
        self.time, self.passthrough = params["time"], params["passthrough"]
        # Of ages, which are in seconds; a float, so that arrays and rows round alike.
        self.unit = 1 if kind == NUMBER else 1e9
        self.keys = as_keys(params["keys"])
        self.key_names = ["_x_".join(key) for key in self.keys]
        self.state_delay = read_duration(params["state_delay"], "state_delay", kind)
        delays, tasks = params["label_delay"], range(len(self.task_names))
        if not isinstance(delays, dict):
            delays = dict.fromkeys(tasks, delays)
        delays = {
            find_column("label_delay", task, self.task_names, "task"): delay
            for task, delay in delays.items()
        }
        self.without_delay = [self.task_names[k] for k in tasks if k not in delays]
        # How long after its impression a label is seen, per task.
        self.lags = [
            self.state_delay + read_duration(delays.get(k, 0), "label_delay", kind)
            for k in tasks
        ]
        self.windows, self.half_lives = (
            [read_duration(value, name, kind) for value in params[name]]
            for name in ("windows", "half_lives")
        )
        self.horizons = ["", *(f"_{duration_label(v)}" for v in params["windows"])]
        self.horizons += [f"_decay_{duration_label(v)}" for v in params["half_lives"]]
        self.smoothing = float(params["smoothing"])
        self.max_age = params["max_age"]
        if self.max_age is not None:
            self.max_age = read_duration(self.max_age, "max_age", kind)
        self.lists = []
        for entry in params["lists"]:  # an entry counts the lists before it
            self.lists.append(self._list(entry))

    def warn(self):
        """Warn about windows without events, and about delays that are not given."""
        if self.without_delay:
            unknown = ", ".join(map(repr, self.without_delay))
            warn_user(
                f"label_delay has no entry for {unknown}, whose labels count as known "
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
    def columns(self):
        """Names of the columns that keys and lists read, each once."""
        of_keys = [name for key in self.keys for name in key]
        return list(dict.fromkeys([*of_keys, *(each.column for each in self.lists)]))

    @property
    def horizon(self):
        """How long before the end of the log a row must be kept with its time."""
        return max([self.state_delay, *self.lags, *self.windows])

    @property
    def of_all(self):
        """The plan of the log of all rows: only counts, of one key without end."""
        plan = copy.copy(self)
        plan.keys, plan.key_names, plan.max_age = [()], [""], None
        plan.windows = plan.half_lives = plan.lists = ()
        return plan

    @property
    def of_keys(self):
        """The plans of the logs, each with one key; that of all rows comes last."""
        plans = [copy.copy(self) for _ in self.keys]
        for place, plan in enumerate(plans):
            plan.keys, plan.key_names = [self.keys[place]], [self.key_names[place]]
            plan.lists = [each for each in self.lists if each.key == place]
        return [*plans, self.of_all]

    def as_time(self, value):
        """Return a time of the state as users know it."""
        if value is None or self.unit == 1:
            return value
        return np.datetime64(int(value), "ns")

    def kept(self, names):
        return [name for name in names if name != self.time] if self.passthrough else []

    @property
    def number_names(self):
        """Names of the numbers of the keys, in their order."""
        names = ["since_impression", *(f"since_{task}" for task in self.task_names)]
        for horizon in self.horizons:
            names.append(f"log_impressions{horizon}")
            for task in self.task_names:
                names += [f"log_{task}{horizon}", f"{task}_logit{horizon}"]
        return [f"{key}__{name}" for key in self.key_names for name in names]

    def feature_names(self):
        names = self.number_names
        for each in self.lists:
            names += [each.name] + ([f"{each.name}_ages"] if each.ages else [])
        return names

    def _list(self, entry):
        key = as_keys([entry.get("key", self.keys[0])])[0]
        index, task = self.keys.index(key), entry.get("task")
        lag, ending = self.state_delay, ""
        if task is not None:
            task = find_column("lists", task, self.task_names, "task")
            lag, ending = self.lags[task], f"_{self.task_names[task]}"
        name = f"{self.key_names[index]}__last_{entry['column']}{ending}"
        n, ages = entry.get("n", DEFAULT_N), entry.get("ages")
        place = sum(each.key == index for each in self.lists)
        return ListPlan(index, place, entry["column"], n, task, lag, ages, name)


def as_keys(keys):
    """Return each key as a tuple of names of columns."""
    return [key if isinstance(key, tuple) else (key,) for key in keys]


def check_params(params):
    """Raise if a parameter is invalid for every log."""
    _check_keys(params["keys"])
    delays = params["label_delay"]
    for each in delays.values() if isinstance(delays, dict) else [delays]:
        check_duration(each, "label_delay", zero=True)
    check_duration(params["state_delay"], "state_delay", zero=True)
    for name in ("windows", "half_lives"):
        if not isinstance(params[name], list | tuple):
            raise TypeError(
                f"{name} must be a list of durations; got {params[name]!r}."
            )
        for each in params[name]:
            check_duration(each, name)
    _check_lists(params["lists"], as_keys(params["keys"]))
    check_number("smoothing", params["smoothing"], above=0)
    if params["max_age"] is not None:
        check_duration(params["max_age"], "max_age")
    check_boolean("passthrough", params["passthrough"])


def _check_keys(keys):
    if not isinstance(keys, list) or not keys:
        raise TypeError(
            f"keys must be a list of one or more columns or tuples; got {keys!r}."
        )
    for key in as_keys(keys):
        if not key or not all(isinstance(name, str) for name in key):
            raise TypeError(
                f"keys must hold names of columns and tuples of them; got {key!r}."
            )


def _check_lists(lists, keys):
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

"""Amounts of money or time beside events: which columns they are, and their values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import scipy.sparse

from sk_pwiser._columns import _frames
from sk_pwiser._utils._checks import did_you_mean
from sk_pwiser._utils._warnings import warn_user

# A single amount that is more than this share of the total, and so many times the
# median, is probably a fault of the log.
LARGEST_SHARE = 0.5
LARGEST_MULTIPLE = 1e3


@dataclass(frozen=True, kw_only=True)
class Values:
    """The values that are learnt beside the events.

    A value has an amount per row. With a parent, it arises only if the event of that
    task happens.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]  # index of the task, -1 for a value per impression

    def __len__(self) -> int:
        return len(self.names)

    def parents_by_name(self, task_names: Sequence[str]) -> dict[str, str | None]:
        """Return the name of the task under which each value arises, None if none."""
        return {
            name: None if parent < 0 else task_names[parent]
            for name, parent in zip(self.names, self.parents, strict=True)
        }


NO_VALUES = Values(names=(), parents=())


def check_value_tasks(value_tasks: Any, parameter: str = "value_tasks") -> None:
    """Raise if a parameter is no mapping of columns of amounts to tasks."""
    if value_tasks is None:
        return
    form = (
        f"{parameter} must map columns of labels to the tasks under which amounts arise"
    )
    if not isinstance(value_tasks, Mapping):
        raise TypeError(
            f"{form}, such as {{'spend': 'conversion'}}, or None; got {value_tasks!r}."
        )
    for column, task in value_tasks.items():
        for role, entry in (("a column", column), ("a task", task)):
            is_none = entry is None and role == "a task"
            is_index = isinstance(entry, Integral) and not isinstance(entry, bool)
            if not (is_none or is_index or isinstance(entry, str)):
                raise TypeError(
                    f"{form}, by name or index; got {entry!r} of type "
                    f"{type(entry).__name__} as {role}."
                )


def split_columns(
    Y: Any,
    value_tasks: Mapping[Any, Any] | None,
    columns: Sequence[str] | None,
    *,
    parameter: str = "value_tasks",
    input_name: str = "Y",
) -> tuple[Any, list[Any], tuple[str, ...]]:
    """Divide labels into those of events and the columns of amounts.

    Returns the labels of the events, the columns of amounts and their names. Messages
    name the parameter that has `value_tasks`, and the input that has the labels.
    """
    if not value_tasks:
        return Y, [], ()
    if scipy.sparse.issparse(Y):
        Y = Y.toarray()
    shape = getattr(Y, "shape", None)
    if shape is None or len(shape) != 2:
        Y = np.asarray(Y, dtype=object)
        if Y.ndim != 2:
            raise ValueError(
                f"{input_name} must have a column per event and per value with "
                f"{parameter} of {list(value_tasks)}; it has {Y.ndim} dimensions."
            )
        shape = Y.shape
    n_columns = shape[1]
    names = find_columns(
        value_tasks, n_columns, columns, parameter=parameter, input_name=input_name
    )
    event_places = [place for place in range(n_columns) if place not in names]
    amounts = [_take(Y, [place]) for place in names]
    return _take(Y, event_places), amounts, tuple(names.values())


def find_columns(
    value_tasks: Mapping[Any, Any],
    n_columns: int,
    columns: Sequence[str] | None,
    *,
    parameter: str = "value_tasks",
    input_name: str = "Y",
) -> dict[int, str]:
    """Return the names of the columns of amounts by their places among the labels."""
    names: dict[int, str] = {}
    for column in value_tasks:
        place = _find_place(
            column, n_columns, columns, parameter=parameter, input_name=input_name
        )
        if place in names:
            raise ValueError(f"{parameter} names column {place} of {input_name} twice.")
        names[place] = default_name(column) if columns is None else columns[place]
    if len(names) == n_columns:
        raise ValueError(
            f"{input_name} must have a column of an event beside those of {parameter}; "
            f"all {n_columns} columns are values."
        )
    return names


def planned_names(value_tasks: Any) -> list[str]:
    """Return the names that values have if the columns of `Y` have none or their own.

    Columns that are chosen by their indices, but have names, get those.
    """
    if not isinstance(value_tasks, Mapping):
        return []  # none, or an error of `fit`
    return [default_name(column) for column in value_tasks]


def default_name(column: Any) -> str:
    """Return the name of a value by the name or the index of its column."""
    return column if isinstance(column, str) else f"value_{column}"


def without_amounts(
    Y: Any, value_tasks: Mapping[Any, Any] | None, n_tasks: int | None
) -> Any:
    """Return labels without the columns of amounts that they have."""
    if not value_tasks:
        return Y
    Y = Y.toarray() if scipy.sparse.issparse(Y) else _frames.collected(Y)
    columns = getattr(Y, "column_names", getattr(Y, "columns", None))
    if columns is not None:
        places = [
            place for place, name in enumerate(columns) if name not in value_tasks
        ]
        indices = {
            place % len(columns) for place in value_tasks if not isinstance(place, str)
        }
        if len(columns) == (n_tasks or 0) + len(value_tasks):
            places = [place for place in places if place not in indices]
        return _take(Y, places)
    Y = np.asarray(Y) if not hasattr(Y, "shape") else Y
    if Y.ndim != 2 or Y.shape[1] != (n_tasks or 0) + len(value_tasks):
        return Y
    left_out = {place % Y.shape[1] for place in value_tasks}
    return _take(Y, [place for place in range(Y.shape[1]) if place not in left_out])


def amounts_beside_events(
    Y: Any,
    value_tasks: Mapping[Any, Any] | None,
    task_names: Sequence[str],
    events: np.ndarray,
) -> np.ndarray:
    """Return the amounts of labels that may have them, as `read_amounts` does.

    Those of columns that `Y` lacks are NaN. `events`, float `(n_samples, n_tasks)`, are
    NaN where they are missing.
    """
    amounts = np.full((len(events), len(value_tasks or {})), np.nan)
    if not value_tasks:
        return amounts
    Y = Y.toarray() if scipy.sparse.issparse(Y) else _frames.collected(Y)
    columns = getattr(Y, "column_names", getattr(Y, "columns", None))
    if columns is not None:
        columns = list(columns)
    # Indices are those of labels with all columns.
    shape = np.shape(Y) if columns is None else (len(events), len(columns))
    is_complete = len(shape) == 2 and shape[1] == len(task_names) + len(value_tasks)
    places = []
    present = {}
    for place, (column, task) in enumerate(value_tasks.items()):
        is_named = isinstance(column, str) and column in (columns or ())
        if is_named or (is_complete and not isinstance(column, str)):
            places.append(place)
            present[column] = task
    if not present:
        return amounts
    _, amount_columns, names = split_columns(Y, present, columns)
    values = find_values(present, names, task_names)
    missing = np.isnan(events)
    amounts[:, places] = read_amounts(amount_columns, values, events, missing)
    return amounts


def _find_place(
    column: Any,
    n_columns: int,
    columns: Sequence[str] | None,
    *,
    parameter: str,
    input_name: str,
) -> int:
    """Return the index of a column of labels."""
    if not isinstance(column, str):
        if -n_columns <= column < n_columns:
            return int(column) % n_columns
        raise ValueError(
            f"{parameter} has column {column}, but {input_name} has {n_columns} "
            "columns."
        )
    if columns is None:
        raise ValueError(
            f"{parameter} has the column {column!r}, but the columns of {input_name} "
            "have no names: use their indices."
        )
    if column not in columns:
        raise ValueError(
            f"{parameter} has the column {column!r}, which {input_name} lacks; its "
            f"columns are {list(columns)}.{did_you_mean(column, columns)}"
        )
    return list(columns).index(column)


def _take(Y: Any, places: list[int]) -> Any:
    """Return columns of labels by their indices, as a table of the same kind."""
    if hasattr(Y, "iloc"):
        return Y.iloc[:, places]
    if hasattr(Y, "column_names"):
        return Y.select([Y.column_names[place] for place in places])
    if hasattr(Y, "columns"):
        return Y.select([Y.columns[place] for place in places])
    return Y[:, places]


def find_values(
    value_tasks: Mapping[Any, Any] | None,
    names: tuple[str, ...],
    task_names: Sequence[str],
    *,
    parameter: str = "value_tasks",
) -> Values:
    """Return the values and the tasks under which they arise."""
    parents = []
    for column, task in (value_tasks or {}).items():
        if task is None:
            parents.append(-1)
        elif isinstance(task, str):
            if task not in task_names:
                raise ValueError(
                    f"{parameter} has the task {task!r} for column {column!r}; the "
                    f"tasks are {list(task_names)}.{did_you_mean(task, task_names)}"
                )
            parents.append(list(task_names).index(task))
        elif -len(task_names) <= task < len(task_names):
            parents.append(int(task) % len(task_names))
        else:
            raise ValueError(
                f"{parameter} has task {task} for column {column!r}, but there are "
                f"{len(task_names)} tasks, {list(task_names)}."
            )
    shared = set(names) & set(task_names)
    if shared:
        raise ValueError(f"A value and a task have the name {shared.pop()!r}.")
    return Values(names=names, parents=tuple(parents))


def read_amounts(
    columns: Sequence[Any],
    values: Values,
    events: np.ndarray,
    missing: np.ndarray | None,
    *,
    parameter: str = "value_tasks",
    input_name: str = "Y",
) -> np.ndarray:
    """Return amounts, float64 `(n_samples, n_values)`, NaN where none is learnt.

    There is none without the event under which the amount arises, and none if it is
    missing. `events` and `missing` are those of the tasks.
    """
    amounts = np.empty((len(events), len(values)), dtype=np.float64)
    for index, (column, name, parent) in enumerate(
        zip(columns, values.names, values.parents, strict=True)
    ):
        happened = np.ones(len(events), dtype=bool)
        is_unknown = np.zeros(len(events), dtype=bool)
        if parent >= 0:
            happened = events[:, parent] == 1
            if missing is not None:
                is_unknown = missing[:, parent]
                happened &= ~is_unknown
        column_name = f"column {name!r} of {input_name}"
        read = read_column(column, column_name)
        _check_amounts(
            read,
            column_name,
            happened,
            is_none=~happened & ~is_unknown,
            parameter=parameter,
        )
        amounts[:, index] = np.where(happened & np.isfinite(read), read, np.nan)
    return amounts


def read_column(column: Any, column_name: str) -> np.ndarray:
    """Return a column of amounts as float64, NaN where it is blank."""
    plain = np.asarray(column)
    if plain.dtype.kind in "biuf":
        return plain.astype(np.float64).ravel()
    values = np.asarray(
        column.to_pandas() if hasattr(column, "to_pandas") else column, dtype=object
    ).ravel()
    values = values.copy()
    is_blank = [isinstance(value, str) and not value.strip() for value in values]
    values[np.asarray(is_blank, dtype=bool)] = None
    is_missing = np.frompyfunc(_frames.is_missing, 1, 1)(values).astype(bool)
    amounts = np.full(len(values), np.nan)
    for row in np.flatnonzero(~is_missing):
        amounts[row] = _read_amount(values[row], column_name, int(row))
    return amounts


def _read_amount(value: Any, column_name: str, row: int) -> float:
    """Return an amount as a number."""
    try:
        if isinstance(value, bytes | complex):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"Amounts must be numbers; {column_name} contains {value!r} in row "
            f"{row}. Remove currencies and separators of thousands."
        ) from error


def _check_amounts(
    amounts: np.ndarray,
    column_name: str,
    happened: np.ndarray,
    *,
    is_none: np.ndarray,
    parameter: str,
) -> None:
    """Raise for negative amounts; warn about infinite, absurd and stray ones."""
    is_negative = happened & (amounts < 0)
    if is_negative.any():
        row = int(is_negative.argmax())
        raise ValueError(
            f"Amounts must not be negative; {column_name} contains "
            f"{amounts[row]:g} in row {row}."
        )
    sentence_start = column_name[0].upper() + column_name[1:]
    is_infinite = happened & np.isinf(amounts)
    if is_infinite.any():
        warn_user(
            f"{sentence_start} contains {is_infinite.sum()} infinite amounts, the "
            f"first in row {is_infinite.argmax()}: they count as missing."
        )
    positive = amounts[happened & np.isfinite(amounts) & (amounts > 0)]
    largest = positive.max(initial=0.0)
    median = np.quantile(positive, 0.5, method="lower") if len(positive) else 0.0
    is_absurd = largest > LARGEST_MULTIPLE * median
    # Of shares: the total of the largest numbers would overflow.
    if is_absurd and largest > 0 and (positive / largest).sum() < 1 / LARGEST_SHARE:
        row = int(np.flatnonzero(happened & (amounts == largest))[0])
        warn_user(
            f"{sentence_start} contains the amount {largest:g} in row {row}, while "
            f"the median is {median:g}: it decides on the mean alone. Set it to NaN if "
            "it is a fault of the log."
        )
    n_stray = int(np.count_nonzero(is_none & (amounts > 0)))
    if n_stray:
        warn_user(
            f"{sentence_start} contains {n_stray} amounts in rows without the "
            f"event under which they arise: they are not learnt. Check {parameter}."
        )

"""Times and durations: columns of dates or numbers that order the rows of a log."""

import re
from datetime import UTC, date, datetime, timedelta
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from sk_pwiser._columns import _frames
from sk_pwiser._columns._frames import is_missing
from sk_pwiser._columns._misread import has_id_name

# A number, in the unit of the times or in seconds, a text such as "1h", or a timedelta.
Duration = float | str | timedelta | np.timedelta64

# Kinds of times.
NUMBER = "numbers"
NAIVE = "dates without a time zone"
AWARE = "dates with a time zone"
_SECOND = 10**9
# By the unit in the text of a duration.
_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "ms": 10**6,
    "s": _SECOND,
    "min": 60 * _SECOND,
    "h": 3600 * _SECOND,
    "d": 86_400 * _SECOND,
    "w": 7 * 86_400 * _SECOND,
}
_TEXT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]+)\s*")
# Prefixes of the names of dtypes of pandas, polars and Arrow.
_DATE_DTYPES = ("date", "timestamp")
_NUMBER_DTYPE = re.compile(r"u?int\d|float|double", re.IGNORECASE)
_EPOCH = datetime(1970, 1, 1)

# Names of numbers that are times, in words: "day", "event_ts", "createdAt", "time_ms".
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_TIME_WORDS = {
    "date",
    "datetime",
    "day",
    "epoch",
    "time",
    "timestamp",
    "ts",
    "unixtime",
}
# Words that end the name of a time of their own: "created_at", and "log_timestamp", but
# not "lead_time" or "days".
_LAST_WORDS = {"at", "datetime", "epoch", "timestamp", "ts", "unixtime"}
# Other words that may stand beside the words of a time.
_WORDS_BESIDE = {
    "click", "event", "id", "idx", "impression", "index", "log", "ms", "no", "ns",
    "num", "number", "order", "request", "s", "sec", "seconds", "server", "session",
    "start", "unix", "us", "utc", "view", "visit",
}  # fmt: skip
# Periods whose numbers begin again; from more on, they are numbered over a whole log.
_PERIODS = {"month": 12, "week": 53, "year": 366}
# Distinct times of a clock, and the chance that rows in random order never fall.
_FEWEST_TIMES = 5
_LARGEST_CHANCE = 1e-6
# The seconds of the years 1980 to 2033, which dates as numbers, such as 20260131 and
# 2026013123, are not; and nanoseconds per unit of seconds, ms and us.
_UNIX_NANOSECONDS = 3.2e17, 2e18
_UNIX_UNITS = 1e9, 1e6, 1e3
# Numbers that rise by 1 in so many of the rows count the rows.
_SHARE_OF_UNIT_STEPS = 0.5
_MICROSECOND = timedelta(microseconds=1)


class Times(NamedTuple):
    """Times of a kind: int64 nanoseconds since 1970 in UTC for dates, else numbers."""

    values: npt.NDArray[Any]
    kind: str


def read_times(column: Any, name: str) -> Times:
    """Read numbers, or dates of any library; far and missing ones are errors."""
    if hasattr(getattr(column, "dtype", None), "pyarrow_dtype"):  # of pandas
        column = column.array.__arrow_array__()
    dtype = getattr(column, "dtype", getattr(column, "type", None))
    zone = getattr(dtype, "time_zone", getattr(dtype, "tz", None))
    if hasattr(column, "null_count"):  # of polars and Arrow, whose values are in UTC
        _refuse_missing(np.asarray(column.is_null()), name)
    elif hasattr(column, "iloc"):
        _refuse_missing(column.isna().to_numpy(), name)
        column = (column if zone is None else column.dt.tz_convert(None)).to_numpy()
    times = _read_array(np.asarray(column), name, dtype)
    return times if zone is None else times._replace(kind=AWARE)


def times_of(X: Any, time: Any) -> Times:
    """Read times that are given as such or as the name of a column of a table."""
    if isinstance(time, str):
        return read_times(_frames.column_of(X, "time", time), time)
    # A Series is named in errors.
    name = getattr(time, "name", None)
    return read_times(_frames.collected(time), "time" if name is None else name)


def date_columns(X: Any) -> tuple[list[Any], list[bool]]:
    """Return the names of the columns of a table, and whether each one holds dates.

    Times of the day are no dates. Arrays and sparse tables have no names. Queries do
    not run: their types tell; of some wrappers and streams, nothing does.
    """
    if hasattr(X, "_used_columns"):  # files
        schema = X._dataset.schema
        kinds = {name: schema.field(name).type for name in X.features}
    elif hasattr(X, "collect_schema"):  # lazy ones of polars and narwhals
        kinds = dict(X.collect_schema().items())
    elif hasattr(X, "column_names") or hasattr(X, "read_all"):  # of Arrow
        kinds = dict(zip(X.schema.names, X.schema.types, strict=True))
    elif _frames.is_dataframe(X):
        X = _frames.collected(X)  # refuses frames of packages that are not read
        columns = _frames.list_columns(X)
        return list(X.columns), [_holds_dates(column) for column in columns]
    else:
        return [], []
    is_date = [str(kind).lower().startswith(_DATE_DTYPES) for kind in kinds.values()]
    return list(kinds), is_date


def unix_unit(ends: npt.NDArray[Any]) -> float | None:
    """Return the nanoseconds per unit of Unix times, None if the numbers are none."""
    first, last = _UNIX_NANOSECONDS
    for unit in _UNIX_UNITS:
        if (ends * unit >= first).all() and (ends * unit <= last).all():
            return unit
    return None


def clock_columns(X: Any) -> list[str]:
    """Return the names of numbers of a table that are the time of its rows.

    They never fall from row to row, and their names or values are those of a time. Ids
    along which a table is sorted are not. The one with most distinct times comes first.
    """
    if hasattr(X, "column_names") and hasattr(X, "num_rows"):  # of Arrow
        names = X.column_names
        columns = X.columns
    elif _frames.is_dataframe(X):
        names = list(X.columns)
        columns = _frames.list_columns(X)
    else:
        return []  # of queries and streams, which are not read twice, nothing tells
    n_times = {}
    for name, column in zip(names, columns, strict=True):
        dtype = str(getattr(column, "dtype", getattr(column, "type", None)))
        if isinstance(name, str) and _NUMBER_DTYPE.match(dtype):
            is_arrow = not hasattr(column, "dtype")
            values = _frames.to_float(column.to_numpy() if is_arrow else column)
            if is_clock(name, values):
                n_times[name] = np.count_nonzero(np.diff(values))
    return sorted(n_times, key=n_times.__getitem__, reverse=True)


def is_clock(name: str, values: npt.NDArray[np.float64]) -> bool:
    """Return whether numbers never fall, and are times by their name or their values.

    `nan` is not a time: a clock has one in every row.
    """
    if len(values) < _FEWEST_TIMES or not (values[1:] >= values[:-1]).all():
        return False
    if not np.isfinite(values[[0, -1]]).all() or not _has_clock_face(name, values):
        return False
    steps = np.diff(values)
    ends = np.append(np.flatnonzero(steps > 0), len(steps))
    counts = np.diff(ends, prepend=-1)
    log_chance = gammaln(counts + 1).sum() - gammaln(len(values) + 1)
    return len(counts) >= _FEWEST_TIMES and bool(log_chance < np.log(_LARGEST_CHANCE))


def _has_clock_face(name: str, values: npt.NDArray[np.float64]) -> bool:
    words = [word.lower() for word in _WORD.findall(name)]
    if not words:
        return False
    if words[-1] in _LAST_WORDS and words != ["at"]:
        return True
    nouns = {*words} - _WORDS_BESIDE
    if nouns and all(word in _TIME_WORDS or word.isdigit() for word in nouns):
        return not all(word.isdigit() for word in nouns)
    if len(nouns) == 1 and (period := _PERIODS.get(*nouns)):
        return bool(values[-1] > period)
    counts_rows = np.mean(np.diff(values) == 1) > _SHARE_OF_UNIT_STEPS
    is_unix = unix_unit(values[[0, -1]]) is not None
    return is_unix and not counts_rows and not has_id_name(name)


def _holds_dates(column: Any) -> bool:
    name = str(column.dtype).lower()
    if name != "object":
        return name.startswith(_DATE_DTYPES)
    return isinstance(_frames.first_known(column), date | np.datetime64)


def row_times(X: Any, column: str) -> npt.NDArray[np.float64]:
    """Return the times of the rows of a fit as floats.

    Those of dates are microseconds, which floats hold exactly.
    """
    times = read_times(_frames.column_of(X, "time_column", column), column)
    values = times.values if times.kind == NUMBER else times.values // 1000
    return values.astype(np.float64)


def _read_array(values: npt.NDArray[Any], name: str, dtype: Any) -> Times:
    if values.ndim != 1:
        raise ValueError(
            f"Column {name!r} must hold one time per row; its shape is {values.shape}."
        )
    kind = values.dtype.kind
    if kind == "M":
        _refuse_missing(np.isnat(values), name)
        return Times(_nanoseconds(values, name), NAIVE)
    if kind == "f":
        _refuse_missing(np.isnan(values), name)
        if (is_infinite := np.isinf(values)).any():
            raise ValueError(
                f"Column {name!r} must be finite; row {is_infinite.argmax()} is not."
            )
        return Times(values.astype(np.float64), NUMBER)
    if kind in "iu":
        if len(values) and values.max() > np.iinfo(np.int64).max:
            raise ValueError(f"Column {name!r} holds times beyond int64.")
        return Times(values.astype(np.int64), NUMBER)
    if kind != "O":
        raise _unsortable(name, values.dtype if dtype is None else dtype)
    return _read_objects(values, name)


def _read_objects(values: npt.NDArray[Any], name: str) -> Times:
    times = values.tolist()
    _refuse_missing(np.array([is_missing(time) for time in times], dtype=bool), name)
    first_rows: dict[str, int] = {}
    for row, time in enumerate(times):
        first_rows.setdefault(_zone_of(time, name, row), row)
    if len(first_rows) > 1:
        (zone, row), (other_zone, other_row), *_ = first_rows.items()
        raise TypeError(
            f"Column {name!r} must hold times of one kind and one time zone: row {row} "
            f"holds {zone}, row {other_row} {other_zone}. Convert all of them to UTC."
        )
    zone = next(iter(first_rows), NUMBER)
    if zone == NUMBER:
        numbers = np.array(times)
        if numbers.dtype == object:  # fractions, or integers beyond uint64
            numbers = numbers.astype(np.float64)
        return _read_array(numbers, name, numbers.dtype)
    nanoseconds = [to_number(time, name, row) for row, time in enumerate(times)]
    return Times(np.array(nanoseconds, dtype=np.int64), _kind_of_zone(zone))


def _kind_of_zone(zone: str) -> str:
    return zone if zone in (NUMBER, NAIVE) else AWARE


def _zone_of(value: Any, name: str, row: int) -> str:
    """Return the kind of a time, with its zone if it has one."""
    if isinstance(value, datetime):
        return NAIVE if value.tzinfo is None else f"dates of {value.tzinfo}"
    if isinstance(value, date | np.datetime64):
        return NAIVE
    is_other = isinstance(value, bool | np.bool_ | np.timedelta64)
    if isinstance(value, Real) and not is_other:
        return NUMBER
    raise _unsortable(name, f"{value!r} in row {row}")


def _unsortable(name: str, content: Any) -> TypeError:
    return TypeError(
        f"Column {name!r} must hold times that can be sorted and subtracted: numbers "
        f"or dates; it holds {content}. Text is read by pandas.to_datetime."
    )


def _refuse_missing(is_missing_time: npt.NDArray[np.bool_], name: str) -> None:
    if is_missing_time.any():
        raise ValueError(
            f"Column {name!r} must hold a time in every row; {is_missing_time.sum()} "
            f"are missing, the first in row {is_missing_time.argmax()}."
        )


def _nanoseconds(
    values: npt.NDArray[Any], name: str, first: int = 0
) -> npt.NDArray[np.int64]:
    """Return dates in nanoseconds since 1970; `first` is the row of the first one."""
    try:
        converted = values.astype("M8[ns]")
        is_far = converted.astype(values.dtype) != values
    except OverflowError:  # of numpy 2.5 and newer; nanoseconds end 292 years from 1970
        is_far = abs(values.astype("M8[Y]").astype(np.int64)) > 291
    if is_far.any():
        row = int(is_far.argmax())
        raise _too_far(name, values[row], first + row)
    return converted.astype(np.int64)


def _too_far(name: str, value: Any, row: int) -> ValueError:
    return ValueError(
        f"Column {name!r} holds dates that are too far from 1970 for nanoseconds: "
        f"{value} in row {row}."
    )


def read_time(value: Any, name: str, kind: str) -> Any:
    """Read a single time of a given kind, as `read_times` reads a column."""
    if kind == NUMBER and type(value) in (int, float):
        number = value
        kind_of_value = NUMBER
    elif is_missing(value):
        raise ValueError(f"{name!r} must be a time; got {value!r}.")
    else:
        kind_of_value = _kind_of_zone(_zone_of(value, name, 0))
        number = to_number(value, name)
    if number != number or number in (np.inf, -np.inf):
        raise ValueError(f"{name!r} must be a finite time; got {value!r}.")
    check_kind(kind_of_value, kind, name)
    return number


def check_kind(kind: str, expected: str, name: str) -> None:
    if kind != expected:
        raise TypeError(f"Column {name!r} held {expected} before; now it holds {kind}.")


def to_number(value: Any, name: str, row: int = 0) -> Any:
    """Return a number as such, and a date in nanoseconds since 1970 in UTC."""
    if isinstance(value, np.datetime64):
        return int(_nanoseconds(np.array([value]), name, row)[0])
    if not isinstance(value, date):  # of which a datetime is one
        return int(value) if isinstance(value, Integral) else float(value)
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    try:
        if hasattr(value, "value"):  # a Timestamp of pandas, in nanoseconds
            return value.value
        if value.tzinfo is not None:
            value = value.astimezone(UTC).replace(tzinfo=None)
        number = (value - _EPOCH) // _MICROSECOND * 1000
    except OverflowError:
        number = 2**63
    if abs(number) >= 2**63:
        raise _too_far(name, value, row)
    return number


def check_duration(value: Any, name: str, *, zero: bool = False) -> None:
    number = _to_duration(value, name)
    if not (0 < number < float("inf") or (zero and number == 0)):
        rule = ">= 0" if zero else "> 0"
        raise ValueError(f"{name} must be finite and {rule}; got {value!r}.")


def read_duration(value: Any, name: str, kind: str) -> Any:
    """Return a duration in the unit of times of a kind: nanoseconds for dates."""
    is_number = isinstance(value, Real) and not isinstance(value, np.timedelta64)
    duration = _to_duration(value, name)
    if kind != NUMBER:
        return round(duration * (10**9 if is_number else 1))
    if not is_number and duration != 0:
        raise ValueError(
            f"{name} must be a number, in the unit of the times, since these are "
            f"numbers; got {value!r}."
        )
    # Times may be integers that floats do not hold exactly.
    return int(duration) if float(duration).is_integer() else duration


def _to_duration(value: Any, name: str) -> Any:
    """Return a number as such, and other durations in nanoseconds."""
    if isinstance(value, np.timedelta64) and not np.isnat(value):
        if np.datetime_data(value.dtype)[0] == "generic":
            raise ValueError(f"{name} must be a timedelta with a unit; got {value!r}.")
        return int(value.astype("m8[ns]").astype(np.int64))
    if isinstance(value, timedelta) and not is_missing(value):
        return value // _MICROSECOND * 1000
    if isinstance(value, str):
        match = _TEXT.fullmatch(value.lower())
        if match is None or match[2] not in _NANOSECONDS:
            raise ValueError(
                f"{name} must be a number with a unit of {list(_NANOSECONDS)}, such as "
                f"'1h'; got {value!r}."
            )
        return round(float(match[1]) * _NANOSECONDS[match[2]])
    if isinstance(value, Real) and not isinstance(value, bool | np.timedelta64):
        return int(value) if isinstance(value, Integral) else float(value)
    raise TypeError(
        f"{name} must be a number, a text such as '1h', or a timedelta; got {value!r}."
    )


def duration_label(value: Any) -> str:
    is_number = isinstance(value, Real) and not isinstance(value, np.timedelta64)
    if is_number:
        return f"{value:g}" if abs(value) < 10**6 else str(value)
    number = _to_duration(value, "a duration")
    for unit in ("d", "h", "min", "s", "ms", "us"):
        if number % _NANOSECONDS[unit] == 0:
            return f"{number // _NANOSECONDS[unit]}{unit}"
    return f"{number}ns"

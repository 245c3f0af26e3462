"""Single values in columns of Python objects, and what kind of column they make."""

import datetime

import numpy as np

from sk_pwiser._labels import is_missing

DATES = (
    datetime.date,
    datetime.time,
    datetime.timedelta,
    np.datetime64,
    np.timedelta64,
)
# Beginnings of the names of dtypes of dates, times and spans of time.
DATE_DTYPES = ("date", "time", "duration", "period")
ADVICE_FOR_DATES = (
    "Derive numbers from dates, such as the hour, the weekday or the age in days"
)

# What float() would read as a number, or refuse without the value in its message.
_NOT_NUMBERS = {
    "text": (str, bytes),
    "complex values": (complex, np.complexfloating),
    "dates": DATES,
    "lists": (list, tuple, set, frozenset, np.ndarray),
}


def first_known(column):
    """Return the first value of a column that is not missing, or None."""
    return next((value for value in column if not is_missing(value)), None)


def has_date_dtype(column):
    """Return whether a column has a dtype of dates, times or spans of time."""
    return str(column.dtype).lower().startswith(DATE_DTYPES)


def contains_text(column):
    """Return whether a column of objects contains text."""
    return any(issubclass(cls, str) for cls in set(map(type, column)))


def check_numbers(column):
    """Raise a TypeError if a column of objects contains text, dates or lists."""
    types = set(map(type, column))
    for kind, classes in _NOT_NUMBERS.items():
        if not any(issubclass(cls, classes) for cls in types):
            continue
        found = (value for value in column if isinstance(value, classes))
        # NaT is a missing date.
        value = first_known(found)
        if value is not None:
            advice = f". {ADVICE_FOR_DATES}" if kind == "dates" else ""
            raise TypeError(f"it contains {kind}, such as {value!r}{advice}")

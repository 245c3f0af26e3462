"""Kinds of category values, which are never equal, and text that looks misread."""

import datetime
import re
from collections import defaultdict
from decimal import Decimal
from functools import cache
from numbers import Integral, Real

import numpy as np

from sk_pwiser._columns import _frames

# Text is checked in so many values of a column, the first ones.
N_CHECKED = 1_000
# A column has many values from this number on.
MANY_VALUES = 100


def sort_values(values):
    """Sort distinct values: numbers, text, then others by type if comparable."""
    groups = defaultdict(list)
    for value in values:
        groups[_rank(type(value))].append(value)
    ordered = []
    for _, group in sorted(groups.items()):
        try:
            ordered += sorted(group)
        except TypeError:
            ordered += group
    return ordered


KINDS = "numbers", "text", "other objects"


# Other objects, which are never equal; earlier versions did not tell them apart.
TIMES = {"times", "times with a time zone", "dates"}


@cache
def _rank(cls):
    """Return the index of the kind of a class, and the name of one of other objects."""
    if issubclass(cls, str):
        return 1, ""
    # Decimal and the bool of numpy are comparable with numbers, but not registered as
    # Real.
    if issubclass(cls, Real | Decimal | np.bool_):
        return 0, ""
    return 2, f"{cls.__module__}.{cls.__qualname__}"


def kinds_of(values, *, with_large=False):
    """Return the kinds of values, also those of `LARGE` numbers if asked for."""
    classes = set(map(type, values))
    kinds = {KINDS[_rank(c)[0]] for c in classes if not issubclass(c, datetime.date)}
    if any(issubclass(c, datetime.date) for c in classes):
        kinds |= {_frames.kind_of(v) for v in values if isinstance(v, datetime.date)}
    if with_large and "numbers" in kinds:
        kinds |= {kind for kind in LARGE if _find_large(values, kind) is not None}
    return kinds


# A number as text. A zero before another digit is a sign of a code.
NUMBER = re.compile(r"\s*[-+]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][-+]?\d+)?\s*")


# Numbers as people write them: with separators of thousands or a decimal comma.
THOUSANDS = re.compile(r"[-+]?\d{1,3}([,'\s]\d{3})+(\.\d+)?")


DECIMAL_COMMA = re.compile(r"[-+]?(\d+|\d{1,3}([.\s]\d{3})+),\d{1,2}")


CURRENCIES = "$€£¥"


# A date as text, with or without a time.
DATE = re.compile(r"\s*(\d{4}([-/.])\d\d?\2\d\d?|\d\d?([-/.])\d\d?\3\d{4})([T\s].*)?")


def split_values(values):
    """Return pairs of a number and its text among distinct values that hold both.

    Text with zeros in front, such as "007", is another value than the number.
    """
    texts = [value for value in values if isinstance(value, str)]
    text_of = {_to_number(text): text for text in texts if NUMBER.fullmatch(text)}
    numbers = [v for v in values if _rank(type(v))[0] == 0 and not isinstance(v, bool)]
    return [(number, text_of[number]) for number in numbers if number in text_of]


def _to_number(text):
    """Return a number as text as an int, which is exact, or as a float."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def misread_content(values):
    """Return "amounts" or "dates" if many distinct values are such text, else None.

    Half of the amounts are fractions, since ids are whole numbers.
    """
    values = values[:N_CHECKED]
    if len(values) < MANY_VALUES:
        return None
    if all(map(DATE.fullmatch, values)):
        return "dates"
    n_fractions = 0
    for value in values:
        text = value.strip().strip(CURRENCIES).strip()
        if THOUSANDS.fullmatch(text):
            text = re.sub(r"[,'\s]", "", text)
        elif DECIMAL_COMMA.fullmatch(text):
            text = re.sub(r"[.\s]", "", text).replace(",", ".")
        if not NUMBER.fullmatch(text):
            return None
        n_fractions += float(text) % 1 != 0
    return "amounts" if 2 * n_fractions >= len(values) else None


# Doubles hold all whole numbers up to this magnitude.
EXACT = 2**53


# The kinds of numbers above it: a float may be an integer that was rounded.
LARGE = {
    "integers above 2^53": (Integral, Decimal),
    "floats above 2^53": (float, np.floating),
}


def inexact_classes(kinds):
    """Return the classes of large numbers that equal no value, beside known `kinds`.

    A number of them may compare equal to a value, which is another integer if one of
    the two was rounded.
    """
    absent = LARGE.keys() - kinds
    return LARGE[absent.pop()] if len(absent) == 1 else ()


def _find_large(values, kind):
    """Return a number of one of the kinds of `LARGE`, or None."""
    types = set(map(type, values))
    for cls in types:
        if issubclass(cls, LARGE[kind]):
            numbers = values
            if len(types) > 1:
                numbers = [value for value in values if type(value) is cls]
            for value in (max(numbers), min(numbers)):
                if not -EXACT <= value <= EXACT:
                    return value
    return None


def check_kinds(values, fitted_kinds, start, middle):
    """Raise if no value can equal one of `fitted_kinds`, such as text and numbers.

    `start` and `middle` are parts of the message before the kinds of both.
    """
    kinds = kinds_of(values)
    earlier_kinds = fitted_kinds - LARGE.keys()
    equal_kinds = TIMES if KINDS[2] in earlier_kinds else set()
    if kinds and earlier_kinds and kinds.isdisjoint(earlier_kinds | equal_kinds):
        earlier_text = " and ".join(sorted(earlier_kinds))
        text = " and ".join(sorted(kinds))
        raise ValueError(
            f"{start} {earlier_text}{middle} {text}, such as {values[0]!r}: none can "
            f"be equal. Convert {text} to {earlier_text}."
        )


def check_exact(values, fitted_kinds, start, middle):
    """Raise if integers were rounded to floats, here or among `fitted_kinds`.

    The message is made as that of `check_kinds`.
    """
    earlier_kinds = LARGE.keys() & fitted_kinds
    for kind in LARGE.keys() - earlier_kinds if earlier_kinds else ():
        value = _find_large(values, kind)
        if value is not None:
            raise ValueError(
                f"{start} {earlier_kinds.pop()}{middle} {kind}, such as {value!r}. "
                "Integers above 2^53 are rounded as floats; use a dtype such as "
                "'Int64' or text."
            )

"""Warnings about columns that fit has learnt."""

from collections.abc import Iterable, Sequence
from typing import Any

from sk_pwiser._columns._base import Column, TableCells
from sk_pwiser._columns._number import FEW_VALUES
from sk_pwiser._columns._value_kinds import split_values
from sk_pwiser._utils._warnings import warn_user

# What category columns contain that look misread, and how one of them is converted.
_MISREAD = {
    "amounts": "numbers as text, with many distinct values. If they are amounts, "
    "convert them, for example by X[{!r}].astype(float), without currencies and "
    "separators of thousands.",
    "dates": "dates as text: later dates will be unseen values. Convert them, for "
    "example by pandas.to_datetime(X[{!r}]), and derive numbers, such as the hour, "
    "the weekday or the age in days.",
}


def warn_about_misread(table: TableCells, columns: Iterable[Column]) -> None:
    """Warn about codes among the numbers of a table, and about misread categories."""
    names = [
        column.name
        for column in table.columns.values()
        if column.looks_like_codes(table.cells[column.name])
    ]
    if names:
        warn_user(
            f"The numeric columns {names} contain whole numbers that look like codes "
            "or ids, but are encoded by their size. Name codes in categorical_features "
            "(inspection.describe_impressions shows what they gain); any list there, "
            "even an empty one, silences this warning."
        )
    for content, text in _MISREAD.items():
        names = [c.name for c in columns if c.content_ == content]
        if names:
            warn_user(
                f"The category columns {names} contain {text.format(names[0])} Any "
                "list as categorical_features, even [], silences this warning."
            )


def warn_about_constants(columns: Iterable[Column]) -> None:
    """Warn about columns without two different values."""
    names = [c.name for c in columns if c.has_one_value]
    if names:
        warn_user(
            f"The columns {names} have the same value, or none, in all rows of fit. "
            "Leave them out, or check how they were read."
        )


def warn_about_split_values(columns: Iterable[Column]) -> None:
    """Warn about columns in which a number and its text both occur."""
    names = []
    for column in columns:
        if column.content_ != "numbers and their texts":
            continue
        pairs = split_values(column.stored_values())  # empty if they are hashed
        example = f" ({pairs[0][0]!r} and {pairs[0][1]!r})" if pairs else ""
        names.append(f"{column.name!r}{example}")
    if names:
        warn_user(
            "Columns contain numbers that also occur as text, which count as two "
            f"values each: {', '.join(names)}. A file that is read in parts may have "
            "such columns: read ids as text, or convert them by .astype(str)."
        )


def warn_about_few_values(
    columns: Iterable[Column], with_rates: Sequence[Any] = ()
) -> None:
    """Warn about columns learnt from few values, and those `with_rates` of few rows."""
    names = [c.name for c in columns if c.has_few_values]
    names += [name for name in with_rates if name not in names]
    if names:
        warn_user(
            f"The encoding of the columns {names} is learnt from fewer than "
            f"{FEW_VALUES} values: later numbers will be clipped to their "
            "range, and rates keep their scale. Pass more rows, or begin with fit."
        )

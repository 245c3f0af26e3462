"""Columns that look misread."""

import re

import numpy as np

from sk_pwiser._columns import _factorize, _number, _value_kinds
from sk_pwiser._columns._frames import describe, to_float
from sk_pwiser._utils._warnings import warn_user

# Names of ids: "id", "user_id", "userId", "id_user", "zip", "country_code", "site_id2".
ID_NAME = re.compile(
    r"(?i:^(id|code)[^a-z])|"
    r"((?i:(^|[^a-z])((user|item|ad|product|customer|session|device)?id"
    r"|uid|uuid|guid|code|zip|zipcode|postcode|hash|sku))|[a-z](Id|ID|Code|Zip))s?\d*$"
)


# Columns are checked by about this number of rows.
SAMPLE_ROWS = 2**18


# Largest share of the rows with distinct values in a column of ids; a column with more
# may number the rows.
MAX_DISTINCT = 0.95


# Without such a name, ids have at least MANY_VALUES values, and unlike amounts:
# - in this share of neighbouring values, one value is at least twice as frequent as
#   the other, and not by chance;
MIN_UNEQUAL = 0.1


# - the values with one last digit, such as multiples of 10 and prices below round ones,
#   are at most this share of the values and of the rows;
MAX_SAME_DIGIT = 0.2


# - at most this correlation between the frequencies of neighbours, on a log scale, if
#   half of the numbers from 0 or 1 on occur, and ...
MIN_COVERAGE, MAX_SMOOTH = 0.5, 0.7


# ... otherwise; the range then has large gaps, or begins near 0.
MAX_COVERAGE, NEAR_ZERO, MAX_SMOOTH_SPREAD = 0.1, 0.01, 0.15


def has_id_name(name):
    return ID_NAME.search(str(name)) is not None


def looks_like_codes(column, name=""):
    """Return whether whole numbers that repeat look like codes or ids, not amounts."""
    values = to_float(column)
    values = values[:: max(1, len(values) // SAMPLE_ROWS)]
    values = values[~np.isnan(values)]
    if (values != np.floor(values)).any():
        return False
    distinct, counts = np.unique(values, return_counts=True)
    if not 2 < len(distinct) <= MAX_DISTINCT * len(values):
        return False
    return has_id_name(name) or _has_unrelated_counts(distinct, counts)


def _has_unrelated_counts(distinct, counts):
    first, last, n_values = distinct[0], distinct[-1], len(distinct)
    if n_values < _value_kinds.MANY_VALUES or first < 0:
        return False
    fewer, more = np.sort([counts[1:], counts[:-1]], axis=0)
    is_unequal = (more >= 2 * fewer) & (more - fewer > 2 * np.sqrt(more + fewer))
    digits = (distinct % 10).astype(np.intp)
    of_values, of_rows = np.bincount(digits), np.bincount(digits, counts)
    same_digit = max(of_values.max() / n_values, of_rows.max() / counts.sum())
    if is_unequal.mean() < MIN_UNEQUAL or same_digit >= MAX_SAME_DIGIT:
        return False
    smooth = np.corrcoef(np.log(counts[1:]), np.log(counts[:-1]))[0, 1]
    coverage = n_values / (last - first + 1)
    if first <= 1 and coverage >= MIN_COVERAGE:
        return bool(smooth < MAX_SMOOTH)
    is_spread = coverage < MAX_COVERAGE or first <= NEAR_ZERO * last
    return bool(is_spread and smooth < MAX_SMOOTH_SPREAD)


# What category columns contain that look misread, and how one of them is converted.
_MISREAD = {
    "amounts": "numbers as text, with many distinct values. If they are amounts, "
    "convert them, for example by X[{!r}].astype(float), without currencies and "
    "separators of thousands.",
    "dates": "dates as text: later dates will be unseen values. Convert them, for "
    "example by pandas.to_datetime(X[{!r}]), and derive numbers, such as the hour, "
    "the weekday or the age in days.",
}


def warn_about_misread(numbers, columns):
    """Warn about codes among the pairs `numbers`, and about misread categories."""
    names = [name for name, column in numbers if looks_like_codes(column, name)]
    if names:
        warn_user(
            f"The numeric columns {names} contain whole numbers that look like codes "
            "or ids, but are encoded by their size. Name codes in categorical_features "
            "(inspection.describe_impressions shows what they gain); any list there, "
            "even an empty one, silences this warning."
        )
    for content, text in _MISREAD.items():
        names = [c.name for c in columns if getattr(c, "content_", None) == content]
        if names:
            warn_user(
                f"The category columns {names} contain {text.format(names[0])} Any "
                "list as categorical_features, even [], silences this warning."
            )


def warn_about_constants(columns):
    names = [c.name for c in columns if getattr(c, "has_one_value", False)]
    if names:
        warn_user(
            f"The columns {names} have the same value, or none, in all rows of fit. "
            "Leave them out, or check how they were read."
        )


def warn_about_split_values(columns):
    """Warn about columns in which a number and its text both occur."""
    names = []
    for column in columns:
        if getattr(column, "content_", None) != "numbers and their texts":
            continue
        pairs = _value_kinds.split_values(column.codes_)  # empty if values are hashed
        example = f" ({pairs[0][0]!r} and {pairs[0][1]!r})" if pairs else ""
        names.append(f"{column.name!r}{example}")
    if names:
        warn_user(
            "Columns contain numbers that also occur as text, which count as two "
            f"values each: {', '.join(names)}. A file that is read in parts may have "
            "such columns: read ids as text, or convert them by .astype(str)."
        )


def warn_about_few_values(columns, with_rates=()):
    """Warn about columns learnt from few values, and those `with_rates` of few rows."""
    names = [c.name for c in columns if getattr(c, "has_few_values", False)]
    names += [name for name in with_rates if name not in names]
    if names:
        warn_user(
            f"The encoding of the columns {names} is learnt from fewer than "
            f"{_number.FEW_VALUES} values: later numbers will be clipped to their "
            "range, and rates keep their scale. Pass more rows, or begin with fit."
        )


# Largest share of the distinct whole numbers of a column that may be lost as doubles.
MAX_MERGED = 0.01


def refuse_merged(name, column):
    """Raise a ValueError if doubles cannot tell the whole numbers of a column apart."""
    kinds = "int64", "uint64", "int128", "object", "decimal"
    if not str(column.dtype).lower().startswith(kinds):
        return
    if np.fmax.reduce(np.abs(to_float(column)), initial=0) <= 2**53:
        return
    _, values = _factorize.factorize(column)
    doubles = dict(zip(map(float, values), values, strict=True))
    if len(doubles) < (1 - MAX_MERGED) * len(values):
        one = next(value for value in values if doubles[float(value)] != value)
        raise ValueError(
            f"Column {describe(name, column)} contains numbers above 2**53 that are "
            f"equal in double precision, such as {one} and {doubles[float(one)]}. Name "
            "ids in categorical_features, or subtract the smallest value."
        )

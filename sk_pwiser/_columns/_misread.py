"""Columns that look misread."""

import re

import numpy as np

from sk_pwiser._columns import _factorize, _value_kinds
from sk_pwiser._columns._frames import describe, to_float

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


# - at most this correlation between the frequencies of neighbours, on a log scale, ...
MAX_SMOOTH = 0.7
#   ... if this share of the numbers from 0 or 1 on occurs, ...
MIN_COVERAGE = 0.5


#   ... and otherwise this one: the range then has large gaps, of which at most this
#   share occurs, or begins at this share of the largest number.
MAX_SMOOTH_SPREAD = 0.15
MAX_COVERAGE = 0.1
NEAR_ZERO = 0.01


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
    first = distinct[0]
    last = distinct[-1]
    n_values = len(distinct)
    if n_values < _value_kinds.MANY_VALUES or first < 0:
        return False
    fewer, more = np.sort([counts[1:], counts[:-1]], axis=0)
    is_unequal = (more >= 2 * fewer) & (more - fewer > 2 * np.sqrt(more + fewer))
    digits = (distinct % 10).astype(np.intp)
    share_of_values = np.bincount(digits).max() / n_values
    share_of_rows = np.bincount(digits, counts).max() / counts.sum()
    same_digit = max(share_of_values, share_of_rows)
    if is_unequal.mean() < MIN_UNEQUAL or same_digit >= MAX_SAME_DIGIT:
        return False
    smooth = np.corrcoef(np.log(counts[1:]), np.log(counts[:-1]))[0, 1]
    coverage = n_values / (last - first + 1)
    if first <= 1 and coverage >= MIN_COVERAGE:
        return bool(smooth < MAX_SMOOTH)
    is_spread = coverage < MAX_COVERAGE or first <= NEAR_ZERO * last
    return bool(is_spread and smooth < MAX_SMOOTH_SPREAD)


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
        value = next(value for value in values if doubles[float(value)] != value)
        equal = doubles[float(value)]
        raise ValueError(
            f"Column {describe(name, column)} contains numbers above 2**53 that are "
            f"equal in double precision, such as {value} and {equal}. Name "
            "ids in categorical_features, or subtract the smallest value."
        )

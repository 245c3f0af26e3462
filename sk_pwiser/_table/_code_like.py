"""A warning about numeric columns whose values look like codes or ids."""

import numpy as np

from sk_pwiser._table._dataframe import row_chunks, slice_rows, to_float
from sk_pwiser._utils import warn_user

# Ages, hours and other small ranges have fewer values.
MIN_VALUES = 100
# Share of the whole numbers from the first to the last value that occur. Counts and
# prices have a long tail with large gaps.
MIN_COVERAGE = 0.5
# Share of neighbouring numbers of which one is at least twice as frequent as the other,
# and not by chance. The frequencies of ages, counts and prices change gradually.
MIN_UNEQUAL = 0.1
# Rounded amounts, such as times of the day, are frequent at multiples of five or ten:
# numbers at these distances are more alike than neighbours, those of codes are not.
ROUNDING = (5, 10)
MIN_RATIO = 0.8


def warn_about_codes(columns):
    """Warn, once for all columns, about numbers that look like codes.

    Parameters
    ----------
    columns : list of (str or int, column)
        Names and values of the numeric columns, which can be read as numbers.
    """
    names = [name for name, column in columns if looks_like_codes(column)]
    if names:
        warn_user(
            f"The numeric columns {names} contain whole numbers that look like codes "
            "or ids, but are encoded by their size. List the category columns in "
            "categorical_features, with these columns if they are codes; any such "
            "list, also one without them, silences this warning.",
        )


def looks_like_codes(column):
    """Return whether the values of a numeric column look like codes.

    They do if they are whole numbers from 0 or 1 on, if at least 100 of them and half
    of the numbers up to the largest one occur, and if neighbouring numbers have
    unrelated frequencies: in a tenth of the pairs one is at least twice as frequent as
    the other, by more than two standard errors. Numbers that are frequent at multiples
    of five or ten are taken for rounded amounts.
    """
    for rows in row_chunks(len(column)):  # most columns end at the first chunk
        values = _known(slice_rows(column, rows))
        if (values != np.floor(values)).any() or values.min(initial=0) < 0:
            return False
    values = _known(column)
    first, last = values.min(initial=np.inf), values.max(initial=0)
    if first not in (0, 1) or last > len(values) / MIN_COVERAGE:
        return False
    counts = np.bincount(values.astype(np.int64))[int(first) :]
    n_values = np.count_nonzero(counts)
    if n_values < max(MIN_VALUES, MIN_COVERAGE * len(counts)):
        return False
    of_neighbours = _share_unequal(counts, 1)
    at_distances = min(_share_unequal(counts, distance) for distance in ROUNDING)
    is_rounded = at_distances < MIN_RATIO * of_neighbours
    return of_neighbours >= MIN_UNEQUAL and not is_rounded


def _share_unequal(counts, distance):
    """Return the share of pairs at a distance with clearly unequal frequencies."""
    pairs = [counts[distance:], counts[:-distance]]
    fewer, more = np.sort(pairs, axis=0)
    is_unequal = (more >= 2 * fewer) & (more - fewer > 2 * np.sqrt(more + fewer))
    return float(is_unequal.mean())


def _known(column):
    values = to_float(column)
    return values[~np.isnan(values)]

"""Settings of vocabularies: one number for all category columns, or one by name."""

import math
from collections.abc import Mapping
from numbers import Integral
from typing import NamedTuple

from sk_pwiser._utils import check_integer

MIN_FREQUENCY = 2

# Largest values of the settings. Every bucket has a code, in use or not.
LARGEST = {
    "min_frequency": math.inf,
    "max_categories": math.inf,
    "n_hash_buckets": 2**31 - 1,
}


class Vocabulary(NamedTuple):
    """Which values of a category column have codes of their own.

    Parameters
    ----------
    min_frequency : int, default=2
        Values that occur in fewer rows share a code.
    max_categories : int, default=None
        Largest number of codes of values, including the shared one, as in
        scikit-learn's OrdinalEncoder; None for no limit.
    n_hash_buckets : int, default=None
        Number of codes over which all other values are distributed by their hashes;
        with it, no value has its own code unless `max_categories` is given. None for
        the shared code.
    """

    min_frequency: int = MIN_FREQUENCY
    max_categories: int | None = None
    n_hash_buckets: int | None = None

    @property
    def max_values(self):
        """Largest number of values with codes of their own; None for no limit."""
        if self.max_categories is None:
            return None if self.n_hash_buckets is None else 0
        return self.max_categories - 1


def check_vocabulary(params):
    """Raise if a number in a mapping of settings is invalid for every table.

    Raises
    ------
    TypeError or ValueError
        If a number, or one in a dict by column, is not an integer >= 1, or if there
        are too many buckets for codes.
    """
    for name in Vocabulary._fields:
        value = params[name]
        if isinstance(value, Mapping):
            for column, number in value.items():
                _check_count(f"{name}[{column!r}]", number, LARGEST[name])
        elif value is not None or name == "min_frequency":
            _check_count(name, value, LARGEST[name])


def _check_count(name, value, largest):
    if check_integer(name, value, at_least=1) > largest:
        raise ValueError(f"{name} must be at most {largest}; got {value}.")


def read_vocabularies(params, names, is_category):
    """Return the vocabulary settings of each column.

    Parameters
    ----------
    params : mapping
        `min_frequency`, `max_categories` and `n_hash_buckets`: a number for all
        category columns, or a dict of names or indices of columns to numbers.
    names : list of str or int
        Names of all columns.
    is_category : list of bool
        Whether they are category columns.

    Returns
    -------
    list of Vocabulary

    Raises
    ------
    ValueError
        If a dict names a column that is not a category column, or one column twice.
    """
    defaults = Vocabulary()._asdict()
    numbers = [
        _numbers(name, params[name], default, names, is_category)
        for name, default in defaults.items()
    ]
    return [Vocabulary(*of_column) for of_column in zip(*numbers, strict=True)]


def _numbers(name, value, default, names, is_category):
    if not isinstance(value, Mapping):
        return [value] * len(names)
    found = {}
    for column, number in value.items():
        index = _index(name, column, names)
        if not is_category[index]:
            known = [n for n, flag in zip(names, is_category, strict=True) if flag]
            raise ValueError(
                f"{name} contains {column!r}, which is not a category column; the "
                f"category columns are {known}."
            )
        if index in found:
            raise ValueError(f"{name} contains the column {names[index]!r} twice.")
        found[index] = number
    return [found.get(index, default) for index in range(len(names))]


def _index(name, column, names):
    if isinstance(column, str) and column in names:
        return names.index(column)
    is_index = isinstance(column, Integral) and not isinstance(column, bool)
    if is_index and -len(names) <= column < len(names):
        return int(column) % len(names)
    raise ValueError(
        f"{name} contains {column!r}, which is not a column of X; its columns are "
        f"{names}."
    )

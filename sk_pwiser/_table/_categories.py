"""Category columns: codes of values, missing values and values not seen in fit.

Every category column has code 0 for missing values and code 1 for values that were
not seen in fit; values too rare to learn from share code 1, so that it is trained.
"""

from numbers import Number
from typing import NamedTuple

import numpy as np

from sk_pwiser._table._dataframe import count, factorize
from sk_pwiser._table._numeric import infinity_error

MISSING, UNSEEN, FIRST_VALUE = 0, 1, 2


class Codes(NamedTuple):
    """The codes of a category column, looked up when they are asked for.

    Parameters
    ----------
    positions : integer ndarray of shape (n_samples,)
        Where each row's code stands in `table`; -1 is the last entry.
    table : integer ndarray
        Codes.
    """

    positions: np.ndarray
    table: np.ndarray

    def of(self, rows):
        """Return the codes of some rows, a slice or a position."""
        return self.table[self.positions[rows]]


class CategoryColumn:
    """Codes of one category column.

    Parameters
    ----------
    name : str or int
        Name of the column, for messages.
    min_frequency : int
        Values seen less often in fit share the code of unseen values.
    """

    def __init__(self, name, min_frequency):
        self.name = name
        self.min_frequency = min_frequency

    @property
    def cardinality(self):
        """Number of codes, those for missing and unseen values included."""
        return FIRST_VALUE + len(self.codes_)

    def fit_transform(self, column):
        """Learn the values of a column and return its `Codes`.

        What counts as rare is a number of rows, whatever their weights.
        """
        positions, values = self._factorize(column)
        *counts, n_missing = count(positions, len(values)).tolist()
        kept = (
            v for v, n in zip(values, counts, strict=True) if n >= self.min_frequency
        )
        self.codes_ = {value: code for code, value in enumerate(kept, FIRST_VALUE)}
        self.kinds_ = set(map(_kind, values))
        # A code that no training row had would stay untrained.
        self.missing_code_ = MISSING if n_missing else UNSEEN
        return self._encode(positions, values)

    def transform(self, column):
        """Return the `Codes` of a column."""
        positions, values = self._factorize(column)
        kinds = set(map(_kind, values))
        if kinds and self.kinds_ and kinds.isdisjoint(self.kinds_):
            raise ValueError(
                f"Column {self.name!r} held {' and '.join(sorted(self.kinds_))} when "
                f"fitted; it now holds {' and '.join(sorted(kinds))}, such as "
                f"{values[0]!r}, which can equal none of its categories."
            )
        return self._encode(positions, values)

    def _factorize(self, column):
        try:
            positions, values = factorize(column)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise TypeError(
                f"Column {self.name!r} cannot be read as categories: {error}."
            ) from error
        if np.inf in values or -np.inf in values:
            raise infinity_error(self.name)
        return positions, values

    def _encode(self, positions, values):
        codes = [self.codes_.get(value, UNSEEN) for value in values]
        dtype = np.min_scalar_type(-self.cardinality)
        return Codes(positions, np.array([*codes, self.missing_code_], dtype=dtype))


def _kind(value):
    if isinstance(value, str):
        return "text"
    return "numbers" if isinstance(value, Number | np.bool_) else "other objects"

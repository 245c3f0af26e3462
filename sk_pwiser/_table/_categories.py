"""Category columns: codes of values, of missing values and of unseen values.

In every category column, code 0 stands for missing values and code 1 for values that
were not seen in fit. Rare values share code 1, so that its embedding is trained. With
hash buckets, both rare and unseen values have the code of their bucket instead.
"""

from decimal import Decimal
from itertools import chain, compress
from numbers import Real
from typing import NamedTuple

import numpy as np

from sk_pwiser._table._dataframe import describe
from sk_pwiser._table._factorize import count_values, factorize
from sk_pwiser._table._hashing import hash_values
from sk_pwiser._table._numeric import infinity_error
from sk_pwiser._table._vocabulary import Vocabulary

MISSING, UNSEEN, FIRST_VALUE = 0, 1, 2
DEFAULT = Vocabulary()


class Codes(NamedTuple):
    """The codes of a category column, stored as a lookup table.

    Parameters
    ----------
    indices : integer ndarray of shape (n_samples,)
        Index into `table` for each row; -1 selects the last entry.
    table : integer ndarray
        Codes.
    """

    indices: np.ndarray
    table: np.ndarray

    def take(self, rows):
        """Return the codes of the rows in a slice."""
        return self.table[self.indices[rows]]


class CategoryColumn:
    """Codes of one category column.

    The codes depend on the distinct values and their frequencies alone (see
    `sort_values`). The order of the rows, the library, the dtype of the column and the
    declared order of its categories do not matter.

    Parameters
    ----------
    name : str or int
        Name of the column, for messages.
    vocabulary : Vocabulary, default=Vocabulary()
        Which values have codes of their own.
    keeps_rare : bool, default=False
        Whether the other values of fit also have codes of their own, from
        `cardinality` on, in place of the code of unseen values. Values in hash buckets
        do not.
    """

    def __init__(self, name, vocabulary=DEFAULT, keeps_rare=False):
        self.name = name
        self.vocabulary = vocabulary
        self.keeps_rare = keeps_rare

    @property
    def cardinality(self):
        """Number of codes of missing, unseen and frequent values and of buckets."""
        return self._first_bucket + (self.vocabulary.n_hash_buckets or 0)

    @property
    def n_codes(self):
        """Number of all codes, those of rare values included."""
        return self.cardinality + len(self.codes_) - self.n_frequent_

    @property
    def _first_bucket(self):
        return FIRST_VALUE + self.n_frequent_

    @property
    def own_values_(self):
        """Values with a code of their own mapped to it; None stands for missing."""
        frequent = {v: c for v, c in self.codes_.items() if c < self.cardinality}
        if self.missing_code_ == MISSING:
            frequent[None] = MISSING
        return frequent

    def fit_transform(self, column):
        """Learn the values of a column and return its `Codes`.

        The frequency of a value is its number of rows, whatever their weights.
        """
        indices, values = self._factorize(column)
        *counts, n_missing = count_values(indices, len(values)).tolist()
        self.learn(values, counts, n_missing > 0)
        return self._encode(indices, values)

    def learn(self, values, counts, has_missing, kinds=None, n_others=0):
        """Learn distinct values and their numbers of rows.

        Parameters
        ----------
        values : list
            Distinct values.
        counts : list of int
            Their numbers of rows.
        has_missing : bool
            Whether there are missing values.
        kinds : set of str, default=None
            Kinds of all values, for messages; by default those of `values`.
        n_others : int, default=0
            Number of rows of further values, which get no codes.
        """
        frequent, rare = self._split(values, counts)
        self.n_frequent_ = len(frequent)
        self.codes_ = {value: code for code, value in enumerate(frequent, FIRST_VALUE)}
        if self.keeps_rare and self.vocabulary.n_hash_buckets is None:
            self.codes_.update(
                (value, code)
                for code, value in enumerate(sort_values(rare), self.cardinality)
            )
        self.kinds_ = _kinds(values) if kinds is None else kinds
        # The share of rows of a further table whose values are new is about that of
        # the rows with a value of their own (Good, 1953).
        unusual = sum(
            n_rows
            for value, n_rows in zip(values, counts, strict=True)
            if n_rows == 1 or value not in self.codes_
        )
        self.usual_share_ = (unusual + n_others) / max(sum(counts) + n_others, 1)
        # Without missing values in fit, the embedding of their code is not trained.
        self.missing_code_ = MISSING if has_missing else UNSEEN

    def _split(self, values, counts):
        """Return the values with codes of their own, sorted, and the others."""
        frequent, rare = [], []
        for value, n_rows in zip(values, counts, strict=True):
            is_frequent = n_rows >= self.vocabulary.min_frequency
            (frequent if is_frequent else rare).append(value)
        limit = self.vocabulary.max_values
        if limit == 0:
            return [], frequent + rare
        frequent = sort_values(frequent)
        if limit is None or len(frequent) <= limit:
            return frequent, rare
        # Of equally frequent values, the last ones stay, as in scikit-learn.
        n_rows = dict(zip(values, counts, strict=True))
        order = np.argsort([n_rows[value] for value in frequent], kind="stable")
        is_kept = np.zeros(len(frequent), dtype=bool)
        is_kept[order[-limit:]] = True
        kept = list(compress(frequent, is_kept))
        return kept, rare + list(compress(frequent, ~is_kept))

    def transform(self, column):
        """Return the `Codes` of a column.

        Raises
        ------
        ValueError
            If all values are of another kind than in fit, for example text instead of
            numbers.
        """
        indices, values = self._factorize(column)
        kinds = _kinds(values)
        if kinds and self.kinds_ and kinds.isdisjoint(self.kinds_):
            raise ValueError(
                f"Column {describe(self.name, column)} contained "
                f"{' and '.join(sorted(self.kinds_))} in fit; it now contains "
                f"{' and '.join(sorted(kinds))}, such as {values[0]!r}, which cannot "
                "equal any of its categories."
            )
        return self._encode(indices, values)

    def count(self, column):
        """Count the rows of a column by value.

        Returns
        -------
        values : list
            The distinct values.
        counts : list of int
            Their numbers of rows.
        kinds : set of str
            Kinds of the values, as words for messages.
        n_missing : int
            Number of rows without a value.
        """
        indices, values = self._factorize(column)
        *counts, n_missing = count_values(indices, len(values)).tolist()
        return values, counts, _kinds(values), n_missing

    def _factorize(self, column):
        try:
            indices, values = factorize(column)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise TypeError(
                f"Column {describe(self.name, column)} cannot be read as categories: "
                f"{error}."
            ) from error
        if np.inf in values or -np.inf in values:
            raise infinity_error(self.name, column)
        return indices, values

    def _encode(self, indices, values):
        dtype = np.min_scalar_type(-self.n_codes)
        table = np.empty(len(values) + 1, dtype=dtype)
        if self.vocabulary.n_hash_buckets is None:
            table[:-1] = [self.codes_.get(value, UNSEEN) for value in values]
        else:
            table[:-1] = self._hash(values)
        table[-1] = self.missing_code_
        return Codes(indices, table)

    def _hash(self, values):
        """Return the codes of a column with hash buckets."""
        try:
            hashes = hash_values(values)
        except TypeError as error:
            raise TypeError(
                f"Column {self.name!r} cannot have n_hash_buckets: {error}. Convert it "
                "to text."
            ) from error
        codes = self._first_bucket + hashes.astype(np.int64) % (
            self.vocabulary.n_hash_buckets
        )
        if self.codes_:
            own = [self.codes_.get(value, -1) for value in values]
            codes = np.where(np.array(own) < 0, codes, own)
        return codes


def sort_values(values):
    """Sort distinct category values by an order that depends on the values alone.

    Numbers, including bools, come first, in increasing order. Text follows, in the
    order of its code points. Other objects come last, by the name of their type and
    then in increasing order. There is one exception: if not all of these values are
    comparable with each other, as tuples of mixed types or frozensets are not, their
    order also depends on the order in which they occur.

    Parameters
    ----------
    values : list
        Distinct values, none of them missing.

    Returns
    -------
    list
    """
    ranks = {cls: _rank(cls) for cls in set(map(type, values))}
    groups: dict[tuple, list] = {rank: [] for rank in sorted(set(ranks.values()))}
    for value in values:
        groups[ranks[type(value)]].append(value)
    return list(chain.from_iterable(map(_sort_if_comparable, groups.values())))


def _rank(cls):
    kind = _kind(cls)
    if kind == "other objects":
        return 2, f"{cls.__module__}.{cls.__qualname__}"
    return ("numbers", "text").index(kind), ""


def _sort_if_comparable(values):
    # Decimals are not comparable with numpy's scalars.
    has_scalars = any(issubclass(cls, np.number) for cls in set(map(type, values)))
    try:
        return sorted(values, key=_python_number if has_scalars else None)
    except TypeError:
        return values


def _python_number(value):
    return value.item() if isinstance(value, np.number) else value


def _kinds(values):
    """Return the kinds of values in a list, as words for messages."""
    return {_kind(cls) for cls in set(map(type, values))}


def _kind(cls):
    if issubclass(cls, str):
        return "text"
    # Decimal and numpy's bool are comparable with numbers but not registered as Real.
    return "numbers" if issubclass(cls, Real | Decimal | np.bool_) else "other objects"

"""Category columns: codes of values."""

from collections import Counter
from copy import copy
from dataclasses import dataclass
from itertools import compress
from typing import Any, ClassVar

import numpy as np

from sk_pwiser._columns import _frames
from sk_pwiser._columns._factorize import factorize
from sk_pwiser._columns._value_kinds import (
    LARGE,
    check_exact,
    check_kinds,
    kinds_of,
    misread_content,
    sort_values,
    split_values,
)
from sk_pwiser._columns._vocabulary import DEFAULT, Vocabulary, hash_values

# New values are usual if more of the rows in fit had a value that was rare or single.
USUAL_SHARE = 0.5


MISSING, UNSEEN, FIRST_VALUE = 0, 1, 2


@dataclass
class Codes:
    """The codes of a category column, stored as a lookup table."""

    indices: np.ndarray  # into `table` for each row; -1 selects the last entry
    table: np.ndarray

    def __getitem__(self, rows):
        return self.table[self.indices[rows]]

    def are_new(self):
        """Return which rows have a value that is not in the vocabulary."""
        is_new = self.table == UNSEEN
        is_new[-1] = False  # missing values
        return is_new[self.indices]


@dataclass(eq=False)
class CategoryColumn:
    """Encodes a category column as codes.

    The codes depend on the distinct values and their frequencies alone, not on the
    order of the rows or the library. Rare values outside of hash buckets also have
    codes of their own, from `cardinality` on: target statistics distinguish them, and
    they are not new.
    """

    name: Any
    vocabulary: Vocabulary = DEFAULT
    place: str = "row"  # of an entry, for messages

    kind = "category"
    # Kinds of `LARGE` numbers in fit.
    large: ClassVar[frozenset[str]] = frozenset()

    @property
    def cardinality(self):
        """Number of codes without those of rare values, the number of embeddings."""
        n_buckets = self.vocabulary.n_hash_buckets or 0
        return FIRST_VALUE + self.n_frequent_ + n_buckets

    @property
    def n_codes(self):
        return self.cardinality + len(self.codes_) - self.n_frequent_

    @property
    def encoding(self):
        return "embedding" if self.vocabulary.n_hash_buckets is None else "hashed"

    @property
    def own_values_(self):
        """Codes of the values that have their own; None stands for missing."""
        frequent = {v: c for v, c in self.codes_.items() if c < self.cardinality}
        if self.missing_code_ == MISSING:
            frequent[None] = MISSING
        return frequent

    def fit_transform(self, column, *others):
        """Learn the values of a column, and of others, and return its `Codes`."""
        found = [self._factorize(each) for each in (column, *others)]
        values, counts, kinds, n_missing = self._count(found)
        self.learn(values, counts, n_missing > 0, kinds)
        return self._encode(*found[0])

    def learn(self, values, counts, has_missing, kinds, n_others=0):
        """Learn values; `n_others` rows have further ones, without codes."""
        limit, least = self.vocabulary.max_values, self.vocabulary.min_frequency
        frequent = []
        if limit != 0:
            frequent = sort_values(list(compress(values, np.array(counts) >= least)))
        if limit is not None and len(frequent) > limit:
            # If values are equally frequent, the last ones are kept, as in
            # scikit-learn.
            n_rows = dict(zip(values, counts, strict=True))
            order = np.argsort([n_rows[value] for value in frequent], kind="stable")
            frequent = [frequent[place] for place in np.sort(order[-limit:])]
        self.n_frequent_ = len(frequent)
        self.codes_ = {value: code for code, value in enumerate(frequent, FIRST_VALUE)}
        if self.vocabulary.n_hash_buckets is None:
            rare = sort_values([value for value in values if value not in self.codes_])
            self.codes_ |= {v: code for code, v in enumerate(rare, self.cardinality)}
        self.large, self.kinds_ = kinds & LARGE.keys(), kinds - LARGE.keys()
        # In another table, the share of rows with new values is about the share of rows
        # in fit whose value occurred once (Good, 1953).
        pairs = zip(values, counts, strict=True)
        unusual = sum(n for value, n in pairs if n == 1 or value not in self.codes_)
        self.usual_share_ = (unusual + n_others) / max(sum(counts) + n_others, 1)
        self.has_one_value = len(values) + has_missing + n_others < 2
        self.content_ = None
        if self.kinds_ == {"text"}:
            self.content_ = misread_content(values)
        elif self.kinds_.issuperset({"numbers", "text"}) and split_values(values):
            self.content_ = "numbers and their texts"
        # Without missing values in fit, their embedding would not be trained.
        self.missing_code_ = MISSING if has_missing else UNSEEN

    def transform(self, column):
        """Return the `Codes` of a column; raise if its values are of another kind."""
        indices, values = self._factorize(column)
        if self.large or kinds_of(values).isdisjoint(self.kinds_):
            start = f"Column {_frames.describe(self.name, column)} contained"
            check_kinds(values, self.kinds_, start, " in fit; it now contains")
            check_exact(values, self.large, start, " in fit; it now contains")
        return self._encode(indices, values)

    def count(self, *columns):
        """Return the distinct values, their numbers of rows, kinds, and n_missing.

        The kinds include those of `LARGE` numbers.
        """
        return self._count(list(map(self._factorize, columns)))

    def _count(self, factorized):
        start = f"shared_embeddings: column {self.name!r} contains"
        other = ", but a list column that shares its vocabulary contains"
        total, all_kinds, n_missing = Counter(), set(), 0
        for indices, values in factorized:
            n_values = len(values)
            counts = np.zeros(n_values + 1, dtype=np.int64)
            size = max(_frames.CHUNK_ROWS, n_values)
            for row in range(0, len(indices), size):
                # bincount needs int64, and converting the whole column at once would
                # need more memory than the rest of the encoding.
                chunk = indices[row : row + size].astype(np.int64)
                chunk[chunk < 0] = n_values  # missing values
                counts += np.bincount(chunk, minlength=n_values + 1)
            *counts, n_own = counts.tolist()
            n_missing += n_own
            if all_kinds:  # of an earlier column
                check_kinds(values, all_kinds, start, other)
                check_exact(values, all_kinds, start, other)
            all_kinds |= kinds_of(values, with_large=True)
            if len(factorized) == 1:  # millions of values need no further dict
                return values, counts, all_kinds, n_missing
            total.update(dict(zip(values, counts, strict=True)))
        return list(total), list(total.values()), all_kinds, n_missing

    def grown(self, data, *others):
        """Return a column with codes for new values, and where its codes come from.

        Values of `others` count as well; -1 stands for new values.

        Rare new values have codes only if another one is frequent: without frequent
        ones, the cost depends on the rows alone, and the same column is returned.
        """
        self.transform(data)  # raises if the kinds of values differ
        if self.vocabulary.max_values is not None:
            return self, np.arange(self.n_codes)
        values, counts, kinds, _ = self.count(data, *others)
        known, limit = self.codes_, self.cardinality
        frequent = compress(values, np.array(counts) >= self.vocabulary.min_frequency)
        promoted = [value for value in frequent if known.get(value, limit) >= limit]
        if not promoted:
            return self, np.arange(self.n_codes)
        old, moved = list(known), set(promoted)
        kept = [*old[: self.n_frequent_], *sort_values(promoted)]
        grown = copy(self)
        grown.n_frequent_ = len(kept)
        kept += [value for value in old[self.n_frequent_ :] if value not in moved]
        kept += sort_values([v for v in values if v not in known and v not in moved])
        grown.codes_ = {value: code for code, value in enumerate(kept, FIRST_VALUE)}
        grown.large = self.large | kinds & LARGE.keys()
        grown.kinds_ = self.kinds_ | kinds - LARGE.keys()
        origin = [*range(FIRST_VALUE), *(known.get(value, -1) for value in kept)]
        return grown, np.array(origin, dtype=np.int64)

    def _factorize(self, column):
        try:
            indices, values = factorize(column)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise TypeError(
                f"Column {_frames.describe(self.name, column)} cannot be read as "
                f"categories: {error}."
            ) from error
        if np.inf in values or -np.inf in values:
            found = [i for i, value in enumerate(values) if value in (np.inf, -np.inf)]
            row = int(np.isin(indices, found).argmax())
            value = values[indices[row]]
            raise _frames.infinity_error(self.name, column, row, value, self.place)
        return indices, values

    def _encode(self, indices, values):
        n_buckets = self.vocabulary.n_hash_buckets
        codes = [self.codes_.get(value, UNSEEN) for value in values]
        if n_buckets is not None:
            try:
                hashes = hash_values(values).astype(np.int64)
            except TypeError as error:
                raise TypeError(
                    f"Column {self.name!r} cannot have n_hash_buckets: {error}. "
                    "Convert it to text."
                ) from error
            hashed = FIRST_VALUE + self.n_frequent_ + hashes % n_buckets
            codes = np.where(np.array(codes) == UNSEEN, hashed, codes)
        table = np.empty(len(values) + 1, dtype=np.min_scalar_type(-self.n_codes))
        table[:-1], table[-1] = codes, self.missing_code_
        return Codes(indices, table)

"""Category columns whose values have vectors, such as of the text of an item."""

from copy import copy
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from sk_pwiser._columns._base import GrownColumn, ValueVectors
from sk_pwiser._columns._category import CategoryColumn
from sk_pwiser._columns._choice import Choice
from sk_pwiser._columns._forgetting import keep_record
from sk_pwiser._columns._id_vectors import IdVectors
from sk_pwiser._columns._value_kinds import (
    LARGE,
    check_exact,
    check_kinds,
    kinds_of,
    sort_values,
)
from sk_pwiser._utils._warnings import warn_user

# The row of values without a vector: it is 0.
NO_VECTOR = 0
# Rows that are scaled at a time: a further copy of a large table would need as much
# memory again.
SCALED_ROWS = 65_536
# The share of a mean square below which a variance is a rounding error.
EQUAL = 1e-12


@dataclass(eq=False)
class VectorColumn(CategoryColumn):
    """Encodes a category column as codes, of which some have vectors.

    All ids of the table of vectors have codes: those that are not frequent follow the
    frequent values, as rare ones do. The network reads the vector of a code, and the
    embedding of codes below `cardinality`.
    """

    # Those that are not learnt yet.
    table: IdVectors | None = None

    kind = "vectors"

    @classmethod
    def claim(cls, choice: Choice, name: Any) -> Self | None:
        """Return a column for a category whose values have vectors."""
        if name not in choice.vectors:
            return None
        return cls(name, choice.vocabulary(name), table=choice.vectors[name])

    @property
    def n_network_codes(self) -> int:
        """Number of codes that the network reads, those with a vector only included."""
        return self.n_codes

    @property
    def encoding(self) -> str:
        """How the values are encoded, in a few words."""
        return f"embedding, vectors of {self.vectors_.shape[1]} numbers"

    @property
    def value_vectors(self) -> ValueVectors:
        """The vectors, and the row of each code among them."""
        return ValueVectors(self.vectors_, self.vector_rows_)

    def learn(self, values, counts, has_missing, kinds, n_further=0):
        """Learn values, and then the vectors and the ids that only these have."""
        ids, vectors = self._read(self.table, kinds)
        self.table = None  # which may be large
        super().learn(values, counts, has_missing, kinds, n_further)
        if self.codes_ and self.codes_.keys().isdisjoint(ids):
            warn_user(
                f"vectors[{self.name!r}] in encoding_params has none of the values of "
                f"column {self.name!r} in fit, such as {next(iter(self.codes_))!r}; it "
                f"has ids such as {ids[0]!r}."
            )
        self._learn_scale(vectors[1:])
        self._scale(vectors[1:])
        self.vectors_ = vectors
        codes = self._add_ids(ids)
        self.vector_rows_ = np.full(self.n_codes, NO_VECTOR, dtype=np.int64)
        self.vector_rows_[codes] = np.arange(1, len(vectors))

    def _read(self, table, kinds):
        """Return the ids of a table as values of the column, and their vectors."""
        column, vectors = table.read(self.name)
        indices, values = self._factorize(column)
        place = f"vectors[{self.name!r}] in encoding_params"
        if (indices < 0).any():
            raise ValueError(f"{place} must not have a missing id.")
        if len(values) < len(indices):
            first_rows = np.unique(indices, return_index=True)[1]
            is_repeated = np.ones(len(indices), dtype=bool)
            is_repeated[first_rows] = False
            repeated = values[int(indices[is_repeated.argmax()])]
            raise ValueError(f"{place} must have each id once; {repeated!r} repeats.")
        start = f"Column {self.name!r} contains"
        check_kinds(values, kinds, start, ", but the ids of its vectors are")
        check_exact(values, kinds, start, ", but the ids of its vectors are")
        return [values[index] for index in indices.tolist()], vectors

    def _learn_scale(self, vectors):
        """Learn the means of the numbers, and their deviation over all of them."""
        sums = np.zeros(vectors.shape[1])
        squares = 0.0
        for start in range(0, len(vectors), SCALED_ROWS):
            rows = vectors[start : start + SCALED_ROWS].astype(np.float64)
            sums += rows.sum(axis=0)
            squares += (rows**2).sum()
        means = sums / len(vectors)
        variance = squares / vectors.size - (means**2).mean()
        self.vector_means_ = means.astype(np.float32)
        # Of equal vectors, the differences are rounding errors.
        is_constant = variance <= EQUAL * (means**2).mean()
        self.vector_scale_ = 1.0 if is_constant else float(np.sqrt(variance))

    def _scale(self, vectors):
        """Scale vectors in place."""
        for start in range(0, len(vectors), SCALED_ROWS):
            rows = vectors[start : start + SCALED_ROWS]
            rows -= self.vector_means_
            rows /= np.float32(self.vector_scale_)

    def _add_ids(self, ids):
        """Give codes to ids that have none; return the codes of all ids."""
        new = sort_values([value for value in ids if value not in self.codes_])
        if new:
            further = {value: code for code, value in enumerate(new, self.n_codes)}
            self.codes_ = {**self.codes_, **further}
            kinds = kinds_of(new, with_large=True)
            self.large = self.large | kinds & LARGE.keys()
            self.kinds_ = self.kinds_ | kinds - LARGE.keys()
        codes = (self.codes_[value] for value in ids)
        return np.fromiter(codes, dtype=np.int64, count=len(ids))

    def with_vectors(self, table: IdVectors) -> GrownColumn:
        """Return a column with further vectors, and the origins of its codes.

        Ids that have a vector have the new one.
        """
        ids, vectors = self._read(table, self.kinds_ | self.large)
        size = self.vectors_.shape[1]
        if vectors.shape[1] != size:
            raise ValueError(
                f"vectors[{self.name!r}] must have {size} numbers per id, as in fit; "
                f"got {vectors.shape[1]}."
            )
        vectors = vectors[1:]
        self._scale(vectors)
        grown: Any = copy(self)
        codes = grown._add_ids(ids)
        rows = np.full(grown.n_codes, NO_VECTOR, dtype=np.int64)
        rows[: self.n_codes] = self.vector_rows_
        rows_of_ids = rows[codes]
        is_new = rows_of_ids == NO_VECTOR
        n_earlier = len(self.vectors_)
        all_vectors = np.concatenate([self.vectors_, vectors[is_new]])
        all_vectors[rows_of_ids[~is_new]] = vectors[~is_new]
        rows[codes[is_new]] = np.arange(n_earlier, len(all_vectors))
        grown.vectors_ = all_vectors
        grown.vector_rows_ = rows
        origin = np.full(grown.n_codes, -1, dtype=np.int64)
        origin[: self.n_codes] = np.arange(self.n_codes)
        keep_record(grown, self, origin)
        return GrownColumn(column=grown, code_origin=origin)

    def _drop_unused_vectors(self):
        """Drop the vectors of forgotten values."""
        has_vector = self.vector_rows_ != NO_VECTOR
        if np.count_nonzero(has_vector) == len(self.vectors_) - 1:
            return
        rows = np.sort(self.vector_rows_[has_vector])
        self.vectors_ = self.vectors_[np.append(NO_VECTOR, rows)]
        places = np.searchsorted(rows, self.vector_rows_) + 1
        self.vector_rows_ = np.where(has_vector, places, NO_VECTOR)

    def grown(self, data, *elements, forget_after=None):
        """Return a column with codes for new values, and where its codes come from."""
        grown, origin = super().grown(data, *elements, forget_after=forget_after)
        if grown is not self:
            rows = self.vector_rows_[np.maximum(origin, 0)]
            grown.vector_rows_ = np.where(origin >= 0, rows, NO_VECTOR)
            grown._drop_unused_vectors()
        return grown, origin

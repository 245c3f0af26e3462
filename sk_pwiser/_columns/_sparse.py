"""Sparse matrices."""

from collections.abc import Iterable, Sequence
from copy import copy
from typing import Any, Self

import numpy as np

from sk_pwiser._columns import _frames
from sk_pwiser._columns._bags import Bags, BagShape, make_bags
from sk_pwiser._columns._base import Column, EncodedColumn, TableCells
from sk_pwiser._columns._number import LARGEST_DEVIATION, LARGEST_VALUE

# Number of entries that are processed at a time.
CHUNK_ENTRIES = 2**20


class SparseColumns(Column):
    """Encodes the columns of a sparse matrix as one bag per row.

    The weight of an entry is its value, clipped to the range of its column in fit,
    divided by the root mean square of the nonzero values there. A column without such
    values has the weight 0 until `learn_constant` learns it from later rows. Missing
    values select a vector of their own if the column had some in fit; otherwise their
    weight is 0.
    """

    name = "sparse columns"
    kind = "sparse"
    encoding = "embedding"
    network_input = "bags"
    is_exportable = False
    description = "A sparse table"

    def bag_shape(self, code_columns: Sequence[Column]) -> BagShape:
        """Return the shape of the bag."""
        return BagShape(self.n_vectors, has_unseen=False)

    def names_in(self, names: Iterable[Any]) -> list[Any]:
        """Return all names: it stands for all columns of a table."""
        return list(names)

    def fit_table(
        self, table: TableCells, sample_weight: np.ndarray | None
    ) -> EncodedColumn:
        """Learn the scales of the columns of a CSR matrix."""
        return EncodedColumn(bag=self.fit(table.X, sample_weight))

    def encode_table(self, table: TableCells) -> EncodedColumn:
        """Return the bags of another CSR matrix."""
        return EncodedColumn(bag=self.transform(table.X))

    def fit(self, X: Any, sample_weight: np.ndarray | None = None) -> Bags:
        """Learn the scales of the columns of a CSR matrix, and return its bags."""
        X = _canonical(X)
        self.scale_, is_missing, self.ends_ = self._learn(X, sample_weight)
        # The vectors of missing values follow the vectors of the columns.
        self.missing_columns_ = np.flatnonzero(is_missing)
        return self.transform(X)

    def learn_constant(self, X: Any, sample_weight: np.ndarray | None = None) -> Self:
        """Return columns that have learnt those that had no values, if `X` has some."""
        if np.isfinite(self.scale_).all():
            return self
        scale, _, ends = self._learn(_canonical(X), sample_weight)
        is_new = np.isinf(self.scale_) & np.isfinite(scale)
        if not is_new.any():
            return self
        successor = copy(self)
        successor.scale_ = np.where(is_new, scale, self.scale_)
        successor.ends_ = np.where(is_new, ends, self.ends_)
        return successor

    def _learn(self, X, sample_weight):
        """Return each column's scale, whether it has missing values, and its ends.

        These are the smallest and the largest value, of the zeros as well.
        """
        n_columns = X.shape[1]
        ends = np.zeros((2, n_columns))
        counts = np.zeros(n_columns)
        squares = np.zeros(n_columns)
        is_missing = np.zeros(n_columns, dtype=bool)
        size = max(n_columns, CHUNK_ENTRIES)
        for start in range(0, X.nnz, size):
            chunk = slice(start, start + size)
            columns = X.indices[chunk]
            values = _values(X, chunk)
            if (missing := np.isnan(values)).any():
                is_missing[columns[missing]] = True
                columns = columns[~missing]
                values = values[~missing]
            np.minimum.at(ends[0], columns, values)
            np.maximum.at(ends[1], columns, values)
            weights = np.ones(len(values))
            if sample_weight is not None:
                entries = np.arange(chunk.start, min(chunk.stop, X.nnz))
                rows = np.searchsorted(X.indptr, entries, side="right") - 1
                weights = sample_weight[rows][~missing]
            counts += np.bincount(columns, weights, n_columns)
            squares += np.bincount(columns, values**2 * weights, n_columns)
        has_values = squares > 0
        scale = np.full(n_columns, np.inf)
        scale[has_values] = np.sqrt(squares[has_values] / counts[has_values])
        return scale, is_missing, ends

    @property
    def n_vectors(self) -> int:
        """Number of columns, and of columns with missing values again."""
        return len(self.scale_) + len(self.missing_columns_)

    def transform(self, X):
        X = _canonical(X)
        weights = np.empty(X.nnz, dtype=np.float32)
        small = self.n_vectors <= np.iinfo(np.int32).max
        indices = X.indices.astype(np.int32 if small else np.int64, copy=False)
        for start in range(0, X.nnz, CHUNK_ENTRIES):
            chunk = slice(start, start + CHUNK_ENTRIES)
            columns = X.indices[chunk]
            values = _values(X, chunk)
            values = np.clip(values, *self.ends_[:, columns])
            scaled = values / self.scale_[columns]
            weights[chunk] = np.clip(scaled, -LARGEST_DEVIATION, LARGEST_DEVIATION)
        missing = np.flatnonzero(np.isnan(weights))
        if len(missing):
            columns = indices[missing]
            place = np.searchsorted(self.missing_columns_, columns)
            has_vector = np.append(self.missing_columns_, -1)[place] == columns
            indices = indices.copy()
            indices[missing] = np.where(has_vector, len(self.scale_) + place, columns)
            weights[missing] = has_vector
        return make_bags(X.indptr, indices, weights)


def _canonical(X):
    """Return a CSR matrix with sorted columns, one entry each, and no stored zeros."""
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    if np.count_nonzero(X.data) < X.nnz:
        X = X.copy()
        X.eliminate_zeros()
    if X.data.dtype.kind == "f":
        infinite = np.flatnonzero(np.isinf(X.data))
        if len(infinite):
            row = int(np.searchsorted(X.indptr, infinite[0], side="right")) - 1
            column = int(X.indices[infinite[0]])
            value = X.data[infinite[0]]
            raise _frames.infinity_error(column, None, row, value)
    return X


def _values(X, entries):
    values = X.data[entries].astype(np.float64)
    return np.clip(values, -LARGEST_VALUE, LARGEST_VALUE, out=values)

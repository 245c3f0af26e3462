"""Sparse matrices: one bag per row, whose entries are the stored values."""

import numpy as np
import scipy.sparse as sp

from sk_pwiser._table._bags import make_bags
from sk_pwiser._table._dataframe import row_chunks
from sk_pwiser._table._numeric import (
    LARGEST_DEVIATION,
    LARGEST_VALUE,
    infinity_error,
)

# Number of entries that are processed at a time.
CHUNK_ENTRIES = 2**20


class SparseColumns:
    """The columns of a sparse matrix, as one bag per row.

    The weight of an entry is its value divided by the root mean square of the values
    of its column in fit, zeros left out: the ones of a one-hot encoding stay 1. It is
    clipped like a standardised value. Columns without a value in fit have the weight 0.
    A missing value is an entry of weight 1 with a vector of its own, if its column had
    missing values in fit, and none otherwise.
    """

    def fit(self, X, sample_weight=None):
        """Learn the scales of the columns of a CSR matrix, and return its bags."""
        X = _canonical(X)
        n_columns = X.shape[1]
        counts, squares = np.zeros(n_columns), np.zeros(n_columns)
        is_missing = np.zeros(n_columns, dtype=bool)
        for part in row_chunks(X.nnz, max(n_columns, CHUNK_ENTRIES)):
            columns, values = X.indices[part], _values(X, part)
            if (missing := np.isnan(values)).any():
                is_missing[columns[missing]] = True
                columns, values = columns[~missing], values[~missing]
            weights = _entry_weights(X, part, sample_weight)
            if weights is not None:
                weights = weights[~missing]
            counts += np.bincount(columns, weights, n_columns)
            values = values**2 if weights is None else values**2 * weights
            squares += np.bincount(columns, values, n_columns)
        known = squares > 0
        self.scale_ = np.full(n_columns, np.inf)
        self.scale_[known] = np.sqrt(squares[known] / counts[known])
        # The vectors of missing values follow those of the columns.
        self.missing_columns_ = np.flatnonzero(is_missing)
        return self._encode(X)

    def transform(self, X):
        """Return the bags of a CSR matrix."""
        return self._encode(_canonical(X))

    @property
    def n_vectors(self):
        """Number of vectors that the entries select from."""
        return len(self.scale_) + len(self.missing_columns_)

    def _encode(self, X):
        weights = np.empty(X.nnz, dtype=np.float32)
        indices = _smallest(X.indices, self.n_vectors)
        for part in row_chunks(X.nnz, CHUNK_ENTRIES):
            scaled = _values(X, part) / self.scale_[X.indices[part]]
            weights[part] = np.clip(scaled, -LARGEST_DEVIATION, LARGEST_DEVIATION)
        missing = np.flatnonzero(np.isnan(weights))
        if len(missing):
            columns = indices[missing]
            place = np.searchsorted(self.missing_columns_, columns)
            known = np.append(self.missing_columns_, -1)[place] == columns
            indices = indices.copy()
            indices[missing] += np.where(
                known, len(self.scale_) + place - columns, 0
            ).astype(indices.dtype)
            weights[missing] = known
        return make_bags(X.indptr, indices, weights)


def _canonical(X):
    """Return a CSR matrix with sorted columns, one entry each, and no stored zeros.

    Raises
    ------
    ValueError
        If a value is infinite.
    """
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
            error = infinity_error(int(X.indices[infinite[0]]))
            raise ValueError(f"{error} It is {X.data[infinite[0]]} in row {row}.")
    return X


def _values(X, part):
    values = X.data[part].astype(np.float64)
    return np.clip(values, -LARGEST_VALUE, LARGEST_VALUE, out=values)


def _entry_weights(X, part, sample_weight):
    if sample_weight is None:
        return None
    entries = np.arange(part.start, min(part.stop, X.nnz))
    return sample_weight[np.searchsorted(X.indptr, entries, side="right") - 1]


def _smallest(indices, n_vectors):
    """Return indices as int32 if it holds them."""
    holds = n_vectors <= np.iinfo(np.int32).max
    return indices.astype(np.int32 if holds else np.int64, copy=False)


def as_csr(X):
    """Return a table of numbers as a CSR matrix."""
    return X.tocsr() if sp.issparse(X) else sp.csr_array(X)

"""Columns of lists, and sparse matrices: inputs with several entries per row."""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from sk_pwiser._table._categories import MISSING, UNSEEN, CategoryColumn
from sk_pwiser._table._frames import (
    has_lists,
    infinity_error,
    read_lists,
    row_chunks,
    to_float,
)
from sk_pwiser._table._numbers import LARGEST_DEVIATION, LARGEST_VALUE
from sk_pwiser._utils import check_choice


class Bags(NamedTuple):
    """The entries of the bags of a table, in the order of the rows and then the bags.

    The vectors of the second bag, in `indices`, follow those of the first.
    """

    offsets: np.ndarray  # int64 (n_samples * n_bags + 1,), where bags start
    indices: np.ndarray
    weights: np.ndarray | None  # float32 (n_entries,); None if all are 1


def make_bags(offsets, indices, weights):
    """Return bags in the form that training reads, if possible without copies."""
    is_one = weights is None or bool((weights == 1).all())
    return Bags(
        offsets.astype(np.int64, copy=False),
        indices,
        None if is_one else weights,
    )


POOLINGS = "mean", "sum"


class ListWeights:
    """A column with the weights of a list column, which is not an input itself."""

    def __init__(self, name):
        self.name = name


class ListColumn:
    """Encodes a column of lists of categories as one bag per row.

    The codes of the elements are those of a category column: 0 for missing elements, 1
    for unseen ones. An empty list has one entry, with a code of its own, and so has a
    missing list, with the code of missing elements. If fit saw neither, they have the
    code of unseen values, whose vector is trained. With pooling by "mean", the weights
    of a row are divided by their sum.
    """

    def __init__(self, name, vocabulary, pooling, weights_name=None):
        self.name = name
        self.pooling = pooling
        self.weights_name = weights_name
        self.items_ = CategoryColumn(name, vocabulary, place="element")

    @property
    def n_vectors(self):
        """Number of vectors that the entries select from."""
        return self.items_.cardinality + 1

    def fit_transform(self, column, weights=None):
        """Learn the elements of the lists, and return the `Bags` of the column."""
        lists = read_lists(column, self.name)
        codes = self.items_.fit_transform(lists.elements)
        self.learn_special((lists.sizes < 0).any(), (lists.sizes == 0).any())
        return self._encode(lists, codes, weights)

    def learn_special(self, has_missing, has_empty):
        """Learn whether there are missing and empty lists."""
        self.missing_code_ = MISSING if has_missing else UNSEEN
        self.empty_code_ = self.items_.cardinality if has_empty else UNSEEN

    def transform(self, column, weights=None):
        """Return the `Bags` of a column."""
        lists = read_lists(column, self.name)
        return self._encode(lists, self.items_.transform(lists.elements), weights)

    def _encode(self, lists, codes, weights):
        is_filled = lists.sizes > 0
        sizes = np.where(is_filled, lists.sizes, 1)
        offsets = np.concatenate([[0], sizes.cumsum()])
        is_element = np.repeat(is_filled, sizes)
        indices = np.empty(offsets[-1], dtype=np.int64)
        indices[is_element] = codes.take(slice(None))
        special = np.where(lists.sizes < 0, self.missing_code_, self.empty_code_)
        indices[~is_element] = special[~is_filled]
        of_entries = np.ones(len(indices))
        if self.weights_name is not None:
            of_entries[is_element] = self._read_weights(lists, weights)
        if self.pooling == "mean":
            total = np.add.reduceat(of_entries, offsets[:-1])
            of_entries /= np.repeat(np.where(total > 0, total, 1.0), sizes)
        return Bags(offsets, indices, of_entries.astype(np.float32))

    def _read_weights(self, lists, column):
        """Return the weights of the elements, one finite number >= 0 each."""
        own, name = f"list_weights of column {self.name!r}", self.weights_name
        if not has_lists(column):
            raise TypeError(f"{own}: column {name!r} does not contain lists.")
        weights = read_lists(column, name)
        differs = np.maximum(weights.sizes, 0) != np.maximum(lists.sizes, 0)
        if differs.any():
            row = int(differs.argmax())
            n_weights, n_elements = (max(x.sizes[row], 0) for x in (weights, lists))
            raise ValueError(
                f"{own}: row {row} has {n_elements} elements, but {n_weights} weights "
                f"in column {name!r}."
            )
        try:
            values = np.asarray(to_float(weights.elements))
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{own}: column {name!r} cannot be read as numbers: {error}."
            ) from error
        is_valid = np.isfinite(values) & (values >= 0)
        if not is_valid.all():
            element = int(np.argmin(is_valid))
            raise ValueError(
                f"{own} must be finite and >= 0; row {weights.row_of(element)} of "
                f"column {name!r} contains {values[element]}."
            )
        return values


def combine_bags(parts, sizes):
    """Return the bags of a table from those of its columns, one bag per row each.

    `sizes` has the number of vectors of each column.
    """
    n_entries = np.transpose([np.diff(part.offsets) for part in parts])
    offsets = np.concatenate([[0], n_entries.cumsum()])
    starts = np.cumsum([0, *sizes])
    small = starts[-1] <= np.iinfo(np.int32).max
    indices = np.empty(offsets[-1], dtype=np.int32 if small else np.int64)
    weights = np.empty(offsets[-1], dtype=np.float32)
    for b, part in enumerate(parts):
        moves = offsets[b : -1 : len(parts)] - part.offsets[:-1]
        places = np.arange(len(part.indices)) + np.repeat(moves, n_entries[:, b])
        indices[places] = part.indices + starts[b]
        weights[places] = part.weights
    return make_bags(offsets, indices, weights)


def check_lists(params):
    """Raise if a setting of list columns is invalid for every table."""
    check_choice("list_pooling", params["list_pooling"], POOLINGS)
    weights = params["list_weights"]
    if weights is not None and not isinstance(weights, dict):
        raise TypeError(
            "list_weights must be None or a dict from list columns to columns of their "
            f"weights; got {weights!r}."
        )


def find_weights(list_weights, names, list_names):
    """Return a dict from names of list columns to names of their weights."""
    found = dict(list_weights or {})
    for column, weights in found.items():
        for name in (column, weights):
            if name not in names:
                raise ValueError(
                    f"list_weights contains {name!r}, which is not a column of X; its "
                    f"columns are {names}."
                )
        if column not in list_names:
            raise ValueError(
                f"list_weights contains {column!r}, which is not a column of lists of "
                f"categories; these are {list_names}."
            )
    return found


# Number of entries that are processed at a time.
CHUNK_ENTRIES = 2**20


class SparseColumns:
    """Encodes the columns of a sparse matrix as one bag per row.

    The weight of an entry is its value divided by the root mean square of the nonzero
    values of its column in fit, so that the ones of a one-hot encoding stay 1. Weights
    are clipped like standardised values, and are 0 for columns without values in fit.
    If a column had missing values in fit, a missing value is an entry with weight 1
    that selects a separate vector; otherwise it has weight 0.
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
        # The vectors of missing values follow the vectors of the columns.
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
            column, value = int(X.indices[infinite[0]]), X.data[infinite[0]]
            raise infinity_error(column, None, row, value)
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
    """Return indices as int32 if all vectors can be indexed by it."""
    holds = n_vectors <= np.iinfo(np.int32).max
    return indices.astype(np.int32 if holds else np.int64, copy=False)


def as_csr(X):
    """Return a table of numbers as a CSR matrix."""
    return X.tocsr() if sp.issparse(X) else sp.csr_array(X)

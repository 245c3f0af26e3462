"""The encoder of a table, and its changes in continued training."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from scipy.sparse import csr_array, issparse
from sklearn.base import BaseEstimator
from sklearn.utils import validation

from sk_pwiser._columns import _column_warnings, _frames, _unseen_values
from sk_pwiser._columns._bags import Bags, BagShape, combine_bags
from sk_pwiser._columns._base import (
    Column,
    EncodedColumn,
    TableCells,
    learning_order,
)
from sk_pwiser._columns._combination import CombinationColumn
from sk_pwiser._columns._make_columns import make_columns
from sk_pwiser._columns._piecewise_linear import MAX_BINS
from sk_pwiser._columns._sparse import SparseColumns
from sk_pwiser._columns._vocabulary import MIN_FREQUENCY
from sk_pwiser._utils._checks import nearest
from sk_pwiser._utils._warnings import warn_user

# Number of rows of the result that are filled at a time, column by column: this part of
# the result stays in the cache of the processor.
CACHE_ROWS = 2_048
# Absent columns whose spelling is compared: that of thousands would take minutes.
MOST_HINTED_NAMES = 5


@dataclass(frozen=True, kw_only=True)
class EncodedTable:
    """The encoded columns of a table, to be joined by `TableEncoder.stack`."""

    X: Any  # the table as the encoder read it
    columns: Sequence[EncodedColumn]

    def codes(self) -> list[Any]:
        """Return the codes of the columns that have some."""
        return [c.codes for c in self.columns if c.codes is not None]

    def bags(self) -> list[Bags]:
        """Return the bags of the columns that have some."""
        return [c.bag for c in self.columns if c.bag is not None]


@dataclass(eq=False)
class TableEncoder:
    """Encodes a table as category codes, numeric inputs and, if there are any, bags.

    The parameters up to `list_ages` are those of the estimator, checked by the caller;
    `estimator_name` is its name in messages.
    """

    categorical_features: Any = "from_dtype"
    min_frequency: Any = MIN_FREQUENCY
    max_categories: Any = None
    n_hash_buckets: Any = None
    numeric_encoding: str = "standard"
    max_bins: int = MAX_BINS
    list_pooling: Any = "mean"
    list_weights: dict | None = None
    shared_embeddings: dict | None = None
    list_ages: dict | None = None
    parents: dict | None = None
    # By column, the `IdVectors`; None when the columns have them.
    vectors: dict | None = None
    domain_features: Any = ()  # columns that must be inputs of the network
    time_column: Any = None  # no input
    # Columns that say how rows were shown, no inputs, and their references.
    exposure_features: dict | None = None
    exposure_monotone: Any = False  # or those of them whose effect must not rise
    estimator_name: str | None = None
    n_features_in_: int = field(init=False, repr=False)
    sparse_: SparseColumns | None = field(init=False, repr=False)
    # Those of earlier versions have none.
    combinations_: tuple[CombinationColumn, ...] = field(
        default=(), init=False, repr=False
    )

    def fit_transform(self, X: Any, sample_weight: np.ndarray | None = None) -> Any:
        """Learn a table, and return its arrays, see `stack`."""
        return self.stack(self.fit(X, sample_weight))

    def fit(
        self,
        X: Any,
        sample_weight: np.ndarray | None = None,
        errors: dict[Any, str] | None = None,
    ) -> EncodedTable:
        """Learn a table, and return its encoded columns.

        Learning category columns and lists at once encodes them, since finding their
        distinct values takes most of the work. Errors about columns are noted by name
        in `errors`, if given.
        """
        table = self.begin(X)
        for column in list(table.columns.values()):
            with _collect(errors, column):
                column.check_cells(table)
            if column.name in (errors or ()):
                del table.columns[column.name]
        encoded = {}
        for column in learning_order(table.columns.values()):
            with _collect(errors, column):
                encoded[column.name] = column.fit_table(table, sample_weight)
        if errors is None:
            self.warn_about_columns(table)
        in_order = [encoded[name] for name in table.columns if name in encoded]
        return EncodedTable(X=table.X, columns=in_order)

    def add_combinations(
        self, combinations: Sequence[CombinationColumn], encoded: EncodedTable
    ) -> EncodedTable:
        """Learn combinations of the columns of the table that these were learnt of."""
        if not combinations:
            return encoded
        table = self.read(encoded.X)
        self.combinations_ = tuple(combinations)
        columns = [column.fit_table(table, None) for column in combinations]
        return EncodedTable(X=encoded.X, columns=[*encoded.columns, *columns])

    def begin(self, X: Any) -> TableCells:
        """Learn the names and kinds of columns; return the checked table."""
        X = _frames.as_table(X)
        X = self._validate(X, reset=True)
        self.columns_: list[Any] = []
        if self.sparse_ is not None:
            for name in (
                "categorical_features",
                "domain_features",
                "exposure_features",
            ):
                value = getattr(self, name)
                if not isinstance(value, str | None) and len(value):
                    raise ValueError(
                        f"{name} must be empty if X is sparse, whose columns are "
                        f"numbers that the network sums; got {value!r}."
                    )
            return self._cells_of(X)
        names = list(self.names_)
        self.columns_ = make_columns(vars(self), _frames.list_columns(X), names)
        self.vectors = None
        for feature in self.domain_features:
            index = _frames.find_column("domain_features", feature, names)
            if reason := self.columns_[index].not_an_input:
                raise ValueError(
                    f"domain_features contains {feature!r}, which {reason}."
                )
        return self._cells_of(X)

    def warn_about_columns(self, table: TableCells) -> None:
        """Warn about columns that look misread, by the numbers of a table."""
        _column_warnings.warn_about_split_values(self.columns_)
        if isinstance(self.categorical_features, str):
            _column_warnings.warn_about_misread(table, self.columns_)

    def transform(self, X: Any, n_further: int = 0, *, names_new: bool = False) -> Any:
        """Return codes, float32 inputs, and bags if the table has any, see `stack`.

        With `names_new`, a warning names the columns that have new category values.
        """
        table = self.read(X)
        columns = [column.encode_table(table) for column in self.parts_]
        encoded = EncodedTable(X=table.X, columns=columns)
        # Those of lists come last.
        ordered = sorted(columns, key=lambda column: column.bag is not None)
        lookups = [c.lookup for c in ordered if c.lookup is not None]
        _unseen_values.warn_about_unseen(lookups)
        if names_new:
            _unseen_values.warn_about_new_values(lookups, table.X.shape[0])
        return self.stack(encoded, n_further)

    def read(self, X: Any) -> TableCells:
        """Return the cells of a checked table, None for a column that it may lack."""
        return self._cells_of(self.align(X))

    def _cells_of(self, X):
        if self.sparse_ is not None:
            return TableCells(X, [self.sparse_], [X])
        cells = _frames.list_columns(X)
        if len(cells) < len(self.columns_):
            cell_of = dict(zip(X.columns, cells, strict=True))
            cells = [cell_of.get(column.name) for column in self.columns_]
        return TableCells(X, self.columns_, cells)

    def exposure_codes(self, X: Any) -> np.ndarray | None:
        """Return how the rows of a table were shown, or None if no column says it.

        The codes are integers of shape (n_samples, n_exposure_features).
        """
        columns = self.exposure_columns_
        if not columns:
            return None
        table = self.read(X)
        absent = [c.name for c in columns if table.cells[c.name] is None]
        if absent:
            raise ValueError(
                f"X lacks the columns {absent} of exposure_features, which say how "
                "rows were shown."
            )
        codes = [column.transform(table.cells[column.name]) for column in columns]
        return np.stack(codes, axis=1).astype(np.int16)

    def says_exposure(self, X: Any) -> bool:
        """Return whether a table says how its rows were shown."""
        columns = self.exposure_columns_
        if not columns:
            return False
        table = self.read(X)
        return all(table.cells[column.name] is not None for column in columns)

    def align(self, X: Any) -> Any:
        """Check a table, and return it with the columns of fit, in their order.

        It may lack columns that predictions do not read.
        """
        X = _frames.as_table(X)
        if issparse(X) and self.sparse_ is None:
            raise TypeError(
                "Sparse data was passed for X, but X was dense in fit; pass "
                "X.toarray()."
            )
        has_names = hasattr(self, "feature_names_in_")
        if has_names and _frames.is_dataframe(X):
            columns = list(X.columns)
            is_read = columns == list(self.names_)
            if not is_read:
                X, is_read = self._select(X, columns)
        else:
            # Arrays of numbers need no slow validation.
            is_read = type(X) is np.ndarray and X.dtype.kind in "fiu" and not has_names
            is_read = is_read and X.shape[1:] == (self.n_features_in_,)
        if is_read and len(X) and self.sparse_ is None:
            return X
        return self._validate(X)

    def _select(self, X, columns):
        """Return the columns of fit that a table has, and whether none is missing.

        Columns that predictions do not read are never missing.
        """
        unread = {column.name for column in self.columns_ if not column.is_read}
        absent = unread.difference(columns)
        names = [name for name in self.names_ if name not in absent]
        if columns == names:
            return X, True
        if not set(names) <= set(columns) or len(set(columns)) < len(columns):
            return X, False
        further = [repr(name) for name in columns if name not in set(names)]
        if further:
            warn_user(
                f"X has {len(further)} column(s) not seen in fit, which are "
                f"ignored: {', '.join(further[:5])}"
                f"{', ...' if len(further) > 5 else ''}."
            )
        return X.select(names) if hasattr(X, "select") else X[names], True

    def _spelling_hint(self, X):
        """Return a question about a column that a table lacks, or ""."""
        fitted_names = list(getattr(self, "feature_names_in_", ()))
        columns = set(X.columns)
        absent_names = [name for name in fitted_names if name not in columns]
        new_names = sorted(columns.difference(fitted_names), key=str)
        for name in absent_names[:MOST_HINTED_NAMES]:
            meant = nearest(name, new_names)
            if meant:
                return f"Did you mean {name!r} by {meant!r}?"
        return ""

    def _validate(self, X, reset=False):
        """Check a table as scikit-learn does; with `reset`, learn its column names."""
        if reset:
            self.sparse_ = SparseColumns() if _frames.is_sparse(X) else None
        # Its class has the name in messages; names and number of columns become ours.
        validator = _estimator_class(self.estimator_name or type(self).__name__)()
        vars(validator).update(vars(self))
        if self.sparse_ is None and _frames.is_dataframe(X):
            if X.shape[0] < 1 or X.shape[1] < 1:
                raise ValueError(
                    f"X must have at least one row and column; its shape is {X.shape}."
                )
            _frames.refuse_repeated("The columns of X", list(X.columns))
            try:
                validation.validate_data(
                    validator, X, reset=reset, skip_check_array=True
                )
            except ValueError as error:
                raise ValueError(f"{error}{self._spelling_hint(X)}") from error
            if validation._get_feature_names(X) is None and _frames.is_polars(X):
                raise TypeError(
                    "This scikit-learn cannot read the column names of this polars. "
                    "Upgrade scikit-learn to 1.9 or newer, or pass X.to_pandas()."
                )
            labels = list(X.columns)
            if not isinstance(labels[0], str) and labels != list(range(len(labels))):
                warn_user(
                    f"X has columns whose names, such as {labels[0]!r}, are not text: "
                    "they are read by position. X.columns = map(str, X.columns) helps."
                )
        else:
            options = {"accept_sparse": "csr", "ensure_all_finite": False}
            if self.sparse_ is None:
                # numpy would convert lists of numbers and text to text.
                options["dtype"] = None if hasattr(X, "dtype") else object
            X = validation.validate_data(validator, X, reset=reset, **options)
        if reset:
            self.__dict__ = vars(validator)
        return X if self.sparse_ is None or issparse(X) else csr_array(X)

    def stack(self, encoded: EncodedTable, n_further: int = 0) -> Any:
        """Return tables of codes and of numeric inputs, and joint bags if any.

        The last `n_further` inputs are left to the caller.
        """
        n_samples = encoded.X.shape[0]
        codes = encoded.codes()
        dtype = np.result_type(np.int8, *(column.table.dtype for column in codes))
        table = np.empty((n_samples, len(codes)), dtype=dtype)
        n_inputs = sum(column.n_inputs for column in encoded.columns) + n_further
        numeric = np.empty((n_samples, n_inputs), dtype=np.float32)
        readers = [c.read_inputs for c in encoded.columns if c.read_inputs is not None]
        # pandas slices slowly.
        is_one_chunk = n_samples <= _frames.CHUNK_ROWS
        for start in range(0, n_samples, _frames.CHUNK_ROWS):
            stop = min(start + _frames.CHUNK_ROWS, n_samples)
            rows = None if is_one_chunk else slice(start, stop)
            inputs = [array for read in readers for array in read(rows)]
            for first in range(start, stop, CACHE_ROWS):
                cached = slice(first, min(first + CACHE_ROWS, stop))
                for index, column in enumerate(codes):
                    table[cached, index] = column[cached]
                cached_of_chunk = slice(cached.start - start, cached.stop - start)
                for index, array in enumerate(inputs):
                    numeric[cached, index] = array[cached_of_chunk]
        bags = encoded.bags()
        if bags and not self.is_sparse_:
            bags = [combine_bags(bags, [shape.n_vectors for shape in self.bags_])]
        return table, numeric, *bags

    def with_columns(self, replacements: Mapping[Any, Any]) -> "TableEncoder":
        """Return an encoder with other columns in the place of some of its own."""
        changed = copy.copy(self)
        changed.columns_ = [
            replacements.get(column, column) for column in self.columns_
        ]
        changed.combinations_ = tuple(
            replacements.get(column, column) for column in self.combinations_
        )
        if self.sparse_ is not None:
            changed.sparse_ = replacements.get(self.sparse_, self.sparse_)
        return changed

    @property
    def names_(self) -> Sequence[Any]:
        """The names of the columns of fit, or their indices."""
        return getattr(self, "feature_names_in_", range(self.n_features_in_))

    @property
    def is_sparse_(self) -> bool:
        """Whether tables are sparse, so that one object stands for all columns."""
        return self.sparse_ is not None

    @property
    def parts_(self) -> list[Any]:
        """What is learnt and encoded: all columns, or a sparse table as a whole."""
        return self.all_columns_ if self.sparse_ is None else [self.sparse_]

    @property
    def all_columns_(self) -> list[Any]:
        """The columns of a table, and then their combinations."""
        return [*self.columns_, *self.combinations_]

    @property
    def read_columns_(self) -> list[Any]:
        """The columns that predictions read."""
        return [column for column in self.columns_ if column.is_read]

    @property
    def exposure_columns_(self) -> list[Any]:
        """The columns that say how a row was shown."""
        return [column for column in self.columns_ if column.exposure_shape is not None]

    @property
    def code_columns_(self) -> list[Any]:
        """The columns whose values are codes with embeddings."""
        columns = self.all_columns_
        return [column for column in columns if column.network_input == "codes"]

    @property
    def bag_columns_(self) -> list[Any]:
        """The columns whose values are bags; of a sparse table, all as one."""
        return [column for column in self.parts_ if column.network_input == "bags"]

    @property
    def cardinalities_(self) -> list[int]:
        """Numbers of embeddings of the columns of codes."""
        return [column.cardinality for column in self.code_columns_]

    @property
    def n_network_codes_(self) -> list[int]:
        """Numbers of codes of the columns of codes that the network reads."""
        return [column.n_network_codes for column in self.code_columns_]

    @property
    def category_names_(self) -> list[Any]:
        """Names of the columns of codes."""
        return [column.name for column in self.code_columns_]

    @property
    def inputs_(self) -> list[Any]:
        """The numeric inputs of all columns."""
        return [numeric for column in self.columns_ for numeric in column.inputs]

    @property
    def numeric_names_(self) -> list[str]:
        """Names of the numeric inputs."""
        return [numeric.name for numeric in self.inputs_]

    @property
    def numeric_bins_(self) -> list[int]:
        """Number of bins of each numeric input, 0 for inputs without bins."""
        return [numeric.n_bins for numeric in self.inputs_]

    @property
    def bags_(self) -> list[BagShape]:
        """Shapes of the bags, with the vectors of shared columns."""
        code_columns = self.code_columns_
        return [column.bag_shape(code_columns) for column in self.bag_columns_]

    @property
    def named_parts_(self) -> dict[Any, Any]:
        """By the name of each column of a table, what encodes it."""
        names = self.names_
        return {
            name: column for column in self.parts_ for name in column.names_in(names)
        }

    def elements(self, bags: Bags) -> list[Any]:
        """Return the `Elements` of each list column, from the bags of a table."""
        starts = np.cumsum([0, *(shape.n_vectors for shape in self.bags_)])
        sizes = np.diff(bags.offsets)
        n_bags = len(starts) - 1
        column_of_entries = np.repeat(np.arange(len(sizes)) % n_bags, sizes)
        return [
            column.elements_of(
                bags.indices[column_of_entries == b] - starts[b], sizes[b::n_bags]
            )
            for b, column in enumerate(self.bag_columns_)
        ]


@cache
def _estimator_class(name):
    """Return an estimator class with a given name, for messages of scikit-learn."""
    return type(name, (BaseEstimator,), {})


@contextmanager
def _collect(errors: dict[Any, str] | None, column: Column) -> Iterator[None]:
    """Note an error by the name of its column, or raise it if none are collected."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if errors is None:
            raise
        errors[column.name] = str(error)


def grow_encoder(
    encoder: TableEncoder, X: Any, forget_after: int | None = None
) -> tuple[TableEncoder, list[np.ndarray], list[np.ndarray]]:
    """Return an encoder with codes for frequent new values, and where they come from.

    The second result has each code's earlier one, -1 for new values, per category
    column; the third has the same of the vectors of each list column. Values that have
    an embedding keep their codes; with `max_categories` or `n_hash_buckets`, none is
    new. With `forget_after`, values that so many updates have not had make room for new
    ones.
    """
    table = encoder.read(X)
    grown = {
        column: column.grow_table(table, forget_after) for column in encoder.parts_
    }
    grown_columns = {column: growth.column for column, growth in grown.items()}
    return encoder.with_columns(grown_columns), *_origins(grown.values())


def add_vectors(
    encoder: TableEncoder, tables: Mapping[Any, Any]
) -> tuple[TableEncoder, list[np.ndarray], list[np.ndarray]]:
    """Return an encoder with further vectors, by column, and where its codes come from.

    See `grow_encoder`.
    """
    columns = {column.name: column for column in encoder.columns_}
    with_vectors = [
        c.name for c in encoder.code_columns_ if c.value_vectors is not None
    ]
    chosen = {}
    for name, table in tables.items():
        place = _frames.find_column("vectors", name, list(columns))
        column_name = list(columns)[place]
        kind = "column that had vectors in fit"
        _frames.check_among("vectors", column_name, with_vectors, kind)
        chosen[column_name] = table
    grown = {
        column: column.with_vectors(chosen[column.name])
        if column.name in chosen
        else column.unchanged()
        for column in encoder.parts_
    }
    new = {column: result.column for column, result in grown.items()}
    return encoder.with_columns(new), *_origins(grown.values())


def unchanged_origins(
    encoder: TableEncoder,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the origins of the codes and vectors of an encoder: they themselves."""
    return _origins(column.unchanged() for column in encoder.parts_)


def _origins(columns):
    """Return the origins of the codes, and those of the vectors of bags."""
    columns = list(columns)
    return (
        [c.code_origin for c in columns if c.code_origin is not None],
        [c.vector_origin for c in columns if c.vector_origin is not None],
    )


def learn_constant_columns(
    encoder: TableEncoder, X: Any, sample_weight: np.ndarray | None = None
) -> TableEncoder:
    """Learn numbers that were constant, so that their weights are untrained.

    The encoder itself is returned if these rows do not vary either.
    """
    table = encoder.read(X)
    successors = {
        column: column.learn_constant(table.cells[name], sample_weight)
        for name, column in table.columns.items()
    }
    if all(column is successor for column, successor in successors.items()):
        return encoder
    return encoder.with_columns(successors)


def column_kinds(encoder: TableEncoder) -> dict[str, list[Any]]:
    """Return the names of columns by their kind."""
    kinds: dict[str, list[Any]] = {}
    for name, column in encoder.named_parts_.items():
        kinds.setdefault(column.kind, []).append(name)
    return kinds


def vector_counts(encoder: TableEncoder) -> dict[Any, int]:
    """Return the numbers of embeddings by column; a list may share those of another."""
    columns = [*encoder.code_columns_, *encoder.bag_columns_]
    return {column.name: column.n_vectors for column in columns}

"""The encoder of a table, and its changes in continued training."""

import copy
import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from scipy.sparse import csr_array, issparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from sk_pwiser._table._categories import (
    FIRST_VALUE,
    MIN_FREQUENCY,
    UNSEEN,
    CategoryColumn,
    sort_values,
)
from sk_pwiser._table._column_kinds import (
    TimeColumn,
    has_columns,
    has_form,
    make_columns,
    refuse_chosen_columns,
    refuse_merged,
    warn_about_categories,
    warn_about_codes,
    warn_about_unseen,
)
from sk_pwiser._table._frames import (
    as_table,
    find_column,
    is_dataframe,
    is_polars,
    is_sparse,
    list_columns,
    read_lists,
    row_chunks,
    slice_rows,
)
from sk_pwiser._table._labels import refuse_repeated
from sk_pwiser._table._lists import (
    Bags,
    Elements,
    ListColumn,
    SparseColumns,
    combine_bags,
)
from sk_pwiser._table._numbers import MAX_BINS, NumericColumn
from sk_pwiser._utils import warn_user

# Number of rows of the result that are filled at a time, column by column: this part of
# the result stays in the cache of the processor.
CACHE_ROWS = 2_048

# Attributes that scikit-learn sets in fit and compares with later tables.
SCHEMA = ("n_features_in_", "feature_names_in_")


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
    domain_features: Any = ()  # columns that must be inputs of the network
    time_column: Any = None  # no input
    estimator_name: str | None = None
    keeps_rare: bool = False
    n_features_in_: int = field(init=False, repr=False)

    def fit_transform(self, X, sample_weight=None, n_further=None):
        """Learn and encode a table; the caller fills `n_further(self)` more inputs."""
        X = self.begin(X)
        columns = self._list_columns(X)
        codes, bags = self._learn(X, columns, sample_weight)
        n_columns = 0 if n_further is None else n_further(self)
        return self._stack(columns, X.shape[0], codes, bags, n_columns)

    def learn_readable(self, X):
        """Learn columns, and return the table and the errors about others by name."""
        X, errors = self.begin(X), {}
        self._learn(X, self._list_columns(X), errors=errors)
        self.columns_ = [c for c in self.columns_ if c.name not in errors]
        return X, errors

    def _learn(self, X, columns, sample_weight=None, errors=None):
        """Learn all columns; return the codes, and the bags of lists or sparse columns.

        Learning category columns and lists at once encodes them, since finding their
        distinct values takes most of the work.
        """
        if self.sparse_ is not None:
            return [], [self.sparse_.fit(X, sample_weight)]
        lists, codes, bags = self.read_lists(columns, errors), [], []
        for encoder, column in self._pair(columns, CategoryColumn):
            with _collect(errors, encoder):
                others = elements_of(lists, encoder.name)
                codes.append(encoder.fit_transform(column, *others))
        pairs = self._pair(columns, NumericColumn)
        self.learn_numbers(pairs, sample_weight, errors)
        for encoder, own in lists:  # after the columns whose vocabulary they share
            with _collect(errors, encoder):
                bags.append(encoder.fit_transform(own, *self._beside(encoder, columns)))
        return codes, bags

    def begin(self, X):
        """Learn the names and kinds of the columns, and return the checked table."""
        X = self._validate(X, reset=True)
        if self.sparse_ is not None:
            self.columns_ = []
            refuse_chosen_columns(self.categorical_features)
            if self.domain_features:
                raise ValueError(
                    "domain_features must be empty if X is sparse, whose columns the "
                    f"network sums; got {self.domain_features!r}."
                )
            return X
        names = list(getattr(self, "feature_names_in_", range(self.n_features_in_)))
        self.columns_ = make_columns(vars(self), X, names)
        for feature in self.domain_features:
            column = self.columns_[find_column("domain_features", feature, names)]
            if not isinstance(column, CategoryColumn | NumericColumn | ListColumn):
                reason = "only belongs to a column of lists"
                if isinstance(column, TimeColumn):
                    reason = "is the time_column, and with time_feature=False no input"
                raise ValueError(
                    f"domain_features contains {feature!r}, which {reason}."
                )
        return X

    def learn_numbers(self, pairs, sample_weight, errors=None):
        """Learn pairs of encoder and column, and warn about those that look misread."""
        for encoder, column in pairs:
            with _collect(errors, encoder):
                encoder.fit(column, sample_weight)
                if encoder.is_scalar:
                    refuse_merged(encoder.name, column)
        names_none = isinstance(self.categorical_features, str)
        if names_none and errors is None:
            warn_about_codes([(c.name, column) for c, column in pairs if c.is_scalar])
            warn_about_categories(self.columns_)

    def transform(self, X, n_further=0):
        """Return codes, float32 inputs, and bags if the table has any.

        The last `n_further` inputs are left to the caller.
        """
        X = self._validate(X, reset=False)
        columns = self._list_columns(X)
        pairs = self._pair(columns, CategoryColumn)
        codes = [encoder.transform(column) for encoder, column in pairs]
        bags = []
        elements, of_elements = [], []
        for encoder, own in self.read_lists(columns):
            items, *numbers = self._beside(encoder, columns)
            elements.append((encoder.named(items), own.elements))
            of_elements.append(elements[-1][0].transform(own.elements))
            bags.append(encoder.transform(own, items, *numbers, of_elements[-1]))
        warn_about_unseen([*pairs, *elements], [*codes, *of_elements])
        if self.sparse_ is not None:
            bags = [self.sparse_.transform(X)]
        return self._stack(columns, X.shape[0], codes, bags, n_further)

    def columns_of(self, X, kind):
        """Return the encoders of one class, each with its column, or lists, of `X`."""
        columns = self._list_columns(self._validate(X, reset=False))
        is_list = kind is ListColumn
        return self.read_lists(columns) if is_list else self._pair(columns, kind)

    def _list_columns(self, X):
        """Return the columns of a table, with None for times that it lacks."""
        if self.sparse_ is not None:
            return []
        columns = list_columns(X)
        if len(columns) < len(self.columns_):
            is_time = [isinstance(column, TimeColumn) for column in self.columns_]
            columns.insert(is_time.index(True), None)
        return columns

    def align(self, X):
        """Return a table with the columns of fit, in their order, if it has them.

        It may lack the column of times.
        """
        X, names = as_table(X), getattr(self, "feature_names_in_", None)
        is_read = names is not None and is_dataframe(X)
        if not is_read or has_columns(X, names, self.time_column):
            return X
        found, names = list(X.columns), list(names)
        if self.time_column not in found:
            names = [name for name in names if name != self.time_column]
        if len(set(found)) < len(found) or not set(names) <= set(found):
            return X
        extra = [column for column in found if column not in set(names)]
        if extra:
            warn_user(
                f"X has {len(extra)} column(s) not seen in fit, which are ignored: "
                f"{', '.join(map(repr, extra[:5]))}{', ...' if len(extra) > 5 else ''}."
            )
        return X.select(names) if hasattr(X, "select") else X[names]

    def _validate(self, X, reset):
        """Check a table, in transform including the number and names of its columns."""
        validator = _estimator_class(self.estimator_name or type(self).__name__)()
        if not reset:
            learnt = {k: v for k, v in vars(self).items() if k in SCHEMA}
            vars(validator).update(learnt)
        X = as_table(X) if reset else self.align(X)
        reads_sparse = is_sparse(X) if reset else self.sparse_ is not None
        if issparse(X) and not reads_sparse:
            raise TypeError(
                "Sparse data was passed for X, but X was dense in fit; pass "
                "X.toarray()."
            )
        if is_dataframe(X) and not reads_sparse:
            names = getattr(self, "feature_names_in_", None)
            if reset or not has_columns(X, names, self.time_column):
                refuse_repeated("The columns of X", list(X.columns))
                validate_data(validator, X, reset=reset, skip_check_array=True)
                if is_polars(X):
                    _check_names_are_read(X)
            if X.shape[0] < 1 or X.shape[1] < 1:
                raise ValueError(
                    "X must have at least one row and one column; its shape is "
                    f"{X.shape}."
                )
        elif reads_sparse or reset or not has_form(X, self):
            options = {"accept_sparse": "csr", "ensure_all_finite": False}
            if not reads_sparse:
                # numpy would convert lists of numbers and text to text.
                options["dtype"] = None if hasattr(X, "dtype") else object
            X = validate_data(validator, X, reset=reset, **options)
        if reads_sparse:
            X = X.tocsr() if issparse(X) else csr_array(X)
        if reset:
            for name in SCHEMA:
                vars(self).pop(name, None)
            vars(self).update(vars(validator))
            self.sparse_ = SparseColumns() if reads_sparse else None
        return X

    def _pair(self, columns, kind):
        pairs = zip(self.columns_, columns, strict=True)
        return [pair for pair in pairs if isinstance(pair[0], kind)]

    def read_lists(self, columns, errors=None):
        found = []
        for encoder, column in self._pair(columns, ListColumn):
            with _collect(errors, encoder):
                found.append((encoder, read_lists(column, encoder.name)))
        return found

    def _beside(self, encoder, columns):
        """Return the vocabulary of a list column, and its weights and ages, or None."""
        of_name = {c.name: (c, column) for c, column in self._pair(columns, object)}
        items = encoder.items_
        if encoder.shared_name is not None:
            items, _ = of_name[encoder.shared_name]
        names = encoder.weights_name, encoder.ages_name
        return items, *(of_name.get(name, (None, None))[1] for name in names)

    def _stack(self, columns, n_samples, codes, bags, n_further):
        """Return tables of codes and of numeric inputs, and joint bags if any."""
        numeric = np.empty((n_samples, self.n_numeric_ + n_further), dtype=np.float32)
        pairs = [
            (encoder, encoder.load(column))
            for encoder, column in self._pair(columns, NumericColumn)
        ]
        for rows in row_chunks(n_samples):
            inputs = []
            for encoder, column in pairs:
                inputs += encoder.transform(slice_rows(column, rows), rows.start)
            _fill_columns(numeric[rows], [column.__getitem__ for column in inputs])
        dtype = np.min_scalar_type(-max(self.n_codes_, default=1))
        table = np.empty((n_samples, len(codes)), dtype=dtype)
        _fill_columns(table, [column.take for column in codes])
        if bags and self.sparse_ is None:
            bags = [combine_bags(bags, [n for n, *_ in self.bags_])]
        return table, numeric, *bags

    def _of(self, kind):
        return [column for column in self.columns_ if isinstance(column, kind)]

    @property
    def read_columns_(self):
        """The columns that predictions read."""
        return [c for c in self.columns_ if not isinstance(c, TimeColumn)]

    @property
    def cardinalities_(self):
        return [column.cardinality for column in self._of(CategoryColumn)]

    @property
    def n_codes_(self):
        return [column.n_codes for column in self._of(CategoryColumn)]

    @property
    def numeric_bins_(self):
        """Number of bins of each numeric input, 0 for inputs without bins."""
        return [n for column in self._of(NumericColumn) for n in column.bins]

    @property
    def bin_scales_(self):
        """Factor of the components of each numeric input; empty without scores."""
        columns = self._of(NumericColumn)
        if not any(column.has_scores for column in columns):
            return []
        return [scale for column in columns for scale in column.bin_scales]

    @property
    def n_numeric_(self):
        return len(self.numeric_bins_)

    @property
    def category_names_(self):
        return [column.name for column in self._of(CategoryColumn)]

    @property
    def numeric_names_(self):
        return [n for column in self._of(NumericColumn) for n in column.input_names]

    @property
    def bags_(self):
        """Arguments of the `BagSpec` of each bag."""
        if self.sparse_ is not None:
            return [(self.sparse_.n_vectors, False)]
        sizes = dict(zip(self.category_names_, self.cardinalities_, strict=True))
        places = {name: place for place, name in enumerate(sizes)}
        return [
            (c.n_own, True)
            if c.shared_name is None
            else (
                c.n_own + sizes[c.shared_name],
                True,
                places[c.shared_name],
                c.pooling == "attention",
                c.ages_name is not None,
            )
            for c in self.lists_
        ]

    @property
    def lists_(self):
        return self._of(ListColumn)

    def elements(self, bags):
        """Return the `Elements` of each list column, from the bags of a table."""
        starts, n_bags = np.cumsum([0, *(n for n, *_ in self.bags_)]), len(self.lists_)
        found = []
        for b, column in enumerate(self.lists_):
            begins, sizes = bags.offsets[b:-1:n_bags], np.diff(bags.offsets)[b::n_bags]
            offsets = np.append(0, sizes.cumsum())
            moves = np.repeat(begins - offsets[:-1], sizes)
            indices = bags.indices[np.arange(offsets[-1]) + moves] - starts[b]
            own = Bags(offsets, indices, None)
            found.append(Elements.of_bags(own, column.shared_name))
        return found

    def category_values(self, name):
        return next(c.own_values_ for c in self.columns_ if c.name == name)


@cache
def _estimator_class(name):
    """Return an estimator class with a given name, for messages of scikit-learn."""
    return type(name, (BaseEstimator,), {})


def _fill_columns(table, columns):
    """Fill a table; each column is a function from slices of rows to values."""
    for start in range(0, len(table), CACHE_ROWS):
        rows = slice(start, start + CACHE_ROWS)
        for index, take in enumerate(columns):
            table[rows, index] = take(rows)


def _check_names_are_read(X):
    probe = BaseEstimator()
    validate_data(probe, X, skip_check_array=True)
    if not hasattr(probe, "feature_names_in_"):
        raise TypeError(
            "This release of scikit-learn cannot read the column names of this release "
            "of polars, so that columns could be confused. Upgrade scikit-learn to 1.9 "
            "or newer, or pass X.to_pandas()."
        )


@contextmanager
def _collect(errors, encoder):
    """Note an error by the name of its column, or raise it if none are collected."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if errors is None:
            raise
        errors[encoder.name] = str(error)


def elements_of(lists, name):
    return [each.elements for encoder, each in lists if encoder.shared_name == name]


def grow_encoder(encoder, X):
    """Return an encoder with codes for frequent new values, and where they come from.

    The second result has each code's earlier one, -1 for new values, per category
    column; the third has the same of the vectors of each list column. Values that have
    an embedding keep their codes; with `max_categories` or `n_hash_buckets`, none is
    new.
    """
    grown = copy.copy(encoder)
    grown.columns_ = list(encoder.columns_)
    origins, vectors = [], []
    columns = dict(encoder.columns_of(X, CategoryColumn))
    lists = encoder.columns_of(X, ListColumn)
    for index, column in enumerate(encoder.columns_):
        if isinstance(column, CategoryColumn):
            data = columns[column], *elements_of(lists, column.name)
            grown.columns_[index], origin = grow_column(column, *data)
            origins.append(origin)
    for column, own in lists:
        index = encoder.columns_.index(column)
        grown.columns_[index], origin = grow_list(column, own.elements)
        vectors.append(origin)
    return grown, origins, vectors


def grow_list(column, elements):
    """Return a list column with vectors for new values, and the earlier vectors."""
    if column.items_ is None:
        return column, np.arange(column.n_own)
    items, origin = grow_column(column.items_, elements)
    if items is column.items_:
        return column, np.arange(column.n_own)
    grown = copy.copy(column)
    grown.items_ = items
    grown.finish()
    before = column.items_.cardinality
    origin = origin[: items.cardinality]
    # The vector of empty lists comes last.
    return grown, np.append(np.where(origin < before, origin, -1), before)


def grow_column(column, data, *others):
    """Return a column with codes for new values, of `others` too, and earlier codes.

    Rare new values have codes only if another one is frequent: without frequent ones,
    the cost depends on the rows alone, and the same column is returned.
    """
    column.transform(data)  # raises if the kinds of values differ
    if column.vocabulary.max_values is not None:
        return column, np.arange(column.n_codes)
    values, counts, kinds, _ = column.count(data, *others)
    known, limit = column.codes_, column.cardinality
    promoted, rare = [], []
    for value, n_rows in zip(values, counts, strict=True):
        if known.get(value, limit) >= limit:
            is_frequent = n_rows >= column.vocabulary.min_frequency
            (promoted if is_frequent else rare).append(value)
    if not promoted:
        return column, np.arange(column.n_codes)
    promoted, old_rare = sort_values(promoted), list(known)[column.n_frequent_ :]
    frequent = [*list(known)[: column.n_frequent_], *promoted]
    kept = list(frequent)
    if column.keeps_rare:
        moved = set(promoted)
        kept += [value for value in old_rare if value not in moved]
        kept += sort_values([value for value in rare if value not in known])
    grown = copy.copy(column)
    grown.n_frequent_ = len(frequent)
    grown.codes_ = {value: code for code, value in enumerate(kept, FIRST_VALUE)}
    grown.learn_kinds(column.kinds_ | column.large | kinds)
    origin = [*range(FIRST_VALUE), *(known.get(value, -1) for value in kept)]
    return grown, np.array(origin, dtype=np.int64)


def learn_constant_columns(encoder, X, sample_weight=None):
    """Learn numbers that were constant, so that their weights are untrained."""
    if encoder.sparse_ is not None:
        X = encoder._validate(X, reset=False)
        sparse = encoder.sparse_.learn_constant(X, sample_weight)
        if sparse is encoder.sparse_:
            return encoder
        new_encoder = copy.copy(encoder)
        new_encoder.sparse_ = sparse
        return new_encoder
    constant = [c for c in encoder.columns_ if getattr(c, "has_constant", False)]
    if not constant:
        return encoder
    data = dict(encoder.columns_of(X, NumericColumn))
    learnt = {id(c): c.learn_constant(data[c], sample_weight) for c in constant}
    if all(learnt[id(column)] is column for column in constant):
        return encoder
    new_encoder = copy.copy(encoder)
    new_encoder.columns_ = [learnt.get(id(c), c) for c in encoder.columns_]
    return new_encoder


def _in_tenths(share):
    """Return an upper limit of a share of the rows in words."""
    tenths = math.ceil(10 * share)
    return f"up to {tenths}0 % of the rows" if tenths < 10 else "most rows"


def warn_about_new_values(encoder, codes, X):
    """Warn once about category values that are encoded as unseen values."""
    n_samples, parts = len(codes), []
    n_unseen = [np.count_nonzero(column == UNSEEN) for column in codes.T]
    pairs = encoder.columns_of(X, CategoryColumn) if any(n_unseen) else ()
    for n_rows, (column, values) in zip(n_unseen, pairs, strict=bool(pairs)):
        if n_rows and column.missing_code_ == UNSEEN:
            # Without missing values in fit, they have the code of unseen values.
            n_known = sum(column.count(values)[1])
            n_rows -= n_samples - n_known
        parts.append((column.name, n_rows))
    vocabularies = {column.name: column for column in encoder.columns_}
    for column, own in encoder.columns_of(X, ListColumn):
        shared = vocabularies.get(column.shared_name)
        parts.append((column.name, column.count_new_rows(own, shared)))
    found = [
        # In tenths: a text that changes with every update is shown with every update.
        f"{name!r} in {_in_tenths(n_rows / n_samples)}"
        for name, n_rows in parts
        if n_rows
    ]
    if found:
        warn_user(
            f"Rows with new category values: {', '.join(found)}. They are encoded as "
            "unseen values; encoding_params={'grow_vocabulary': True} adds new values "
            "to the vocabulary."
        )

"""The encoder of a table, and its changes in continued training."""

import copy
import math
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from scipy.sparse import csr_array, issparse
from sklearn.base import BaseEstimator
from sklearn.utils import validation

from sk_pwiser._columns import (
    _bags,
    _category,
    _choose,
    _frames,
    _list,
    _misread,
    _sparse,
    _time,
    _value_kinds,
    _vocabulary,
)
from sk_pwiser._columns._category import UNSEEN, CategoryColumn
from sk_pwiser._columns._list import ListColumn
from sk_pwiser._columns._number import NumericColumn
from sk_pwiser._columns._piecewise_linear import MAX_BINS
from sk_pwiser._utils._warnings import warn_user

# A warning about unseen values needs at least this share of the rows with known values,
# this number of rows and this number of distinct unseen values.
UNSEEN_SHARE, UNSEEN_ROWS, UNSEEN_VALUES = 0.95, 20, 2
# Number of rows of the result that are filled at a time, column by column: this part of
# the result stays in the cache of the processor.
CACHE_ROWS = 2_048


@dataclass(eq=False)
class TableEncoder:
    """Encodes a table as category codes, numeric inputs and, if there are any, bags.

    The parameters up to `list_ages` are those of the estimator, checked by the caller;
    `estimator_name` is its name in messages.
    """

    categorical_features: Any = "from_dtype"
    min_frequency: Any = _vocabulary.MIN_FREQUENCY
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
    n_features_in_: int = field(init=False, repr=False)

    def fit_transform(self, X, sample_weight=None):
        return self.stack(self.fit(X, sample_weight))

    def fit(self, X, sample_weight=None, errors=None):
        """Learn a table, and return it with its columns, codes and bags, see `stack`.

        Learning category columns and lists at once encodes them, since finding their
        distinct values takes most of the work. Errors about columns are noted by name
        in `errors`, if given.
        """
        X, columns = self.begin(X)
        if self.sparse_ is not None:
            return X, columns, [], [self.sparse_.fit(X, sample_weight)]
        lists, elements = self.read_lists(columns, errors)
        codes, bags = [], []
        for encoder, column in self._pair(columns, CategoryColumn):
            with _collect(errors, encoder):
                codes.append(encoder.fit_transform(column, *elements[encoder.name]))
        self.learn_numbers(self._pair(columns, NumericColumn), sample_weight, errors)
        for encoder, own in lists:  # after the columns whose vocabulary they share
            with _collect(errors, encoder):
                bags.append(encoder.fit_transform(own, *self._beside(encoder, columns)))
        return X, columns, codes, bags

    def begin(self, X):
        """Learn the names and kinds of columns; return the checked table, and these."""
        X = _frames.as_table(X)
        X, self.columns_ = self._validate(X, reset=True), []
        if self.sparse_ is not None:
            for name in ("categorical_features", "domain_features"):
                given = getattr(self, name)
                if not isinstance(given, str | None) and len(given):
                    raise ValueError(
                        f"{name} must be empty if X is sparse, whose columns are "
                        f"numbers that the network sums; got {given!r}."
                    )
            return X, []
        names = list(getattr(self, "feature_names_in_", range(self.n_features_in_)))
        columns = _frames.list_columns(X)
        contents = list(map(_frames.content_of, columns))
        self.columns_ = _choose.make_columns(vars(self), contents, names)
        for feature in self.domain_features:
            index = _frames.find_column("domain_features", feature, names)
            if reason := getattr(self.columns_[index], "not_an_input", ""):
                raise ValueError(
                    f"domain_features contains {feature!r}, which {reason}."
                )
        return X, columns

    def learn_numbers(self, pairs, sample_weight, errors=None):
        """Learn pairs of encoder and column, and warn about those that look misread."""
        for encoder, column in pairs:
            with _collect(errors, encoder):
                encoder.fit(column, sample_weight)
                if encoder.is_scalar:
                    _misread.refuse_merged(encoder.name, column)
        if errors is None:
            _misread.warn_about_split_values(self.columns_)
        if isinstance(self.categorical_features, str) and errors is None:
            numbers = [(c.name, column) for c, column in pairs if c.is_scalar]
            _misread.warn_about_misread(numbers, self.columns_)

    def transform(self, X, n_further=0, *, names_new=False):
        """Return codes, float32 inputs, and bags if the table has any, see `stack`.

        With `names_new`, a warning names the columns that have new category values.
        """
        X, columns = self.read(X)
        if self.sparse_ is not None:
            bags = [self.sparse_.transform(X)]
            return self.stack((X, columns, [], bags), n_further)
        # Encoders of values, the values, their codes and, of elements, the lists.
        pairs = self._pair(columns, CategoryColumn)
        found = [(encoder, own, encoder.transform(own), None) for encoder, own in pairs]
        codes, bags = [of_values for _, _, of_values, _ in found], []
        for encoder, column in self._pair(columns, _list.ListColumn):
            own = _frames.read_lists(column, encoder.name)
            items, *numbers = self._beside(encoder, columns)
            items = encoder.named(items)
            of_elements = items.transform(own.elements)
            found.append((items, own.elements, of_elements, own))
            bags.append(encoder.encode(own, items, of_elements, *numbers))
        warn_about_unseen(found)
        if names_new:
            warn_about_new_values(found, X.shape[0])
        return self.stack((X, columns, codes, bags), n_further)

    def read(self, X):
        """Return a checked table and its columns, with None for times that it lacks."""
        X = self.align(X)
        columns = [] if self.sparse_ is not None else _frames.list_columns(X)
        if len(columns) < len(self.columns_):
            is_time = [isinstance(c, _time.TimeColumn) for c in self.columns_]
            columns.insert(is_time.index(True), None)
        return X, columns

    def align(self, X):
        """Check a table, and return it with the columns of fit, in their order.

        It may lack the column of times.
        """
        X = _frames.as_table(X)
        if issparse(X) and self.sparse_ is None:
            raise TypeError(
                "Sparse data was passed for X, but X was dense in fit; pass "
                "X.toarray()."
            )
        has_names = hasattr(self, "feature_names_in_")
        if has_names and _frames.is_dataframe(X):
            found, names = list(X.columns), self.feature_names_in_.tolist()
            if self.time_column not in found:
                names = [name for name in names if name != self.time_column]
            known = set(names)
            if found != names and len(set(found)) == len(found) and known <= set(found):
                extra = [repr(column) for column in found if column not in known]
                if extra:
                    warn_user(
                        f"X has {len(extra)} column(s) not seen in fit, which are "
                        f"ignored: {', '.join(extra[:5])}"
                        f"{', ...' if len(extra) > 5 else ''}."
                    )
                X, found = X.select(names) if hasattr(X, "select") else X[names], names
            is_read = found == names
        else:
            # Arrays of numbers need no slow validation.
            is_read = type(X) is np.ndarray and X.dtype.kind in "fiu" and not has_names
            is_read = is_read and X.shape[1:] == (self.n_features_in_,)
        if is_read and len(X) and self.sparse_ is None:
            return X
        return self._validate(X)

    def _validate(self, X, reset=False):
        """Check a table as scikit-learn does; with `reset`, learn its column names."""
        if reset:
            self.sparse_ = _sparse.SparseColumns() if _frames.is_sparse(X) else None
        # Its class has the name in messages; names and number of columns become ours.
        validator = _estimator_class(self.estimator_name or type(self).__name__)()
        vars(validator).update(vars(self))
        if self.sparse_ is None and _frames.is_dataframe(X):
            if X.shape[0] < 1 or X.shape[1] < 1:
                raise ValueError(
                    f"X must have at least one row and column; its shape is {X.shape}."
                )
            _frames.refuse_repeated("The columns of X", list(X.columns))
            validation.validate_data(validator, X, reset=reset, skip_check_array=True)
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

    def _pair(self, columns, kind):
        pairs = zip(self.columns_, columns, strict=True)
        return [pair for pair in pairs if isinstance(pair[0], kind)]

    def read_lists(self, columns, errors=None):
        """Return pairs of encoder and lists, and elements by shared vocabulary."""
        lists, elements = [], defaultdict(list)
        for encoder, column in self._pair(columns, _list.ListColumn):
            with _collect(errors, encoder):
                own = _frames.read_lists(column, encoder.name)
                lists.append((encoder, own))
                elements[encoder.shared_name].append(own.elements)
        return lists, elements

    def _beside(self, encoder, columns):
        """Return the vocabulary of a list column, and its weights and ages, or None."""
        of_name = {c.name: (c, column) for c, column in self._pair(columns, object)}
        items = encoder.items_
        if encoder.shared_name is not None:
            items, _ = of_name[encoder.shared_name]
        names = encoder.weights_name, encoder.ages_name
        return items, *(of_name.get(name, (None, None))[1] for name in names)

    def stack(self, encoded, n_further=0):
        """Return tables of codes and of numeric inputs, and joint bags if any.

        The last `n_further` inputs are left to the caller.
        """
        X, columns, codes, bags = encoded
        n_samples, pairs = X.shape[0], self._pair(columns, NumericColumn)
        dtype = np.result_type(np.int8, *(of_column.table.dtype for of_column in codes))
        table = np.empty((n_samples, len(codes)), dtype=dtype)
        n_inputs = sum(len(encoder.inputs) for encoder, _ in pairs) + n_further
        numeric = np.empty((n_samples, n_inputs), dtype=np.float32)
        pairs = [(c, data if c.is_scalar else c.read(data)) for c, data in pairs]
        for start in range(0, n_samples, _frames.CHUNK_ROWS):
            rows, inputs = slice(start, start + _frames.CHUNK_ROWS), []
            for encoder, column in pairs:
                own = column
                if n_samples > _frames.CHUNK_ROWS:  # pandas slices slowly
                    own = column.iloc[rows] if hasattr(column, "iloc") else column[rows]
                inputs += encoder.transform(own, start)
            for first in range(start, min(rows.stop, n_samples), CACHE_ROWS):
                part = slice(first, first + CACHE_ROWS)
                for index, of_column in enumerate(codes):
                    table[part, index] = of_column[part]
                part_of_chunk = slice(first - start, first - start + CACHE_ROWS)
                for index, column in enumerate(inputs):
                    numeric[part, index] = column[part_of_chunk]
        if bags and self.sparse_ is None:
            bags = [_bags.combine_bags(bags, [n for n, *_ in self.bags_])]
        return table, numeric, *bags

    def with_columns(self, new):
        """Return an encoder with other columns in the place of some of its own."""
        changed = copy.copy(self)
        changed.columns_ = [new.get(column, column) for column in self.columns_]
        return changed

    def of_kind(self, kind):
        return [column for column in self.columns_ if isinstance(column, kind)]

    @property
    def read_columns_(self):
        """The columns that predictions read."""
        return [c for c in self.columns_ if not isinstance(c, _time.TimeColumn)]

    @property
    def cardinalities_(self):
        return [column.cardinality for column in self.of_kind(CategoryColumn)]

    @property
    def category_names_(self):
        return [column.name for column in self.of_kind(CategoryColumn)]

    @property
    def numeric_names_(self):
        columns = self.of_kind(NumericColumn)
        return [each.name for column in columns for each in column.inputs]

    @property
    def numeric_bins_(self):
        """Number of bins of each numeric input, 0 for inputs without bins."""
        columns = self.of_kind(NumericColumn)
        return [each.n_bins for column in columns for each in column.inputs]

    @property
    def bags_(self):
        """Arguments of the `BagSpec` of each bag."""
        if self.sparse_ is not None:
            return [(self.sparse_.n_vectors, False)]
        found = []
        for column in self.of_kind(_list.ListColumn):
            spec = column.n_own, True
            if column.shared_name is not None:
                place = self.category_names_.index(column.shared_name)
                n_shared = self.cardinalities_[place]
                kind = column.pooling == "attention", column.ages_name is not None
                spec = column.n_own + n_shared, True, place, *kind
            found.append(spec)
        return found

    def elements(self, bags):
        """Return the `Elements` of each list column, from the bags of a table."""
        starts = np.cumsum([0, *(n for n, *_ in self.bags_)])
        sizes, n_bags = np.diff(bags.offsets), len(starts) - 1
        column_of_entries = np.repeat(np.arange(len(sizes)) % n_bags, sizes)
        found = []
        for b, column in enumerate(self.of_kind(_list.ListColumn)):
            indices = bags.indices[column_of_entries == b] - starts[b]
            own = indices, sizes[b::n_bags], column.shared_name
            found.append(_list.Elements.of_bags(*own))
        return found


@cache
def _estimator_class(name):
    """Return an estimator class with a given name, for messages of scikit-learn."""
    return type(name, (BaseEstimator,), {})


@contextmanager
def _collect(errors, encoder):
    """Note an error by the name of its column, or raise it if none are collected."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if errors is None:
            raise
        errors[encoder.name] = str(error)


def grow_encoder(encoder, X):
    """Return an encoder with codes for frequent new values, and where they come from.

    The second result has each code's earlier one, -1 for new values, per category
    column; the third has the same of the vectors of each list column. Values that have
    an embedding keep their codes; with `max_categories` or `n_hash_buckets`, none is
    new.
    """
    new, origins, vectors = {}, [], []
    _, columns = encoder.read(X)
    lists, elements = encoder.read_lists(columns)
    for column, values in encoder._pair(columns, CategoryColumn):
        new[column], origin = column.grown(values, *elements[column.name])
        origins.append(origin)
    for column, own in lists:
        new[column], origin = column.grown(own.elements)
        vectors.append(origin)
    return encoder.with_columns(new), origins, vectors


def learn_constant_columns(encoder, X, sample_weight=None):
    """Learn numbers that were constant, so that their weights are untrained.

    The encoder itself is returned if these rows do not vary either.
    """
    X, columns = encoder.read(X)
    pairs = encoder._pair(columns, NumericColumn)
    new = {c: c.learn_constant(values, sample_weight) for c, values in pairs}
    learnt = encoder.with_columns(new)
    if encoder.sparse_ is not None:
        learnt.sparse_ = encoder.sparse_.learn_constant(X, sample_weight)
    is_same = learnt.sparse_ is encoder.sparse_ and learnt.columns_ == encoder.columns_
    return encoder if is_same else learnt


def warn_about_unseen(encoded):
    """Warn about columns most of whose values are unseen."""
    found = []
    for encoder, column, of_rows, _ in encoded:
        n_unseen = np.count_nonzero(of_rows.table[:-1] == UNSEEN)
        if n_unseen < UNSEEN_VALUES or encoder.usual_share_ > _category.USUAL_SHARE:
            continue
        n_known = np.count_nonzero(of_rows.indices >= 0)
        share = np.count_nonzero(of_rows.are_new()) / max(n_known, 1)
        is_usual = n_known < UNSEEN_ROWS or share < UNSEEN_SHARE
        if not is_usual and not _expects_unseen(encoder, column):
            place = " of the elements" if encoder.place == "element" else ""
            found.append(f"{encoder.name!r} ({share:.0%}{place})")
    if found:
        warn_user(
            "Almost all rows have a value that was not seen in fit in "
            f"{', '.join(found)}: check the spelling, the case and the white space."
        )


def _expects_unseen(encoder, column):
    """Return whether ids, or one of many values, are new, and not spelt otherwise."""
    has_id_name = _misread.has_id_name(encoder.name)
    if len(encoder.codes_) < _value_kinds.MANY_VALUES and not has_id_name:
        return False
    values = encoder.count(column)[0][: _value_kinds.N_CHECKED]
    texts = [value.strip() for value in values if isinstance(value, str)]
    spellings = str.strip, str.lower, str.upper, str.title
    others = {spell(text) for text in texts for spell in spellings}
    return encoder.codes_.keys().isdisjoint(others)


def warn_about_new_values(encoded, n_samples):
    """Warn once about category values that are encoded as unseen values."""
    found = []
    for encoder, _, of_values, lists in encoded:
        new = np.flatnonzero(of_values.are_new())
        n_rows = len(new if lists is None else np.unique(lists.row_of(new)))
        # In tenths: a text that changes with every update is shown with every update.
        tenths = math.ceil(10 * (n_rows / n_samples))
        share = f"up to {tenths}0 % of the rows" if tenths < 10 else "most rows"
        if n_rows:
            found.append(f"{encoder.name!r} in {share}")
    if found:
        warn_user(
            f"Rows with new category values: {', '.join(found)}. These are encoded as "
            "unseen values; encoding_params={'grow_vocabulary': True} adds them."
        )


def column_kinds(encoder):
    if encoder.sparse_ is not None:
        names = getattr(encoder, "feature_names_in_", range(encoder.n_features_in_))
        return {"sparse": list(names)}
    kinds = {}
    for column in encoder.columns_:
        kinds.setdefault(column.kind, []).append(column.name)
    return kinds


def vector_counts(encoder):
    """Return the numbers of embeddings by column; a list may share those of another."""
    if encoder.sparse_ is not None:
        return {"sparse columns": encoder.sparse_.n_vectors}
    counts = dict(zip(encoder.category_names_, encoder.cardinalities_, strict=True))
    return counts | {c.name: c.n_own for c in encoder.of_kind(ListColumn)}

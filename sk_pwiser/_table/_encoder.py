"""The encoder of tables: a schema learnt in fit gives category codes and inputs."""

from functools import cache
from itertools import chain

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from sk_pwiser._table._categorical_features import refuse_chosen_columns
from sk_pwiser._table._categories import CategoryColumn
from sk_pwiser._table._code_like import warn_about_codes
from sk_pwiser._table._column_summary import ColumnSummary
from sk_pwiser._table._columns import make_columns
from sk_pwiser._table._containers import as_table, is_sparse
from sk_pwiser._table._dataframe import (
    is_dataframe,
    list_columns,
    row_chunks,
    slice_rows,
)
from sk_pwiser._table._layout import (
    align_columns,
    has_columns,
    has_form,
    warn_about_unseen,
)
from sk_pwiser._table._lists import ListColumn, check_lists, combine_bags
from sk_pwiser._table._numeric import NUMERIC_ENCODINGS, NumericColumn
from sk_pwiser._table._quantiles import MAX_BINS
from sk_pwiser._table._sparse import SparseColumns, as_csr
from sk_pwiser._table._vocabulary import (
    MIN_FREQUENCY,
    check_vocabulary,
)
from sk_pwiser._utils import check_choice, check_integer

# Number of rows whose columns are copied into the result at a time: this part of the
# result stays in the processor's cache while it is filled column by column.
CACHE_ROWS = 2_048

# What scikit-learn records about a table in fit and compares with later ones.
SCHEMA = ("n_features_in_", "feature_names_in_")


class TableEncoder(ColumnSummary, BaseEstimator):
    """Encode tables as category codes, numeric inputs and, if there are any, bags.

    The encoded arrays depend on the values in the table alone: the same table gives the
    same arrays as a pandas DataFrame, as a polars DataFrame and, if the category
    columns are given by index or as a mask, as an array.

    Parameters
    ----------
    categorical_features : "from_dtype", array-like or None, default="from_dtype"
        The category columns: "from_dtype" selects them by dtype, an array-like is a
        boolean mask, indices or names, and None stands for no column.
    min_frequency : int or dict, default=2
        Category values that occur in fewer rows in fit share the code of unseen
        values; at least 1, for all category columns or by name or index.
    max_categories : int, dict or None, default=None
        Largest number of codes of values of a column, that of rare values included.
    n_hash_buckets : int, dict or None, default=None
        Number of codes over which values without their own are distributed by hash.
    numeric_encoding : {"standard", "quantile", "piecewise_linear", \
            "bins_and_scores"}, default="standard"
        How the other columns are encoded.
    max_bins : int, default=64
        Largest number of bins of a column, for encodings with bins.
    list_pooling : {"mean", "sum"}, default="mean"
        How the vectors of the elements of a list are pooled.
    list_weights : dict, default=None
        Names of list columns, and those of the columns of their weights.
    estimator_name : str, default=None
        Name of the estimator in messages about the number and the names of the
        columns; by default that of this class.
    keeps_rare : bool, default=False
        Whether values that share the code of unseen values have codes of their own,
        from the cardinality of their column on.
    """

    def __init__(
        self,
        categorical_features="from_dtype",
        min_frequency=MIN_FREQUENCY,
        max_categories=None,
        n_hash_buckets=None,
        numeric_encoding="standard",
        max_bins=MAX_BINS,
        list_pooling="mean",
        list_weights=None,
        estimator_name=None,
        keeps_rare=False,
    ):
        self.categorical_features = categorical_features
        self.min_frequency = min_frequency
        self.max_categories = max_categories
        self.n_hash_buckets = n_hash_buckets
        self.numeric_encoding = numeric_encoding
        self.max_bins = max_bins
        self.list_pooling = list_pooling
        self.list_weights = list_weights
        self.estimator_name = estimator_name
        self.keeps_rare = keeps_rare

    def check_parameters(self):
        """Raise if a parameter is invalid for every table.

        `fit_transform` does so first; callers may do so before other work.

        Raises
        ------
        TypeError or ValueError
            If a number is not an integer >= 1 or `numeric_encoding` is unknown.
        """
        check_vocabulary(vars(self))
        check_lists(vars(self))
        check_choice("numeric_encoding", self.numeric_encoding, NUMERIC_ENCODINGS)
        check_integer("max_bins", self.max_bins, at_least=1)

    def fit_transform(self, X, sample_weight=None):
        """Learn the schema of a table and encode the table.

        Parameters
        ----------
        X : {DataFrame, array-like} of shape (n_samples, n_features)
            The table.
        sample_weight : ndarray of shape (n_samples,), default=None
            Weights of the rows in the distributions of numeric columns.

        Returns
        -------
        codes : ndarray of shape (n_samples, n_category_columns)
            Codes, in the smallest integer type that can represent all of them.
        numeric : float32 ndarray of shape (n_samples, n_numeric)
            Inputs of the numeric columns.
        bags : Bags
            Entries of a sparse table or of list columns. Other tables give two arrays.

        Raises
        ------
        TypeError or ValueError
            If a parameter is invalid, if `X` is not a table with at least one row and
            one column, or if a column contains values that cannot be encoded. The
            message contains the name of the parameter or column.
        """
        X = self.begin(X)
        if self.sparse_ is not None:
            return *self._stack([], X.shape[0]), self.sparse_.fit(X, sample_weight)
        columns = list_columns(X)
        codes = [
            encoder.fit_transform(column)
            for encoder, column in self._pair(columns, CategoryColumn)
        ]
        self.learn_numbers(self._pair(columns, NumericColumn), sample_weight)
        bags = [
            encoder.fit_transform(column, weights)
            for encoder, column, weights in self._pair_lists(columns)
        ]
        return self._stack(columns, X.shape[0], codes, bags)

    def begin(self, X):
        """Learn the names of the columns and how each is read, but not their values.

        Returns
        -------
        DataFrame, ndarray or CSR matrix
            The table, checked.
        """
        self.check_parameters()
        X = self._validate(X, reset=True)
        if self.sparse_ is not None:
            self.columns_ = []
            refuse_chosen_columns(self.categorical_features)
            return X
        names = list(getattr(self, "feature_names_in_", range(self.n_features_in_)))
        self.columns_ = make_columns(vars(self), X, names)
        return X

    def learn_numbers(self, pairs, sample_weight):
        """Learn numeric columns, each given with its encoder."""
        for encoder, column in pairs:
            encoder.fit(column, sample_weight)
        if isinstance(self.categorical_features, str):  # no column was named
            warn_about_codes([(c.name, column) for c, column in pairs if c.is_scalar])

    def transform(self, X):
        """Encode a table with the schema learnt in fit.

        Parameters
        ----------
        X : {DataFrame, array-like} of shape (n_samples, n_features)
            The table.

        Returns
        -------
        codes : ndarray of shape (n_samples, n_category_columns)
            Codes, in the smallest integer type that can represent all of them.
        numeric : float32 ndarray of shape (n_samples, n_numeric)
            Inputs of the numeric columns.
        bags : Bags
            Entries of a sparse table or of list columns. Other tables give two arrays.

        Raises
        ------
        ValueError or TypeError
            If columns are missing, or if a column contains values that cannot be
            encoded. The message contains the name of the column.

        Warns
        -----
        UserWarning
            If a DataFrame has further columns, or if almost all values of a category
            column were not seen in fit.
        """
        X = self._validate(self.align(X), reset=False)
        if self.sparse_ is not None:
            return *self._stack([], X.shape[0]), self.sparse_.transform(X)
        columns = list_columns(X)
        pairs = self._pair(columns, CategoryColumn)
        codes = [encoder.transform(column) for encoder, column in pairs]
        encoders = (encoder for encoder, _ in pairs)
        warn_about_unseen(zip(encoders, codes, strict=True))
        bags = [
            encoder.transform(column, weights)
            for encoder, column, weights in self._pair_lists(columns)
        ]
        return self._stack(columns, X.shape[0], codes, bags)

    def category_columns(self, X):
        """Return the encoders of the category columns, each with its column of `X`.

        Raises
        ------
        ValueError or TypeError
            If columns are missing, new or in another order.
        """
        return self._columns_of(X, CategoryColumn)

    def numeric_columns(self, X):
        """Return the encoders of the numeric columns, each with its column of `X`.

        Raises
        ------
        ValueError or TypeError
            If columns are missing, new or in another order.
        """
        return self._columns_of(X, NumericColumn)

    def _columns_of(self, X, kind):
        X = self._validate(X, reset=False)
        columns = [] if self.sparse_ is not None else list_columns(X)
        return self._pair(columns, kind)

    def align(self, X):
        """Return a DataFrame with the columns of fit, in their order."""
        return align_columns(as_table(X), getattr(self, "feature_names_in_", None))

    def _validate(self, X, reset):
        """Check the form of a table, and in transform its columns' number and names."""
        validator = _estimator_class(self.estimator_name or type(self).__name__)()
        if not reset:
            vars(validator).update(self._schema())
        X = as_table(X)
        reads_sparse = is_sparse(X) if reset else self.sparse_ is not None
        if issparse(X) and not reads_sparse:
            raise TypeError(
                "Sparse data was passed for X, but X was dense in fit; pass "
                "X.toarray()."
            )
        if is_dataframe(X) and not reads_sparse:
            if reset or not has_columns(X, getattr(self, "feature_names_in_", None)):
                validate_data(validator, X, reset=reset, skip_check_array=True)
            if X.shape[0] < 1 or X.shape[1] < 1:
                raise ValueError(
                    "X must have at least one row and one column; its shape is "
                    f"{X.shape}."
                )
        elif reads_sparse:
            X = as_csr(
                validate_data(
                    validator,
                    X,
                    reset=reset,
                    accept_sparse="csr",
                    ensure_all_finite=False,
                )
            )
        elif reset or not has_form(X, self):
            # Lists may mix numbers and text, all of which numpy would convert to text.
            dtype = None if hasattr(X, "dtype") else object
            X = validate_data(
                validator, X, reset=reset, dtype=dtype, ensure_all_finite=False
            )
        if reset:
            for name in self._schema():
                delattr(self, name)
            vars(self).update(vars(validator))
            self.sparse_ = SparseColumns() if reads_sparse else None
        return X

    def _schema(self):
        return {name: getattr(self, name) for name in SCHEMA if hasattr(self, name)}

    def _pair(self, columns, kind):
        """Return the column encoders of one class, each with its column."""
        pairs = zip(self.columns_, columns, strict=True)
        return [pair for pair in pairs if isinstance(pair[0], kind)]

    def _pair_lists(self, columns):
        """Return the encoders of list columns, with their columns and weights."""
        lists = [c for c in self.columns_ if isinstance(c, ListColumn)]
        if not lists:
            return []
        names = [encoder.name for encoder in self.columns_]
        of_name = dict(zip(names, columns, strict=True))
        return [(c, of_name[c.name], of_name.get(c.weights_name)) for c in lists]

    def _stack(self, columns, n_samples, codes=(), bags=()):
        """Return the encoded columns as arrays, with bags if there are any."""
        numeric = self._encode_numeric(columns, n_samples)
        arrays = self._stack_codes(codes, n_samples), numeric
        if not bags:
            return arrays
        return *arrays, combine_bags(bags, [n for n, _ in self.bags_])

    def _stack_codes(self, columns, n_samples):
        dtype = np.min_scalar_type(-max(self.n_codes_, default=1))
        table = np.empty((n_samples, len(columns)), dtype=dtype)
        _fill_columns(table, [column.take for column in columns])
        return table

    def _encode_numeric(self, columns, n_samples):
        table = np.empty((n_samples, self.n_numeric_), dtype=np.float32)
        pairs = [
            (encoder, encoder.load(column))
            for encoder, column in self._pair(columns, NumericColumn)
        ]
        for rows in row_chunks(len(table)):
            inputs = chain.from_iterable(
                encoder.transform(slice_rows(column, rows)) for encoder, column in pairs
            )
            _fill_columns(table[rows], [column.__getitem__ for column in inputs])
        return table


@cache
def _estimator_class(name):
    """Return an estimator class of a given name, which scikit-learn's messages use."""
    return type(name, (BaseEstimator,), {})


def _fill_columns(table, columns):
    """Fill a table from functions that return the values of a column in a slice."""
    for start in range(0, len(table), CACHE_ROWS):
        rows = slice(start, start + CACHE_ROWS)
        for index, take in enumerate(columns):
            table[rows, index] = take(rows)

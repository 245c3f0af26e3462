"""From a table to category codes and numeric inputs, by a schema kept from fit."""

from itertools import chain
from numbers import Integral

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from sk_pwiser._table._categories import CategoryColumn
from sk_pwiser._table._dataframe import (
    blocks,
    columns_of,
    has_category_dtype,
    is_dataframe,
    rows_of,
)
from sk_pwiser._table._numeric import NUMERIC_ENCODINGS, NumericColumn

# Rows whose columns are put side by side at a time: the part of the table that they
# make up stays in the cache while its columns are filled in.
ROWS_IN_CACHE = 2_048


class TableEncoder(BaseEstimator):
    """Encode DataFrames and arrays as category codes and numeric inputs.

    Parameters
    ----------
    categorical_features : "from_dtype", array-like or None, default="from_dtype"
        The category columns: by dtype, as a mask, by index or by name.
    min_frequency : int, default=2
        Category values seen less often in fit share the code of unseen values.
    numeric_encoding : {"standard", "quantile", "piecewise_linear"}, \
            default="standard"
        How the other columns become numeric inputs.
    """

    def __init__(
        self,
        categorical_features="from_dtype",
        min_frequency=2,
        numeric_encoding="standard",
    ):
        self.categorical_features = categorical_features
        self.min_frequency = min_frequency
        self.numeric_encoding = numeric_encoding

    def fit_transform(self, X, sample_weight=None):
        """Learn the schema of a table and encode it.

        Parameters
        ----------
        X : {DataFrame, array-like} of shape (n_samples, n_features)
            The table.
        sample_weight : ndarray of shape (n_samples,), default=None
            Weights of the rows in the distributions of numeric columns.

        Returns
        -------
        codes : ndarray of shape (n_samples, n_category_columns)
            Of the smallest integer type that holds them all.
        numeric : float32 ndarray of shape (n_samples, n_numeric)
        """
        X = self._read(X, reset=True)
        names = getattr(self, "feature_names_in_", range(self.n_features_in_))
        is_category = self._find_categories(X, list(names))
        make_numeric = NUMERIC_ENCODINGS[self.numeric_encoding]
        self.columns_ = [
            CategoryColumn(name, self.min_frequency) if flag else make_numeric(name)
            for name, flag in zip(names, is_category, strict=True)
        ]
        codes = [c.fit_transform(v) for c, v in self._pairs(X, CategoryColumn)]
        for column, values in self._pairs(X, NumericColumn):
            column.fit(values, sample_weight)
        return self._codes(codes, X.shape[0]), self._numbers(X)

    def transform(self, X):
        """Encode a table by the schema of the fitted one.

        Parameters
        ----------
        X : {DataFrame, array-like} of shape (n_samples, n_features)
            The table.

        Returns
        -------
        codes : ndarray of shape (n_samples, n_category_columns)
            Of the smallest integer type that holds them all.
        numeric : float32 ndarray of shape (n_samples, n_numeric)

        Raises
        ------
        ValueError or TypeError
            If columns are missing, new or in another order, or hold values that the
            column cannot take. The message names the column.
        """
        X = self._read(X, reset=False)
        codes = [c.transform(values) for c, values in self._pairs(X, CategoryColumn)]
        return self._codes(codes, X.shape[0]), self._numbers(X)

    @property
    def cardinalities_(self):
        """Number of codes of each category column."""
        return [c.cardinality for c in self.columns_ if isinstance(c, CategoryColumn)]

    @property
    def numeric_bins_(self):
        """Number of bins of each numeric input, 0 for those that are none's position.

        Indicators of missing values are inputs as well.
        """
        columns = (c for c in self.columns_ if isinstance(c, NumericColumn))
        return [n_bins for column in columns for n_bins in column.bins]

    @property
    def n_numeric_(self):
        """Number of numeric inputs, indicators of missing values included."""
        return len(self.numeric_bins_)

    def _read(self, X, reset):
        if not is_dataframe(X):
            # In lists numbers may stand beside text, which numpy would make text too.
            dtype = None if hasattr(X, "dtype") else object
            return validate_data(
                self, X, reset=reset, dtype=dtype, ensure_all_finite=False
            )
        validate_data(self, X, reset=reset, skip_check_array=True)
        if X.shape[0] < 1 or X.shape[1] < 1:
            raise ValueError(
                f"X must have at least one row and one column; its shape is {X.shape}."
            )
        return X

    def _pairs(self, X, kind):
        """List the columns of a kind, each with what the table holds of it."""
        pairs = zip(self.columns_, columns_of(X), strict=True)
        return [pair for pair in pairs if isinstance(pair[0], kind)]

    def _codes(self, columns, n_samples):
        dtype = np.min_scalar_type(-max(self.cardinalities_, default=1))
        table = np.empty((n_samples, len(columns)), dtype=dtype)
        _put_side_by_side([column.of for column in columns], table)
        return table

    def _numbers(self, X):
        table = np.empty((X.shape[0], self.n_numeric_), dtype=np.float32)
        pairs = self._pairs(X, NumericColumn)
        for rows in blocks(len(table)):
            inputs = [c.transform(rows_of(values, rows)) for c, values in pairs]
            _put_side_by_side([one.__getitem__ for one in chain(*inputs)], table[rows])
        return table

    def _find_categories(self, X, names):
        chosen = self.categorical_features
        if chosen is None:
            return [False] * len(names)
        if isinstance(chosen, str):
            if chosen != "from_dtype":
                raise ValueError(
                    "categorical_features must be 'from_dtype', None, or a list of "
                    f"names, indices or booleans; got {chosen!r}."
                )
            return [has_category_dtype(column) for column in columns_of(X)]
        return _chosen_columns(np.asarray(chosen).tolist(), names)


def _put_side_by_side(columns, table):
    """Fill a table with columns, functions that return the values of a slice."""
    for start in range(0, len(table), ROWS_IN_CACHE):
        rows = slice(start, start + ROWS_IN_CACHE)
        for index, column in enumerate(columns):
            table[rows, index] = column(rows)


def _chosen_columns(chosen, names):
    if not isinstance(chosen, list):
        chosen = [chosen]
    if chosen and all(isinstance(c, bool) for c in chosen):
        if len(chosen) != len(names):
            raise ValueError(
                f"categorical_features as a mask must have one entry a column, "
                f"{len(names)}; it has {len(chosen)}."
            )
        return chosen
    flags = [False] * len(names)
    for column in chosen:
        flags[_column_index(column, names)] = True
    return flags


def _column_index(column, names):
    if isinstance(column, str):
        if column not in names:
            raise ValueError(
                f"categorical_features names {column!r}, which is no column of X; its "
                f"columns are {names}."
            )
        return names.index(column)
    if not isinstance(column, Integral) or not -len(names) <= column < len(names):
        raise ValueError(
            f"categorical_features holds {column!r}, which is no name or index of the "
            f"{len(names)} columns of X."
        )
    return int(column)

"""Numeric columns: encodings and bins."""

from copy import copy
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtri

from sk_pwiser._table import _frames

# Number of steps of the distribution function between which ranks are interpolated. The
# rank of a training value is off by at most one step.
N_QUANTILES = 1000

# Number of bins in addition to those of frequent values, and largest number of bins.
N_BINS, MAX_BINS = 16, 64

# On average, a share of 2 / (n + 1) of later values is out of the range of n values.
FEW_VALUES = 100

# Sums of weights and counts of repeated rows differ by rounding errors, which must not
# move an edge to the next value.
ROUNDING = 1e-9

# Number of rows per bin that more than N_BINS bins require.
ROWS_PER_BIN = 32


def distinct_shares(values, weight):
    """Return the distinct values, increasing, and each one's share of the rows."""
    if weight is None:
        distinct, weights = np.unique(values, return_counts=True)
    else:
        distinct, indices = np.unique(values, return_inverse=True)
        weights = np.bincount(indices, weights=weight)
    return distinct, weights / weights.sum()


def bin_edges(shares, max_bins=MAX_BINS):
    """Return the indices of the values at the edges of at most `max_bins` bins.

    Each value with a larger share than a bin of the others counts as a full bin, so
    that a column that is almost always 0 has `N_BINS` bins for its other values.
    """
    if len(shares) <= max_bins + 1:
        return np.arange(len(shares))
    is_frequent, n_frequent = np.zeros(len(shares), dtype=bool), None
    while is_frequent.sum() != n_frequent:
        n_frequent = is_frequent.sum()
        bin_share = shares[~is_frequent].sum() / (max_bins - n_frequent)
        is_frequent = shares > bin_share * (1 + ROUNDING)
    n_others = min(N_BINS, max_bins - n_frequent)
    # With weights of very different sizes, the share of the other values may be 0.
    bin_share = max(shares[~is_frequent].sum() / n_others, np.finfo(float).tiny)
    cumulative = np.where(is_frequent, bin_share, shares).cumsum()
    n_bins = n_frequent + n_others
    steps = np.arange(1, n_bins + 1) / n_bins
    edges = np.searchsorted(cumulative / cumulative[-1], steps - ROUNDING)
    return np.unique([0, *edges])


# Inputs are clipped to the range of the values in fit: the network has learnt nothing
# about others. They are clipped to this number of standard deviations, too, so that a
# single extreme value does not dominate the logit in predictions.
LARGEST_DEVIATION = 10.0

# Values are clipped to +-LARGEST_VALUE, since squares, sums and ratios of larger values
# may overflow. In fit, values closer to 0 than SMALLEST_VALUE count as 0, since ratios
# with their differences as denominators may overflow.
LARGEST_VALUE, SMALLEST_VALUE = 1e100, 1e-100


class Input(NamedTuple):
    """An input of the network."""

    name: str  # that of an indicator of missing values ends with "_missing"
    n_bins: int  # over which the network expands it; 0 for no bins
    scale: float  # factor of the components of the bins


@dataclass(eq=False)
class NumericColumn:
    """Encodes a numeric column, with an indicator if it had missing values in fit.

    A subclass defines `_fit`, which learns from the values that are not missing, and
    `_nodes`, the map from values to inputs as points. A column with one distinct value
    is encoded as 0 until `learn_constant` learns it from later rows.
    """

    name: Any

    kind = "numeric"

    # Input of a missing value: the mean of the other inputs.
    fill_value_ = 0.0

    # Whether the column has one number per row.
    is_scalar = True

    n_bins_ = 0

    # Whether the network also reads the position among the bins as a normal score.
    has_scores = False

    @property
    def inputs(self):
        # The scores represent the smooth effects of quantile bins.
        is_half = self.has_scores and self.n_bins_ > 1 and self.has_quantiles_
        inputs = [Input(f"{self.name}", self.n_bins_, 0.5 if is_half else 1.0)]
        if self.has_missing_:
            inputs.append(Input(f"{self.name}_missing", 0, 1.0))
        return inputs

    @property
    def encoding(self):
        words = "constant" if self.is_constant_ else self._words
        return f"{words}, NaN" if self.has_missing_ else words

    def fit(self, column, sample_weight=None):
        values = self.read(column)
        is_known = ~np.isnan(values)
        known = values if is_known.all() else values[is_known]
        known = np.where(np.abs(known) < SMALLEST_VALUE, 0.0, known)
        self.n_known = len(known)
        self.has_missing_ = 0 < len(known) < len(values)
        self.is_constant_ = not len(known) or known.min() == known.max()
        self.has_one_value = self.is_constant_ and not self.has_missing_
        if not self.is_constant_:
            weight = None if sample_weight is None else sample_weight[is_known]
            self._fit(known, weight)
        return self

    @property
    def has_constant(self):
        """Whether the column, or an element of its arrays, has been constant so far."""
        return self.is_constant_

    @property
    def has_few_values(self):
        """Whether the encoding is that of few values; needs `fit` of this version."""
        return self.n_known < FEW_VALUES and not self.is_constant_

    def learn_constant(self, column, sample_weight=None):
        """Return a column of as many inputs that has learnt these rows, if it can."""
        if not self.is_constant_:
            return self
        learnt = copy(self).fit(column, sample_weight)
        if learnt.is_constant_:
            return self
        learnt.has_missing_ = self.has_missing_
        return learnt

    def transform(self, column, start=0):
        """Return the inputs of rows from `start` on, and any indicator."""
        values = self.read(column, start)
        inputs = np.zeros(len(values)) if self.is_constant_ else self._encode(values)
        inputs = inputs.astype(np.float32)
        missing = np.isnan(values)
        if missing.any():
            inputs[missing] = self.fill_value_
        return [inputs, missing] if self.has_missing_ else [inputs]

    def _encode(self, values):
        return np.interp(values, *self._nodes())

    @property
    def nodes(self):
        """Increasing values, and their inputs, between which these are linear."""
        return (np.zeros(1), np.zeros(1)) if self.is_constant_ else self._nodes()

    def read(self, column, start=0):
        """Return the values as float64; raise if some are infinite or no numbers."""
        values = _frames.read_numbers(
            column,
            lambda: f"Column {_frames.describe(self.name, column)}",
            lambda: self._advice(column),
        )
        # fmin and fmax ignore NaN.
        low = np.fmin.reduce(values, initial=0.0)
        high = np.fmax.reduce(values, initial=0.0)
        if np.isinf(low) or np.isinf(high):
            row = int(np.isinf(values).argmax())
            raise _frames.infinity_error(self.name, column, start + row, values[row])
        if low < -LARGEST_VALUE or high > LARGEST_VALUE:
            values = np.clip(values, -LARGEST_VALUE, LARGEST_VALUE)
        return values

    def _advice(self, column):
        """Return what to do with a column that holds no numbers."""
        if not _frames.holds_dates(column):
            return " Convert it to numbers, or fit with it in categorical_features."
        return (
            " If its dates order the rows, fit with encoding_params={'time_column': "
            f"{self.name!r}}}; otherwise derive numbers, such as the hour, the weekday "
            "or the age in days, or fit with it in categorical_features."
        )


class StandardColumn(NumericColumn):
    """Encodes a column as standardised values, with mean 0 and standard deviation 1."""

    _words = "standardised"

    # Smallest and largest input.
    ends_ = (-LARGEST_DEVIATION, LARGEST_DEVIATION)

    def _fit(self, known, weight):
        self.mean_ = np.average(known, weights=weight)
        variance = np.average((known - self.mean_) ** 2, weights=weight)
        self.scale_ = np.sqrt(variance) or np.inf
        ends = (np.array([known.min(), known.max()]) - self.mean_) / self.scale_
        self.ends_ = tuple(np.clip(ends, *StandardColumn.ends_).tolist())

    def _encode(self, values):
        scaled = (values - self.mean_) / self.scale_
        return np.clip(scaled, *self.ends_, out=scaled)

    def _nodes(self):
        if np.isinf(self.scale_):
            return np.zeros(1), np.zeros(1)
        ends = np.array(self.ends_)
        return self.mean_ + ends * self.scale_, ends


class QuantileColumn(NumericColumn):
    """Encodes a column as normal scores of the ranks, with mean 0 and deviation 1."""

    _words = "normal score"

    def _fit(self, known, weight):
        distinct, shares = distinct_shares(known, weight)
        # The rank of a value is the share of the rows below it, plus half of its own
        # share. With extreme weights, rounding errors could give a rank of 0 or 1,
        # whose score is infinite.
        ranks = np.clip(shares.cumsum() - shares / 2, 1e-12, 1 - 1e-12)
        # The two values around each of the steps, and those at the ends.
        steps, ends = np.arange(1, N_QUANTILES) / N_QUANTILES, [0, len(ranks) - 1]
        above = np.searchsorted(ranks, steps - ROUNDING)
        nodes = np.unique(np.clip([*ends, *above, *(above - 1)], *ends))
        self.values_, scores = distinct[nodes], ndtri(ranks[nodes])
        distinct_scores = np.interp(distinct, self.values_, scores)
        mean = shares @ distinct_scores
        scale = np.sqrt(shares @ (distinct_scores - mean) ** 2) or np.inf
        scores = (scores - mean) / scale
        self.scores_ = np.clip(scores, -LARGEST_DEVIATION, LARGEST_DEVIATION)

    def _nodes(self):
        return self.values_, self.scores_


@dataclass(eq=False)
class PiecewiseLinearColumn(NumericColumn):
    """Encodes a column as positions relative to the edges of at most `max_bins` bins.

    The position is 2 1/3 for a value one third of the way from edge 2 to edge 3. The
    network expands it to one component per bin, see `networks._layers.BinExpansion`.
    """

    n_bins_ = 1

    max_bins: int = MAX_BINS

    @property
    def _words(self):
        return f"{self.n_bins_} bins"

    def learn_constant(self, column, sample_weight=None):
        """Scale the position to [0, 1], since the network has one component for it."""
        learnt = super().learn_constant(column, sample_weight)
        if learnt is not self:
            learnt.fill_value_ *= self.n_bins_ / learnt.n_bins_
            learnt.n_bins_ = self.n_bins_
        return learnt

    def _fit(self, known, weight):
        distinct, shares = distinct_shares(known, weight)
        max_bins = min(self.max_bins, max(N_BINS, len(known) // ROWS_PER_BIN))
        self.edges_ = distinct[bin_edges(shares, max_bins)]
        n_edges = len(self.edges_)
        self.n_bins_ = n_edges - 1
        # Otherwise, there are many frequent values, or all values are edges.
        self.has_quantiles_ = n_edges <= N_BINS + 1 and n_edges < len(distinct)
        self.fill_value_ = shares @ self._encode(distinct)

    def _nodes(self):
        n_edges = len(self.edges_)
        return self.edges_, np.arange(n_edges) * (self.n_bins_ / (n_edges - 1))


class BinsAndScoresColumn(PiecewiseLinearColumn):
    """Encodes a column as positions among bins, also to be read as normal scores."""

    has_scores = True

    @property
    def _words(self):
        return f"{self.n_bins_} bins, score" if self.n_bins_ > 1 else "1 bin"


NUMERIC_ENCODINGS = {
    "standard": StandardColumn,
    "quantile": QuantileColumn,
    "piecewise_linear": PiecewiseLinearColumn,
    "bins_and_scores": BinsAndScoresColumn,
}


class ArrayColumn(NumericColumn):
    """Encodes a column of arrays of one size as one standardised input per element."""

    kind = "array of numbers"
    is_scalar = False

    @property
    def _words(self):
        return f"{len(self.elements_)} standardised"

    @property
    def inputs(self):
        names = [element.name for element in self.elements_]
        names += [f"{self.name}_missing"] if self.has_missing_ else []
        return [Input(name, 0, 1.0) for name in names]

    def fit(self, column, sample_weight=None):
        self.elements_ = None
        values = self.read(column)
        is_missing_row = np.isnan(values).all(axis=1)
        self.has_missing_ = bool(is_missing_row.any() and not is_missing_row.all())
        self.elements_ = [
            StandardColumn(f"{self.name}[{index}]").fit(element, sample_weight)
            for index, element in enumerate(values.T)
        ]
        self.has_one_value = self.is_constant_ and not self.has_missing_
        return self

    @property
    def has_constant(self):
        return any(element.has_constant for element in self.elements_)

    @property
    def is_constant_(self):
        return all(element.is_constant_ for element in self.elements_)

    @property
    def has_few_values(self):
        return any(element.has_few_values for element in self.elements_)

    def learn_constant(self, column, sample_weight=None):
        if not self.has_constant:
            return self
        learnt = copy(self)
        pairs = zip(self.elements_, self.read(column).T, strict=True)
        learnt.elements_ = [
            element.learn_constant(values, sample_weight) for element, values in pairs
        ]
        return self if learnt.elements_ == self.elements_ else learnt

    def transform(self, values, start=0):
        """Return the inputs of rows, given the result of `read`."""
        pairs = zip(self.elements_, values.T, strict=True)
        inputs = [element.transform(numbers)[0] for element, numbers in pairs]
        return [*inputs, np.isnan(values).all(axis=1)] if self.has_missing_ else inputs

    def read(self, column, start=0):
        """Return the elements as float64 (n_samples, n_elements), NaN if missing."""
        lists = _frames.read_lists(column, self.name)
        is_known = lists.sizes >= 0
        sizes = lists.sizes[is_known]
        n_elements = int(sizes[0]) if len(sizes) else 0
        if self.elements_ is not None:
            n_elements = len(self.elements_)
        if (sizes != n_elements).any():
            row = int(np.argmax(is_known & (lists.sizes != n_elements)))
            raise ValueError(
                f"Column {self.name!r} contains arrays of {n_elements} numbers; row "
                f"{row} contains {lists.sizes[row]}. Name the column in "
                "categorical_features if its lists are categories, in list_ages or "
                "list_weights of encoding_params if they belong to another list."
            )
        numbers = _frames.read_numbers(
            lists.elements,
            f"The lists of column {self.name!r}",
            " Include the column in categorical_features if these are categories.",
        )
        if (is_infinite := np.isinf(numbers)).any():
            first = int(is_infinite.argmax())
            row = lists.row_of(first)
            raise _frames.infinity_error(self.name, None, row, numbers[first])
        values = np.full((len(lists.sizes), n_elements), np.nan)
        values[is_known] = numbers.reshape(len(sizes), n_elements)
        return values

"""Numeric columns as inputs of a network: three encodings, each for missing values too.

All arithmetic is done in float64; the inputs are float32.
"""

from copy import copy

import numpy as np
from scipy.special import ndtri

from sk_pwiser._table._dataframe import describe, row_chunks, to_float
from sk_pwiser._table._quantiles import (
    MAX_BINS,
    N_BINS,
    bin_edges,
    distinct_shares,
    interpolation_nodes,
    largest_n_bins,
)

# Inputs are clipped to this many standard deviations: a single extreme value at
# prediction must not dominate the logit.
LARGEST_DEVIATION = 10.0

# Values are clipped to +-LARGEST_VALUE, since squares, sums and quotients of larger
# values may overflow. In fit, values closer to 0 than SMALLEST_VALUE count as 0, since
# quotients by their differences may overflow.
LARGEST_VALUE, SMALLEST_VALUE = 1e100, 1e-100


def infinity_error(name, column=None):
    """Return the error to raise for an infinite value in a column."""
    return ValueError(
        f"Input X contains infinity or a value too large for dtype('float64') in "
        f"column {describe(name, column)}."
    )


class NumericColumn:
    """A numeric column, with an indicator if it had missing values in fit.

    A subclass defines `_fit`, which learns from the values that are not missing,
    `_encode`, which maps values to inputs, and `_nodes`, the same map as points. If a
    column had one distinct value in fit, every value is encoded as 0: the network's
    weights for an input that never changed in training would be arbitrary. `awaken`
    learns such a column from later rows of training.

    Parameters
    ----------
    name : str or int
        Name of the column, for messages.
    """

    # Input of a missing value: the mean of the other inputs.
    fill_value_ = 0.0

    # Whether the column has one number per row.
    is_scalar = True

    # Number of components over which the network spreads the input; 0 for none.
    n_bins_ = 0

    # Whether the network also reads the position among the bins as a normal score.
    has_scores = False

    def __init__(self, name):
        self.name = name

    @property
    def bins(self):
        """Number of bins of each input of the column, 0 for inputs without bins."""
        return [self.n_bins_, 0] if self.has_missing_ else [self.n_bins_]

    @property
    def bin_scales(self):
        """Factor of the components of each input of the column."""
        return [1.0] * len(self.bins)

    @property
    def input_names(self):
        """Names of the inputs of the column; that of the indicator ends "_missing"."""
        names = [f"{self.name}", f"{self.name}_missing"]
        return names if self.has_missing_ else names[:1]

    def load(self, column):
        """Return a column in the form that `transform` reads slices of."""
        return column

    def fit(self, column, sample_weight=None):
        """Learn the distribution of a column."""
        values = self._read(column)
        is_known = ~np.isnan(values)
        known = _replace_smallest(values if is_known.all() else values[is_known])
        self.has_missing_ = 0 < len(known) < len(values)
        self.is_constant_ = not len(known) or known.min() == known.max()
        if not self.is_constant_:
            weight = None if sample_weight is None else sample_weight[is_known]
            self._fit(known, weight)
        return self

    @property
    def can_awaken(self):
        """Whether the column, or an element of its arrays, was constant so far."""
        return self.is_constant_

    def awaken(self, column, sample_weight=None):
        """Return a column that has learnt its distribution, or this one.

        The new column has the same inputs and bins, and an indicator only if this one
        has it. This one is returned if the values do not vary.
        """
        learnt = copy(self).fit(column, sample_weight)
        if not self.is_constant_ or learnt.is_constant_:
            return self
        learnt.has_missing_ = self.has_missing_
        return learnt

    def fit_transform(self, column, sample_weight=None):
        """Learn the distribution of a column and return its inputs."""
        return self.fit(column, sample_weight).transform(column)

    def transform(self, column):
        """Return the inputs of a column.

        Returns
        -------
        list of ndarray of shape (n_samples,)
            The encoded values and, if the column had missing values in fit, the
            indicator of missing values.
        """
        values = self._read(column)
        inputs = np.zeros(len(values)) if self.is_constant_ else self._encode(values)
        inputs = inputs.astype(np.float32)
        missing = np.isnan(values)
        if missing.any():
            inputs[missing] = self.fill_value_
        return [inputs, missing] if self.has_missing_ else [inputs]

    @property
    def nodes(self):
        """The points between which the inputs are linear, outside of which constant.

        Returns
        -------
        tuple of (float64 ndarray, float64 ndarray)
            Values of the column, in increasing order, and their inputs.
        """
        return (np.zeros(1), np.zeros(1)) if self.is_constant_ else self._nodes()

    def _read(self, column):
        try:
            values = to_float(column)
        except (TypeError, ValueError, OverflowError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(
                f"Column {describe(self.name, column)} cannot be read as numbers: "
                f"{error}. Convert it to numbers or include it in categorical_features."
            ) from error
        # fmin and fmax ignore NaN.
        low = np.fmin.reduce(values, initial=0.0)
        high = np.fmax.reduce(values, initial=0.0)
        if np.isinf(low) or np.isinf(high):
            raise infinity_error(self.name, column)
        if low < -LARGEST_VALUE or high > LARGEST_VALUE:
            values = np.clip(values, -LARGEST_VALUE, LARGEST_VALUE)
        return values


class StandardColumn(NumericColumn):
    """Standardised values: minus the mean, divided by the standard deviation."""

    def _fit(self, known, weight):
        self.mean_ = np.average(known, weights=weight)
        squares = 0.0
        for rows in row_chunks(len(known)):
            deviations = (known[rows] - self.mean_) ** 2
            squares += np.sum(
                deviations if weight is None else deviations * weight[rows]
            )
        variance = squares / (len(known) if weight is None else weight.sum(dtype=float))
        self.scale_ = np.sqrt(variance) or np.inf

    def _encode(self, values):
        scaled = (values - self.mean_) / self.scale_
        return np.clip(scaled, -LARGEST_DEVIATION, LARGEST_DEVIATION, out=scaled)

    def _nodes(self):
        if np.isinf(self.scale_):
            return np.zeros(1), np.zeros(1)
        ends = np.array([-LARGEST_DEVIATION, LARGEST_DEVIATION])
        return self.mean_ + ends * self.scale_, ends


class QuantileColumn(NumericColumn):
    """Normal scores: a function of the ranks, with mean 0 and standard deviation 1."""

    def _fit(self, known, weight):
        distinct, shares = distinct_shares(known, weight)
        # The rank of a value is the share of the rows below it, plus half of its own
        # share. The limits matter for extreme weights alone: rounding errors could give
        # a rank of 0 or 1, whose score is infinite.
        ranks = np.clip(shares.cumsum() - shares / 2, 1e-12, 1 - 1e-12)
        nodes = interpolation_nodes(ranks)
        self.values_, scores = distinct[nodes], ndtri(ranks[nodes])
        distinct_scores = np.interp(distinct, self.values_, scores)
        mean = shares @ distinct_scores
        scale = np.sqrt(shares @ (distinct_scores - mean) ** 2) or np.inf
        scores = (scores - mean) / scale
        self.scores_ = np.clip(scores, -LARGEST_DEVIATION, LARGEST_DEVIATION)

    def _encode(self, values):
        return np.interp(values, *self._nodes())

    def _nodes(self):
        return self.values_, self.scores_


class PiecewiseLinearColumn(NumericColumn):
    """The positions of values relative to the edges of at most `max_bins` bins.

    The position of a value is the index of its bin, counted from 0, plus the fraction
    of the bin that lies below the value: 2 1/3 for a value one third of the way from
    edge 2 to edge 3. The network spreads a position over one component per bin, see
    :class:`~sk_pwiser.networks._input.BinExpansion`.
    """

    n_bins_ = 1

    # Columns in files of version 0.1.0 have no limit of their own.
    max_bins = MAX_BINS

    def __init__(self, name, max_bins=MAX_BINS):
        super().__init__(name)
        self.max_bins = max_bins

    def awaken(self, column, sample_weight=None):
        """Return a column that has learnt its distribution, or this one.

        The network has a single component for a column that was constant: the position
        among all edges is scaled to [0, 1], which is the share of the rows below.
        """
        learnt = super().awaken(column, sample_weight)
        if learnt is not self:
            learnt.fill_value_ *= self.n_bins_ / learnt.n_bins_
            learnt.n_bins_ = self.n_bins_
        return learnt

    def _fit(self, known, weight):
        distinct, shares = distinct_shares(known, weight)
        max_bins = largest_n_bins(len(known), self.max_bins)
        self.edges_ = distinct[bin_edges(shares, max_bins)]
        n_edges = len(self.edges_)
        self.n_bins_ = n_edges - 1
        # Otherwise, there are bins of many frequent values, or all values are edges.
        self.has_quantiles_ = n_edges <= N_BINS + 1 and n_edges < len(distinct)
        self.fill_value_ = shares @ self._encode(distinct)

    def _encode(self, values):
        return np.interp(values, *self._nodes())

    def _nodes(self):
        n_edges = len(self.edges_)
        return self.edges_, np.arange(n_edges) * (self.n_bins_ / (n_edges - 1))


class BinsAndScoresColumn(PiecewiseLinearColumn):
    """The positions of values among bins, which the network also reads as scores.

    The components of quantile bins count half, since the score represents smooth
    effects. Those of frequent or few values, which may act like categories, count
    fully.
    """

    has_scores = True

    @property
    def bin_scales(self):
        """Factor of the components of each input of the column."""
        is_half = self.n_bins_ > 1 and self.has_quantiles_
        return [0.5 if is_half else 1.0, *[1.0] * (len(self.bins) - 1)]


NUMERIC_ENCODINGS = {
    "standard": StandardColumn,
    "quantile": QuantileColumn,
    "piecewise_linear": PiecewiseLinearColumn,
    "bins_and_scores": BinsAndScoresColumn,
}


def _replace_smallest(values):
    """Return values with those that are too small for quotients replaced by 0."""
    for rows in row_chunks(len(values)):
        chunk = values[rows]
        if ((np.abs(chunk) < SMALLEST_VALUE) & (chunk != 0)).any():
            return np.where(np.abs(values) < SMALLEST_VALUE, 0.0, values)
    return values

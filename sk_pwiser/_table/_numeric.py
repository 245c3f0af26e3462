"""Numeric columns as inputs of a network: three encodings, missing values in all."""

import numpy as np
from scipy.special import ndtri

from sk_pwiser._table._dataframe import blocks, to_float

# Inputs beyond this many standard deviations are cut off there: one wild value at
# prediction must not carry the logit away.
LARGEST_DEVIATION = 10.0

# Values beyond this are taken for it: squares, sums and quotients of larger ones may
# overflow. Values nearer to 0 than the other are taken for 0: quotients by their
# differences may.
LARGEST_VALUE, SMALLEST_VALUE = 1e100, 1e-100

# Points of the distribution function that a column keeps; no training value is put
# further than one in this many from its place.
N_QUANTILES = 1000

# Components that a column is spread over, at most.
N_BINS = 16


def infinity_error(name):
    """Return the error that an infinite value in a column raises."""
    return ValueError(
        f"Input X contains infinity or a value too large for dtype('float64') in "
        f"column {name!r}."
    )


class NumericColumn:
    """A numeric column, with an indicator where values were missing.

    A subclass defines `_fit`, which learns from known values, and `_place`, which maps
    values to inputs. A column of one value teaches nothing, so it gives 0 for any
    other as well: what the network makes of an input that never moved is left to
    chance.

    Parameters
    ----------
    name : str or int
        Name of the column, for messages.
    """

    # What stands for a missing value.
    neutral_ = 0.0

    # Number of components that the network spreads the input over; 0 leaves it as is.
    n_bins_ = 0

    def __init__(self, name):
        self.name = name

    @property
    def bins(self):
        """Number of bins of each input that the column gives, 0 without bins."""
        return [self.n_bins_, 0] if self.has_missing_ else [self.n_bins_]

    def fit(self, column, sample_weight=None):
        """Learn the distribution of a column."""
        values = self._read(column)
        is_known = ~np.isnan(values)
        known = _without_smallest(values if is_known.all() else values[is_known])
        self.has_missing_ = 0 < len(known) < len(values)
        self.is_constant_ = not len(known) or known.min() == known.max()
        if not self.is_constant_:
            weight = None if sample_weight is None else sample_weight[is_known]
            self._fit(known, weight)
        return self

    def fit_transform(self, column, sample_weight=None):
        """Learn the distribution of a column and return its inputs."""
        return self.fit(column, sample_weight).transform(column)

    def transform(self, column):
        """Return the inputs, a list of arrays of shape (n_samples,)."""
        values = self._read(column)
        placed = np.zeros(len(values)) if self.is_constant_ else self._place(values)
        placed = placed.astype(np.float32)
        missing = np.isnan(values)
        if missing.any():
            placed[missing] = self.neutral_
        return [placed, missing] if self.has_missing_ else [placed]

    def _read(self, column):
        try:
            values = to_float(column)
        except (TypeError, ValueError, OverflowError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(
                f"Column {self.name!r} cannot be read as numbers: {error}. Convert it, "
                "or declare it in categorical_features."
            ) from error
        # NaN is neither the least nor the greatest.
        low = np.fmin.reduce(values, initial=0.0)
        high = np.fmax.reduce(values, initial=0.0)
        if np.isinf(low) or np.isinf(high):
            raise infinity_error(self.name)
        if low < -LARGEST_VALUE or high > LARGEST_VALUE:
            values = np.clip(values, -LARGEST_VALUE, LARGEST_VALUE)
        return values


class StandardColumn(NumericColumn):
    """Values less their mean, in standard deviations."""

    def _fit(self, known, weight):
        self.mean_ = np.average(known, weights=weight)
        squares = 0.0
        for rows in blocks(len(known)):
            deviations = (known[rows] - self.mean_) ** 2
            squares += np.sum(
                deviations if weight is None else deviations * weight[rows]
            )
        variance = squares / (len(known) if weight is None else weight.sum(dtype=float))
        self.scale_ = np.sqrt(variance) or np.inf

    def _place(self, values):
        scaled = (values - self.mean_) / self.scale_
        return np.clip(scaled, -LARGEST_DEVIATION, LARGEST_DEVIATION, out=scaled)


class QuantileColumn(NumericColumn):
    """Normal scores: values by their rank alone, with mean 0 and deviation 1."""

    def _fit(self, known, weight):
        distinct, shares = _distinct(known, weight)
        # Half of a value's own rows count as below it. Ranks so near to 0 or 1 that
        # rounding takes them there come from weights alone.
        ranks = np.clip(shares.cumsum() - shares / 2, 1e-12, 1 - 1e-12)
        kept = _support(ranks)
        self.values_, scores = distinct[kept], ndtri(ranks[kept])
        of_rows = np.interp(distinct, self.values_, scores)
        mean = shares @ of_rows
        scale = np.sqrt(shares @ (of_rows - mean) ** 2) or np.inf
        scores = (scores - mean) / scale
        self.scores_ = np.clip(scores, -LARGEST_DEVIATION, LARGEST_DEVIATION)

    def _place(self, values):
        return np.interp(values, self.values_, self.scores_)


class PiecewiseLinearColumn(NumericColumn):
    """The position of values among the edges of quantile bins.

    A value a third of the way through the bin after the second edge has position 2
    1/3 (counting bins from 0, edge 2 starts bin 2). The network spreads a position
    over one component a bin, :class:`~sk_pwiser.networks._input.BinExpansion`.
    """

    n_bins_ = 1

    def _fit(self, known, weight):
        distinct, shares = _distinct(known, weight)
        self.edges_ = distinct[_bin_edges(shares)]
        self.n_bins_ = len(self.edges_) - 1
        self.neutral_ = shares @ self._place(distinct)

    def _place(self, values):
        return np.interp(values, self.edges_, np.arange(len(self.edges_)))


NUMERIC_ENCODINGS = {
    "standard": StandardColumn,
    "quantile": QuantileColumn,
    "piecewise_linear": PiecewiseLinearColumn,
}


def _without_smallest(values):
    """Return values, those that are too small for quotients as 0."""
    for rows in blocks(len(values)):
        block = values[rows]
        if ((np.abs(block) < SMALLEST_VALUE) & (block != 0)).any():
            return np.where(np.abs(values) < SMALLEST_VALUE, 0.0, values)
    return values


def _distinct(values, weight):
    """Return the distinct values in order, and the share of the rows that each has."""
    if weight is None:
        distinct, weights = np.unique(values, return_counts=True)
    else:
        distinct, positions = np.unique(values, return_inverse=True)
        weights = np.bincount(positions, weights=weight)
    return distinct, weights / weights.sum()


def _support(ranks):
    """Choose values between which ranks may be interpolated, as indices.

    These are the two around every one of `N_QUANTILES` steps, so that no value that
    holds a large share of the rows is passed over.
    """
    above = _find(ranks, np.arange(1, N_QUANTILES) / N_QUANTILES)
    ends = [0, len(ranks) - 1]
    return np.unique(np.clip([*ends, *above, *(above - 1)], *ends))


def _bin_edges(shares):
    """Choose the values at the edges of at most `N_BINS` bins, as indices.

    The bins hold equal shares of the rows. Values that fill a bin alone count as one
    bin each and the others share the rest: of a column that is nearly always 0, the
    other values are told apart as well.
    """
    if len(shares) <= N_BINS + 1:
        return np.arange(len(shares))
    is_heavy = np.zeros(len(shares), dtype=bool)
    while True:
        a_bin = shares[~is_heavy].sum() / (N_BINS - is_heavy.sum())
        heavy = shares > a_bin * (1 + 1e-9)
        if heavy.sum() == is_heavy.sum():
            break
        is_heavy = heavy
    reached = np.minimum(shares, a_bin).cumsum()
    steps = np.arange(1, N_BINS + 1) / N_BINS
    return np.unique([0, *_find(reached / reached[-1], steps)])


def _find(shares, steps):
    # Sums of weights and counts of repeated rows differ by rounding, which must not
    # move an edge to the next value.
    return np.searchsorted(shares, steps - 1e-9)

"""Numeric columns: what all their encodings share."""

from copy import copy
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from sk_pwiser._columns import _frames

# On average, a share of 2 / (n + 1) of later values is out of the range of n values.
FEW_VALUES = 100


# Sums of weights and counts of repeated rows differ by rounding errors, which must not
# move an edge to the next value.
ROUNDING = 1e-9


def distinct_shares(values, weight):
    """Return the distinct values, increasing, and each one's share of the rows."""
    if weight is None:
        distinct, weights = np.unique(values, return_counts=True)
    else:
        distinct, indices = np.unique(values, return_inverse=True)
        weights = np.bincount(indices, weights=weight)
    return distinct, weights / weights.sum()


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

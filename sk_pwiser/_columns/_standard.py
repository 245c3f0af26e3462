"""Numbers as standardised values."""

import numpy as np

from sk_pwiser._columns._number import (
    LARGEST_DEVIATION,
    NumericColumn,
    distinct_shares,
)


class StandardColumn(NumericColumn):
    """Encodes a column as standardised values, with mean 0 and standard deviation 1."""

    encoding_name = "standard"
    words = "standardised"

    # Smallest and largest input.
    ends_ = (-LARGEST_DEVIATION, LARGEST_DEVIATION)

    def _fit(self, numbers, weight):
        self.mean_ = np.average(numbers, weights=weight)
        variance = np.average((numbers - self.mean_) ** 2, weights=weight)
        self.scale_ = np.sqrt(variance) or np.inf
        ends = (np.array([numbers.min(), numbers.max()]) - self.mean_) / self.scale_
        self.ends_ = tuple(np.clip(ends, *StandardColumn.ends_).tolist())
        if np.isfinite(self.scale_):
            self._learn_beyond(*distinct_shares(numbers, weight))

    def _encode(self, values):
        scaled = (values - self.mean_) / self.scale_
        return np.clip(scaled, *self.ends_, out=scaled)

    def _nodes(self):
        if np.isinf(self.scale_):
            return np.zeros(1), np.zeros(1)
        ends = np.array(self.ends_)
        return self.mean_ + ends * self.scale_, ends

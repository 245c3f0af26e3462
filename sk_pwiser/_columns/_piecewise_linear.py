"""Numbers as positions among bins."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np

from sk_pwiser._columns._choice import Choice
from sk_pwiser._columns._number import ROUNDING, NumericColumn, distinct_shares

# Number of bins in addition to those of frequent values.
N_BINS = 16
# Largest number of bins.
MAX_BINS = 64

# Number of rows per bin that more than N_BINS bins require.
ROWS_PER_BIN = 32


def bin_edges(shares, max_bins=MAX_BINS):
    """Return the indices of the values at the edges of at most `max_bins` bins.

    Each value with a larger share than a bin of the others counts as a full bin, so
    that a column that is almost always 0 has `N_BINS` bins for its other values.
    """
    if len(shares) <= max_bins + 1:
        return np.arange(len(shares))
    is_frequent = np.zeros(len(shares), dtype=bool)
    n_frequent = None
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


@lru_cache(maxsize=2 * MAX_BINS)
def _positions_of_edges(n_edges, n_bins):
    """Return evenly spaced positions from 0 to `n_bins`, which are not to be changed.

    Predictions of one row would take as long to make them as to read the number.
    """
    positions = np.arange(n_edges) * (n_bins / (n_edges - 1))
    positions.flags.writeable = False
    return positions


@dataclass(eq=False)
class PiecewiseLinearColumn(NumericColumn):
    """Encodes a column as positions relative to the edges of at most `max_bins` bins.

    The position is 2 1/3 for a value one third of the way from edge 2 to edge 3. The
    network expands it to one component per bin, see `networks._layers.BinExpansion`.
    """

    encoding_name = "piecewise_linear"
    n_bins_ = 1

    max_bins: int = MAX_BINS

    @classmethod
    def claim(cls, choice: Choice, name: Any) -> Self | None:
        """Return a column if this is the encoding of numbers that the user chose."""
        if choice.numeric_encoding != cls.encoding_name:
            return None
        return cls(name, max_bins=choice.params["max_bins"])

    @property
    def bins(self) -> np.ndarray | None:
        """Edges of the bins; None of a constant column."""
        return getattr(self, "edges_", None)

    @property
    def words(self) -> str:
        """How numbers that differ are encoded, in a few words."""
        return f"{self.n_bins_} bins"

    def learn_constant(
        self, column: Any, sample_weight: np.ndarray | None = None
    ) -> Self:
        """Scale the position to [0, 1], since the network has one component for it."""
        successor = super().learn_constant(column, sample_weight)
        if successor is not self:
            ratio = self.n_bins_ / successor.n_bins_
            successor.fill_value_ *= ratio
            if successor.beyond_ is not None:
                far_below, below, far_above, above = successor.beyond_
                successor.beyond_ = far_below, below * ratio, far_above, above * ratio
            successor.n_bins_ = self.n_bins_
        return successor

    def _fit(self, numbers, weight):
        distinct, shares = distinct_shares(numbers, weight)
        max_bins = min(self.max_bins, max(N_BINS, len(numbers) // ROWS_PER_BIN))
        self.edges_ = distinct[bin_edges(shares, max_bins)]
        n_edges = len(self.edges_)
        self.n_bins_ = n_edges - 1
        # Otherwise, there are many frequent values, or all values are edges.
        self.has_quantiles_ = n_edges <= N_BINS + 1 and n_edges < len(distinct)
        self.fill_value_ = shares @ self._encode(distinct)
        self._learn_beyond(distinct, shares)

    def _nodes(self):
        return self.edges_, _positions_of_edges(len(self.edges_), self.n_bins_)

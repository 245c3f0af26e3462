"""Numbers as normal scores of their ranks."""

import numpy as np
from scipy.special import ndtri

from sk_pwiser._columns._number import (
    LARGEST_DEVIATION,
    ROUNDING,
    NumericColumn,
    distinct_shares,
)

# Number of steps of the distribution function between which ranks are interpolated. The
# rank of a training value is off by at most one step.
N_QUANTILES = 1000


class QuantileColumn(NumericColumn):
    """Encodes a column as normal scores of the ranks, with mean 0 and deviation 1."""

    encoding_name = "quantile"
    words = "normal score"

    def _fit(self, numbers, weight):
        distinct, shares = distinct_shares(numbers, weight)
        # The rank of a value is the share of the rows below it, plus half of its own
        # share. With extreme weights, rounding errors could give a rank of 0 or 1,
        # whose score is infinite.
        ranks = np.clip(shares.cumsum() - shares / 2, 1e-12, 1 - 1e-12)
        # The two values around each of the steps, and those at the ends.
        steps = np.arange(1, N_QUANTILES) / N_QUANTILES
        ends = [0, len(ranks) - 1]
        above = np.searchsorted(ranks, steps - ROUNDING)
        nodes = np.unique(np.clip([*ends, *above, *(above - 1)], *ends))
        self.values_ = distinct[nodes]
        scores = ndtri(ranks[nodes])
        distinct_scores = np.interp(distinct, self.values_, scores)
        mean = shares @ distinct_scores
        scale = np.sqrt(shares @ (distinct_scores - mean) ** 2) or np.inf
        scores = (scores - mean) / scale
        self.scores_ = np.clip(scores, -LARGEST_DEVIATION, LARGEST_DEVIATION)
        self._learn_beyond(distinct, shares)

    def _nodes(self):
        return self.values_, self.scores_

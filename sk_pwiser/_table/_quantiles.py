"""Quantiles of weighted values, computed from the shares of the distinct values."""

import numpy as np

# Number of steps of the distribution function between which ranks are interpolated:
# the rank of a training value is off by at most one step.
N_QUANTILES = 1000

# Largest number of bins of a column.
N_BINS = 16


def distinct_shares(values, weight):
    """Return the distinct values in increasing order and each one's share of the rows.

    Parameters
    ----------
    values : float64 ndarray of shape (n_samples,)
        Values without NaN.
    weight : ndarray of shape (n_samples,) or None
        Weights of the rows.
    """
    if weight is None:
        distinct, weights = np.unique(values, return_counts=True)
    else:
        distinct, indices = np.unique(values, return_inverse=True)
        weights = np.bincount(indices, weights=weight)
    return distinct, weights / weights.sum()


def interpolation_nodes(ranks):
    """Return the indices of the values between which ranks are interpolated.

    These are the two values around each of `N_QUANTILES` steps, so that every value
    with a large share of the rows is among them.
    """
    above = _first_at_least(ranks, np.arange(1, N_QUANTILES) / N_QUANTILES)
    ends = [0, len(ranks) - 1]
    return np.unique(np.clip([*ends, *above, *(above - 1)], *ends))


def bin_edges(shares):
    """Return the indices of the values at the edges of at most `N_BINS` bins.

    The bins hold equal shares of the rows, with one exception: a value with a larger
    share than one bin counts as one full bin, and the other values share the remaining
    bins. A column that is almost always 0 thus keeps bins for its other values.
    """
    if len(shares) <= N_BINS + 1:
        return np.arange(len(shares))
    is_heavy = np.zeros(len(shares), dtype=bool)
    while True:
        bin_share = shares[~is_heavy].sum() / (N_BINS - is_heavy.sum())
        exceeds_bin = shares > bin_share * (1 + 1e-9)
        if exceeds_bin.sum() == is_heavy.sum():
            break
        is_heavy = exceeds_bin
    cumulative = np.minimum(shares, bin_share).cumsum()
    steps = np.arange(1, N_BINS + 1) / N_BINS
    return np.unique([0, *_first_at_least(cumulative / cumulative[-1], steps)])


def _first_at_least(cumulative, steps):
    # Weights and repeated rows give sums that differ by rounding errors, which must not
    # move an edge to the next value.
    return np.searchsorted(cumulative, steps - 1e-9)

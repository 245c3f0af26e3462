"""Quantiles of weighted values, computed from the shares of the distinct values."""

import numpy as np

# Number of steps of the distribution function between which ranks are interpolated:
# the rank of a training value is off by at most one step.
N_QUANTILES = 1000

# Bins of a column that its frequent values do not fill, and largest number of bins.
N_BINS, MAX_BINS = 16, 64

# More than `N_BINS` bins require this many rows of the column for each bin.
ROWS_PER_BIN = 32


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


def largest_n_bins(n_samples, max_bins):
    """Return the largest number of bins of a column with some number of rows."""
    return min(max_bins, max(N_BINS, n_samples // ROWS_PER_BIN))


def bin_edges(shares, max_bins=MAX_BINS):
    """Return the indices of the values at the edges of at most `max_bins` bins.

    At most `max_bins + 1` distinct values are all edges. Otherwise, a value is frequent
    if it has a larger share of the rows than each of `max_bins` bins has of the other
    values. Every frequent value counts as one full bin, and the others have `N_BINS`
    bins of equal shares, or as many as `max_bins` leaves. A column that is almost
    always 0 thus has bins for its other values.
    """
    if len(shares) <= max_bins + 1:
        return np.arange(len(shares))
    is_frequent = _find_frequent(shares, max_bins)
    n_frequent = is_frequent.sum()
    n_others = min(N_BINS, max_bins - n_frequent)
    # Weights of very different sizes may leave the others a share of 0.
    bin_share = max(shares[~is_frequent].sum() / n_others, np.finfo(float).tiny)
    cumulative = np.where(is_frequent, bin_share, shares).cumsum()
    n_bins = n_frequent + n_others
    steps = np.arange(1, n_bins + 1) / n_bins
    return np.unique([0, *_first_at_least(cumulative / cumulative[-1], steps)])


def _find_frequent(shares, n_bins):
    is_frequent = np.zeros(len(shares), dtype=bool)
    while True:
        n_found = is_frequent.sum()
        bin_share = shares[~is_frequent].sum() / (n_bins - n_found)
        is_frequent = shares > bin_share * (1 + 1e-9)
        if is_frequent.sum() == n_found:
            return is_frequent


def _first_at_least(cumulative, steps):
    # Weights and repeated rows give sums that differ by rounding errors, which must not
    # move an edge to the next value.
    return np.searchsorted(cumulative, steps - 1e-9)

"""Mean amounts per value of a category column, beside the rates of the tasks.

Amounts enter as logarithms: one large amount would decide on the mean of a value.
"""

import numpy as np

# The variance of the means between values must exceed the variance due to chance by
# this number of standard errors.
MIN_Z = 2.0
# Range of the estimated strength of shrinkage, in amounts.
STRENGTHS = 1.0, 1e5
# Amounts of 0 count as this multiple of the mean amount: they have no logarithm.
SMALLEST_MULTIPLE = 1e-3


def log_multiples(multiples, weights):
    """Return labels and weights of the statistics of amounts, both `(n, n_values)`.

    `multiples` are amounts in multiples of their mean, NaN where none is known, and
    `weights` those of rows. The weights of unknown amounts are 0.
    """
    is_known = np.isfinite(multiples)
    positive = np.maximum(np.where(is_known, multiples, 1.0), SMALLEST_MULTIPLE)
    return np.log(positive), weights * is_known


def shrunk_means(counts, means, strengths):
    """Return mean logarithms less those of all rows, `(n_values, n_codes)`.

    `counts` are the sums of weights and of weighted logarithms per code.
    """
    n, total = counts
    n = np.maximum(n, 0.0)
    a = np.minimum(strengths, STRENGTHS[1])[:, np.newaxis]
    return (total - n * means[:, np.newaxis]) / (n + a)


def estimate_strengths(counts, totals, squares):
    """Return the strength of shrinkage of each value by the analysis of variance.

    It is infinite if means only vary by chance. `totals` are the sums of all rows, and
    `squares` those of weighted squares of logarithms.
    """
    strengths = np.full(len(squares), np.inf)
    for value, (n, total) in enumerate(zip(*counts, strict=True)):
        n_all = totals[0, value]
        if n_all <= 0:
            continue
        mean = totals[1, value] / n_all
        all_squares = squares[value] - n_all * mean**2
        has_several = n > 1
        n = n[has_several]
        deviations = total[has_several] - n * mean
        n_groups = len(n)
        if n_groups < 2 or all_squares <= 0:
            continue
        between_squares = np.sum(deviations**2 / n)
        # The elements of lists are more than the rows whose squares are known.
        n_within = n_all - n_groups
        within = all_squares / n_all
        if n.sum() <= n_all and n_within > 0:
            within = max(all_squares - between_squares, 0.0) / n_within
        excess = between_squares - n_groups * within
        error = within * np.sqrt(2 * n_groups)
        if excess > MIN_Z * error:
            variance = excess / n.sum()
            strengths[value] = np.clip(within / variance, *STRENGTHS)
    return strengths

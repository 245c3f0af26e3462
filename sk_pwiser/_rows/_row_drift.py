"""Do the last rows differ from those before? Random validation rows would hide it."""

import numpy as np
from scipy.stats import chi2

from sk_pwiser._rows._row_units import mix_bits
from sk_pwiser._utils._integers import ceil_div

# Rows are compared in so many blocks of consecutive rows.
N_BLOCKS = 10
# Rows that are compared, evenly spaced: enough to find differences that matter.
MOST_COMPARED = 50_000
# With fewer rows, a drift that matters is not told from chance.
FEWEST_COMPARED = 2_000
# Values of a category column are compared in so many parts, by hashes.
N_BUCKETS = 16
# Chance of a warning about rows in random order.
LARGEST_CHANCE = 1e-6


def find_drift(codes, numeric, y, weight, encoder, task_names):
    """Return the names of tasks and columns that differ between blocks of rows.

    `codes`, `numeric` and `y` are encoded rows in their order; rates are not read;
    `weight` is `(n_samples, n_tasks)`, 0 for labels that are missing. The names begin
    with what differs most. Copies of rows that follow each other, or rows sorted by a
    column, differ as well.
    """
    n_rows = len(codes)
    if n_rows < FEWEST_COMPARED:
        return []
    chosen = np.arange(0, n_rows, ceil_div(n_rows, MOST_COMPARED))
    block = np.arange(len(chosen)) * N_BLOCKS // len(chosen)
    log_chances = {}
    for task, name in enumerate(task_names):
        is_known = weight[chosen, task] > 0
        labels = y[chosen, task] > 0.5
        outcome = np.where(is_known, labels, 2)
        log_chances[name] = _chance_of_counts(outcome[is_known], block[is_known], 2)
    for index, column in enumerate(encoder.code_columns_):
        values = codes[chosen, index]
        if int(values.max()) >= N_BUCKETS:
            mixed = mix_bits(values.astype(np.uint64))
            values = (mixed % np.uint64(N_BUCKETS)).astype(np.intp)
        log_chances[column.name] = _chance_of_counts(values, block, N_BUCKETS)
    n_inputs = len(encoder.numeric_names_)
    chances = _chance_of_means(numeric[chosen, :n_inputs].astype(float), block)
    log_chances |= zip(encoder.numeric_names_, chances.tolist(), strict=True)
    limit = np.log(LARGEST_CHANCE / len(log_chances))
    differing = [name for name, chance in log_chances.items() if chance < limit]
    return sorted(differing, key=log_chances.get)


def _chance_of_counts(values, block, n_values):
    """Return the logarithm of the chance of counts of values as unequal by block."""
    pairs = block * n_values + values
    counts = np.bincount(pairs, minlength=N_BLOCKS * n_values)
    counts = counts.reshape(N_BLOCKS, n_values).astype(float)
    shares = counts.sum(axis=0) / max(counts.sum(), 1.0)
    expected = counts.sum(axis=1, keepdims=True) * shares
    # The approximation needs a few expected rows in each cell; rare values are joined.
    is_rare = expected.min(axis=0) < 5
    if is_rare.any():
        joined = [counts[:, ~is_rare], counts[:, is_rare].sum(axis=1, keepdims=True)]
        counts = np.hstack(joined)
        shares = counts.sum(axis=0) / max(counts.sum(), 1.0)
        expected = counts.sum(axis=1, keepdims=True) * shares
    is_used = expected.min(axis=0) >= 1
    if np.count_nonzero(is_used) < 2:
        return 0.0
    squares = (counts - expected)[:, is_used] ** 2 / expected[:, is_used]
    degrees = (N_BLOCKS - 1) * (np.count_nonzero(is_used) - 1)
    return float(chi2.logsf(squares.sum(), degrees))


def _chance_of_means(inputs, block):
    """Return the logarithms of the chances of means as unequal between blocks.

    `inputs` is `(n_rows, n_inputs)`. With many rows, the ratio of squares has a
    chi-squared distribution.
    """
    sizes = np.bincount(block)[:, np.newaxis]
    starts = np.searchsorted(block, np.arange(N_BLOCKS))
    sums = np.add.reduceat(inputs, starts, axis=0)
    deviations = sums - sizes * inputs.mean(axis=0)
    squares = (deviations**2 / sizes).sum(axis=0)
    variances = inputs.var(axis=0)
    ratios = np.divide(
        squares, variances, out=np.zeros_like(squares), where=variances > 1e-12
    )
    return chi2.logsf(ratios, N_BLOCKS - 1)

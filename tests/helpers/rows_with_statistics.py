"""Target statistics of rows with given blocks, as a fit learns them."""

from sk_pwiser._columns._target_statistics import BlockCounts


def fit_transform(
    statistics, codes, y, weight, block, others, earlier_fit=None, lists=()
):
    """Learn statistics, and return the inputs of the rows; `others` are validated."""
    statistics.check_rows(codes, y, weight, lists)
    if not statistics.reads_blocks:
        return statistics.transform(codes, lists)
    counts = BlockCounts(statistics, block.max() + 1, y.shape[1])
    block = block.copy()
    block[others] = counts.n_blocks
    # In two parts, as files have them.
    half = 0 if lists else len(codes) // 2
    for rows in (slice(0, half), slice(half, None)):
        if len(codes[rows]):
            counts.add(codes[rows], y[rows], weight[rows], block[rows], lists)
    tables = statistics.fit(counts, earlier_fit)
    return statistics.transform(codes, lists, tables, block)

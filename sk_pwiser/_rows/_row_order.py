"""Are rows sorted by labels or by a column? Blocks of their order mislead then."""

from typing import NamedTuple

import numpy as np
from scipy.stats import chi2

from sk_pwiser._columns._codes import FIRST_VALUE
from sk_pwiser._utils._warnings import warn_user

# Rows count as sorted by labels if blocks explain this share of the variance of labels
# that blocks can explain at all. Rows sorted by a good prediction have a share of 0.2,
# and rates that grow tenfold over a log one of 0.05.
MIN_SHARE = 0.15

# The chance of such blocks must be smaller.
MAX_CHANCE = 1e-6

# The rows of a value are in one piece if a column has fewer runs of equal values per
# value than this, ...
MAX_RUNS = 1.5

# ... and if about this share of the other rows of a row's value are in its block: fewer
# than its inverse in blocks per value. In the order of time, users may be in few
# blocks, but there are rows of others between theirs.
SHARE_IN_OWN_BLOCK = 0.5

# Rows count as sorted by a column if its rows are in one piece per value, and if the
# next piece has a larger value this often, or a smaller one. Otherwise they may be in
# the order of time: visits to a small site, one after the other.
MIN_STEPS = 0.9


class Order(NamedTuple):
    """An order of rows in which blocks of consecutive rows do not fit."""

    name: str  # of a column or a task
    is_column: bool
    is_sorted: bool = True


class Runs:
    """Counts the runs of equal values of a category column, in rows in parts."""

    def __init__(self, name, n_codes):
        self.name = name
        self.is_present = np.zeros(n_codes, dtype=bool)
        # The code and the block of the last row so far.
        self.last = np.empty((2, 0), dtype=np.int64)
        # Changes of the code, those to a larger one, and those of code or block.
        self.n_rows = 0
        self.n_steps = 0
        self.n_up = 0
        self.n_pieces = 0

    def add(self, codes, block):
        """Add the next rows. Codes are in the order of values; rare ones come last."""
        if self.n_steps >= MAX_RUNS * len(self.is_present):
            return
        is_frequent = (codes >= FIRST_VALUE) & (codes < len(self.is_present))
        rows = np.stack([codes[is_frequent].astype(np.int64), block[is_frequent]])
        rows = np.hstack([self.last, rows])
        steps, moves = np.diff(rows)
        is_step = steps != 0
        self.n_steps += np.count_nonzero(is_step)
        self.n_up += np.count_nonzero(steps > 0)
        self.n_pieces += np.count_nonzero(is_step | (moves != 0))
        self.is_present[rows[0, :1]] = True
        self.is_present[rows[0, 1:][is_step]] = True
        self.n_rows += len(rows[0]) - self.last.shape[1]
        self.last = rows[:, -1:]

    def order(self):
        """Return an `Order` if there is one run per value, mostly within a block."""
        n_values = np.count_nonzero(self.is_present)
        has_one_run = 0 < self.n_steps < MAX_RUNS * n_values
        if not (
            has_one_run and self.n_pieces < n_values / SHARE_IN_OWN_BLOCK < self.n_rows
        ):
            return None
        n_same_way = max(self.n_up, self.n_steps - self.n_up)
        return Order(self.name, True, n_same_way >= MIN_STEPS * self.n_steps)


class RowOrder:
    """Finds out, from rows in parts, whether they are sorted by labels or by a column.

    Blocks of consecutive rows are then useless: their labels differ from those of all
    other rows, or all rows of a value are in one block. The last rows have new values
    whatever later rows will have.
    """

    def __init__(self, columns, encoder, n_blocks, n_tasks, lists=()):
        categories = encoder.code_columns_
        # Dates are sorted in the order of time.
        self.runs = {
            index: Runs(categories[index].name, categories[index].cardinality)
            for index in columns
            if categories[index].content_ != "dates"
        }
        # Of lists, by their first elements: pairs of a column and its number of codes.
        list_columns = encoder.bag_columns_
        self.list_runs = {i: Runs(list_columns[i].name, n) for i, n in lists}
        self.n_known = np.zeros((n_blocks, n_tasks))
        self.n_ones = np.zeros((n_blocks, n_tasks))

    def add(self, codes, block, lists=()):
        """Add the next rows, without validation rows; `lists` has first elements."""
        for column, runs in self.runs.items():
            runs.add(codes[:, column], block)
        for first_codes, runs in zip(lists, self.list_runs.values(), strict=True):
            runs.add(first_codes, block)

    def add_labels(self, y, weight, block):
        """Add the labels of these rows."""
        for task in range(y.shape[1]):
            labelled = np.flatnonzero(weight[:, task] > 0)
            n_blocks = len(self.n_known)
            self.n_known[:, task] += np.bincount(block[labelled], None, n_blocks)
            ones = y[labelled, task]
            self.n_ones[:, task] += np.bincount(block[labelled], ones, n_blocks)

    def find(self, task_names):
        """Return the `Order` of the rows, or None."""
        shares = list(map(explained_share, self.n_known.T, self.n_ones.T))
        if max(shares) > MIN_SHARE:
            return Order(task_names[np.argmax(shares)], is_column=False)
        all_runs = (*self.runs.values(), *self.list_runs.values())
        orders = [runs.order() for runs in all_runs]
        misleading = [order for order in orders if order is not None]
        return max(misleading, key=lambda order: order.is_sorted, default=None)


def explained_share(n, k):
    """Return the variance of labels that blocks explain, over the largest possible one.

    The blocks have k positives among n rows. The result is 0 if it may be chance.
    """
    has_rows = n > 0
    n = n[has_rows]
    k = k[has_rows]
    if not 0 < k.sum() < n.sum() or len(n) < 2:
        return 0.0
    p = k.sum() / n.sum()
    df = len(n) - 1
    squares = ((k - n * p) ** 2 / n).sum() / (p * (1 - p))
    if chi2.sf(squares, df) > MAX_CHANCE:
        return 0.0
    share = (squares - df) / n.sum()
    # With few events, all of them in one block explain little of the variance.
    largest_share = min(1.0, df * min(p / (1 - p), (1 - p) / p))
    return share / largest_share


def warn_about_order(order, has_groups, has_statistics):
    name = order.name
    by_time = (
        "If they are in the order of time all the same, name a column of times by "
        "encoding_params={'time_column': ...}"
    )
    if order.is_sorted and has_statistics:
        by = f"the labels of {name!r}, or by what predicts them"
        if order.is_column:
            by = f"column {name!r}"
        warn_user(
            f"The rows are sorted by {by}. Target statistics leave out random blocks, "
            f"since blocks of consecutive rows would mislead them. {by_time}."
        )
    elif order.is_sorted:
        warn_user(
            f"The rows are sorted by column {name!r}, so that the last rows do not "
            "tell how often later rows have new values: random rows do instead. "
            f"{by_time}, or set 'category_dropout'."
        )
    elif has_statistics and not has_groups:
        warn_user(
            f"The rows of each value of column {name!r} are in one piece, so that its "
            "target statistics leave out most rows of a row's own value. Shuffle rows "
            "that are not in the order of time, or leave it out of target_encoding."
        )

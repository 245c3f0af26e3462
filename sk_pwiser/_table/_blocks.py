"""Blocks of rows, whose labels the target statistics of their rows leave out."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import chi2

from sk_pwiser._columns._codes import FIRST_VALUE
from sk_pwiser._columns._new_values import LATE_SHARE
from sk_pwiser._table._row_units import mix_bits
from sk_pwiser._utils._warnings import warn_user

# Rows count as sorted by labels if blocks explain this share of the variance of labels
# that blocks can explain at all, and chance is less likely than this. Rows sorted by a
# good prediction have a share of 0.2, and rates that grow tenfold over a log one of
# 0.05.
MIN_SHARE, MAX_CHANCE = 0.15, 1e-6
# The rows of a value are in one piece if a column has fewer runs of equal values per
# value than this, and if about this share of the other rows of a row's value are in its
# block: fewer than 1 / MIN_OWN blocks per value. In the order of time, users may be
# in few blocks, but there are rows of others between theirs.
MAX_RUNS, MIN_OWN = 1.5, 0.5
# Rows count as sorted by a column if its rows are in one piece per value, and if the
# next piece has a larger value this often, or a smaller one. Otherwise they may be in
# the order of time: visits to a small site, one after the other.
MIN_STEPS = 0.9
# With this share of rows that repeat the inputs of others, rows in parts are in blocks
# by their inputs; with fewer, the order of the rows is worth more.
SHARE_OF_REPEATS = 0.01


@dataclass
class RowSample:
    """A random sample of `n_rows` rows of several parts: those with the smallest keys.

    Rows are tables of pyarrow, or arrays. None keeps all rows.
    """

    n_rows: int | None = None
    generator: Any = None
    limit: float = np.inf  # rows with larger keys are not in the sample
    parts: list = field(default_factory=list)  # rows, weights and random keys
    n_kept: int = 0

    def add(self, table, weights):
        keys = np.zeros(len(table))
        if self.n_rows is not None:
            keys = self.generator.random(len(table))
        weights = np.ones(len(table)) if weights is None else weights
        if np.isfinite(self.limit):
            kept = np.flatnonzero(keys < self.limit)
            table, weights, keys = table.take(kept), weights[kept], keys[kept]
        if not len(keys):
            return
        self.parts.append((table, weights, keys))
        self.n_kept += len(keys)
        if self.n_rows is not None and self.n_kept > 2 * self.n_rows:
            self._reduce()

    def finish(self):
        if self.n_rows is not None and self.n_kept > self.n_rows:
            self._reduce()
        return self._join()[:2]

    def _reduce(self):
        """Keep the smallest keys, in the order of the rows."""
        table, weights, keys = self._join()
        chosen = np.sort(np.argpartition(keys, self.n_rows)[: self.n_rows])
        self.parts = [(table.take(chosen), weights[chosen], keys[chosen])]
        self.limit, self.n_kept = keys[chosen].max(), len(chosen)

    def _join(self):
        tables, weights, keys = zip(*self.parts, strict=True)
        if isinstance(tables[0], np.ndarray):
            table = np.concatenate(tables)
        else:
            import pyarrow as pa  # installed, since the tables are its own

            table = pa.concat_tables(tables).combine_chunks()
        # Some of the parts may have weights per task.
        n_columns = max(part[0].size for part in weights)
        weights = [
            np.broadcast_to(part.reshape(len(part), -1), (len(part), n_columns))
            for part in weights
        ]
        return table, np.concatenate(weights), np.concatenate(keys)


@dataclass
class GroupValues:
    """One value per group, also for a group that continues in the next part."""

    numbers: Any = ()
    values: Any = None

    def of(self, groups, row_values, combine, choose=None):
        """Return the value of each row's group.

        New groups `combine` the values of their rows, from which, and from the numbers
        of rows, `choose` makes theirs if it is given.
        """
        numbers, first, place, sizes = np.unique(
            groups, return_index=True, return_inverse=True, return_counts=True
        )
        combined = row_values[first]
        combine.at(combined, place, row_values)
        is_new = ~np.isin(numbers, self.numbers)
        chosen = combined[is_new]
        if choose is not None:
            chosen = choose(chosen, sizes[is_new])
        values = np.empty(len(numbers), dtype=chosen.dtype)
        values[is_new] = chosen
        if not is_new.all():
            known = np.searchsorted(self.numbers, numbers[~is_new])
            values[~is_new] = self.values[known]
        self.numbers, self.values = numbers, values
        return values[place]


def one_per_group(groups):
    """Return for each row one of the rows of its group, which differ in their place.

    With the first rows, all groups that come back would be in the first blocks.
    """
    numbers, number, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    starts = sizes.cumsum() - sizes
    return np.argsort(number, kind="stable")[starts + numbers % sizes][number]


class Order(NamedTuple):
    """An order of rows in which blocks of consecutive rows do not fit."""

    name: str  # of a column or a task
    is_column: bool
    is_sorted: bool = True


def assign_blocks(n_samples, n_blocks, times=None, groups=None, generator=None):
    """Assign rows to blocks of consecutive rows or times.

    Groups are not split: they are taken in the order of their first rows. With times,
    the rows of a group at one time, or of a group that begins in a block and ends in
    the next one, are not split, such as those of a session. Others come back: their
    rows are in the blocks of their times, so that the rows of a block leave out what is
    near them in time and read what the group did at other times.
    A `generator` shuffles the rows of each time, or all rows if there are no times.
    """
    rank = np.arange(n_samples)
    if generator is not None:
        rank = generator.permutation(n_samples)
    if times is None:
        if groups is not None:
            rank = rows_before_groups(rank, groups)
        return rank * n_blocks // n_samples
    order = np.lexsort((rank, times))
    rank[order] = np.arange(n_samples)
    if groups is None:
        return rank * n_blocks // n_samples
    _, time_number = np.unique(times, return_inverse=True)
    _, group_number = np.unique(groups, return_inverse=True)
    visits = time_number * (group_number.max() + 1) + group_number
    block = rows_before_groups(rank, visits) * n_blocks // n_samples
    first_block = np.full(group_number.max() + 1, n_blocks)
    last_block = np.zeros(group_number.max() + 1, dtype=block.dtype)
    np.minimum.at(first_block, group_number, block)
    np.maximum.at(last_block, group_number, block)
    is_near = last_block - first_block <= 1
    return np.where(is_near[group_number], first_block[group_number], block)


def last_edge(times, share):
    """Return the time, after the first, from which on a share of the rows comes.

    It is None if all times are equal.
    """
    later = times[times > times.min()]
    if not len(later):
        return None
    return float(max(np.quantile(times, 1 - share, method="higher"), later.min()))


def rows_before_groups(rank, groups):
    """Return per row the number of rows of the groups that begin before its group."""
    _, number, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    first = np.full(len(sizes), len(rank))
    np.minimum.at(first, number, rank)
    order = np.argsort(first)
    before = np.empty_like(sizes)
    before[order] = sizes[order].cumsum() - sizes[order]
    return before[number]


class Runs:
    """Counts the runs of equal values of a category column, in rows in parts."""

    def __init__(self, name, n_codes):
        self.name = name
        self.is_present = np.zeros(n_codes, dtype=bool)
        # The code and the block of the last row so far.
        self.last = np.empty((2, 0), dtype=np.int64)
        # Changes of the code, those to a larger one, and those of code or block.
        self.n_rows = self.n_steps = self.n_up = self.n_pieces = 0

    def add(self, codes, block):
        """Add the next rows. Codes are in the order of values; rare ones come last."""
        if self.n_steps >= MAX_RUNS * len(self.is_present):
            return
        known = (codes >= FIRST_VALUE) & (codes < len(self.is_present))
        rows = np.stack([codes[known].astype(np.int64), block[known]])
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
        if not (has_one_run and self.n_pieces < n_values / MIN_OWN < self.n_rows):
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
        for own, runs in zip(lists, self.list_runs.values(), strict=True):
            runs.add(own, block)

    def add_labels(self, y, weight, block):
        """Add the labels of these rows."""
        for task in range(y.shape[1]):
            known = np.flatnonzero(weight[:, task] > 0)
            for sums, values in ((self.n_known, None), (self.n_ones, y[known, task])):
                sums[:, task] += np.bincount(block[known], values, len(sums))

    def find(self, task_names):
        """Return the `Order` of the rows, or None."""
        shares = list(map(explained_share, self.n_known.T, self.n_ones.T))
        if max(shares) > MIN_SHARE:
            return Order(task_names[np.argmax(shares)], is_column=False)
        runs = *self.runs.values(), *self.list_runs.values()
        orders = [order for each in runs if (order := each.order())]
        return max(orders, key=lambda order: order.is_sorted, default=None)


def explained_share(n, k):
    """Return the variance of labels that blocks explain, over the largest possible one.

    The blocks have k positives among n rows. The result is 0 if it may be chance.
    """
    n, k = n[n > 0], k[n > 0]
    if not 0 < k.sum() < n.sum() or len(n) < 2:
        return 0.0
    p, df = k.sum() / n.sum(), len(n) - 1
    squares = ((k - n * p) ** 2 / n).sum() / (p * (1 - p))
    if chi2.sf(squares, df) > MAX_CHANCE:
        return 0.0
    # With few events, all of them in one block explain little of the variance: the last
    # divisor is the largest possible share.
    return (squares - df) / n.sum() / min(1.0, df * min(p / (1 - p), (1 - p) / p))


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


@dataclass
class Blocks:
    """Assigns rows to blocks of about equal size, in one part or in several.

    A first pass counts the rows, and samples their times if blocks are `by_time`. All
    rows at once get what `assign_blocks` returns, rows in parts about the same.
    """

    n_blocks: int
    by_time: bool
    sample: RowSample = field(default_factory=RowSample)  # of times
    n_rows: int = 0
    n_parts: int = 0
    n_tried: int = 0  # passes over the rows that were judged
    # If given, keys of rows, equal for equal inputs, decide on blocks, not their order.
    key_seed: int | None = None
    # The `Order` of the rows in which consecutive blocks do not fit, if any.
    misleading_order: Any = None

    def add(self, n_rows, times):
        """Count rows of the first pass."""
        self.n_rows += n_rows
        self.n_parts += 1
        if times is not None:
            self.sample.add(times, None)

    def finish(self):
        """Choose the times between blocks when all rows were added."""
        self.n_blocks = min(self.n_blocks, self.n_rows)
        self.spans = {}
        # Whether the order of rows, and not their times alone, decides on blocks.
        self.have_order = True
        if self.by_time:
            self.sampled, _ = self.sample.finish()
            shares = np.arange(1, self.n_blocks) / self.n_blocks
            self.edges = np.quantile(self.sampled, shares, method="higher")
            # The ranks of the rows of each time that several blocks may share.
            self.spans = {
                time: [
                    round((self.sampled < time).mean() * self.n_rows),
                    round((self.sampled <= time).mean() * self.n_rows),
                ]
                for time in np.unique(self.edges).tolist()
            }
            self.have_order = len(self.spans) < len(self.edges)
            if self.n_parts == 1:
                self.have_order = len(np.unique(self.sampled)) < self.n_rows
        self.start()

    def start(self, seed=None):
        """Start a pass over the rows; with a seed, blocks are random within times."""
        self.generator = self.late_generator = None
        if seed is not None:
            self.generator = np.random.default_rng(seed)
            self.late_generator = np.random.default_rng(seed + 1)
        self.n_seen = 0
        self.ranks = {time: first for time, (first, _) in self.spans.items()}
        self.groups = GroupValues()
        self.group_sizes, self.n_largest = {}, 0  # sizes of groups that may continue

    def are_late(self, rank, times, block, groups):
        """Return whether rows, with their ranks, are among the last ones.

        It is decided by times, by the order of the rows or, if that misleads, at
        random: by the blocks of groups, otherwise row by row, since rows with equal
        inputs in one block would seem to have new values.
        """
        edge = last_edge(self.sampled, LATE_SHARE) if self.by_time else None
        if edge is not None:
            return times >= edge
        if self.generator is not None and block is not None:
            if groups is None:
                return self.late_generator.random(len(rank)) < LATE_SHARE
            return block == self.n_blocks - 1
        return rank >= (1 - LATE_SHARE) * self.n_rows

    def assign(self, n_rows, times, groups, keys=None):
        """Return the blocks of the next rows; `keys` are those of `UnitKeys`."""
        if groups is not None:
            numbers, counts = np.unique(groups, return_counts=True)
            sizes = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
            before = self.group_sizes
            self.group_sizes = {g: n + before.get(g, 0) for g, n in sizes.items()}
            self.n_largest = max(self.n_largest, *self.group_sizes.values())
        if n_rows == self.n_rows:
            return assign_blocks(n_rows, self.n_blocks, times, groups, self.generator)
        rank = np.arange(n_rows)
        if times is None and self.generator is None and groups is not None:
            rank = rows_before_groups(rank, groups)
        if times is not None:
            block = self._assign_by_time(times)
        elif self.key_seed is not None:
            mixed = mix_bits(keys + np.uint64(self.key_seed)) >> np.uint64(32)
            block = (mixed * np.uint64(self.n_blocks) >> np.uint64(32)).astype(np.intp)
        elif self.generator is not None:
            block = self.generator.integers(self.n_blocks, size=n_rows)
        else:
            block = (self.n_seen + rank) * self.n_blocks // self.n_rows
        self.n_seen += n_rows
        if groups is None:
            return block
        block = block[one_per_group(groups)]
        return self.groups.of(groups, block, np.minimum)

    def _assign_by_time(self, times):
        """Return the blocks of the next rows; those of one time fill them in order."""
        block = np.searchsorted(self.edges, times, side="right")
        for time, rank in self.ranks.items():
            rows = np.flatnonzero(times == time)
            own = rank + np.arange(len(rows))
            if self.generator is not None:
                first, last = self.spans[time]
                own = self.generator.integers(first, max(last, first + 1), len(rows))
            own = own * self.n_blocks // self.n_rows
            first = np.searchsorted(self.edges, time)
            block[rows] = own.clip(first, block[rows])
            self.ranks[time] += len(rows)
        return block

    def part_by_keys(self, seed, share_of_repeats):
        """Return whether to pass over the rows again, with blocks by the keys of rows.

        They keep the rows with equal inputs together, which are in several parts.
        """
        has_order = self.by_time or self.n_largest > 0 or self.key_seed is not None
        if has_order or share_of_repeats < SHARE_OF_REPEATS:
            return False
        self.key_seed = seed
        self.start()
        return True

    def retry(self, order, seed, has_statistics=True):
        """Return whether to pass over the rows again, with other blocks; or warn.

        `order` is that of `RowOrder.find`. If it misleads the target statistics, or the
        measure of new values if there are none, random blocks are tried.
        They do not help if the values of a column are parts of groups: then the rows
        keep the blocks of their order.
        """
        if not self.n_tried:
            is_large = self.n_largest * self.n_blocks > 2 * self.n_rows
            if is_large and has_statistics:
                warn_user(
                    f"The largest of the groups has {self.n_largest} of {self.n_rows} "
                    "rows. Target statistics leave out a whole group, where "
                    f"target_encoding_blocks={self.n_blocks} asks for about "
                    f"{self.n_rows // self.n_blocks} rows."
                )
            self.misleading_order = order
        elif self.n_tried == 1 and order is not None:
            self.misleading_order = None
        self.n_tried += 1
        is_misled = order is not None and order.is_sorted
        if self.n_tried == 1 and is_misled:
            self.start(seed)
            return True
        if self.n_tried == 2 and self.misleading_order is None:
            self.start()
            return True
        if self.misleading_order is not None and not self.by_time:
            warn_about_order(self.misleading_order, self.n_largest > 0, has_statistics)
        return False

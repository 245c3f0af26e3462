"""Blocks of rows, whose labels the target statistics of their rows leave out."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sk_pwiser._columns._new_values import LATE_SHARE
from sk_pwiser._rows._group_values import GroupValues
from sk_pwiser._rows._row_order import warn_about_order
from sk_pwiser._rows._row_sample import RowSample
from sk_pwiser._rows._row_units import mix_bits
from sk_pwiser._utils._warnings import warn_user

# With this share of rows that repeat the inputs of others, rows in parts are in blocks
# by their inputs; with fewer, the order of the rows is worth more.
SHARE_OF_REPEATS = 0.01


def one_per_group(groups):
    """Return for each row one of the rows of its group, which differ in their place.

    With the first rows, all groups that come back would be in the first blocks.
    """
    numbers, number, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    starts = sizes.cumsum() - sizes
    return np.argsort(number, kind="stable")[starts + numbers % sizes][number]


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
    n_before = np.empty_like(sizes)
    n_before[order] = sizes[order].cumsum() - sizes[order]
    return n_before[number]


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
        self.generator = None
        self.late_generator = None
        if seed is not None:
            self.generator = np.random.default_rng(seed)
            self.late_generator = np.random.default_rng(seed + 1)
        self.n_seen = 0
        self.ranks = {time: first for time, (first, _) in self.spans.items()}
        self.groups = GroupValues()
        self.group_sizes = {}  # of groups that may continue
        self.n_largest = 0

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
            earlier_sizes = self.group_sizes
            self.group_sizes = {
                g: n + earlier_sizes.get(g, 0) for g, n in sizes.items()
            }
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
            row_ranks = rank + np.arange(len(rows))
            if self.generator is not None:
                first, last = self.spans[time]
                row_ranks = self.generator.integers(
                    first, max(last, first + 1), len(rows)
                )
            row_blocks = row_ranks * self.n_blocks // self.n_rows
            first_block = np.searchsorted(self.edges, time)
            block[rows] = row_blocks.clip(first_block, block[rows])
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

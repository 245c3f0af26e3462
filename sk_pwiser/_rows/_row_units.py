"""Units of rows that are not parted: the rows of a group, or rows with equal inputs."""

import numpy as np

from sk_pwiser._utils._warnings import warn_user

# Odd numbers and shifts of a usual mixer of 64 bits (Steele, Lea, Flood 2014,
# "Fast splittable pseudorandom number generators", OOPSLA): each bit of the result
# depends on all bits of the argument.
FIRST_FACTOR = np.uint64(0xBF58476D1CE4E5B9)
SECOND_FACTOR = np.uint64(0x94D049BB133111EB)
# The seed of the factors of the columns. It decides on nothing but collisions.
HASH_SEED = 20_240_602
# Rows with equal inputs that are a unit at most. A table of counts has a row per
# outcome, and copies of a row, such as those of one order, are a few. If more are
# equal, most rows are draws from few different ones: if all of these were on one
# side, validation rows would have none of the values of training rows.
MOST_EQUAL_ROWS = 16
# Share of the rows for which groups and the values of a column determine each other.
SHARE_OF_GROUP_COLUMN = 0.9
# Different rows per value of a column from which on a table of counts is as good as the
# rows that it counts: five are on generated logs, and two are not.
FEWEST_CELLS = 3


def mix_bits(values):
    """Return 64 random-looking bits per value of an array of uint64."""
    values = (values ^ (values >> np.uint64(30))) * FIRST_FACTOR
    values = (values ^ (values >> np.uint64(27))) * SECOND_FACTOR
    return values ^ (values >> np.uint64(31))


def row_hashes(codes, numeric, bags=None):
    """Return a hash of the inputs of each row, uint64 `(n_samples,)`.

    Rows with equal inputs have equal hashes. `bags` are those of an encoder; the order
    of the elements of a list does not count.
    """
    n_samples = len(codes)
    n_bags = 0 if bags is None else (len(bags[0]) - 1) // max(n_samples, 1)
    n_columns = codes.shape[1] + numeric.shape[1] + n_bags
    generator = np.random.default_rng(HASH_SEED)
    factors = generator.integers(2**63, size=n_columns, dtype=np.uint64) * 2 + 1
    hashes = np.zeros(n_samples, dtype=np.uint64)
    columns = [*codes.T, *(column.view(np.uint32) for column in numeric.T)]
    for factor, column in zip(factors, columns, strict=False):
        hashes += column.astype(np.uint64) * factor
    if n_bags:
        sums = _hashes_of_bags(*bags).reshape(n_samples, n_bags)
        hashes += mix_bits(sums) @ factors[len(columns) :]
    return mix_bits(hashes)


def _hashes_of_bags(offsets, indices, weights, ages=None):
    """Return the sum of the hashes of the elements of each bag."""
    elements = mix_bits(indices.astype(np.uint64) + np.uint64(1))
    for beside in (weights, ages):
        if beside is not None:
            bits = np.ascontiguousarray(beside, dtype=np.float32).view(np.uint32)
            elements = mix_bits(elements + bits)
    ends = np.concatenate([np.zeros(1, np.uint64), elements.cumsum(dtype=np.uint64)])
    return ends[offsets[1:]] - ends[offsets[:-1]]


def equal_row_units(hashes, most_rows):
    """Return units of rows with equal hashes, or None if all hashes differ.

    The units are numbered in the order of their first rows. Of a hash that more than
    `most_rows` rows have, so many consecutive rows are a unit each.
    """
    _, first, number, sizes = np.unique(
        hashes, return_index=True, return_inverse=True, return_counts=True
    )
    largest = int(sizes.max(initial=0))
    if largest <= 1:
        return None
    if largest > most_rows:
        order = np.argsort(number, kind="stable")
        rows_before = np.empty(len(number), dtype=np.int64)  # with the same hash
        starts = sizes.cumsum() - sizes
        rows_before[order] = np.arange(len(number)) - starts[number[order]]
        piece = rows_before // most_rows
        pairs = number * (piece.max() + 1) + piece
        _, first, number = np.unique(pairs, return_index=True, return_inverse=True)
    return first.argsort().argsort()[number]


def warn_about_few_cells(codes, units, names):
    """Name a column whose values have too few different rows for a table of counts."""
    _, first_rows = np.unique(units, return_index=True)
    for name, column in zip(names, codes[first_rows].T, strict=True):
        n_values = len(np.unique(column))
        if n_values > 1 and len(first_rows) < FEWEST_CELLS * n_values:
            warn_user(
                f"sample_weight has counts, and the {n_values} values of column "
                f"{name!r} have only {len(first_rows)} different rows: these cannot be "
                "divided into training and validation rows that both tell of each "
                "value. Predictions are better with one row per counted one, as in "
                "X.loc[X.index.repeat(count)]."
            )
            return


def split_large_units(units, largest_rows):
    """Return units of which those with more than `largest_rows` rows are single rows.

    The second result is the number of the largest one of these, and its number of rows;
    None if there are none, and then the units are unchanged.
    """
    sizes = np.bincount(units)
    largest = int(sizes.argmax())
    is_large = (sizes > largest_rows)[units]
    if not is_large.any():
        return units, None
    split = units.copy()
    split[is_large] = len(sizes) + np.arange(np.count_nonzero(is_large))
    return split, (largest, int(sizes[largest]))


def has_group_column(codes, groups):
    """Return whether a category column has the groups themselves, such as user ids.

    `codes` is `(n_samples, n_columns)`. A few rows may differ, such as those of rare
    values that share a code.
    """
    for column in codes.T:
        # A row of each code and of each group; which of them does not matter if the
        # two determine each other.
        group_of_code = np.zeros(int(column.max()) + 1, dtype=groups.dtype)
        group_of_code[column] = groups
        is_of_code = group_of_code[column] == groups
        if is_of_code.mean() < SHARE_OF_GROUP_COLUMN:
            continue
        code_of_group = np.zeros(int(groups.max()) + 1, dtype=column.dtype)
        code_of_group[groups] = column
        is_of_group = code_of_group[groups] == column
        if is_of_group.mean() >= SHARE_OF_GROUP_COLUMN:
            return True
    return False


# Memory for the numbers of rows per hash, and rows by which repeats are estimated.
MOST_COUNTERS = 2**26
SAMPLED_ROWS = 2**17


class UnitKeys:
    """Random keys of rows that are read in parts, equal for rows with equal inputs.

    As in `equal_row_units`, up to `MOST_EQUAL_ROWS` rows with equal inputs share a key.
    Rows are counted per hash in an array of limited size, in which different hashes may
    meet: then a few more rows have keys of their own.
    """

    def __init__(self, n_rows):
        n_counters = min(MOST_COUNTERS, 2 ** (2 * max(n_rows, 1)).bit_length())
        self.counters = np.zeros(n_counters, dtype=np.uint8)
        self.sampled_share = min(1.0, SAMPLED_ROWS / max(n_rows, 1))
        self.samples = []

    def of(self, hashes):
        """Return the keys of the next rows, uint64."""
        is_sampled = hashes >> np.uint64(32) < self.sampled_share * 2**32
        self.samples.append(hashes[is_sampled])
        slots, number, counts = np.unique(
            hashes & np.uint64(len(self.counters) - 1),
            return_inverse=True,
            return_counts=True,
        )
        order = np.argsort(number, kind="stable")
        starts = counts.cumsum() - counts
        rows_before = np.empty(len(number), dtype=np.int64)
        rows_before[order] = np.arange(len(number)) - starts[number[order]]
        rows_before += self.counters[slots][number]
        # Counters of 8 bits begin again at 0, where a new piece begins, too.
        self.counters[slots] += counts.astype(np.uint8)
        piece = rows_before % 256 // MOST_EQUAL_ROWS
        return mix_bits(hashes + mix_bits(piece.astype(np.uint64)))

    def share_of_repeats(self):
        """Estimate the share of the rows that have the inputs of an earlier row."""
        sampled = np.concatenate(self.samples)
        if not len(sampled):
            return 0.0
        return 1 - len(np.unique(sampled)) / len(sampled)

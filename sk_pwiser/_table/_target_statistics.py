"""Target statistics: the rates of the tasks per value of category columns."""

from collections.abc import Sequence
from copy import copy
from functools import partial

import numpy as np

from sk_pwiser._table._block_counts import BlockCounts
from sk_pwiser._table._categories import FIRST_VALUE, CategoryColumn
from sk_pwiser._table._frames import (
    check_among,
    find_column,
)
from sk_pwiser._table._lists import LISTS, Elements
from sk_pwiser._table._numbers import LARGEST_DEVIATION
from sk_pwiser._utils import check_integer, warn_user

# Range of the estimated strength of shrinkage, in rows.
STRENGTHS = 1.0, 1e5
# The variance of the rates of a task between values must exceed the variance due to
# chance by this number of standard errors.
MIN_Z = 2.0
# Rates are inputs in log-odds, and are scaled only if they deviate by more than this.
# Scaled to one deviation, the rates of a column that hardly matters would count as much
# as those of a column that decides: the noise in them cost AUC on validation rows.
SMALLEST_RATE_SCALE = 1.0
# Standard deviation of the inputs of frequencies, which matter less than rates.
FREQUENCY_DEVIATION = 1 / 3
# The largest distance of the frequency of unseen values from the mean, in standard
# deviations.
UNSEEN_DISTANCE = 3.0
# Updates that change all values of a column wait until the rows have grown by this
# factor, so that their cost per row does not depend on the number of values.
GROWTH = 1.1
ALL = slice(None)


# What an update may replace, as opposed to the counts, which it changes in place.
REPLACED = (
    *("is_weighted", "totals_", "n_encoded_", "sizes_", "older_", "rates_"),
    *("strengths_", "means_", "scales_", "tables_"),
)


class TargetStatistics:
    r"""Rates of the tasks per value of category columns, shrunk to the base rate.

    A value with n rows, k of them positive, gives, for each task,

    .. math:: \operatorname{logit} \frac{k + a p}{n + a} - \operatorname{logit} p

    with p the base rate and a the strength of shrinkage, estimated per column and task
    by the method of moments. If the rates of a task do not vary more between the values
    than chance explains, its input is 0. Beside these, each column gives log(1 + n).
    Missing and unseen values have n = k = 0. All inputs have the mean 0. Log-odds keep
    their scale unless they deviate by more than 1; frequencies deviate by a third.
    `columns` are indices among the category columns.

    If further rows are added, or replace the rows of an earlier fit, the inputs keep
    their meaning for a trained network: base rates, strengths, means and scales stay,
    and n is scaled to the number of rows that these were learnt from. An input that was
    0 in all rows so far has untrained weights, so that it is learnt from all counts.

    A row of a list column has the means over its elements. `lists` has pairs of the
    index of a list column and that of a table of values: one of `columns`, if the two
    share a vocabulary, or a further one, which counts each element as a row.
    `cardinalities` has the number of codes per table.

    References
    ----------
    Micci-Barreca (2001). "A preprocessing scheme for high-cardinality categorical
    attributes in classification and prediction problems." SIGKDD Explorations 3(1).
    """

    # Whether the inputs of training rows leave out their own block.
    reads_blocks = True

    def __init__(
        self,
        columns: Sequence[int],
        cardinalities: Sequence[int],
        lists: Sequence[tuple[int, int]] = (),
    ):
        self.columns = list(columns)
        self.cardinalities = list(cardinalities)
        self.lists = list(lists)
        self.is_weighted = False
        self.block_seed = None

    @property
    def counts_rows(self):
        """Whether the counts are numbers of rows, not sums of weights."""
        is_whole = all((counts[0] % 1 == 0).all() for counts in self.counts_)
        return is_whole and not self.is_weighted

    @property
    def n_outputs(self):
        return (len(self.columns) + len(self.lists)) * (self.n_tasks_ + 1)

    def column_names(self, encoder):
        names = [encoder.category_names_[column] for column in self.columns]
        return names + [encoder.lists_[column].name for column, _ in self.lists]

    def names(self, encoder, task_names):
        suffixes = [*(f"{task}_rate" for task in task_names), "frequency"]
        return [
            f"{n}_{suffix}" for n in self.column_names(encoder) for suffix in suffixes
        ]

    def fit(self, counts, earlier=None):
        """Learn statistics from `BlockCounts`; return the `BlockInputs` of each table.

        Training rows are encoded with the statistics of all other blocks, and the
        validation rows with those of all training rows. The counts of values that do
        not occur in these rows are those of an `earlier` fit.
        """
        self._begin(counts.total, counts.ones, earlier)
        tables = []
        for j, pairs in enumerate(counts.tables):
            *blocks, others = pairs.blocks()
            of_rows = pairs.by_code(blocks)
            known = self._fit_table(
                j, blocks, of_rows, pairs.by_code([others]), earlier
            )
            inputs = [
                self._inputs(j, known[..., part.codes] - part.counts, part.codes)
                for part in blocks
            ]
            tables.append(pairs.with_inputs([*inputs, self._inputs(j, known)]))
        self._update_tables()
        return tables

    def _by_table(self, codes, lists):
        """Return the places and elements of inputs by table, which counts the first."""
        columns = [(j, Elements(codes[:, c])) for j, c in enumerate(self.columns)]
        parts = [*columns, *((j, lists[column]) for column, j in self.lists)]
        by_table = [[] for _ in self.cardinalities]
        for place, (j, elements) in enumerate(parts):
            by_table[j].append((place, elements))
        return by_table

    def _begin(self, total, ones, earlier):
        self.n_tasks_ = len(total)
        # Sums of weights of the training rows, and of their positive labels.
        self.totals_ = np.stack([total, ones])
        # The number of rows that values are encoded by; per table, the number that its
        # frequencies were learnt from, and how many rows more an earlier fit had that
        # counts are from: one number, or one per code.
        self.n_encoded_ = self._n_rows()
        self.sizes_ = np.full(len(self.cardinalities), self.n_encoded_)
        self.older_ = [0.0] * len(self.cardinalities)
        self.rates_ = self._base_rates()
        if earlier is not None:
            self.rates_ = earlier._relearnt_rates(self.rates_)
            is_learnt = [np.isfinite(scale[-1]) for scale in earlier.scales_]
            self.sizes_ = np.where(is_learnt, earlier.sizes_, self.sizes_)
            self.is_weighted |= earlier.is_weighted
        self.counts_, self.strengths_, self.means_, self.scales_ = [], [], [], []

    def check_rows(self, codes, y, weight, lists=()):
        """Check rows before they are counted; any rows are right by default."""

    def keep_seed(self, earlier, seed):
        """Set the seed of random blocks: that of an earlier fit, if it has one."""
        known = getattr(earlier, "block_seed", None)
        self.block_seed = seed if known is None else known

    def _n_rows(self):
        return self.totals_[0, 0] or 1.0

    def _base_rates(self):
        total, ones = self.totals_
        return (ones + 0.5) / (total + 1.0)

    def _relearnt_rates(self, rates):
        """Return the base rates, new ones of tasks whose inputs are all 0 so far."""
        is_off = np.isinf([scale[:-1] for scale in self.scales_]).all(axis=0)
        return np.where(is_off, rates, self.rates_)

    def note_weights(self, weight):
        """Note whether counts become sums of weights."""
        self.is_weighted |= not np.isin(weight, (0, 1)).all()

    def _fit_table(self, j, blocks, counts, others, earlier):
        """Learn the next table, and return the counts by which rows are encoded."""
        total, known = counts + others, counts
        if earlier is not None:
            is_absent = total[0].max(axis=0) == 0
            total[..., is_absent] = earlier.counts_[j][..., is_absent]
            known = np.where(is_absent, total, counts)
            n_more = earlier.n_encoded_ + earlier.older_[j] - self.n_encoded_
            if total[0, 0, is_absent].any():
                self.older_[j] = np.where(is_absent, n_more, 0.0)
        learnt = None if earlier is None else earlier._learnt_inputs(j)
        parts = _without_own(counts, blocks)
        strengths, mean, scale = self._learn_inputs(j, known, parts, learnt)
        self.counts_.append(total)
        self.strengths_.append(strengths)
        self.means_.append(mean)
        self.scales_.append(scale)
        return counts

    def _learnt_inputs(self, j):
        return self.strengths_[j], self.means_[j], self.scales_[j]

    def _learn_inputs(self, j, counts, parts, learnt=None):
        """Return strengths, means and scales; those of `learnt` inputs do not change.

        `parts` has codes, counts and the numbers of rows that are encoded by them.
        """
        if learnt is not None and np.isfinite(learnt[-1]).all():
            return learnt
        strengths = self._estimate_strengths(counts)
        if learnt is not None:
            is_learnt = np.isfinite(learnt[-1])
            strengths = np.where(is_learnt[:-1], learnt[0], strengths)
        n_rows, mean, squares = 0.0, 0.0, 0.0
        for codes, own, weights in parts:
            values = self._rates(j, own, strengths, codes)
            n_own = weights.sum()
            if not n_own:
                continue
            own_mean = weights @ values / n_own
            share = n_own / (n_rows + n_own)
            squares += weights @ (values - own_mean) ** 2
            squares += (own_mean - mean) ** 2 * n_rows * share
            mean += (own_mean - mean) * share
            n_rows += n_own
        if not n_rows:  # all values of an update are unseen
            return learnt
        scale = np.sqrt(squares / n_rows)
        is_off = (scale < 1e-9) | ~np.append(np.isfinite(strengths), True)
        # If all values are about equally frequent, the frequency of unseen values, 0,
        # would be far outside the range of the training rows.
        scale[-1] = max(scale[-1], mean[-1] / UNSEEN_DISTANCE) / FREQUENCY_DEVIATION
        scale[:-1] = np.maximum(scale[:-1], SMALLEST_RATE_SCALE)
        scale[is_off] = np.inf
        if learnt is None:
            return strengths, mean, scale
        mean = np.where(is_learnt, learnt[1], mean)
        return strengths, mean, np.where(is_learnt, learnt[2], scale)

    def transform(self, codes, lists=()):
        """Return the inputs of rows by all counts, (n_samples, n_outputs)."""
        return self._encode(codes, lists, self.tables_)

    def encode(self, tables, codes, lists, block):
        """Return the inputs of rows by their blocks and the tables of `fit`."""
        return self._encode(codes, lists, tables, block)

    def _encode(self, codes, lists, tables, block=None):
        width = self.n_tasks_ + 1  # of each column
        found = np.empty((len(codes), self.n_outputs), dtype=np.float32)
        for table, own in zip(tables, self._by_table(codes, lists), strict=True):
            for place, elements in own:
                if block is None:
                    inputs = table[elements.codes]
                else:
                    inputs = table.find(elements.repeat(block), elements.codes)
                columns = slice(place * width, (place + 1) * width)
                found[:, columns] = elements.means(inputs)
        return found

    def counted(self, codes, lists=()):
        """Return the elements that each table counts."""
        return [own[0][1] for own in self._by_table(codes, lists)]

    def update(self, codes, y, weight, undo, lists=()):
        """Add rows, and learn inputs that were 0 so far; `undo` logs the change."""
        before = {name: getattr(self, name) for name in REPLACED}
        undo.append(partial(vars(self).update, before))
        added = BlockCounts(self, 1, y.shape[1])
        added.add(codes, y, weight, np.zeros(len(y), dtype=np.intp), lists)
        self.totals_ = self.totals_ + np.stack([added.total, added.ones])
        for j, pairs in enumerate(added.tables):
            part, _ = pairs.blocks()
            is_value = part.codes >= FIRST_VALUE
            present = part.codes[is_value]
            counts = self.counts_[j][..., present]
            tables = self.counts_[j], self.tables_[j]
            undo.append(
                partial(self._set, *tables, present, counts, tables[1][present])
            )
            self.counts_[j][..., present] = counts + part.counts[..., is_value]
            self.tables_[j][present] = self._inputs(
                j, self.counts_[j][..., present], present
            )
        if self._n_rows() >= GROWTH * self.n_encoded_:
            self._learn_again()

    def _learn_again(self):
        """Learn the inputs that were 0 so far, and encode all values by all rows."""
        self._begin_again()
        inputs = [
            self._learn_inputs(
                *(j, counts, [(ALL, counts, counts[0, 0])]), self._learnt_inputs(j)
            )
            for j, counts in enumerate(self.counts_)
        ]
        self.strengths_, self.means_, self.scales_ = map(
            list, zip(*inputs, strict=True)
        )
        self._update_tables()

    def _begin_again(self):
        """Let frequencies refer to all rows; learn base rates that had no effect."""
        self.n_encoded_ = self._n_rows()
        is_off = np.isinf([scale[-1] for scale in self.scales_])
        self.sizes_ = np.where(is_off, self.n_encoded_, self.sizes_)
        self.rates_ = self._relearnt_rates(self._base_rates())

    def _set(self, all_counts, table, codes, counts, inputs):
        all_counts[..., codes] = counts
        table[codes] = inputs

    def _update_tables(self):
        self.tables_ = [self._inputs(j, c) for j, c in enumerate(self.counts_)]

    def _inputs(self, j, counts, codes=ALL):
        values = self._rates(j, counts, self.strengths_[j], codes)
        scaled = (values - self.means_[j]) / self.scales_[j]
        return np.clip(scaled, -LARGEST_DEVIATION, LARGEST_DEVIATION).astype(np.float32)

    def _rates(self, j, counts, strengths, codes):
        """Return the inputs of values with these counts, `(n_values, n_tasks + 1)`."""
        n, k = counts
        p, a = self.rates_[:, np.newaxis], strengths[:, np.newaxis]
        a = np.minimum(a, STRENGTHS[1])
        # Weights that are not integers cause rounding errors in differences of counts.
        negatives, k = np.maximum(n - k, 0.0), np.maximum(k, 0.0)
        rates = np.log(k + a * p) - np.log(negatives + a * (1 - p))
        rates -= np.log(p) - np.log1p(-p)
        # The labels of the first task are known in all rows.
        n_rows = np.maximum(n[:1], 0.0)
        older = self.older_[j]
        older = older[codes] if np.ndim(older) else older
        n_rows *= self.sizes_[j] / (self.n_encoded_ + older)
        return np.vstack([rates, np.log1p(n_rows)]).T

    def _estimate_strengths(self, counts):
        """Return the strength per task, infinite if the rates only vary by chance."""
        strengths, rates = np.full(self.n_tasks_, np.inf), self._base_rates()
        for task, (n, k) in enumerate(zip(*counts, strict=True)):
            known = n > 1
            n, k, p = n[known], k[known], rates[task]
            if len(n) == 0:
                continue
            # If rates only vary by chance, n (k / n - p)^2 has the mean p (1 - p) and
            # this variance.
            binomial = p * (1 - p)
            by_chance = binomial**2 * (2 + (1 - 6 * binomial) / (n * binomial))
            error = np.sqrt(by_chance.sum()) / n.sum()
            excess = np.sum((k - n * p) ** 2 / n - binomial) / n.sum()
            if excess > MIN_Z * error:
                strengths[task] = np.clip(binomial / excess - 1, *STRENGTHS)
        return strengths


def _without_own(counts, blocks):
    """Yield codes, counts without the block, and numbers of rows, block by block."""
    for part in blocks:
        yield part.codes, counts[..., part.codes] - part.counts, part.n_rows


# Smallest difference of counts that is not a rounding error.
TOLERANCE = 1e-6


class ExtendedStatistics(TargetStatistics):
    """The statistics of an earlier fit, with its scales, extended by other rows.

    `origins` has an array per category column: the code that each code has in `source`,
    -1 for new values. `vectors` has the same per list column, or is None if their
    vocabularies have not grown. `rows` is "seen" if `source` was learned from the rows,
    otherwise "new"; if it `adds`, the statistics are to include new ones.
    """

    def __init__(self, source, origins, rows, adds, vectors=None):
        origins = [origins[c] for c in source.columns]
        n_tables = len(origins)
        origins += [
            np.arange(source.cardinalities[j]) if vectors is None else vectors[index]
            for index, j in source.lists
            if j >= n_tables
        ]
        super().__init__(source.columns, list(map(len, origins)), source.lists)
        self.n_tasks_ = source.n_tasks_
        for name in set(REPLACED) - {"tables_"}:
            setattr(self, name, copy(getattr(source, name)))
        self.counts_ = [
            np.where(origin >= 0, counts[..., origin], 0.0)
            for origin, counts in zip(origins, source.counts_, strict=True)
        ]
        self.block_seed = source.block_seed
        self.older_ = [
            np.where(origin >= 0, older[origin], 0.0) if np.ndim(older) else older
            for origin, older in zip(origins, source.older_, strict=True)
        ]
        self.rows, self.adds = rows, adds
        self._update_tables()

    @property
    def reads_blocks(self):
        return self.rows == "seen" or self.adds

    def check_rows(self, codes, y, weight, lists=()):
        if self.rows == "new":
            self._warn_if_seen(codes, y, weight, lists)

    def _begin(self, total, ones, earlier):
        """Keep what the source has learnt."""
        if self.rows == "new":
            self.totals_ = self.totals_ + np.stack([total, ones])
            self._begin_again()

    def _fit_table(self, j, blocks, counts, others, earlier):
        base = self.counts_[j]
        if self.rows == "seen":
            return counts + _subtract(base, counts + others)
        self.counts_[j] = counts + base + others
        known = counts + base
        learnt, parts = self._learnt_inputs(j), _without_own(known, blocks)
        self.strengths_[j], self.means_[j], self.scales_[j] = self._learn_inputs(
            j, known, parts, learnt
        )
        return known

    def _warn_if_seen(self, codes, y, weight, lists):
        """Warn if rows passed as new fit into the counts, and are half of a value's."""
        if not np.isin(y, (0, 1)).all():
            return
        largest, counted = 0.0, BlockCounts(self, 1, y.shape[1])
        counted.add(codes, y, weight, np.zeros(len(y), dtype=np.intp), lists)
        for j, pairs in enumerate(counted.tables):
            n, k = pairs.by_code(pairs.blocks())
            all_n, all_k = self.counts_[j]
            if min((all_k - k).min(), (all_n - all_k - n + k).min()) < -TOLERANCE:
                return
            shares = np.divide(n, all_n, out=np.zeros_like(n), where=all_n > 0)
            largest = max(largest, shares.max(initial=0.0))
        if largest >= 0.5:
            warn_user(
                "seen=False, but the source may have been fitted on all rows of X: "
                "its target statistics contain their category values and labels. The "
                "inputs of a row then reveal its label. Pass seen=True if the rows are "
                "not new to the source."
            )


def _subtract(counts, seen):
    rest = counts - seen
    if rest.min() < -TOLERANCE:
        raise ValueError(
            "seen=True, but the source was not fitted on all rows of X: a category "
            "value occurs more often in X, or with more positive labels, than in the "
            "fit of the source. Pass seen=False for rows that are new to the source."
        )
    return np.maximum(rest, 0.0)


def find_target_columns(target_encoding, columns, min_values):
    """Return the indices of category columns of many values, or of the named ones."""
    categories = [c for c in columns if isinstance(c, CategoryColumn)]
    if isinstance(target_encoding, bool | np.bool_ | str):
        return [
            index
            for index, column in enumerate(categories)
            if target_encoding and column.n_codes - FIRST_VALUE >= min_values
        ]
    names, known = ([c.name for c in each] for each in (columns, categories))
    chosen = set()
    for column in target_encoding:
        name = names[find_column("target_encoding", column, names)]
        check_among("target_encoding", name, known, "category column")
        chosen.add(known.index(name))
    return sorted(chosen)


def make_target_statistics(target_encoding, encoder, n_samples, params):
    """Return unfitted statistics of a fitted encoder, or None if there are none.

    They require a row per block, unless `n_samples` is None.
    """
    min_values = params["target_encoding_min_values"]
    columns = find_target_columns(target_encoding, encoder.columns_, min_values)
    sizes = [encoder.n_codes_[c] for c in columns]
    lists = []
    for index, table in find_target_lists(encoder, columns, params):
        if table is None:
            table, sizes = len(sizes), [*sizes, encoder.lists_[index].n_own]
        lists.append((index, table))
    n_blocks = params["target_encoding_blocks"]
    if sizes and n_samples is not None and n_samples < n_blocks:
        raise ValueError(
            f"target_encoding_blocks={n_blocks} requires as many rows; X has "
            f"{n_samples}. Use fewer blocks, or target_encoding=False."
        )
    return TargetStatistics(columns, sizes, lists) if sizes else None


def find_target_lists(encoder, columns, params):
    """Yield the indices of list columns with statistics, and the tables of `columns`.

    None stands for a table of its own, of a list without a shared vocabulary.
    """
    chosen = params["list_target_encoding"]
    is_named = not isinstance(chosen, bool | np.bool_)
    names = [column.name for column in encoder.lists_]
    for name in chosen if is_named else ():
        check_among("list_target_encoding", name, names, LISTS)
    categories = [encoder.category_names_[column] for column in columns]
    for index, column in enumerate(encoder.lists_):
        if not (column.name in chosen if is_named else chosen):
            continue
        if column.shared_name in categories:
            yield index, categories.index(column.shared_name)
        elif column.shared_name is not None:
            if is_named:
                raise ValueError(
                    f"list_target_encoding contains {column.name!r}, which shares the "
                    f"vocabulary of {column.shared_name!r}; add this column to "
                    "target_encoding."
                )
        elif is_named or column.n_values >= params["target_encoding_min_values"]:
            yield index, None


def check_target_encoding(params):
    check_integer(
        "target_encoding_blocks", params["target_encoding_blocks"], at_least=2
    )
    check_integer(
        "target_encoding_min_values", params["target_encoding_min_values"], at_least=1
    )
    chosen = params["list_target_encoding"]
    if isinstance(chosen, str) or not isinstance(chosen, bool | list | tuple):
        raise TypeError(
            "list_target_encoding must be True, False or a list of names of columns; "
            f"got {chosen!r}."
        )

"""Target statistics: the rates of the tasks per value of category columns."""

from copy import copy
from functools import partial
from typing import NamedTuple

import numpy as np

from sk_pwiser._columns import _amount_statistics
from sk_pwiser._columns._choice import LISTS
from sk_pwiser._columns._codes import FIRST_VALUE, MISSING, UNSEEN
from sk_pwiser._columns._frames import check_among, find_column
from sk_pwiser._columns._list import Elements
from sk_pwiser._columns._number import LARGEST_DEVIATION
from sk_pwiser._columns._parent_rates import (
    NO_PARENT,
    ParentRates,
    evidence_of,
    last_parents,
    parents_of_grown,
)
from sk_pwiser._columns._parents import with_parents
from sk_pwiser._utils._warnings import warn_user

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
# Every pair of a block and a code has a place of its own if there are at most this many
# pairs per row. Otherwise the pairs are sorted, which takes longer but less memory.
MOST_PAIRS = 4


class BlockValues(NamedTuple):
    """Counts of the values of a column that occur in a block."""

    codes: np.ndarray  # (n_values,)
    counts: np.ndarray  # (2, n_tasks, n_values): sums of weights, of positive ones
    n_rows: np.ndarray  # (n_values,)


class BlockInputs(NamedTuple):
    """The inputs of the values of a column by block, which leave out their block."""

    pairs: np.ndarray  # (n_pairs,), block times `n_codes` plus code, sorted
    # float32 (n_pairs + n_codes, n_tasks + 1); the last ones leave nothing out
    inputs: np.ndarray
    n_codes: int
    n_blocks: int  # with the block of validation rows

    def find(self, block, codes):
        """Return the inputs of rows with these blocks and codes."""
        pairs = block * np.intp(self.n_codes) + codes
        n_pairs = len(self.pairs)
        if self.n_blocks * self.n_codes <= MOST_PAIRS * len(pairs):
            place = np.tile(np.arange(n_pairs, len(self.inputs)), self.n_blocks)
            place[self.pairs] = np.arange(n_pairs)
            return self.inputs[place[pairs]]
        place = np.searchsorted(self.pairs, pairs).clip(max=n_pairs - 1)
        return self.inputs[
            np.where(self.pairs[place] == pairs, place, codes + np.intp(n_pairs))
        ]


class PairCounts:
    """Counts by pairs of a block and a code, of rows in one part or in several."""

    def __init__(self, n_codes, n_blocks):
        self.n_codes = n_codes
        self.n_blocks = n_blocks
        self.parts = []  # distinct pairs, and the sums of columns by pair
        self.n_joined = 0

    def add(self, elements, y, weight, block):
        """Add the elements of rows."""
        pairs = elements.repeat(block) * np.intp(self.n_codes) + elements.codes
        weights = [elements.repeat(column) for column in weight.T]
        ones = [elements.repeat(column) for column in (weight * y).T]
        self.parts.append(self._sum(pairs, [None, *weights, *ones]))
        # Joined whenever they have grown twofold, so that the cost per row is constant.
        if sum(len(pairs) for pairs, _ in self.parts) > 2 * self.n_joined:
            self._join()

    def _sum(self, pairs, columns):
        """Return the distinct pairs, and the sums of columns; None counts rows."""
        n_pairs = self.n_blocks * self.n_codes
        present = None
        if n_pairs > MOST_PAIRS * len(pairs):
            present, pairs = np.unique(pairs, return_inverse=True)
            n_pairs = len(present)
        sums = np.empty((len(columns), n_pairs))
        for row, column in enumerate(columns):
            sums[row] = np.bincount(pairs, column, minlength=n_pairs)
        if present is None:
            present = np.flatnonzero(sums[0])
            sums = sums[:, present]
        return present, sums

    def _join(self):
        if len(self.parts) > 1:
            pairs, sums = zip(*self.parts, strict=True)
            columns = np.concatenate(sums, axis=1)
            self.parts = [self._sum(np.concatenate(pairs), columns)]
        self.pairs, self.sums = self.parts[0]
        self.n_joined = len(self.pairs)

    def blocks(self):
        """Return the `BlockValues` of each block."""
        self._join()
        codes = self.pairs % self.n_codes
        n_rows = self.sums[0]
        counts = self.sums[1:].reshape(2, -1, len(codes))
        # Missing and unseen values have no rates.
        counts[..., codes < FIRST_VALUE] = 0.0
        ends = np.arange(1, self.n_blocks) * self.n_codes
        places_of_blocks = np.split(
            np.arange(len(codes)), np.searchsorted(self.pairs, ends)
        )
        return [
            BlockValues(codes[places], counts[..., places], n_rows[places])
            for places in places_of_blocks
        ]

    def by_code(self, blocks):
        """Return the sums of the counts of blocks, (2, n_tasks, n_codes)."""
        total = np.zeros((2, len(self.sums) // 2, self.n_codes))
        for block in blocks:
            total[..., block.codes] += block.counts
        return total


class BlockCounts:
    """Counts of labels per block and category value, for `TargetStatistics.fit`."""

    def __init__(self, statistics, n_blocks, n_tasks):
        self.statistics = statistics
        self.n_blocks = n_blocks
        # The last block has the validation rows.
        self.tables = [PairCounts(n, n_blocks + 1) for n in statistics.cardinalities]
        self.last_parents = statistics.no_parents()
        # Sums of the weights of training rows, and of those of positive labels.
        self.totals = np.zeros((2, n_tasks))
        # Weighted squares of the logarithms of amounts.
        self.squares = np.zeros(statistics.n_values)

    def add(self, codes, y, weight, block, lists=()):
        """Add rows; the block `n_blocks` has the validation rows."""
        self.statistics.is_weighted |= not np.isin(weight, (0, 1)).all()
        is_training = block < self.n_blocks
        training_weight = weight[is_training]
        positives = training_weight * y[is_training]
        self.totals[0] += training_weight.sum(axis=0, dtype=float)
        self.totals[1] += positives.sum(axis=0, dtype=float)
        if len(self.squares):
            is_value = slice(-len(self.squares), None)
            squares = positives[:, is_value] * y[is_training, is_value]
            self.squares += squares.sum(axis=0, dtype=float)
        counted = self.statistics.counted(codes, lists)
        for pairs, elements in zip(self.tables, counted, strict=True):
            pairs.add(elements, y, weight, block)
        for j, parents in self.last_parents.items():
            column = self.statistics.columns[j]
            parent = self.statistics.columns[self.statistics.parents[j]]
            last_parents(parents, codes[:, column], codes[:, parent])


# What an update may replace, as opposed to the counts, which it changes in place.
REPLACED = (
    "is_weighted",
    "totals_",
    "squares_",
    "n_encoded_",
    "sizes_",
    "older_",
    "rates_",
    "strengths_",
    "means_",
    "scales_",
    "tables_",
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

    The last `n_values` labels are logarithms of amounts, whose means per value take the
    place of rates. A row without an amount has the weight 0 for them. With
    `reads_exposure`, the last one is the score of how a row was shown, so that the
    network can tell the rate of a value from that of its positions.

    References
    ----------
    Micci-Barreca (2001). "A preprocessing scheme for high-cardinality categorical
    attributes in classification and prediction problems." SIGKDD Explorations 3(1).
    """

    # Whether the inputs of training rows leave out their own block.
    reads_blocks = True
    # Numbers of labels that are amounts, or the exposure, and their squares; none in
    # earlier versions.
    n_values = 0
    # Whether the last label is the score of how a row was shown, and the scores by
    # combination of codes.
    reads_exposure = False
    exposure_scores = None
    squares_ = np.zeros(0)
    # The table of the parent of each table, or `NO_PARENT`; empty if none has one.
    # Parents come first.
    parents = ()

    def __init__(self, columns, cardinalities, lists=()):
        self.columns = list(columns)
        self.cardinalities = list(cardinalities)
        self.lists = list(lists)
        self.is_weighted = False
        self.block_seed = None  # of random blocks

    def __setstate__(self, state):
        """Restore a state; joblib maps large arrays to files that are only read."""
        vars(self).update(state)
        for name in {"counts_", "tables_"} & state.keys():  # which updates change
            arrays = [np.require(array, requirements="W") for array in state[name]]
            setattr(self, name, arrays)
        for j, codes in state.get("parents_", {}).items():
            self.parents_[j] = np.require(codes, requirements="W")

    @property
    def counts_rows(self):
        """Whether the counts are numbers of rows, not sums of weights."""
        is_whole = all((counts[0] % 1 == 0).all() for counts in self.counts_)
        return is_whole and not self.is_weighted

    @property
    def n_outputs(self):
        return (len(self.columns) + len(self.lists)) * (self.n_tasks_ + 1)

    def column_names(self, encoder):
        category_names = encoder.category_names_
        list_columns = encoder.bag_columns_
        list_names = [list_columns[column].name for column, _ in self.lists]
        return [category_names[column] for column in self.columns] + list_names

    def names(self, encoder, task_names, value_names=()):
        names = self.column_names(encoder)
        suffixes = [f"{task}_rate" for task in task_names]
        n_amounts = self.n_values - self.reads_exposure
        suffixes += [f"{name}_mean" for name in value_names[:n_amounts]]
        if self.reads_exposure:
            suffixes.append("exposure")
        suffixes.append("frequency")
        return [f"{name}_{suffix}" for name in names for suffix in suffixes]

    def fit(self, counts, earlier_fit=None):
        """Learn statistics from `BlockCounts`; return the `BlockInputs` of each table.

        Training rows are encoded with the statistics of all other blocks, and the
        validation rows with those of all training rows. The counts of values that do
        not occur in these rows are those of the statistics of an `earlier_fit`.
        """
        self._begin(counts.totals, earlier_fit, counts.squares)
        if self.parents:
            self._keep_parents(counts.last_parents, earlier_fit)
        tables = []
        for j, pairs in enumerate(counts.tables):
            *blocks, validation_block = pairs.blocks()
            counts_by_code = self._fit_table(
                j,
                blocks,
                counts=pairs.by_code(blocks),
                validation_counts=pairs.by_code([validation_block]),
                earlier_fit=earlier_fit,
            )
            inputs = []
            for block in blocks:
                other_counts = counts_by_code[..., block.codes] - block.counts
                inputs.append(self._inputs(j, other_counts, block.codes))
            inputs = np.concatenate([*inputs, self._inputs(j, counts_by_code)])
            training_pairs = pairs.pairs[: len(inputs) - pairs.n_codes]
            tables.append(
                BlockInputs(training_pairs, inputs, pairs.n_codes, pairs.n_blocks)
            )
        self._update_tables()
        return tables

    @property
    def parent_rates(self):
        """What the inputs of rows follow from if values have parents, or None."""
        if not self.parents:
            return None
        return ParentRates(
            parents=self.parents,
            base_rates=self.rates_,
            means=self.means_,
            scales=self.scales_,
        )

    def no_parents(self):
        """Return, by each table with a parent, that no code has a parent yet."""
        return {
            j: np.full(self.cardinalities[j], MISSING, dtype=np.intp)
            for j, parent in enumerate(self.parents)
            if parent != NO_PARENT
        }

    def _keep_parents(self, parents, earlier_fit):
        """Set the last parents of values, of an earlier fit where rows have none."""
        # Statistics that others extend have those of their source.
        earlier_parents = getattr(earlier_fit or self, "parents_", {})
        for j, earlier_codes in earlier_parents.items():
            codes = parents[j]
            parents[j] = np.where(codes == MISSING, earlier_codes, codes)
        self.parents_ = parents

    def _rates_of_parents(self, j):
        """Return the rates of the parents of the values of a table, those in last rows.

        Only strengths and scales read them; rows have parents of their own.
        """
        base_rates = self.rates_[:, np.newaxis]
        parent = self.parents[j] if self.parents else NO_PARENT
        if parent == NO_PARENT:
            return base_rates
        n, k = self.counts_[parent]
        a = np.minimum(self.strengths_[parent], STRENGTHS[1])[:, np.newaxis]
        rates = (k + a * self._rates_of_parents(parent)) / (n + a)
        return rates[:, self.parents_[j]]

    def _elements(self, codes, lists):
        """Return the table and the elements of each column."""
        columns = [(j, Elements(codes[:, c])) for j, c in enumerate(self.columns)]
        return [*columns, *((j, lists[column]) for column, j in self.lists)]

    @property
    def n_events(self):
        """Number of the labels that are events; those of amounts follow them."""
        return self.n_tasks_ - self.n_values

    def _begin(self, totals, earlier_fit, squares):
        self.totals_ = totals
        if self.n_values:
            self.squares_ = squares
        self.n_tasks_ = totals.shape[1]
        # The number of rows that values are encoded by; per table, the number that its
        # frequencies were learnt from, and how many rows more an earlier fit had that
        # counts are from: one number, or one per code.
        self.n_encoded_ = self._n_rows()
        self.sizes_ = np.full(len(self.cardinalities), self.n_encoded_)
        self.older_ = [0.0] * len(self.cardinalities)
        self.rates_ = self._base_rates()
        if earlier_fit is not None:
            self.rates_ = earlier_fit._relearnt_rates(self.rates_)
            is_learnt = [np.isfinite(scale[-1]) for scale in earlier_fit.scales_]
            self.sizes_ = np.where(is_learnt, earlier_fit.sizes_, self.sizes_)
            self.is_weighted |= earlier_fit.is_weighted
        self.counts_ = []
        self.strengths_ = []
        self.means_ = []
        self.scales_ = []

    def check_rows(self, codes, y, weight, lists=()):
        """Check rows before they are counted; any rows are right by default."""

    def _n_rows(self):
        return self.totals_[0, 0] or 1.0

    def _base_rates(self):
        total, ones = self.totals_
        rates = (ones + 0.5) / (total + 1.0)
        if self.n_values:
            means = ones / np.maximum(total, 1e-300)
            rates[self.n_events :] = means[self.n_events :]
        return rates

    def _relearnt_rates(self, rates):
        """Return the base rates, new ones of tasks whose inputs are all 0 so far."""
        is_off = np.isinf([scale[:-1] for scale in self.scales_]).all(axis=0)
        return np.where(is_off, rates, self.rates_)

    def _fit_table(self, j, blocks, counts, validation_counts, earlier_fit):
        """Learn the next table, and return the counts by which rows are encoded."""
        total = counts + validation_counts
        learnt_counts = counts
        if earlier_fit is not None:
            is_absent = total[0].max(axis=0) == 0
            total[..., is_absent] = earlier_fit.counts_[j][..., is_absent]
            learnt_counts = np.where(is_absent, total, counts)
            n_more = earlier_fit.n_encoded_ + earlier_fit.older_[j] - self.n_encoded_
            if total[0, 0, is_absent].any():
                self.older_[j] = np.where(is_absent, n_more, 0.0)
        strengths, mean, scale = self._learn_inputs(
            j, learnt_counts, blocks, earlier_fit
        )
        self.counts_.append(total)
        self.strengths_.append(strengths)
        self.means_.append(mean)
        self.scales_.append(scale)
        return counts

    def _learn_inputs(self, j, counts, blocks, earlier_fit):
        """Return strengths, means and scales; those of `earlier_fit` do not change.

        The rows of a block are encoded by the counts without those of the block.
        """
        if earlier_fit is None:  # all inputs are 0 so far
            earlier_strengths = np.full(self.n_tasks_, np.inf)
            earlier_mean = np.zeros(self.n_tasks_ + 1)
            earlier_scale = np.full(self.n_tasks_ + 1, np.inf)
        else:
            earlier_strengths = earlier_fit.strengths_[j]
            earlier_mean = earlier_fit.means_[j]
            earlier_scale = earlier_fit.scales_[j]
        is_learnt = np.isfinite(earlier_scale)
        if is_learnt.all():
            return earlier_strengths, earlier_mean, earlier_scale
        if self.parents and self.parents[j] != NO_PARENT:
            rates_of_parents = self._rates_of_parents(j)
            strengths = self._estimate_strengths(counts, rates_of_parents)
        else:
            strengths = self._estimate_strengths(counts)
        strengths = np.where(is_learnt[:-1], earlier_strengths, strengths)
        n_rows = 0.0
        mean = 0.0
        squares = 0.0
        for codes, left_out, weights in blocks:
            values = self._rates(j, counts[..., codes] - left_out, strengths, codes)
            n_block_rows = weights.sum()
            if not n_block_rows:
                continue
            block_mean = weights @ values / n_block_rows
            share = n_block_rows / (n_rows + n_block_rows)
            squares += weights @ (values - block_mean) ** 2
            squares += (block_mean - mean) ** 2 * n_rows * share
            mean += (block_mean - mean) * share
            n_rows += n_block_rows
        if not n_rows:  # all values of an update are unseen
            return earlier_strengths, earlier_mean, earlier_scale
        scale = np.sqrt(squares / n_rows)
        is_off = (scale < 1e-9) | ~np.append(np.isfinite(strengths), True)
        # If all values are about equally frequent, the frequency of unseen values, 0,
        # would be far outside the range of the training rows.
        scale[-1] = max(scale[-1], mean[-1] / UNSEEN_DISTANCE) / FREQUENCY_DEVIATION
        scale[:-1] = np.maximum(scale[:-1], SMALLEST_RATE_SCALE)
        scale[is_off] = np.inf
        mean = np.where(is_learnt, earlier_mean, mean)
        scale = np.where(is_learnt, earlier_scale, scale)
        return strengths, mean, scale

    def transform(self, codes, lists=(), tables=None, block=None):
        """Return the inputs of rows by all counts, (n_samples, n_outputs).

        With the `tables` of `fit`, they leave out the block of each row.
        """
        width = self.n_tasks_ + 1  # of each column
        parent_rates = self.parent_rates
        rates_of_rows = {}
        rates = np.empty((len(codes), self.n_outputs), dtype=np.float32)
        for place, (j, elements) in enumerate(self._elements(codes, lists)):
            if tables is None:
                inputs = self.tables_[j][elements.codes]
            else:
                inputs = tables[j].find(elements.repeat(block), elements.codes)
            if parent_rates is not None and parent_rates.has(j):
                # The elements of a list have no parents.
                is_list = elements.sizes is not None
                known_rates = {} if is_list else rates_of_rows
                inputs = parent_rates.inputs(j, inputs, known_rates)
            rates[:, place * width : (place + 1) * width] = elements.means(inputs)
        return rates

    def counted(self, codes, lists=()):
        """Return the elements that each table counts: those of its first column."""
        counted = {}
        for j, elements in self._elements(codes, lists):
            counted.setdefault(j, elements)
        return list(counted.values())

    def update(self, codes, y, weight, undo, lists=()):
        """Add rows, and learn inputs that were 0 so far; `undo` logs the change."""
        before = {name: vars(self)[name] for name in REPLACED if name in vars(self)}
        undo.append(partial(vars(self).update, before))
        added = BlockCounts(self, 1, y.shape[1])
        added.add(codes, y, weight, np.zeros(len(y), dtype=np.intp), lists)
        self.totals_ = self.totals_ + added.totals
        if self.n_values:
            self.squares_ = self.squares_ + added.squares
        for j, pairs in enumerate(added.tables):
            block, _ = pairs.blocks()
            is_value = block.codes >= FIRST_VALUE
            present = block.codes[is_value]
            all_counts = self.counts_[j]
            table = self.tables_[j]
            counts = all_counts[..., present]
            undo.append(partial(all_counts.__setitem__, (..., present), counts))
            undo.append(partial(table.__setitem__, present, table[present]))
            self._update_parents(j, added, undo)
            all_counts[..., present] = counts + block.counts[..., is_value]
            table[present] = self._inputs(j, all_counts[..., present], present)
        if self._n_rows() < GROWTH * self.n_encoded_:
            return
        # Inputs that were 0 so far are learnt, and all values encoded by all rows.
        self._begin_again()
        strengths = []
        means = []
        scales = []
        for j, counts in enumerate(self.counts_):
            all_rows = BlockValues(ALL, 0.0, counts[0, 0])
            table_strengths, mean, scale = self._learn_inputs(
                j, counts, [all_rows], self
            )
            strengths.append(table_strengths)
            means.append(mean)
            scales.append(scale)
        self.strengths_ = strengths
        self.means_ = means
        self.scales_ = scales
        self._update_tables()

    def _update_parents(self, j, added, undo):
        """Set the parents of values that occur in added rows."""
        if j not in added.last_parents:
            return
        codes = added.last_parents[j]
        changed = np.flatnonzero(codes != MISSING)
        parents = self.parents_[j]
        undo.append(partial(parents.__setitem__, changed, parents[changed]))
        parents[changed] = codes[changed]

    def unseen_inputs(self, j):
        """Return the inputs of an unseen value of a table."""
        values = self.tables_[j][UNSEEN].tolist()
        if self.parents and self.parent_rates.has(j):
            return self.parent_rates.unseen_inputs(j, values[-1])
        return values

    def _begin_again(self):
        """Let frequencies refer to all rows; learn base rates that had no effect."""
        self.n_encoded_ = self._n_rows()
        is_off = np.isinf([scale[-1] for scale in self.scales_])
        self.sizes_ = np.where(is_off, self.n_encoded_, self.sizes_)
        self.rates_ = self._relearnt_rates(self._base_rates())

    def _update_tables(self):
        self.tables_ = [self._inputs(j, c) for j, c in enumerate(self.counts_)]

    def _inputs(self, j, counts, codes=ALL):
        """Return the inputs of values, or what they follow from with parents."""
        if self.parents and self.parent_rates.has(j):
            strengths = np.minimum(self.strengths_[j], STRENGTHS[1])
            frequencies = self._frequencies(j, counts[0], codes)
            frequencies = (frequencies - self.means_[j][-1]) / self.scales_[j][-1]
            limits = -LARGEST_DEVIATION, LARGEST_DEVIATION
            return evidence_of(counts, strengths, np.clip(frequencies, *limits))
        values = self._rates(j, counts, self.strengths_[j], codes)
        scaled = (values - self.means_[j]) / self.scales_[j]
        return np.clip(scaled, -LARGEST_DEVIATION, LARGEST_DEVIATION).astype(np.float32)

    def _rates(self, j, counts, strengths, codes):
        """Return the inputs of values with these counts, `(n_values, n_tasks + 1)`."""
        n, k = counts[:, : self.n_events]
        p = self.rates_[: self.n_events, np.newaxis]
        prior = self._rates_of_parents(j)[: self.n_events]
        prior = prior if prior.shape[1] == 1 else prior[:, codes]
        a = np.minimum(strengths[: self.n_events, np.newaxis], STRENGTHS[1])
        # Weights that are not integers cause rounding errors in differences of counts.
        negatives = np.maximum(n - k, 0.0)
        k = np.maximum(k, 0.0)
        rates = np.log(k + a * prior) - np.log(negatives + a * (1 - prior))
        rates -= np.log(p) - np.log1p(-p)
        means = _amount_statistics.shrunk_means(
            counts[:, self.n_events :],
            self.rates_[self.n_events :],
            strengths[self.n_events :],
        )
        return np.vstack([rates, means, self._frequencies(j, n, codes)]).T

    def _frequencies(self, j, n, codes):
        """Return the logarithms of the numbers of rows of values."""
        # The labels of the first task are known in all rows.
        n_rows = np.maximum(n[0], 0.0)
        older = self.older_[j]
        older = older[codes] if np.ndim(older) else older
        n_rows *= self.sizes_[j] / (self.n_encoded_ + older)
        return np.log1p(n_rows)

    def _estimate_strengths(self, counts, rates_of_parents=None):
        """Return the strength per task, infinite if the rates only vary by chance.

        They vary around the base rates or, `(n_tasks, n_values)`, those of parents.
        """
        strengths = np.full(self.n_tasks_, np.inf)
        base_rates = self._base_rates()
        strengths[self.n_events :] = _amount_statistics.estimate_strengths(
            counts[:, self.n_events :], self.totals_[:, self.n_events :], self.squares_
        )
        event_counts = counts[:, : self.n_events]
        if rates_of_parents is not None:
            base_rates = rates_of_parents
        for task, (n, k) in enumerate(zip(*event_counts, strict=True)):
            has_several = n > 1
            n = n[has_several]
            k = k[has_several]
            p = base_rates[task]
            if rates_of_parents is not None:
                p = p[has_several]
            if len(n) == 0:
                continue
            # If rates only vary by chance, n (k / n - p)^2 has the mean p (1 - p) and
            # this variance.
            binomial = p * (1 - p)
            by_chance = binomial**2 * (2 + (1 - 6 * binomial) / (n * binomial))
            error = np.sqrt(by_chance.sum()) / n.sum()
            excess = np.sum((k - n * p) ** 2 / n - binomial) / n.sum()
            if excess > MIN_Z * error:
                if rates_of_parents is not None:
                    binomial = binomial @ n / n.sum()
                strengths[task] = np.clip(binomial / excess - 1, *STRENGTHS)
        return strengths


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
        vars(self).update({name: copy(value) for name, value in vars(source).items()})
        self.cardinalities = list(map(len, origins))
        self.counts_ = [
            np.where(origin >= 0, counts[..., origin], 0.0)
            for origin, counts in zip(origins, source.counts_, strict=True)
        ]
        self.older_ = [
            np.where(origin >= 0, older[origin], 0.0) if np.ndim(older) else older
            for origin, older in zip(origins, source.older_, strict=True)
        ]
        if self.parents:
            self.parents_ = {
                j: parents_of_grown(parents, origins[j], origins[self.parents[j]])
                for j, parents in source.parents_.items()
            }
        self.rows = rows
        self.adds = adds
        self._update_tables()

    @property
    def reads_blocks(self):
        return self.rows == "seen" or self.adds

    def check_rows(self, codes, y, weight, lists=()):
        """Warn if rows passed as new fit into the counts, and are half of a value's."""
        if self.rows == "seen" or not np.isin(y[:, : self.n_events], (0, 1)).all():
            return
        largest_share = 0.0
        counted = BlockCounts(self, 1, y.shape[1])
        counted.add(codes, y, weight, np.zeros(len(y), dtype=np.intp), lists)
        for j, pairs in enumerate(counted.tables):
            n, k = pairs.by_code(pairs.blocks())[:, : self.n_events]
            all_n, all_k = self.counts_[j][:, : self.n_events]
            if min((all_k - k).min(), (all_n - all_k - n + k).min()) < -TOLERANCE:
                return
            shares = np.divide(n, all_n, out=np.zeros_like(n), where=all_n > 0)
            largest_share = max(largest_share, shares.max(initial=0.0))
        if largest_share >= 0.5:
            warn_user(
                "seen=False, but the source may have been fitted on all rows of X: the "
                "inputs of a row then reveal its label. If it was, pass seen=True."
            )

    def _begin(self, totals, earlier_fit, squares):
        """Keep what the source has learnt."""
        if self.rows == "new":
            self.totals_ = self.totals_ + totals
            if self.n_values:
                self.squares_ = self.squares_ + squares
            self._begin_again()

    def _fit_table(self, j, blocks, counts, validation_counts, earlier_fit):
        source_counts = self.counts_[j]
        if self.rows == "seen":
            remaining_counts = source_counts - (counts + validation_counts)
            # Sums of the logarithms of amounts may be negative.
            event_counts = remaining_counts[:, : self.n_events]
            if event_counts.min() < -TOLERANCE:
                raise ValueError(
                    "seen=True, but the source was not fitted on all rows of X: a "
                    "category value has more rows, or more positive labels, in X. Pass "
                    "seen=False for rows that are new to the source."
                )
            np.maximum(event_counts, 0.0, out=event_counts)
            return counts + remaining_counts
        self.counts_[j] = counts + source_counts + validation_counts
        learnt_counts = counts + source_counts
        strengths, mean, scale = self._learn_inputs(j, learnt_counts, blocks, self)
        self.strengths_[j] = strengths
        self.means_[j] = mean
        self.scales_[j] = scale
        return learnt_counts


def find_target_columns(target_encoding, encoder, min_values):
    """Return the indices of category columns of many values, or of the named ones."""
    if isinstance(target_encoding, bool | np.bool_ | str):
        if not target_encoding:
            return []
        columns = enumerate(encoder.code_columns_)
        return [index for index, c in columns if c.n_values >= min_values]
    names = [column.name for column in encoder.columns_]
    category_names = encoder.category_names_
    chosen = set()
    combinations = [column.name for column in encoder.combinations_]
    for column in target_encoding:
        name = column
        if column not in combinations:
            name = names[find_column("target_encoding", column, names)]
        check_among("target_encoding", name, category_names, "category column")
        chosen.add(category_names.index(name))
    return sorted(chosen)


def make_target_statistics(target_encoding, encoder, n_samples, params):
    """Return unfitted statistics of a fitted encoder, or None if there are none.

    They require a row per block, unless `n_samples` is None.
    """
    min_values = params["target_encoding_min_values"]
    columns = find_target_columns(target_encoding, encoder, min_values)
    categories = encoder.code_columns_
    columns, parents = with_parents(columns, categories)
    # Numbers of codes of the tables, by the column that the vocabulary is of.
    sizes = {categories[c].name: categories[c].n_counted_codes for c in columns}
    lists = []
    chosen_lists = params["list_target_encoding"]
    is_named = not isinstance(chosen_lists, bool | np.bool_)
    list_columns = [] if encoder.is_sparse_ else encoder.bag_columns_
    list_names = [column.name for column in list_columns]
    for name in chosen_lists if is_named else ():
        check_among("list_target_encoding", name, list_names, LISTS)
    for index, column in enumerate(list_columns):
        if not (column.name in chosen_lists if is_named else chosen_lists):
            continue
        table_name = column.shared_name
        if table_name is None:
            table_name = column.name
            if is_named or column.n_values >= min_values:
                sizes[table_name] = column.n_counted_codes
        if table_name in sizes:
            lists.append((index, list(sizes).index(table_name)))
        elif is_named:
            raise ValueError(
                f"list_target_encoding contains {column.name!r}, which shares the "
                f"vocabulary of {table_name!r}; add this column to target_encoding."
            )
    n_blocks = params["target_encoding_blocks"]
    if sizes and n_samples is not None and n_samples < n_blocks:
        raise ValueError(
            f"target_encoding_blocks={n_blocks} requires as many rows; X has "
            f"{n_samples}. Use fewer blocks, or target_encoding=False."
        )
    if not sizes:
        return None
    statistics = TargetStatistics(columns, list(sizes.values()), lists)
    if any(parent != NO_PARENT for parent in parents):
        no_parents = [NO_PARENT] * (len(sizes) - len(columns))
        statistics.parents = [*parents, *no_parents]
    return statistics

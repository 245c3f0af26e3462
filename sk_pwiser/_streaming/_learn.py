"""The first pass over a data set: its split, its encoding, a summary of its labels."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sk_pwiser._funnel import funnel_strata, holdout_sizes
from sk_pwiser._streaming._chunks import RowProgress, RowSample, Source, named_place
from sk_pwiser._table._blocks import RowOrder, rows_before_groups
from sk_pwiser._table._categories import FIRST_VALUE, CategoryColumn
from sk_pwiser._table._column_kinds import warn_about_constants
from sk_pwiser._table._encoder import elements_of, learn_constant_columns
from sk_pwiser._table._frames import as_table, list_columns
from sk_pwiser._table._numbers import NumericColumn
from sk_pwiser._table._row_values import (
    WeightScale,
    base_rates,
    row_weights,
    scale_weights,
)
from sk_pwiser._table._target_statistics import sum_labels
from sk_pwiser._times import row_times
from sk_pwiser._training._early_stopping import last_edge
from sk_pwiser._training._encode import (
    Schema,
    automatic_dims,
    check_time,
    make_encoder,
    statistics_selection,
    unfitted_statistics,
    widest_bag,
)
from sk_pwiser._utils import warn_user

# numpy draws from the hypergeometric distribution for fewer rows than this.
LARGEST_POPULATION = 10**9


class GroupValues:
    """One value per group, also for a group that continues in the next part."""

    def __init__(self):
        self.numbers = np.empty(0, dtype=np.int64)
        self.values = None

    def of(self, groups, of_rows, combine, choose):
        """Return the value of each row's group, by `choose` of new groups' combined."""
        numbers, first, place = np.unique(
            groups, return_index=True, return_inverse=True
        )
        combined = of_rows[first]
        combine.at(combined, place, of_rows)
        is_new = ~np.isin(numbers, self.numbers)
        chosen = choose(combined[is_new])
        values = np.empty(len(numbers), dtype=chosen.dtype)
        values[is_new] = chosen
        if not is_new.all():
            known = np.searchsorted(self.numbers, numbers[~is_new])
            values[~is_new] = self.values[known]
        self.numbers, self.values = numbers, values
        return values[place]


class HoldOut:
    """Chooses the validation rows of early stopping: the last in time or at random.

    For these, the first pass counts the rows per funnel depth, and the second draws as
    many of each as `funnel_holdout` would. Groups are held out as a whole, by their
    deepest or last row in the part in which they begin.
    """

    def __init__(self, fraction, blocks):
        self.fraction = fraction
        self.blocks = blocks
        self.counts = np.zeros(0, dtype=np.int64)
        self.groups = GroupValues()

    def count(self, targets, groups):
        self._choose(targets, groups, self._add)

    def _add(self, strata):
        added = np.bincount(strata, minlength=len(self.counts))
        added[: len(self.counts)] += self.counts
        self.counts = added
        return np.zeros(len(strata), dtype=bool)

    def start(self, seed):
        """Start the second pass, which reads the same parts as the first one."""
        self.rng = np.random.default_rng(seed)
        self.edge = self.blocks.last_edge(self.fraction)
        self.groups = GroupValues()
        self.stratum_of, self.n_held = holdout_sizes(self.counts, self.fraction)
        self.n_left = np.zeros_like(self.n_held)
        np.add.at(self.n_left, self.stratum_of, self.counts)

    def draw(self, X, targets, groups):
        if self.edge is None:
            return self._choose(targets, groups, self._draw)
        is_held = self.blocks.read(X) >= self.edge
        if groups is None:
            return is_held
        return self.groups.of(groups, is_held, np.maximum, np.asarray)

    def _choose(self, targets, groups, choose):
        strata = funnel_strata(targets.with_nan(), targets.parents)
        if groups is None:
            return choose(strata)
        return self.groups.of(groups, strata, np.maximum, choose)

    def _draw(self, strata):
        strata = self.stratum_of[strata]
        is_held = np.zeros(len(strata), dtype=bool)
        for stratum in np.unique(strata).tolist():
            rows = np.flatnonzero(strata == stratum)
            n_held, n_left = int(self.n_held[stratum]), int(self.n_left[stratum])
            n_chosen = self._share(n_held, n_left - n_held, len(rows))
            is_held[self.rng.choice(rows, n_chosen, replace=False)] = True
            self.n_held[stratum] -= n_chosen
            self.n_left[stratum] -= len(rows)
        return is_held

    def _share(self, n_held, n_kept, n_rows):
        if n_held + n_kept < LARGEST_POPULATION:
            return self.rng.hypergeometric(n_held, n_kept, n_rows)
        # Of so many rows, a part has as many as draws with replacement would give.
        n_chosen = self.rng.binomial(n_rows, n_held / (n_held + n_kept))
        return min(max(n_chosen, n_rows - n_kept), n_held)


class Blocks:
    """Assigns rows to blocks of about equal size, in time by a sample of the rows."""

    def __init__(self, column, n_blocks, n_sampled, generator):
        self.column = column
        self.n_blocks = n_blocks
        self.sample = RowSample(n_sampled, generator)
        self.n_rows = 0

    def add(self, X):
        self.n_rows += len(X)
        if self.column is not None:
            self.read(X)  # raises if times are missing
            self.sample.add(X.select([self.column]), None)

    def finish(self):
        """Choose the times between blocks when all rows were added."""
        self.spans = {}
        if self.column is not None:
            self.sampled = self.read(self.sample.finish()[0])
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
        self.start()

    def start(self, seed=None):
        """Start a pass over the rows; with a seed, blocks share each time at random."""
        self.generator = None if seed is None else np.random.default_rng(seed)
        self.n_seen = 0
        self.ranks = {time: first for time, (first, _) in self.spans.items()}
        self.groups, self.sizes = GroupValues(), GroupSizes()

    @property
    def have_order(self):
        """Whether the order of rows, and not their times alone, decides on blocks."""
        return self.column is None or len(self.spans) < len(self.edges)

    def last_edge(self, share):
        if self.column is None or self.sampled.min() == self.sampled.max():
            return None
        return last_edge(self.sampled, share)

    def read(self, X):
        return row_times(as_table(X), self.column)

    def assign(self, X, groups):
        rank = np.arange(len(X))
        if self.column is None and self.generator is None and groups is not None:
            rank = rows_before_groups(rank, groups)
        if self.column is not None:
            block = self._assign_by_time(self.read(X))
        elif self.generator is not None:
            block = self.generator.integers(self.n_blocks, size=len(X))
        else:
            block = (self.n_seen + rank) * self.n_blocks // self.n_rows
        self.n_seen += len(X)
        if groups is None:
            return block
        self.sizes.add(groups)
        block = block[one_per_group(groups)]
        return self.groups.of(groups, block, np.minimum, np.asarray)

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


def one_per_group(groups):
    """Return for each row one of the rows of its group, which differ in their place.

    With the first rows, all groups that come back would be in the first blocks.
    """
    numbers, number, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    starts = sizes.cumsum() - sizes
    rows = np.argsort(number, kind="stable")[starts + numbers % sizes]
    return rows[number]


class GroupSizes:
    """The number of rows of the largest group, also if it continues in later parts."""

    def __init__(self):
        self.numbers, self.sizes = np.empty((2, 0), dtype=np.int64)
        self.largest = 0

    def add(self, groups):
        numbers, sizes = np.unique(groups, return_counts=True)
        continues = np.isin(self.numbers, numbers)
        places = np.searchsorted(numbers, self.numbers[continues])
        sizes[places] += self.sizes[continues]
        self.numbers, self.sizes = numbers, sizes
        self.largest = max(self.largest, sizes.max(initial=0))


class RowSummary:
    """Numbers of rows per combination of labels, and the scale of the weights."""

    def __init__(self):
        self.n_rows = 0
        self.first = self.weights = None
        # By combination: numbers of rows, and sums of the weights, one per task.
        self.counts, self.sums = Counter(), {}

    def add(self, targets, weights):
        n_rows, n_tasks = targets.values.shape
        if self.first is None:
            self.first = targets.without_labels()
            self.weights = WeightScale(n_tasks)
        self.n_rows += n_rows
        state = targets.values.astype(np.int8)
        if targets.missing is not None:
            state = np.where(targets.missing, np.int8(2), state)
        distinct, inverse = np.unique(state, axis=0, return_inverse=True)
        found = list(map(tuple, distinct.tolist()))
        weights = np.ones(n_rows) if weights is None else weights
        earlier = self.weights.largest
        self.weights.add(weights)
        # In units of the largest weight, like the total of the weights.
        largest = self.weights.largest or 1.0
        self.sums = {key: sums * (earlier / largest) for key, sums in self.sums.items()}
        own = np.broadcast_to(weights.reshape(n_rows, -1) / largest, (n_rows, n_tasks))
        of_tasks = [np.bincount(inverse.ravel(), column) for column in own.T]
        for key, sums in zip(found, np.transpose(of_tasks), strict=True):
            self.sums[key] = self.sums.get(key, 0.0) + sums
        counts = np.bincount(inverse.ravel()).tolist()
        self.counts.update(dict(zip(found, counts, strict=True)))

    def scale(self, weights, n_rows):
        return self.weights.apply(np.ones(n_rows) if weights is None else weights)

    def targets(self):
        """Return one row of labels for each combination, with its number of rows."""
        state = np.array(list(self.counts))
        missing = state == 2
        return replace(
            self.first,
            values=np.where(missing, 0, state).astype(np.float32),
            missing=missing if missing.any() else None,
            counts=np.array(list(self.counts.values())),
        )

    def base_rates(self):
        targets = self.targets()
        y = targets.values
        if self.weights.is_even:
            return base_rates(y, targets.counts.astype(float), targets.parents)
        scale = self.weights.total / self.weights.n_positive
        sums = np.array(list(self.sums.values())) / scale
        weights = sums if self.weights.per_task else sums[:, 0]
        return base_rates(y, weights, targets.parents)


class ValueCounts:
    """Numbers of rows per value of a category column, exact up to `max_values` values.

    Of more, half as many are kept (Manku and Motwani, 2002), the most frequent ones.
    """

    def __init__(self, column, max_values):
        self.column = column
        self.max_values = max_values
        # Without codes of their own, values need not be counted.
        self.is_counting = column.vocabulary.max_values != 0
        self.counts, self.kinds = Counter(), set()
        self.n_missing = self.n_dropped = self.max_dropped = 0

    def add(self, *columns):
        values, counts, kinds, n_missing = self.column.count(*columns)
        self.kinds |= kinds
        self.n_missing += n_missing
        if not self.is_counting:
            self.n_dropped += sum(counts)
            return
        self.counts.update(dict(zip(values, counts, strict=True)))
        if len(self.counts) > self.max_values:
            self._drop()

    def _drop(self):
        counts = np.fromiter(self.counts.values(), dtype=np.int64)
        n_kept = self.max_values // 2
        limit = int(np.partition(counts, -n_kept - 1)[-n_kept - 1])
        self.max_dropped += limit
        self.n_dropped += int(counts[counts <= limit].sum())
        self.counts = Counter({v: n for v, n in self.counts.items() if n > limit})

    def finish(self):
        self.column.learn(
            list(self.counts),
            list(self.counts.values()),
            self.n_missing > 0,
            self.kinds,
            self.n_dropped,
        )


class BlockCounts:
    """Counts of labels per block and category value, for target statistics."""

    def __init__(self, statistics, encoder, n_blocks, n_tasks):
        self.statistics = statistics
        self.n_blocks = n_blocks
        self.order = RowOrder(statistics, encoder, n_blocks, n_tasks)
        sizes = statistics.cardinalities
        # The last block has the validation rows.
        self.counts = [np.zeros((n_blocks + 1, 2, n_tasks, size)) for size in sizes]
        self.n_rows = [np.zeros((n_blocks, size)) for size in sizes]
        self.total, self.ones = np.zeros(n_tasks), np.zeros(n_tasks)

    def add(self, codes, lists, y, weight, block):
        """Add rows; the block `n_blocks` has the validation rows."""
        self.statistics.note_weights(weight)
        used = block < self.n_blocks
        self.order.add(codes[used], y[used], weight[used], block[used])
        total, ones = sum_labels(y, weight, used)
        self.total += total
        self.ones += ones
        for j, part in enumerate(self.statistics.counted(codes, lists)):
            places = part.repeat(block), part.codes.astype(np.intp)
            is_used = part.repeat(used)
            np.add.at(self.n_rows[j], tuple(each[is_used] for each in places), 1.0)
            for task in range(y.shape[1]):
                rows, positives = self.counts[j][:, 0, task], self.counts[j][:, 1, task]
                of_rows = weight[:, task]
                np.add.at(rows, places, part.repeat(of_rows))
                np.add.at(positives, places, part.repeat(of_rows * y[:, task]))

    def find_order(self, task_names):
        """Return by what the rows are sorted, so that their blocks mislead, or None."""
        return self.order.find(task_names, self.n_rows.__getitem__)

    def finish(self, earlier=None):
        """Fit the statistics; return the inputs of each block, see `fit_blocks`."""
        for counts in self.counts:
            counts[..., :FIRST_VALUE] = 0.0
        return self.statistics.fit_blocks(
            self.total, self.ones, self.counts, self.n_rows, earlier
        )


class TableLearner:
    """Learns the columns of a table in one pass, numbers from a sample."""

    def __init__(self, encoder, dataset, generator):
        self.encoder = encoder
        self.max_values = dataset.max_values
        self.sample = RowSample(dataset.sample_rows, generator)
        self.counts = None

    def add(self, X, weights):
        if self.counts is None:
            self._begin(X)
        columns = list_columns(as_table(X))
        lists = self.encoder.read_lists(columns)
        by_name = {}
        for column, values in zip(self.encoder.columns_, columns, strict=True):
            by_name[column.name] = values
            if isinstance(column, CategoryColumn):
                shared = elements_of(lists, column.name)
                self.counts[column.name].add(values, *shared)
            elif isinstance(column, NumericColumn) and column.is_scalar:
                column.read(values)  # an infinite value is named with its row
        for column, own in lists:
            if column.shared_name is None:
                self.counts[column.name].add(own.elements)
            column.add(own, by_name.get(column.ages_name))
        self.sample.add(X.select(self.numeric), weights)

    def _begin(self, X):
        self.encoder.begin(X)
        columns = self.encoder.columns_
        self.counts = {
            column.name: ValueCounts(column, self.max_values)
            for column in columns
            if isinstance(column, CategoryColumn)
        }
        for column in self.encoder.lists_:
            if column.shared_name is None:
                self.counts[column.name] = ValueCounts(column.items_, self.max_values)
        self.numeric = [c.name for c in columns if isinstance(c, NumericColumn)]

    def finish(self):
        for counts in self.counts.values():
            counts.finish()
        for column in self.encoder.lists_:
            column.finish()
        columns = {column.name: column for column in self.encoder.columns_}
        table, weights = self.sample.finish()
        weights = row_weights(scale_weights(weights))
        values = list_columns(as_table(table)) if self.numeric else []
        encoders = [columns[name] for name in self.numeric]
        pairs = list(zip(encoders, values, strict=True))
        self.encoder.learn_numbers(pairs, weights)
        warn_about_constants(self.encoder.columns_)
        self._warn_about_dropped()

    def _warn_about_dropped(self):
        found = [
            f"{name!r} ({counts.max_dropped})"
            for name, counts in self.counts.items()
            if counts.max_dropped
        ]
        if found:
            warn_user(
                f"Columns with more than max_values={self.max_values} values: "
                f"{', '.join(found)}. In brackets stands the number of rows by which "
                "the frequency of a value may be too low; rare values count as unseen. "
                "n_hash_buckets in encoding_params gives each value a vector."
            )


@dataclass(frozen=True)
class DatasetSchema:
    """The result of the first pass over a dataset."""

    schema: Schema
    summary: RowSummary
    blocks: Blocks  # by which the second pass fits the target statistics
    hold_out: HoldOut
    earlier: Any = None  # statistics of the fit that training continues from


def learn_schema(
    source: Source, earlier: Schema | None, seed: int, estimator_name: str
) -> DatasetSchema:
    """Read all rows once, and learn their encoding; numbers by a sample of `seed`."""
    settings, dataset = source.settings, source.dataset
    params = settings.encoding_params
    if earlier is not None:
        check_time(settings, earlier.encoder)
    generator = np.random.default_rng(seed)
    encoder = make_encoder(settings, estimator_name)
    learner = TableLearner(encoder, dataset, generator)
    known = [] if earlier is None else earlier.encoder.columns_
    has_constant = any(getattr(column, "has_constant", False) for column in known)
    sample = RowSample(dataset.sample_rows, generator)  # that constants are learnt from
    n_blocks = params["target_encoding_blocks"]
    blocks = Blocks(params["time_column"], n_blocks, dataset.sample_rows, generator)
    summary = RowSummary()
    hold_out = HoldOut(settings.validation_fraction, blocks)
    progress = RowProgress("Learning the columns", dataset.n_rows_, settings.verbose)
    for chunk in source.chunks():
        with named_place(chunk.place):
            if len(chunk.X):
                summary.add(chunk.targets, chunk.weights)
                hold_out.count(chunk.targets, chunk.groups)
                blocks.add(chunk.X)
                if earlier is None:
                    learner.add(chunk.X, chunk.weights)
                elif has_constant:
                    sample.add(chunk.X, chunk.weights)
        progress(chunk.n_read)
    progress.close()  # filters may select fewer rows than the files have
    check_rows_left(dataset, summary.n_rows)
    schema = earlier
    if schema is None:
        learner.finish()
        schema = Schema(
            encoder,
            summary.first,
            summary.base_rates(),
            automatic_dims=automatic_dims(encoder.cardinalities_),
            widest_bag=widest_bag(encoder),
            selection=statistics_selection(settings),
        )
    elif has_constant:
        table, weights = sample.finish()
        X, weights = schema.encoder.align(table), row_weights(scale_weights(weights))
        encoder = learn_constant_columns(schema.encoder, X, weights)
        schema = replace(schema, encoder=encoder)
    shape = summary.n_rows, len(schema.targets.task_names)
    statistics = unfitted_statistics(settings, schema.encoder, shape, earlier)
    blocks.finish()
    schema = replace(schema, statistics=statistics)
    counted = None if earlier is None else earlier.statistics
    return DatasetSchema(schema, summary, blocks, hold_out, counted)


def check_rows_left(dataset: Any, n_rows: int) -> None:
    if dataset.corrupt_:
        warn_user(
            f"{len(dataset.corrupt_)} files or row groups cannot be read and are left "
            f"out, the first of them {dataset.corrupt_[0]}."
        )
    if not n_rows:
        what = "weights above 0" if dataset.sample_weight else "rows"
        raise ValueError(f"{dataset!r} has no {what} that its filters select.")

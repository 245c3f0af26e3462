"""What is known of a column before a fit: values, drift, and how well it predicts."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
from scipy.sparse import coo_array

from sk_pwiser._columns._factorize import factorize
from sk_pwiser._columns._frames import is_missing, list_columns, read_lists, to_float
from sk_pwiser._columns._misread import looks_like_codes
from sk_pwiser._columns._registry import NUMERIC_ENCODINGS
from sk_pwiser._rows._subjects import RowColumn, Subjects, find_subjects

# As few as give each fold some of the rare conversions.
N_FOLDS = 5
# Rates of values are shrunk to the mean rate, as if each value had this number of
# further events (or further rows without the event, if these are rarer).
SHRINKAGE_EVENTS = 4.0
# AUC of one column above which its values were hardly known before the event.
LEAK = 0.95
# AUC above which a column tells the last period from the first.
DRIFT = 0.65
# Share of rows with new values in the last period above which they are noted.
MANY_NEW = 0.5
# Numbers are better read as categories if the mean gain of log loss is this number of
# standard errors above 0,
GAIN_Z = 5.0
# and if the AUC gains as much as this.
GAIN_AUC = 0.005
# Values repeat if their number is at most this share of the rows.
LARGEST_SHARE_OF_VALUES = 0.5
# A column determines another one if it has at most this number of pairs of values with
# it per value.
LARGEST_PAIRS_PER_VALUE = 1.1


@dataclass(kw_only=True)
class ColumnFacts:
    """What is known of a column; NaN where it has no meaning."""

    column: Any
    input: Any  # the `ColumnInput`
    auc: list[float]  # per task
    values: float = np.nan
    missing: float = np.nan
    unseen: float = np.nan
    drift: float = np.nan
    gain: float = np.nan
    flags: list[str] = field(default_factory=list)

    def flag(self, name: str, holds: object) -> None:
        """Add a flag if it holds."""
        if holds:
            self.flags.append(name)


class Rows(NamedTuple):
    """What columns are compared with, row by row."""

    y: np.ndarray  # float (n_samples, n_tasks), 0 where missing
    is_known: np.ndarray  # float (n_samples, n_tasks), 0 for missing labels
    random_fold: np.ndarray
    # Parts in the order of time, each predicted by the rates of those before it; the
    # random folds without times.
    fold: np.ndarray
    in_time: bool  # whether `fold` is in the order of time
    is_last: np.ndarray  # bool, rows of the last period
    is_end: np.ndarray | None  # float, 1 for rows of the first and the last period

    @classmethod
    def draw(
        cls,
        targets: Any,
        depth: np.ndarray,
        period: np.ndarray,
        rng: np.random.RandomState,
        times: np.ndarray | None = None,
    ) -> Self:
        """Draw folds with equal shares of each depth and, with one period, the last."""
        n_samples = len(depth)
        # Rows of a depth are dealt out to the folds in random order: each fold has its
        # share of the few conversions.
        order = np.lexsort((rng.random_sample(n_samples), depth))
        fold = np.empty(n_samples, dtype=np.intp)
        fold[order] = np.arange(n_samples) % N_FOLDS
        is_last = period == period.max()
        is_end = None
        if is_last.all():
            is_last = rng.random_sample(n_samples) < 0.1
        else:
            is_end = (is_last | (period == period.min())).astype(float)
        random_fold = fold
        in_time = False
        if times is not None:
            time_fold = folds_in_time(times)
            in_time = bool(time_fold.max() > 0)
            fold = time_fold if in_time else fold
        return cls(
            y=targets.values.astype(float),
            is_known=known_labels(targets),
            random_fold=random_fold,
            fold=fold,
            in_time=in_time,
            is_last=is_last,
            is_end=is_end,
        )

    def labels(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Return pairs of the labels of a task, and whether they are known."""
        return zip(self.y.T, self.is_known.T, strict=True)


def folds_in_time(times: np.ndarray) -> np.ndarray:
    """Return the index of one of `N_FOLDS` + 1 folds in the order of time for each row.

    The folds have about equal numbers of rows; equal times are in one fold.
    """
    n_folds = N_FOLDS + 1
    first_rows = np.arange(1, n_folds) * len(times) // n_folds
    edges = np.unique(np.sort(times)[first_rows])
    fold = np.searchsorted(edges, times, side="right")
    # Without times before the first edge, the first fold has no rows.
    return fold - fold.min()


def known_labels(targets: Any) -> np.ndarray:
    """Return 1 for known labels and 0 for missing ones, of the shape of the labels."""
    is_known = np.ones(targets.values.shape)
    return is_known if targets.missing is None else is_known - targets.missing


class Entries(NamedTuple):
    """The values of a column as codes: one entry per row, or per element of lists."""

    codes: np.ndarray
    n_values: int  # this code is that of missing values
    row: np.ndarray | None = None  # of each entry of lists

    @property
    def rows(self) -> slice | np.ndarray:
        """An index from the values of rows to those of entries."""
        return slice(None) if self.row is None else self.row

    def counts(self, weight: np.ndarray, fold: np.ndarray) -> np.ndarray:
        """Return the weight of the entries by fold and code."""
        n_codes = self.n_values + 1
        # One count per fold and code: the rates of the other folds are then
        # differences.
        n_folds = int(fold.max()) + 1
        cell = fold[self.rows] * n_codes + self.codes
        counts = np.bincount(cell, weight[self.rows], n_folds * n_codes)
        return counts.reshape(n_folds, n_codes)

    def hashes(self, n_samples: int) -> np.ndarray:
        """Return a hash of the values of each row, uint64; lists in any order."""
        mixed = mix(self.codes.astype(np.uint64))
        if self.row is None:
            return mixed
        sums = np.zeros(n_samples, dtype=np.uint64)
        np.add.at(sums, self.row, mixed)
        return sums


def mix(values: np.ndarray) -> np.ndarray:
    """Return pseudo-random numbers of numbers, uint64 (splitmix64; Steele, 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class Repeats(NamedTuple):
    """Rows that repeat all inputs of another row, as shares of the rows."""

    share: float  # of rows that repeat the inputs of a row before them
    random_share: float  # of a random part of the rows, with inputs of other rows
    # Of the last period, with inputs of the rows before it; NaN without times.
    last_share: float


def count_repeats(row_hash: np.ndarray, rows: Rows) -> Repeats:
    """Return the `Repeats` of rows, given a hash of the inputs of each row."""

    def share_in_others(is_selected: np.ndarray) -> float:
        return np.isin(row_hash[is_selected], row_hash[~is_selected]).mean()

    # All folds but one may be empty if there are few rows.
    is_random = rows.random_fold == rows.random_fold[0]
    return Repeats(
        share=1.0 - len(np.unique(row_hash)) / len(row_hash),
        random_share=share_in_others(is_random),
        last_share=np.nan if rows.is_end is None else share_in_others(rows.is_last),
    )


class TableFacts(NamedTuple):
    """What is known of the columns of a table, and of its rows."""

    columns: list[ColumnFacts]
    repeats: Repeats
    subjects: Subjects | None


def describe_columns(
    table: Any, inputs: Mapping[Any, Any], rows: Rows, time: Any = None
) -> TableFacts:
    """Return what is known of a table.

    The columns have these `ColumnInput`; one of them may be the `time` of the rows.
    """
    facts_of_columns = []
    row_columns = []
    category_entries = {}
    row_hash = np.zeros(len(rows.fold), dtype=np.uint64)
    for (name, column_input), column in zip(
        inputs.items(), list_columns(table), strict=True
    ):
        facts = ColumnFacts(
            column=name, input=column_input, auc=[np.nan] * rows.y.shape[1]
        )
        facts_of_columns.append(facts)
        entries = describe_column(facts, column, rows)
        if entries is None:
            continue
        if {"id", "category"} & {*facts.flags, column_input.kind}:
            category_entries[name] = entries
        if not (isinstance(time, str) and name == time):
            if entries.row is None:
                is_number = column_input.kind == "numeric"
                row_columns.append(RowColumn(name, entries.codes, is_number))
            # Mixed again, so that equal values of two columns differ.
            row_hash = mix(row_hash + entries.hashes(len(row_hash)))
    for facts in facts_of_columns:
        if "category" in facts.flags and is_determined(facts.column, category_entries):
            facts.flags.remove("category")
    return TableFacts(
        columns=facts_of_columns,
        repeats=count_repeats(row_hash, rows),
        subjects=find_subjects(row_columns),
    )


def is_determined(name: Any, columns: Mapping[Any, Entries]) -> bool:
    """Return whether another column, such as a user, determines a column.

    Most of the column's gain then comes from the other column, which says more.
    """
    column = columns[name]
    n_rows = len(column.codes)
    for finer in columns.values():
        if column.n_values < finer.n_values <= LARGEST_SHARE_OF_VALUES * n_rows:
            limit = int(LARGEST_PAIRS_PER_VALUE * finer.n_values)
            # Some rows, from all of the table, mostly have more pairs already.
            step = max(n_rows // (4 * limit), 1)
            if count_pairs(finer.codes[::step], column.codes[::step]) > limit:
                continue
            if step == 1 or count_pairs(finer.codes, column.codes) <= limit:
                return True
    return False


def count_pairs(a: np.ndarray, b: np.ndarray) -> int:
    """Return the number of distinct pairs of codes."""
    # As entries of a matrix, whose conversion joins equal ones several times as fast as
    # they can be sorted.
    return coo_array((np.ones(len(a), dtype=bool), (a, b))).tocsr().nnz


def describe_column(facts: ColumnFacts, column: Any, rows: Rows) -> Entries | None:
    """Add what is known of one column; return the `Entries` of its distinct values."""
    kind = facts.input.kind
    facts.flag("refused", facts.input.error)
    for content in ("amounts", "dates", "numbers and their texts"):
        facts.flag(content, facts.input.content == content)
    if kind == "numeric":
        entries, values = describe_numbers(facts, column, rows)
    elif kind == "category":
        entries = read_categories(column)
        values = entries
        facts.missing = np.mean(entries.codes == entries.n_values)
        facts.flag("one value per row", 100 < entries.n_values == len(column))
    elif kind == "list of categories":
        lists = read_lists(column, facts.column)
        row = np.repeat(np.arange(len(column)), np.maximum(lists.sizes, 0))
        entries = read_categories(lists.elements)._replace(row=row)
        values = entries
        facts.missing = np.mean(lists.sizes < 0)
    else:
        is_nan = np.array([is_missing(value) for value in column])
        facts.missing = is_nan.mean()
        if 0 < facts.missing < 1:  # whether it is known may be a leak, too
            add_scores(facts, Entries(is_nan.astype(np.intp), 1), rows)
        return read_arrays(column, is_nan) if kind == "array of numbers" else None
    facts.values = values.n_values
    is_constant = values.n_values < 2 and not 0 < facts.missing < 1
    facts.flag("constant", is_constant and entries.row is None)
    if kind != "numeric" or {"id", "category"} & set(facts.flags):
        facts.unseen = unseen_share(values, rows.is_last)
        facts.flag("new values", facts.unseen > MANY_NEW)
    add_scores(facts, entries, rows)
    return values


def add_scores(facts: ColumnFacts, entries: Entries, rows: Rows) -> None:
    """Add the AUC of each task and of the last period, and their flags."""
    facts.auc = [
        cross_fitted_auc(entries, y, is_known, rows.fold, in_time=rows.in_time)
        for y, is_known in rows.labels()
    ]
    if rows.is_end is not None:
        last = rows.is_last.astype(float)
        facts.drift = cross_fitted_auc(entries, last, rows.is_end, rows.random_fold)
    facts.flag("leak", any(auc > LEAK for auc in facts.auc))
    facts.flag("drift", facts.drift > DRIFT)


def describe_numbers(
    facts: ColumnFacts, column: Any, rows: Rows
) -> tuple[Entries, Entries]:
    """Add what is known of numbers; return their bins and their distinct values."""
    encoder = NUMERIC_ENCODINGS["piecewise_linear"](facts.column).fit(column)
    position, *_ = encoder.transform(column)
    numbers = to_float(column)
    is_nan = np.isnan(numbers)
    n_bins = encoder.n_bins_ + 1
    bins = Entries(np.where(is_nan, n_bins, position.astype(np.intp)), n_bins)
    distinct, codes = np.unique(numbers, return_inverse=True)
    distinct = distinct[~np.isnan(distinct)]
    values = Entries(codes, len(distinct))
    facts.missing = is_nan.mean()
    # By the same rule as the warning of `fit`.
    facts.flag("id", looks_like_codes(column, facts.column))
    if len(distinct) > 2 and (distinct % 1 == 0).all():
        # A row number has all whole numbers of its range, once each.
        is_range = distinct[-1] - distinct[0] + 1 == len(distinct)
        facts.flag("one value per row", is_range and 100 < len(distinct) == len(column))
        if len(distinct) <= LARGEST_SHARE_OF_VALUES * len(column):
            facts.gain, is_clear = category_gain(values, bins, rows)
            facts.flag("category", is_clear and "id" not in facts.flags)
    return bins, values


def read_categories(column: Any) -> Entries:
    """Return the `Entries` of a category column."""
    indices, values = factorize(column)
    codes = np.where(indices < 0, len(values), indices).astype(np.intp)
    return Entries(codes, len(values))


def read_arrays(column: Any, is_missing_row: np.ndarray) -> Entries:
    """Return the distinct arrays of numbers of a column."""
    hashes = [
        0 if is_missing_value else hash(np.asarray(value, dtype=float).tobytes())
        for is_missing_value, value in zip(is_missing_row, column, strict=True)
    ]
    distinct, codes = np.unique(hashes, return_inverse=True)
    return Entries(codes, len(distinct))


def unseen_share(entries: Entries, is_last: np.ndarray) -> float:
    """Return the share of known entries of the last period that are new in it."""
    is_last = is_last[entries.rows]
    # Missing values do not count as new.
    is_seen = np.zeros(entries.n_values + 1, dtype=bool)
    is_seen[entries.codes[~is_last]] = True
    last = entries.codes[is_last & (entries.codes < entries.n_values)]
    return np.mean(~is_seen[last]) if len(last) else np.nan


def auc_of_weights(score: np.ndarray, ones: np.ndarray, zeros: np.ndarray) -> float:
    """Return the AUC of scores with weights of ones and of zeros, NaN without either.

    It is several times as fast as that of scikit-learn, which checks its input.
    """
    if not len(score):
        return np.nan
    order = np.argsort(score)
    score = score[order]
    # Equal scores count as one step.
    last = np.append(np.flatnonzero(score[1:] != score[:-1]), len(score) - 1)
    ones_up_to = np.append(0, np.cumsum(ones[order])[last])
    zeros_up_to = np.append(0, np.cumsum(zeros[order])[last])
    area = np.diff(ones_up_to) @ (zeros_up_to[1:] + zeros_up_to[:-1]) / 2
    n_pairs = ones_up_to[-1] * zeros_up_to[-1]
    return area / n_pairs if n_pairs else np.nan


def cross_fitted_auc(
    entries: Entries,
    y: np.ndarray,
    is_known: np.ndarray,
    fold: np.ndarray,
    *,
    in_time: bool = False,
) -> float:
    """Return the mean AUC over folds of rates in the other folds, NaN for one label.

    With folds in the order of time, the rates are those of the folds before each.
    """
    ones = entries.counts(y * is_known, fold)
    n = entries.counts(is_known, fold)
    aucs = []
    for k, rates in rates_of_others(ones, n, in_time=in_time):
        if entries.row is None:
            aucs.append(auc_of_weights(rates, ones[k], n[k] - ones[k]))
            continue
        # The mean over the elements of each list; without any, the mean rate.
        sums = np.bincount(entries.row, rates[entries.codes], len(y))
        sizes = np.bincount(entries.row, minlength=len(y))
        mean = np.where(sizes > 0, sums / np.maximum(sizes, 1), ones.sum() / n.sum())
        is_scored = (fold == k) & (is_known > 0)
        aucs.append(auc_of_weights(mean[is_scored], y[is_scored], 1 - y[is_scored]))
    return mean_without_nan(aucs)


def mean_without_nan(values: Iterable[float]) -> float:
    """Return the mean of the values that are not NaN, NaN if there is none."""
    values = [value for value in values if not np.isnan(value)]
    return float(np.mean(values)) if values else np.nan


def rates_of_others(
    ones: np.ndarray,
    n: np.ndarray,
    base: Mapping[int, np.ndarray] | None = None,
    *,
    in_time: bool = False,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield folds, and rates of codes in the others, shrunk to the mean or `base`.

    With folds in the order of time, the others are those before a fold; the first one
    has none. `base` is a mapping from folds.
    """
    total = n.sum()
    rate = ones.sum() / total if total else 0.0
    if not 0 < rate < 1:
        return
    # In rows: so many have SHRINKAGE_EVENTS events, or rows without the event.
    strength = SHRINKAGE_EVENTS / min(rate, 1 - rate)
    for k in range(1 if in_time else 0, len(n)):
        mean = rate if base is None else base[k]
        if in_time:
            other_ones = ones[:k].sum(axis=0)
            other_n = n[:k].sum(axis=0)
        else:
            other_ones = ones.sum(axis=0) - ones[k]
            other_n = n.sum(axis=0) - n[k]
        yield k, (other_ones + strength * mean) / (other_n + strength)


def category_gain(values: Entries, bins: Entries, rows: Rows) -> tuple[float, bool]:
    """Return the largest gain of AUC of values over bins, and whether it is clear."""
    bin_of_value = np.zeros(values.n_values + 1, dtype=np.intp)
    bin_of_value[values.codes] = bins.codes
    gains = []  # of AUC and, in standard errors, of log loss, per task
    for y, is_known in rows.labels():
        bin_ones = bins.counts(y * is_known, rows.fold)
        bin_n = bins.counts(is_known, rows.fold)
        ones = values.counts(y * is_known, rows.fold)
        n = values.counts(is_known, rows.fold)
        bin_rates = {
            k: rates[bin_of_value]
            for k, rates in rates_of_others(bin_ones, bin_n, in_time=rows.in_time)
        }
        # Rates of values are shrunk to those of their bins: values gain only what bins
        # lack.
        value_rates = dict(rates_of_others(ones, n, bin_rates, in_time=rows.in_time))
        gains.append(compare_rates(bin_rates, value_rates, ones, n - ones))
    clear_gains = [gain for gain, z in gains if z >= GAIN_Z and gain >= GAIN_AUC]
    return max(clear_gains or [gain for gain, _ in gains]), bool(clear_gains)


def compare_rates(
    first_rates: Mapping[int, np.ndarray],
    second_rates: Mapping[int, np.ndarray],
    ones: np.ndarray,
    zeros: np.ndarray,
) -> tuple[float, float]:
    """Return the gain of AUC of second rates, and of log loss in standard errors.

    Rates are given by fold, for the codes of `ones` and `zeros`.
    """
    gains = []
    total = 0.0
    squares = 0.0
    n_rows = 0.0
    for k, p in first_rates.items():
        q = second_rates[k]
        n_ones = ones[k]
        n_zeros = zeros[k]
        n_rows += n_ones.sum() + n_zeros.sum()
        first_auc = auc_of_weights(p, n_ones, n_zeros)
        gains.append(auc_of_weights(q, n_ones, n_zeros) - first_auc)
        # The gain of log loss of a row by its label; total and squares give its
        # standard error.
        gain_of_one = np.log(q / p)
        gain_of_zero = np.log((1 - q) / (1 - p))
        total += n_ones @ gain_of_one + n_zeros @ gain_of_zero
        squares += n_ones @ gain_of_one**2 + n_zeros @ gain_of_zero**2
    error = np.sqrt(squares - total**2 / max(n_rows, 1.0))
    return mean_without_nan(gains), total / error if error > 0 else 0.0

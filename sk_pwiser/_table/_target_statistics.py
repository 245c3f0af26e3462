"""Target statistics of category values."""

from collections.abc import Sequence
from functools import partial
from itertools import chain
from numbers import Integral

import numpy as np

from sk_pwiser._table._categories import FIRST_VALUE, CategoryColumn
from sk_pwiser._table._frames import is_dataframe, list_columns, to_float
from sk_pwiser._table._numbers import LARGEST_DEVIATION
from sk_pwiser._utils import check_integer, warn_user

# Range of the estimated strength of shrinkage, in rows.
STRENGTHS = 1.0, 1e5
# The rates of a task must vary between values by more than chance explains, in standard
# errors of the estimated variance.
MIN_Z = 2.0
# The largest distance of the frequency of unseen values from the mean, in units of the
# scale.
UNSEEN_DISTANCE = 3.0


class TargetStatistics:
    r"""Rates of the tasks per value of category columns, shrunk to the base rate.

    A value with n rows of which k are positive gives, for each task,

    .. math:: \operatorname{logit} \frac{k + a p}{n + a} - \operatorname{logit} p

    with p the base rate and a the strength of shrinkage, estimated per column and task
    by the method of moments. If the rates of a task do not vary more between the values
    than chance explains, its input is 0: a network would learn noise from it, such as
    that rows with a positive label have lower rates without it. Beside these, each
    column gives log(1 + n). Missing and unseen values have n = k = 0. All inputs are
    standardised.

    Parameters
    ----------
    columns : sequence of int
        Indices of the encoded columns among the category columns.
    cardinalities : sequence of int
        Number of codes of each of them.

    References
    ----------
    Micci-Barreca (2001). "A preprocessing scheme for high-cardinality categorical
    attributes in classification and prediction problems." SIGKDD Explorations 3(1).
    """

    def __init__(self, columns: Sequence[int], cardinalities: Sequence[int]):
        self.columns = list(columns)
        self.cardinalities = list(cardinalities)

    @property
    def n_outputs(self):
        """Number of inputs that the statistics add to the numeric ones."""
        return len(self.columns) * (self.n_tasks_ + 1)

    def names(self, category_names, task_names):
        """Return the names of the inputs, given those of columns and tasks."""
        suffixes = [*(f"{task}_rate" for task in task_names), "frequency"]
        columns = [category_names[column] for column in self.columns]
        return [f"{column}_{suffix}" for column in columns for suffix in suffixes]

    def fit_transform(self, codes, y, weight, block, others, earlier=None):
        """Learn statistics and encode the rows that they are learnt from.

        The statistics of a row leave out the rows of its own block, and those of
        `others` are taken over all other rows. Afterwards the object holds the
        statistics over both.

        Parameters
        ----------
        codes : integer ndarray of shape (n_samples, n_category_columns)
            Codes of the category columns.
        y : ndarray of shape (n_samples, n_tasks)
            Labels, 0 or 1.
        weight : ndarray of shape (n_samples, n_tasks)
            Weights of the rows per task; 0 leaves a row out of the task's rates.
        block : integer ndarray of shape (n_samples,)
            Block of each row; not read for `others`.
        others : bool ndarray of shape (n_samples,)
            Rows that are encoded like new ones: the validation rows.
        earlier : TargetStatistics, default=None
            Statistics of an earlier fit of the same columns. Their base rates,
            strengths and scales stay, so that inputs keep the meaning that a network
            has learnt, and so do the counts of values that these rows do not have.

        Returns
        -------
        float32 ndarray of shape (n_samples, n_outputs)
        """
        self.n_tasks_ = y.shape[1]
        used = ~others
        y_used, weight_used = y[used], weight[used]
        total = weight_used.sum(axis=0)
        ones = (weight_used * y_used).sum(axis=0)
        self.rates_ = (ones + 0.5) / (total + 1.0)
        if earlier is not None:
            self.rates_ = earlier.rates_
        inputs = np.empty((len(codes), self.n_outputs), dtype=np.float32)
        self.counts_, self.strengths_, self.means_, self.scales_ = [], [], [], []
        for j, (column, size) in enumerate(
            zip(self.columns, self.cardinalities, strict=True)
        ):
            of_rows = codes[:, column].astype(np.intp)
            counts = count(of_rows[used], y_used, weight_used, size)
            if earlier is None:
                strengths = self._estimate_strengths(counts)
            else:
                strengths = earlier.strengths_[j]
            values = self._leave_out_blocks(
                np.zeros_like(counts), of_rows, y, weight, block, others, strengths
            )
            if others.any():
                counts += count(of_rows[others], y[others], weight[others], size)
            if earlier is None:
                encoded = values[used]
                mean, scale = encoded.mean(axis=0), encoded.std(axis=0)
            else:
                mean, scale = earlier.means_[j], earlier.scales_[j].copy()
                is_absent = np.bincount(of_rows, minlength=size) == 0
                counts[..., is_absent] = earlier.counts_[j][..., is_absent]
            self._keep(counts, strengths, mean, scale)
            inputs[:, self._slice(j)] = standardise(values, mean, scale)
        self._update_tables()
        return inputs

    def _leave_out_blocks(self, base, codes, y, weight, block, others, strengths):
        """Return the rates of the rows of a column, `(n_samples, n_tasks + 1)`.

        Those of a row are over `base` and the rows of the other blocks, without
        `others`; those of `others` are over `base` and all other rows.
        """
        used, size = ~others, base.shape[-1]
        in_column, y, weight, block = codes[used], y[used], weight[used], block[used]
        counts = base + count(in_column, y, weight, size)
        values = np.empty((len(codes), self.n_tasks_ + 1))
        values[others] = self._rates(counts, strengths)[codes[others]]
        encoded = np.empty((len(in_column), self.n_tasks_ + 1))
        for b in range(int(block.max(initial=0)) + 1):
            rows = np.flatnonzero(block == b)
            own = count(in_column[rows], y[rows], weight[rows], size)
            present = np.unique(in_column[rows])
            table = np.zeros((size, self.n_tasks_ + 1))
            rest = counts[..., present] - own[..., present]
            table[present] = self._rates(rest, strengths)
            encoded[rows] = table[in_column[rows]]
        values[used] = encoded
        return values

    def fit_blocks(self, total, ones, own, n_rows, others):
        """Learn statistics from the counts of blocks, for rows that are not in memory.

        Parameters
        ----------
        total, ones : ndarray of shape (n_tasks,)
            Weights of the rows per task, and those of the rows with label 1, without
            `others`.
        own : list of ndarray of shape (n_blocks, 2, n_tasks, n_codes)
            Counts per encoded column and block, see `count`; they are released.
        n_rows : list of ndarray of shape (n_blocks, n_codes)
            Numbers of rows.
        others : list of ndarray of shape (2, n_tasks, n_codes)
            Counts of the validation rows.

        Returns
        -------
        list of float32 ndarray of shape (n_blocks + 1, n_codes, n_tasks + 1)
            Inputs per column, block and code; the last block is that of `others`.
        """
        self.n_tasks_ = len(total)
        self.rates_ = (ones + 0.5) / (total + 1.0)
        self.counts_, self.strengths_, self.means_, self.scales_ = [], [], [], []
        tables = []
        for j in range(len(self.columns)):
            blocks, own[j] = own[j], None
            counts = blocks.sum(axis=0)
            strengths = self._estimate_strengths(counts)
            share = n_rows[j] / n_rows[j].sum()
            # Computed anew three times: all blocks at once need several times as much
            # memory as their counts.
            mean = sum(map(np.matmul, share, self._rates_of(blocks, counts, strengths)))
            squares = (
                (values - mean) ** 2
                for values in self._rates_of(blocks, counts, strengths)
            )
            scale = np.sqrt(sum(map(np.matmul, share, squares)))
            self._keep(counts + others[j], strengths, mean, scale)
            shape = len(blocks) + 1, counts.shape[-1], self.n_tasks_ + 1
            table = np.empty(shape, dtype=np.float32)
            none = np.zeros_like(counts)
            of_blocks = self._rates_of(chain(blocks, [none]), counts, strengths)
            for block, values in enumerate(of_blocks):
                table[block] = standardise(values, self.means_[j], self.scales_[j])
            tables.append(table)
        self._update_tables()
        return tables

    def _rates_of(self, blocks, counts, strengths):
        """Yield the inputs of each block, from the counts of all others."""
        return (self._rates(counts - block, strengths) for block in blocks)

    def _keep(self, counts, strengths, mean, scale):
        """Keep the statistics of a further column; the scale is adjusted in place."""
        scale[(scale < 1e-9) | ~np.append(np.isfinite(strengths), True)] = np.inf
        # Where all values are about equally frequent, the frequency of an unseen one,
        # 0, would be far outside what the network has seen.
        scale[-1] = max(scale[-1], mean[-1] / UNSEEN_DISTANCE)
        self.counts_.append(counts)
        self.strengths_.append(strengths)
        self.means_.append(mean)
        self.scales_.append(scale)

    def transform(self, codes):
        """Encode rows by the statistics over all rows seen so far.

        Parameters
        ----------
        codes : integer ndarray of shape (n_samples, n_category_columns)
            Codes of the category columns.

        Returns
        -------
        float32 ndarray of shape (n_samples, n_outputs)
        """
        inputs = np.empty((len(codes), self.n_outputs), dtype=np.float32)
        for j, column in enumerate(self.columns):
            inputs[:, self._slice(j)] = self.tables_[j][codes[:, column]]
        return inputs

    def update(self, codes, y, weight, undo):
        """Add rows to the statistics; base rates, strengths and scales stay.

        The cost depends on the number of rows alone.

        Parameters
        ----------
        codes, y, weight : ndarray
            Codes, labels and weights of the rows, as in `fit_transform`.
        undo : list of callable
            Log to which functions are appended that take the change back.
        """
        for j, column in enumerate(self.columns):
            present, positions = np.unique(codes[:, column], return_inverse=True)
            added = count(positions, y, weight, len(present), first=0)
            is_value = present >= FIRST_VALUE
            present = present[is_value].astype(np.intp)
            counts = self.counts_[j][..., present]
            undo.append(
                partial(self._set, j, present, counts, self.tables_[j][present])
            )
            self.counts_[j][..., present] = counts + added[..., is_value]
            self.tables_[j][present] = self._table(j, present)

    def _set(self, j, codes, counts, table):
        """Set counts and inputs of some codes of the j-th column."""
        self.counts_[j][..., codes] = counts
        self.tables_[j][codes] = table

    def _slice(self, j):
        width = self.n_tasks_ + 1
        return slice(j * width, (j + 1) * width)

    def _update_tables(self):
        self.tables_ = [self._table(j, slice(None)) for j in range(len(self.columns))]

    def _table(self, j, codes):
        """Return the standardised inputs of some codes of the j-th column."""
        values = self._rates(self.counts_[j][..., codes], self.strengths_[j])
        return standardise(values, self.means_[j], self.scales_[j])

    def _rates(self, counts, strengths):
        """Return the inputs of values with these counts, `(n_values, n_tasks + 1)`."""
        n, k = counts
        p, a = self.rates_[:, np.newaxis], strengths[:, np.newaxis]
        # Differences of counts may be off 0 by rounding if weights are not integers.
        a = np.minimum(a, STRENGTHS[1])
        negatives, k = np.maximum(n - k, 0.0), np.maximum(k, 0.0)
        rates = np.log(k + a * p) - np.log(negatives + a * (1 - p))
        rates -= np.log(p) - np.log1p(-p)
        # The first task has all rows.
        return np.vstack([rates, np.log1p(np.maximum(n[:1], 0.0))]).T

    def _estimate_strengths(self, counts):
        """Return the strength per task, infinite if the rates vary by chance alone."""
        strengths = np.full(self.n_tasks_, np.inf)
        for task, (n, k) in enumerate(zip(*counts, strict=True)):
            known = n > 1
            n, k, p = n[known], k[known], self.rates_[task]
            if len(n) == 0:
                continue
            # By chance, n (k / n - p)^2 has the mean p (1 - p) and this variance.
            binomial = p * (1 - p)
            by_chance = binomial**2 * (2 + (1 - 6 * binomial) / (n * binomial))
            error = np.sqrt(by_chance.sum()) / n.sum()
            excess = np.sum((k - n * p) ** 2 / n - binomial) / n.sum()
            if excess > MIN_Z * error:
                strengths[task] = np.clip(binomial / excess - 1, *STRENGTHS)
        return strengths


def standardise(values, mean, scale):
    """Return float32 inputs with the mean 0 and the deviation 1, clipped."""
    scaled = np.clip((values - mean) / scale, -LARGEST_DEVIATION, LARGEST_DEVIATION)
    return scaled.astype(np.float32)


def count(codes, y, weight, size, first=FIRST_VALUE):
    """Count rows and positives per task and code: `(2, n_tasks, size)`.

    Codes below `first`, those of missing and unseen values, count 0.
    """
    counts = np.empty((2, y.shape[1], size))
    for task in range(y.shape[1]):
        w = weight[:, task]
        counts[0, task] = np.bincount(codes, weights=w, minlength=size)
        counts[1, task] = np.bincount(codes, weights=w * y[:, task], minlength=size)
    counts[..., :first] = 0.0
    return counts


def assign_blocks(n_samples, n_blocks, times=None, groups=None):
    """Assign rows to blocks of consecutive rows.

    Parameters
    ----------
    n_samples, n_blocks : int
        Numbers of rows and of blocks.
    times : ndarray of shape (n_samples,), default=None
        Times by which the rows are ordered; by default they are in order.
    groups : int64 ndarray of shape (n_samples,), default=None
        Groups of rows, each of which goes into the block of its first row.

    Returns
    -------
    int64 ndarray of shape (n_samples,)
    """
    rank = np.arange(n_samples)
    if times is not None:
        rank[np.argsort(times, kind="stable")] = np.arange(n_samples)
    if groups is not None:
        _, number = np.unique(groups, return_inverse=True)
        first = np.full(number.max() + 1, n_samples)
        np.minimum.at(first, number, rank)
        rank = first[number]
    return rank * n_blocks // n_samples


# Smallest difference of counts that is not explained by rounding.
TOLERANCE = 1e-6


class ExtendedStatistics(TargetStatistics):
    """The statistics of an earlier fit for further rows, with the earlier scales.

    Base rates, strengths and scales stay, so that inputs keep the meaning that the
    earlier network has learnt. The input of a training row leaves out its own block,
    that of a validation row all validation rows.

    Parameters
    ----------
    source : TargetStatistics
        The earlier statistics, which are not changed.
    origins : list of int64 ndarray of shape (n_codes,)
        One array per category column: the code that each code has in `source`, -1 for
        new values.
    rows : {"new", "seen"}
        Whether the rows are new to `source` or among those that it was learnt from.
    adds : bool
        Whether the statistics are to include new rows.
    """

    def __init__(self, source, origins, rows, adds):
        super().__init__(source.columns, [len(origins[c]) for c in source.columns])
        self.n_tasks_, self.rates_ = source.n_tasks_, source.rates_
        self.strengths_, self.means_ = source.strengths_, source.means_
        self.scales_ = source.scales_
        self.counts_ = [
            np.where(origins[c] >= 0, counts[..., origins[c]], 0.0)
            for c, counts in zip(source.columns, source.counts_, strict=True)
        ]
        self.rows, self.adds = rows, adds
        self._update_tables()

    def fit_transform(self, codes, y, weight, block, others, earlier=None):
        """Encode rows by the earlier statistics and by those of other blocks.

        The parameters are those of :meth:`TargetStatistics.fit_transform`.

        Raises
        ------
        ValueError
            If the rows are "seen" and there are more of them than `source` has.
        """
        if self.rows == "new":
            self._warn_if_seen(codes, y, weight)
            if not self.adds:
                return self.transform(codes)
        inputs = np.empty((len(codes), self.n_outputs), dtype=np.float32)
        for j, column in enumerate(self.columns):
            of_rows = codes[:, column].astype(np.intp)
            all_rows = count(of_rows, y, weight, self.cardinalities[j])
            base = self.counts_[j]
            if self.rows == "seen":
                base = _subtract(base, all_rows)
            values = self._leave_out_blocks(
                base, of_rows, y, weight, block, others, self.strengths_[j]
            )
            scaled = standardise(values, self.means_[j], self.scales_[j])
            inputs[:, self._slice(j)] = scaled
            if self.rows == "new":
                self.counts_[j] = base + all_rows
        self._update_tables()
        return inputs

    def _warn_if_seen(self, codes, y, weight):
        """Warn if rows that count as new are probably in the counts of the source.

        All of them must fit into these counts, by value and label, and must be half of
        the rows of some value. New rows may do so by chance only if they are few.
        Probabilities in place of labels reveal no label.
        """
        if not np.isin(y, (0, 1)).all():
            return
        largest = 0.0
        for j, column in enumerate(self.columns):
            of_rows = codes[:, column].astype(np.intp)
            n, k = count(of_rows, y, weight, self.cardinalities[j])
            all_n, all_k = self.counts_[j]
            if min((all_k - k).min(), (all_n - all_k - n + k).min()) < -TOLERANCE:
                return
            shares = np.divide(n, all_n, out=np.zeros_like(n), where=all_n > 0)
            largest = max(largest, shares.max(initial=0.0))
        if largest >= 0.5:
            warn_user(
                "seen=False, but the source may have been fitted on all rows of X: "
                "their category values and labels are in its target statistics. The "
                "label of a row is then among its inputs. Pass seen=True if the rows "
                "are not new to the source."
            )


def _subtract(counts, seen):
    """Return the counts of the other rows."""
    rest = counts - seen
    if rest.min() < -TOLERANCE:
        raise ValueError(
            "seen=True, but the source was not fitted on all rows of X: a category "
            "value occurs more often in X, or with more positive labels, than in the "
            "fit of the source. Pass seen=False for rows that are new to the source."
        )
    return np.maximum(rest, 0.0)


def find_target_columns(target_encoding, columns, min_values):
    """Return the columns whose values get target statistics.

    Parameters
    ----------
    target_encoding : "auto", bool or sequence of (str or int)
        The estimator's parameter.
    columns : list of CategoryColumn or NumericColumn
        The fitted columns of the table.
    min_values : int
        Columns with fewer distinct values are left out, unless they are named.

    Returns
    -------
    list of int
        Indices among the category columns.

    Raises
    ------
    ValueError
        If a column is named that is not a category column of the table.
    TypeError
        If a column is given by a bool, as in a mask.
    """
    categories = [c for c in columns if isinstance(c, CategoryColumn)]
    if isinstance(target_encoding, bool | np.bool_ | str):
        return [
            index
            for index, column in enumerate(categories)
            if target_encoding and column.n_codes - FIRST_VALUE >= min_values
        ]
    names = [column.name for column in columns]
    chosen = set()
    for column in target_encoding:
        # A mask would otherwise select the columns 0 and 1.
        if isinstance(column, bool | np.bool_):
            raise TypeError(
                "target_encoding must contain names or indices of columns; got "
                f"{column!r}."
            )
        if isinstance(column, str) and column in names:
            found = columns[names.index(column)]
        elif isinstance(column, Integral) and -len(columns) <= column < len(columns):
            found = columns[column]
        else:
            raise ValueError(
                f"target_encoding contains {column!r}, which is not a column of X; its "
                f"columns are {names}."
            )
        if found not in categories:
            raise ValueError(
                f"target_encoding contains {column!r}, which is not a category column; "
                f"the category columns are {[c.name for c in categories]}."
            )
        chosen.add(categories.index(found))
    return sorted(chosen)


def make_target_statistics(target_encoding, encoder, n_samples, params):
    """Return unfitted statistics for the chosen columns, or None if there are none.

    Parameters
    ----------
    target_encoding : "auto", bool or sequence of (str or int)
        The estimator's parameter.
    encoder : TableEncoder
        The fitted encoder, which keeps the codes of rare values.
    n_samples : int
        Number of rows.
    params : mapping
        `target_encoding_min_values` and `target_encoding_blocks`.

    Raises
    ------
    ValueError
        If a column is not a category column, or if there are fewer rows than blocks.
    """
    columns = find_target_columns(
        target_encoding, encoder.columns_, params["target_encoding_min_values"]
    )
    n_blocks = params["target_encoding_blocks"]
    if columns and n_samples < n_blocks:
        raise ValueError(
            f"target_encoding_blocks={n_blocks} requires as many rows; X has "
            f"{n_samples}. Use fewer blocks, or target_encoding=False."
        )
    if not columns:
        return None
    return TargetStatistics(columns, [encoder.n_codes_[c] for c in columns])


def check_target_encoding(params):
    """Raise if a number in `encoding_params` is invalid for every table."""
    check_integer(
        "target_encoding_blocks", params["target_encoding_blocks"], at_least=2
    )
    check_integer(
        "target_encoding_min_values", params["target_encoding_min_values"], at_least=1
    )


def read_times(X, column, names):
    """Return the times of the rows, by which blocks are formed.

    Parameters
    ----------
    X : DataFrame or array of shape (n_samples, n_features)
        The table.
    column : str, int or None
        Name or index of a numeric column; None if the rows are in the order of time.
    names : list of str or int
        Names of the columns.

    Returns
    -------
    float64 ndarray of shape (n_samples,) or None

    Raises
    ------
    ValueError
        If there is no such column, or if times are missing.
    TypeError
        If the column is not numeric.
    """
    if column is None:
        return None
    if column not in names:
        raise ValueError(
            f"time_column={column!r} is not a column of X; its columns are {names}."
        )
    try:
        # Lists may mix numbers and text, all of which numpy would convert to text.
        table = X if hasattr(X, "dtype") or is_dataframe(X) else np.array(X, object)
        values = list_columns(table)[names.index(column)]
        times = np.asarray(to_float(values))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"time_column={column!r} cannot be read as numbers: {error}."
        ) from error
    if np.isnan(times).any():
        raise ValueError(
            f"time_column={column!r} must not have missing values; it has "
            f"{int(np.isnan(times).sum())}."
        )
    return times

"""A look at impressions before a fit: depths, rates, columns, leaks and drift."""

import textwrap
from html import escape
from typing import NamedTuple

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import _safe_indexing, check_random_state

from sk_pwiser._estimator import MultiTaskCTRCVRClassifier
from sk_pwiser._funnel import funnel_depth
from sk_pwiser._table import (
    NUMERIC_ENCODINGS,
    as_table,
    check_match,
    check_targets,
    factorize,
    find_column,
    is_missing,
    list_columns,
    looks_like_codes,
    read_lists,
    result_frame,
    to_float,
)
from sk_pwiser._times import NUMBER, read_times
from sk_pwiser._utils import aligned, check_integer

N_FOLDS = 5
# Rates of values are shrunk to the mean rate as if each value had this number of
# further events, or of rows without the event where these are rarer.
PRIOR_EVENTS = 4.0
# The AUC of one column above which its values were hardly known before the event, and
# above which the last period is told from the first.
LEAK, DRIFT = 0.95, 0.65
# Share of rows with new values in the last period.
MANY_NEW = 0.5
# Numbers are better read as categories if the mean gain of log loss is this number of
# standard errors above 0, and the AUC gains as much.
GAIN_Z, GAIN_AUC = 5.0, 0.005
# Values repeat if they are at most this share of the rows. A column determines another
# one if it has at most this number of pairs of values with it per value.
MAX_SHARE, MAX_PAIRS = 0.5, 1.1
# Lines of the printed table of columns.
MAX_LINES, MAX_NAME, WIDTH = 60, 22, 96


def describe_impressions(
    X,
    Y,
    *,
    time=None,
    estimator=None,
    n_periods=10,
    max_rows=1_000_000,
    random_state=0,
):
    """Describe impressions before a fit, and what a fit would do with them.

    Parameters
    ----------
    X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
        Impressions, as in ``fit`` of :class:`~sk_pwiser.MultiTaskCTRCVRClassifier`.
        Columns that it refuses, such as dates, are reported.
    Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
        Labels, 0 or 1; the tasks in funnel order, the click first. Those of tasks after
        the first may be missing.
    time : str or array-like of shape (n_samples,), default=None
        The name of a column of ``X``, or the times of the rows: dates, or numbers of
        any unit. With times, rates are shown by period, and the last period is compared
        with the rows before it.
    estimator : MultiTaskCTRCVRClassifier, default=None
        The estimator whose encoding is described; it need not be fitted. None is one
        with the default parameters.
    n_periods : int, default=10
        Number of periods, at least 2, with about equal numbers of rows. Rows of equal
        time are in one period, so that there may be fewer.
    max_rows : int, default=1_000_000
        Columns are described by a random sample of this number of rows if there are
        more, whose distinct values are then fewer. Depths and rates are those of all
        rows.
    random_state : int, RandomState instance or None, default=0
        Seed of the sample, of the folds, and of the rows that stand for the last period
        if there are no times.

    Returns
    -------
    ImpressionsDescription
        The description; ``print`` and notebooks show it as tables with notes.

    Raises
    ------
    ValueError, TypeError
        If labels or times are invalid or do not match ``X``, if ``time`` is not a
        column of ``X``, or if a parameter of the estimator is invalid.

    See Also
    --------
    sk_pwiser.model_selection.compare_models : Fits this estimator and others.

    Notes
    -----
    The AUC of a column is that of one prediction: the rate of the task among the rows
    with the same value, in at most 64 bins for numbers, shrunk to the mean rate. It is
    the mean over five folds, each predicted with the rates of the others, so that a
    column with a value of its own for each row has 0.5 rather than 1. Lists are
    predicted by the mean over their elements. An AUC above 0.95 suggests a leak: a
    value that is known only after the event.

    Drift is the AUC, computed in the same way, of telling the rows of the last period
    from those of the first.

    Whole numbers that repeat are compared as categories and as bins: the rate of a
    value, shrunk to the rate of its bin, against the latter. The gain is that of the
    AUC, of the task with the largest one. It is reported as a flag if it is at least
    0.005 and the log loss improves by five standard errors.

    Examples
    --------
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.inspection import describe_impressions
    >>> log = make_ctr_cvr(
    ...     2_000, n_numeric=1, n_categorical=1, ctr=0.3, cvr=0.3, random_state=0
    ... )
    >>> X = log.data.assign(refund=log.target["conversion"] * 9.5)
    >>> found = describe_impressions(X, log.target)
    >>> print(found)  # doctest: +SKIP
    >>> found.flagged("leak")
    ['refund']
    """
    if estimator is None:
        estimator = MultiTaskCTRCVRClassifier()
    if not isinstance(estimator, MultiTaskCTRCVRClassifier):
        raise TypeError(
            "estimator must be a MultiTaskCTRCVRClassifier or None, got "
            f"{estimator!r}. For a pipeline, pass its last step and the table that it "
            "reads."
        )
    check_integer("n_periods", n_periods, at_least=2)
    check_integer("max_rows", max_rows, at_least=2 * N_FOLDS)
    rng = check_random_state(random_state)
    targets = check_targets(Y, estimator.task_names, missing_labels="ignore")
    depth, X = funnel_depth(Y), as_table(X)
    given = {} if time is None or isinstance(time, str) else {"time": time}
    check_match(X, len(depth), Y=Y, **given)
    periods, starts = None, None
    if time is not None:
        periods, starts = split_periods(_times_of(time, X, len(depth)), n_periods)
    rows, n_samples = slice(None), len(depth)
    if n_samples > max_rows:
        rows = np.sort(rng.choice(n_samples, max_rows, replace=False))
        X = _safe_indexing(X, rows)
    table, inputs = estimator._column_inputs(X, targets)
    of_rows = Rows.of(targets.at(rows), depth[rows], periods, rows, rng)
    names = list(getattr(X, "columns", range(table.shape[1])))
    columns = describe_columns(table, names, inputs, of_rows)
    return ImpressionsDescription(
        task_names=list(targets.task_names),
        depths=describe_depths(depth, targets.task_names),
        periods=describe_periods(targets, periods, starts),
        columns=columns,
        notes=[
            *describe_labels(targets, estimator),
            *describe_problems(columns, targets.task_names),
        ],
        n_samples=n_samples,
        n_described=len(of_rows.fold),
        has_times=time is not None,
    )


def _times_of(time, X, n_samples):
    name, column = "time", time
    if isinstance(time, str):
        names = list(getattr(X, "columns", range(X.shape[1])))
        name, column = time, list_columns(X)[find_column("time", time, names)]
    times = read_times(column, name)
    if len(times.values) != n_samples:
        raise ValueError(
            f"time must have one entry per row of X, {n_samples}; it has "
            f"{len(times.values)}."
        )
    return times


def split_periods(times, n_periods):
    """Return the period of each row, and the first time of each period as text."""
    ordered = np.sort(times.values)
    edges = np.unique(ordered[np.arange(n_periods) * len(ordered) // n_periods])
    if times.kind == NUMBER:
        starts = [f"{edge:g}" if edge % 1 else str(int(edge)) for edge in edges]
    else:
        starts = np.datetime_as_string(edges.astype("M8[ns]"), unit="s").tolist()
        starts = [start.replace("T", " ") for start in starts]
    return np.searchsorted(edges, times.values, side="right") - 1, starts


class Rows(NamedTuple):
    """What columns are compared with, row by row."""

    y: np.ndarray  # float (n_samples, n_tasks), 0 where missing
    known: np.ndarray  # float (n_samples, n_tasks), 0 for missing labels
    fold: np.ndarray
    is_last: np.ndarray  # bool, rows of the last period
    is_end: np.ndarray | None  # float, 1 for rows of the first and the last period

    @classmethod
    def of(cls, targets, depth, periods, rows, rng):
        """Draw folds with the same shares of every depth, and the last period."""
        n_samples = len(depth)
        order = np.lexsort((rng.random_sample(n_samples), depth))
        fold = np.empty(n_samples, dtype=np.intp)
        fold[order] = np.arange(n_samples) % N_FOLDS
        is_last, is_end = rng.random_sample(n_samples) < 0.1, None
        if periods is not None:
            own = periods[rows]
            is_last = own == periods.max()
            is_end = (is_last | (own == 0)).astype(float)
        known = np.ones(targets.values.shape)
        if targets.missing is not None:
            known -= targets.missing
        return cls(targets.values.astype(float), known, fold, is_last, is_end)


class Entries(NamedTuple):
    """The values of a column as codes: one entry per row, or per element of lists."""

    codes: np.ndarray
    n_codes: int
    values: np.ndarray | list | None  # distinct values; the last code may be missing
    row: np.ndarray | None = None  # of each entry of lists

    @property
    def rows(self):
        """An index from the values of rows to those of entries."""
        return slice(None) if self.row is None else self.row

    def counts(self, weight, fold):
        """Return the weight of the entries by fold and code."""
        cell = fold[self.rows] * self.n_codes + self.codes
        counts = np.bincount(cell, weight[self.rows], N_FOLDS * self.n_codes)
        return counts.reshape(N_FOLDS, self.n_codes)


def describe_columns(table, names, inputs, rows):
    """Return the entries of the table of columns, one dict per column."""
    if issparse(table):
        return describe_sparse(table, names, inputs["sparse columns"], rows)
    found, many = [], {}
    for (name, entry), column in zip(inputs.items(), list_columns(table), strict=True):
        result, values = describe_column(name, entry, column, rows)
        found.append({"column": name, **result})
        if {"id", "category"} & {*result["flags"], entry.kind}:
            many[name] = values
    for result in found:
        if "category" in result["flags"] and is_determined(result["column"], many):
            result["flags"].remove("category")
    return found


def is_determined(name, columns):
    """Return whether the values of a column are those of another one, such as a user.

    Most of their gain is then that of the other column, which says more.
    """
    own = columns[name]
    for other in columns.values():
        if not own.n_codes < other.n_codes <= MAX_SHARE * len(own.codes):
            continue
        pairs = np.unique(other.codes * own.n_codes + own.codes)
        if len(pairs) <= MAX_PAIRS * other.n_codes:
            return True
    return False


def describe_column(name, entry, column, rows):
    """Return what is known of one column, and the `Entries` of its distinct values."""
    n_tasks, is_number = rows.y.shape[1], entry.kind == "numeric"
    result = {
        "kind": entry.kind,
        "values": np.nan,
        "missing": np.nan,
        "unseen": np.nan,
        "drift": np.nan,
        "auc": [np.nan] * n_tasks,
        "gain": np.nan,
        "encoding": entry.encoding,
        "vectors": entry.n_vectors,
        "width": entry.width,
        "flags": ["refused"] * bool(entry.error) + ["amounts"] * entry.has_amounts,
        "error": entry.error,
    }
    entries = None
    if is_number:
        entries, values = bin_entries(name, column)
        result["missing"] = np.isnan(values).mean()
        result["flags"] += ["id"] * looks_like_codes(column, name)
    elif entry.kind == "category":
        entries = category_entries(column)
        result["missing"] = np.mean(entries.codes == len(entries.values))
    elif entry.kind == "list of categories":
        lists = read_lists(column, name)
        row = np.repeat(np.arange(len(column)), np.maximum(lists.sizes, 0))
        entries = category_entries(lists.elements)._replace(row=row)
        result["missing"] = np.mean(lists.sizes < 0)
    else:
        result["missing"] = np.mean([is_missing(value) for value in column])
        return result, None
    of_values = entries
    if is_number:
        distinct, codes = np.unique(values, return_inverse=True)
        distinct = distinct[~np.isnan(distinct)]
        of_values = Entries(codes, len(distinct) + 1, distinct)
        if (distinct % 1 == 0).all() and 2 < len(distinct) <= MAX_SHARE * len(values):
            result["gain"], is_clear = category_gain(of_values, entries, rows)
            if is_clear and "id" not in result["flags"]:
                result["flags"].append("category")
    n_values = len(of_values.values)
    result["values"] = n_values
    if n_values < 2 and not 0 < result["missing"] < 1:
        result["flags"].append("constant")
    is_each = entries.row is None and n_values == len(column) > 100
    if is_each and not (is_number and (distinct % 1 != 0).any()):
        result["flags"].append("one value per row")
    if not is_number or {"id", "category"} & set(result["flags"]):
        result["unseen"] = unseen_share(of_values, rows.is_last)
        if result["unseen"] > MANY_NEW:
            result["flags"].append("new values")
    result["auc"] = [
        cross_fitted_auc(entries, rows.y[:, k], rows.known[:, k], rows.fold)
        for k in range(n_tasks)
    ]
    if rows.is_end is not None:
        last = rows.is_last.astype(float)
        result["drift"] = cross_fitted_auc(entries, last, rows.is_end, rows.fold)
    result["flags"] += auc_flags(result)
    return result, of_values


def describe_sparse(X, names, entry, rows):
    """Return what is known of the columns of a sparse matrix, all in one pass.

    The AUC is that of whether an entry is nonzero.
    """
    is_nonzero = X.astype(bool).astype(np.float64).T
    n_rows = np.ravel(is_nonzero.sum(axis=1))
    is_nan = X.copy()
    is_nan.data = np.isnan(X.data.astype(float)).astype(float)
    missing = np.ravel(is_nan.mean(axis=0))

    def auc(y, known):
        n_ones, n_zeros = y @ known, (1 - y) @ known
        if not n_ones or not n_zeros:
            return np.full(len(n_rows), np.nan)
        shares = is_nonzero @ (y * known) / n_ones, is_nonzero @ ((1 - y) * known)
        return 0.5 + np.abs(shares[0] - shares[1] / n_zeros) / 2

    of_tasks = [auc(y, known) for y, known in zip(rows.y.T, rows.known.T, strict=True)]
    drift = np.full(len(n_rows), np.nan)
    if rows.is_end is not None:
        drift = auc(rows.is_last.astype(float), rows.is_end)
    found = []
    for j, (name, n) in enumerate(zip(names, n_rows, strict=True)):
        result = {
            "column": name,
            "kind": entry.kind,
            "values": n,
            "missing": missing[j],
            "unseen": np.nan,
            "drift": drift[j],
            "auc": [of_task[j] for of_task in of_tasks],
            "gain": np.nan,
            "encoding": entry.encoding,
            "vectors": 1,
            "width": entry.width,
            "flags": [] if n else ["constant"],
            "error": "",
        }
        found.append(result)
        result["flags"] += auc_flags(result)
    return found


def auc_flags(result):
    """Return the flags of the AUC of one column."""
    found = {"leak": any(auc > LEAK for auc in result["auc"])}
    found["drift"] = result["drift"] > DRIFT
    return [flag for flag, holds in found.items() if holds]


def bin_entries(name, column):
    """Return the bins of a numeric column, and its values, NaN where missing."""
    encoder = NUMERIC_ENCODINGS["piecewise_linear"](name).fit(column)
    position, *_ = encoder.transform(column)
    values = to_float(column)
    n_bins = encoder.n_bins_ + 1
    codes = np.where(np.isnan(values), n_bins, position.astype(np.intp))
    return Entries(codes, n_bins + 1, None), values


def category_entries(column):
    """Return the codes of category values; the last one is that of missing values."""
    indices, values = factorize(column)
    codes = np.where(indices < 0, len(values), indices).astype(np.intp)
    return Entries(codes, len(values) + 1, values)


def unseen_share(entries, is_last):
    """Return the share of known entries of the last period that are new in it."""
    is_last = is_last[entries.rows]
    if is_last.all():
        return np.nan
    is_known = entries.codes < entries.n_codes - 1
    is_seen = np.zeros(entries.n_codes, dtype=bool)
    is_seen[entries.codes[~is_last]] = True
    last = entries.codes[is_last & is_known]
    return np.mean(~is_seen[last]) if len(last) else np.nan


def cross_fitted_auc(entries, y, known, fold):
    """Return the mean AUC over folds of the rates of values in the other folds.

    Parameters
    ----------
    entries : Entries
        The column.
    y, known : float ndarray of shape (n_samples,)
        Labels, and 1 for the rows that are used.
    fold : int ndarray of shape (n_samples,)
        Fold of each row.

    Returns
    -------
    float
        NaN if one label occurs only.
    """
    ones, n = entries.counts(y * known, fold), entries.counts(known, fold)
    found = []
    for k, rates in enumerate(rates_of_others(ones, n)):
        if entries.row is None:
            found.append(grouped_auc(rates, ones[k], n[k] - ones[k]))
            continue
        # The mean over the elements of each list; without any, the mean rate.
        row, used = entries.row, (fold == k) & (known > 0)
        sums, sizes = (
            np.bincount(row, w, len(y)) for w in (rates[entries.codes], None)
        )
        mean = np.where(sizes > 0, sums / np.maximum(sizes, 1), ones.sum() / n.sum())
        found.append(grouped_auc(mean[used], y[used], 1 - y[used]))
    found = [auc for auc in found if not np.isnan(auc)]
    return np.mean(found) if found else np.nan


def rates_of_others(ones, n, base=None):
    """Yield the shrunk rates of the codes in all folds but one, for each fold.

    They are shrunk to the mean rate, or to the rates `base` of each fold.
    """
    total = n.sum()
    rate = ones.sum() / total if total else 0.0
    if not 0 < rate < 1:
        return
    strength = PRIOR_EVENTS / min(rate, 1 - rate)
    for k in range(len(n)):
        mean = rate if base is None else base[k]
        other_ones, others = ones.sum(axis=0) - ones[k], n.sum(axis=0) - n[k]
        yield (other_ones + strength * mean) / (others + strength)


def grouped_auc(score, ones, zeros):
    """Return the AUC of scores with numbers of ones and zeros each, or NaN."""
    _, place = np.unique(score, return_inverse=True)
    ones, zeros = np.bincount(place, ones), np.bincount(place, zeros)
    n_pairs = ones.sum() * zeros.sum()
    return ones @ (zeros.cumsum() - zeros / 2) / n_pairs if n_pairs else np.nan


def category_gain(values, bins, rows):
    """Return the gain of AUC of distinct values over bins, and whether it is clear.

    The largest gain over the tasks is returned, among the clear ones if there are any.
    """
    bin_of_value = np.zeros(values.n_codes, dtype=np.intp)
    bin_of_value[values.codes] = bins.codes
    found = []
    for y, known in zip(rows.y.T, rows.known.T, strict=True):
        weights = y * known, known
        of_bins = [bins.counts(weight, rows.fold) for weight in weights]
        ones, n = (values.counts(weight, rows.fold) for weight in weights)
        by_bin = [rates[bin_of_value] for rates in rates_of_others(*of_bins)]
        by_value = rates_of_others(ones, n, by_bin)
        found.append(compare_rates(by_bin, by_value, ones, n - ones))
    clear = [gain for gain, z in found if z >= GAIN_Z and gain >= GAIN_AUC]
    return max(clear or [gain for gain, _ in found]), bool(clear)


def compare_rates(before, after, ones, zeros):
    """Return the gain of AUC of the second rates, and of log loss in standard errors.

    All arguments are by fold and code. The gain is NaN if there is one label only.
    """
    gains, total, squares = [], 0.0, 0.0
    for p, q, n_ones, n_zeros in zip(before, after, ones, zeros, strict=False):
        gains.append(grouped_auc(q, n_ones, n_zeros) - grouped_auc(p, n_ones, n_zeros))
        of_one, of_zero = np.log(q / p), np.log((1 - q) / (1 - p))
        total += n_ones @ of_one + n_zeros @ of_zero
        squares += n_ones @ of_one**2 + n_zeros @ of_zero**2
    n_rows = max(ones.sum() + zeros.sum(), 1.0)
    error = np.sqrt(squares - total**2 / n_rows)
    return np.mean(gains) if gains else np.nan, total / error if error > 0 else 0.0


def describe_depths(depth, task_names):
    """Return the numbers of rows by depth, one dict per depth that occurs."""
    found = []
    for value in range(-1, len(task_names) + 1):
        n_rows = int(np.count_nonzero(depth == value))
        reached = task_names[value - 1] if value > 0 else "none"
        text = "unknown" if value < 0 else reached
        if n_rows or value >= 0:
            share = n_rows / len(depth)
            found.append(
                {"depth": value, "reached": text, "rows": n_rows, "share": share}
            )
    return found


def describe_periods(targets, periods, starts):
    """Return the rates of the tasks by period, and over all rows without times."""
    known = np.ones(targets.values.shape)
    if targets.missing is not None:
        known -= targets.missing
    if periods is None:
        periods, starts = np.zeros(len(known), dtype=np.intp), ["all"]
    found = {"start": starts, "rows": np.bincount(periods).tolist()}
    for k, name in enumerate(targets.task_names):
        n = np.bincount(periods, known[:, k])
        ones = np.bincount(periods, targets.values[:, k])
        found[name] = (ones / np.where(n > 0, n, np.nan)).tolist()
    return [
        dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)
    ]


# What the flags of columns mean, in the order of the notes.
MEANINGS = {
    "leak": "One column alone ranks a task with an AUC above 0.95, which suggests a "
    "leak, a value that is known only after the event",
    "refused": "fit refuses these columns",
    "id": "Numbers that look like ids or codes, but would be encoded by their size; "
    "name those that are in categorical_features (gain of AUC as categories)",
    "category": "Whole numbers whose values say more as categories than by their size; "
    "try them in categorical_features (gain of AUC)",
    "amounts": "Categories of text that contain amounts; convert them to numbers",
    "one value per row": "Every row has another value; leave out numbers of rows",
    "constant": "One value, or none, in all rows; nothing can be learnt from it",
    "new values": "More than half of the rows of the last period, or of a random tenth "
    "without times, have values that no other row has",
    "drift": "The last period is told from the first by one column with an AUC above "
    "0.65",
}


def describe_labels(targets, estimator):
    """Return sentences about the labels."""
    notes = targets.problems()
    if targets.missing is not None and estimator.missing_labels == "error":
        n_missing = int(targets.missing.sum())
        notes.append(f"{n_missing:,} labels are missing: set missing_labels='ignore'.")
    return notes


def describe_problems(columns, task_names):
    """Return a sentence for each flag with its columns."""
    notes = []
    for flag, meaning in MEANINGS.items():
        own = [row for row in columns if flag in row["flags"]]
        if own:
            texts = [_flag_text(flag, row, task_names) for row in own]
            notes.append(f"{meaning}: {', '.join(texts)}.")
    return notes


def _flag_text(flag, row, task_names):
    name = repr(row["column"])
    if flag == "leak":
        best = int(np.nanargmax(row["auc"]))
        return f"{name} ({task_names[best]}, {row['auc'][best]:.3f})"
    if flag in ("id", "category") and not np.isnan(row["gain"]):
        return f"{name} ({row['gain']:+.3f})"
    if flag == "drift":
        return f"{name} ({row['drift']:.3f})"
    return f"{name} ({row['error'].rstrip('.')})" if flag == "refused" else name


class ImpressionsDescription:
    """A description of impressions, as :func:`describe_impressions` returns it.

    ``print`` shows it as text, and notebooks as HTML.

    Parameters
    ----------
    task_names : list of str
        Names of the tasks.
    depths, periods, columns : list of dict
        Rows of the tables, see the properties of the same names.
    notes : list of str
        Problems of the labels and of the columns, in sentences.
    n_samples, n_described : int
        Number of rows, and of those by which columns are described.
    has_times : bool
        Whether the last period is one of time, rather than random rows.

    See Also
    --------
    describe_impressions : Describes a table.
    """

    def __init__(
        self,
        *,
        task_names,
        depths,
        periods,
        columns,
        notes,
        n_samples,
        n_described,
        has_times,
    ):
        self.task_names = task_names
        self.notes = notes
        self.n_samples = n_samples
        self.n_described = n_described
        self.has_times = has_times
        self._depths, self._periods, self._columns = depths, periods, columns

    @property
    def depths(self):
        """Numbers of rows by funnel depth.

        Returns
        -------
        pandas.DataFrame or dict of str to ndarray
            A DataFrame if pandas is installed, otherwise a dict with the same columns:
            ``depth`` (-1 if a missing label leaves it unknown), ``reached`` (the last
            task that happened), ``rows`` and ``share``.
        """
        return _as_frame(self._depths)

    @property
    def periods(self):
        """Rates of the tasks by period; without times, over all rows.

        Returns
        -------
        pandas.DataFrame or dict of str to ndarray
            ``start`` (the first time of the period), ``rows``, and the rate of each
            task among the rows with its label.
        """
        return _as_frame(self._periods)

    @property
    def columns(self):
        """What is known of the columns, and what the estimator would do with them.

        Returns
        -------
        pandas.DataFrame or dict of str to ndarray
            One row per column of ``X``:

            - ``column``: its name or index;
            - ``kind``: how it is read, or "refused";
            - ``values``: number of distinct values; of nonzero ones in sparse columns;
            - ``missing``: share of missing values;
            - ``unseen``: share of rows of the last period, a random tenth without
              times, whose value does not occur in the other rows; of categories and
              of numbers that look like them;
            - ``drift``: AUC of telling the last period from the first, NaN without
              times;
            - ``auc_<task>``: cross-fitted AUC of the column alone;
            - ``gain``: gain of this AUC if whole numbers are read as categories;
            - ``encoding``, ``vectors`` and ``width``: how the network reads it, its
              number of embeddings, and its inputs of the first layer;
            - ``flags``: words for the problems of the notes, separated by commas.
        """
        rows = []
        for row in self._columns:
            row = {k: v for k, v in row.items() if k not in ("auc", "error")} | {
                f"auc_{name}": auc
                for name, auc in zip(self.task_names, row["auc"], strict=True)
            }
            rows.append({**row, "flags": ", ".join(row["flags"])})
        return _as_frame(rows)

    def flagged(self, flag):
        """Return the names of the columns with a flag.

        Parameters
        ----------
        flag : str
            One of the flags in ``columns``: "leak", "refused", "id", "category",
            "amounts", "one value per row", "constant", "new values" or "drift".

        Returns
        -------
        list of str or int
            Names or indices of columns.

        Raises
        ------
        ValueError
            If there is no such flag.
        """
        if flag not in MEANINGS:
            raise ValueError(f"flag must be one of {list(MEANINGS)}, got {flag!r}.")
        return [row["column"] for row in self._columns if flag in row["flags"]]

    def __repr__(self):
        lines = [self._title()]
        for header, cells, sides in self._tables():
            lines += ["", *aligned([header, *cells[:MAX_LINES]], sides)]
            if len(cells) > MAX_LINES:
                lines.append(f"and {len(cells) - MAX_LINES:,} more")
        for note in self._all_notes():
            lines += ["", *textwrap.wrap(note, WIDTH)]
        return "\n".join(lines)

    def _repr_html_(self):
        parts = [f"<p>{escape(self._title())}</p>"]
        for header, cells, _ in self._tables():
            rows = ["".join(f"<th>{escape(cell)}</th>" for cell in header)]
            rows += ["".join(f"<td>{escape(c)}</td>" for c in row) for row in cells]
            body = "".join(f"<tr>{row}</tr>" for row in rows)
            parts.append(f"<table>{body}</table>")
        notes = "".join(f"<li>{escape(note)}</li>" for note in self._all_notes())
        return f"<div>{''.join(parts)}<ul>{notes}</ul></div>"

    def _title(self):
        text = f"{self.n_samples:,} rows, {len(self._columns):,} columns; tasks: "
        text += ", ".join(self.task_names)
        if self.n_described < self.n_samples:
            text += f". Columns: a random sample of {self.n_described:,} rows"
        return text

    def _all_notes(self):
        last = "the last period" if self.has_times else "a random tenth of the rows"
        drift = " drift: AUC of last against first period." if self.has_times else ""
        return [
            f"unseen: share of {last} with values that no other row has.{drift} AUC: "
            "of the column alone, cross-fitted. width: inputs of the first layer.",
            *(f"* {note}" for note in self.notes),
        ]

    def _tables(self):
        """Yield header, cells and sides of each table."""
        cells = [
            (f"{r['depth']}: {r['reached']}", f"{r['rows']:,}", f"{r['share']:.2%}")
            for r in self._depths
        ]
        yield ("depth", "rows", "share"), cells, "<>>"
        cells = [
            (r["start"], f"{r['rows']:,}", *(_share(r[n], 2) for n in self.task_names))
            for r in self._periods
        ]
        header = ("period from", "rows", *map(_short, self.task_names))
        yield header, cells, "<>" + ">" * len(self.task_names)
        shown = list(range(len(self.task_names)))
        shown = shown if len(shown) <= 3 else [shown[0], shown[-1]]
        header = ["column", "kind", "values", "missing", "unseen"]
        header += ["drift"] * self.has_times
        above = [""] * len(header) + ["AUC"] * len(shown) + ["input", ""]
        header += [_short(self.task_names[k], 10) for k in shown]
        cells = [[*header, "width", "encoding"]]
        for row in self._columns:
            text = [_short(str(row["column"])), row["kind"].partition(" of ")[0]]
            text += ["" if np.isnan(row["values"]) else f"{row['values']:,.0f}"]
            text += [_share(row["missing"]), _share(row["unseen"])]
            text += [_score(row["drift"])] * self.has_times
            text += [_score(row["auc"][k]) for k in shown]
            cells.append([*text, str(row["width"]), row["encoding"]])
        yield above, cells, "<<" + ">" * (len(header) - 1) + "<"


def _as_frame(rows):
    columns = {}
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows]
        is_text = isinstance(values[0], str)
        columns[name] = np.array(values, dtype=object if is_text else None)
    return result_frame(columns)


def _short(name, longest=MAX_NAME):
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _share(value, digits=1):
    return "" if np.isnan(value) else f"{value:.{digits}%}"


def _score(value):
    return "" if np.isnan(value) else f"{value:.3f}"

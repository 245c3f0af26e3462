"""Folds with equal shares of funnel depths, by time, and of whole groups."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Self

import numpy as np
from sklearn.model_selection import (
    BaseCrossValidator,
    StratifiedGroupKFold,
    StratifiedKFold,
)
from sklearn.model_selection._split import GroupsConsumerMixin
from sklearn.utils import check_random_state, column_or_1d, indexable
from sklearn.utils.validation import _num_samples

from sk_pwiser._columns._frames import collected, column_of
from sk_pwiser._columns._history_names import history_column
from sk_pwiser._responses import check_rows
from sk_pwiser._tasks._groups import sort_groups
from sk_pwiser._tasks._stratify import event_columns, funnel_strata, merge_rare
from sk_pwiser._tasks._tree import CHAIN
from sk_pwiser._times import (
    check_duration,
    date_columns,
    read_duration,
    read_times,
    times_of,
)
from sk_pwiser._utils._checks import check_integer
from sk_pwiser._utils._warnings import warn_user

# Training and test rows.
Split = tuple[np.ndarray, np.ndarray]


class FunnelStratifiedKFold(StratifiedKFold):
    """Stratified K-fold over the funnel depth of a multi-task ``y``.

    Every fold has the same proportions of the depths (see :func:`funnel_depth`) as the
    whole data, up to whole rows.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.
    shuffle : bool, default=True
        Whether to shuffle the rows of each depth before splitting them into folds.
        Unlike in :class:`~sklearn.model_selection.StratifiedKFold`, the default is
        True, because logs are ordered by time or by user.
    random_state : int, RandomState instance or None, default=None
        Seed of the shuffling; an int gives the same folds at every call. Must be
        None if ``shuffle=False``.
    task_parents : "chain", None or dict, default="chain"
        Which task presupposes which, see
        :class:`~sk_pwiser.MultiTaskCTRCVRClassifier`; names are those of the columns of
        ``y``, or indices. If the tasks are no funnel, rows are stratified by the last
        of the tasks that they reached.
    value_columns : list of str or int, or dict, default=None
        Columns of ``y`` with amounts, which are no labels, by name or index; or the
        `value_tasks` of the estimator.

    See Also
    --------
    sklearn.model_selection.StratifiedKFold : The same over the classes of a 1-D ``y``.

    Notes
    -----
    A depth with fewer rows than folds cannot occur in every fold. It is stratified
    together with the next shallower depth, or the shallowest depth with the next deeper
    one. One ``UserWarning`` lists these depths and their numbers of rows.

    Labels may be missing; a missing label before a 1 counts as 1. Rows of unknown depth
    form separate strata, one for each number of tasks that are known to be 1, so that
    every fold has the same share of them.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_pwiser.model_selection import FunnelStratifiedKFold
    >>> Y = np.array([[0, 0]] * 6 + [[1, 0]] * 4 + [[1, 1]] * 2)
    >>> X = np.zeros((12, 1))
    >>> cv = FunnelStratifiedKFold(n_splits=2, random_state=0)
    >>> for train, test in cv.split(X, Y):
    ...     print(Y[test].sum(axis=0).tolist())
    [3, 1]
    [3, 1]
    """

    # Of folds that were pickled before there were values.
    value_columns: Any = None

    def __init__(
        self,
        n_splits: int = 5,
        *,
        shuffle: bool = True,
        random_state: int | np.random.RandomState | None = None,
        task_parents: Any = "chain",
        value_columns: Any = None,
    ) -> None:
        super().__init__(n_splits=n_splits, shuffle=shuffle, random_state=random_state)
        self.task_parents = task_parents
        self.value_columns = value_columns

    def split(self, X: Any, y: Any, groups: Any = None) -> Iterator[Split]:
        """Generate the row indices of the training and test set of each fold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Only its length is used; ``np.zeros(n_samples)`` is sufficient.
        y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            Labels, 0 or 1; the tasks in funnel order. They may be missing. The labels
            of a single task may have any two values. It may also have the
            `value_columns`.
        groups : object, default=None
            Ignored; exists for compatibility.

        Returns
        -------
        splits : iterator of (ndarray, ndarray)
            Training and test indices, ``n_splits`` pairs.

        Raises
        ------
        ValueError
            If a label is neither 0 nor 1, if ``X`` and ``y`` have different lengths, or
            if there are fewer rows than folds.
        """
        # Not a generator itself, so that a bad y raises at the call.
        X = collected(X)
        y = collected(y)
        strata = strata_of_folds(
            y, self.n_splits, self.task_parents, self.value_columns
        )
        # Within folds, the indices of X and y in another order differ.
        check_rows(X, len(strata), y=y)
        return super().split(X, strata, groups)


class FunnelTimeSplit(BaseCrossValidator):
    """Folds in the order of time, with conversions in every part.

    Each test part is a period, and its training part all rows before it, as a model
    would be trained in operation. A random split puts rows of the same session into
    both parts, and trains on the future.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 1.
    time : str or array-like of shape (n_samples,)
        The name of a column of ``X``, or the times of the rows. Dates, or numbers of
        any unit. The rows may be in any order, and rows of equal time are not split.
    gap : duration, default=0
        Training rows end this long before the test part begins, for example the delay
        after which labels are known: a number, in the unit of the times (in seconds if
        these are dates), a text such as "1h" or "7d", or a timedelta.
    min_conversions : int, default=1
        The least number of rows in each part in which the last task happened, and all
        that it presupposes.
    task_parents : "chain", None or dict, default="chain"
        Which task presupposes which, as in :class:`FunnelStratifiedKFold`.
    value_columns : list of str or int, or dict, default=None
        Columns of ``y`` with amounts, which are no labels, by name or index; or the
        `value_tasks` of the estimator.

    See Also
    --------
    sklearn.model_selection.TimeSeriesSplit : Folds by the order of the rows.
    sk_pwiser.history.HistoryFeatures : What was known at the time of each row.

    Notes
    -----
    Test parts are consecutive periods at the end of the log, of ``n_samples //
    (n_splits + 1)`` rows each, up to rows of equal time. A part with fewer than
    `min_conversions` conversions begins earlier. Labels may be missing. A row counts as
    a conversion if the last task is known to be 1, and none that it presupposes is 0.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_pwiser.model_selection import FunnelTimeSplit
    >>> time = np.array([3, 1, 2, 4, 5, 6])
    >>> Y = np.array([[1, 1], [1, 1], [0, 0], [1, 1], [1, 0], [1, 1]])
    >>> cv = FunnelTimeSplit(n_splits=2, time=time)
    >>> for train, test in cv.split(np.zeros((6, 1)), Y):
    ...     print(time[train].tolist(), time[test].tolist())
    [1, 2] [3, 4]
    [1, 2, 3, 4] [5, 6]
    """

    # Of folds that were pickled before there were values.
    value_columns: Any = None

    def __init__(
        self,
        n_splits: int = 5,
        *,
        time: Any,
        gap: Any = 0,
        min_conversions: int = 1,
        task_parents: Any = "chain",
        value_columns: Any = None,
    ) -> None:
        self.task_parents = task_parents
        self.value_columns = value_columns
        self.n_splits = n_splits
        self.time = time
        self.gap = gap
        self.min_conversions = min_conversions

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of folds.

        Parameters
        ----------
        X, y, groups : object, default=None
            Ignored; exist for compatibility.

        Returns
        -------
        int
            The number of folds.
        """
        return self.n_splits

    def split(self, X: Any, y: Any, groups: Any = None) -> Iterator[Split]:
        """Generate the row indices of the training and test set of each fold.

        Parameters
        ----------
        X : table or array-like of shape (n_samples, n_features)
            The rows. Only the column of times is read.
        y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            Labels, 0 or 1; the tasks in funnel order. It may also have the
            `value_columns`.
        groups : object, default=None
            Ignored; exists for compatibility.

        Returns
        -------
        splits : iterator of (ndarray, ndarray)
            Training and test indices, in the order of time, ``n_splits`` pairs.

        Raises
        ------
        ValueError, TypeError
            If a parameter is invalid, if times are missing or cannot be sorted, or if
            there are too few rows or conversions.
        """
        # Not a generator itself, so that bad input raises at the call.
        check_integer("n_splits", self.n_splits, at_least=1)
        check_integer("min_conversions", self.min_conversions, at_least=0)
        check_duration(self.gap, "gap", zero=True)
        y = collected(y)
        times = times_of(X, self.time)
        gap = read_duration(self.gap, "gap", times.kind)
        events, hint = event_columns(y, self.value_columns)
        strata = funnel_strata(events, self.task_parents, "y", hint)
        if len(strata) != len(times.values):
            raise ValueError(f"time has {len(times.values)} rows, y has {len(strata)}.")
        check_rows(X, len(strata), y=y, time=self.time)
        order = np.argsort(times.values, kind="stable")
        shape = getattr(events, "shape", None) or np.shape(events)
        n_tasks = shape[1] if len(shape) > 1 else 1
        is_conversion = (strata == 2 * n_tasks)[order]
        sorted_times = times.values[order]
        n_samples = len(order)
        # counts[i] is the number of conversions in the first i rows: two entries tell
        # the number in any part.
        counts = np.append(0, is_conversion.cumsum())
        size = n_samples // (self.n_splits + 1)
        end = n_samples
        splits = []
        # From the end: a part that begins earlier to have its conversions moves those
        # before it.
        for fold in range(self.n_splits, 0, -1):
            # The last start with enough conversions, if any.
            count_at_start = counts[end] - self.min_conversions
            latest = int(np.searchsorted(counts, count_at_start, side="right")) - 1
            start = max(min(end - max(size, 1), latest), 0)
            # Rows of equal time are in one part.
            start = int(np.searchsorted(sorted_times, sorted_times[start]))
            end_of_training = int(
                np.searchsorted(sorted_times, sorted_times[start] - gap)
            )
            if end_of_training == 0 or counts[end_of_training] < self.min_conversions:
                raise ValueError(
                    f"n_splits={self.n_splits} with "
                    f"min_conversions={self.min_conversions} and gap={self.gap!r} is "
                    f"not possible: in {n_samples} rows with {counts[-1]} conversions, "
                    f"a part of fold {fold} would have too few conversions, or no rows."
                )
            splits.append((order[:end_of_training], order[start:end]))
            end = start
        return iter(splits[::-1])


class FunnelGroupKFold(GroupsConsumerMixin, FunnelStratifiedKFold):
    """K-fold that keeps groups whole and has funnel depths in similar proportions.

    Rows of one group, such as a user, are all in the training part or all in the test
    part of a fold, so that a model is tested on users that it has not seen. The folds
    have about the same proportions of the depths, see :func:`funnel_depth`, as far as
    whole groups allow.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.
    shuffle : bool, default=True
        Whether to shuffle the groups before they are assigned to folds.
    random_state : int, RandomState instance or None, default=None
        Seed of the shuffling; an int gives the same folds at every call. Must be
        None if ``shuffle=False``.
    task_parents : "chain", None or dict, default="chain"
        Which task presupposes which, as in :class:`FunnelStratifiedKFold`.
    value_columns : list of str or int, or dict, default=None
        Columns of ``y`` with amounts, which are no labels, by name or index; or the
        `value_tasks` of the estimator.

    See Also
    --------
    FunnelStratifiedKFold : The same without groups.
    sklearn.model_selection.StratifiedGroupKFold : The same over the classes of a 1-D
        ``y``.

    Notes
    -----
    A depth with fewer rows than folds is stratified together with a neighbouring one,
    as in :class:`FunnelStratifiedKFold`.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_pwiser.model_selection import FunnelGroupKFold
    >>> Y = np.array([[0, 0], [1, 1], [0, 0], [1, 1], [0, 0], [0, 0]])
    >>> users = np.array(["a", "a", "b", "b", "c", "d"])
    >>> cv = FunnelGroupKFold(n_splits=2, random_state=0)
    >>> for train, test in cv.split(np.zeros((6, 1)), Y, users):
    ...     print(np.unique(users[train]).tolist(), np.unique(users[test]).tolist())
    ['a', 'd'] ['b', 'c']
    ['b', 'c'] ['a', 'd']
    """

    def split(self, X: Any, y: Any, groups: Any = None) -> Iterator[Split]:
        """Generate the row indices of the training and test set of each fold.

        The parameters are those of :class:`FunnelStratifiedKFold`, but `groups`, of
        shape (n_samples,), must have one value per row, a number or text.

        Raises
        ------
        ValueError
            If a label is invalid, a group missing, or there are too few groups.
        """
        if groups is None:
            raise ValueError("groups must be one group per row; got None.")
        y = collected(y)
        X, groups = indexable(collected(X), collected(groups))
        check_rows(X, len(groups), groups=groups, y=y)
        groups = groups if np.ndim(groups) == 1 else column_or_1d(groups)
        # As numbers, since scikit-learn sorts groups, which may be texts of any
        # library.
        codes = sort_groups(groups, len(groups))
        n_groups = codes.max(initial=-1) + 1
        if n_groups < self.n_splits:
            raise ValueError(
                f"n_splits must be at most the {n_groups} groups, got {self.n_splits}."
            )
        strata = strata_of_folds(
            y, self.n_splits, self.task_parents, self.value_columns
        )
        if self.shuffle:
            # scikit-learn 1.6 mixes up the counts of groups if it shuffles them itself.
            order = check_random_state(self.random_state).permutation(n_groups)
            codes = order.argsort()[codes]
        return StratifiedGroupKFold(self.n_splits).split(X, strata, codes)


def strata_of_folds(
    y: Any, n_splits: int, task_parents: Any = CHAIN, value_columns: Any = None
) -> np.ndarray:
    """Return strata that can occur in every fold; warn if depths were merged."""
    events, hint = event_columns(y, value_columns)
    strata = funnel_strata(events, task_parents, "y", hint)
    stratum_of, rare = merge_rare(np.bincount(strata), min_rows=n_splits)
    # With fewer rows than folds scikit-learn raises, so no warning is needed.
    if rare and len(strata) >= n_splits:
        counts = ", ".join(
            f"{_describe(stratum)} ({n_rows} rows)" for stratum, n_rows in rare
        )
        warn_user(
            f"Fewer rows than n_splits={n_splits} in {counts}: too few for every fold, "
            "so stratified together with a neighbouring depth."
        )
    return stratum_of[strata]


def _describe(stratum: int) -> str:
    """Return a stratum of `funnel_strata` in words."""
    depth, is_unknown = divmod(stratum, 2)
    return f"depth {depth} or more, unknown" if is_unknown else f"depth {depth}"


def warn_about_random_folds(
    estimators: Iterable[Any],
    X: Any,
    cv: Any,
    splits: Sequence[Split],
    groups: Any = None,
) -> None:
    """Warn once if folds train on rows from after the start of their test part.

    With columns of the past, but no times, rows are taken to be in the order of time.
    Folds of groups, by time, and splits given one by one are chosen on purpose.
    """
    groups = None if groups is None else np.asarray(groups)
    if groups is not None and all(
        not np.isin(groups[test], groups[train]).any() for train, test in splits
    ):
        return
    orders = (_order_of_rows(estimator, X) for estimator in estimators)
    order = next((order for order in orders if order is not None), None)
    if order is None:
        names = getattr(X, "column_names", getattr(X, "columns", ()))
        column = history_column(names)
        is_listed = not (cv is None or isinstance(cv, Integral) or hasattr(cv, "split"))
        if column is None or is_listed or hasattr(cv, "time"):
            return
        order = _RowOrder(
            column="...",
            times=np.arange(_num_samples(X)),
            reason=f"X has {column!r} of HistoryFeatures",
        )
    times = order.times
    if any(times[train].max() > times[test].min() for train, test in splits):
        warn_user(
            f"{order.reason}, but cv={cv!r} trains on rows from after the start of the "
            "test part, as no model can in operation, and the scores are optimistic. "
            f"Set cv=FunnelTimeSplit(time={order.column!r}) to test on later rows."
        )


@dataclass(frozen=True, kw_only=True)
class _RowOrder:
    """The order of rows in time."""

    column: Any  # name or index of the column of times
    times: np.ndarray
    reason: str  # why this column orders the rows, for a warning

    @classmethod
    def by_column(cls, X: Any, column: Any, reason: str) -> Self:
        """Return the order by a column of a table; raise if it has no times."""
        times = read_times(column_of(X, "time", column), column).values
        return cls(column=column, times=times, reason=reason)


def _order_of_rows(estimator: Any, X: Any) -> _RowOrder | None:
    """Return the `_RowOrder` by which an estimator takes rows, None without one."""
    params = estimator.get_params()
    if any(key.endswith("encoding_params") for key in params):
        names, is_date = date_columns(X)
        if is_date.count(True) == 1:
            name = names[is_date.index(True)]
            return _RowOrder.by_column(X, name, f"X has one column of dates, {name!r}")
    for key, value in params.items():
        if key.endswith("encoding_params__time_column") and value is not None:
            column = value
            reason = f"encoding_params has time_column={value!r}"
        elif hasattr(value, "label_delay") and hasattr(value, "replay"):
            column = value.time
            reason = f"HistoryFeatures has time={value.time!r}"
        else:
            continue
        try:
            return _RowOrder.by_column(X, column, reason)
        except (ValueError, TypeError, IndexError):  # made by an earlier step
            continue
    return None

"""The AUC within groups of rows, such as all impressions of a user."""

import warnings

import numpy as np
from scipy.stats import rankdata
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils import check_consistent_length, column_or_1d

from sk_pwiser._responses import check_task
from sk_pwiser._table._frames import column_of
from sk_pwiser._table._weights_and_groups import check_groups
from sk_pwiser.metrics._task_scorer import TaskScorer


def grouped_auc(y_true, y_score, groups, *, return_share=False):
    """Compute the mean ROC AUC within groups, weighted by the sizes of the groups.

    Impressions are usually ranked within a user, a page or an auction, where it does
    not help to distinguish users. Groups with only one class have no AUC and are left
    out.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Labels, 0 or 1.
    y_score : array-like of shape (n_samples,)
        Predicted scores: probabilities or logits.
    groups : array-like of shape (n_samples,)
        Group of each row.
    return_share : bool, default=False
        Whether to also return the share of rows in groups with both classes. If it is
        small, the AUC only describes a few, untypical groups.

    Returns
    -------
    auc : float
        The mean AUC. NaN, with an ``UndefinedMetricWarning``, if no group has both
        classes.
    share : float
        Share of rows in groups with both classes, in [0, 1]. Only returned if
        ``return_share=True``.

    Raises
    ------
    ValueError
        If the lengths differ, if a label is neither 0 nor 1, if a score is NaN, or if a
        group is missing.

    See Also
    --------
    make_grouped_auc_scorer : A scorer of this metric.

    References
    ----------
    Zhu et al. (2017). "Optimized cost per click in Taobao display advertising." KDD.
    :doi:`10.1145/3097983.3098134`

    Examples
    --------
    >>> from sk_pwiser.metrics import grouped_auc
    >>> y, score = [0, 1, 0, 1, 0, 0], [0.1, 0.2, 0.9, 0.8, 0.3, 0.4]
    >>> grouped_auc(y, score, ["a", "a", "b", "b", "c", "c"], return_share=True)
    (0.5, 0.6666666666666666)
    """
    y, score, codes = _check(y_true, y_score, groups)
    auc, share = auc_within(y, score, codes)
    if np.isnan(auc):
        warnings.warn(
            "grouped_auc is undefined and set to nan: no group has both classes.",
            UndefinedMetricWarning,
            stacklevel=2,
        )
    return (auc, share) if return_share else auc


def auc_within(y, score, codes):
    """Return the mean AUC of groups with both classes, and their share of the rows.

    Groups have the weight of their rows. The AUC is NaN if none has both classes.
    """
    # Ranks over all rows have the same order and ties within each group as the scores.
    ranks = rankdata(score, method="dense")
    order = np.lexsort([ranks, codes])
    codes, ranks, y = codes[order], ranks[order], y[order]
    # Rows of a group with equal scores are consecutive, and share their mean position.
    starts = np.flatnonzero(np.r_[True, (np.diff(codes) != 0) | (np.diff(ranks) != 0)])
    lengths = np.diff(np.r_[starts, len(codes)])
    position = np.repeat(starts + (lengths - 1) / 2, lengths)
    size = np.bincount(codes)
    first = np.cumsum(size) - size
    positives = np.bincount(codes, weights=y)
    # The Mann-Whitney statistic, with positions in the group counted from 0.
    total = np.bincount(codes, weights=y * (position - first[codes]))
    total -= positives * (positives - 1) / 2
    mixed = (positives > 0) & (positives < size)
    share = float(size[mixed].sum() / size.sum())
    if not mixed.any():
        return np.nan, share
    aucs = total[mixed] / (positives * (size - positives))[mixed]
    return float(np.average(aucs, weights=size[mixed])), share


def _check(y_true, y_score, groups):
    """Return labels, scores and the group of each row as an index."""
    y = column_or_1d(y_true, dtype=np.float64)
    score = column_or_1d(y_score, dtype=np.float64)
    groups = groups if np.ndim(groups) == 1 else column_or_1d(groups)
    check_consistent_length(y, score, groups)
    if len(y) == 0:
        raise ValueError("y_true must have at least one row, got 0.")
    is_wrong = (y != 0) & (y != 1)
    if is_wrong.any():
        raise ValueError(f"y_true must be 0 or 1, got {y[is_wrong.argmax()]:g}.")
    if np.isnan(score).any():
        raise ValueError(f"y_score must not be NaN; row {np.isnan(score).argmax()} is.")
    return y, score, check_groups(groups, len(y))


def make_grouped_auc_scorer(task, *, groups=None):
    """Make a scorer of the mean ROC AUC within groups, for one task or their mean.

    Parameters
    ----------
    task : int or str
        The task to score: its index, its name, ``"cvr"`` or ``"mean"``, as in
        :func:`make_task_scorer`.
    groups : str, default=None
        The column of ``X`` with the group of each row. If None, the groups are passed
        to the scorer, by the caller or by metadata routing.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, Y, groups=None)`` returns a float, see
        :func:`grouped_auc`. It is NaN, with an ``UndefinedMetricWarning``, if no group
        has both classes.

    Raises
    ------
    TypeError
        If ``task`` is neither an int nor a str, or ``groups`` is not a str.

    See Also
    --------
    grouped_auc : The metric.

    Notes
    -----
    With metadata routing the scorer requests ``groups``, which searches and
    ``cross_validate`` then pass to it and to splitters such as
    :class:`~sk_pwiser.model_selection.FunnelGroupKFold`; ``set_score_request`` gives it
    another name, in place. A scorer that reads a column requests nothing.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sk_pwiser.metrics import make_grouped_auc_scorer
    >>> X = pd.DataFrame({"user": [1, 1, 2, 2], "price": [1.0, 2.0, 1.0, 2.0]})
    >>> y = np.array([1, 0, 1, 0])
    >>> model = LogisticRegression().fit(X, y)
    >>> make_grouped_auc_scorer(0, groups="user")(model, X, y)
    1.0
    """
    if groups is not None and not isinstance(groups, str):
        raise TypeError(
            f"groups must be None or the name of a column of X; got {groups!r}."
        )
    return _GroupedAUCScorer(check_task(task), groups)


class _GroupedAUCScorer(TaskScorer):
    """The scorer that :func:`make_grouped_auc_scorer` returns."""

    def __init__(self, task, column):
        super().__init__(grouped_auc, task, True, "predict_proba", {})
        self._column = column
        # Groups are always needed, so that routing passes them without being told.
        self._alias = True

    def __call__(self, estimator, X, y, groups=None):
        """Score a fitted estimator; see :func:`make_grouped_auc_scorer`."""
        return self._score(None, estimator, X, y, groups=groups)

    def __repr__(self):
        column = "" if self._column is None else f", groups={self._column!r}"
        return f"make_grouped_auc_scorer({self._task!r}{column})"

    def _check_metadata(self, X, targets, names, groups=None):
        if self._column is not None:
            if groups is not None:
                raise ValueError(
                    f"groups must be None, since {self!r} reads them from X."
                )
            groups = np.asarray(column_of(X, "groups", self._column))
        elif groups is None:
            raise ValueError(
                f"{self!r} needs groups: pass them to it, name a column of X, or pass "
                "params={'groups': ...} with enable_metadata_routing=True."
            )
        groups = column_or_1d(groups)
        if len(groups) != len(targets):
            raise ValueError(
                f"groups must have one entry per row, {len(targets)}; got "
                f"{len(groups)}."
            )
        return groups

    def _evaluate(self, y_true, y_pred, groups):
        if not len(y_true):
            return np.nan, "no rows to score"
        with warnings.catch_warnings():
            # The scorer warns once for all tasks, with their names.
            warnings.simplefilter("ignore", UndefinedMetricWarning)
            value = grouped_auc(y_true, y_pred, groups)
        return value, "no group with both classes" if np.isnan(value) else None

    def set_score_request(self, *, groups):
        """Set, in place, whether routing passes groups: a bool, None or an alias."""
        return self._set_alias(groups)

    def _accept_sample_weight(self):
        return False

    def _requested(self):
        return "groups" if self._column is None else None

"""The funnel depth of rows, and parts of them with equal shares of every depth."""

import math
from collections.abc import Mapping
from numbers import Integral, Real

import numpy as np
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.random import sample_without_replacement

from sk_pwiser._columns._frames import collected
from sk_pwiser._tasks._amounts import split_columns
from sk_pwiser._tasks._groups import sort_groups
from sk_pwiser._tasks._implied_labels import implied_ones
from sk_pwiser._tasks._labels import (
    binary_labels,
    names_of_columns,
    read_labels,
    zero_one_labels,
)
from sk_pwiser._tasks._row_match import check_match
from sk_pwiser._tasks._tree import CHAIN, read_task_parents

# A drawn group has at most this share of the drawn rows, if there are enough others.
LARGEST_SHARE_OF_GROUP = 0.2


def funnel_depth(Y):
    """Count, for each row, the leading tasks that are 1.

    Parameters
    ----------
    Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
        Labels, 0 or 1; the tasks in funnel order, the click first. Labels may be
        missing. The labels of a single task may have any two values; the second one in
        increasing order counts as 1.

    Returns
    -------
    depth : ndarray of int of shape (n_samples,)
        From 0 (the first task is 0) to ``n_tasks`` (all tasks are 1). A label after a 0
        does not count, so a conversion without a click has depth 0. A missing label
        before a 1 counts as 1, since the later event presupposes it. If any other label
        before the first 0 is missing, the depth is unknown and is -1: for example, a
        click with a missing conversion may have depth 1 or 2.

    Raises
    ------
    ValueError
        If ``Y`` is neither 1-D nor 2-D, or if a label is neither 0 nor 1.

    Examples
    --------
    >>> from sk_pwiser.model_selection import funnel_depth
    >>> funnel_depth([[0, 0], [1, 0], [1, 1], [0, 1]]).tolist()
    [0, 1, 2, 0]
    >>> funnel_depth([[0, None], [1, None], [None, 0], [None, 1]]).tolist()
    [0, -1, -1, 2]
    """
    return depth_in_tree(Y)


def event_columns(Y, value_columns):
    """Return labels without the columns of amounts, and what to do if there are others.

    The latter ends the message about labels that are neither 0 nor 1.
    """
    is_list = isinstance(value_columns, list | tuple | Mapping)
    if value_columns is not None and not is_list:
        raise TypeError(
            "value_columns must be a list of columns with amounts, by name or index, "
            f"the value_tasks of an estimator, or None; got {value_columns!r}."
        )
    if not value_columns:
        shape = getattr(Y, "shape", None) or np.shape(Y)
        has_several = len(shape) == 2 and shape[1] > 1
        return Y, " Name columns of amounts in value_columns." if has_several else ""
    for column in value_columns:
        if isinstance(column, bool) or not isinstance(column, str | Integral):
            raise TypeError(
                f"Each of value_columns must be a name or an index; got {column!r}."
            )
    events, _, _ = split_columns(
        Y,
        dict.fromkeys(value_columns),
        names_of_columns(Y),
        parameter="value_columns",
    )
    return events, ""


def depth_in_tree(Y, task_parents=CHAIN):
    """Return 1 plus the last task reached by the tree, 0 for none, -1 if unknown."""
    strata = funnel_strata(Y, task_parents)
    return np.where(strata % 2, -1, strata // 2)


def funnel_holdout(
    Y,
    *,
    test_size=0.25,
    random_state=None,
    groups=None,
    task_parents=CHAIN,
    value_columns=None,
):
    """Split rows once into training and test indices, stratified by funnel depth.

    Every depth (see :func:`funnel_depth`) contributes its share of the test rows,
    rounded by largest remainder. This is how the estimator selects its validation rows
    for early stopping.

    Parameters
    ----------
    Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
        Labels, 0 or 1; the tasks in funnel order, the click first. Labels may be
        missing; rows of unknown depth are separate strata, as in
        :class:`FunnelStratifiedKFold`. The labels of a single task may have any two
        values.
    test_size : float, default=0.25
        Fraction of the rows in the test set, in (0, 1). The number of test rows is
        rounded up, but each set contains at least one row.
    random_state : int, RandomState instance or None, default=None
        Seed of the selection; an int gives the same split at every call.
    groups : array-like of shape (n_samples,), default=None
        Groups of rows, such as sessions, which are not split. The groups are stratified
        by the depth of their deepest row. `test_size` remains a fraction of the rows:
        groups are drawn in a random order, and those that would exceed it by more than
        half of their rows are passed over. A group with most of the rows, such as that
        of all guests, is thus never in the test set.
    task_parents : "chain", None or dict, default="chain"
        Which task presupposes which, see
        :class:`~sk_pwiser.MultiTaskCTRCVRClassifier`; names are those of the columns of
        `Y`, or indices. If the tasks are no funnel, rows are stratified by the last of
        the tasks that they reached.
    value_columns : list of str or int, or dict, default=None
        Columns of `Y` with amounts, which are no labels, by name or index; or the
        `value_tasks` of the estimator.

    Returns
    -------
    train : ndarray of int of shape (n_train,)
        Row indices of the training set, sorted.
    test : ndarray of int of shape (n_test,)
        Row indices of the test set, sorted.

    Raises
    ------
    ValueError
        If ``test_size`` is outside (0, 1), if there are fewer than two rows or groups,
        if a group is missing, if the groups have the index of `Y` in another order, or
        if a label is neither 0 nor 1.

    See Also
    --------
    FunnelStratifiedKFold : Several splits, in which every row is tested once.
    sklearn.model_selection.train_test_split : The same over the classes of a 1-D
        ``stratify``.

    Notes
    -----
    Unlike ``train_test_split``, this function accepts rare depths without an error or a
    warning: a depth with a single row is stratified together with a neighbouring depth.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_pwiser.model_selection import funnel_holdout
    >>> Y = np.array([[0, 0]] * 12 + [[1, 0]] * 4 + [[1, 1]] * 4)
    >>> train, test = funnel_holdout(Y, test_size=0.25, random_state=0)
    >>> len(train), len(test)
    (15, 5)
    >>> Y[test].sum(axis=0).tolist()
    [2, 1]
    """
    if not isinstance(test_size, Real) or not 0.0 < test_size < 1.0:
        raise ValueError(f"test_size must be in (0, 1), got {test_size!r}.")
    Y, hint = event_columns(collected(Y), value_columns)
    strata = funnel_strata(Y, task_parents, hint=hint)
    n_samples = len(strata)
    if groups is not None:
        check_consistent_length(strata, groups)
        number = sort_groups(groups, n_samples)
        check_match(Y, n_samples, input_name="Y", groups=groups)
        is_test = _draw_groups(strata, number, test_size, random_state)[number]
        return np.flatnonzero(~is_test), np.flatnonzero(is_test)
    if n_samples < 2:
        raise ValueError(
            f"Y must have at least 2 rows to hold some out, got {n_samples}."
        )
    rng = check_random_state(random_state)
    stratum_of, sizes = holdout_sizes(np.bincount(strata), test_size)
    strata = stratum_of[strata]
    is_test = np.zeros(n_samples, dtype=bool)
    for stratum, n_rows in enumerate(sizes):
        rows = np.flatnonzero(strata == stratum)
        chosen = sample_without_replacement(len(rows), n_rows, random_state=rng)
        is_test[rows[chosen]] = True
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def _draw_groups(strata, number, test_size, random_state):
    """Return which groups are in the test set; `number` is the group of each row."""
    group_sizes = np.bincount(number)
    n_groups = len(group_sizes)
    if n_groups < 2:
        raise ValueError(
            f"groups must have at least 2 groups to hold some out, got {n_groups}."
        )
    rng = check_random_state(random_state)
    deepest = np.zeros(n_groups, dtype=strata.dtype)
    np.maximum.at(deepest, number, strata)
    rows_per_stratum = np.bincount(deepest, group_sizes).astype(np.int64)
    stratum_of, n_test_rows = holdout_sizes(rows_per_stratum, test_size)
    merged = stratum_of[deepest]
    is_test = np.zeros(n_groups, dtype=bool)
    for stratum, n_rows in enumerate(n_test_rows.tolist()):
        members = np.flatnonzero(merged == stratum)
        is_test[members[choose_groups(group_sizes[members], n_rows, rng)]] = True
    # Each set has at least one group: the smallest one is the nearest to the share.
    if not is_test.any():
        is_test[group_sizes.argmin()] = True
    elif is_test.all():
        is_test[group_sizes.argmin()] = False
    return is_test


def choose_groups(group_sizes, n_rows, random_state):
    """Draw groups that have about `n_rows` rows together; return their indices.

    A group that would exceed this number by more than half of its rows is passed over.
    Large groups are drawn only if the others do not suffice: with one of them, the
    result would be that of this group.
    """
    order = random_state.permutation(len(group_sizes))
    is_large = group_sizes[order] > LARGEST_SHARE_OF_GROUP * n_rows
    order = order[np.argsort(is_large, kind="stable")]
    chosen = []
    total = 0
    for group, size in zip(order.tolist(), group_sizes[order].tolist(), strict=True):
        if total >= n_rows:
            break
        if total + size / 2 <= n_rows:
            chosen.append(group)
            total += size
    return np.array(chosen, dtype=np.intp)


def holdout_sizes(counts, test_size):
    """Return the merged stratum of each stratum, and the rows to select of each."""
    stratum_of, _ = merge_rare(counts, min_rows=2)
    merged = np.zeros(int(stratum_of.max()) + 1, dtype=counts.dtype)
    np.add.at(merged, stratum_of, counts)
    n_rows = int(counts.sum())
    n_test = min(math.ceil(test_size * n_rows), n_rows - 1)
    # Largest remainders, in integers, so that equal ones compare equal. In a tie the
    # deeper stratum wins, because it is usually the rarer one.
    sizes, remainders = np.divmod(merged * n_test, n_rows)
    order = np.lexsort((np.arange(len(merged)), remainders))[::-1]
    sizes[order[: n_test - sizes.sum()]] += 1
    return stratum_of, sizes


def merge_rare(counts, *, min_rows):
    """Return the merged stratum of each, and the numbers of rows of the rare ones.

    Strata of fewer than `min_rows` rows are merged with a neighbour.
    """
    groups = [[d] for d in np.flatnonzero(counts).tolist()]
    rare = [(d, int(counts[d])) for [d] in groups if counts[d] < min_rows]
    for i in range(len(groups) - 1, 0, -1):
        if counts[groups[i]].sum() < min_rows:
            groups[i - 1] += groups.pop(i)
    if len(groups) > 1 and counts[groups[0]].sum() < min_rows:
        groups[0] += groups.pop(1)

    # A narrow integer type makes sorting and comparing 10^8 rows much faster.
    stratum_of = np.zeros(len(counts), dtype=np.min_scalar_type(len(groups)))
    for stratum, group in enumerate(groups):
        stratum_of[group] = stratum
    return stratum_of, rare


def funnel_strata(Y, task_parents=CHAIN, input_name="Y", hint=""):
    """Return 2 d for rows of depth d, and 2 d + 1 for unknown depths of d or more."""
    if Y is None:
        raise ValueError(f"{input_name} must hold the labels, got None.")
    labels, missing, columns = read_labels(Y, "ignore", input_name=input_name)
    labels = labels.reshape(len(labels), -1)
    if missing is not None:
        missing = missing.reshape(labels.shape)
    known_labels = labels if missing is None else labels[~missing]
    has_one_task = labels.shape[1] == 1 and not np.isin(known_labels, [0, 1]).all()
    if has_one_task and len(set(known_labels.ravel().tolist())) == 2:
        # The labels of a single task may have any two values.
        labels, _ = binary_labels(
            labels, columns, missing=missing, input_name=input_name
        )
    else:
        labels = zero_one_labels(labels, columns, input_name=input_name, hint=hint)
    # One pass per column, since a cumulative product along short rows is much slower.
    depth = np.zeros(len(labels), dtype=np.intp)
    is_unknown = np.zeros(len(labels), dtype=bool)
    reached = []
    names = columns or [f"task_{k}" for k in range(labels.shape[1])]
    parents = read_task_parents(task_parents, names)
    if missing is not None:
        implied = implied_ones(labels, missing, parents)
        labels = np.where(implied, 1, labels)
        missing = missing & ~implied
    for k, parent in enumerate(parents):
        eligible = np.ones(len(labels), dtype=bool) if parent < 0 else reached[parent]
        if missing is not None:
            is_unknown |= eligible & missing[:, k]
        reached.append(eligible & (labels[:, k] == 1))
        depth[reached[k]] = k + 1
        # A later task without this parent was reached, whatever happened before.
        is_unknown &= ~reached[k]
    return 2 * depth + is_unknown

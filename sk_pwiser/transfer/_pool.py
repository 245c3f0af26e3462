"""Checks of a pool of fitted estimators, and of the rows that it is applied to."""

import numpy as np

from sk_pwiser._table import as_table, check_targets, n_rows
from sk_pwiser.transfer._compatible import check_fitted, find_difference


def check_pool(estimators):
    """Return the estimators as a list; each must be fitted, for the same tasks.

    Raises
    ------
    TypeError, NotFittedError
        If `estimators` is no sequence of fitted estimators.
    ValueError
        If it is empty, or if an estimator has other tasks than the first.
    """
    try:
        pool = list(estimators)
    except TypeError as error:
        raise TypeError(
            f"estimators must be a sequence of fitted estimators; got {estimators!r}."
        ) from error
    if not pool:
        raise ValueError("estimators must hold at least one estimator; it is empty.")
    for index, estimator in enumerate(pool):
        check_fitted(f"estimators[{index}]", estimator)
        check_same_tasks(f"estimators[{index}]", estimator, "estimators[0]", pool[0])
    return pool


def check_same_tasks(name, estimator, other_name, other):
    """Raise a ValueError unless two fitted estimators have the same tasks."""
    for attribute, what in (("task_names_", "tasks"), ("classes_", "classes")):
        found, expected = (
            np.asarray(getattr(e, attribute)) for e in (estimator, other)
        )
        if not np.array_equal(found, expected):
            raise ValueError(
                f"{name} differs from {other_name} in the {what}: {found.tolist()}, "
                f"not {expected.tolist()}."
            )


def check_members(base, estimators):
    """Return the estimators as a list; each must be compatible with the base.

    Raises
    ------
    TypeError, NotFittedError
        If one of them is not a fitted estimator.
    ValueError
        If there is none, or if one differs from the base; the message contains the
        first difference.
    """
    check_fitted("base", base)
    members = check_pool(estimators)
    for index, member in enumerate(members):
        difference = find_difference(base, member)
        if difference is not None:
            raise ValueError(f"estimators[{index}] differs from base in {difference}.")
    return members


def check_table(X):
    """Return a table that can be read several times, with at least one row."""
    X = as_table(X)
    if n_rows(X) < 1:
        raise ValueError("X must have at least one row; it has none.")
    return X


def check_labels(estimator, X, Y):
    """Return the labels of rows as a float32 array of shape (n_samples, n_tasks).

    Raises
    ------
    ValueError, TypeError
        If the labels are invalid, their number is not that of the rows, or their tasks
        are not those of the estimator.
    """
    found, names = n_rows(X), estimator.task_names_
    is_single = estimator.classes_.ndim == 1
    targets = check_targets(
        Y,
        default_names=tuple(names),
        classes=estimator.classes_ if is_single else None,
    )
    if len(targets.values) != found:
        raise ValueError(
            f"X and Y have inconsistent numbers of samples: X has {found} rows, Y has "
            f"{len(targets.values)}."
        )
    # The name of a single task is not checked: a Series may have any.
    same_names = is_single or list(targets.task_names) == list(names)
    if targets.values.shape[1] != len(names) or not same_names:
        raise ValueError(
            f"Y must have the tasks {list(names)} of the estimators; it has "
            f"{list(targets.task_names)}."
        )
    return targets.values


def encode(estimator, X, y=None):
    """Return rows in the encoding of a fitted estimator."""
    return estimator._result.schema.transform(X).impressions(y)


def check_weights(weights, n_estimators):
    """Return weights of estimators that sum to 1, by default equal ones.

    Raises
    ------
    ValueError
        If there is not one finite weight >= 0 per estimator, or if all are 0.
    """
    if weights is None:
        return np.full(n_estimators, 1 / n_estimators)
    values = np.asarray(weights, dtype=float)
    if values.shape != (n_estimators,):
        raise ValueError(
            f"weights must hold one number per estimator, {n_estimators}; its shape is "
            f"{values.shape}."
        )
    if not np.isfinite(values).all() or values.min() < 0 or values.sum() == 0:
        raise ValueError(
            f"weights must be finite, >= 0 and not all 0; got {values.tolist()}."
        )
    return values / values.sum()


def check_markets(markets, n_samples, n_estimators):
    """Return the index of the estimator that each row belongs to, or None.

    Raises
    ------
    ValueError
        If `markets` does not hold one index of an estimator per row.
    """
    if markets is None:
        return None
    indices = np.asarray(markets)
    if indices.shape != (n_samples,) or indices.dtype.kind not in "iu":
        raise ValueError(
            f"markets must hold one integer per row, {n_samples}; got an array of "
            f"shape {indices.shape} and dtype {indices.dtype}."
        )
    if indices.min() < 0 or indices.max() >= n_estimators:
        raise ValueError(
            f"markets must hold indices of estimators, 0 to {n_estimators - 1}; got "
            f"{indices.min()} to {indices.max()}."
        )
    return indices


def predict_each(estimators, X):
    """Return probabilities, of shape `(n_estimators, n_samples, n_tasks)`."""
    return np.stack(
        [each._predict_positive(X).astype(np.float64) for each in estimators]
    )

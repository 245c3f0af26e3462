"""Shifts of calibrated log-odds by the values of a column, such as countries."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit

from sk_pwiser._table._frames import as_table, column_of, is_missing

# Bounds of the logarithm of the variance of the shifts.
LOG_VARIANCES = -12.0, 4.0
NEWTON_STEPS = 50


def read_groups(X, by):
    """Return the value of the column `by` in each row, None where it is missing."""
    if by is None:
        return None
    values = np.asarray(column_of(X, "by", by), dtype=object)
    return [None if is_missing(value) else value for value in values]


def without_groups(X, by, estimator):
    """Leave out the column `by` if the estimator was fitted without it."""
    names = getattr(estimator, "feature_names_in_", None)
    if by is None or names is None or by in names:
        return X
    X = as_table(X)
    return X[[name for name in X.columns if name != by]]


def fit_shifts(logits, labels, weight, curves, group, index):
    """Return the shifts of the tasks by value; rows without a value have none."""
    is_known = group != index.get(None, -1)
    shifts = np.zeros((len(index), len(curves)))
    for k, curve in enumerate(curves):
        rows = (weight[:, k] > 0) & is_known
        if curve is None or len(np.unique(labels[rows, k])) < 2:
            continue
        calibrated = curve.transform(logits[rows, k])
        shifts[:, k] = shifts_by_group(
            calibrated, labels[rows, k], weight[rows, k], group[rows], len(index)
        )
    return {value: shifts[i] for value, i in index.items() if value is not None}


def shifts_by_group(logits, y, weight, group, n_groups):
    """Return one shift in log-odds per group, shrunk to 0 by empirical Bayes.

    The variance maximises Laplace's approximation of the marginal likelihood.
    """
    weight = weight / weight[y == (y.mean() < 0.5)].mean()

    def most_likely(variance):
        shifts = np.zeros(n_groups)
        for _ in range(NEWTON_STEPS):
            p = expit(logits + shifts[group])
            slope = np.bincount(group, weight * (y - p), n_groups) - shifts / variance
            information = np.bincount(group, weight * p * (1 - p), n_groups)
            # Newton's method, with steps limited to where the quadratic model holds.
            step = np.clip(slope / (information + 1 / variance), -1, 1)
            shifts += step
            if np.abs(step).max() < 1e-9:
                break
        return shifts, information

    def negative_evidence(log_variance):
        variance = np.exp(log_variance)
        shifts, information = most_likely(variance)
        z = logits + shifts[group]
        losses = weight @ (np.logaddexp(0, z) - y * z)
        # Minus twice the log prior, and the logarithm of the determinant in Laplace's
        # formula.
        prior = shifts**2 / variance + np.log1p(variance * information)
        return losses + prior.sum() / 2

    found = minimize_scalar(negative_evidence, bounds=LOG_VARIANCES, method="bounded")
    return most_likely(np.exp(found.x))[0]

"""Metrics of the predictions of one task."""

import warnings
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils import Bunch, check_consistent_length, column_or_1d

from sk_pwiser._tasks._groups import check_groups
from sk_pwiser._tasks._row_match import check_match

Floats = npt.NDArray[np.float64]


def normalized_entropy(
    y_true: npt.ArrayLike,
    y_prob: npt.ArrayLike,
    *,
    sample_weight: npt.ArrayLike | None = None,
) -> float:
    """Compute the log loss relative to a constant prediction of the base rate.

    A value below 1 means that the predictions are better than the base rate. Unlike the
    log loss, the values of tasks with different rates can be compared.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Labels, 0 or 1, or the true probabilities of generated rows.
    y_prob : array-like of shape (n_samples,)
        Predicted probabilities of label 1.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows.

    Returns
    -------
    float
        The log loss divided by the entropy of the base rate. NaN, with an
        ``UndefinedMetricWarning``, if the labels have only one class.

    Raises
    ------
    ValueError
        If the lengths differ, or if a label or a probability is outside [0, 1].

    References
    ----------
    He et al. (2014). "Practical lessons from predicting clicks on ads at Facebook."
    ADKDD. :doi:`10.1145/2648584.2648589`

    Examples
    --------
    >>> from sk_pwiser.metrics import normalized_entropy
    >>> round(normalized_entropy([0, 0, 0, 1], [0.1, 0.1, 0.2, 0.6]), 3)
    0.42
    >>> normalized_entropy([0, 0, 0, 1], [0.25, 0.25, 0.25, 0.25])
    1.0
    """
    y, p, weight = _check(y_true, y_prob, sample_weight)
    base_rate = np.average(y, weights=weight)
    if base_rate in (0, 1):
        return _warn_undefined("normalized_entropy", f"all labels are {base_rate:g}")
    log_loss = np.average(_cross_entropy(y, p), weights=weight)
    return float(log_loss / _cross_entropy(base_rate, base_rate))


def expected_calibration_error(
    y_true: npt.ArrayLike,
    y_prob: npt.ArrayLike,
    *,
    n_bins: int = 20,
    sample_weight: npt.ArrayLike | None = None,
) -> float:
    """Compute the mean distance between predicted and observed rates over bins of rows.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Labels, 0 or 1, or the true probabilities of generated rows.
    y_prob : array-like of shape (n_samples,)
        Predicted probabilities of label 1.
    n_bins : int, default=20
        Number of bins, which contain equal shares of the rows. There may be fewer bins,
        since equal predictions are always in the same bin.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows.

    Returns
    -------
    float
        Sum over the bins of the share of rows times the distance between their mean
        prediction and their mean label; 0 is best. Noise alone gives a positive value,
        which is larger for bins with fewer rows.

    Raises
    ------
    ValueError
        If a parameter is invalid, if the lengths differ, or if a label or a probability
        is outside [0, 1].

    References
    ----------
    Naeini, Cooper and Hauskrecht (2015). "Obtaining well calibrated probabilities using
    Bayesian binning." AAAI. They use bins of equal width; at low rates, nearly all rows
    are in the first of these.

    Examples
    --------
    >>> from sk_pwiser.metrics import expected_calibration_error
    >>> y, p = [0, 0, 0, 1], [0.5, 0.5, 0.5, 0.5]
    >>> expected_calibration_error(y, p)
    0.25
    """
    curve = reliability_curve(
        y_true, y_prob, n_bins=n_bins, sample_weight=sample_weight
    )
    # Equation 3 of Naeini et al. (2015), with weights.
    gaps = np.abs(curve.predicted - curve.observed)
    return float(np.average(gaps, weights=curve.weight))


def reliability_curve(
    y_true: npt.ArrayLike,
    y_prob: npt.ArrayLike,
    *,
    n_bins: int = 20,
    sample_weight: npt.ArrayLike | None = None,
) -> Bunch:
    """Compute predicted and observed rates over bins of rows.

    Unlike :func:`sklearn.calibration.calibration_curve`, this function takes weights of
    the rows, keeps rows with equal predictions in one bin, and returns the sizes of the
    bins.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Labels, 0 or 1, or the true probabilities of generated rows.
    y_prob : array-like of shape (n_samples,)
        Predicted probabilities of label 1.
    n_bins : int, default=20
        Number of bins, which contain equal shares of the rows. There may be fewer bins,
        since equal predictions are always in the same bin.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows.

    Returns
    -------
    sklearn.utils.Bunch
        Dictionary-like object with one entry per bin that contains rows, in increasing
        order of the predictions.

        predicted, observed : ndarray of shape (n_bins,)
            Mean prediction and mean label.
        weight : ndarray of shape (n_bins,)
            Sum of the weights, or number of rows without weights.
        n_effective : ndarray of shape (n_bins,)
            Effective number of rows: the square of the sum of the weights divided by
            the sum of their squares.

    Raises
    ------
    ValueError
        If a parameter is invalid, if the lengths differ, or if a label or a probability
        is outside [0, 1].

    See Also
    --------
    expected_calibration_error : The mean distance between the two rates.
    sk_pwiser.inspection.TaskCalibrationDisplay : Draws the curve of each task.

    Examples
    --------
    >>> from sk_pwiser.metrics import reliability_curve
    >>> curve = reliability_curve([0, 1, 0, 1], [0.1, 0.3, 0.6, 0.8], n_bins=2)
    >>> curve.predicted.round(2).tolist(), curve.observed.tolist()
    ([0.2, 0.7], [0.5, 0.5])
    """
    if not isinstance(n_bins, int | np.integer) or n_bins < 1:
        raise ValueError(f"n_bins must be an integer >= 1, got {n_bins!r}.")
    y, p, weight = _check(y_true, y_prob, sample_weight)
    order = np.argsort(p, kind="stable")
    y = y[order]
    p = p[order]
    weight = weight[order]
    share = np.cumsum(weight) / weight.sum()
    # The smallest prediction of each bin, so that equal predictions stay together.
    first = np.searchsorted(share, np.arange(1, n_bins) / n_bins, side="right")
    bins = np.searchsorted(p[np.minimum(first, len(p) - 1)], p, side="right")
    totals = np.bincount(bins, weights=weight)
    has_rows = totals > 0
    totals = totals[has_rows]
    predicted = np.bincount(bins, weights=weight * p)[has_rows]
    observed = np.bincount(bins, weights=weight * y)[has_rows]
    squares = np.bincount(bins, weights=weight**2)[has_rows]
    return Bunch(
        predicted=predicted / totals,
        observed=observed / totals,
        weight=totals,
        n_effective=totals**2 / squares,
    )


def predicted_over_observed(
    y_true: npt.ArrayLike,
    y_prob: npt.ArrayLike,
    *,
    sample_weight: npt.ArrayLike | None = None,
) -> float:
    """Compute the predicted number of events divided by the observed number.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Labels, 0 or 1, or the true probabilities of generated rows.
    y_prob : array-like of shape (n_samples,)
        Predicted probabilities of label 1.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows.

    Returns
    -------
    float
        The ratio: 1 is best, and a value above 1 means that the number of events is
        overestimated. NaN, with an ``UndefinedMetricWarning``, without events.

    Raises
    ------
    ValueError
        If the lengths differ, or if a label or a probability is outside [0, 1].

    Notes
    -----
    A scorer of this metric can describe models, but not select them: the best value is
    neither the largest nor the smallest one.

    Examples
    --------
    >>> from sk_pwiser.metrics import predicted_over_observed
    >>> predicted_over_observed([0, 0, 0, 1], [0.5, 0.25, 0.25, 0.5])
    1.5
    """
    y, p, weight = _check(y_true, y_prob, sample_weight)
    observed = np.average(y, weights=weight)
    if observed == 0:
        return _warn_undefined("predicted_over_observed", "all labels are 0")
    return float(np.average(p, weights=weight) / observed)


def _cross_entropy(y: Any, p: Any) -> Any:
    limit = np.finfo(np.float64).eps
    # As scikit-learn's log_loss does, for probabilities of exactly 0 and 1.
    p = np.clip(p, limit, 1 - limit)
    return -(y * np.log(p) + (1 - y) * np.log1p(-p))


@overload
def grouped_auc(
    y_true: npt.ArrayLike,
    y_score: npt.ArrayLike,
    groups: Any,
    *,
    return_share: Literal[False] = False,
) -> float: ...


@overload
def grouped_auc(
    y_true: npt.ArrayLike,
    y_score: npt.ArrayLike,
    groups: Any,
    *,
    return_share: Literal[True],
) -> tuple[float, float]: ...


@overload
def grouped_auc(
    y_true: npt.ArrayLike,
    y_score: npt.ArrayLike,
    groups: Any,
    *,
    return_share: bool,
) -> float | tuple[float, float]: ...


def grouped_auc(
    y_true: npt.ArrayLike,
    y_score: npt.ArrayLike,
    groups: Any,
    *,
    return_share: bool = False,
) -> float | tuple[float, float]:
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
    y = column_or_1d(y_true, dtype=np.float64)
    score = column_or_1d(y_score, dtype=np.float64)
    groups = groups if np.ndim(groups) == 1 else column_or_1d(groups)
    check_consistent_length(y, score, groups)
    check_match(y_true, len(y), input_name="y_true", y_score=y_score, groups=groups)
    if len(y) == 0:
        raise ValueError("y_true must have at least one row, got 0.")
    is_wrong = (y != 0) & (y != 1)
    if is_wrong.any():
        raise ValueError(f"y_true must be 0 or 1, got {y[is_wrong.argmax()]:g}.")
    if np.isnan(score).any():
        raise ValueError(f"y_score must not be NaN; row {np.isnan(score).argmax()} is.")
    auc, share = auc_within(y, score, check_groups(groups, len(y)))
    if np.isnan(auc):
        _warn_undefined("grouped_auc", "no group has both classes")
    return (auc, share) if return_share else auc


def _warn_undefined(name: str, reason: str) -> float:
    warnings.warn(
        f"{name} is undefined and set to nan: {reason}.",
        UndefinedMetricWarning,
        stacklevel=3,
    )
    return np.nan


def _check(
    y_true: npt.ArrayLike, y_prob: npt.ArrayLike, sample_weight: npt.ArrayLike | None
) -> tuple[Floats, Floats, Floats]:
    """Return labels, probabilities and weights, 1 by default, as float64 arrays."""
    y = _check_rates("y_true", y_true)
    p = _check_rates("y_prob", y_prob)
    if len(y) == 0:
        raise ValueError("y_true must have at least one row, got 0.")
    weight = np.ones(len(y))
    if sample_weight is not None:
        weight = column_or_1d(sample_weight, dtype=np.float64)
        if not ((weight >= 0) & (weight < np.inf)).all() or weight.sum() == 0:
            raise ValueError(
                "sample_weight must be finite and >= 0, and > 0 for one row."
            )
    check_consistent_length(y, p, weight)
    check_match(
        y_true,
        len(weight),
        input_name="y_true",
        y_prob=y_prob,
        sample_weight=sample_weight,
    )
    return y, p, weight


def _check_rates(name: str, values: npt.ArrayLike) -> Floats:
    """Return labels or probabilities, which must be in [0, 1]."""
    rates: Floats = column_or_1d(values, dtype=np.float64)
    is_wrong = ~((rates >= 0) & (rates <= 1))
    if is_wrong.any():
        row = int(is_wrong.argmax())
        raise ValueError(f"{name} must be in [0, 1], got {rates[row]:g} in row {row}.")
    return rates


def auc_within(
    y: Floats, score: npt.NDArray[Any], codes: npt.NDArray[np.integer[Any]]
) -> tuple[float, float]:
    """Return the mean AUC of groups with both classes, and their share of the rows.

    Groups have the weight of their rows. The AUC is NaN if none has both classes.
    """
    # Ranks over all rows have the same order and ties within each group as the scores.
    ranks = rankdata(score, method="dense")
    order = np.lexsort([ranks, codes])
    codes = codes[order]
    ranks = ranks[order]
    y = y[order]
    # Rows of a group with equal scores are consecutive, and share their mean position.
    starts = np.flatnonzero(np.r_[True, (np.diff(codes) != 0) | (np.diff(ranks) != 0)])
    lengths = np.diff(np.r_[starts, len(codes)])
    position = np.repeat(starts + (lengths - 1) / 2, lengths)
    size = np.bincount(codes)
    first = np.cumsum(size) - size
    positives = np.bincount(codes, weights=y)
    # The Mann-Whitney statistic, with positions in the group counted from 0.
    position_sums = np.bincount(codes, weights=y * (position - first[codes]))
    total = position_sums - positives * (positives - 1) / 2
    mixed = (positives > 0) & (positives < size)
    share = float(size[mixed].sum() / size.sum())
    if not mixed.any():
        return np.nan, share
    aucs = total[mixed] / (positives * (size - positives))[mixed]
    return float(np.average(aucs, weights=size[mixed])), share

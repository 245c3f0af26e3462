"""Metrics of the predictions of one task, and of predicted amounts."""

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
        Number of bins, as in :func:`reliability_curve`.
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

    See Also
    --------
    reliability_curve : The two rates of each bin.

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
    _check_n_bins(n_bins)
    y, p, weight = _check(y_true, y_prob, sample_weight)
    return _means_of_bins(y, p, weight, n_bins)


def value_deciles(
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    *,
    n_bins: int = 10,
    sample_weight: npt.ArrayLike | None = None,
) -> Bunch:
    """Compute predicted and observed totals of amounts over deciles of the prediction.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Amounts >= 0, with 0 in rows without the event, or their true means.
    y_pred : array-like of shape (n_samples,)
        Predicted amounts >= 0, such as those of
        :meth:`~sk_pwiser.MultiTaskCTRCVRClassifier.predict_value`.
    n_bins : int, default=10
        Number of bins, as in :func:`reliability_curve`.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows.

    Returns
    -------
    sklearn.utils.Bunch
        Dictionary-like object with one entry per bin, in increasing order of the
        predictions.

        predicted, observed : ndarray of shape (n_bins,)
            Weighted sums of the predicted and of the observed amounts.
        weight, n_effective : ndarray of shape (n_bins,)
            Sizes of the bins, as in :func:`reliability_curve`.

    Raises
    ------
    ValueError
        If a parameter is invalid, if the lengths differ, or if an amount is negative or
        not finite.

    See Also
    --------
    predicted_over_observed : The ratio of the totals of all rows.
    reliability_curve : The rates of an event over bins of rows.

    Examples
    --------
    >>> from sk_pwiser.metrics import value_deciles
    >>> deciles = value_deciles([0, 0, 0, 80], [1, 2, 10, 50], n_bins=2)
    >>> deciles.predicted.tolist(), deciles.observed.tolist()
    ([3.0, 60.0], [0.0, 80.0])
    """
    _check_n_bins(n_bins)
    y, amounts, weight = _check(
        y_true, y_pred, sample_weight, name="y_pred", are_rates=False
    )
    bins = _means_of_bins(y, amounts, weight, n_bins)
    bins.predicted = bins.predicted * bins.weight
    bins.observed = bins.observed * bins.weight
    return bins


def _check_n_bins(n_bins: Any) -> None:
    if not isinstance(n_bins, int | np.integer) or n_bins < 1:
        raise ValueError(f"n_bins must be an integer >= 1, got {n_bins!r}.")


def _means_of_bins(y: Floats, p: Floats, weight: Floats, n_bins: int) -> Bunch:
    """Return weighted means and sizes of bins of rows with similar predictions."""
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

    For amounts, such as money under an event, it is the ratio of their totals.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Labels, 0 or 1, or the true probabilities of generated rows; or amounts >= 0.
    y_prob : array-like of shape (n_samples,)
        Predicted probabilities of label 1, or predicted amounts >= 0.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows.

    Returns
    -------
    float
        The ratio: 1 is best, and a value above 1 means that the number of events, or
        the total amount, is overestimated. NaN, with an ``UndefinedMetricWarning``,
        without events.

    Raises
    ------
    ValueError
        If the lengths differ, or if a value is negative or not finite.

    See Also
    --------
    value_deciles : Predicted and observed totals of amounts, by decile.

    Notes
    -----
    A scorer of this metric can describe models, but not select them: the best value is
    neither the largest nor the smallest one.

    Examples
    --------
    >>> from sk_pwiser.metrics import predicted_over_observed
    >>> predicted_over_observed([0, 0, 0, 1], [0.5, 0.25, 0.25, 0.5])
    1.5
    >>> predicted_over_observed([0, 0, 0, 80], [1, 1, 8, 50])
    0.75
    """
    y, p, weight = _check(y_true, y_prob, sample_weight, are_rates=False)
    observed = np.average(y, weights=weight)
    if observed == 0:
        return _warn_undefined("predicted_over_observed", "all labels are 0")
    return float(np.average(p, weights=weight) / observed)


def normalized_gini(
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    *,
    sample_weight: npt.ArrayLike | None = None,
) -> float:
    r"""Compute how well predictions order rows by their amounts.

    With the rows in decreasing order of the prediction, the share of the total amount
    in the first rows is a curve over the share of the rows. The metric is the area
    between this curve and the diagonal, divided by that of the perfect order.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Amounts >= 0, with 0 in rows without the event, or their true means.
    y_pred : array-like of shape (n_samples,)
        Predicted amounts, or any scores that increase with them.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows.

    Returns
    -------
    float
        1 for the perfect order, about 0 for a random one, and -1 for the reverse of the
        perfect one. NaN, with an ``UndefinedMetricWarning``, if all amounts are equal.

    Raises
    ------
    ValueError
        If the lengths differ, if an amount is negative or not finite, or if a
        prediction is not finite.

    See Also
    --------
    value_deciles : Predicted and observed totals of amounts, by decile.

    Notes
    -----
    The curve is a straight line over rows with equal predictions, so that their order
    does not matter. Of labels 0 and 1, the metric is 2 AUC - 1. It depends on the order
    only: :func:`predicted_over_observed` tells whether the totals agree.

    With few rows with the event, or with a heavy tail, the metric of observed amounts
    is decided by a few rows: compare models on the same rows, and over several splits.

    References
    ----------
    Frees, Meyers and Cummings (2011). "Summarizing insurance scores using a Gini
    index." Journal of the American Statistical Association 106.
    :doi:`10.1198/jasa.2011.tm10506`

    Examples
    --------
    >>> from sk_pwiser.metrics import normalized_gini
    >>> normalized_gini([0, 0, 20, 80], [1, 2, 30, 40])
    1.0
    >>> round(normalized_gini([0, 0, 20, 80], [1, 2, 40, 30]), 3)
    0.538
    """
    y = _check_amounts("y_true", y_true)
    score = column_or_1d(y_pred, dtype=np.float64)
    if not np.isfinite(score).all():
        row = int(np.isfinite(score).argmin())
        raise ValueError(f"y_pred must be finite, got {score[row]:g} in row {row}.")
    weight = _check_weight(y, y_true, sample_weight, y_pred=y_pred)
    if np.ptp(y[weight > 0]) == 0:
        return _warn_undefined("normalized_gini", "all amounts are equal")
    largest_area = _area_above_diagonal(y, y, weight)
    return _area_above_diagonal(y, score, weight) / largest_area


def _area_above_diagonal(y: Floats, score: Floats, weight: Floats) -> float:
    """Return the area between the curve of cumulated shares and the diagonal."""
    _, ranks = np.unique(-score, return_inverse=True)
    rows = np.bincount(ranks, weights=weight) / weight.sum()
    amounts = np.bincount(ranks, weights=weight * y)
    shares = amounts / amounts.sum()
    # Between two predictions, the curve is a straight line.
    middles = np.cumsum(shares) - shares / 2
    return float(rows @ middles - 0.5)


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
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    sample_weight: npt.ArrayLike | None,
    *,
    name: str = "y_prob",
    are_rates: bool = True,
) -> tuple[Floats, Floats, Floats]:
    """Return labels, predictions and weights, 1 by default, as float64 arrays.

    `name` is the parameter with the predictions. Labels and predictions are rates in
    [0, 1], or amounts >= 0.
    """
    check_values = _check_rates if are_rates else _check_amounts
    y = check_values("y_true", y_true)
    p = check_values(name, y_pred)
    weight = _check_weight(y, y_true, sample_weight, **{name: y_pred})
    return y, p, weight


def _check_weight(
    y: Floats, y_true: Any, sample_weight: npt.ArrayLike | None, **columns: Any
) -> Floats:
    """Return the weights of the rows, and check that all columns have those rows."""
    if len(y) == 0:
        raise ValueError("y_true must have at least one row, got 0.")
    weight = np.ones(len(y))
    if sample_weight is not None:
        weight = column_or_1d(sample_weight, dtype=np.float64)
        if not ((weight >= 0) & (weight < np.inf)).all() or weight.sum() == 0:
            raise ValueError(
                "sample_weight must be finite and >= 0, and > 0 for one row."
            )
    check_consistent_length(y, *columns.values(), weight)
    check_match(
        y_true, len(weight), input_name="y_true", **columns, sample_weight=sample_weight
    )
    return weight


def _check_rates(name: str, values: npt.ArrayLike) -> Floats:
    """Return labels or probabilities, which must be in [0, 1]."""
    rates: Floats = column_or_1d(values, dtype=np.float64)
    is_wrong = ~((rates >= 0) & (rates <= 1))
    if is_wrong.any():
        row = int(is_wrong.argmax())
        raise ValueError(f"{name} must be in [0, 1], got {rates[row]:g} in row {row}.")
    return rates


def _check_amounts(name: str, values: npt.ArrayLike) -> Floats:
    """Return amounts, which must be finite and not negative."""
    amounts: Floats = column_or_1d(values, dtype=np.float64)
    is_wrong = ~((amounts >= 0) & (amounts < np.inf))
    if is_wrong.any():
        row = int(is_wrong.argmax())
        raise ValueError(
            f"{name} must be finite and >= 0, got {amounts[row]:g} in row {row}."
        )
    return amounts


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

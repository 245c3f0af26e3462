"""Metrics of probabilities: entropy, calibration error, predicted over observed."""

import warnings

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils import Bunch, check_consistent_length, column_or_1d

STRATEGIES = ("quantile", "uniform")


def normalized_entropy(y_true, y_prob, *, sample_weight=None):
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
        return _undefined("normalized_entropy", base_rate)
    entropy = _cross_entropy(base_rate, base_rate)
    return float(np.average(_cross_entropy(y, p), weights=weight) / entropy)


def expected_calibration_error(
    y_true, y_prob, *, n_bins=20, strategy="quantile", sample_weight=None
):
    """Compute the mean distance between predicted and observed rates over bins of rows.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Labels, 0 or 1, or the true probabilities of generated rows.
    y_prob : array-like of shape (n_samples,)
        Predicted probabilities of label 1.
    n_bins : int, default=20
        Number of bins. There may be fewer bins, since equal predictions are always in
        the same bin.
    strategy : {"quantile", "uniform"}, default="quantile"
        Whether the bins contain equal shares of the rows or have equal widths. At low
        rates, nearly all rows are in the first bin of equal width.
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
    Bayesian binning." AAAI. They use bins of equal width.

    Examples
    --------
    >>> from sk_pwiser.metrics import expected_calibration_error
    >>> y, p = [0, 0, 0, 1], [0.5, 0.5, 0.5, 0.5]
    >>> expected_calibration_error(y, p)
    0.25
    """
    curve = reliability_curve(
        y_true, y_prob, n_bins=n_bins, strategy=strategy, sample_weight=sample_weight
    )
    # Equation 3 of Naeini et al. (2015), with weights.
    gaps = np.abs(curve.predicted - curve.observed)
    return float(np.average(gaps, weights=curve.weight))


def reliability_curve(
    y_true, y_prob, *, n_bins=20, strategy="quantile", sample_weight=None
):
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
        Number of bins. There may be fewer bins, since equal predictions are always in
        the same bin.
    strategy : {"quantile", "uniform"}, default="quantile"
        Whether the bins contain equal shares of the rows or have equal widths.
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
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {STRATEGIES}, got {strategy!r}.")
    y, p, weight = _check(y_true, y_prob, sample_weight)
    order = np.argsort(p, kind="stable")
    y, p = y[order], p[order]
    weight = np.ones(len(y)) if weight is None else weight[order]
    if strategy == "quantile":
        share = np.cumsum(weight) / weight.sum()
        # The smallest prediction of each bin, so that equal predictions stay together.
        first = np.searchsorted(share, np.arange(1, n_bins) / n_bins, side="right")
        edges = p[np.minimum(first, len(p) - 1)]
    else:
        edges = np.arange(1, n_bins) / n_bins
    bins = np.searchsorted(edges, p, side="right")
    totals = np.bincount(bins, weights=weight)
    used = totals > 0
    totals = totals[used]
    predicted, observed, squares = (
        np.bincount(bins, weights=values)[used]
        for values in (weight * p, weight * y, weight**2)
    )
    return Bunch(
        predicted=predicted / totals,
        observed=observed / totals,
        weight=totals,
        n_effective=totals**2 / squares,
    )


def predicted_over_observed(y_true, y_prob, *, sample_weight=None):
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
        return _undefined("predicted_over_observed", 0)
    return float(np.average(p, weights=weight) / observed)


def _cross_entropy(y, p):
    limit = np.finfo(np.float64).eps
    # As scikit-learn's log_loss does, for probabilities of exactly 0 and 1.
    p = np.clip(p, limit, 1 - limit)
    return -(y * np.log(p) + (1 - y) * np.log1p(-p))


def _undefined(name, label):
    warnings.warn(
        f"{name} is undefined and set to nan: all labels are {label:g}.",
        UndefinedMetricWarning,
        stacklevel=3,
    )
    return np.nan


def _check(y_true, y_prob, sample_weight):
    """Return labels, probabilities and weights as float64 arrays."""
    arrays = {"y_true": y_true, "y_prob": y_prob}
    for name, values in arrays.items():
        arrays[name] = values = column_or_1d(values, dtype=np.float64)
        is_wrong = ~((values >= 0) & (values <= 1))
        if is_wrong.any():
            row = int(is_wrong.argmax())
            raise ValueError(
                f"{name} must be in [0, 1], got {values[row]:g} in row {row}."
            )
    if len(arrays["y_true"]) == 0:
        raise ValueError("y_true must have at least one row, got 0.")
    weight = sample_weight
    if weight is not None:
        weight = column_or_1d(weight, dtype=np.float64)
        if not ((weight >= 0) & (weight < np.inf)).all() or weight.sum() == 0:
            raise ValueError(
                "sample_weight must be finite and >= 0, and > 0 for one row."
            )
    check_consistent_length(*arrays.values(), weight)
    return *arrays.values(), weight

"""What the calibrator fits: a curve per task, and shifts by the values of a column.

A curve leads from logits to log-odds, and only the ratios of the weights influence it.
The constants of the methods are relative to the mean weight of the rows with one label:
in a sampled log, the mean weight of all rows can be a hundred times the weight of a
conversion.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from scipy.optimize import brentq, minimize, minimize_scalar
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

from sk_pwiser._columns._frames import as_table, column_of, is_missing

# Number of rows that are added with each label, at the end of the logits where the
# label is least expected. They keep the rates above 0 and below 1.
PSEUDO_ROWS = 0.5
# Fewer events than these are too few for isotonic curves. In simulations at rates of
# 0.2 % to 20 %, the log loss of sigmoid curves was smaller up to here, even where the
# true curve was no sigmoid, and isotonic curves of rare events were 3 to 15 % too high.
FEWEST_EVENTS = 50
# Two steps whose rates differ by less than this share are one step: without rounding
# errors, isotonic regression would have merged them.
SAME_RATE = 1e-9
# Logits with a smaller relative deviation differ by rounding errors alone.
ROUNDING = 1e-9


class IsotonicCurve:
    """Isotonic regression whose steps are joined by straight lines in log-odds.

    The curve passes through the mean logit and the rate of each step. In Oron and
    Flournoy (2017) the lines are straight in the rates. They lie above the exponential
    growth of rare events, so that the probabilities would add up to too many events.
    """

    fewest_events = FEWEST_EVENTS
    rises_ = True

    def fit(self, logits: np.ndarray, y: np.ndarray, weight: np.ndarray) -> Self:
        pseudo = [PSEUDO_ROWS * weight[y == label].mean() for label in (1, 0)]
        logits = np.r_[logits, logits.min(), logits.max()]
        y = np.r_[y, 1.0, 0.0]
        weight = np.r_[weight, pseudo]
        rates = IsotonicRegression().fit_transform(logits, y, sample_weight=weight)
        order = np.argsort(logits)
        rises = np.diff(rates[order]) > SAME_RATE * rates[order][1:]
        step = np.empty(len(order), dtype=np.intp)
        step[order] = np.append(0, np.cumsum(rises))
        size = np.bincount(step, weights=weight)
        self.centres_ = np.bincount(step, weights=weight * logits) / size
        self.rates_ = np.bincount(step, weights=weight * y) / size
        return self

    def transform(self, logits: np.ndarray) -> np.ndarray:
        return np.interp(logits, self.centres_, logit(self.rates_))


class SigmoidCurve:
    """Platt's method: the sigmoid of a linear function of the logit.

    Weights are in units of the mean weight of the rarer label. In units of the average
    row, Platt's targets would change the sum of the labels in a sampled log. If higher
    logits go with fewer events, as they can by chance with one or two events, the slope
    is 1 and only the rate is corrected, so that the ranking stays.
    """

    # With a single event, the curve has the rate of the rows.
    fewest_events = 1
    # Whether a function that increases describes the rows of the fit.
    rises_ = True

    def fit(self, logits: np.ndarray, y: np.ndarray, weight: np.ndarray) -> Self:
        weight = weight / weight[y == (y.mean() < 0.5)].mean()
        n_1 = weight[y == 1].sum()
        n_0 = weight[y == 0].sum()
        # Platt's targets: with labels of 0 and 1, separable rows would have an infinite
        # slope.
        target = np.where(y == 1, (n_1 + 1) / (n_1 + 2), 1 / (n_0 + 2))
        weight = weight / weight.sum()
        centre = logits.mean()
        scale = logits.std()
        if scale <= ROUNDING * max(1.0, abs(centre)):
            logits = np.full_like(logits, centre)
            scale = 1.0
        # Standardised, so that the trust region fits logits of any scale.
        z = (logits - centre) / scale
        features = np.column_stack([z, np.ones_like(z)])

        def log_loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
            linear = features @ parameters
            gradient = features.T @ (weight * (expit(linear) - target))
            return weight @ (np.logaddexp(0, linear) - target * linear), gradient

        def curvature(parameters: np.ndarray) -> np.ndarray:
            p = expit(features @ parameters)
            return features.T @ ((weight * p * (1 - p))[:, np.newaxis] * features)

        start = [0.0, logit(weight @ target)]
        optimum = minimize(
            log_loss,
            start,
            jac=True,
            hess=curvature,
            method="trust-exact",
            options={"gtol": 1e-12, "initial_trust_radius": 10.0},
        )
        slope, intercept = optimum.x
        self.slope_ = float(slope / scale)
        self.intercept_ = float(intercept - self.slope_ * centre)
        if self.slope_ < 0:
            self.rises_ = False
            self.slope_ = 1.0
            rate = weight @ target
            # The shift that gives a row this rate; that of all rows is between them.
            shifts = logit(rate) - logits
            self.intercept_ = brentq(
                lambda shift: weight @ expit(logits + shift) - rate,
                shifts.min() - 1,
                shifts.max() + 1,
            )
        return self

    def transform(self, logits: np.ndarray) -> np.ndarray:
        return self.slope_ * logits + self.intercept_


Curve = IsotonicCurve | SigmoidCurve

METHODS: dict[str, type[Curve]] = {"isotonic": IsotonicCurve, "sigmoid": SigmoidCurve}


# Bounds of the logarithm of the variance of the shifts.
LOG_VARIANCES = (-12.0, 4.0)
# Largest number of steps to the most likely shifts; a handful suffice.
NEWTON_STEPS = 50


def read_groups(X: Any, by: Any) -> list[Any] | None:
    """Return the value of the column `by` in each row, None where it is missing."""
    if by is None:
        return None
    values = np.asarray(column_of(X, "by", by), dtype=object)
    return [None if is_missing(value) else value for value in values]


def without_groups(X: Any, by: Any, estimator: Any) -> Any:
    """Leave out the column `by` if the estimator was fitted without it."""
    names = getattr(estimator, "feature_names_in_", None)
    if by is None or names is None or by in names:
        return X
    X = as_table(X)
    return X[[name for name in X.columns if name != by]]


def fit_shifts(
    logits: np.ndarray,
    labels: np.ndarray,
    weight: np.ndarray,
    *,
    curves: Sequence[Curve | None],
    group: np.ndarray,
    index: Mapping[Any, int],
) -> dict[Any, np.ndarray]:
    """Return the shifts of the tasks by value; rows without a value have none."""
    has_value = group != index.get(None, -1)
    shifts = np.zeros((len(index), len(curves)))
    for k, curve in enumerate(curves):
        rows = (weight[:, k] > 0) & has_value
        if curve is None or len(np.unique(labels[rows, k])) < 2:
            continue
        calibrated = curve.transform(logits[rows, k])
        shifts[:, k] = shifts_by_group(
            calibrated, labels[rows, k], weight[rows, k], group[rows], len(index)
        )
    return {value: shifts[i] for value, i in index.items() if value is not None}


def shifts_by_group(
    logits: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
    group: np.ndarray,
    n_groups: int,
) -> np.ndarray:
    """Return one shift in log-odds per group, shrunk to 0 by empirical Bayes.

    The variance maximises Laplace's approximation of the marginal likelihood.
    """
    weight = weight / weight[y == (y.mean() < 0.5)].mean()

    def most_likely(variance: float) -> tuple[np.ndarray, np.ndarray]:
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

    def negative_evidence(log_variance: float) -> float:
        variance = np.exp(log_variance)
        shifts, information = most_likely(variance)
        z = logits + shifts[group]
        losses = weight @ (np.logaddexp(0, z) - y * z)
        # Minus twice the log prior, and the logarithm of the determinant in Laplace's
        # formula.
        prior = shifts**2 / variance + np.log1p(variance * information)
        return losses + prior.sum() / 2

    optimum = minimize_scalar(negative_evidence, bounds=LOG_VARIANCES, method="bounded")
    shifts, _ = most_likely(np.exp(optimum.x))
    return shifts

"""Calibration curves of one task, from logits to log-odds.

Only the ratios of the weights influence a curve. The constants of the methods are
relative to the mean weight of the rows with one label: in a sampled log, the mean
weight of all rows can be a hundred times the weight of a conversion.
"""

import numpy as np
from scipy.optimize import brentq, minimize
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

# Number of rows that are added with each label, at the end of the logits where the
# label is least expected. They keep the rates above 0 and below 1.
PSEUDO_ROWS = 0.5
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

    rises_ = True

    def fit(self, logits, y, weight):
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

    def transform(self, logits):
        return np.interp(logits, self.centres_, logit(self.rates_))


class SigmoidCurve:
    """Platt's method: the sigmoid of a linear function of the logit.

    Weights are in units of the mean weight of the rarer label. In units of the average
    row, Platt's targets would change the sum of the labels in a sampled log. If higher
    logits go with fewer events, as they can by chance with one or two events, the slope
    is 1 and only the rate is corrected, so that the ranking stays.
    """

    # Whether a function that increases describes the rows of the fit.
    rises_ = True

    def fit(self, logits, y, weight):
        weight = weight / weight[y == (y.mean() < 0.5)].mean()
        n_1, n_0 = weight[y == 1].sum(), weight[y == 0].sum()
        # Platt's targets: with labels of 0 and 1, separable rows would have an infinite
        # slope.
        target = np.where(y == 1, (n_1 + 1) / (n_1 + 2), 1 / (n_0 + 2))
        weight = weight / weight.sum()
        centre, scale = logits.mean(), logits.std()
        if scale <= ROUNDING * max(1.0, abs(centre)):
            logits, scale = np.full_like(logits, centre), 1.0
        # Standardised, so that the trust region fits logits of any scale.
        z = (logits - centre) / scale
        features = np.column_stack([z, np.ones_like(z)])

        def log_loss(parameters):
            linear = features @ parameters
            gradient = features.T @ (weight * (expit(linear) - target))
            return weight @ (np.logaddexp(0, linear) - target * linear), gradient

        def curvature(parameters):
            p = expit(features @ parameters)
            return features.T @ ((weight * p * (1 - p))[:, np.newaxis] * features)

        start = [0.0, logit(weight @ target)]
        options = {"gtol": 1e-12, "initial_trust_radius": 10.0}
        trust = {"method": "trust-exact", "options": options}
        found = minimize(log_loss, start, jac=True, hess=curvature, **trust)
        self.slope_ = float(found.x[0] / scale)
        self.intercept_ = float(found.x[1] - self.slope_ * centre)
        if self.slope_ < 0:
            self.rises_, self.slope_ = False, 1.0
            rate, shifts = weight @ target, logit(weight @ target) - logits
            self.intercept_ = brentq(
                lambda shift: weight @ expit(logits + shift) - rate,
                shifts.min() - 1,
                shifts.max() + 1,
            )
        return self

    def transform(self, logits):
        return self.slope_ * logits + self.intercept_


METHODS = {"isotonic": IsotonicCurve, "sigmoid": SigmoidCurve}

"""Calibration curves of one task: functions from logits to probabilities."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.isotonic import IsotonicRegression

# Rows of each label added at the end of the logits that contradicts it.
PSEUDO_ROWS = 0.5
# Logarithms of the temperatures that are searched.
LOG_TEMPERATURES = -10.0, 10.0


class IsotonicCurve:
    """Isotonic regression, linear between the centres of its steps.

    The steps of isotonic regression give one probability to thousands of rows, whose
    ranking is lost. Here a step counts at the mean logit of its rows, with straight
    lines between the steps, so that only the logits beyond the outermost steps share a
    probability. Half a row of label 1 at the smallest logit and half a row of label 0
    at the largest keep the probabilities above 0 and below 1.

    References
    ----------
    Oron and Flournoy (2017). "Centered isotonic regression: point and interval
    estimation for dose-response studies." Statistics in Biopharmaceutical Research
    9(3). :doi:`10.1080/19466315.2017.1286256`
    """

    def fit(self, logits, y, weight):
        """Fit the curve to logits, labels and weights of rows."""
        logits = np.r_[logits, logits.min(), logits.max()]
        y = np.r_[y, 1.0, 0.0]
        weight = np.r_[weight, PSEUDO_ROWS, PSEUDO_ROWS]
        steps = IsotonicRegression().fit_transform(logits, y, sample_weight=weight)
        self.rates_, step = np.unique(steps, return_inverse=True)
        size = np.bincount(step, weights=weight)
        self.centres_ = np.bincount(step, weights=weight * logits) / size
        return self

    def predict(self, logits):
        """Return calibrated probabilities."""
        return np.interp(logits, self.centres_, self.rates_)


class SigmoidCurve:
    """Platt's method: the sigmoid of a linear function of the logit."""

    def fit(self, logits, y, weight):
        """Fit the curve to logits, labels and weights of rows."""
        rows = np.arange(len(y))
        self.classifier_ = CalibratedClassifierCV(
            _LogitColumn(), method="sigmoid", cv=[(rows, rows)], ensemble=False
        )
        self.classifier_.fit(logits[:, np.newaxis], y, sample_weight=weight)
        return self

    def predict(self, logits):
        """Return calibrated probabilities."""
        return self.classifier_.predict_proba(logits[:, np.newaxis])[:, 1]


class TemperatureCurve:
    """The sigmoid of the logit divided by one number, which minimises the log loss.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger (2017). "On calibration of modern neural networks."
    ICML. :arxiv:`1706.04599`
    """

    def fit(self, logits, y, weight):
        """Fit the curve to logits, labels and weights of rows."""
        signed = np.where(y == 1, -logits, logits)

        def log_loss(log_temperature):
            losses = np.logaddexp(0, signed / np.exp(log_temperature))
            return np.average(losses, weights=weight)

        found = minimize_scalar(log_loss, bounds=LOG_TEMPERATURES, method="bounded")
        self.temperature_ = float(np.exp(found.x))
        return self

    def predict(self, logits):
        """Return calibrated probabilities."""
        return expit(logits / self.temperature_)


METHODS = {
    "isotonic": IsotonicCurve,
    "sigmoid": SigmoidCurve,
    "temperature": TemperatureCurve,
}


class _LogitColumn(ClassifierMixin, BaseEstimator):
    """A classifier whose decision function is its only feature."""

    def fit(self, X, y, sample_weight=None):
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, X):
        return X[:, 0]

    def predict(self, X):
        return self.classes_[(X[:, 0] >= 0).astype(int)]

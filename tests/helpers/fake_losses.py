"""An estimator with the parameters `loss` and `pwiser_weight`, without torch."""

import numpy as np
from scipy.special import expit
from sklearn import get_config
from sklearn.base import BaseEstimator, ClassifierMixin


class OwnLoss:
    """A class of the user that takes the weight."""

    estimator_parameters = ("pwiser_weight",)


class ByLoss(ClassifierMixin, BaseEstimator):
    """Predicts the first two columns, plus noise that depends on the seed.

    With "pwiser", the third column times the weight is added to the second task.
    """

    def __init__(
        self, loss="pwiser", loss_params=None, pwiser_weight=0.3, random_state=None
    ):
        self.loss = loss
        self.loss_params = loss_params
        self.pwiser_weight = pwiser_weight
        self.random_state = random_state

    def fit(self, X, Y, sample_weight=None):
        if self.loss == "bce" and self.loss_params:
            raise ValueError("bce has no loss_params")
        self.classes_ = np.tile([0, 1], (2, 1))
        self.task_names_ = ["click", "conversion"]
        self.rate_ = np.average(np.asarray(Y)[:, 0], weights=sample_weight)
        self.assumed_finite_ = get_config()["assume_finite"]
        return self

    def predict_proba(self, X):
        X = np.asarray(X)
        logits = X[:, :2].astype(float)
        if self.loss != "bce":
            logits[:, 1] += self.pwiser_weight * X[:, 2]
        noise = np.random.default_rng(self.random_state).normal(size=logits.shape)
        return expit(logits + 0.3 * noise + self.rate_)


def rows(n_samples=240):
    """Return features and labels; the third column is informative on conversions."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_samples, 3))
    click = rng.random(n_samples) < expit(X[:, 0])
    conversion = click & (rng.random(n_samples) < expit(X[:, 1] + 4 * X[:, 2]))
    return X, np.column_stack([click, conversion]).astype(int)


def rate(estimator, X, Y):
    """Score by the weighted rate of clicks in the training rows."""
    return estimator.rate_


def assumed_finite(estimator, X, Y):
    """Score 1 if the configuration of scikit-learn reached `fit`."""
    return float(estimator.assumed_finite_)

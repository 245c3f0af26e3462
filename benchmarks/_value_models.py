"""Models of amounts per impression: this package's, and those of other packages.

Each has `fit(log)` of a `ValueLog`, and `predict(X)`, the mean amount per impression.
"""

import warnings

import numpy as np
from _harness import require
from sklearn import preprocessing
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import GammaRegressor
from sklearn.model_selection import GridSearchCV, KFold, train_test_split
from sklearn.pipeline import make_pipeline

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.model_selection._package_models import (
    LIGHTGBM_STEPS,
    SMALL_LEAVES,
    PlainColumns,
    by_number,
    early_stopped_lightgbm,
    logistic_regression,
    many_values,
    one_hot_columns,
    with_statistics,
)

BAR = "sk_pwiser, probability times mean amount"
VALUE_LOSSES = ("lognormal", "gamma", "tweedie")
# Few rows have an amount: leaves of 100 would leave a handful of them.
LEAVES_OF_AMOUNTS = {"num_leaves": 8, "min_child_samples": 20}
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
TWEEDIE_POWER = 1.5


class Network:
    """This package with its defaults and a value."""

    def __init__(self, seed, **params):
        self.seed = seed
        self.params = params

    def fit(self, log):
        self.model_ = MultiTaskCTRCVRClassifier(
            value_tasks={log.value: log.event}, random_state=self.seed, **self.params
        ).fit(log.X, log.Y)
        return self

    def predict(self, X):
        return self.model_.predict_value(X)

    def predict_given_event(self, X):
        return self.model_.predict_value(X, given_event=True)


class MeanAmount:
    """The same events without a value, times the mean amount: the bar."""

    def __init__(self, seed):
        self.seed = seed

    def fit(self, log):
        model = MultiTaskCTRCVRClassifier(random_state=self.seed)
        self.model_ = model.fit(log.X, log.Y[log.events])
        self.place_ = log.events.index(log.event)
        self.mean_amount_ = log.mean_amount
        return self

    def predict(self, X):
        return self.model_.predict_proba(X)[:, self.place_] * self.mean_amount_


class Constant:
    """The mean amount per impression of the training rows."""

    def __init__(self, seed):
        del seed

    def fit(self, log):
        self.mean_ = log.mean_amount * log.Y[log.event].mean()
        return self

    def predict(self, X):
        return np.full(len(X), self.mean_)


class TwoModels:
    """A classifier of the event times a regressor of its amounts."""

    def fit(self, log):
        happened = (log.Y[log.event] == 1).to_numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on versions, and on convergence
            self.classifier_.fit(log.X, log.Y[log.event].to_numpy())
            # Amounts of 0 have neither a logarithm nor a gamma likelihood.
            amounts = log.Y[log.value][happened].to_numpy()
            smallest = amounts[amounts > 0].min()
            self.fit_amounts(log.X[happened], amounts.clip(min=smallest))
        return self

    def predict(self, X):
        return self.classifier_.predict_proba(X)[:, 1] * self.predict_amounts(X)


class TreesOfLogarithms(TwoModels):
    """LightGBM: classifier times regressor of log amounts, with smearing.

    The factor is the mean of the exponentials of the residuals (Duan 1983).
    """

    def __init__(self, seed):
        self.classifier_ = with_statistics(
            early_stopped_lightgbm(1, seed=seed, small=True)
        )
        self.regressor_ = trees(seed, LEAVES_OF_AMOUNTS, objective="regression")

    def fit_amounts(self, X, amounts):
        self.regressor_.fit(X, np.log(amounts))
        residuals = np.log(amounts) - self.regressor_.predict(X)
        self.factor_ = np.exp(residuals).mean()

    def predict_amounts(self, X):
        return np.exp(self.regressor_.predict(X)) * self.factor_


class TreesOfImpressions:
    """LightGBM with Tweedie's loss of all impressions."""

    def __init__(self, seed):
        self.model_ = trees(
            seed,
            SMALL_LEAVES,
            objective="tweedie",
            tweedie_variance_power=TWEEDIE_POWER,
        )

    def fit(self, log):
        happened = log.Y[log.event] == 1
        self.model_.fit(log.X, np.where(happened, log.Y[log.value], 0.0))
        return self

    def predict(self, X):
        return self.model_.predict(X)


class LinearModels(TwoModels):
    """Logistic regression times a generalised linear model of gamma amounts."""

    def __init__(self, seed):
        del seed
        self.classifier_ = logistic_regression()
        glm = GridSearchCV(GammaRegressor(max_iter=1_000), {"alpha": list(PENALTIES)})
        self.regressor_ = make_pipeline(PlainColumns(), one_hot_columns(), glm)

    def fit_amounts(self, X, amounts):
        self.scale_ = amounts.mean()
        self.regressor_.fit(X, amounts / self.scale_)

    def predict_amounts(self, X):
        return self.regressor_.predict(X) * self.scale_


class StopsEarlyOnAmounts(RegressorMixin, BaseEstimator):
    """Boosted trees of amounts that stop early on a tenth of the rows."""

    def __init__(self, model, seed=0):
        self.model = model
        self.seed = seed

    def fit(self, X, y):
        X, X_valid, y, y_valid = train_test_split(
            X, y, test_size=0.1, random_state=self.seed
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.model_ = clone(self.model).fit(X, y, eval_set=[(X_valid, y_valid)])
        return self

    def predict(self, X):
        return self.model_.predict(X)


def trees(seed, leaves, **objective):
    """Return boosted trees of amounts, which read mean amounts of ids.

    Ids with at least 100 values are replaced by `TargetEncoder`, as for events.
    """
    lightgbm = require("lightgbm", "LightGBM")
    params = {**LIGHTGBM_STEPS, **leaves, **objective}
    model = lightgbm.LGBMRegressor(verbose=-1, random_state=seed, n_jobs=1, **params)
    folds = KFold(5, shuffle=True, random_state=0)
    means = preprocessing.TargetEncoder(target_type="continuous", cv=folds)
    columns = ColumnTransformer(
        [("means", means, many_values)], remainder="passthrough"
    )
    columns.set_output(transform="pandas")
    stopped = by_number(StopsEarlyOnAmounts(model, seed))
    return make_pipeline(PlainColumns(), columns, stopped)


def make_value_model(name, seed):
    """Return a model by its name in the tables."""
    kinds = {
        BAR: MeanAmount,
        "LightGBM, classifier times log amounts": TreesOfLogarithms,
        "LightGBM, Tweedie": TreesOfImpressions,
        "logistic regression times gamma": LinearModels,
        "mean amount per impression": Constant,
    }
    if name in kinds:
        return kinds[name](seed)
    return Network(seed, value_loss=name.removeprefix("sk_pwiser, "))


OWN_MODELS = tuple(f"sk_pwiser, {loss}" for loss in VALUE_LOSSES)
MODELS = (
    BAR,
    *OWN_MODELS,
    "LightGBM, classifier times log amounts",
    "LightGBM, Tweedie",
    "logistic regression times gamma",
    "mean amount per impression",
)

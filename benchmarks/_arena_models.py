"""The models of the arena, each with the settings that a good user would give it.

A model has `fit(X, Y)` and `predict_proba(X)` of shape (n_samples, n_tasks). On tables
with a column of times, every model takes its validation rows from the last tenth;
elsewhere a random tenth. Models of other packages fit each task by itself, but
torch-rechub. Only this package's estimator receives the column of times, from which it
learns nothing but the order; trees would learn a trend, which does not hold later.
"""

from functools import partial

import numpy as np
from _arena_tables import TIME
from _harness import mean_log_loss, require
from _peers import OF_ALL, SMALL, WITHOUT_NEW, PerTask, Rechub, peer_models
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.model_selection._package_models import (
    IS_CATEGORY,
    PlainColumns,
    StopsEarly,
    with_statistics,
)

# pytabkit's networks train for minutes or hours on larger tables without a GPU.
LARGEST_OF_PYTABKIT = 50_000
XGBOOST = {
    "n_estimators": 500,
    "learning_rate": 0.05,
    "early_stopping_rounds": 20,
    "tree_method": "hist",
    "enable_categorical": True,
    "eval_metric": "logloss",
}
# The candidates of a search, on the validation rows of the training part.
SEARCH_OWN = {
    "defaults": {},
    "bce": {"loss": "bce"},
    "weight 1": {"pwiser_weight": 1.0},
    "no target statistics": {"target_encoding": False},
    "piecewise linear": {"numeric_encoding": "piecewise_linear"},
    "lr 0.0005": {"lr": 0.0005},
    "mmoe": {"network": "mmoe"},
    "embeddings of 32": {"embedding_dim": 32},
}
SEARCH_LIGHTGBM = (
    "LightGBM",
    f"LightGBM, {SMALL}",
    f"LightGBM, {WITHOUT_NEW}",
    f"LightGBM, {SMALL}, {WITHOUT_NEW}",
    "LightGBM, TargetEncoder",
    f"LightGBM, TargetEncoder, {SMALL}",
    f"LightGBM, TargetEncoder, {SMALL}, {WITHOUT_NEW}",
    f"LightGBM, {SMALL}, {OF_ALL}",
)


class StopsOnLastRows(StopsEarly):
    """Boosted trees that stop early on the last tenth of the rows."""

    def fit(self, X, y):
        cut = int(0.9 * len(X))
        self.model_ = clone(self.model)
        self.model_.fit(X[:cut], y[:cut], eval_set=[(X[cut:], y[cut:])])
        self.classes_ = self.model_.classes_
        return self


def stopping_on_last_rows(model):
    """Return a copy of a model of one task whose trees stop on the last rows."""
    if isinstance(model, StopsEarly):
        return StopsOnLastRows(model.model, model.seed)
    model = clone(model)
    steps = {
        name: StopsOnLastRows(step.model, step.seed)
        for name, step in model.get_params().items()
        if isinstance(step, StopsEarly)
    }
    return model.set_params(**steps)


class WithoutTimes:
    """A model of another package, which reads the columns other than the times."""

    def __init__(self, model):
        self.model = model

    def fit(self, X, Y):
        if TIME in X and isinstance(self.model, PerTask):
            self.model.model = stopping_on_last_rows(self.model.model)
        self.model.fit(X.drop(columns=TIME, errors="ignore"), Y)
        return self

    def predict_proba(self, X):
        return self.model.predict_proba(X.drop(columns=TIME, errors="ignore"))


class XGBoost(ClassifierMixin, BaseEstimator):
    """XGBoost with early stopping, on categories and numbers."""

    def __init__(self, seed=0):
        self.seed = seed

    def fit(self, X, y, eval_set=()):
        classifier = require("xgboost", "XGBoost").XGBClassifier
        self.model_ = classifier(random_state=self.seed, n_jobs=1, **XGBOOST)
        self.model_.fit(X, y, eval_set=list(eval_set) or None, verbose=False)
        self.classes_ = np.array([0, 1])
        return self

    def predict_proba(self, X):
        return self.model_.predict_proba(X)


def xgboost(seed):
    """Return XGBoost per task, with early stopping and target statistics."""
    require("xgboost", "XGBoost")
    return PerTask(with_statistics(StopsEarly(XGBoost(seed), seed)))


class OfPytabkit(ClassifierMixin, BaseEstimator):
    """A network of pytabkit with its tuned defaults, on plain columns."""

    def __init__(self, name, seed):
        self.name = name
        self.seed = seed

    def fit(self, X, y, eval_set=()):
        kind = getattr(require("pytabkit", "pytabkit"), self.name)
        self.model_ = kind(
            device="cpu",
            random_state=self.seed,
            n_threads=1,
            val_metric_name="cross_entropy",
        )
        [(X_val, y_val)] = eval_set
        self.model_.fit(X, y, X_val, y_val, cat_col_names=list(IS_CATEGORY(X)))
        self.classes_ = np.array([0, 1])
        return self

    def predict_proba(self, X):
        return self.model_.predict_proba(X)


def pytabkit(name, seed):
    """Return a network of pytabkit per task."""
    require("pytabkit", "pytabkit")
    return PerTask(
        make_pipeline(PlainColumns(), StopsEarly(OfPytabkit(name, seed), seed))
    )


class Own:
    """This package's estimator; the column of times is its `time_column`."""

    def __init__(self, seed, **params):
        self.model = MultiTaskCTRCVRClassifier(random_state=seed, **params)

    def fit(self, X, Y):
        if TIME in X:
            params = {**(self.model.encoding_params or {}), "time_column": TIME}
            self.model.set_params(encoding_params=params)
        self.model.fit(X, Y)
        self.n_iter_ = self.model.n_iter_
        return self

    def predict_proba(self, X):
        return self.model.predict_proba(X)


class Searched:
    """The best of some models on the last, or a random, fifth of the training rows.

    It is the one with the lowest log loss, as a share of the entropy of each task; then
    it is fitted to all of the training rows. The first seed decides for all seeds.
    """

    def __init__(self, candidates, seed):
        self.candidates = candidates
        self.seed = seed

    def fit(self, X, Y):
        rows = np.arange(len(X))
        cut = int(0.8 * len(X))
        train, valid = rows[:cut], rows[cut:]
        if TIME not in X:
            train, valid = train_test_split(rows, test_size=0.2, random_state=0)
        self.losses_ = {}
        for name, make in self.candidates.items():
            p = make(0).fit(X.iloc[train], Y.iloc[train]).predict_proba(X.iloc[valid])
            self.losses_[name] = relative_log_loss(Y.iloc[valid], p)
        self.choice_ = min(self.losses_, key=self.losses_.get)
        self.model_ = self.candidates[self.choice_](self.seed).fit(X, Y)
        return self

    def predict_proba(self, X):
        return self.model_.predict_proba(X)


def relative_log_loss(Y, p):
    """Return the log loss as a share of that of the tasks' rates, over the tasks."""
    Y = np.asarray(Y)
    p = np.asarray(p, dtype=float)
    rates = np.broadcast_to(Y.mean(axis=0), Y.shape)
    ratios = [
        mean_log_loss(Y[:, [k]], p[:, [k]]) / mean_log_loss(Y[:, [k]], rates[:, [k]])
        for k in range(Y.shape[1])
    ]
    return np.mean(ratios)


def one_peer(name, seed):
    """Return a model of `_peers.py` without the column of times."""
    return WithoutTimes(next(iter(peer_models(name, [seed]))))


OWN = {
    "sk_pwiser, pwiser": Own,
    "sk_pwiser, bce": partial(Own, loss="bce"),
    "sk_pwiser, best of 8": partial(
        Searched, {name: partial(Own, **params) for name, params in SEARCH_OWN.items()}
    ),
}
PEERS = (
    "logistic regression",
    "LightGBM",
    f"LightGBM, {SMALL}, {WITHOUT_NEW}",
    f"LightGBM, {SMALL}, {OF_ALL}",
    "CatBoost",
    f"CatBoost, {SMALL}, {WITHOUT_NEW}",
)
MODELS = {
    **OWN,
    **{name: partial(one_peer, name) for name in PEERS},
    "XGBoost, TargetEncoder": lambda seed: WithoutTimes(xgboost(seed)),
    "LightGBM, best of 8": partial(
        Searched, {name: partial(one_peer, name) for name in SEARCH_LIGHTGBM}
    ),
    "torch-rechub MMoE": lambda seed: WithoutTimes(Rechub(seed, joint=True)),
    "TabM": lambda seed: WithoutTimes(pytabkit("TabM_D_Classifier", seed)),
    "RealMLP": lambda seed: WithoutTimes(pytabkit("RealMLP_TD_Classifier", seed)),
}
OF_PYTABKIT = ("TabM", "RealMLP")
# The first does not depend on the seed, and the others train for many minutes.
ONE_SEED = ("logistic regression", *OF_PYTABKIT)

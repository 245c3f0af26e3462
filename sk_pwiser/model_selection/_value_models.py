"""Models of other packages that predict amounts, such as money under a conversion."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.linear_model import GammaRegressor
from sklearn.model_selection import KFold, train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils import _safe_indexing

from sk_pwiser._columns._frames import collected, selectable
from sk_pwiser._tasks import _labels
from sk_pwiser.model_selection._package_models import (
    LIGHTGBM_STEPS,
    LOGISTIC_C,
    THIS_PACKAGE,
    OneTask,
    PlainColumns,
    by_number,
    check_installed,
    entries_by_name,
    fit_until_stopped,
    lightgbm,
    logistic_regression,
    multi_task_classifier,
    one_hot_columns,
    with_statistics,
)

# With fewer amounts, a regression predicts their mean: a tenth of them is held out to
# stop trees early.
FEWEST_AMOUNTS = 20


class OneModelPerValue(BaseEstimator):
    """Copies of a model of amounts, one for each value, of labels of any form.

    The model is fitted by ``fit(X, happened, amounts)``: whether each row has the event
    under which the amounts arise, and the amounts, NaN where there is none or it is
    unknown. All rows have the event of amounts per impression. It does not read the
    columns `left_out`, such as the time of each row.
    """

    def __init__(
        self, model: Any, value_tasks: Mapping[Any, Any], left_out: Sequence[str] = ()
    ) -> None:
        self.model = model
        self.value_tasks = value_tasks
        self.left_out = left_out

    def fit(self, X: Any, Y: Any) -> Self:
        targets = _labels.check_targets(collected(Y), value_tasks=self.value_tasks)
        values = targets.learnt_values
        X = self._columns(X)
        self.task_names_ = list(targets.task_names)
        self.models_ = []
        for column, parent in enumerate(values.parents):
            happened = np.ones(len(targets.values), dtype=bool)
            if parent >= 0:
                happened = targets.values[:, parent] == 1
            model = clone(self.model)
            self.models_.append(model.fit(X, happened, targets.amounts[:, column]))
        return self

    def predict_value(self, X: Any) -> np.ndarray:
        """Return mean amounts per impression, `(n_samples, n_values)`, 1-D for one."""
        X = self._columns(X)
        means = [model.predict(X) for model in self.models_]
        return means[0] if len(means) == 1 else np.column_stack(means)

    def _columns(self, X: Any) -> Any:
        """Return a table without the columns that are left out."""
        return X.drop(columns=list(self.left_out)) if len(self.left_out) else X


class ProbabilityTimesAmount(RegressorMixin, BaseEstimator):
    """P(amount > 0) of a classifier times the mean of the amounts by a regressor.

    The regressor is fitted to the positive amounts, so that those of 0 count for the
    classifier. An unknown amount of an event counts as positive.
    """

    def __init__(self, classifier: Any, regressor: Any) -> None:
        self.classifier = classifier
        self.regressor = regressor

    def fit(self, X: Any, happened: np.ndarray, amounts: np.ndarray) -> Self:
        is_positive = happened & (amounts != 0)
        classifier = OneTask(self.classifier)
        self.classifier_ = classifier.fit(X, is_positive.astype(np.int64))
        rows = np.flatnonzero(amounts > 0)
        regressor = OneAmount(self.regressor)
        self.regressor_ = regressor.fit(rows_of(X, rows), amounts[rows])
        return self

    def predict(self, X: Any) -> np.ndarray:
        p = self.classifier_.predict_proba(X)[:, 1]
        return p * self.regressor_.predict(X)


class MeanPerImpression(RegressorMixin, BaseEstimator):
    """A regressor of amounts over impressions, which are 0 without the event.

    Rows whose event has an unknown amount are left out.
    """

    def __init__(self, regressor: Any) -> None:
        self.regressor = regressor

    def fit(self, X: Any, happened: np.ndarray, amounts: np.ndarray) -> Self:
        amounts = np.where(happened, amounts, 0.0)
        rows = np.flatnonzero(~np.isnan(amounts))
        regressor = OneAmount(self.regressor)
        self.regressor_ = regressor.fit(rows_of(X, rows), amounts[rows])
        return self

    def predict(self, X: Any) -> np.ndarray:
        return self.regressor_.predict(X)


class OneAmount(RegressorMixin, BaseEstimator):
    """A regressor, or the mean amount if few rows have one."""

    def __init__(self, regressor: Any) -> None:
        self.regressor = regressor

    def fit(self, X: Any, y: np.ndarray) -> Self:
        self.mean_ = float(y.mean()) if len(y) else 0.0
        has_few = np.count_nonzero(y) < FEWEST_AMOUNTS
        self.regressor_ = None if has_few else clone(self.regressor).fit(X, y)
        return self

    def predict(self, X: Any) -> np.ndarray:
        if self.regressor_ is None:
            return np.full(len(X), self.mean_)
        return np.asarray(self.regressor_.predict(X), dtype=np.float64)


class LogAmounts(RegressorMixin, BaseEstimator):
    """A regressor of the logarithms of amounts, whose predictions are means of amounts.

    The exponential of the mean logarithm is multiplied by the mean of the exponentials
    of the residuals (Duan 1983, "Smearing Estimate", :doi:`10.2307/2288126`).
    """

    def __init__(self, regressor: Any) -> None:
        self.regressor = regressor

    def fit(self, X: Any, y: np.ndarray) -> Self:
        logs = np.log(y)
        self.regressor_ = clone(self.regressor).fit(X, logs)
        self.smearing_ = float(np.exp(logs - self.regressor_.predict(X)).mean())
        return self

    def predict(self, X: Any) -> np.ndarray:
        return self.smearing_ * np.exp(self.regressor_.predict(X))


class RegressorStopsEarly(RegressorMixin, BaseEstimator):
    """Boosted trees that stop early on a tenth of the rows, which the seed draws."""

    def __init__(self, model: Any, seed: int = 0) -> None:
        self.model = model
        self.seed = seed

    def fit(self, X: Any, y: np.ndarray) -> Self:
        # Of amounts per impression, most are 0.
        has_amount = y > 0
        n_smaller = min(has_amount.sum(), len(y) - has_amount.sum())
        X, X_valid, y, y_valid = train_test_split(
            X,
            y,
            test_size=0.1,
            stratify=has_amount if n_smaller >= FEWEST_AMOUNTS else None,
            random_state=self.seed,
        )
        self.model_ = fit_until_stopped(self.model, X, y, (X_valid, y_valid))
        return self

    def predict(self, X: Any) -> np.ndarray:
        return self.model_.predict(X)


class GammaGLM(RegressorMixin, BaseEstimator):
    """A gamma regression with a log link, whose penalty does not depend on the rows.

    It is as strong as that of the logistic regression that gives the probability: both
    add `penalty` / 2 times the squared norm of the coefficients to the sum over rows.
    """

    def __init__(self, penalty: float) -> None:
        self.penalty = penalty

    def fit(self, X: Any, y: np.ndarray) -> Self:
        # The loss of `GammaRegressor` is a mean over rows.
        model = GammaRegressor(alpha=self.penalty / len(y), max_iter=1_000)
        self.model_ = model.fit(X, y)
        return self

    def predict(self, X: Any) -> np.ndarray:
        return self.model_.predict(X)


class NetworkTimesMean(BaseEstimator):
    """Probabilities of this package's network times the mean amount of each value.

    It learns no amounts: a model of values should be ahead of it.
    """

    def __init__(self, classifier: Any, value_tasks: Mapping[Any, Any]) -> None:
        self.classifier = classifier
        self.value_tasks = value_tasks

    def fit(self, X: Any, Y: Any) -> Self:
        Y = collected(Y)
        targets = _labels.check_targets(Y, value_tasks=self.value_tasks)
        names = list(targets.task_names)
        classifier = clone(self.classifier).set_params(task_names=names)
        self.classifier_ = classifier.fit(X, targets.values.astype(np.int64))
        self.task_names_ = names
        has_amount = ~np.isnan(targets.amounts)
        totals = np.where(has_amount, targets.amounts, 0.0).sum(axis=0)
        self.means_ = totals / np.maximum(has_amount.sum(axis=0), 1)
        self.parents_ = targets.learnt_values.parents
        return self

    def predict_value(self, X: Any) -> np.ndarray:
        """Return mean amounts per impression, `(n_samples, n_values)`, 1-D for one."""
        p = self.classifier_.predict_proba(X)
        # Column k of several tasks is that of task k; of one, the event is column 1.
        events = p[:, 1:] if len(self.classifier_.task_names_) == 1 else p
        means = np.empty((len(p), len(self.means_)))
        for column, parent in enumerate(self.parents_):
            probability = 1.0 if parent < 0 else events[:, parent]
            means[:, column] = probability * self.means_[column]
        return means[:, 0] if len(self.means_) == 1 else means


def rows_of(X: Any, rows: np.ndarray) -> Any:
    """Return rows of a table by their places."""
    return _safe_indexing(selectable(X), rows)


def lightgbm_regressor(objective: str, seed: int = 0, n_jobs: int = 0) -> Pipeline:
    """Return boosted trees of LightGBM that read statistics of the target."""
    from lightgbm import LGBMRegressor

    params: dict[str, Any] = LIGHTGBM_STEPS | {"objective": objective}
    trees = LGBMRegressor(verbose=-1, random_state=seed, n_jobs=n_jobs, **params)
    folds = KFold(5, shuffle=True, random_state=0)
    early_stopped = by_number(RegressorStopsEarly(trees, seed))
    return with_statistics(early_stopped, folds, target_type="continuous")


def lightgbm_log_amounts(seed: int = 0) -> ProbabilityTimesAmount:
    """Return boosted trees of the event times those of the logarithms of amounts."""
    classifier = lightgbm(seed=seed)
    regressor = LogAmounts(lightgbm_regressor("regression", seed))
    return ProbabilityTimesAmount(classifier, regressor)


def lightgbm_tweedie(seed: int = 0) -> MeanPerImpression:
    """Return boosted trees of amounts per impression, with the loss of Tweedie."""
    return MeanPerImpression(lightgbm_regressor("tweedie", seed))


def logistic_gamma(seed: int = 0) -> ProbabilityTimesAmount:
    """Return logistic regression of the event times a gamma regression of amounts."""
    gamma = GammaGLM(penalty=1 / LOGISTIC_C)
    regressor = make_pipeline(PlainColumns(), one_hot_columns(), gamma)
    return ProbabilityTimesAmount(logistic_regression(), regressor)


# The name of this package's probabilities times a mean amount.
MEAN_AMOUNT = "mean_amount"
# Models of one value of other packages, by name, which take a seed.
VALUE_MODELS: dict[str, Callable[[int], Any]] = {
    "logistic_gamma": logistic_gamma,
    "lightgbm_log_amounts": lightgbm_log_amounts,
    "lightgbm_tweedie": lightgbm_tweedie,
}
VALUE_MODEL_NAMES = [THIS_PACKAGE, MEAN_AMOUNT, *VALUE_MODELS]


def named_value_models(
    models: str | Sequence[str] | Mapping[str, Any],
    value_tasks: Mapping[Any, Any],
    *,
    classifier: Any = None,
    left_out: Sequence[str] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Return the models by name, which have `fit(X, Y)` and `predict_value(X)`.

    By default all whose packages are installed. The labels contain the amounts.
    `classifier` is this package's estimator with other parameters than its defaults;
    models of other packages do not read the columns `left_out`.
    """
    model_of_label = entries_by_name(models, VALUE_MODEL_NAMES)
    check_installed(model_of_label.values(), VALUE_MODEL_NAMES)
    if classifier is None:
        classifier = multi_task_classifier()
    for label, name in model_of_label.items():
        if not isinstance(name, str):
            continue
        if name == THIS_PACKAGE:
            model = clone(classifier).set_params(value_tasks=dict(value_tasks))
        elif name == MEAN_AMOUNT:
            model = NetworkTimesMean(clone(classifier), dict(value_tasks))
        else:
            model = VALUE_MODELS[name](seed)
            model = OneModelPerValue(model, dict(value_tasks), left_out)
        model_of_label[label] = model
    return model_of_label

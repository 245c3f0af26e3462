"""The models of events that a comparison knows by name: boosted trees and others."""

import importlib.util
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Self

import numpy as np
import sklearn
from sklearn import preprocessing
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, clone
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils.fixes import parse_version

from sk_pwiser._columns._encoder import TableEncoder
from sk_pwiser._responses import check_targets
from sk_pwiser._utils._checks import is_iterable
from sk_pwiser._utils._extras import import_extra

# The name of this package's estimator among the models.
THIS_PACKAGE = "sk_pwiser"
# As in `target_encoding="auto"` of the estimator.
MIN_VALUES = 100
# The default of C=1 overfits values that occur a few times.
LOGISTIC_C = 0.1
# Trees for labels that are noisy or rare.
SMALL_LEAVES = {"num_leaves": 8, "min_child_samples": 100}
CATBOOST_STEPS = {"early_stopping_rounds": 50}
HIST_STEPS = {
    "max_iter": 500,
    "learning_rate": 0.05,
    "n_iter_no_change": 20,
    "early_stopping": True,
}
LIGHTGBM_STEPS = {
    "n_estimators": 500,
    "learning_rate": 0.05,
    "early_stopping_round": 20,
}
IS_CATEGORY = make_column_selector(dtype_include="category")


def check_models(model_of_name: Mapping[str, Any], method: str) -> None:
    """Raise if there are not two models, or if one cannot predict."""
    if len(model_of_name) < 2:
        raise ValueError(
            f"models must name at least two models, got {list(model_of_name)}."
        )
    for name, model in model_of_name.items():
        if isinstance(model, type) or not hasattr(model, method):
            raise TypeError(
                f"models[{name!r}] must have the method {method}, got {model!r}."
            )


def named_models(
    models: str | Sequence[Any] | Mapping[str, Any], n_tasks: int
) -> dict[str, Any]:
    """Return the models by name; by default all whose packages are installed."""
    model_of_label = entries_by_name(models, list(MODELS))
    check_installed(model_of_label.values(), list(MODELS))
    for label, name in model_of_label.items():
        if not isinstance(name, str):
            continue
        model: Any = MODELS[name]()
        learns_all_tasks = name == THIS_PACKAGE or n_tasks == 1
        if not learns_all_tasks:
            model = OneModelPerTask(OneTask(model))
        model_of_label[label] = model
    return model_of_label


def entries_by_name(
    models: str | Sequence[Any] | Mapping[str, Any], names: list[str]
) -> dict[str, Any]:
    """Return what `models` says of each model; by default all whose packages exist."""
    if isinstance(models, str):
        if models != "default":
            raise ValueError(
                f"models must be 'default', a sequence or a dict, got {models!r}."
            )
        models = [name for name in names if is_installed(name)]
    if isinstance(models, Mapping):
        return dict(models)
    if not is_iterable(models):
        raise TypeError(
            "models must be 'default', a sequence such as ['bce', 'pwiser'] or a dict, "
            f"got {models!r}."
        )
    labels = [getattr(entry, "__name__", entry) for entry in models]
    if not all(isinstance(label, str) for label in labels):
        raise TypeError(
            "models must be a dict if they are other than names and losses, got "
            f"{models!r}."
        )
    if len(set(labels)) < len(labels):
        raise ValueError(f"models must be distinct, got {labels}.")
    return dict(zip(labels, models, strict=True))


def check_installed(entries: Iterable[Any], names: list[str]) -> None:
    """Raise if an entry is a name that is unknown, or whose package is missing."""
    for name in entries:
        if not isinstance(name, str):
            continue
        if name not in names:
            raise ValueError(f"models must be among {names}, got {name!r}.")
        if not is_installed(name):
            raise ImportError(
                f"The model {name!r} needs a package: pip install {PACKAGES[name]}"
            )


def is_installed(name: str) -> bool:
    """Return whether the package of a named model is installed."""
    package = PACKAGES.get(name)
    return package is None or importlib.util.find_spec(package) is not None


class OneModelPerTask(MultiOutputClassifier):
    """Copies of a model, one for each task, of labels of any form."""

    def fit(self, X: Any, Y: Any) -> Self:
        targets, *_ = check_targets(Y)
        return super().fit(X, targets)


class OneTask(ClassifierMixin, BaseEstimator):
    """A model of a task, or a constant if one row or none differs from the others.

    The constant is the rate of the rows with half a row more of each label. A constant
    of 0 would have a log loss of 36 for each event in the test rows.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def fit(self, X: Any, y: np.ndarray) -> Self:
        self.classes_ = np.array([0, 1])
        # Early stopping of trees needs two rows of each class.
        is_constant = min(y.sum(), len(y) - y.sum()) < 2
        self.model_ = None if is_constant else clone(self.model).fit(X, y)
        self.rate_ = (y.sum() + 0.5) / (len(y) + 1)
        return self

    def predict(self, X: Any) -> np.ndarray:
        return self.predict_proba(X).argmax(axis=1)

    def predict_proba(self, X: Any) -> np.ndarray:
        if self.model_ is None:
            return np.tile([1 - self.rate_, self.rate_], (len(X), 1))
        return self.model_.predict_proba(X)


class PlainColumns(TransformerMixin, BaseEstimator):
    """Reads a table as the estimator does, into categories and floats."""

    def fit(self, X: Any, y: Any = None) -> Self:
        encoder = TableEncoder()
        table = encoder.begin(X)
        categories = {}
        empty = set()
        for name, column in table.columns.items():
            values = column.plain_values(table.cells[name])
            if values.dtype == object:
                categories[name] = sorted(set(values))
            elif np.isnan(values).all():
                empty.add(name)
        self.encoder_ = encoder
        self.categories_ = categories
        self.empty_ = empty
        return self

    def transform(self, X: Any) -> Any:
        pandas = import_extra("pandas", "compare_models")
        plain = {}
        table = self.encoder_.read(X)
        for name, column in table.columns.items():
            values = column.plain_values(table.cells[name])
            if name in self.empty_:
                # scikit-learn's trees cannot be fitted to a column without a number.
                values = np.zeros(len(values))
            elif name in self.categories_:
                categories = self.categories_[name]
                codes = pandas.Index(categories).get_indexer(values)
                values = pandas.Categorical.from_codes(codes, categories)
            plain[str(name)] = values
        return pandas.DataFrame(plain)


def fit_until_stopped(model: Any, X: Any, y: Any, held_out: tuple[Any, Any]) -> Any:
    """Return a copy of boosted trees, fitted until held-out rows no longer gain."""
    with warnings.catch_warnings():
        # LightGBM 4.7 deprecates `eval_set`, which older versions need.
        warnings.simplefilter("ignore")
        return clone(model).fit(X, y, eval_set=[held_out])


class StopsEarly(ClassifierMixin, BaseEstimator):
    """Boosted trees that stop early on a tenth of the rows, which the seed draws."""

    def __init__(self, model: Any, seed: int = 0) -> None:
        self.model = model
        self.seed = seed

    def fit(self, X: Any, y: Any) -> Self:
        X, X_valid, y, y_valid = train_test_split(
            X, y, test_size=0.1, stratify=y, random_state=self.seed
        )
        self.model_ = fit_until_stopped(self.model, X, y, (X_valid, y_valid))
        self.classes_ = self.model_.classes_
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        return self.model_.predict_proba(X)


class CatBoost(ClassifierMixin, BaseEstimator):
    """CatBoost, which reads categories as text, with the `params` of its classifier."""

    def __init__(self, params: dict[str, Any] | None = None) -> None:
        self.params = params

    def fit(self, X: Any, y: Any, eval_set: Sequence[tuple[Any, Any]] = ()) -> Self:
        from catboost import CatBoostClassifier

        options = {"verbose": 0, "allow_writing_files": False, "random_state": 0}
        options |= {"cat_features": IS_CATEGORY(X), **(self.params or {})}
        held_out = [(self._as_text(table), labels) for table, labels in eval_set]
        self.model_ = CatBoostClassifier(**options)
        self.model_.fit(self._as_text(X), y, eval_set=held_out or None)
        self.classes_ = self.model_.classes_
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        return self.model_.predict_proba(self._as_text(X))

    @staticmethod
    def _as_text(X: Any) -> Any:
        texts = {name: X[name].astype(str).fillna("unseen") for name in IS_CATEGORY(X)}
        return X.assign(**texts)


def many_values(X: Any) -> list[str]:
    """Return the names of the category columns of many values."""
    return [name for name in IS_CATEGORY(X) if X[name].nunique() >= MIN_VALUES]


def with_statistics(
    model: Any, folds: Any = None, target_type: str = "auto"
) -> Pipeline:
    """Return a pipeline of trees that read rates in place of columns of many values.

    With `target_type="continuous"`, they are mean amounts.
    """
    rates = preprocessing.TargetEncoder(target_type=target_type, random_state=0)
    if parse_version(sklearn.__version__) >= parse_version("1.9"):
        # From there on, its own parameters of the folds are deprecated.
        folds = folds or StratifiedKFold(5, shuffle=True, random_state=0)
        rates = preprocessing.TargetEncoder(target_type=target_type, cv=folds)
    columns = ColumnTransformer(
        [("rates", rates, many_values)], remainder="passthrough"
    )
    # Trees find the other categories by their dtype, which arrays do not have.
    columns.set_output(transform="pandas")
    return make_pipeline(PlainColumns(), columns, model)


def one_hot_columns() -> ColumnTransformer:
    """Return one-hot categories, whose rarest values share a column, beside numbers."""
    categories = preprocessing.OneHotEncoder(handle_unknown="ignore", min_frequency=2)
    numbers = make_pipeline(SimpleImputer(), preprocessing.StandardScaler())
    return ColumnTransformer(
        [("categories", categories, IS_CATEGORY)], remainder=numbers
    )


def logistic_regression() -> Pipeline:
    """Return logistic regression on one-hot categories and standardised numbers."""
    model = LogisticRegression(C=LOGISTIC_C, max_iter=1_000)
    return make_pipeline(PlainColumns(), one_hot_columns(), model)


def hist_gradient_boosting() -> Pipeline:
    """Return scikit-learn's boosted trees, which stop early by themselves."""
    return with_statistics(HistGradientBoostingClassifier(random_state=0, **HIST_STEPS))


def early_stopped_lightgbm(
    n_jobs: int, seed: int = 0, *, small: bool = False
) -> Pipeline:
    """Return boosted trees of LightGBM that stop early on a tenth of the rows."""
    from lightgbm import LGBMClassifier

    params: dict[str, Any] = LIGHTGBM_STEPS | (SMALL_LEAVES if small else {})
    trees = LGBMClassifier(verbose=-1, random_state=seed, n_jobs=n_jobs, **params)
    return by_number(StopsEarly(trees, seed))


def lightgbm(seed: int = 0, *, small: bool = False) -> Pipeline:
    """Return boosted trees of LightGBM, with `small` those of few large leaves."""
    # 0 is the number of threads of OpenMP, which joblib lowers for parallel fits: with
    # more threads than free cores, small fits take many times as long.
    return with_statistics(early_stopped_lightgbm(n_jobs=0, seed=seed, small=small))


def by_number(model: Any) -> Pipeline:
    """Return a pipeline that renames columns: LightGBM refuses some characters."""
    return make_pipeline(preprocessing.FunctionTransformer(plain_names), model)


def plain_names(X: Any) -> Any:
    """Return a table whose columns are named by their index."""
    return X.set_axis([f"column_{j}" for j in range(X.shape[1])], axis=1)


def catboost() -> Pipeline:
    """Return boosted trees of CatBoost, which has target statistics of its own."""
    return make_pipeline(PlainColumns(), StopsEarly(CatBoost(CATBOOST_STEPS)))


def multi_task_classifier() -> Any:
    """Return this package's estimator with its default parameters."""
    # Not at the top: it loads torch, which folds do not need.
    from sk_pwiser._estimator._classifier import MultiTaskCTRCVRClassifier

    return MultiTaskCTRCVRClassifier()


MODELS: dict[str, Callable[[], Any]] = {
    THIS_PACKAGE: multi_task_classifier,
    "logistic_regression": logistic_regression,
    "hist_gradient_boosting": hist_gradient_boosting,
    "lightgbm": lightgbm,
    "lightgbm_small_leaves": partial(lightgbm, small=True),
    "catboost": catboost,
}
# What pip installs for models of packages that may be missing.
PACKAGES = {
    "lightgbm": "lightgbm",
    "lightgbm_small_leaves": "lightgbm",
    "catboost": "catboost",
    "lightgbm_log_amounts": "lightgbm",
    "lightgbm_tweedie": "lightgbm",
}

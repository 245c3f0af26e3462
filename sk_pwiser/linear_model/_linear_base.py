"""Labels, weights, columns and predictions of all linear models."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.special import log_expit
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.utils import ClassifierTags, RegressorTags, check_array
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from sk_pwiser._columns._frames import (
    as_table,
    collected,
    holds_dates,
    is_sparse,
    list_columns,
    read_numbers,
)
from sk_pwiser._responses import check_same_tasks
from sk_pwiser._tasks._labels import (
    names_of_columns,
    one_task_labels,
    read_labels,
    zero_one_labels,
)
from sk_pwiser._tasks._row_match import check_match
from sk_pwiser._tasks._weights import check_weights
from sk_pwiser._utils._checks import accept_any_case_of_y
from sk_pwiser._utils._doc_links import DocLink
from sk_pwiser._utils._warnings import warn_user

TASK_TYPES = ("binary", "regression")
# A variance below this share of the mean square is a rounding error, and counts as 0.
SMALLEST_SHARE = 1e-12
# The same for columns that are centred first, whose errors are smaller.
SMALLEST_CENTRED_SHARE = 1e-28

Array = npt.NDArray[Any]
Content = TypeVar("Content")


def read_features(
    X: Any, accept_sparse: str | Sequence[str] = "csc", **checks: Any
) -> Any:
    """Return features as a checked array or sparse matrix of float64.

    Each column of a dense table is read by itself, so that an error names it; numpy
    would read dates as numbers, and "7" as 7.
    """
    names = names_of_columns(X) if hasattr(X, "columns") else None
    if names and not is_sparse(X):
        columns = []
        for name, column in zip(names, list_columns(as_table(X)), strict=True):
            advice = " Encode categories, for example by OneHotEncoder."
            if holds_dates(column):
                advice = (
                    " Derive numbers from dates, such as the hour, the weekday or the "
                    "age in days."
                )
            elif np.asarray(column.head(1)).dtype.kind == "m":  # spans of time
                advice = ""
            columns.append(read_numbers(column, f"Column {name!r}", advice))
        X = np.column_stack(columns)
    return check_array(
        X, accept_sparse=accept_sparse, dtype=np.float64, input_name="X", **checks
    )


@dataclass(frozen=True, kw_only=True)
class LinearTargets:
    """Values of all tasks, NaN if missing; `classes` is None without binary tasks."""

    values: Array
    is_binary: Array
    classes: Array | None
    task_names: list[str]
    is_single: bool


def read_targets(
    y: Any,
    task_types: str | Sequence[str] = "binary",
    missing_labels: str = "error",
    classes: Array | None = None,
) -> LinearTargets:
    """Check labels and values, and return them as :class:`LinearTargets`.

    `classes` are those of a single task in an earlier fit.
    """
    allowed = "ignore" if missing_labels == "ignore" and np.ndim(y) == 2 else "error"
    labels, missing, columns = read_labels(y, allowed, input_name="y")
    labels = labels.reshape(len(labels), -1)
    n_tasks = labels.shape[1]
    types = [task_types] * n_tasks if isinstance(task_types, str) else list(task_types)
    if len(types) != n_tasks or not all(kind in TASK_TYPES for kind in types):
        raise ValueError(
            f"task_types must be one of {TASK_TYPES}, or one for each of {n_tasks} "
            f"tasks; got {types}."
        )
    is_binary = np.array(types) == "binary"
    names = columns or [f"task_{k}" for k in range(n_tasks)]
    if columns is None and n_tasks == 2 and is_binary.all():
        names = ["click", "conversion"]
    if n_tasks == 1 and is_binary[0]:
        # A row without the only label has no effect, so that it is probably a mistake.
        read_labels(y, input_name="y")
        values, classes = one_task_labels(
            labels[:, 0], columns, classes, input_name="y"
        )
        return LinearTargets(
            values=values.astype(float),
            is_binary=is_binary,
            classes=classes,
            task_names=names,
            is_single=True,
        )
    values = labels.astype(np.float64)
    if missing is not None:
        values[missing.reshape(labels.shape)] = np.nan
    if is_binary.any():
        binary_names = list(compress(names, is_binary))
        zero_one_labels(labels[:, is_binary], binary_names, input_name="y")
        dtype = labels.dtype if labels.dtype.kind in "iubf" else np.dtype(int)
        classes = np.tile(np.array([0, 1]), (is_binary.sum(), 1)).astype(dtype)
    for name, column in zip(names, values.T, strict=True):
        if np.isnan(column).all():
            raise ValueError(f"Task {name!r} has no label: its column of y is all NaN.")
    return LinearTargets(
        values=values,
        is_binary=is_binary,
        classes=classes,
        task_names=names,
        is_single=n_tasks == 1,
    )


def label_weights(sample_weight: Any, X: Any, y: Any, targets: LinearTargets) -> Array:
    """Return weights, (n_samples, n_tasks): 0 where a task has no label.

    `X` and `y` are as the user passed them: if two of the three have an index, it must
    be the same.
    """
    values = targets.values
    check_match(X, len(values), y=y, sample_weight=sample_weight)
    # A missing label is a weight of 0, so that all losses are sums over all rows.
    weight = (~np.isnan(values)).astype(np.float64)
    if sample_weight is None:
        return weight
    n_samples, n_tasks = values.shape
    checked = check_weights(sample_weight, n_samples, n_tasks, targets.task_names)
    weight *= checked.reshape(n_samples, -1)
    is_empty = ~weight.any(axis=0)
    if is_empty.any():
        name = targets.task_names[int(is_empty.argmax())]
        raise ValueError(
            f"sample_weight must not be zero in all rows with a label of task {name!r}."
        )
    return weight


def class_weights(targets: LinearTargets, weights: Array) -> tuple[Array, Array]:
    """Return the weight of the labels 1, and that of the labels 0, of each task."""
    positive = (weights * (targets.values == 1)).sum(axis=0)
    negative = (weights * (targets.values == 0)).sum(axis=0)
    return positive, negative


def find_constant_tasks(targets: LinearTargets, weights: Array) -> Array:
    """Return which binary tasks have one label only, with a warning for each."""
    positive, negative = class_weights(targets, weights)
    is_constant = targets.is_binary & ((positive == 0) | (negative == 0))
    if targets.is_single and is_constant[0] and targets.classes is not None:
        only_class = targets.classes[int(positive[0] > 0)]
        raise ValueError(
            "A single task needs both classes; rows of weight > 0 have only "
            f"{only_class!r}."
        )
    for k in np.flatnonzero(is_constant):
        warn_user(
            f"Task {targets.task_names[k]!r} is {int(positive[k] > 0)} in every row "
            "with a label: it cannot be learnt."
        )
    return is_constant


def smoothed_log_odds(targets: LinearTargets, weights: Array) -> Array:
    """Return the log-odds of the tasks, with half a row added to each class."""
    # The half rows keep them finite for tasks with one class.
    positive, negative = class_weights(targets, weights)
    log_odds: Array = np.log(positive + 0.5) - np.log(negative + 0.5)
    return log_odds


class Columns:
    """The matrix ``(X - mean) / scale``, which is never computed.

    Centred columns are orthogonal to the intercepts, but centring would fill a sparse
    matrix with numbers; here it is a correction of each product.
    """

    def __init__(self, X: Any, mean: Array, scale: Array) -> None:
        self.X = X
        self.mean = mean
        self.scale = scale
        self.n_features: int = X.shape[1]

    def dot(self, V: Array) -> Array:
        """Return the product with V of shape (n_features, k)."""
        W = V / self.scale[:, np.newaxis]
        product: Array = self.X @ W - self.mean @ W
        return product

    def transposed_dot(self, R: Array) -> Array:
        """Return the product of the transpose with R of shape (n_samples, k)."""
        product: Array = self.X.T @ R - np.outer(self.mean, R.sum(axis=0))
        return product / self.scale[:, np.newaxis]

    def select(self, features: Array) -> "Columns":
        return Columns(self.X[:, features], self.mean[features], self.scale[features])


def weighted_moments(X: Any, weight: Array) -> tuple[Array, Array]:
    """Return the means and variances of the columns, exactly 0 for constant ones."""
    weight = weight / weight.sum()
    mean = X.T @ weight
    if sparse.issparse(X):
        square = X.multiply(X).T @ weight
    else:
        square = np.einsum("i,ij,ij->j", weight, X, X)
    variance = square - mean**2
    smallest_share = np.full_like(mean, SMALLEST_SHARE)
    # For values far from 0, such as times, few digits of this difference are correct.
    is_far = variance < 1e-6 * square
    if is_far.any() and not sparse.issparse(X):
        centred = X[:, is_far] - mean[is_far]
        # What rounding left in the mean.
        correction = centred.T @ weight
        mean[is_far] += correction
        squares = np.einsum("i,ij,ij->j", weight, centred, centred)
        variance[is_far] = squares - correction**2
        smallest_share[is_far] = SMALLEST_CENTRED_SHARE
    variance[variance < smallest_share * square] = 0.0
    return mean, variance


def _has_binary_tasks(estimator: Any) -> bool:
    """Raise an AttributeError, as if the method did not exist, if no task is binary."""
    if "binary" not in getattr(estimator, "task_types", "binary"):
        raise AttributeError("Only binary tasks have probabilities.")
    return True


class LinearPredictions(DocLink):
    """Predictions from the linear predictors of the tasks.

    Subclasses have a method `_linear_predictors` that returns logits or values of shape
    (n_samples, n_tasks), and call `_set_targets` in `fit`.
    """

    missing_labels: str
    classes_: Array
    task_names_: list[str]
    n_tasks_: int
    n_features_in_: int
    feature_names_in_: Array

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.input_tags.sparse = True
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        types = getattr(self, "task_types", "binary")
        types = {types} if isinstance(types, str) else set(types)
        if types == {"binary"}:
            tags.estimator_type = "classifier"
            tags.classifier_tags = ClassifierTags(multi_class=False, multi_label=True)
        elif types == {"regression"}:
            tags.estimator_type = "regressor"
            tags.regressor_tags = RegressorTags()
        return tags

    def _linear_predictors(self, X: Any) -> Array:
        raise NotImplementedError

    def _set_targets(self, targets: LinearTargets) -> None:
        self._is_binary = targets.is_binary
        self._is_single = targets.is_single
        self.task_names_ = targets.task_names
        self.n_tasks_ = len(targets.task_names)
        vars(self).pop("classes_", None)
        if targets.classes is not None:
            self.classes_ = targets.classes

    def _read(self, X: Any, read: Callable[[Any], Content]) -> Content:
        """Return rows that `read` reads, which must have the columns of the fit."""
        X = collected(X)
        # Names are checked before values, and the number of columns after the
        # dimension, so that the errors are those that scikit-learn expects.
        is_table = hasattr(X, "columns")
        if is_table:
            validate_data(self, X, skip_check_array=True, reset=False)
        content = read(X)
        if not is_table:
            validate_data(self, X, skip_check_array=True, reset=False)
        return content

    def _log_probabilities(self, linear: Array) -> Array:
        """Return log P(Y_k = 1) from the linear predictors of binary tasks."""
        log_probabilities: Array = log_expit(linear)
        return log_probabilities

    def predict(self, X: Any) -> Array:
        """Predict labels of binary tasks, and values of regression tasks.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Features.

        Returns
        -------
        ndarray of shape (n_samples, n_tasks) or (n_samples,)
            The label 1 where the probability is above 0.5, and values in the units of
            `y` in `fit`. With tasks of both types all are floats.
        """
        check_is_fitted(self)
        linear = self._linear_predictors(X)
        is_binary = self._is_binary
        # By probability, not by the sign of the predictor: the squared loss of a
        # subclass has another link.
        is_positive = self._log_probabilities(linear[:, is_binary]) > np.log(0.5)
        if is_binary.all():
            labels = is_positive.astype(int)
            if self._is_single:
                single: Array = self.classes_[labels[:, 0]]
                return single
            return labels.astype(self.classes_.dtype)
        linear[:, is_binary] = is_positive
        return linear[:, 0] if self._is_single else linear

    @available_if(_has_binary_tasks)
    def predict_proba(self, X: Any) -> Array:
        """Predict probabilities of the binary tasks.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Features.

        Returns
        -------
        ndarray of shape (n_samples, n_binary_tasks)
            Column k is P(Y = 1) for binary task k, in the order of `y`. For a single
            task, the ordinary `(n_samples, 2)` with both classes.
        """
        check_is_fitted(self)
        limits = np.finfo(np.float64)
        linear = self._linear_predictors(X)[:, self._is_binary]
        p = np.exp(self._log_probabilities(linear))
        # The log loss of a certain prediction that is wrong stays finite.
        p = np.clip(p, limits.tiny, 1.0 - limits.epsneg)
        return np.hstack([1.0 - p, p]) if self._is_single else p

    @accept_any_case_of_y
    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Compute the mean over the tasks of ROC AUC, or R2 of regression tasks.

        It is not the accuracy: at a click rate of 1 %, predicting no click at all has
        an accuracy of 99 %.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Features.
        y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            True labels and values. With `missing_labels="ignore"` rows with NaN are
            left out of their task.
        sample_weight : array-like of shape (n_samples,) or (n_samples, n_tasks), \
                default=None
            Weights of the rows, or of the rows and tasks, >= 0.

        Returns
        -------
        float
            The mean; NaN, with a warning, if a binary task has only one class.

        Raises
        ------
        ValueError
            If labels or weights are invalid, or if the tasks differ from those of the
            fit.
        """
        check_is_fitted(self)
        X = collected(X)
        y = collected(y)
        types = np.where(self._is_binary, "binary", "regression").tolist()
        classes = self.classes_ if self._is_single and self._is_binary[0] else None
        targets = read_targets(y, types, self.missing_labels, classes)
        names = names_of_columns(y) or []
        check_same_tasks(self.n_tasks_, names, self.task_names_)
        linear = self._linear_predictors(X)
        checked_weights = label_weights(sample_weight, X, y, targets)
        weights = None if sample_weight is None else checked_weights
        scores = task_scores(targets.values, linear, self._is_binary, weights)
        return float(np.mean(scores))


def task_scores(
    values: Array, linear: Array, is_binary: Array, weights: Array | None = None
) -> Array:
    """Return ROC AUC of binary tasks and R2 of regression tasks, over weighted rows."""
    scores = []
    for k, is_binary_task in enumerate(is_binary):
        rows = ~np.isnan(values[:, k])
        weight = None
        if weights is not None:
            rows &= weights[:, k] > 0
            weight = weights[rows, k]
        metric = roc_auc_score if is_binary_task else r2_score
        scores.append(metric(values[rows, k], linear[rows, k], sample_weight=weight))
    return np.array(scores)

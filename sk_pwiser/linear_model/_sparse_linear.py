"""Joint feature selection for binary and regression tasks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, _fit_context
from sklearn.model_selection import KFold, check_cv
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import (
    Interval,
    StrOptions,
    validate_parameter_constraints,
)
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import validate_data

from sk_pwiser._columns._frames import collected
from sk_pwiser._tasks._labels import MISSING_LABELS, names_of_columns
from sk_pwiser._utils._checks import accept_any_case_of_y
from sk_pwiser.linear_model._linear_base import (
    TASK_TYPES,
    Array,
    LinearPredictions,
    LinearTargets,
    label_weights,
    read_features,
    read_targets,
    task_scores,
)
from sk_pwiser.linear_model._sparse_solver import SparseProblem, SparseSettings
from sk_pwiser.model_selection import FunnelStratifiedKFold

NOT_NEGATIVE = Interval(Real, 0, None, closed="left")
SPARSE_CONSTRAINTS = {
    "task_types": [StrOptions(set(TASK_TYPES)), "array-like"],
    "missing_labels": [StrOptions(set(MISSING_LABELS))],
    "l2": [NOT_NEGATIVE],
    "mean_reg": [NOT_NEGATIVE],
    "fit_intercept": ["boolean"],
    "scale_targets": ["boolean"],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "tol": [Interval(Real, 0, None, closed="neither")],
}
PATH_CONSTRAINTS = {
    "alphas": [Interval(Integral, 1, None, closed="left"), "array-like"],
    "eps": [Interval(Real, 0, 1, closed="neither")],
}


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearRows:
    """The rows of a fit, checked, and as the user passed them, for splitters."""

    features: Any
    targets: LinearTargets
    weights: Array
    X: Any
    y: Any


class SparseLinearBase(LinearPredictions, BaseEstimator):
    """The common part of the estimators with a given and a cross-validated alpha."""

    _min_samples = 1
    task_types: str | Sequence[str]
    l2: float
    mean_reg: float
    fit_intercept: bool
    scale_targets: bool
    max_iter: int
    tol: float
    coef_: Array
    intercept_: Array
    n_iter_: int

    @accept_any_case_of_y
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the coefficients of all tasks.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Features.
        y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            Labels 0 and 1 of binary tasks, or any two labels of a single one; values of
            regression tasks.
        sample_weight : array-like of shape (n_samples,) or (n_samples, n_tasks), \
                default=None
            Weights of the rows, or of the rows and tasks, >= 0. Only the ratios within
            a task matter, since its loss is a mean. A row of weight 0 takes no part in
            the task. A choice of alpha weights the scores, too.

        Returns
        -------
        estimator : object of this class
            The fitted estimator.

        Raises
        ------
        ValueError, TypeError
            If data or parameters are invalid, or if alpha is to be chosen and no fold
            has a score. An earlier fit stays usable.

        Warns
        -----
        ConvergenceWarning
            If `max_iter` is reached.
        """
        X = collected(X)
        y = collected(y)
        rows = self._read_rows(X, y, sample_weight)
        problem = SparseProblem(rows.features, rows.targets, rows.weights, self)
        alpha, choice = self._choose_alpha(problem, rows)
        coef, intercept, n_iter = problem.solve(alpha)
        # Attributes are set after the fit has succeeded.
        validate_data(self, X, skip_check_array=True)
        self._set_targets(rows.targets)
        self.coef_ = coef
        self.intercept_ = intercept
        self.n_iter_ = max(n_iter, 1)
        for name, value in choice.items():
            setattr(self, name, value)
        return self

    def _choose_alpha(
        self, problem: SparseProblem, rows: LinearRows
    ) -> tuple[float, dict[str, Any]]:
        """Return the strength of the penalty, and attributes that tell of the choice.

        The problem may be solved for other values on the way.
        """
        raise NotImplementedError

    def _read_rows(self, X: Any, y: Any, sample_weight: Any) -> LinearRows:
        """Return features, targets and weights, checked."""
        features = read_features(
            X, ensure_min_samples=self._min_samples, estimator=self
        )
        targets = read_targets(y, self.task_types, self.missing_labels)
        return LinearRows(
            features=features,
            targets=targets,
            weights=label_weights(sample_weight, X, y, targets),
            X=X,
            y=y,
        )

    def _linear_predictors(self, X: Any) -> Array:
        features = self._read(X, partial(read_features, accept_sparse=("csr", "csc")))
        linear: Array = features @ self.coef_.T + self.intercept_
        return linear


class MultiTaskSparseLinear(SparseLinearBase):
    """Linear model of several tasks that use the same few features.

    The loss is logistic for binary tasks, such as click and conversion, and the squared
    error for regression tasks, such as the order value. A feature has a coefficient for
    every task or for none, since the penalty is the sum over the features of the
    Euclidean norm of their coefficients. Let w_k be the coefficients of task k, n_k its
    number of labelled rows and w^j the coefficients of feature j. The objective is

        sum over binary k of (2 / n_k) sum_i log(1 + exp(-y_ik x_i'w_k))
        + sum over regression k of (1 / (2 n_k)) sum_i (y_ik - x_i'w_k)^2
        + alpha sum_j ||w^j|| + (mean_reg / 2) sum_k ||w_k - mean_l w_l||^2
        + (l2 / 2) sum_k ||w_k||^2,

    where y is -1 or 1 in the logistic loss. With the factors 2 and 1/2, features of
    both types of task enter the model at the same alpha. Intercepts are not penalised.

    Parameters
    ----------
    alpha : float, default=0.01
        Strength of the penalty that selects features, >= 0. Above a limit all
        coefficients are 0; :func:`multi_task_sparse_path` starts there.
    task_types : {"binary", "regression"} or sequence of str, default="binary"
        Type of all tasks, or of each task.
    missing_labels : {"error", "ignore"}, default="error"
        Whether labels and values may be missing (NaN in `y`), in any task but a single
        one. With "ignore" such rows take no part in the task.
    l2 : float, default=0.0
        Strength of the squared penalty, >= 0.
    mean_reg : float, default=0.0
        Strength of the penalty on differences between the tasks, >= 0.
    fit_intercept : bool, default=True
        Whether the tasks have intercepts.
    scale_targets : bool, default=False
        Whether the values of regression tasks are divided by their standard deviation
        during the fit. Without it the choice of features depends on the units of the
        values: an order value in cents outweighs all binary tasks. Coefficients and
        predictions are in the units of `y` in both cases.
    max_iter : int, default=2000
        Largest number of steps of the solver.
    tol : float, default=1e-4
        Largest violation of the optimality conditions, relative to the gradient at
        coefficients of 0.

    Attributes
    ----------
    coef_ : ndarray of shape (n_tasks, n_features)
        Coefficients, for logits of binary tasks and values of regression tasks.
        Features that are not selected have exact zeros.
    intercept_ : ndarray of shape (n_tasks,)
        Intercepts.
    n_iter_ : int
        Number of steps of the solver.
    classes_ : ndarray of shape (n_binary_tasks, 2) or (2,)
        The labels of the binary tasks; 1-D for a single task. Absent without any.
    task_names_ : list of str
        Names of the tasks: the columns of a DataFrame `y`.
    n_tasks_ : int
        Number of tasks.
    n_features_in_ : int
        Number of columns of `X`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if `X` has column names that are all strings.

    See Also
    --------
    MultiTaskSparseLinearCV : Chooses alpha by cross-validation.
    sklearn.linear_model.MultiTaskLasso : The same for regression tasks in which every
        row has a value.

    Notes
    -----
    Differences from the paper: intercepts are not penalised, so that predictions do not
    depend on the origin of the features; and all tasks share one table, though not
    every row needs a label of every task.

    Columns should have similar scales, as for any penalised model. Inside
    :class:`~sklearn.feature_selection.SelectFromModel`, pass ``threshold=1e-10``; its
    default drops features below the mean norm.

    With tasks of both types, scorers that expect one column of probabilities per task
    do not apply: `predict_proba` has the columns of the binary tasks.

    References
    ----------
    Cao et al. (2024). "MTLComb: multi-task learning combining regression and
    classification tasks for joint feature selection." :arxiv:`2405.09886`

    Beck and Teboulle (2009). "A Fast Iterative Shrinkage-Thresholding Algorithm for
    Linear Inverse Problems." SIAM Journal on Imaging Sciences 2(1).
    :doi:`10.1137/080716542`

    Examples
    --------
    Click and conversion on all rows, the order value on converted rows:

    >>> import numpy as np
    >>> from sk_pwiser.linear_model import MultiTaskSparseLinear
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((1000, 20))
    >>> click = X[:, 0] + rng.standard_normal(1000) > 0
    >>> conversion = click & (X[:, 0] + rng.standard_normal(1000) > 1)
    >>> value = 50 + 5 * X[:, 1] + rng.standard_normal(1000)
    >>> value[~conversion] = np.nan
    >>> model = MultiTaskSparseLinear(
    ...     alpha=0.3,
    ...     task_types=["binary", "binary", "regression"],
    ...     missing_labels="ignore",
    ...     scale_targets=True,
    ... )
    >>> model.fit(X, np.column_stack([click, conversion, value])).coef_.any(axis=0)[:5]
    array([ True,  True, False, False, False])
    >>> model.predict_proba(X).shape
    (1000, 2)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "alpha": [NOT_NEGATIVE],
        **SPARSE_CONSTRAINTS,
    }

    def __init__(
        self,
        *,
        alpha: float = 0.01,
        task_types: str | Sequence[str] = "binary",
        missing_labels: str = "error",
        l2: float = 0.0,
        mean_reg: float = 0.0,
        fit_intercept: bool = True,
        scale_targets: bool = False,
        max_iter: int = 2000,
        tol: float = 1e-4,
    ) -> None:
        self.alpha = alpha
        self.task_types = task_types
        self.missing_labels = missing_labels
        self.l2 = l2
        self.mean_reg = mean_reg
        self.fit_intercept = fit_intercept
        self.scale_targets = scale_targets
        self.max_iter = max_iter
        self.tol = tol

    def _choose_alpha(
        self, problem: SparseProblem, rows: LinearRows
    ) -> tuple[float, dict[str, Any]]:
        return self.alpha, {}


@accept_any_case_of_y
def multi_task_sparse_path(
    X: Any,
    y: Any,
    *,
    alphas: int | Sequence[float] | Array = 10,
    eps: float = 0.01,
    sample_weight: Any = None,
    **params: Any,
) -> tuple[Array, Array, Array]:
    """Compute the coefficients of :class:`MultiTaskSparseLinear` for several alphas.

    The alphas are solved in descending order, and each solution is the start of the
    next.

    Parameters
    ----------
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Features.
    y : array-like of shape (n_samples, n_tasks) or (n_samples,)
        Labels 0 and 1 of binary tasks, values of regression tasks.
    alphas : int or array-like of shape (n_alphas,), default=10
        The penalties, or their number. In the latter case their logarithms are evenly
        spaced, from the smallest penalty at which all coefficients are 0 down to `eps`
        times it.
    eps : float, default=0.01
        The smallest alpha over the largest one, in (0, 1), if `alphas` is a number.
    sample_weight : array-like of shape (n_samples,) or (n_samples, n_tasks), \
            default=None
        Weights of the rows, or of the rows and tasks, >= 0.
    **params : dict
        Parameters of :class:`MultiTaskSparseLinear` other than `alpha`, such as
        `task_types`. `max_iter` is the largest number of steps per alpha.

    Returns
    -------
    alphas : ndarray of shape (n_alphas,)
        The penalties, in descending order.
    coefs : ndarray of shape (n_tasks, n_features, n_alphas)
        The coefficients.
    intercepts : ndarray of shape (n_tasks, n_alphas)
        The intercepts.

    Raises
    ------
    ValueError
        If data or parameters are invalid.
    TypeError
        If a parameter is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_pwiser.linear_model import multi_task_sparse_path
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((200, 5))
    >>> Y = (X[:, :1] + rng.standard_normal((200, 2)) > 0).astype(int)
    >>> alphas, coefs, _ = multi_task_sparse_path(X, Y, alphas=3, eps=0.04)
    >>> (coefs != 0).any(axis=0).sum(axis=0)  # number of features at each alpha
    array([0, 1, 5])
    """
    # `alpha` is no parameter of a path: giving it twice is an error.
    settings = MultiTaskSparseLinear(alpha=0.0, **params)
    settings._validate_params()
    validate_parameter_constraints(
        PATH_CONSTRAINTS, {"alphas": alphas, "eps": eps}, "multi_task_sparse_path"
    )
    rows = settings._read_rows(collected(X), collected(y), sample_weight)
    problem = SparseProblem(rows.features, rows.targets, rows.weights, settings)
    descending = problem.alphas(alphas, eps)
    coefs, intercepts, _ = zip(*map(problem.solve, descending), strict=True)
    return descending, np.stack(coefs, axis=-1), np.stack(intercepts, axis=-1)


class MultiTaskSparseLinearCV(SparseLinearBase):
    """MultiTaskSparseLinear with alpha chosen by cross-validation.

    In each fold the model is fitted along the path of alphas in descending order; each
    solution is the start of the next. The alpha with the best mean AUC of the binary
    tasks and the one with the best mean R2 of the regression tasks are averaged,
    weighted by the numbers of tasks, and the model is fitted to all rows.

    Parameters
    ----------
    alphas : int or array-like of shape (n_alphas,), default=10
        The penalties, or their number. In the latter case their logarithms are evenly
        spaced, from the smallest penalty at which all coefficients are 0 down to `eps`
        times it.
    eps : float, default=0.01
        The smallest alpha over the largest one, in (0, 1), if `alphas` is a number.
    cv : int, cross-validation generator or iterable, default=5
        The folds. An int is a number of folds of shuffled rows, stratified by the
        depth in the funnel of the binary tasks.
    task_types : {"binary", "regression"} or sequence of str, default="binary"
        Type of all tasks, or of each task.
    missing_labels : {"error", "ignore"}, default="error"
        Whether labels and values may be missing (NaN in `y`), in any task but a single
        one. With "ignore" such rows take no part in the task.
    l2 : float, default=0.0
        Strength of the squared penalty, >= 0.
    mean_reg : float, default=0.0
        Strength of the penalty on differences between the tasks, >= 0.
    fit_intercept : bool, default=True
        Whether the tasks have intercepts.
    scale_targets : bool, default=False
        Whether the values of regression tasks are divided by their standard deviation
        during the fit; see :class:`MultiTaskSparseLinear`.
    max_iter : int, default=2000
        Largest number of steps of the solver per alpha.
    tol : float, default=1e-4
        Largest violation of the optimality conditions, relative to the gradient at
        coefficients of 0.
    n_jobs : int, default=None
        Number of folds that are computed in parallel.
    random_state : int, RandomState instance or None, default=None
        Seed of the shuffling, if `cv` is an int.

    Attributes
    ----------
    alpha_ : float
        The chosen penalty.
    alphas_ : ndarray of shape (n_alphas,)
        The penalties, in descending order.
    best_alphas_ : dict
        The best penalty of each type of task, "binary" and "regression".
    scores_ : ndarray of shape (n_alphas, n_folds, n_tasks)
        AUC of binary tasks and R2 of regression tasks; NaN where undefined.
    coef_ : ndarray of shape (n_tasks, n_features)
        Coefficients, for logits of binary tasks and values of regression tasks.
    intercept_ : ndarray of shape (n_tasks,)
        Intercepts.
    n_iter_ : int
        Number of steps of the solver at the chosen alpha.
    classes_ : ndarray of shape (n_binary_tasks, 2) or (2,)
        The labels of the binary tasks; 1-D for a single task. Absent without any.
    task_names_ : list of str
        Names of the tasks: the columns of a DataFrame `y`.
    n_tasks_ : int
        Number of tasks.
    n_features_in_ : int
        Number of columns of `X`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if `X` has column names that are all strings.

    See Also
    --------
    MultiTaskSparseLinear : The same with a given alpha.

    Notes
    -----
    Differences from the paper: 5 folds instead of 10, and R2 instead of the mean
    squared error, which cannot be averaged over tasks of different units.

    References
    ----------
    Cao et al. (2024). "MTLComb: multi-task learning combining regression and
    classification tasks for joint feature selection." :arxiv:`2405.09886`

    Examples
    --------
    >>> import numpy as np
    >>> from sk_pwiser.linear_model import MultiTaskSparseLinearCV
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((300, 8))
    >>> Y = (X[:, :1] + rng.standard_normal((300, 2)) > 0).astype(int)
    >>> model = MultiTaskSparseLinearCV(random_state=0).fit(X, Y)
    >>> model.scores_.shape
    (10, 5, 2)
    """

    _min_samples = 2
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **PATH_CONSTRAINTS,
        "cv": ["cv_object"],
        **SPARSE_CONSTRAINTS,
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    alpha_: float
    alphas_: Array
    best_alphas_: dict[str, float]
    scores_: Array

    def __init__(
        self,
        *,
        alphas: int | Sequence[float] | Array = 10,
        eps: float = 0.01,
        cv: Any = 5,
        task_types: str | Sequence[str] = "binary",
        missing_labels: str = "error",
        l2: float = 0.0,
        mean_reg: float = 0.0,
        fit_intercept: bool = True,
        scale_targets: bool = False,
        max_iter: int = 2000,
        tol: float = 1e-4,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.alphas = alphas
        self.eps = eps
        self.cv = cv
        self.task_types = task_types
        self.missing_labels = missing_labels
        self.l2 = l2
        self.mean_reg = mean_reg
        self.fit_intercept = fit_intercept
        self.scale_targets = scale_targets
        self.max_iter = max_iter
        self.tol = tol
        self.n_jobs = n_jobs
        self.random_state = random_state

    def _choose_alpha(
        self, problem: SparseProblem, rows: LinearRows
    ) -> tuple[float, dict[str, Any]]:
        targets = rows.targets
        features = rows.features
        alphas = problem.alphas(self.alphas, self.eps)
        sliceable = features.tocsr() if hasattr(features, "tocsr") else features
        fold_rows = replace(rows, features=sliceable, X=None, y=None)
        folds = Parallel(n_jobs=self.n_jobs)(
            delayed(fold_scores)(fold_rows, train, test, alphas=alphas, settings=self)
            for train, test in self._splits(rows)
        )
        scores = np.stack(folds, axis=1)
        best = best_alphas(alphas, scores, targets)
        n_binary = int(targets.is_binary.sum())
        shares = {"binary": n_binary, "regression": len(targets.is_binary) - n_binary}
        # AUC and R2 have no common scale, so the alphas are averaged, not the scores.
        weighted_sum = sum(shares[kind] * best[kind] for kind in best)
        alpha = weighted_sum / len(targets.is_binary)
        # Down the path, as in the folds: each solution is a good start of the next.
        for larger in alphas[alphas > alpha]:
            problem.solve(larger)
        choice = {
            "alpha_": float(alpha),
            "alphas_": alphas,
            "best_alphas_": best,
            "scores_": scores,
        }
        return alpha, choice

    def _splits(self, rows: LinearRows) -> Any:
        """Return the folds, each with its training rows and its test rows."""
        values = rows.targets.values
        binary = np.flatnonzero(rows.targets.is_binary)
        labels = np.nan_to_num(values[:, binary]).astype(int)
        if not isinstance(self.cv, Integral):
            cv = check_cv(self.cv)
            # Splitters read labels, not values, where there are any.
            split_labels = values[:, binary] if labels.size else values
            if split_labels.shape[1] == 1:
                split_labels = split_labels[:, 0]
            elif hasattr(cv, "task_parents") and names_of_columns(rows.y):
                # Those of this package find the tasks by name.
                split_labels = rows.y
                if len(binary) < values.shape[1]:
                    split_labels = _safe_indexing(rows.y, binary, axis=1)
            return cv.split(rows.X, split_labels)
        kind = FunnelStratifiedKFold if labels.size else KFold
        folds = kind(int(self.cv), shuffle=True, random_state=self.random_state)
        return folds.split(rows.X, labels)


def fold_scores(
    rows: LinearRows,
    train: Array,
    test: Array,
    *,
    alphas: Array,
    settings: SparseSettings,
) -> Array:
    """Return the scores of one fold, ndarray of shape (n_alphas, n_tasks)."""
    features = rows.features[train]
    if hasattr(features, "tocsc"):
        features = features.tocsc()
    # The grid of alphas comes from all rows, the solutions from the training rows.
    targets = replace(rows.targets, values=rows.targets.values[train])
    problem = SparseProblem(features, targets, rows.weights[train], settings)
    test_features = rows.features[test]
    test_values = rows.targets.values[test]
    test_weights = rows.weights[test]
    # A task with one label only has no score.
    is_defined = [
        len(np.unique(labels[weight > 0])) > 1
        for labels, weight in zip(test_values.T, test_weights.T, strict=True)
    ]
    scores = np.full((len(alphas), len(is_defined)), np.nan)
    for scores_at_alpha, alpha in zip(scores, alphas, strict=True):
        coef, intercept, _ = problem.solve(alpha)
        linear = test_features @ coef.T + intercept
        scores_at_alpha[is_defined] = task_scores(
            test_values[:, is_defined],
            linear[:, is_defined],
            targets.is_binary[is_defined],
            test_weights[:, is_defined],
        )
    return scores


def best_alphas(
    alphas: Array, scores: Array, targets: LinearTargets
) -> dict[str, float]:
    """Return the best alpha of each type of task, the largest one in a tie."""
    best = {}
    is_of_types = (targets.is_binary, ~targets.is_binary)
    for kind, is_of_type in zip(TASK_TYPES, is_of_types, strict=True):
        if not is_of_type.any():
            continue
        has_score = ~np.isnan(scores[0][:, is_of_type])
        has_any_score = has_score.any(axis=0)
        if not has_any_score.all():
            k = np.flatnonzero(is_of_type)[~has_any_score][0]
            raise ValueError(
                f"Task {targets.task_names[k]!r} has no score in any fold: its test "
                "rows have one label only. Use fewer folds, or choose alpha yourself."
            )
        # Mean over the folds of each task, then over the tasks.
        mean = np.nanmean(scores[:, :, is_of_type], axis=1).mean(axis=1)
        best[kind] = float(alphas[np.argmax(mean)])
    return best

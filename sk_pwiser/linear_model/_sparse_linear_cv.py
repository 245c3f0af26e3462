"""Joint feature selection with a penalty chosen by cross-validation."""

from dataclasses import replace
from numbers import Integral, Real
from typing import ClassVar

import numpy as np
from sklearn.model_selection import KFold, check_cv
from sklearn.utils._param_validation import Interval
from sklearn.utils.parallel import Parallel, delayed

from sk_pwiser.linear_model._linear_base import task_scores
from sk_pwiser.linear_model._sparse_linear import SPARSE_CONSTRAINTS, SparseLinearBase
from sk_pwiser.linear_model._sparse_solver import SparseProblem
from sk_pwiser.model_selection import FunnelStratifiedKFold


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
        The smallest alpha over the largest one, if `alphas` is a number.
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
    _parameter_constraints: ClassVar[dict] = {
        "alphas": [Interval(Integral, 1, None, closed="left"), "array-like"],
        "eps": [Interval(Real, 0, 1, closed="neither")],
        "cv": ["cv_object"],
        **SPARSE_CONSTRAINTS,
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        alphas=10,
        eps=0.01,
        cv=5,
        task_types="binary",
        missing_labels="error",
        l2=0.0,
        mean_reg=0.0,
        fit_intercept=True,
        scale_targets=False,
        max_iter=2000,
        tol=1e-4,
        n_jobs=None,
        random_state=None,
    ):
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

    def _fit(self, X, targets, weights):
        problem = SparseProblem(X, targets, weights, self)
        alphas = problem.alphas(self.alphas, self.eps)
        rows = X.tocsr() if hasattr(X, "tocsr") else X
        folds = Parallel(n_jobs=self.n_jobs)(
            delayed(fold_scores)(rows, targets, weights, train, test, alphas, self)
            for train, test in self._splits(X, targets)
        )
        scores = np.stack(folds, axis=1)
        best = best_alphas(alphas, scores, targets)
        n_binary = int(targets.is_binary.sum())
        shares = {"binary": n_binary, "regression": len(targets.is_binary) - n_binary}
        alpha = sum(shares[kind] * best[kind] for kind in best) / len(targets.is_binary)
        for larger in alphas[alphas > alpha]:
            problem.solve(larger)
        self._set_solution(targets, *problem.solve(alpha))
        self.alpha_, self.alphas_ = float(alpha), alphas
        self.best_alphas_, self.scores_ = best, scores

    def _splits(self, X, targets):
        values = targets.values
        labels = np.nan_to_num(values[:, targets.is_binary]).astype(int)
        if not isinstance(self.cv, Integral):
            y = values[:, 0] if targets.is_single else values
            return check_cv(self.cv).split(X, y)
        kind = FunnelStratifiedKFold if labels.size else KFold
        folds = kind(self.cv, shuffle=True, random_state=self.random_state)
        return folds.split(X, labels)


def fold_scores(X, targets, weights, train, test, alphas, settings):
    """Return the scores of one fold, ndarray of shape (n_alphas, n_tasks)."""
    rows = X[train].tocsc() if hasattr(X, "tocsc") else X[train]
    part = replace(targets, values=targets.values[train])
    problem = SparseProblem(rows, part, weights[train], settings)
    values, weights = targets.values[test], weights[test]
    # A task with one label only has no score.
    is_defined = [
        len(np.unique(labels[weight > 0])) > 1
        for labels, weight in zip(values.T, weights.T, strict=True)
    ]
    scores = np.full((len(alphas), len(is_defined)), np.nan)
    for row, alpha in zip(scores, alphas, strict=True):
        coef, intercept, _ = problem.solve(alpha)
        linear = X[test] @ coef.T + intercept
        parts = values, linear, targets.is_binary, weights
        row[is_defined] = task_scores(*(part[..., is_defined] for part in parts))
    return scores


def best_alphas(alphas, scores, targets):
    """Return the best alpha of each type of task, the largest of equal ones."""
    best = {}
    for kind, chosen in (
        ("binary", targets.is_binary),
        ("regression", ~targets.is_binary),
    ):
        if not chosen.any():
            continue
        is_known = ~np.isnan(scores[0][:, chosen])
        if not is_known.any(axis=0).all():
            k = np.flatnonzero(chosen)[~is_known.any(axis=0)][0]
            raise ValueError(
                f"Task {targets.task_names[k]!r} has no score in any fold: its test "
                "rows have one label only. Use fewer folds, or choose alpha yourself."
            )
        # Mean over the folds of each task, then over the tasks.
        mean = np.nanmean(scores[:, :, chosen], axis=1).mean(axis=1)
        best[kind] = float(alphas[np.argmax(mean)])
    return best

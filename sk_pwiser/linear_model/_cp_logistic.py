"""Tasks that are cells of a grid, with low-rank coefficients."""

from numbers import Integral, Real
from typing import ClassVar

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from sk_pwiser.linear_model._columns import Columns, weighted_moments
from sk_pwiser.linear_model._cp_problem import CPProblem, Factors, cell_of
from sk_pwiser.linear_model._cp_solvers import solve_als, solve_lbfgs
from sk_pwiser.linear_model._group_modes import GroupModes, split_columns
from sk_pwiser.linear_model._predictions import TaskPredictions
from sk_pwiser.linear_model._targets import (
    check_targets,
    check_weights,
    find_constant_tasks,
    smoothed_log_odds,
)

SOLVERS = {"lbfgs": solve_lbfgs, "als": solve_als}


class CPMultiTaskLogistic(TaskPredictions, ClassifierMixin, BaseEstimator):
    """Logistic regression with one low-rank tensor of coefficients for many tasks.

    A task is a cell of a grid: an event, such as click or conversion, in a market, or
    in a market on a device. The coefficients of all cells form a tensor, which is a CP
    decomposition: those of event k in market m are ``L (U_1[k] * U_2[m])``, with
    loadings L of shape (n_features, rank) that all cells share and one factor of `rank`
    numbers per event and per market. Cells with few rows thus learn from the others,
    with far fewer parameters than a regression per cell has. Each cell has an intercept
    of its own. The objective is

        sum of the losses + (alpha / 2) (||L||^2 + sum over modes ||U_d||^2)
        + (intercept_alpha / 2) sum of squared intercepts,

    with intercepts relative to the log-odds of the event over all rows.

    Parameters
    ----------
    rank : int, default=2
        Number of components, at least 1.
    alpha : float, default=1.0
        Strength of the penalty of the factors, > 0.
    intercept_alpha : float, default=1.0
        Strength of the penalty of the intercepts, >= 0. It keeps the intercepts of
        cells without rows or with one label only finite. With 0 and squared errors
        they are free, as in the paper.
    task_mode : str, default="event"
        Name of the mode of the columns of `y`, in `factors_`.
    group_modes : sequence of (str or int), default=()
        Columns of `X` with metadata: one further mode each, such as
        ``("market", "device")``. Names require a DataFrame; integers are positions.
        The other columns are the features, which must be numeric. Levels that were not
        seen in `fit`, and missing ones, take the mean of the factors.
    loss : {"log_loss", "squared_error"}, default="log_loss"
        Logistic loss, or half the squared distance to -1 and 1: the least-squares form
        of the paper, whose predictor f gives the probability ``(1 + f) / 2``, limited
        to [0, 1].
    solver : {"lbfgs", "als"}, default="lbfgs"
        L-BFGS over all factors at once, or alternating least squares as in the paper,
        for squared errors only.
    max_iter : int, default=400
        Largest number of iterations.
    tol : float, default=1e-5
        With "lbfgs" the largest entry of the gradient of the mean loss at the end; with
        "als" the relative change of the modes.
    n_init : int, default=1
        Number of starts from random factors. The fit with the lowest objective is kept.
    random_state : int, RandomState instance or None, default=None
        Seed of the factors at the start.

    Attributes
    ----------
    coef_ : ndarray of shape (n_tasks, n_levels_1, ..., n_features)
        Coefficients of all cells, computed from the factors.
    intercept_ : ndarray of shape (n_tasks, n_levels_1, ...)
        Intercepts of all cells.
    loadings_ : ndarray of shape (n_features, rank)
        What all cells share. `n_features` does not count the metadata.
    factors_ : dict
        The factors of each mode, ndarray of shape (n_levels, rank): `task_mode` and the
        columns of `group_modes`.
    levels_ : dict
        The levels of each column of `group_modes`, in the order of the factors.
    objective_ : float
        The objective at the end.
    n_iter_ : int
        Number of iterations of the fit that was kept.
    classes_ : ndarray of shape (n_tasks, 2) or (2,)
        The labels of each task; 1-D for a single task.
    task_names_ : list of str
        Names of the tasks: the columns of a DataFrame `y`.
    n_tasks_ : int
        Number of tasks.
    n_features_in_ : int
        Number of columns of `X`, with the metadata.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if `X` has column names that are all strings.

    Notes
    -----
    The problem is not convex: different starts may end in different minima. With a
    product of three factors and more, a large `alpha` makes all of them 0.

    Differences to the paper: the logistic loss; intercepts with a small penalty; linear
    kernels only, with which each least-squares step is a ridge regression in the
    primal; the mean factor of unseen levels.

    References
    ----------
    Liu, Tao, Zhu, Liu, Huang and Suykens (2023). "Low-Rank Multitask Learning Based on
    Tensorized SVMs and LSSVMs." :arxiv:`2308.16056`

    Examples
    --------
    >>> import numpy as np
    >>> from sk_pwiser.linear_model import CPMultiTaskLogistic
    >>> rng = np.random.default_rng(0)
    >>> X = np.column_stack([rng.standard_normal((600, 4)), rng.integers(0, 3, 600)])
    >>> Y = (X[:, :1] + rng.standard_normal((600, 2)) > [0, 1]).astype(int)
    >>> model = CPMultiTaskLogistic(group_modes=[4], random_state=0).fit(X, Y)
    >>> model.predict_proba(X).shape
    (600, 2)
    >>> model.coef_.shape  # event, market, feature
    (2, 3, 4)
    """

    _parameter_constraints: ClassVar[dict] = {
        "rank": [Interval(Integral, 1, None, closed="left")],
        "alpha": [Interval(Real, 0, None, closed="neither")],
        "intercept_alpha": [Interval(Real, 0, None, closed="left")],
        "task_mode": [str],
        "group_modes": [list, tuple],
        "loss": [StrOptions({"log_loss", "squared_error"})],
        "solver": [StrOptions(set(SOLVERS))],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        rank=2,
        alpha=1.0,
        intercept_alpha=1.0,
        task_mode="event",
        group_modes=(),
        loss="log_loss",
        solver="lbfgs",
        max_iter=400,
        tol=1e-5,
        n_init=1,
        random_state=None,
    ):
        self.rank = rank
        self.alpha = alpha
        self.intercept_alpha = intercept_alpha
        self.task_mode = task_mode
        self.group_modes = group_modes
        self.loss = loss
        self.solver = solver
        self.max_iter = max_iter
        self.tol = tol
        self.n_init = n_init
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        """Fit the factors of all modes.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Features, and the metadata columns of `group_modes`.
        y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            Labels 0 and 1, or any two labels of a single task. NaN where one of several
            tasks has no label.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, >= 0.

        Returns
        -------
        CPMultiTaskLogistic
            The fitted estimator.

        Raises
        ------
        ValueError
            If data or parameters are invalid, or a metadata column is missing, has
            missing values or one level only. An earlier fit stays usable.

        Warns
        -----
        ConvergenceWarning
            If `max_iter` is reached.
        """
        self._check_parameters()
        levels, features = self._split(X)
        targets = check_targets(y)
        if len(targets.values) != features.shape[0]:
            raise ValueError(
                f"X has {features.shape[0]} rows, but y has {len(targets.values)}."
            )
        weights = check_weights(sample_weight, features, targets.values)
        find_constant_tasks(targets, weights)
        modes = GroupModes(self.group_modes).fit(levels)
        codes = modes.encode(levels, features.shape[0])
        problem = self._problem(features, targets, weights, codes, modes)
        factors, values, n_iter = self._best_of_starts(problem)
        validate_data(self, X, skip_check_array=True)
        return self._set_result(targets, modes, problem, factors, values[-1], n_iter)

    def _check_parameters(self):
        if self.solver == "als" and self.loss != "squared_error":
            raise ValueError(
                f"solver='als' requires loss='squared_error'; got {self.loss!r}."
            )
        for mode in self.group_modes:
            if isinstance(mode, bool) or not isinstance(mode, str | Integral):
                raise TypeError(
                    f"group_modes must hold column names or positions; got {mode!r}."
                )
        if self.task_mode in self.group_modes:
            raise ValueError(
                f"task_mode and a column of group_modes are both {self.task_mode!r}."
            )

    def _split(self, X):
        """Return the metadata, and the features as a checked array."""
        levels, features = split_columns(X, self.group_modes)
        features = check_array(
            features,
            accept_sparse="csc",
            dtype=np.float64,
            estimator=self,
            input_name="X",
        )
        return levels, features

    def _problem(self, features, targets, weights, codes, modes):
        mean, variances = weighted_moments(
            features, weights.sum(axis=1) + np.finfo(float).tiny
        )
        offsets = smoothed_log_odds(targets, weights)
        if self.loss == "squared_error":
            offsets = np.tanh(offsets / 2)  # 2 p - 1
        return CPProblem(
            Columns(features, mean, np.ones_like(mean)),
            variances,
            targets.values,
            weights,
            codes,
            [len(levels) for levels in modes.levels.values()],
            offsets,
            loss=self.loss,
            alpha=self.alpha,
            intercept_alpha=self.intercept_alpha,
        )

    def _best_of_starts(self, problem):
        """Return the fit with the lowest objective."""
        rng = check_random_state(self.random_state)
        n_tasks = problem.labels.shape[1]
        n_cells = int(np.prod(problem.n_levels, dtype=int))
        fits = []
        for _ in range(self.n_init):
            # Equal components would stay equal, and L = 0 is a start for any data.
            start = Factors(
                np.zeros((problem.columns.n_features, self.rank)),
                [
                    rng.uniform(size=(n, self.rank))
                    for n in (n_tasks, *problem.n_levels)
                ],
                np.zeros((n_tasks, n_cells)),
            )
            solve = SOLVERS[self.solver]
            fits.append(solve(problem, start, max_iter=self.max_iter, tol=self.tol))
        return min(fits, key=lambda fit: fit[1][-1])

    def _set_result(self, targets, modes, problem, factors, objective, n_iter):
        self._modes, self._mean = modes, problem.columns.mean
        self._is_binary, self._is_single = targets.is_binary, targets.is_single
        self.classes_ = targets.classes
        self.task_names_ = targets.task_names
        self.n_tasks_ = len(targets.task_names)
        self.levels_ = modes.levels
        self.loadings_ = factors.loadings
        names = (self.task_mode, *modes.names)
        self.factors_ = dict(zip(names, factors.modes, strict=True))
        shape = (self.n_tasks_, *problem.n_levels)
        # For centred features.
        self._centred_intercept = problem.offsets.reshape(
            -1, *(1,) * len(problem.n_levels)
        ) + factors.intercepts.reshape(shape)
        self.objective_, self.n_iter_ = float(objective), max(int(n_iter), 1)
        return self

    @property
    def coef_(self):
        """Coefficients of all cells."""
        check_is_fitted(self, "loadings_")
        product = self.loadings_
        for U in reversed(self.factors_.values()):
            # (n_levels, 1, ..., 1, rank) * (n_levels of the next, ..., rank)
            product = U.reshape(len(U), *(1,) * (product.ndim - 1), -1) * product
        return product.sum(axis=-1)

    @property
    def intercept_(self):
        """Intercepts of all cells."""
        return self._centred_intercept - self.coef_ @ self._mean

    def _linear_predictors(self, X):
        # The names of all columns come before the values, their number after the shape.
        is_table = hasattr(X, "columns")
        if is_table:
            validate_data(self, X, skip_check_array=True, reset=False)
        levels, features = self._split(X)
        if not is_table:
            validate_data(self, X, skip_check_array=True, reset=False)
        codes = self._modes.encode(levels, features.shape[0])
        tasks, *groups = self.factors_.values()
        projected = features @ self.loadings_ - self._mean @ self.loadings_
        intercept = self._centred_intercept
        for d, U in enumerate(groups):
            # The last entry is the mean over the levels, for the code -1.
            projected *= np.vstack([U, U.mean(axis=0)])[codes[:, d]]
            mean = intercept.mean(axis=d + 1, keepdims=True)
            intercept = np.concatenate([intercept, mean], axis=d + 1)
        n_levels = intercept.shape[1:]
        cells = cell_of(codes % n_levels if n_levels else codes, n_levels)
        return projected @ tasks.T + intercept.reshape(len(tasks), -1)[:, cells].T

    def _log_probabilities(self, linear):
        if self.loss == "log_loss":
            return super()._log_probabilities(linear)
        return np.log(np.clip(0.5 * (1.0 + linear), np.finfo(float).tiny, 1.0))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.multi_output = True
        tags.classifier_tags.multi_class = False
        tags.classifier_tags.multi_label = True
        return tags

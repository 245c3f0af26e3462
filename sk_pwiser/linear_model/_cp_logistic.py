"""Tasks that are cells of a grid, with low-rank coefficients.

The logit of task k in a row x with levels m_2, ..., m_D of the group modes is

    f = ((L' x) o U_2[m_2] o ... o U_D[m_D])' U_1[k] + offset_k + b[k, m_2, ..., m_D],

where o is the elementwise product. If all but one of the blocks L, U_1, ..., U_D and b
are fixed, f is linear in this block, plus a constant. `block_map` returns the linear
map and its transpose. Gradients and least-squares steps are computed from these. The
solvers are L-BFGS over all factors at once, and alternating least squares.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from scipy import sparse
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator, cg
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import OrdinalEncoder
from sklearn.utils import _safe_indexing, check_array, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from sk_pwiser._columns._frames import (
    check_same_kind,
    collected,
    find_column,
    is_missing,
    list_columns,
    selectable,
)
from sk_pwiser._tasks._labels import MISSING_LABELS, names_of_columns
from sk_pwiser._utils._checks import accept_any_case_of_y
from sk_pwiser._utils._warnings import warn_user
from sk_pwiser.linear_model._linear_base import (
    Array,
    Columns,
    LinearPredictions,
    LinearTargets,
    find_constant_tasks,
    label_weights,
    read_features,
    read_targets,
    smoothed_log_odds,
    weighted_moments,
)

# Relative residual at which conjugate gradients end, so that steps are nearly exact.
CG_TOLERANCE = 1e-12
# Steps of L-BFGS before the factors are first balanced and scaled again; doubled every
# time.
FIRST_ROUND = 20


# The factors are a list of blocks: the loadings L, of shape (n_features, rank); the
# modes U_1 to U_D, each (n_levels, rank), where U_1 is the mode of the tasks; and the
# intercepts b relative to the offset of the task, (n_tasks, n_cells), where a cell is a
# combination of levels.
Blocks = list[Array]
# A linear map of a block to the predictors, or its transpose.
LinearMap = Callable[[Array], Array]


def balanced(blocks: Blocks) -> Blocks:
    """Return factors with the same predictions and equal norms.

    Among all factors with these predictions, their penalty is the smallest.
    """
    *factors, intercepts = blocks
    norms = np.array([np.linalg.norm(factor, axis=0) for factor in factors])
    is_used = (norms > 0).all(axis=0)
    # A component with a factor of 0 has no effect, and no scale to balance.
    norms[:, ~is_used] = 1.0
    mean = np.exp(np.log(norms).mean(axis=0))
    scaled = [
        factor * (mean / norm) for factor, norm in zip(factors, norms, strict=True)
    ]
    return [*scaled, intercepts]


def flatten(arrays: Iterable[Array]) -> Array:
    """Return all numbers of some arrays in one vector."""
    return np.concatenate([array.ravel() for array in arrays])


def unflatten(vector: Array, arrays: Sequence[Array]) -> list[Array]:
    """Return arrays of the same shapes with the numbers of a vector."""
    ends = np.cumsum([array.size for array in arrays])
    pieces = np.split(vector, ends[:-1])
    return [
        piece.reshape(array.shape) for piece, array in zip(pieces, arrays, strict=True)
    ]


class CPSettings(Protocol):
    """The loss and the strengths of the penalties."""

    loss: str
    alpha: float
    intercept_alpha: float


class CPProblem:
    """The objective: loss of the given rows plus penalties of the factors.

    `codes` are the levels of the group modes, (n_samples, n_group_modes), and
    `settings` is an estimator with the loss and the strengths of the penalties.
    """

    def __init__(
        self,
        X: Any,
        targets: LinearTargets,
        *,
        weights: Array,
        codes: Array,
        n_levels: Sequence[int],
        settings: CPSettings,
    ) -> None:
        row_weights = weights.sum(axis=1) + np.finfo(float).tiny
        mean, self.variances = weighted_moments(X, row_weights)
        self.columns = Columns(X, mean, np.ones_like(mean))
        self.weights = weights
        self.codes = codes
        self.labels: Array = np.nan_to_num(targets.values)
        self.loss = settings.loss
        self.n_levels = tuple(n_levels)
        # The penalty of the intercepts then draws rare cells to the rate of the event,
        # not to 1/2.
        self.offsets = smoothed_log_odds(targets, weights)
        if self.loss == "squared_error":
            self.offsets = np.tanh(self.offsets / 2)  # 2 p - 1
        # In the order of the blocks: the loadings, the modes and the intercepts.
        n_modes = 1 + len(self.n_levels)
        self.penalties = [settings.alpha] * (1 + n_modes) + [settings.intercept_alpha]
        self.cells = cell_of(codes, self.n_levels)
        n_cells = int(np.prod(self.n_levels, dtype=int))
        self._sum_cells = indicators(self.cells, n_cells)
        self._sum_levels = [
            indicators(codes[:, d], n) for d, n in enumerate(self.n_levels)
        ]
        # The loadings that were projected last, and their projection.
        self._projected_loadings: Array | None = None
        self._projection: Array = np.empty(0)

    def linear(self, blocks: Blocks) -> Array:
        """Return the linear predictors, (n_samples, n_tasks)."""
        apply, _ = self.block_map(blocks, 1)
        intercepts = blocks[-1][:, self.cells].T
        linear: Array = self.offsets + intercepts + apply(blocks[1])
        return linear

    def value(self, blocks: Blocks, linear: Array) -> Any:
        """Return the objective, where `linear` is ``linear(blocks)``."""
        if self.loss == "log_loss":
            losses = np.logaddexp(0.0, linear) - self.labels * linear
        else:
            # Labels of -1 and 1 in the squared error.
            losses = 0.5 * (linear - (2.0 * self.labels - 1.0)) ** 2
        penalty = sum(
            0.5 * alpha * np.vdot(block, block)
            for alpha, block in zip(self.penalties, blocks, strict=True)
        )
        return np.vdot(self.weights, losses) + penalty

    def residual(self, linear: Array) -> Array:
        """Return the derivative of the loss in the linear predictors."""
        if self.loss == "log_loss":
            derivative = expit(linear) - self.labels
        else:
            derivative = linear - (2.0 * self.labels - 1.0)
        residual: Array = self.weights * derivative
        return residual

    def gradient(self, blocks: Blocks, linear: Array) -> Array:
        """Return the gradient of the objective as a vector."""
        residual = self.residual(linear)
        gradients = []
        for i, block in enumerate(blocks):
            _, transpose = self.block_map(blocks, i)
            gradients.append(transpose(residual) + self.penalties[i] * block)
        return flatten(gradients)

    def curvatures(self, blocks: Blocks) -> Array:
        """Return rough second derivatives, whose orders of magnitude differ."""
        # The largest second derivative of the loss of a row.
        loss_curvature = 0.25 if self.loss == "log_loss" else 1.0
        # Sums over the tasks of weight times squared factor, (n_samples, rank).
        by_row = self.weights @ blocks[1] ** 2
        product = self._product(blocks)
        projected = self._projected(blocks)
        squares = [
            np.outer(self.variances, (by_row * product**2).sum(axis=0)),
            self.weights.T @ (projected * product) ** 2,
        ]
        for d, sums in enumerate(self._sum_levels):
            inputs = projected * self._product(blocks, without=d)
            squares.append(sums @ (by_row * inputs**2))
        squares.append((self._sum_cells @ self.weights).T)
        curvatures = flatten(
            alpha + loss_curvature * square
            for alpha, square in zip(self.penalties, squares, strict=True)
        )
        # Intercepts without rows and without a penalty stay where they are.
        return np.where(curvatures > 0, curvatures, 1.0)

    def block_map(self, blocks: Blocks, position: int) -> tuple[LinearMap, LinearMap]:
        """Return the linear map of a block to the predictors, and its transpose."""
        if position == len(blocks) - 1:
            return (
                lambda b: b[:, self.cells].T,
                lambda residual: (self._sum_cells @ residual).T,
            )
        tasks = blocks[1]
        if position == 0:
            product = self._product(blocks)
            return (
                lambda L: (self.columns.dot(L) * product) @ tasks.T,
                lambda r: self.columns.transposed_dot((r @ tasks) * product),
            )
        projected = self._projected(blocks)
        if position == 1:
            inputs = projected * self._product(blocks)
            return (lambda U: inputs @ U.T, lambda r: r.T @ inputs)
        d = position - 2
        inputs = projected * self._product(blocks, without=d)
        codes = self.codes[:, d]
        sums = self._sum_levels[d]
        return (
            lambda U: (inputs * U[codes]) @ tasks.T,
            lambda r: sums @ (inputs * (r @ tasks)),
        )

    def _projected(self, blocks: Blocks) -> Array:
        loadings = blocks[0]
        # The same loadings are projected several times in a row.
        if self._projected_loadings is not loadings:
            self._projection = self.columns.dot(loadings)
            self._projected_loadings = loadings
        return self._projection

    def _product(self, blocks: Blocks, without: int | None = None) -> Array:
        """Return the product of the group modes' factors, (n_samples, rank)."""
        product = np.ones((len(self.labels), blocks[0].shape[1]))
        for d, U in enumerate(blocks[2:-1]):
            if d != without:
                product *= U[self.codes[:, d]]
        return product


def cell_of(codes: Array, n_levels: tuple[int, ...]) -> Array:
    """Return the index of each row's combination of levels; -1 is the last level."""
    if not n_levels:
        return np.zeros(len(codes), dtype=np.int64)
    return np.ravel_multi_index(tuple(codes.T), n_levels, mode="wrap")


def indicators(codes: Array, n_levels: int) -> Any:
    """Return a matrix (n_levels, n_samples) whose product sums rows by level."""
    n = len(codes)
    return sparse.csr_array((np.ones(n), (codes, np.arange(n))), shape=(n_levels, n))


@dataclass(frozen=True, kw_only=True, eq=False)
class CPSolution:
    """Factors, the objective at the start and after every step, and the iterations."""

    blocks: Blocks
    objectives: list[float]
    n_iter: int


def solve_lbfgs(
    problem: CPProblem, blocks: Blocks, *, max_iter: int, tol: float
) -> CPSolution:
    """Minimise over all factors at once by L-BFGS.

    Between rounds the norms of the factors are made equal: L-BFGS would take many short
    steps along the curved valleys of equal predictions.
    """
    objectives = [problem.value(blocks, problem.linear(blocks))]
    n_iter = 0
    n_steps = FIRST_ROUND
    has_ended = False
    while n_iter < max_iter and not has_ended:
        limit = min(n_steps, max_iter - n_iter)
        blocks, result = lbfgs_round(problem, balanced(blocks), limit, tol)
        objectives.append(problem.value(blocks, problem.linear(blocks)))
        n_iter += max(result.nit, 1)
        n_steps *= 2
        # Status 1 is the limit of iterations; with any other the search has ended.
        has_ended = result.status != 1
    if not has_ended:
        warn_not_converged(max_iter)
    return CPSolution(blocks=blocks, objectives=objectives, n_iter=n_iter)


def lbfgs_round(
    problem: CPProblem, blocks: Blocks, max_iter: int, tol: float
) -> tuple[Blocks, Any]:
    """Take some steps of L-BFGS in parameters whose second derivatives are near 1."""
    total = problem.weights.sum()
    scale = np.sqrt(problem.curvatures(blocks) / total)

    def evaluate(vector: Array) -> tuple[Any, Array]:
        current = unflatten(vector / scale, blocks)
        linear = problem.linear(current)
        gradient = problem.gradient(current, linear) / scale
        return problem.value(current, linear) / total, gradient / total

    result = minimize(
        evaluate,
        flatten(blocks) * scale,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_iter, "maxfun": 10 * max_iter, "gtol": tol, "ftol": 0},
    )
    return unflatten(result.x / scale, blocks), result


def solve_als(
    problem: CPProblem, blocks: Blocks, *, max_iter: int, tol: float
) -> CPSolution:
    """Minimise the squared error over the loadings, then over each mode, and repeat."""
    last = len(blocks) - 1
    objectives = [problem.value(blocks, problem.linear(blocks))]
    n_iter = 0
    has_converged = False
    while n_iter < max_iter and not has_converged:
        n_iter += 1
        former_modes = flatten(blocks[1:-1])
        for i in range(last):
            blocks = minimise_blocks(problem, blocks, (i, last))
            objectives.append(problem.value(blocks, problem.linear(blocks)))
        change = np.linalg.norm(flatten(blocks[1:-1]) - former_modes)
        size = max(np.linalg.norm(former_modes), np.finfo(float).tiny)
        has_converged = bool(change <= tol * size)
    if not has_converged:
        warn_not_converged(max_iter)
    return CPSolution(blocks=blocks, objectives=objectives, n_iter=n_iter)


def minimise_blocks(
    problem: CPProblem, blocks: Blocks, positions: Sequence[int]
) -> Blocks:
    """Solve the ridge regression in blocks of the factors by conjugate gradients."""
    chosen = [blocks[i] for i in positions]
    maps = [problem.block_map(blocks, i) for i in positions]
    penalties = [problem.penalties[i] for i in positions]

    def gradient_of(residual: Array, arrays: Sequence[Array]) -> Array:
        """Return the transposed maps of a residual, plus the penalties' gradients."""
        return flatten(
            transpose(residual) + penalty * array
            for (_, transpose), penalty, array in zip(
                maps, penalties, arrays, strict=True
            )
        )

    def hessian(vector: Array) -> Array:
        """Return the product of the second derivatives with a vector."""
        arrays = unflatten(vector, chosen)
        linear = sum(
            apply(array) for (apply, _), array in zip(maps, arrays, strict=True)
        )
        return gradient_of(problem.weights * linear, arrays)

    # A quadratic has its minimum at the end of the Newton step.
    gradient = gradient_of(problem.residual(problem.linear(blocks)), chosen)
    n = len(gradient)
    operator = LinearOperator((n, n), matvec=hessian, dtype=float)
    step, _ = cg(operator, -gradient, rtol=CG_TOLERANCE, maxiter=10 * n)
    blocks = list(blocks)
    for i, change in zip(positions, unflatten(step, chosen), strict=True):
        blocks[i] = blocks[i] + change
    return blocks


def warn_not_converged(max_iter: int) -> None:
    warn_user(
        f"The factors did not converge within max_iter={max_iter}: increase it or tol.",
        ConvergenceWarning,
    )


SOLVERS = {"lbfgs": solve_lbfgs, "als": solve_als}


class CPMultiTaskLogistic(LinearPredictions, ClassifierMixin, BaseEstimator):
    """Logistic regression with one low-rank tensor of coefficients for many tasks.

    A task is a cell of a grid: an event, such as click or conversion, in a market, or
    in a market on a device. The coefficients of all cells form a tensor with a CP
    decomposition: the coefficients of event k in market m are ``L (U_1[k] * U_2[m])``,
    with loadings L of shape (n_features, rank) that all cells share, and factors of
    `rank` numbers per event and per market. Cells with few rows thus learn from the
    others, with far fewer parameters than one regression per cell. Each cell has its
    own intercept. The objective is

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
        cells without rows, or with one label only, finite. With 0 and squared errors
        the intercepts are those of the paper, without a penalty.
    task_mode : str, default="event"
        Name of the mode of the columns of `y`, in `factors_`.
    group_modes : sequence of (str or int), default=()
        Columns of `X` with metadata, such as ``("market", "device")``, each of which is
        a further mode. Names require a DataFrame; integers are positions. The other
        columns are the features, which must be numeric. Levels that were not seen in
        `fit`, and missing ones, have the mean of the factors.
    missing_labels : {"error", "ignore"}, default="error"
        Whether labels may be missing (NaN in `y`), in any task but a single one. With
        "ignore" such rows take no part in the task.
    loss : {"log_loss", "squared_error"}, default="log_loss"
        Logistic loss, or half the squared distance to -1 and 1. The latter is the
        least-squares form of the paper; its predictor f gives the probability
        ``(1 + f) / 2``, clipped to [0, 1].
    solver : {"lbfgs", "als"}, default="lbfgs"
        L-BFGS over all factors at once, or alternating least squares as in the paper,
        for squared errors only.
    max_iter : int, default=400
        Largest number of iterations.
    tol : float, default=1e-5
        The iterations end if the largest entry of the gradient of the mean loss
        ("lbfgs") or the relative change of the modes ("als") is at most `tol`.
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
        The loadings, which all cells share. `n_features` does not count the metadata.
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

    Differences from the paper: the logistic loss; the small penalty of the intercepts;
    linear kernels only, so that each least-squares step is a ridge regression in the
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

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "rank": [Interval(Integral, 1, None, closed="left")],
        "alpha": [Interval(Real, 0, None, closed="neither")],
        "intercept_alpha": [Interval(Real, 0, None, closed="left")],
        "task_mode": [str],
        "group_modes": [list, tuple],
        "missing_labels": [StrOptions(set(MISSING_LABELS))],
        "loss": [StrOptions({"log_loss", "squared_error"})],
        "solver": [StrOptions(set(SOLVERS))],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    levels_: dict[Any, Array]
    loadings_: Array
    factors_: dict[Any, Array]
    objective_: float
    n_iter_: int

    def __init__(
        self,
        *,
        rank: int = 2,
        alpha: float = 1.0,
        intercept_alpha: float = 1.0,
        task_mode: str = "event",
        group_modes: Sequence[str | int] = (),
        missing_labels: str = "error",
        loss: str = "log_loss",
        solver: str = "lbfgs",
        max_iter: int = 400,
        tol: float = 1e-5,
        n_init: int = 1,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.rank = rank
        self.alpha = alpha
        self.intercept_alpha = intercept_alpha
        self.task_mode = task_mode
        self.group_modes = group_modes
        self.missing_labels = missing_labels
        self.loss = loss
        self.solver = solver
        self.max_iter = max_iter
        self.tol = tol
        self.n_init = n_init
        self.random_state = random_state

    @accept_any_case_of_y
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the factors of all modes.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Features, and the metadata columns of `group_modes`.
        y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            Labels 0 and 1, or any two labels of a single task.
        sample_weight : array-like of shape (n_samples,) or (n_samples, n_tasks), \
                default=None
            Weights of the rows, or of the rows and tasks, >= 0. A row of weight 2
            counts as two rows, one of weight 0 takes no part in the task.

        Returns
        -------
        CPMultiTaskLogistic
            The fitted estimator.

        Raises
        ------
        ValueError, TypeError
            If data or parameters are invalid, or a metadata column is absent, has
            missing values, or has only one level. An earlier fit stays usable.

        Warns
        -----
        ConvergenceWarning
            If `max_iter` is reached.
        """
        if self.solver == "als" and self.loss != "squared_error":
            raise ValueError(
                f"solver='als' requires loss='squared_error'; got {self.loss!r}."
            )
        if self.task_mode in self.group_modes:
            raise ValueError(
                f"task_mode and a column of group_modes are both {self.task_mode!r}."
            )
        X = collected(X)
        y = collected(y)
        modes = list(self.group_modes)
        levels, features = split_columns(X, modes, self)
        targets = read_targets(y, missing_labels=self.missing_labels)
        weights = label_weights(sample_weight, X, y, targets)
        find_constant_tasks(targets, weights)
        encoder = fit_levels(modes, levels)
        codes = self._codes(encoder, modes, levels, features)
        n_levels = [] if encoder is None else list(map(len, encoder.categories_))
        problem = CPProblem(
            features,
            targets,
            weights=weights,
            codes=codes,
            n_levels=n_levels,
            settings=self,
        )
        solution = self._solve(problem)
        # Attributes are set after the fit has succeeded.
        validate_data(self, X, skip_check_array=True)
        self._encoder = encoder
        self._mean = problem.columns.mean
        self._loss = self.loss
        self._set_targets(targets)
        categories = getattr(encoder, "categories_", ())
        seen_levels = [np.array(values.tolist()) for values in categories]
        self.levels_ = dict(zip(modes, seen_levels, strict=True))
        self.loadings_, *factors, intercepts = solution.blocks
        self.factors_ = dict(zip([self.task_mode, *modes], factors, strict=True))
        # The intercepts for centred features.
        centred = problem.offsets[:, np.newaxis] + intercepts
        self._centred_intercept = centred.reshape(len(centred), *n_levels)
        self.objective_ = float(solution.objectives[-1])
        self.n_iter_ = int(solution.n_iter)
        return self

    def _solve(self, problem: CPProblem) -> CPSolution:
        """Return the best solution from several starts."""
        rng = check_random_state(self.random_state)
        n_tasks = problem.weights.shape[1]
        n_features = problem.columns.n_features
        n_cells = int(np.prod(problem.n_levels, dtype=int))
        solve = SOLVERS[self.solver]
        solutions = []
        for _ in range(self.n_init):
            # Random factors, since equal components would stay equal. L = 0 suits data
            # of any scale.
            factors = [
                rng.uniform(size=(n, self.rank)) for n in (n_tasks, *problem.n_levels)
            ]
            loadings = np.zeros((n_features, self.rank))
            intercepts = np.zeros((n_tasks, n_cells))
            start = [loadings, *factors, intercepts]
            solution = solve(problem, start, max_iter=self.max_iter, tol=self.tol)
            solutions.append(solution)
        return min(solutions, key=lambda solution: solution.objectives[-1])

    def _codes(
        self, encoder: Any, modes: Sequence[Any], levels: Any, features: Any
    ) -> Array:
        """Return codes (n_samples, n_group_modes), -1 for unseen and missing levels."""
        if encoder is None:
            return np.empty((features.shape[0], 0), dtype=np.int64)
        for name, seen_levels, column in zip(
            modes, encoder.categories_, levels.T, strict=True
        ):
            subject = f"The column {name!r} of group_modes"
            check_same_kind(subject, set(column), seen_levels)
        codes: Array = encoder.transform(levels)
        return codes

    @property
    def coef_(self) -> Array:
        """Coefficients of all cells."""
        check_is_fitted(self, "loadings_")
        product = self.loadings_
        for U in reversed(self.factors_.values()):
            # (n_levels, 1, ..., 1, rank) * (n_levels of the next, ..., rank)
            product = U.reshape(len(U), *(1,) * (product.ndim - 1), -1) * product
        coef: Array = product.sum(axis=-1)
        return coef

    @property
    def intercept_(self) -> Array:
        """Intercepts of all cells."""
        intercept: Array = self._centred_intercept - self.coef_ @ self._mean
        return intercept

    def _linear_predictors(self, X: Any) -> Array:
        # Those of the fit: parameters may have changed since.
        modes = list(self.levels_)
        read = partial(split_columns, group_modes=modes, estimator=self)
        levels, features = self._read(X, read)
        codes = self._codes(self._encoder, modes, levels, features)
        tasks, *groups = self.factors_.values()
        # Centred in the product, so that sparse features stay sparse.
        projected = features @ self.loadings_ - self._mean @ self.loadings_
        intercept = self._centred_intercept
        for d, U in enumerate(groups):
            # The code -1 selects the last entry, the mean over the levels.
            projected *= np.vstack([U, U.mean(axis=0)])[codes[:, d]]
            # Unseen levels have the mean intercept and the mean factors of the known
            # ones.
            mean = intercept.mean(axis=d + 1, keepdims=True)
            intercept = np.concatenate([intercept, mean], axis=d + 1)
        cells = cell_of(codes, intercept.shape[1:])
        row_intercepts = intercept.reshape(len(tasks), -1)[:, cells].T
        linear: Array = projected @ tasks.T + row_intercepts
        return linear

    def _log_probabilities(self, linear: Array) -> Array:
        # The first files of version 0.1.0 have the parameter only.
        fitted_loss = vars(self).get("_loss", self.loss)
        if fitted_loss == "log_loss":
            return super()._log_probabilities(linear)
        probabilities = np.clip(0.5 * (1.0 + linear), np.finfo(float).tiny, 1.0)
        log_probabilities: Array = np.log(probabilities)
        return log_probabilities


def split_columns(
    X: Any, group_modes: Sequence[str | int], estimator: Any
) -> tuple[Any, Any]:
    """Return the metadata columns as objects, and the other columns of X, checked."""
    if not group_modes:
        return None, read_features(X, estimator=estimator)
    X = selectable(X)
    if sparse.issparse(X):
        X = X.tocsc()
    elif not hasattr(X, "columns"):
        X = check_array(X, dtype=None, ensure_all_finite=False, input_name="X")
    names = names_of_columns(X) or range(X.shape[1])
    positions = [find_column("group_modes", mode, list(names)) for mode in group_modes]
    if len(set(positions)) < len(positions):
        raise ValueError(f"group_modes must be distinct columns; got {group_modes}.")
    feature_positions = np.setdiff1d(np.arange(X.shape[1]), positions)
    features = _safe_indexing(X, feature_positions, axis=1)
    metadata = _safe_indexing(X, positions, axis=1)
    columns = list_columns(metadata.toarray() if sparse.issparse(X) else metadata)
    levels = np.column_stack([np.asarray(column, dtype=object) for column in columns])
    return levels, read_features(features, estimator=estimator)


def fit_levels(names: Sequence[Any], levels: Any) -> Any:
    """Return the encoder of the metadata columns, or None if there are none."""
    if not names:
        return None
    for name, column in zip(names, levels.T, strict=True):
        if n_missing := sum(map(is_missing, column.tolist())):
            raise ValueError(
                f"The column {name!r} of group_modes has {n_missing} missing values."
            )
        if len(set(column)) < 2:
            raise ValueError(
                f"The column {name!r} of group_modes must have two levels or more; "
                f"it has one, {column[0]!r}."
            )
    return OrdinalEncoder(
        dtype=np.int64, handle_unknown="use_encoded_value", unknown_value=-1
    ).fit(levels)

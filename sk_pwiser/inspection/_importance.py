"""Importance of the columns for each task, by permutations of encoded rows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.stats import t
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils import Bunch, check_random_state

from sk_pwiser._columns._frames import collected
from sk_pwiser._utils._checks import check_integer
from sk_pwiser._utils._warnings import warn_user
from sk_pwiser.inspection import _displays
from sk_pwiser.inspection._column_facts import auc_of_weights

# Coverage of the confidence intervals of the means over repeats.
COVERAGE = 0.95


def task_importances(
    estimator: Any,
    X: Any,
    Y: Any,
    *,
    n_repeats: int = 5,
    sample_weight: npt.ArrayLike | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> Bunch:
    """Compute the permutation importance of every column for every task.

    The importance of a column is the decrease of a task's ROC AUC when the values of
    the column are permuted over the rows. The values are those of
    :func:`sklearn.inspection.permutation_importance` with the same `random_state`, but
    the table is encoded once, and the network runs once for all tasks.

    Parameters
    ----------
    estimator : MultiTaskCTRCVRClassifier or FunnelCalibrator
        The fitted estimator, or the fitted calibrator of one.
    X : {DataFrame, array-like} of shape (n_samples, n_features)
        Impressions, best those that were not used in `fit`.
    Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
        Labels, which may be missing as in `fit`.
    n_repeats : int, default=5
        Number of permutations. They are the same for all columns.
    sample_weight : array-like of shape (n_samples,) or (n_samples, n_tasks), \
            default=None
        Weights of the rows, or of each row and task, in the AUC.
    random_state : int, RandomState instance or None, default=None
        Seed of the permutations.

    Returns
    -------
    sklearn.utils.Bunch
        Dictionary-like object with the following attributes.

        importances : ndarray of shape (n_columns, n_tasks, n_repeats)
            Importance of each column for each task, in each repeat.
        importances_mean, importances_std : ndarray of shape (n_columns, n_tasks)
            Mean and standard deviation over the repeats.
        intervals : ndarray of shape (n_columns, n_tasks, 2)
            Ends of 95 % confidence intervals of the means over permutations of these
            rows, by Student's t; NaN with one repeat.
        baseline : ndarray of shape (n_tasks,)
            AUC without a permutation.
        column_names : list
            Names of the columns, or their indices if `fit` saw no names. Lists are
            permuted with their weights and ages, and count as one column. The column
            `by` of a calibrator is the last one if its estimator does not read it.
        task_names : list of str
            Names of the tasks.

    Raises
    ------
    TypeError
        If `estimator` is of another class, such as a pipeline, or `n_repeats` is not an
        int.
    ValueError
        If `n_repeats` is less than 1, `X` is sparse, or labels or weights are invalid.

    Warns
    -----
    UndefinedMetricWarning
        If a task has only one class. Its importances are NaN.

    Notes
    -----
    Two columns with the same information replace each other, so that the importance of
    each of them is small; see :func:`sklearn.inspection.permutation_importance`.

    The network runs over all rows once per column and repeat. For large tables, pass a
    sample of the rows.

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.inspection import task_importances
    >>> data = make_ctr_cvr(2_000, ctr=0.3, random_state=0)
    >>> model = MultiTaskCTRCVRClassifier(max_epochs=3, random_state=0)
    >>> model = model.fit(data.data[:1000], data.target[:1000])
    >>> importances = task_importances(
    ...     model, data.data[1000:], data.target[1000:], random_state=0
    ... )
    >>> importances.importances_mean.shape
    (12, 2)
    """
    n_repeats = check_integer("n_repeats", n_repeats, at_least=1)
    if not hasattr(estimator, "_recombined_logits"):
        raise TypeError(
            "estimator must be a MultiTaskCTRCVRClassifier or a FunnelCalibrator of "
            f"one, got {type(estimator).__name__}. For a pipeline, pass pipeline[-1] "
            "and pipeline[:-1].transform(X)."
        )
    X = collected(X)
    responses = _displays.read_responses(estimator, X, Y, sample_weight=sample_weight)
    scorers = [_task_auc(responses, k) for k in range(len(responses.names))]
    undefined = [
        f"task {name!r}"
        for scorer, name in zip(scorers, responses.names, strict=True)
        if scorer is None
    ]
    if undefined:
        warn_user(
            f"The importance is nan for {', '.join(undefined)}: one class, or no rows.",
            UndefinedMetricWarning,
        )
    # Compared with labels of the rows as they were shown.
    names, _, logits = estimator._recombined_logits(X, as_logged=True)
    # Equal for all columns, so that differences between columns are not differences of
    # luck.
    orders = list(_permutations(len(responses.p), n_repeats, random_state))

    def scores(sources: np.ndarray) -> list[float]:
        # Amounts follow the tasks.
        p = estimator._positive(logits(sources)[:, : estimator.n_tasks_])
        return [
            np.nan if score is None else score(task_p)
            for score, task_p in zip(scorers, p.T, strict=True)
        ]

    # The row from which each column comes.
    row_numbers = np.arange(len(responses.p))
    sources = np.repeat(row_numbers[:, np.newaxis], len(names), axis=1)
    baseline = np.array(scores(sources))
    permuted = []
    for column in range(len(names)):
        scores_of_orders = []
        for order in orders:
            sources[:, column] = order
            scores_of_orders.append(scores(sources))
        permuted.append(scores_of_orders)
        sources[:, column] = row_numbers
    # From (column, repeat, task) to (column, task, repeat).
    importances = baseline[:, np.newaxis] - np.array(permuted).transpose(0, 2, 1)
    mean = importances.mean(axis=2)
    half_width = _half_widths(importances)
    return Bunch(
        importances=importances,
        importances_mean=mean,
        importances_std=importances.std(axis=2),
        intervals=np.stack([mean - half_width, mean + half_width], axis=-1),
        baseline=baseline,
        column_names=names,
        task_names=responses.names,
    )


@dataclass(kw_only=True, repr=False, eq=False)
class TaskImportanceDisplay:
    """Permutation importance of the columns: a bar per column and task.

    `from_estimator` creates the display by :func:`task_importances`. The lines at the
    ends of the bars are 95 % confidence intervals of the means over permutations.

    Parameters
    ----------
    importances : ndarray of shape (n_columns, n_tasks, n_repeats)
        Decrease of each task's AUC, in each repeat.
    column_names : list
        Names of the columns.
    task_names : list of str
        Names of the tasks.

    Attributes
    ----------
    bars_ : list of matplotlib BarContainer
        The bars of each task.
    shown_ : list
        Names of the columns that are drawn, from the top.
    ax_, figure_ : matplotlib Axes and Figure
        The axes and their figure.

    See Also
    --------
    task_importances : Computes the importances.
    sklearn.inspection.permutation_importance : For any estimator and one score.

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.inspection import TaskImportanceDisplay
    >>> data = make_ctr_cvr(2_000, ctr=0.3, random_state=0)
    >>> model = MultiTaskCTRCVRClassifier(max_epochs=3, random_state=0)
    >>> model = model.fit(data.data[:1000], data.target[:1000])
    >>> display = TaskImportanceDisplay.from_estimator(
    ...     model, data.data[1000:], data.target[1000:], n_columns=5, random_state=0
    ... )
    >>> len(display.shown_)
    5
    """

    importances: np.ndarray
    column_names: list[Any]
    task_names: list[str]

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        Y: Any,
        *,
        n_repeats: int = 5,
        sample_weight: npt.ArrayLike | None = None,
        random_state: int | np.random.RandomState | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Compute and draw the importances of a fitted estimator.

        Parameters
        ----------
        estimator : MultiTaskCTRCVRClassifier or FunnelCalibrator
            The fitted estimator, or the fitted calibrator of one.
        X : {DataFrame, array-like} of shape (n_samples, n_features)
            Impressions.
        Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            Labels.
        n_repeats : int, default=5
            Number of permutations.
        sample_weight : array-like of shape (n_samples,) or (n_samples, n_tasks), \
                default=None
            Weights of the rows, or of each row and task.
        random_state : int, RandomState instance or None, default=None
            Seed of the permutations.
        ax : matplotlib Axes, default=None
            The axes to draw on; None creates a new figure.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        TaskImportanceDisplay
            The display, drawn.

        Raises
        ------
        ValueError, TypeError
            As in :func:`task_importances`.
        """
        _displays.import_pyplot(cls.__name__)
        result = task_importances(
            estimator,
            X,
            Y,
            n_repeats=n_repeats,
            sample_weight=sample_weight,
            random_state=random_state,
        )
        display = cls(
            importances=result.importances,
            column_names=result.column_names,
            task_names=result.task_names,
        )
        return display.plot(ax, **kwargs)

    def plot(self, ax: Any = None, *, n_columns: int = 15, **kwargs: Any) -> Self:
        """Draw the bars.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            The axes to draw on; None creates a new figure.
        n_columns : int, default=15
            Number of columns to draw: those with the largest importance for any task.
        **kwargs : dict
            Properties of all bars, passed to matplotlib's `barh`.

        Returns
        -------
        TaskImportanceDisplay
            The display.
        """
        n_columns = check_integer("n_columns", n_columns, at_least=1)
        ax = _displays.axes_or_new(ax, "TaskImportanceDisplay")
        mean = self.importances.mean(axis=2)
        error = _half_widths(self.importances)
        # A task without a score does not decide which columns are drawn.
        largest = np.nan_to_num(mean, nan=-np.inf).max(axis=1)
        shown = np.argsort(-largest, kind="stable")[:n_columns]
        places = np.arange(len(shown))
        n_tasks = len(self.task_names)
        height = 0.8 / n_tasks
        self.bars_ = []
        for k, task in enumerate(self.task_names):
            properties = {
                "color": _displays.task_color(k),
                "label": task,
                "height": height,
                **kwargs,
            }
            # The bars of a column stand side by side, with the tick in their middle.
            offset = (k - (n_tasks - 1) / 2) * height
            bars = ax.barh(
                places + offset, mean[shown, k], xerr=error[shown, k], **properties
            )
            self.bars_.append(bars)
        self.shown_ = [self.column_names[column] for column in shown]
        ax.set_yticks(places, [str(name) for name in self.shown_])
        ax.invert_yaxis()
        ax.set(xlabel="Decrease of the ROC AUC by permutation")
        ax.legend(loc="lower right")
        self.ax_ = ax
        self.figure_ = ax.figure
        return self


def _task_auc(
    responses: _displays.Responses, k: int
) -> Callable[[np.ndarray], float] | None:
    """Return a function of the probabilities of all rows, None if it is undefined."""
    is_scored = responses.is_known[:, k] & (responses.weight[:, k] > 0)
    # A slice spares a copy of all probabilities per permutation.
    rows = slice(None) if is_scored.all() else is_scored
    y = responses.targets[rows, k]
    weight = responses.weight[rows, k]
    if len(y) == 0 or y.min() == y.max():
        return None
    ones = weight * y
    zeros = weight * (1 - y)

    def auc(p: np.ndarray) -> float:
        return auc_of_weights(p[rows], ones, zeros)

    return auc


def _permutations(
    n_rows: int, n_repeats: int, random_state: int | np.random.RandomState | None
) -> Iterator[np.ndarray]:
    """Yield the permutations of scikit-learn's `permutation_importance`."""
    seed = check_random_state(random_state).randint(np.iinfo(np.int32).max + 1)
    rng = np.random.RandomState(seed)
    shuffled = np.arange(n_rows)
    order = np.arange(n_rows)
    for _ in range(n_repeats):
        rng.shuffle(shuffled)
        # scikit-learn permutes the column of the previous repeat, not the original one.
        order = order[shuffled]
        yield order


def _half_widths(importances: np.ndarray) -> np.ndarray:
    """Return half the widths of the intervals of the means over repeats."""
    n = importances.shape[2]
    if n == 1:
        return np.full(importances.shape[:2], np.nan)
    deviation = importances.std(axis=2, ddof=1) / np.sqrt(n)
    return t.ppf((1 + COVERAGE) / 2, n - 1) * deviation

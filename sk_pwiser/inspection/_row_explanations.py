"""Why a row is predicted as it is: what its columns add to log-odds and amounts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils.validation import check_is_fitted

from sk_pwiser._columns._frames import collected, column_of
from sk_pwiser._estimator._funnel_view import FunnelView
from sk_pwiser._responses import check_task, find_task
from sk_pwiser._tasks import _tree
from sk_pwiser._utils._checks import check_integer
from sk_pwiser._utils._extras import import_extra
from sk_pwiser.inspection import _displays
from sk_pwiser.inspection._shapley import ValueFunction, shapley_values

# Rows of X that are the background if none is passed.
BACKGROUND_ROWS = 12
# The CVR in place of a task.
CVR = "cvr"
# A conversion rate of 1 has no log-odds.
LARGEST_LOG_CVR = -1e-7
# Longer values, such as lists, are cut in the reasons of a row.
LONGEST_VALUE = 40


def explain_rows(
    estimator: Any,
    X: Any,
    *,
    background: Any = None,
    tasks: Any = None,
    given_event: bool = False,
    random_state: Any = None,
) -> "RowExplanations":
    """Compute what each column contributes to the log-odds of each task, per row.

    The contributions are Shapley values. For every row and task, they sum to the
    difference between the log-odds of the row and the mean log-odds of the background.
    They explain the model, not the causes of clicks.

    Of a value, the logarithm of the mean amount is explained, so that a column
    multiplies this amount.

    Parameters
    ----------
    estimator : MultiTaskCTRCVRClassifier, FunnelCalibrator, TaskView, ValueView or \
            Pipeline
        The fitted estimator, the fitted calibrator of one, a view of one of their
        tasks or values, or a pipeline that ends in one of these, whose transformed
        columns are explained.
    X : {DataFrame, array-like} of shape (n_samples, n_features)
        The rows to explain.
    background : {DataFrame, array-like} of shape (n_background, n_features), \
            default=None
        Rows to compare with, such as some dozens of a day's rows. All of them are used,
        and the time is in proportion to their number. By default, up to 12 rows of `X`
        that are evenly spaced in the order of the last task's log-odds.
    tasks : int, str or list of these, default=None
        Tasks to explain, by index or name, "cvr" for P(last task | first task), and
        names of values. By default all tasks, the CVR if the last task presupposes
        another one, and all values.
    given_event : bool, default=False
        Whether values are explained by the logarithm of the mean amount given the
        event under which it arises. By default by that of the mean per impression:
        log P(event) plus this.
    random_state : int, RandomState instance or None, default=None
        Seed of the permutations. Unused with up to eight columns.

    Returns
    -------
    RowExplanations
        The contributions, with their standard errors.

    Raises
    ------
    TypeError
        If `estimator` is of another class.
    ValueError
        If there is no such task, if `X` or `background` has no rows, if `X` has one row
        and no `background` is passed, or if `X` is sparse.

    Notes
    -----
    With up to eight columns, all sets of columns are evaluated, and the values are
    exact. With more, they are means over at least 24 random permutations, the same for
    all rows, each of which is walked forwards and backwards [1]_; `errors` are the
    standard errors of these means. The value of a set of columns is interventional
    [2]_: the other columns take their values from the rows of the background,
    independently of those in the set. A list counts as one column, with its weights and
    ages; target statistics belong to the column whose values they describe.

    References
    ----------
    .. [1] Mitchell, R., Cooper, J., Frank, E., & Holmes, G. (2022). Sampling
       permutations for Shapley value estimation. Journal of Machine Learning Research,
       23. :arxiv:`2104.12199`.
    .. [2] Janzing, D., Minorics, L., & Bloebaum, P. (2020). Feature relevance
       quantification in explainable AI: A causal problem. AISTATS.
       :arxiv:`1910.13413`.

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.inspection import explain_rows
    >>> log = make_ctr_cvr(2_000, n_numeric=3, ctr=0.3, random_state=0)
    >>> model = MultiTaskCTRCVRClassifier(max_epochs=3, random_state=0)
    >>> model = model.fit(log.data, log.target)
    >>> explanations = explain_rows(model, log.data[:5], background=log.data[100:150])
    >>> explanations.contributions.shape  # rows, columns, and two tasks with the CVR
    (5, 7, 3)
    >>> sums = explanations.contributions.sum(axis=1) + explanations.base_values
    >>> bool(abs(sums - explanations.log_odds).max() < 1e-5)
    True
    """
    if isinstance(estimator, Pipeline):
        check_is_fitted(estimator)
        steps = estimator[:-1]
        return explain_rows(
            estimator[-1],
            steps.transform(X),
            background=None if background is None else steps.transform(background),
            tasks=tasks,
            given_event=given_event,
            random_state=random_state,
        )
    if isinstance(estimator, FunnelView):
        if tasks is not None:
            raise ValueError(
                f"tasks must be None for a view of one task; got {tasks!r}."
            )
        return explain_rows(
            estimator._fitted,
            X,
            background=background,
            tasks=estimator._shown,
            given_event=given_event,
            random_state=random_state,
        )
    if not hasattr(estimator, "_recombined_logits"):
        raise TypeError(
            "estimator must be a MultiTaskCTRCVRClassifier, a FunnelCalibrator of one, "
            "a view of one of their tasks or values, or a pipeline that ends in one of "
            f"these; got {type(estimator).__name__}."
        )
    outputs = ExplainedOutputs.read(estimator, tasks, given_event=given_event)
    X = collected(X)
    if background is None:
        background = _choose_background(estimator, X)
    else:
        background = collected(background)
    for name, table in {"X": X, "background": background}.items():
        if len(table) == 0:
            raise ValueError(f"{name} must have rows; it has none.")
    names, hashes, logits = estimator._recombined_logits(X, background)
    function = ValueFunction(
        predict=lambda sources: outputs.explained(logits(sources)),
        hashes=hashes,
        n_rows=len(X),
    )
    log_odds = function.of_rows()
    generator = check_random_state(random_state)
    contributions = shapley_values(function, log_odds, generator)
    return RowExplanations(
        contributions=contributions.values,
        errors=contributions.errors,
        base_values=log_odds[len(X) :].mean(axis=0),
        log_odds=log_odds[: len(X)],
        column_names=names,
        task_names=outputs.names,
        data=_values_of(X, names),
        value_names=outputs.value_names,
    )


@dataclass(kw_only=True, frozen=True)
class ExplainedOutputs:
    """What is explained of the log-odds of all tasks, and of the amounts of values."""

    names: list[str]
    # Of the tasks, after which the values come; -1 for the CVR.
    indices: list[int]
    first: int  # tasks of the CVR
    last: int
    # Index of the task under which each value arises, -1 for none.
    value_parents: list[int]
    given_event: bool  # whether values are those given the event

    @property
    def value_names(self) -> list[str]:
        """Return the names of the values among the explained outputs."""
        return [
            name
            for name, index in zip(self.names, self.indices, strict=True)
            if index > self.last
        ]

    @classmethod
    def read(
        cls, estimator: Any, tasks: Any, *, given_event: bool = False
    ) -> "ExplainedOutputs":
        """Read the parameter `tasks`."""
        check_is_fitted(estimator)
        return cls.choose(
            tasks,
            task_names=[str(name) for name in estimator.task_names_],
            task_parents=estimator.task_parents_,
            value_parents=getattr(estimator, "value_parents_", {}),
            given_event=given_event,
        )

    @classmethod
    def choose(
        cls,
        tasks: Any,
        *,
        task_names: list[str],
        task_parents: Any,
        value_parents: Mapping[str, str | None],
        given_event: bool,
    ) -> "ExplainedOutputs":
        """Read the parameter `tasks`, by what a fitted estimator has learnt."""
        value_names = list(value_parents)
        last = len(task_names) - 1
        parents = _tree.read_task_parents(task_parents, task_names)
        first = _tree.path_to(last, parents)[0]
        chosen: Sequence[Any]
        if tasks is None:
            chosen = [*range(len(task_names))]
            if first != last:
                chosen = [*chosen, CVR]
            chosen = [*chosen, *value_names]
        elif isinstance(tasks, list | tuple):
            chosen = tasks
        else:
            chosen = [tasks]
        names = []
        indices = []
        for task in chosen:
            if isinstance(task, str) and task == CVR and CVR not in task_names:
                if first == last:
                    raise ValueError(
                        "tasks contains 'cvr', which needs a last task that "
                        f"presupposes another one; the tasks are {task_names}."
                    )
                names.append(CVR)
                indices.append(-1)
                continue
            if task in value_names:
                names.append(task)
                indices.append(len(task_names) + value_names.index(task))
                continue
            index = find_task(
                check_task(task, ""),
                len(task_names),
                task_names,
                alternatives=f", 'cvr', or a value of {value_names}"
                if value_names
                else ", or 'cvr'",
            )
            names.append(task_names[index])
            indices.append(index)
        return cls(
            names=names,
            indices=indices,
            first=first,
            last=last,
            value_parents=[
                -1 if task is None else task_names.index(task)
                for task in value_parents.values()
            ],
            given_event=given_event,
        )

    def explained(self, outputs: np.ndarray) -> np.ndarray:
        """Return log-odds of the explained tasks, and logarithms of mean amounts.

        `outputs` are the log-odds of all tasks, and after them the logarithms of the
        mean amounts given the event; the result is float64.
        """
        outputs = outputs.astype(np.float64)
        n_tasks = self.last + 1
        # By logarithms, which are exact where probabilities are small.
        log_p = -np.logaddexp(0, -outputs[:, :n_tasks])
        columns = []
        for index in self.indices:
            if index >= 0:
                column = outputs[:, index]
                parent = self.value_parents[index - n_tasks] if index >= n_tasks else -1
                if parent >= 0 and not self.given_event:
                    column = column + log_p[:, parent]
                columns.append(column)
                continue
            log_cvr = np.minimum(
                log_p[:, self.last] - log_p[:, self.first], LARGEST_LOG_CVR
            )
            columns.append(log_cvr - np.log(-np.expm1(log_cvr)))
        return np.column_stack(columns)


def _choose_background(estimator: Any, X: Any) -> Any:
    """Return rows of X, evenly spaced in the order of the last task's log-odds."""
    n_rows = len(X)
    if n_rows == 1:
        raise ValueError(
            "background must be given if X has one row: rows to compare it with, such "
            "as some dozens of a day's rows."
        )
    order = np.argsort(estimator._predict_logits(X)[:, -1], kind="stable")
    n_background = min(n_rows, BACKGROUND_ROWS)
    places = (np.arange(n_background) + 0.5) * n_rows / n_background
    return _safe_indexing(X, np.sort(order[places.astype(np.intp)]))


def _values_of(X: Any, names: Sequence[Any]) -> np.ndarray:
    """Return the values of columns as they are, objects `(n_rows, n_columns)`."""
    values = np.empty((len(X), len(names)), dtype=object)
    for place, name in enumerate(names):
        column = column_of(X, "column", name)
        for row, value in enumerate(column):
            values[row, place] = value
    return values


@dataclass(kw_only=True, frozen=True, eq=False)
class RowExplanations:
    """Contributions of the columns of rows to the log-odds of tasks.

    Those of a value are contributions to the logarithm of its mean amount. Made by
    :func:`explain_rows`.

    Parameters
    ----------
    contributions : ndarray of shape (n_samples, n_columns, n_tasks)
        What each column adds to the log-odds of each task.
    errors : ndarray of shape (n_samples, n_columns, n_tasks)
        Standard errors of the contributions, 0 if these are exact.
    base_values : ndarray of shape (n_tasks,)
        Mean log-odds of the background.
    log_odds : ndarray of shape (n_samples, n_tasks)
        Log-odds of the rows: `base_values` plus the sum of the contributions.
    column_names : list
        Names of the columns, or their indices if `fit` saw no names. Those of the
        weights and ages of lists are left out: they belong to the column of the lists.
    task_names : list of str
        Names of the explained tasks, and "cvr".
    data : ndarray of object of shape (n_samples, n_columns)
        Values of the rows.
    value_names : sequence of str, default=()
        Those of `task_names` that are values: their "log-odds" are logarithms of mean
        amounts.

    See Also
    --------
    explain_rows : Computes the contributions.
    RowExplanationDisplay : Draws them.
    task_importances : Importance of the columns over many rows.

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.inspection import explain_rows
    >>> log = make_ctr_cvr(2_000, n_numeric=3, ctr=0.3, random_state=0)
    >>> model = MultiTaskCTRCVRClassifier(max_epochs=3, random_state=0)
    >>> model = model.fit(log.data, log.target)
    >>> explanations = explain_rows(model, log.data[:5], background=log.data[100:150])
    >>> len(explanations.reasons(row=2, task="cvr", n_reasons=4))
    4
    """

    contributions: np.ndarray
    errors: np.ndarray
    base_values: np.ndarray
    log_odds: np.ndarray
    column_names: list[Any]
    task_names: list[str]
    data: np.ndarray
    value_names: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.contributions)

    def _find_task(self, task: int | str | None) -> int:
        """Return the index of a task among `task_names`; None is the last one."""
        if task is None:
            return len(self.task_names) - 1
        return find_task(
            check_task(task, ""), len(self.task_names), self.task_names, alternatives=""
        )

    def to_frame(self) -> Any:
        """Return the contributions as a table with a row per row, task and column.

        Returns
        -------
        DataFrame
            With the columns "row", "task", "column", "value", "contribution" and
            "error".

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pandas = import_extra("pandas", "RowExplanations.to_frame")
        n_rows, n_columns, n_tasks = self.contributions.shape
        by_task = self.contributions.transpose(0, 2, 1)
        values = np.broadcast_to(self.data[:, np.newaxis, :], by_task.shape)
        return pandas.DataFrame(
            {
                "row": np.repeat(np.arange(n_rows), n_tasks * n_columns),
                "task": np.tile(np.repeat(self.task_names, n_columns), n_rows),
                "column": self.column_names * (n_rows * n_tasks),
                "value": values.ravel(),
                "contribution": by_task.ravel(),
                "error": self.errors.transpose(0, 2, 1).ravel(),
            }
        )

    def reasons(
        self, row: int = 0, task: int | str | None = None, *, n_reasons: int = 3
    ) -> list[str]:
        """Return the largest contributions of a row in words, the largest first.

        Parameters
        ----------
        row : int, default=0
            Index of the row.
        task : int or str, default=None
            Index or name of the task among `task_names`, by default the last one.
        n_reasons : int, default=3
            Number of columns to name. Columns that contribute nothing are left out.

        Returns
        -------
        list of str
            Such as "item_id = 'shoes' multiplies the odds by 2.41", of a value "... the
            mean amount by 2.41".

        Raises
        ------
        ValueError
            If there is no such row or task, or `n_reasons` is less than 1.
        """
        row = check_integer("row", row, at_least=0)
        if row >= len(self):
            raise ValueError(f"row must be less than {len(self)}; got {row}.")
        n_reasons = check_integer("n_reasons", n_reasons, at_least=1)
        index = self._find_task(task)
        contributions = self.contributions[row, :, index]
        is_value = self.task_names[index] in self.value_names
        explained = "mean amount" if is_value else "odds"
        order = np.argsort(-np.abs(contributions), kind="stable")[:n_reasons]
        return [
            f"{self.column_names[column]} = {shorten(self.data[row, column])} "
            f"multiplies the {explained} by {np.exp(contributions[column]):.3g}"
            for column in order
            if contributions[column] != 0
        ]


def shorten(value: Any) -> str:
    """Return a value in few characters."""
    text = f"{value:.4g}" if isinstance(value, float | np.floating) else repr(value)
    if isinstance(value, np.integer | np.bool_):
        text = str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


@dataclass(kw_only=True, repr=False, eq=False)
class RowExplanationDisplay:
    """Contributions of columns: bars of one row, or a beeswarm of many rows.

    Parameters
    ----------
    explanations : RowExplanations
        The result of :func:`explain_rows`.
    task : int or str, default=None
        Index or name of the task among those explained, by default the last one.

    Attributes
    ----------
    shown_ : list
        Names of the columns that are drawn, from the top.
    ax_, figure_ : matplotlib Axes and Figure
        The axes and their figure.

    See Also
    --------
    explain_rows : Computes the contributions.

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.inspection import RowExplanationDisplay
    >>> log = make_ctr_cvr(2_000, n_numeric=3, ctr=0.3, random_state=0)
    >>> model = MultiTaskCTRCVRClassifier(max_epochs=3, random_state=0)
    >>> model = model.fit(log.data, log.target)
    >>> display = RowExplanationDisplay.from_estimator(
    ...     model, log.data[:1], background=log.data[100:120], n_columns=5
    ... )
    >>> len(display.shown_)
    5
    """

    explanations: RowExplanations
    task: int | str | None = None

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        background: Any = None,
        task: int | str | None = None,
        random_state: Any = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> "RowExplanationDisplay":
        """Compute and draw the contributions.

        Parameters
        ----------
        estimator : MultiTaskCTRCVRClassifier, FunnelCalibrator, TaskView or Pipeline
            The fitted estimator.
        X : {DataFrame, array-like} of shape (n_samples, n_features)
            The rows to explain.
        background : {DataFrame, array-like} of shape (n_background, n_features), \
                default=None
            Rows to compare with, as in :func:`explain_rows`.
        task : int or str, default=None
            Index or name of the task, or "cvr"; by default the last task.
        random_state : int, RandomState instance or None, default=None
            Seed of the permutations.
        ax : matplotlib Axes, default=None
            The axes to draw on; None creates a new figure.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        RowExplanationDisplay
            The display, drawn.

        Raises
        ------
        ValueError, TypeError
            As in :func:`explain_rows`.
        """
        _displays.import_pyplot(cls.__name__)
        if task is None and hasattr(estimator, "task_names_"):
            task = len(estimator.task_names_) - 1
        explanations = explain_rows(
            estimator, X, background=background, tasks=task, random_state=random_state
        )
        return cls(explanations=explanations).plot(ax, **kwargs)

    def plot(
        self,
        ax: Any = None,
        *,
        row: int | None = None,
        n_columns: int = 10,
        **kwargs: Any,
    ) -> "RowExplanationDisplay":
        """Draw the contributions.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            The axes to draw on; None creates a new figure.
        row : int, default=None
            Index of the row whose contributions are drawn as bars. By default the only
            row, or all rows as a beeswarm: one dot per row, coloured by the rank of a
            number among the rows, and grey for other values.
        n_columns : int, default=10
            Number of columns to draw: those with the largest mean absolute
            contribution.
        **kwargs : dict
            Properties of the bars, passed to matplotlib's `barh`, or of the dots,
            passed to `scatter`.

        Returns
        -------
        RowExplanationDisplay
            The display.

        Raises
        ------
        ValueError
            If there is no such row or task, or `n_columns` is less than 1.
        """
        n_columns = check_integer("n_columns", n_columns, at_least=1)
        explanations = self.explanations
        if row is None and len(explanations) == 1:
            row = 0
        if row is not None:
            row = check_integer("row", row, at_least=0)
            if row >= len(explanations):
                raise ValueError(
                    f"row must be less than {len(explanations)}; got {row}."
                )
        index = explanations._find_task(self.task)
        ax = _displays.axes_or_new(ax, type(self).__name__)
        contributions = explanations.contributions[:, :, index]
        rows = contributions if row is None else contributions[[row]]
        size = np.abs(rows).mean(axis=0)
        shown = np.argsort(-size, kind="stable")[:n_columns]
        self.shown_ = [explanations.column_names[column] for column in shown]
        places = np.arange(len(shown))
        if row is None:
            labels = [str(name) for name in self.shown_]
            _draw_beeswarm(
                ax, contributions[:, shown], explanations.data[:, shown], kwargs
            )
        else:
            labels = [
                f"{explanations.column_names[column]} = "
                f"{shorten(explanations.data[row, column])}"
                for column in shown
            ]
            _draw_bars(
                ax,
                contributions[row, shown],
                explanations.errors[row, shown, index],
                kwargs,
            )
        ax.set_yticks(places, labels)
        ax.invert_yaxis()
        ax.axvline(0, color=_displays.GREY, linewidth=0.8)
        name = explanations.task_names[index]
        explained = "log-odds"
        if name in explanations.value_names:
            explained = "logarithm of the mean amount"
        ax.set_xlabel(f"Contribution to the {explained} of {name}")
        self.ax_ = ax
        self.figure_ = ax.figure
        return self


def _draw_bars(ax: Any, values: np.ndarray, errors: np.ndarray, kwargs: Any) -> None:
    """Draw a bar per column, and its standard error if it is not exact."""
    lower, higher, *_ = _displays.PALETTE
    defaults: dict[str, Any] = {
        "color": [higher if value > 0 else lower for value in values]
    }
    if errors.any():
        defaults["xerr"] = errors
    ax.barh(np.arange(len(values)), values, **{**defaults, **kwargs})


def _draw_beeswarm(ax: Any, values: np.ndarray, data: np.ndarray, kwargs: Any) -> None:
    """Draw a dot per row and column, spread where they are dense."""
    columns = zip(values.T, data.T, strict=True)
    for place, (contributions, column) in enumerate(columns):
        height = place + _spread(contributions)
        defaults = {"s": 12, "linewidths": 0, "c": _displays.GREY}
        ranks = _ranks_of_numbers(column)
        if ranks is not None:
            defaults |= {"c": ranks, "cmap": "viridis", "vmin": 0, "vmax": 1}
        ax.scatter(contributions, height, **{**defaults, **kwargs})


# Half of the height that the dots of a column take, and the bins for their density.
HALF_HEIGHT = 0.35
DENSITY_BINS = 50


def _spread(values: np.ndarray) -> np.ndarray:
    """Return the shifts of dots, alternating up and down, by how dense they are."""
    low = values.min()
    scale = (values.max() - low) or 1.0
    bins = ((values - low) / scale * (DENSITY_BINS - 1)).astype(np.intp)
    order = np.argsort(bins, kind="stable")
    counts = np.bincount(bins)
    first = counts.cumsum() - counts
    place = np.empty(len(values), dtype=np.intp)  # among the dots of the bin
    place[order] = np.arange(len(values)) - first[bins[order]]
    signs = np.where(place % 2, 1, -1)
    return signs * ((place + 1) // 2) / max(counts.max() / 2, 1) * HALF_HEIGHT


def _ranks_of_numbers(column: np.ndarray) -> np.ndarray | None:
    """Return the ranks of numbers between 0 and 1, or None for other values."""
    is_number = [
        isinstance(value, int | float | np.number) and not isinstance(value, bool)
        for value in column
    ]
    if not all(is_number):
        return None
    numbers = column.astype(np.float64)
    _, ranks = np.unique(numbers, return_inverse=True)
    return ranks / max(ranks.max(), 1)

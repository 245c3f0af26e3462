"""What displays share: axes, styles, and the rows of each task and model."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples, check_consistent_length

from sk_pwiser import _responses
from sk_pwiser._columns._frames import collected, column_of
from sk_pwiser._tasks._labels import check_order, names_of_columns
from sk_pwiser._tasks._row_match import check_match
from sk_pwiser._tasks._weights import check_weights
from sk_pwiser._utils._extras import import_extra
from sk_pwiser._utils._warnings import warn_user

# The palette of Okabe and Ito, which colour-blind readers can tell apart, without its
# yellow, which is hardly visible on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#7F7F7F"
# The style of lines to compare with.
REFERENCE = {"color": GREY, "linestyle": (0, (1, 2))}

# Lines and markers that distinguish several models in one plot.
LINE_STYLES = (
    "-",
    "--",
    ":",
    "-.",
    (0, (8, 3)),
    (0, (5, 1)),
    (0, (1, 1)),
    (0, (3, 1, 1, 1)),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

# The base rate below which axes of rates are logarithmic.
RARE_RATE = 0.1


def import_pyplot(user: str) -> Any:
    """Return pyplot, or raise an ImportError that names the class that needs it."""
    return import_extra("matplotlib.pyplot", user)


def axes_or_new(ax: Any, user: str) -> Any:
    """Return the given axes, or those of a new figure."""
    pyplot = import_pyplot(user)
    if ax is not None:
        return ax
    _, new_ax = pyplot.subplots(layout="constrained")
    return new_ax


def row_of_axes(ax: Any, n_axes: int, user: str) -> np.ndarray:
    """Return the given axes as an array, or a row of axes in a new figure."""
    pyplot = import_pyplot(user)
    if ax is None:
        size = (4.2 * n_axes + 0.6, 3.6)
        _, ax = pyplot.subplots(1, n_axes, figsize=size, layout="constrained")
    # As an object array, since `ax` may be one axes, a list, or what `subplots`
    # returns.
    axes = np.ravel(np.array(ax, dtype=object))
    if len(axes) != n_axes:
        raise ValueError(
            f"ax must contain {n_axes} axes, one per plot, got {len(axes)}."
        )
    return axes


def task_color(index: int) -> str:
    """Return the colour of a task, the same in all displays."""
    return PALETTE[index % len(PALETTE)]


def curve_styles(
    task_names: Sequence[str],
    model_names: Sequence[str | None] | None = None,
    scores: Sequence[float] | None = None,
    form: str = "{}",
) -> list[dict[str, Any]]:
    """Return keywords of each curve: a colour per task, a line style per model.

    Several curves of a task and a model are those of folds: thin, with one label.
    """
    model_names = model_names or [None] * len(task_names)
    tasks = list(dict.fromkeys(task_names))
    models = list(dict.fromkeys(model_names))
    curves = list(zip(task_names, model_names, strict=True))
    styles = []
    for k, (task, model) in enumerate(curves):
        model_index = models.index(model)
        folds = [j for j, curve in enumerate(curves) if curve == curves[k]]
        label = task if model is None else f"{task}, {model}"
        if scores is not None:
            label += f" ({_format_scores([scores[j] for j in folds], form)})"
        # Only the first fold has a label; matplotlib leaves out labels that start with
        # "_".
        curve_style: dict[str, Any] = {
            "color": task_color(tasks.index(task)),
            "linestyle": LINE_STYLES[model_index % len(LINE_STYLES)],
            "marker": MARKERS[model_index % len(MARKERS)],
            "label": label if k == folds[0] else "_fold",
        }
        if len(folds) > 1:
            curve_style |= {"linewidth": 1, "alpha": 0.6}
        styles.append(curve_style)
    return styles


def _format_scores(scores: Sequence[float], form: str) -> str:
    """Return the score of a curve, or mean and standard deviation over folds."""
    if len(scores) == 1:
        return form.format(*scores)
    # A fold with one class has no score, and should not hide those of the others.
    defined_scores = [score for score in scores if not np.isnan(score)] or [np.nan]
    *_, number_form = form.rpartition(" = ")
    spread = number_form.format(np.std(defined_scores))
    return f"{form.format(np.mean(defined_scores))} ± {spread}"


def is_log(base_rates: Sequence[float]) -> bool:
    """Return whether an axis that shows rates is logarithmic."""
    # A task without events has no place on a logarithmic axis.
    return any(0 < rate < RARE_RATE for rate in base_rates)


def set_log_axis(axis: Any, low: float, high: float) -> None:
    """Make an axis logarithmic, with plain numbers as ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    getattr(axis.axes, f"set_{axis.axis_name}scale")("log", nonpositive="mask")
    n_decades = np.log10(high / low)
    # More ticks per decade where there are few decades.
    subs: tuple[float, ...]
    if n_decades < 2:
        subs = (1.0, 2.0, 5.0)
    elif n_decades < 3:
        subs = (1.0, 3.0)
    else:
        subs = (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=15))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def style(kwargs: dict[str, Any], **defaults: Any) -> dict[str, Any]:
    """Return the properties of a line: the defaults, updated by `kwargs`."""
    from matplotlib.cbook import normalize_kwargs
    from matplotlib.lines import Line2D

    # matplotlib refuses two spellings of one property, such as c and color.
    return {**defaults, **normalize_kwargs(kwargs, Line2D)}


# Curves of more values of `by` could not be told apart.
MAX_CURVES_PER_TASK = 8


class TaskRows(NamedTuple):
    """Labels and predictions of one task and one model, where the label is known."""

    task: str  # "<last> | <first>" for the CVR
    model: str | None  # with the value of `by`; None for one model without a name
    y: np.ndarray
    p: np.ndarray
    weight: np.ndarray

    @property
    def has_both_classes(self) -> bool:
        """Whether both labels occur among the rows with a weight above 0."""
        y = self.y[self.weight > 0]
        return len(y) > 0 and y.min() != y.max()

    @property
    def base_rate(self) -> float:
        """The weighted rate of label 1, NaN without rows."""
        if not self.weight.any():
            return np.nan
        return float(np.average(self.y, weights=self.weight))


class GivenPredictions:
    """Given probabilities, with the interface of a fitted estimator."""

    missing_labels = "ignore"

    def __init__(self, P: Any) -> None:
        P = collected(P)
        self.table = P  # with the names of its columns, if it has any
        # scikit-learn's classifiers of several outputs return a list of arrays, one per
        # task.
        is_per_task = isinstance(P, list) and P and np.ndim(P[0]) == 2
        if not is_per_task:
            P = np.asarray(P)
            P = P[:, np.newaxis] if P.ndim == 1 else P
        self._proba = P

    def predict_proba(self, X: Any) -> Any:
        return self._proba


class Responses(NamedTuple):
    """Predictions, weights and labels (0 where missing) of all tasks for one model."""

    names: list[str]
    targets: np.ndarray
    is_known: np.ndarray
    p: np.ndarray
    weight: np.ndarray  # per row and task
    predictions: _responses.Predictions


def read_responses(
    estimator: Any,
    X: Any,
    Y: Any,
    task_names: Sequence[str] | None = None,
    sample_weight: npt.ArrayLike | None = None,
) -> Responses:
    """Return the `Responses` of a fitted estimator or of `GivenPredictions`."""
    X = collected(X)
    Y = collected(Y)
    predictions = _responses.Predictions(estimator, X, {})
    targets, is_known, y_names = predictions.read_targets(
        Y, sample_weight=sample_weight
    )
    n_tasks = targets.shape[1]
    names = _choose_names(n_tasks, task_names, y_names, predictions.task_names())
    if isinstance(estimator, GivenPredictions):
        # Columns with other names are read by position.
        P = estimator.table
        check_order("The columns of P", names_of_columns(P) or [], names)
        _responses.check_rows(
            Y, len(targets), input_name="Y", P=P, sample_weight=sample_weight
        )
    p = np.column_stack([predictions.of_task(k, targets) for k in range(n_tasks)])
    is_wrong = ~((p >= 0) & (p <= 1))
    if is_wrong.any():
        row, k = np.argwhere(is_wrong)[0]
        raise ValueError(
            f"Predictions must be probabilities in [0, 1], got {p[row, k]:g} for task "
            f"{names[k]!r} in row {row}."
        )
    weight = np.ones(targets.shape)
    if sample_weight is not None:
        weights = check_weights(sample_weight, len(targets), n_tasks, names)
        weight *= weights.reshape(len(weights), -1)
    return Responses(
        names=names,
        targets=targets,
        is_known=is_known,
        p=p,
        weight=weight,
        predictions=predictions,
    )


def read_models(
    models: Mapping[Any, Any],
    X: Any,
    Y: Any,
    *,
    cvr: bool,
    sample_weight: npt.ArrayLike | None,
    by: Any,
    task_names: Sequence[str] | None = None,
) -> list[TaskRows]:
    """Return the `TaskRows` of all tasks, and the CVR, of a dict of models.

    `by` is a column of `X`, or an array if `X` is None; each value has its own rows.
    """
    X = collected(X)
    Y = collected(Y)
    rows_of_value = None if by is None else _rows_of_values(X, Y, by)
    task_rows = []
    for name, model in models.items():
        responses = read_responses(model, X, Y, task_names, sample_weight)
        task_rows += _task_rows(name, responses, cvr, rows_of_value)
    return task_rows


def _rows_of_values(X: Any, Y: Any, by: Any) -> dict[str, np.ndarray]:
    """Return the rows of each value of `by`."""
    if X is not None:
        column = column_of(X, "by", by)
        name = by
    else:
        check_consistent_length(by, Y)
        check_match(Y, _num_samples(Y), input_name="Y", by=by)
        column = by
        name = getattr(by, "name", None)
    rows_of_value = _responses.rows_of_values(column, name)
    if not 0 < len(rows_of_value) <= MAX_CURVES_PER_TASK:
        raise ValueError(
            f"by must have at least one value and at most {MAX_CURVES_PER_TASK}, since "
            f"each has its own curves; got {len(rows_of_value):,} values."
        )
    return rows_of_value


def read_folds(
    cv_results: Mapping[str, Any],
    X: Any,
    Y: Any,
    cvr: bool,
    sample_weight: npt.ArrayLike | None,
) -> list[TaskRows]:
    """Return the `TaskRows` of all tasks, and the CVR, in each test fold."""
    for key in ("estimator", "indices"):
        if key not in cv_results:
            raise ValueError(
                f"cv_results has no {key!r}; cross_validate needs return_{key}=True."
            )
    check_consistent_length(X, Y, sample_weight)
    folds = zip(cv_results["estimator"], cv_results["indices"]["test"], strict=True)
    task_rows = []
    for estimator, test in folds:
        test_weight = None
        if sample_weight is not None:
            test_weight = _safe_indexing(sample_weight, test)
        responses = read_responses(
            estimator,
            _safe_indexing(X, test),
            _safe_indexing(Y, test),
            sample_weight=test_weight,
        )
        task_rows += _task_rows(None, responses, cvr)
    return task_rows


def warn_about_one_class(rows: Sequence[TaskRows], curve: str) -> None:
    """Warn once about all tasks with only one class, in the user's frame."""
    # Folds of one curve count together: one line per task, not one per fold.
    n_folds = Counter((task_rows.task, task_rows.model) for task_rows in rows)
    n_constant = Counter(
        (
            task_rows.task,
            task_rows.model,
            task_rows.y[0] if len(task_rows.y) else None,
        )
        for task_rows in rows
        if not task_rows.has_both_classes
    )
    undefined = []
    for (task, model, label), n in n_constant.items():
        text = repr(task) if model is None else f"{task!r}, {model}"
        text += " has no rows" if label is None else f" has only class {label}"
        total = n_folds[task, model]
        undefined.append(text if total == 1 else f"{text} in {n} of {total} folds")
    if undefined:
        warn_user(
            f"{curve} is undefined and left empty for task {', task '.join(undefined)}"
            ".",
            UndefinedMetricWarning,
        )


def by_name(models: Any, parameter: str) -> Mapping[Any, Any]:
    """Return a dict of models; a single one without a name has the key None."""
    if not isinstance(models, Mapping):
        return {None: models}
    if not models:
        raise ValueError(
            f"{parameter} must contain at least one model, got {models!r}."
        )
    return models


class _TaskCurve(NamedTuple):
    """What a curve is drawn of, for all rows of one model."""

    name: str
    column: int  # of the labels and weights
    p: np.ndarray
    is_drawn: np.ndarray


def _task_rows(
    model: str | None,
    responses: Responses,
    cvr: bool,
    rows_of_value: Mapping[Any, np.ndarray] | None = None,
) -> list[TaskRows]:
    """Return the `TaskRows` of all tasks, and the CVR, for each value of `by`.

    `model` is the name of the model, or None.
    """
    names = responses.names
    curves = [
        _TaskCurve(name, k, responses.p[:, k], responses.is_known[:, k])
        for k, name in enumerate(names)
    ]
    if cvr:
        first = responses.predictions.first_of_cvr(len(names))
        # The CVR is drawn over clicked rows with a known last label.
        is_clicked = responses.targets[:, first] == 1
        curves.append(
            _TaskCurve(
                name=f"{names[-1]} | {names[first]}",
                column=-1,
                p=responses.predictions.cvr(responses.targets),
                is_drawn=responses.is_known[:, -1] & is_clicked,
            )
        )
    if not rows_of_value:
        rows_of_value = {None: np.arange(len(responses.targets))}
    task_rows = []
    for value, value_rows in rows_of_value.items():
        label = ", ".join(str(text) for text in (model, value) if text is not None)
        for curve in curves:
            rows = value_rows[curve.is_drawn[value_rows]]
            task_rows.append(
                TaskRows(
                    task=curve.name,
                    model=label or None,
                    y=responses.targets[rows, curve.column],
                    p=curve.p[rows],
                    weight=responses.weight[rows, curve.column],
                )
            )
    return task_rows


def _choose_names(
    n_tasks: int, task_names: Sequence[str] | None, *names_by_source: list[str]
) -> list[str]:
    """Return the names of the user, those of the first source with any, or numbers."""
    if task_names is None:
        numbered = [f"task {k}" for k in range(n_tasks)]
        return next((names for names in names_by_source if names), numbered)
    if len(task_names) != n_tasks or len(set(task_names)) != n_tasks:
        raise ValueError(
            f"task_names must be {n_tasks} distinct names, got {list(task_names)!r}."
        )
    return [str(name) for name in task_names]

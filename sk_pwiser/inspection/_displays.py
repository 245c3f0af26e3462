"""What displays share: axes, styles, and the rows of each task and model."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
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
REFERENCE = {"color": GREY, "linestyle": (0, (1, 2))}  # lines to compare with

# Lines and markers that distinguish several models in one plot.
DASHES = ((8, 3), (5, 1), (1, 1), (3, 1, 1, 1))
LINE_STYLES = ("-", "--", ":", "-.", *((0, dashes) for dashes in DASHES))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

# The base rate below which axes of rates are logarithmic.
RARE = 0.1


def import_pyplot(user):
    return import_extra("matplotlib.pyplot", user)


def axes_or_new(ax, user):
    return import_pyplot(user).subplots(layout="constrained")[1] if ax is None else ax


def row_of_axes(ax, n_axes, user):
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


def task_color(index):
    return PALETTE[index % len(PALETTE)]


def curve_styles(task_names, model_names=None, scores=None, form="{}"):
    """Return keywords of each curve: a colour per task, a line style per model.

    Several curves of a task and a model are those of folds: thin, with one label.
    """
    model_names = model_names or [None] * len(task_names)
    tasks, models = list(dict.fromkeys(task_names)), list(dict.fromkeys(model_names))
    curves = list(zip(task_names, model_names, strict=True))
    styles = []
    for k, (task, model) in enumerate(curves):
        m = models.index(model)
        # Only the first fold has a label; matplotlib leaves out labels that start with
        # "_".
        folds = [j for j, curve in enumerate(curves) if curve == curves[k]]
        label = task if model is None else f"{task}, {model}"
        if scores is not None:
            label += f" ({_format_scores([scores[j] for j in folds], form)})"
        styles.append(
            {
                "color": task_color(tasks.index(task)),
                "linestyle": LINE_STYLES[m % len(LINE_STYLES)],
                "marker": MARKERS[m % len(MARKERS)],
                "label": label if k == folds[0] else "_fold",
                **({"linewidth": 1, "alpha": 0.6} if len(folds) > 1 else {}),
            }
        )
    return styles


def _format_scores(scores, form):
    """Return the score of a curve, or mean and standard deviation over folds."""
    if len(scores) == 1:
        return form.format(*scores)
    # A fold with one class has no score, and should not hide those of the others.
    known = [score for score in scores if not np.isnan(score)] or [np.nan]
    spread = form.rpartition(" = ")[2].format(np.std(known))
    return f"{form.format(np.mean(known))} ± {spread}"


def is_log(base_rates):
    """Return whether an axis that shows rates is logarithmic."""
    # A task without events has no place on a logarithmic axis.
    return any(0 < rate < RARE for rate in base_rates)


def set_log_axis(axis, low, high):
    """Make an axis logarithmic, with plain numbers as ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    getattr(axis.axes, f"set_{axis.axis_name}scale")("log", nonpositive="mask")
    n_decades = np.log10(high / low)
    # More ticks per decade where there are few decades.
    subs = (1.0, 2.0, 5.0) if n_decades < 2 else (1.0, 3.0) if n_decades < 3 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=15))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def style(kwargs, **defaults):
    """Return the properties of a line: the defaults, updated by `kwargs`."""
    from matplotlib.cbook import normalize_kwargs
    from matplotlib.lines import Line2D

    # matplotlib refuses two spellings of one property, such as c and color.
    return {**defaults, **normalize_kwargs(kwargs, Line2D)}


# Curves of more values of `by` could not be told apart.
MAX_VALUES = 8


class TaskRows(NamedTuple):
    """Labels and predictions of one task and one model, where the label is known."""

    task: str  # "<last> | <first>" for the CVR
    model: str | None  # with the value of `by`; None for one model without a name
    y: np.ndarray
    p: np.ndarray
    weight: np.ndarray

    @property
    def has_both_classes(self):
        """Whether both labels occur among the rows with a weight above 0."""
        y = self.y[self.weight > 0]
        return len(y) > 0 and y.min() != y.max()

    @property
    def base_rate(self):
        """The weighted rate of label 1, NaN without rows."""
        if not self.weight.any():
            return np.nan
        return float(np.average(self.y, weights=self.weight))


class GivenPredictions:
    """Given probabilities, with the interface of a fitted estimator."""

    missing_labels = "ignore"

    def __init__(self, P):
        self.given = self._P = P = collected(P)
        # scikit-learn's classifiers of several outputs return a list of arrays, one per
        # task.
        is_per_task = isinstance(P, list) and P and np.ndim(P[0]) == 2
        if not is_per_task:
            P = np.asarray(P)
            self._P = P[:, np.newaxis] if P.ndim == 1 else P

    def predict_proba(self, X):
        return self._P


class Responses(NamedTuple):
    """Predictions, weights and labels (0 where missing) of all tasks for one model."""

    names: list
    targets: np.ndarray
    known: np.ndarray
    p: np.ndarray
    weight: np.ndarray  # per row and task
    predictions: _responses.Predictions


def read_responses(estimator, X, Y, task_names=None, sample_weight=None):
    """Return the `Responses` of a fitted estimator or of `GivenPredictions`."""
    X, Y = collected(X), collected(Y)
    predictions = _responses.Predictions(estimator, X, {})
    targets, known, y_names = predictions.read_targets(Y, sample_weight=sample_weight)
    n_tasks = targets.shape[1]
    names = _choose_names(n_tasks, task_names, y_names, predictions.task_names())
    if isinstance(estimator, GivenPredictions):
        # Columns with other names are read by position.
        P = estimator.given
        check_order("The columns of P", names_of_columns(P) or [], names)
        others = {"P": P, "sample_weight": sample_weight}
        _responses.check_rows(Y, len(targets), input_name="Y", **others)
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
        weights = check_weights(sample_weight, *targets.shape, names)
        weight *= weights.reshape(len(weights), -1)
    return Responses(names, targets, known, p, weight, predictions)


def read_models(models, X, Y, cvr, sample_weight, by, task_names=None):
    """Return the `TaskRows` of all tasks, and the CVR, of a dict of models.

    `by` is a column of `X`, or an array if `X` is None; each value has its own rows.
    """
    X, Y = collected(X), collected(Y)
    parts = None if by is None else _parts(X, Y, by)
    return [
        rows
        for name, model in models.items()
        for rows in _read(name, model, X, Y, cvr, sample_weight, task_names, parts)
    ]


def _parts(X, Y, by):
    if X is not None:
        column, name = column_of(X, "by", by), by
    else:
        check_consistent_length(by, Y)
        check_match(Y, _num_samples(Y), input_name="Y", by=by)
        column, name = by, getattr(by, "name", None)
    found = _responses.rows_of_values(column, name)
    if not 0 < len(found) <= MAX_VALUES:
        raise ValueError(
            f"by must have at least one value and at most {MAX_VALUES}, since each has "
            f"its own curves; got {len(found):,} values."
        )
    return found


def read_folds(cv_results, X, Y, cvr, sample_weight):
    """Return the `TaskRows` of all tasks, and the CVR, in each test fold."""
    for key in ("estimator", "indices"):
        if key not in cv_results:
            raise ValueError(
                f"cv_results has no {key!r}; cross_validate needs return_{key}=True."
            )
    check_consistent_length(X, Y, sample_weight)
    folds = zip(cv_results["estimator"], cv_results["indices"]["test"], strict=True)
    found = []
    for estimator, test in folds:
        x, y, weight = (
            None if each is None else _safe_indexing(each, test)
            for each in (X, Y, sample_weight)
        )
        found += _read(None, estimator, x, y, cvr, weight)
    return found


def warn_about_one_class(rows, curve):
    """Warn once about all tasks with only one class, in the user's frame."""
    # Folds of one curve count together: one line per task, not one per fold.
    n_folds = Counter((each.task, each.model) for each in rows)
    constant = Counter(
        (each.task, each.model, each.y[0] if len(each.y) else None)
        for each in rows
        if not each.has_both_classes
    )
    found = []
    for (task, model, label), n in constant.items():
        what = repr(task) if model is None else f"{task!r}, {model}"
        what += " has no rows" if label is None else f" has only class {label}"
        total = n_folds[task, model]
        found.append(what if total == 1 else f"{what} in {n} of {total} folds")
    if found:
        warn_user(
            f"{curve} is undefined and left empty for task {', task '.join(found)}.",
            UndefinedMetricWarning,
        )


def by_name(models, parameter):
    """Return a dict of models; a single one without a name has the key None."""
    if not isinstance(models, Mapping):
        return {None: models}
    if not models:
        raise ValueError(
            f"{parameter} must contain at least one model, got {models!r}."
        )
    return models


def _read(model, estimator, X, Y, cvr, sample_weight, task_names=None, parts=None):
    read = read_responses(estimator, X, Y, task_names, sample_weight)
    names = read.names
    curves = [(name, k, read.p[:, k], read.known[:, k]) for k, name in enumerate(names)]
    if cvr:
        # The CVR is drawn over clicked rows with a known last label.
        p = read.predictions.cvr(read.targets)
        first = read.predictions.first_of_cvr(len(names))
        clicked = read.known[:, -1] & (read.targets[:, first] == 1)
        curves.append((f"{names[-1]} | {names[first]}", -1, p, clicked))
    found = []
    all_rows = {None: np.arange(len(read.targets))}
    for part, of_part in (parts or all_rows).items():
        label = ", ".join(str(each) for each in (model, part) if each is not None)
        for name, k, p, known in curves:
            rows = of_part[known[of_part]]
            # Column k = -1 of the CVR is the last task.
            y, weight = read.targets[rows, k], read.weight[rows, k]
            found.append(TaskRows(name, label or None, y, p[rows], weight))
    return found


def _choose_names(n_tasks, task_names, *found):
    if task_names is None:
        numbered = [f"task {k}" for k in range(n_tasks)]
        return next((names for names in found if names), numbered)
    if len(task_names) != n_tasks or len(set(task_names)) != n_tasks:
        raise ValueError(
            f"task_names must be {n_tasks} distinct names, got {list(task_names)!r}."
        )
    return [str(name) for name in task_names]

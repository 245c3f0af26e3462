"""Losses and AUC by epoch of training, and scores of a search by a parameter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sk_pwiser._responses import Predictions, find_paths, nested_estimators
from sk_pwiser._utils._integers import ceil_div
from sk_pwiser.inspection import _displays

# Columns of the history, by the names of their curves.
LOSS_COLUMNS = {"training": "train_loss", "validation": "valid_loss"}
# Styles of the curves of losses.
LINE_STYLES = ("--", "-", ":")
# The axis of a parameter is logarithmic if the largest value above 0 is this many times
# the smallest.
WIDE_RANGE = 10
# Of more values of a parameter, not all have a tick.
MAX_TICKS = 8


@dataclass(kw_only=True, repr=False, eq=False)
class TrainingHistoryDisplay:
    """Training loss, validation loss and validation AUC per task, by epoch.

    `from_estimator` creates the display. The mean over the tasks is black. A vertical
    line marks the epoch whose weights the estimator uses.

    Parameters
    ----------
    epochs : ndarray of shape (n_epochs,)
        Numbers of the epochs.
    losses : dict of str to ndarray of shape (n_epochs,)
        Mean loss of the "training" rows and, if there were any, of the "validation"
        rows, with the "validation log loss", the mean over the tasks, which has no
        pairwise term and no weights of tasks. NaN for epochs without a loss.
    aucs : dict of str to ndarray of shape (n_epochs,)
        Validation AUC of each task; empty without validation rows.
    mean_auc : ndarray of shape (n_epochs,), default=None
        Mean validation AUC over the tasks, if there are several.
    best_epoch : int, default=None
        The epoch to mark.

    Attributes
    ----------
    lines_ : list of list of matplotlib Line2D
        The curves, one list per axes.
    axes_ : ndarray of matplotlib Axes
        The axes of the losses and, with validation rows, of the AUC.
    figure_ : matplotlib Figure
        The figure.

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.inspection import TrainingHistoryDisplay
    >>> data = make_ctr_cvr(2_000, ctr=0.3, random_state=0)
    >>> model = MultiTaskCTRCVRClassifier(max_epochs=4, early_stopping=True)
    >>> display = TrainingHistoryDisplay.from_estimator(
    ...     model.fit(data.data, data.target)
    ... )
    >>> [ax.get_ylabel() for ax in display.axes_]
    ['Loss', 'Validation AUC']
    """

    epochs: np.ndarray
    losses: dict[str, np.ndarray]
    aucs: dict[str, np.ndarray]
    mean_auc: np.ndarray | None = None
    best_epoch: int | None = None

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the history of a fitted estimator.

        Parameters
        ----------
        estimator : estimator object
            A fitted :class:`~sk_pwiser.MultiTaskCTRCVRClassifier`, also inside a
            pipeline or a search.
        ax : matplotlib Axes or array-like of Axes, default=None
            The axes to draw on, one per plot; None creates a new figure.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        TrainingHistoryDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the estimator has no history, or if `ax` does not contain one axes per
            plot.
        """
        trained = _trained_estimator(estimator)
        history = list(trained.history_)
        names = trained.task_names_
        tasks = {name: f"valid_auc_{name}" for name in names}
        log_loss = f"valid_log_loss_{'mean' if len(names) > 1 else names[0]}"
        display = cls(
            epochs=np.array([row["epoch"] for row in history]),
            losses=_columns(history, {**LOSS_COLUMNS, "validation log loss": log_loss}),
            aucs=_columns(history, tasks),
            mean_auc=_columns(history, {"mean": "valid_auc_mean"}).get("mean"),
            best_epoch=trained.best_epoch_,
        )
        return display.plot(ax, **kwargs)

    def plot(self, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the losses and, with validation rows, the AUC.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of Axes, default=None
            The axes to draw on, one per plot; None creates a new figure.
        **kwargs : dict
            Properties of all curves, passed to matplotlib's `plot`.

        Returns
        -------
        TrainingHistoryDisplay
            The display.

        Raises
        ------
        ValueError
            If `ax` does not contain one axes per plot.
        """
        black = {"color": "black"}
        # Name, values and style of the curves.
        losses = [
            (name, values, {**black, "linestyle": line})
            for line, (name, values) in zip(
                LINE_STYLES, self.losses.items(), strict=False
            )
        ]
        aucs = [
            (name, values, {"color": _displays.task_color(k)})
            for k, (name, values) in enumerate(self.aucs.items())
        ]
        if self.mean_auc is not None:
            aucs.append(("mean", self.mean_auc, {**black, "linestyle": "--"}))
        plots = {"Loss": losses}
        if aucs:
            plots["Validation AUC"] = aucs
        self.axes_ = _displays.row_of_axes(ax, len(plots), "TrainingHistoryDisplay")
        from matplotlib.ticker import MaxNLocator

        self.lines_ = []
        for axes, (label, curves) in zip(self.axes_, plots.items(), strict=True):
            lines = []
            for name, values, curve_style in curves:
                properties = _displays.style(
                    kwargs, **curve_style, marker=".", label=name
                )
                lines += axes.plot(self.epochs, values, **properties)
            if self.best_epoch is not None:
                axes.axvline(
                    self.best_epoch, **_displays.REFERENCE, label="weights kept"
                )
            axes.set(xlabel="Epoch", ylabel=label)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            # Above the axes, which curves may fill from edge to edge.
            axes.legend(
                loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False
            )
            self.lines_.append(lines)
        self.figure_ = self.axes_[0].figure
        return self


def _trained_estimator(estimator: Any) -> Any:
    """Return the estimator with a history, also from inside a pipeline or a search."""
    check_is_fitted(estimator)
    for layer in nested_estimators(estimator):
        if hasattr(layer, "history_"):
            return layer
    raise ValueError(f"estimator must have the attribute history_, got {estimator!r}.")


def _columns(
    history: Sequence[Mapping[str, Any]], keys: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """Return columns of the history that have values, NaN in epochs without one."""
    return {
        name: np.array([row.get(key, np.nan) for row in history], dtype=float)
        for name, key in keys.items()
        if any(key in row for row in history)
    }


@dataclass(kw_only=True, repr=False, eq=False)
class WeightSearchDisplay:
    """Cross-validated scores by `pwiser_weight`, with standard errors.

    `from_search` creates the display, with one plot per scorer. A vertical line marks
    the value that the search has selected. A weight of 0, which is plain cross-entropy,
    is drawn at the left of a logarithmic axis.

    Parameters
    ----------
    param_name : str
        Name of the parameter.
    values : ndarray of shape (n_values,)
        Values of the parameter, in increasing order.
    scores, standard_errors : dict of str to ndarray of shape (n_values,)
        Mean score over the folds and its standard error, by scorer.
    best_value : float, default=None
        The selected value.
    task_names : list of str, default=()
        Names of the tasks. A scorer named after a task has the colour of the task.

    Attributes
    ----------
    containers_ : list of matplotlib ErrorbarContainer
        The scores, one per scorer.
    axes_ : ndarray of matplotlib Axes
        The axes, one per scorer.
    figure_ : matplotlib Figure
        The figure.

    See Also
    --------
    sk_pwiser.model_selection.compare_models : Computes differences to a baseline on the
        same folds, which are more precise than these scores.

    Notes
    -----
    The standard errors of a search are those of
    :class:`~sk_pwiser.model_selection.ModelComparison`, which are larger than those of
    independent folds, since folds share training rows. `cv` is taken to be a K-fold. A
    difference between two weights can be significant even if their intervals overlap,
    since a fold that is hard for one weight is usually hard for all.

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.inspection import WeightSearchDisplay
    >>> from sk_pwiser.metrics import ctcvr_auc_scorer, ctr_auc_scorer
    >>> data = make_ctr_cvr(2_000, ctr=0.3, cvr=0.3, random_state=0)
    >>> search = GridSearchCV(
    ...     MultiTaskCTRCVRClassifier(max_epochs=1, random_state=0),
    ...     {"pwiser_weight": [0, 0.3, 3]},
    ...     scoring={"click": ctr_auc_scorer, "conversion": ctcvr_auc_scorer},
    ...     refit="conversion",
    ...     cv=2,
    ... )
    >>> display = WeightSearchDisplay.from_search(search.fit(data.data, data.target))
    >>> display.values.tolist(), list(display.scores)
    ([0.0, 0.3, 3.0], ['click', 'conversion'])
    """

    param_name: str
    values: np.ndarray
    scores: dict[str, np.ndarray]
    standard_errors: dict[str, np.ndarray]
    best_value: float | None = None
    task_names: Sequence[str] = ()

    @classmethod
    def from_search(
        cls, search: Any, *, param: str = "pwiser_weight", ax: Any = None, **kwargs: Any
    ) -> Self:
        """Draw the scores of a fitted search.

        Parameters
        ----------
        search : estimator object
            A fitted :class:`~sklearn.model_selection.GridSearchCV` or similar. If the
            search has several parameters, only candidates with the selected values of
            the other parameters are drawn.
        param : str, default="pwiser_weight"
            A numeric parameter of the search. For a parameter inside a pipeline, such
            as "classifier__pwiser_weight", the last part of the name is enough.
            Candidates with the value None are left out.
        ax : matplotlib Axes or array-like of Axes, default=None
            The axes to draw on, one per scorer; None creates a new figure.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        WeightSearchDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the search has no such parameter, if the parameter is not numeric, or if
            the search has several parameters and `refit=False`.
        sklearn.exceptions.NotFittedError
            If the search is not fitted.
        ImportError
            If matplotlib is not installed.
        """
        check_is_fitted(search, "cv_results_")
        results = search.cv_results_
        param_names = [
            key.removeprefix("param_") for key in results if key.startswith("param_")
        ]
        if param in param_names:
            param_name = param
        else:
            paths = find_paths(param_names, param)
            if len(paths) != 1:
                raise ValueError(f"param must be one of {param_names}, got {param!r}.")
            (param_name,) = paths
        best = getattr(search, "best_index_", None)
        rows, values = _slice(results, param_name, best)
        scores = {}
        errors = {}
        for key in results:
            name = key.removeprefix("mean_test_")
            if name != key:
                scores[name] = np.asarray(results[key])[rows]
                errors[name] = _standard_errors(results, name, search.n_splits_)[rows]
        display = cls(
            param_name=param_name.rpartition("__")[2],
            values=values,
            scores=scores,
            standard_errors=errors,
            best_value=None if best is None else results["params"][best][param_name],
            task_names=Predictions(search, None, {}).task_names(),
        )
        return display.plot(ax, **kwargs)

    def plot(self, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the scores.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of Axes, default=None
            The axes to draw on, one per scorer; None creates a new figure.
        **kwargs : dict
            Properties of all curves, passed to matplotlib's `errorbar`.

        Returns
        -------
        WeightSearchDisplay
            The display.

        Raises
        ------
        ValueError
            If `ax` does not contain one axes per scorer.
        """
        self.axes_ = _displays.row_of_axes(ax, len(self.scores), "WeightSearchDisplay")
        self.containers_ = []
        order = list(dict.fromkeys([*self.task_names, *self.scores]))
        for axes, (name, scores) in zip(self.axes_, self.scores.items(), strict=True):
            properties = _displays.style(
                kwargs, color=_displays.task_color(order.index(name)), marker="o"
            )
            properties.setdefault("capsize", 3)  # of the error bars, not of the line
            container = axes.errorbar(
                self.values, scores, self.standard_errors[name], **properties
            )
            self.containers_.append(container)
            if self.best_value is not None:
                axes.axvline(self.best_value, **_displays.REFERENCE)
            axes.set(title=name, xlabel=self.param_name, ylabel="Score")
            _set_scale(axes, self.values)
        self.figure_ = self.axes_[0].figure
        return self


def _standard_errors(
    results: Mapping[str, Any], name: str, n_splits: int
) -> np.ndarray:
    """Return the standard error of the mean score of each candidate of a search."""
    folds = np.array([results[f"split{k}_test_{name}"] for k in range(n_splits)])
    if n_splits == 1:
        return np.full(folds.shape[1], np.nan)
    # Nadeau and Bengio (2003), section 4.1: training sets overlap. A K-fold has
    # 1 / (K - 1) test rows per training row.
    factor = 1 / n_splits + 1 / (n_splits - 1)
    return np.sqrt(factor * folds.var(axis=0, ddof=1))


def _slice(
    results: Mapping[str, Any], param_name: str, best: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return candidates that differ from the best in one parameter, and its values."""
    candidates = results["params"]
    # Successive halving repeats candidates with more resources, such as rows or epochs.
    resources = results.get("n_resources", [None] * len(candidates))
    # What candidates of a slice have in common.
    remainders = [
        (
            {name: value for name, value in params.items() if name != param_name},
            resource,
        )
        for params, resource in zip(candidates, resources, strict=True)
    ]
    if best is None and any(remainder != remainders[0] for remainder in remainders):
        raise ValueError(
            "search must select a candidate if it has several parameters; set refit."
        )
    if best is not None and param_name not in candidates[best]:
        raise ValueError(
            f"param={param_name!r} is not among the parameters of the best candidate, "
            f"{candidates[best]}, from which the others must differ in it alone: "
            "search it in a grid of its own."
        )
    reference = remainders[0 if best is None else best]
    rows = [
        i
        for i, params in enumerate(candidates)
        # None is the estimator's own choice, which has no place on the axis.
        if params.get(param_name) is not None and remainders[i] == reference
    ]
    values = [candidates[i][param_name] for i in rows]
    are_numbers = all(
        isinstance(value, Real) and not isinstance(value, bool) for value in values
    )
    if not rows or not are_numbers:
        raise ValueError(
            f"param must be numeric, but the values of {param_name!r} that are not "
            f"None are {values}."
        )
    order = np.argsort(values, kind="stable")
    return np.array(rows)[order], np.array(values, dtype=float)[order]


def _set_scale(ax: Any, values: np.ndarray) -> None:
    """Choose a scale that separates all values, and put the ticks at the values."""
    from matplotlib.ticker import NullLocator

    positive = values[values > 0]
    if len(positive) and positive[-1] >= WIDE_RANGE * positive[0] and values[0] >= 0:
        if len(positive) == len(values):
            ax.set_xscale("log")
        else:
            ax.set_xscale("symlog", linthresh=positive[0], linscale=0.5)
            ax.set_xlim(left=-0.3 * positive[0])
        ax.set_xlim(right=1.4 * positive[-1])
    step = ceil_div(len(values), MAX_TICKS)
    ticks = values[::step]
    ax.set_xticks(ticks, [f"{value:g}" for value in ticks])
    ax.xaxis.set_minor_locator(NullLocator())

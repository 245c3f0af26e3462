"""ROC, precision-recall and reliability curves of all tasks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.stats import beta
from sklearn import metrics

from sk_pwiser.inspection import _displays
from sk_pwiser.metrics import reliability_curve

# Coverage of the confidence intervals of the observed rates.
COVERAGE = 0.95


class TaskCurvesDisplay:
    """Base class of displays with one curve per task and model.

    A subclass is a dataclass with `task_names`, `model_names` and the parameters of the
    curves, and defines `plot` and `_compute`, which takes the keywords of
    `_curve_options` and returns the parameters of one curve, NaN or empty if the curve
    is undefined.
    """

    _curve_name: str
    _curve_options: tuple[str, ...] = ()
    _compute: Callable[..., dict[str, Any]]
    plot: Callable[..., Any]
    task_names: list[str]
    model_names: list[str | None] | None

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        Y: Any,
        *,
        sample_weight: npt.ArrayLike | None = None,
        cvr: bool = False,
        by: Any = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the curves of the predictions of fitted estimators.

        Parameters
        ----------
        estimator : estimator object or dict
            A fitted estimator of several tasks, also inside a pipeline or a search, or
            a dict from names to estimators; each of these has its own line style.
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Impressions.
        Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            Labels, 0 or 1.
        sample_weight : array-like of shape (n_samples,) or (n_samples, n_tasks), \
                default=None
            Weights of the rows, or of each row and task.
        cvr : bool, default=False
            Whether to add a curve of P(last task | first task) where the first is 1.
        by : str or int, default=None
            A column of `X`, such as the market. Each of its values, at most 8, has its
            own curves and line style. Rows without a value are left out.
        ax : matplotlib Axes, default=None
            The axes to draw on; None creates a new figure.
        **kwargs : dict
            Options of the curves, if the class has any, and parameters of `plot`.

        Returns
        -------
        display : object of this class
            The display, drawn.

        Raises
        ------
        ValueError
            If labels or weights are invalid or do not match the tasks, or if `by` is
            no column or has more than 8 values.

        Warns
        -----
        UndefinedMetricWarning
            If a task has only one class. Its curve is empty.
        """
        models = _displays.by_name(estimator, "estimator")
        rows = _displays.read_models(
            models, X, Y, cvr=cvr, sample_weight=sample_weight, by=by
        )
        return cls._draw(rows, ax, kwargs)

    @classmethod
    def from_predictions(
        cls,
        Y: Any,
        P: Any,
        *,
        task_names: Sequence[str] | None = None,
        sample_weight: npt.ArrayLike | None = None,
        cvr: bool = False,
        by: Any = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the curves of predicted probabilities.

        Parameters
        ----------
        Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            Labels, 0 or 1. They may be missing.
        P : array-like of shape (n_samples, n_tasks) or (n_samples,), list or dict
            Probabilities over impressions as `predict_proba` returns them: an array, a
            list of arrays (n_samples, 2), or a dict of these by model.
        task_names : list of str, default=None
            Names of the tasks; by default the column names of `Y`.
        sample_weight : array-like of shape (n_samples,) or (n_samples, n_tasks), \
                default=None
            Weights of the rows, or of each row and task.
        cvr : bool, default=False
            Whether to add a curve of P(last task | first task), the ratio of the
            probabilities, over the rows in which the first task is 1.
        by : array-like of shape (n_samples,), default=None
            A value per row, such as its market. Each value, at most 8, has its own
            curves and line style. Rows without a value are left out.
        ax : matplotlib Axes, default=None
            The axes to draw on; None creates a new figure.
        **kwargs : dict
            Options of the curves, if the class has any, and parameters of `plot`.

        Returns
        -------
        display : object of this class
            The display, drawn.

        Raises
        ------
        ValueError
            If labels, probabilities, names or weights are invalid or do not match, or
            if `by` has more than 8 values.

        Warns
        -----
        UndefinedMetricWarning
            If a task has only one class. Its curve is empty.
        """
        models = {
            name: _displays.GivenPredictions(p)
            for name, p in _displays.by_name(P, "P").items()
        }
        rows = _displays.read_models(
            models,
            None,
            Y,
            cvr=cvr,
            sample_weight=sample_weight,
            by=by,
            task_names=task_names,
        )
        return cls._draw(rows, ax, kwargs)

    @classmethod
    def from_cv_results(
        cls,
        cv_results: Mapping[str, Any],
        X: Any,
        Y: Any,
        *,
        sample_weight: npt.ArrayLike | None = None,
        cvr: bool = False,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the curves of each test fold of a cross-validation.

        All curves of a task have its colour and one entry in the legend. Scores in it
        are the mean and the standard deviation over the folds.

        Parameters
        ----------
        cv_results : dict
            What :func:`~sklearn.model_selection.cross_validate` returns with
            `return_estimator=True` and `return_indices=True`.
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Impressions, as passed to `cross_validate`.
        Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            Labels, as passed to `cross_validate`.
        sample_weight : array-like of shape (n_samples,) or (n_samples, n_tasks), \
                default=None
            Weights of the rows, or of each row and task.
        cvr : bool, default=False
            Whether to add curves of P(last task | first task) over the rows in which
            the first task is 1.
        ax : matplotlib Axes, default=None
            The axes to draw on; None creates a new figure.
        **kwargs : dict
            Options of the curves, if the class has any, and parameters of `plot`.

        Returns
        -------
        display : object of this class
            The display, drawn. Its lists have all tasks of the first fold, then those
            of the second one, and so on.

        Raises
        ------
        ValueError
            If `cv_results` has no estimators or indices, or belongs to other rows; if
            labels or weights are invalid or do not match the tasks of the estimators.

        Warns
        -----
        UndefinedMetricWarning
            If a task has only one class in a fold. Its curve is empty.
        """
        rows = _displays.read_folds(cv_results, X, Y, cvr, sample_weight)
        return cls._draw(rows, ax, kwargs)

    @classmethod
    def _draw(
        cls, rows: Sequence[_displays.TaskRows], ax: Any, kwargs: dict[str, Any]
    ) -> Self:
        _displays.warn_about_one_class(rows, cls._curve_name)
        options = {
            name: kwargs.pop(name) for name in cls._curve_options if name in kwargs
        }
        curves = [cls._compute(task_rows, **options) for task_rows in rows]
        columns: dict[str, list[Any]] = {
            name: [curve[name] for curve in curves] for name in curves[0]
        }
        columns["task_names"] = [task_rows.task for task_rows in rows]
        columns["model_names"] = [task_rows.model for task_rows in rows]
        display = cls(**columns)
        return display.plot(ax, **kwargs)

    def _draw_curves(
        self,
        ax: Any,
        *,
        xs: Sequence[np.ndarray],
        ys: Sequence[np.ndarray],
        scores: Sequence[float],
        form: str,
        kwargs: dict[str, Any],
        **fixed: Any,
    ) -> list[dict[str, Any]]:
        """Draw lines without markers, with scores in the legend; return the styles."""
        styles = _displays.curve_styles(self.task_names, self.model_names, scores, form)
        self.lines_ = []
        for x, y, curve_style in zip(xs, ys, styles, strict=True):
            properties = {**curve_style, "marker": "", **fixed}
            self.lines_ += ax.plot(x, y, **_displays.style(kwargs, **properties))
        return styles


@dataclass(kw_only=True, repr=False, eq=False)
class TaskRocCurveDisplay(TaskCurvesDisplay):
    """ROC curves, one per task, with the AUC in the legend.

    `from_estimator`, `from_predictions` and `from_cv_results` create the display.

    Parameters
    ----------
    fpr, tpr : list of ndarray
        False and true positive rates of each curve, as returned by
        :func:`sklearn.metrics.roc_curve`.
    roc_auc : list of float
        Area under each curve.
    task_names : list of str
        Task of each curve.
    model_names : list of str, default=None
        Model of each curve, if there are several.

    Attributes
    ----------
    lines_ : list of matplotlib Line2D
        The curves.
    chance_level_ : matplotlib Line2D or None
        The diagonal, if it is drawn.
    ax_, figure_ : matplotlib Axes and Figure
        The axes and their figure.

    See Also
    --------
    sklearn.metrics.RocCurveDisplay : The curve of a single task.
    TaskPrecisionRecallDisplay : Shows more if positives are rare.

    Examples
    --------
    >>> from sk_pwiser.inspection import TaskRocCurveDisplay
    >>> Y = [[0, 0], [0, 0], [1, 0], [1, 0], [1, 1], [1, 1]]
    >>> P = [[0.2, 0.0], [0.5, 0.1], [0.4, 0.2], [0.6, 0.1], [0.7, 0.3], [0.8, 0.2]]
    >>> display = TaskRocCurveDisplay.from_predictions(
    ...     Y, P, task_names=["click", "conversion"], cvr=True
    ... )
    >>> display.task_names
    ['click', 'conversion', 'conversion | click']
    >>> display.roc_auc
    [0.875, 0.9375, 0.5]
    """

    _curve_name = "The ROC curve"

    fpr: list[np.ndarray]
    tpr: list[np.ndarray]
    roc_auc: list[float]
    task_names: list[str]
    model_names: list[str | None] | None = None

    @staticmethod
    def _compute(rows: _displays.TaskRows) -> dict[str, Any]:
        if not rows.has_both_classes:
            return {"fpr": np.empty(0), "tpr": np.empty(0), "roc_auc": np.nan}
        fpr, tpr, _ = metrics.roc_curve(rows.y, rows.p, sample_weight=rows.weight)
        return {"fpr": fpr, "tpr": tpr, "roc_auc": float(metrics.auc(fpr, tpr))}

    def plot(
        self, ax: Any = None, *, plot_chance_level: bool = True, **kwargs: Any
    ) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            The axes to draw on; None creates a new figure.
        plot_chance_level : bool, default=True
            Whether to draw the diagonal, the curve of a random ranking.
        **kwargs : dict
            Properties of all curves, passed to matplotlib's `plot`.

        Returns
        -------
        TaskRocCurveDisplay
            The display.
        """
        ax = _displays.axes_or_new(ax, "TaskRocCurveDisplay")
        self._draw_curves(
            ax,
            xs=self.fpr,
            ys=self.tpr,
            scores=self.roc_auc,
            form="AUC = {:.3f}",
            kwargs=kwargs,
        )
        self.chance_level_ = None
        if plot_chance_level:
            (self.chance_level_,) = ax.plot(
                [0, 1], [0, 1], label="chance", **_displays.REFERENCE
            )
        ax.set(
            xlabel="False positive rate",
            ylabel="True positive rate",
            xlim=(-0.01, 1.01),
            ylim=(-0.01, 1.01),
            aspect="equal",
        )
        ax.legend(loc="lower right")
        self.ax_ = ax
        self.figure_ = ax.figure
        return self


@dataclass(kw_only=True, repr=False, eq=False)
class TaskPrecisionRecallDisplay(TaskCurvesDisplay):
    """Precision-recall curves, one per task, with the average precision in the legend.

    `from_estimator`, `from_predictions` and `from_cv_results` create the display. The
    dotted lines are the base rates, which are the precision of a random ranking.

    Parameters
    ----------
    precision, recall : list of ndarray
        Precision and recall of each curve, as returned by
        :func:`sklearn.metrics.precision_recall_curve`.
    average_precision : list of float
        Average precision of each curve.
    base_rates : list of float
        Observed rate of each curve over all its rows.
    task_names : list of str
        Task of each curve.
    model_names : list of str, default=None
        Model of each curve, if there are several.

    Attributes
    ----------
    lines_ : list of matplotlib Line2D
        The curves.
    chance_levels_ : list of matplotlib Line2D
        The base rates, one line per task and value of `by`.
    ax_, figure_ : matplotlib Axes and Figure
        The axes and their figure.

    See Also
    --------
    sklearn.metrics.PrecisionRecallDisplay : The curve of a single task.
    TaskRocCurveDisplay : Curves that do not depend on the base rates.

    Examples
    --------
    >>> from sk_pwiser.inspection import TaskPrecisionRecallDisplay
    >>> Y = [[0, 0], [0, 0], [1, 0], [1, 0], [1, 1], [1, 1]]
    >>> P = [[0.2, 0.0], [0.5, 0.1], [0.4, 0.2], [0.6, 0.1], [0.7, 0.3], [0.8, 0.2]]
    >>> display = TaskPrecisionRecallDisplay.from_predictions(Y, P)
    >>> display.task_names, len(display.lines_)
    (['task 0', 'task 1'], 2)
    """

    _curve_name = "The precision-recall curve"

    precision: list[np.ndarray]
    recall: list[np.ndarray]
    average_precision: list[float]
    base_rates: list[float]
    task_names: list[str]
    model_names: list[str | None] | None = None

    @staticmethod
    def _compute(rows: _displays.TaskRows) -> dict[str, Any]:
        if not rows.has_both_classes:
            return {
                "precision": np.empty(0),
                "recall": np.empty(0),
                "average_precision": np.nan,
                "base_rates": rows.base_rate,
            }
        precision, recall, _ = metrics.precision_recall_curve(
            rows.y, rows.p, sample_weight=rows.weight, drop_intermediate=True
        )
        average_precision = metrics.average_precision_score(
            rows.y, rows.p, sample_weight=rows.weight
        )
        return {
            "precision": precision,
            "recall": recall,
            "average_precision": float(average_precision),
            "base_rates": rows.base_rate,
        }

    def plot(
        self, ax: Any = None, *, plot_chance_level: bool = True, **kwargs: Any
    ) -> Self:
        """Draw the curves; the y axis is logarithmic if a base rate is below 10 %.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            The axes to draw on; None creates a new figure.
        plot_chance_level : bool, default=True
            Whether to draw the base rates.
        **kwargs : dict
            Properties of all curves, passed to matplotlib's `plot`.

        Returns
        -------
        TaskPrecisionRecallDisplay
            The display.
        """
        ax = _displays.axes_or_new(ax, "TaskPrecisionRecallDisplay")
        styles = self._draw_curves(
            ax,
            xs=self.recall,
            ys=self.precision,
            scores=self.average_precision,
            form="AP = {:.3g}",
            kwargs=kwargs,
            drawstyle="steps-post",
        )
        self.chance_levels_ = []
        if plot_chance_level:
            self.chance_levels_ = self._plot_base_rates(ax, styles)
        ax.set(xlabel="Recall", ylabel="Precision", xlim=(-0.01, 1.01))
        if _displays.is_log(self.base_rates):
            low = min(rate for rate in self.base_rates if rate > 0) / 1.5
            # First the limits: a log axis warns if no data are above 0.
            ax.set_ylim(low, 1.1)
            _displays.set_log_axis(ax.yaxis, low, 1.0)
        else:
            ax.set_ylim(-0.01, 1.01)
        ax.legend(loc="best")
        self.ax_ = ax
        self.figure_ = ax.figure
        return self

    def _plot_base_rates(
        self, ax: Any, styles: Sequence[Mapping[str, Any]]
    ) -> list[Any]:
        """Draw the rate of each task over folds, once for models of the same rows."""
        rates_of_curve: dict[tuple[str, str, Any], list[float]] = {}
        for task, curve_style, rate in zip(
            self.task_names, styles, self.base_rates, strict=True
        ):
            curve = (task, curve_style["color"], curve_style["linestyle"])
            rates_of_curve.setdefault(curve, []).append(rate)
        # Equal ones are drawn once.
        levels = dict.fromkeys(
            (task, color, np.mean(fold_rates))
            for (task, color, _), fold_rates in rates_of_curve.items()
        )
        dotted = {**_displays.REFERENCE, "linewidth": 1}
        ax.plot([], [], label="base rates", **dotted)
        return [
            ax.plot([0, 1], [rate] * 2, **{**dotted, "color": color})[0]
            for _, color, rate in levels
        ]


@dataclass(kw_only=True, repr=False, eq=False)
class TaskCalibrationDisplay(TaskCurvesDisplay):
    """Reliability curves: observed against predicted rates, one curve per task.

    `from_estimator`, `from_predictions` and `from_cv_results` create the display; they
    also take `n_bins` of :func:`~sk_pwiser.metrics.reliability_curve`, by default 10.
    The vertical lines are 95 % confidence intervals of the observed rates by Clopper
    and Pearson: a curve that crosses the diagonal within them may still be calibrated.

    Parameters
    ----------
    curves : list of Bunch
        Predicted and observed rates of each curve, as returned by
        :func:`~sk_pwiser.metrics.reliability_curve`.
    base_rates : list of float
        Observed rate of each curve over all its rows.
    task_names : list of str
        Task of each curve.
    model_names : list of str, default=None
        Model of each curve, if there are several.

    Attributes
    ----------
    lines_ : list of matplotlib Line2D
        The curves.
    intervals_ : list of matplotlib LineCollection
        The confidence intervals; empty if they are not drawn.
    ax_, figure_ : matplotlib Axes and Figure
        The axes and their figure.

    See Also
    --------
    sklearn.calibration.CalibrationDisplay : The curve of a single task.
    sk_pwiser.calibration.FunnelCalibrator : Calibrates the tasks of a funnel.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.inspection import TaskCalibrationDisplay
    >>> log = make_ctr_cvr(3_000, ctr=0.3, random_state=0)
    >>> P = np.column_stack([log.ctr, log.ctr * log.cvr])
    >>> display = TaskCalibrationDisplay.from_predictions(
    ...     log.target, {"true": P, "too low": P / 2}, n_bins=5
    ... )
    >>> display.model_names
    ['true', 'true', 'too low', 'too low']
    """

    _curve_name = "The reliability curve"
    _curve_options = ("n_bins",)

    curves: list[Any]
    base_rates: list[float]
    task_names: list[str]
    model_names: list[str | None] | None = None

    @staticmethod
    def _compute(rows: _displays.TaskRows, n_bins: int = 10) -> dict[str, Any]:
        if rows.has_both_classes:
            curve = reliability_curve(
                rows.y, rows.p, n_bins=n_bins, sample_weight=rows.weight
            )
        else:
            # That of one row has the right fields, which are emptied.
            curve = reliability_curve([0], [0], n_bins=n_bins, sample_weight=[1])
            curve.update({key: values[:0] for key, values in curve.items()})
        return {"curves": curve, "base_rates": rows.base_rate}

    def plot(
        self,
        ax: Any = None,
        *,
        ref_line: bool = True,
        intervals: bool = True,
        **kwargs: Any,
    ) -> Self:
        """Draw the curves; both axes are logarithmic if a base rate is below 10 %.

        On a logarithmic axis a bin without positives has an interval but no point.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            The axes to draw on; None creates a new figure.
        ref_line : bool, default=True
            Whether to draw the diagonal, the curve of calibrated probabilities.
        intervals : bool, default=True
            Whether to draw confidence intervals of the observed rates.
        **kwargs : dict
            Properties of all curves, passed to matplotlib's `plot`.

        Returns
        -------
        TaskCalibrationDisplay
            The display.
        """
        logarithmic = _displays.is_log(self.base_rates)
        ax = _displays.axes_or_new(ax, "TaskCalibrationDisplay")
        low, high = self._limits(logarithmic)
        if ax.has_data():  # keep the points of an earlier display visible
            present_low, present_high = ax.get_xlim()
            low = min(low, present_low)
            high = max(high, present_high)
        if ref_line:
            diagonal = [low, high]
            ax.plot(diagonal, diagonal, label="calibrated", **_displays.REFERENCE)
        self.lines_ = []
        self.intervals_ = []
        styles = _displays.curve_styles(self.task_names, self.model_names)
        for curve, curve_style in zip(self.curves, styles, strict=True):
            properties = _displays.style(kwargs, **curve_style, markersize=4)
            self.lines_ += ax.plot(curve.predicted, curve.observed, **properties)
            if intervals:
                # Clipped: 0 has no place on a logarithmic axis.
                bottoms, tops = np.clip(_intervals(curve), low, high)
                lines = ax.vlines(
                    curve.predicted,
                    bottoms,
                    tops,
                    color=properties["color"],
                    alpha=0.4,
                    lw=1,
                )
                self.intervals_.append(lines)
        if logarithmic:
            for axis in (ax.xaxis, ax.yaxis):
                _displays.set_log_axis(axis, low, high)
        ax.set(
            xlabel="Mean predicted probability",
            ylabel="Observed rate",
            xlim=(low, high),
            ylim=(low, high),
            aspect="equal",
        )
        ax.legend(loc="best")
        self.ax_ = ax
        self.figure_ = ax.figure
        return self

    def _limits(self, logarithmic: bool) -> tuple[float, float]:
        """Return the limits of both axes, so that all points are visible."""
        points = [np.r_[curve.predicted, curve.observed] for curve in self.curves]
        rates = np.concatenate(points)
        rates = rates[rates > 0]
        if len(rates) == 0:
            return 0.0, 1.0
        if logarithmic:
            return rates.min() / 1.5, min(rates.max() * 1.5, 1.0)
        return 0.0, min(rates.max() * 1.1, 1.0)


def _intervals(curve: Any) -> np.ndarray:
    """Return the ends of the confidence intervals, of shape (2, n_bins)."""
    tail = (1 - COVERAGE) / 2
    # Clopper and Pearson's interval, by quantiles of beta distributions, for the
    # effective numbers of events and rows.
    n = curve.n_effective
    k = curve.observed * n
    # With no positives or no negatives, the interval ends at 0 or 1, where the beta
    # distribution has no quantile.
    low = np.nan_to_num(beta.ppf(tail, k, n - k + 1), nan=0.0)
    high = np.nan_to_num(beta.ppf(1 - tail, k + 1, n - k), nan=1.0)
    return np.stack([low, high])

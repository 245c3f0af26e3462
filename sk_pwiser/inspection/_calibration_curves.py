"""The display of calibration: reliability curves of all tasks."""

import numpy as np
from scipy.stats import beta

from sk_pwiser.inspection._axes import (
    DOTTED,
    GREY,
    axes_or_new,
    curve_styles,
    is_log,
    set_log_axis,
    style,
)
from sk_pwiser.inspection._ranking_curves import TaskCurvesDisplay
from sk_pwiser.metrics import reliability_curve

# Coverage of the confidence intervals of the observed rates.
COVERAGE = 0.95


class TaskCalibrationDisplay(TaskCurvesDisplay):
    """Reliability curves: observed against predicted rates, one curve per task.

    `from_estimator`, `from_predictions` and `from_cv_results` create the display; they
    also take `n_bins`, by default 10, and `strategy` of
    :func:`~sk_pwiser.metrics.reliability_curve`. The vertical lines are 95 % confidence
    intervals of the observed rates by Clopper and Pearson: a curve that crosses the
    diagonal within them may still be calibrated.

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
    _curve_options = ("n_bins", "strategy")

    def __init__(self, *, curves, base_rates, task_names, model_names=None):
        self.curves = curves
        self.base_rates = base_rates
        self.task_names = task_names
        self.model_names = model_names

    @staticmethod
    def _compute(rows, n_bins=10, strategy="quantile"):
        # One row in place of one class: the curve then has the right fields, which are
        # emptied.
        given = rows.y, rows.p, rows.weight
        y, p, weight = given if rows.has_both_classes else ([0], [0], None)
        curve = reliability_curve(
            y, p, n_bins=n_bins, strategy=strategy, sample_weight=weight
        )
        if not rows.has_both_classes:
            curve.update({key: values[:0] for key, values in curve.items()})
        return {"curves": curve, "base_rates": rows.base_rate}

    def plot(self, ax=None, *, ref_line=True, intervals=True, scale="auto", **kwargs):
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            The axes to draw on; None creates a new figure.
        ref_line : bool, default=True
            Whether to draw the diagonal, the curve of calibrated probabilities.
        intervals : bool, default=True
            Whether to draw confidence intervals of the observed rates.
        scale : {"auto", "linear", "log"}, default="auto"
            Scale of both axes. "auto" is "log" if a base rate is below 10 %. On a
            logarithmic scale a bin without positives has an interval but no point.
        **kwargs : dict
            Properties of all curves, passed to matplotlib's `plot`.

        Returns
        -------
        TaskCalibrationDisplay
            The display.
        """
        logarithmic = is_log(scale, self.base_rates)
        ax = axes_or_new(ax, "TaskCalibrationDisplay")
        low, high = self._limits(logarithmic)
        if ax.has_data():  # keep the points of an earlier display visible
            low, high = min(low, ax.get_xlim()[0]), max(high, ax.get_xlim()[1])
        if ref_line:
            ends = [low, high]
            ax.plot(ends, ends, color=GREY, linestyle=DOTTED, label="calibrated")
        self.lines_, self.intervals_ = [], []
        styles = curve_styles(self.task_names, self.model_names)
        for curve, own_style in zip(self.curves, styles, strict=True):
            properties = style(kwargs, **own_style, markersize=4)
            self.lines_ += ax.plot(curve.predicted, curve.observed, **properties)
            if intervals:
                # Clipped: 0 has no place on a logarithmic axis.
                ends = np.clip(_intervals(curve), low, high)
                color = properties["color"]
                self.intervals_.append(
                    ax.vlines(curve.predicted, *ends, color=color, alpha=0.4, lw=1)
                )
        if logarithmic:
            for axis in (ax.xaxis, ax.yaxis):
                set_log_axis(axis, low, high)
        ax.set(
            xlabel="Mean predicted probability",
            ylabel="Observed rate",
            xlim=(low, high),
            ylim=(low, high),
            aspect="equal",
        )
        ax.legend(loc="best")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _limits(self, logarithmic):
        """Return the limits of both axes, so that all points are visible."""
        points = [(curve.predicted, curve.observed) for curve in self.curves]
        rates = np.concatenate([np.ravel(both) for both in points])
        rates = rates[rates > 0]
        if len(rates) == 0:
            return (0.001, 1.0) if logarithmic else (0.0, 1.0)
        if logarithmic:
            return rates.min() / 1.5, min(rates.max() * 1.5, 1.0)
        return 0.0, min(rates.max() * 1.1, 1.0)


def _intervals(curve):
    """Return the ends of the confidence intervals, of shape (2, n_bins)."""
    tail, n = (1 - COVERAGE) / 2, curve.n_effective
    # Clopper and Pearson's interval, by quantiles of beta distributions, for the
    # effective numbers of events and rows.
    k = curve.observed * n
    # With no positives or no negatives, the interval ends at 0 or 1, where the beta
    # distribution has no quantile.
    low = np.nan_to_num(beta.ppf(tail, k, n - k + 1), nan=0.0)
    high = np.nan_to_num(beta.ppf(1 - tail, k + 1, n - k), nan=1.0)
    return np.stack([low, high])

"""Precision-recall curves of all tasks."""

import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_curve

from sk_pwiser.inspection._axes import (
    DOTTED,
    GREY,
    axes_or_new,
    curve_label,
    is_log,
    looks_of_curves,
    set_log_axis,
    style,
)
from sk_pwiser.inspection._task_curves import TaskCurvesDisplay
from sk_pwiser.inspection._task_rows import warn_about_one_class


class TaskPrecisionRecallDisplay(TaskCurvesDisplay):
    """Precision-recall curves, one per task, with their average precision.

    `from_estimator` and `from_predictions` create the display. A task has the same
    colour in all displays. The dotted lines are the base rates: the precision of a
    ranking by chance.

    Parameters
    ----------
    precision, recall : list of ndarray
        Precision and recall of each curve, as
        :func:`sklearn.metrics.precision_recall_curve` returns them.
    average_precision : list of float
        Average precision of each curve.
    base_rates : list of float
        Rate of the positives of each curve.
    task_names : list of str
        Task of each curve.
    model_names : list of str, default=None
        Model of each curve, if there are several.

    Attributes
    ----------
    lines_ : list of matplotlib Line2D
        The curves.
    chance_levels_ : list of matplotlib Line2D
        The base rates, one line per task.
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.

    See Also
    --------
    sklearn.metrics.PrecisionRecallDisplay : For one task.
    TaskRocCurveDisplay : Does not depend on the base rates.

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.inspection import TaskPrecisionRecallDisplay
    >>> data = make_ctr_cvr(2_000, ctr=0.3, random_state=0)
    >>> model = MultiTaskCTRCVRClassifier(max_epochs=3, random_state=0)
    >>> model.fit(data.data[:1000], data.target[:1000])
    MultiTaskCTRCVRClassifier(...)
    >>> display = TaskPrecisionRecallDisplay.from_estimator(
    ...     model, data.data[1000:], data.target[1000:]
    ... )
    >>> len(display.lines_), len(display.chance_levels_)
    (2, 2)
    """

    def __init__(
        self,
        *,
        precision,
        recall,
        average_precision,
        base_rates,
        task_names,
        model_names=None,
    ):
        self.precision = precision
        self.recall = recall
        self.average_precision = average_precision
        self.base_rates = base_rates
        self.task_names = task_names
        self.model_names = model_names

    @classmethod
    def _from_rows(cls, rows):
        warn_about_one_class(rows, "The precision-recall curve")
        curves = [_curve(each) for each in rows]
        return cls(
            precision=[precision for precision, _, _ in curves],
            recall=[recall for _, recall, _ in curves],
            average_precision=[average for _, _, average in curves],
            base_rates=[each.base_rate for each in rows],
            task_names=[each.task for each in rows],
            model_names=[each.model for each in rows],
        )

    def plot(self, ax=None, *, plot_chance_level=True, scale="auto", **kwargs):
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            The axes to draw on; None creates a new figure.
        plot_chance_level : bool, default=True
            Whether to draw the base rates.
        scale : {"auto", "linear", "log"}, default="auto"
            Scale of the precision. "auto" is "log" if a base rate is below 10 %.
        **kwargs : dict
            Properties of all curves, passed to matplotlib's `plot`.

        Returns
        -------
        TaskPrecisionRecallDisplay
            The display.
        """
        logarithmic = is_log(scale, self.base_rates)
        ax = axes_or_new(ax, "TaskPrecisionRecallDisplay")
        models = self.model_names or [None] * len(self.task_names)
        looks = looks_of_curves(self.task_names, models)
        self.lines_ = []
        for k, look in enumerate(looks):
            label = curve_label(
                self.task_names[k], models[k], f"AP = {self.average_precision[k]:.3g}"
            )
            look = {**look, "marker": "", "drawstyle": "steps-post", "label": label}
            self.lines_ += ax.plot(
                self.recall[k], self.precision[k], **style(kwargs, **look)
            )
        self.chance_levels_ = []
        if plot_chance_level:
            self.chance_levels_ = self._plot_base_rates(ax, looks)
        ax.set(xlabel="Recall", ylabel="Precision", xlim=(-0.01, 1.01))
        if logarithmic:
            low = min(rate for rate in self.base_rates if rate > 0) / 1.5
            set_log_axis(ax.yaxis, low, 1.0)
            ax.set_ylim(low, 1.1)
        else:
            ax.set_ylim(-0.01, 1.01)
        ax.legend(loc="best")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _plot_base_rates(self, ax, looks):
        """Draw one line per task; those of several models are the same rows."""
        first = {name: k for k, name in reversed(list(enumerate(self.task_names)))}
        dotted = {"linestyle": DOTTED, "linewidth": 1}
        ax.plot([], [], color=GREY, label="base rates", **dotted)
        return [
            ax.plot(
                [0, 1], [self.base_rates[k]] * 2, color=looks[k]["color"], **dotted
            )[0]
            for k in sorted(first.values())
        ]


def _curve(rows):
    """Return precision, recall and their average; empty if they are undefined."""
    if not rows.has_both_classes:
        return np.empty(0), np.empty(0), np.nan
    precision, recall, _ = precision_recall_curve(
        rows.y, rows.p, sample_weight=rows.weight, drop_intermediate=True
    )
    average = average_precision_score(rows.y, rows.p, sample_weight=rows.weight)
    return precision, recall, float(average)

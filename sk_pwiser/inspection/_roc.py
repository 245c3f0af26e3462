"""ROC curves of all tasks."""

import numpy as np
from sklearn.metrics import auc, roc_curve

from sk_pwiser.inspection._axes import (
    DOTTED,
    GREY,
    axes_or_new,
    curve_label,
    looks_of_curves,
    style,
)
from sk_pwiser.inspection._task_curves import TaskCurvesDisplay
from sk_pwiser.inspection._task_rows import warn_about_one_class


class TaskRocCurveDisplay(TaskCurvesDisplay):
    """ROC curves, one per task, with their AUC in the legend.

    `from_estimator` and `from_predictions` create the display. A task has the same
    colour in all displays.

    Parameters
    ----------
    fpr, tpr : list of ndarray
        False and true positive rates of each curve, as
        :func:`sklearn.metrics.roc_curve` returns them.
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
        The diagonal.
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.

    See Also
    --------
    sklearn.metrics.RocCurveDisplay : For one task, or over the folds of a validation.
    TaskPrecisionRecallDisplay : Says more where positives are rare.

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.inspection import TaskRocCurveDisplay
    >>> data = make_ctr_cvr(2_000, ctr=0.3, random_state=0)
    >>> model = MultiTaskCTRCVRClassifier(max_epochs=3, random_state=0)
    >>> model.fit(data.data[:1000], data.target[:1000])
    MultiTaskCTRCVRClassifier(...)
    >>> display = TaskRocCurveDisplay.from_estimator(
    ...     model, data.data[1000:], data.target[1000:], cvr=True
    ... )
    >>> display.task_names
    ['click', 'conversion', 'conversion | click']
    """

    def __init__(self, *, fpr, tpr, roc_auc, task_names, model_names=None):
        self.fpr = fpr
        self.tpr = tpr
        self.roc_auc = roc_auc
        self.task_names = task_names
        self.model_names = model_names

    @classmethod
    def _from_rows(cls, rows):
        warn_about_one_class(rows, "The ROC curve")
        curves = [_curve(each) for each in rows]
        return cls(
            fpr=[fpr for fpr, _ in curves],
            tpr=[tpr for _, tpr in curves],
            roc_auc=[
                float(auc(*curve)) if len(curve[0]) else np.nan for curve in curves
            ],
            task_names=[each.task for each in rows],
            model_names=[each.model for each in rows],
        )

    def plot(self, ax=None, *, plot_chance_level=True, **kwargs):
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            The axes to draw on; None creates a new figure.
        plot_chance_level : bool, default=True
            Whether to draw the diagonal, the curve of a ranking by chance.
        **kwargs : dict
            Properties of all curves, passed to matplotlib's `plot`.

        Returns
        -------
        TaskRocCurveDisplay
            The display.
        """
        ax = axes_or_new(ax, "TaskRocCurveDisplay")
        models = self.model_names or [None] * len(self.task_names)
        looks = looks_of_curves(self.task_names, models)
        self.lines_ = []
        for k, look in enumerate(looks):
            figure = f"AUC = {self.roc_auc[k]:.3f}"
            label = curve_label(self.task_names[k], models[k], figure)
            look = style(kwargs, **{**look, "marker": "", "label": label})
            self.lines_ += ax.plot(self.fpr[k], self.tpr[k], **look)
        self.chance_level_ = None
        if plot_chance_level:
            (self.chance_level_,) = ax.plot(
                [0, 1], [0, 1], color=GREY, linestyle=DOTTED, label="chance"
            )
        ax.set(
            xlabel="False positive rate",
            ylabel="True positive rate",
            xlim=(-0.01, 1.01),
            ylim=(-0.01, 1.01),
            aspect="equal",
        )
        ax.legend(loc="lower right")
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _curve(rows):
    """Return the rates of a curve, empty if they are undefined."""
    if not rows.has_both_classes:
        return np.empty(0), np.empty(0)
    fpr, tpr, _ = roc_curve(rows.y, rows.p, sample_weight=rows.weight)
    return fpr, tpr

"""Loss, AUC and task weights per epoch of training."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sk_pwiser._responses import nested_estimators
from sk_pwiser.inspection._axes import (
    DOTTED,
    GREY,
    import_pyplot,
    legend_above,
    row_of_axes,
    set_integer_ticks,
    style,
    task_color,
)

KINDS = ("both", "loss", "auc")
LOSSES = {"training": "train_loss", "validation": "valid_loss"}
LINES = ("--", "-", ":")


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
        The axes of the losses, of the AUC, or both.
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

    def __init__(self, *, epochs, losses, aucs, mean_auc=None, best_epoch=None):
        self.epochs = epochs
        self.losses = losses
        self.aucs = aucs
        self.mean_auc = mean_auc
        self.best_epoch = best_epoch

    @classmethod
    def from_estimator(cls, estimator, *, kind="both", ax=None, **kwargs):
        """Draw the history of a fitted estimator.

        Parameters
        ----------
        estimator : estimator object
            A fitted :class:`~sk_pwiser.MultiTaskCTRCVRClassifier`, also inside a
            pipeline or a search.
        kind : {"both", "loss", "auc"}, default="both"
            Which curves to draw. Without validation rows, "both" only draws the loss.
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
            If the estimator has no history, or if `kind="auc"` but there were no
            validation rows.
        """
        import_pyplot(cls.__name__)
        trained = _trained_estimator(estimator)
        history = list(trained.history_)
        names = trained.task_names_
        tasks = {name: f"valid_auc_{name}" for name in names}
        log_loss = f"valid_log_loss_{'mean' if len(names) > 1 else names[0]}"
        display = cls(
            epochs=np.array([row["epoch"] for row in history]),
            losses=_columns(history, {**LOSSES, "validation log loss": log_loss}),
            aucs=_columns(history, tasks),
            mean_auc=_columns(history, {"mean": "valid_auc_mean"}).get("mean"),
            best_epoch=trained.best_epoch_,
        )
        return display.plot(ax, kind=kind, **kwargs)

    def plot(self, ax=None, *, kind="both", **kwargs):
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of Axes, default=None
            The axes to draw on, one per plot; None creates a new figure.
        kind : {"both", "loss", "auc"}, default="both"
            Which curves to draw. Without validation rows, "both" only draws the loss.
        **kwargs : dict
            Properties of all curves, passed to matplotlib's `plot`.

        Returns
        -------
        TrainingHistoryDisplay
            The display.

        Raises
        ------
        ValueError
            If `kind` is unknown or is "auc" without validation rows, or if `ax` does
            not contain one axes per plot.
        """
        plots = self._plots(kind)
        self.axes_ = row_of_axes(ax, len(plots), "TrainingHistoryDisplay")
        self.lines_ = []
        for one, (label, curves) in zip(self.axes_, plots.items(), strict=True):
            lines = []
            for name, values, own_style in curves:
                properties = style(kwargs, **own_style, marker=".", label=name)
                lines += one.plot(self.epochs, values, **properties)
            if self.best_epoch is not None:
                line = {"color": GREY, "linestyle": DOTTED, "label": "weights kept"}
                one.axvline(self.best_epoch, **line)
            one.set(xlabel="Epoch", ylabel=label)
            set_integer_ticks(one.xaxis)
            legend_above(one)
            self.lines_.append(lines)
        self.figure_ = self.axes_[0].figure
        return self

    def _plots(self, kind):
        """Return name, values and style of the curves, by label of the y axis."""
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}, got {kind!r}.")
        if kind == "auc" and not self.aucs:
            raise ValueError(
                "kind must be 'loss' for a history without validation rows, got 'auc'; "
                "early_stopping=True or an eval_set adds them."
            )
        plots = {}
        if kind != "auc":
            plots["Loss"] = [
                (name, values, {"color": "black", "linestyle": line})
                for line, (name, values) in zip(
                    LINES, self.losses.items(), strict=False
                )
            ]
        if kind != "loss" and self.aucs:
            plots["Validation AUC"] = [
                (name, values, {"color": task_color(k)})
                for k, (name, values) in enumerate(self.aucs.items())
            ]
            if self.mean_auc is not None:
                mean = ("mean", self.mean_auc, {"color": "black", "linestyle": "--"})
                plots["Validation AUC"].append(mean)
        return plots


def _trained_estimator(estimator):
    """Return the estimator with a history, also from inside a pipeline or a search."""
    check_is_fitted(estimator)
    for each in nested_estimators(estimator):
        if hasattr(each, "history_"):
            return each
    raise ValueError(f"estimator must have the attribute history_, got {estimator!r}.")


def _columns(history, keys):
    """Return columns of the history that have values, NaN in epochs without one."""
    return {
        name: np.array([row.get(key, np.nan) for row in history], dtype=float)
        for name, key in keys.items()
        if any(key in row for row in history)
    }

"""Loss, AUC and task weights over the epochs of training."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sk_pwiser._responses import nested_estimators
from sk_pwiser.inspection._axes import (
    DOTTED,
    GREY,
    axes_or_new,
    import_pyplot,
    legend_above,
    row_of_axes,
    style,
    task_color,
    whole_ticks,
)

KINDS = ("both", "loss", "auc")
LOSSES = {"training": "train_loss", "validation": "valid_loss"}


class TrainingHistoryDisplay:
    """Loss of training and validation, and validation AUC per task, over the epochs.

    `from_estimator` creates the display. A task has the same colour in all displays;
    the mean over the tasks is black. A vertical line marks the epoch whose weights the
    estimator has.

    Parameters
    ----------
    epochs : ndarray of shape (n_epochs,)
        Numbers of the epochs.
    losses : dict of str to ndarray of shape (n_epochs,)
        Mean losses by part of the rows, "training" and, if there were validation rows,
        "validation". NaN for epochs without.
    aucs : dict of str to ndarray of shape (n_epochs,)
        Validation AUC by task; empty without validation rows.
    mean_auc : ndarray of shape (n_epochs,), default=None
        Mean validation AUC over the tasks, if there are several.
    best_epoch : int, default=None
        The epoch to mark.

    Attributes
    ----------
    lines_ : list of list of matplotlib Line2D
        The curves of each of the axes.
    axes_ : ndarray of matplotlib Axes
        The axes: that of the losses, that of the AUC, or both.
    figure_ : matplotlib Figure
        The figure.

    See Also
    --------
    plot_task_weights : The weights of the tasks over the epochs.

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
            What to draw. Without validation rows, "both" draws the loss only.
        ax : matplotlib Axes or array-like of Axes, default=None
            The axes to draw on, one per picture; None creates a new figure.
        **kwargs : dict
            Passed to `plot`.

        Returns
        -------
        TrainingHistoryDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the estimator has no history, or `kind="auc"` and there were no
            validation rows.
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        ImportError
            If matplotlib is not installed.
        """
        import_pyplot(cls.__name__)
        check_is_fitted(estimator)
        trained = [e for e in nested_estimators(estimator) if hasattr(e, "history_")]
        if not trained:
            raise ValueError(
                f"estimator must have the attribute history_, got {estimator!r}."
            )
        history = list(trained[0].history_)
        tasks = {name: f"valid_auc_{name}" for name in trained[0].task_names_}
        display = cls(
            epochs=np.array([row["epoch"] for row in history]),
            losses=_columns(history, LOSSES),
            aucs=_columns(history, tasks),
            mean_auc=_columns(history, {"mean": "valid_auc_mean"}).get("mean"),
            best_epoch=trained[0].best_epoch_,
        )
        return display.plot(ax, kind=kind, **kwargs)

    def plot(self, ax=None, *, kind="both", **kwargs):
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of Axes, default=None
            The axes to draw on, one per picture; None creates a new figure.
        kind : {"both", "loss", "auc"}, default="both"
            What to draw. Without validation rows, "both" draws the loss only.
        **kwargs : dict
            Properties of all curves, passed to matplotlib's `plot`.

        Returns
        -------
        TrainingHistoryDisplay
            The display.

        Raises
        ------
        ValueError
            If `kind` is unknown, or "auc" without validation rows, or if `ax` has
            another number of axes than there are pictures.
        """
        pictures = self._pictures(kind)
        self.axes_ = row_of_axes(ax, len(pictures), "TrainingHistoryDisplay")
        self.lines_ = []
        for one, (label, curves) in zip(self.axes_, pictures.items(), strict=True):
            lines = []
            for name, values, look in curves:
                look = style(kwargs, **look, marker=".", label=name)
                lines += one.plot(self.epochs, values, **look)
            if self.best_epoch is not None:
                look = {"color": GREY, "linestyle": DOTTED}
                one.axvline(self.best_epoch, label="weights kept", **look)
            one.set(xlabel="Epoch", ylabel=label)
            whole_ticks(one.xaxis)
            legend_above(one)
            self.lines_.append(lines)
        self.figure_ = self.axes_[0].figure
        return self

    def _pictures(self, kind):
        """Return names, values and looks of the curves, by label of the axes."""
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}, got {kind!r}.")
        if kind == "auc" and not self.aucs:
            raise ValueError(
                "kind must be 'loss' for a history without validation rows, got 'auc'; "
                "early_stopping=True or an eval_set adds them."
            )
        pictures = {}
        if kind != "auc":
            pictures["Loss"] = [
                (name, values, {"color": "black", "linestyle": line})
                for line, (name, values) in zip(
                    ("--", "-"), self.losses.items(), strict=False
                )
            ]
        if kind != "loss" and self.aucs:
            pictures["Validation AUC"] = [
                (name, values, {"color": task_color(k)})
                for k, (name, values) in enumerate(self.aucs.items())
            ]
            if self.mean_auc is not None:
                mean = ("mean", self.mean_auc, {"color": "black", "linestyle": "--"})
                pictures["Validation AUC"].append(mean)
        return pictures


def _columns(history, keys):
    """Return the columns that the history has, by name; NaN for epochs without."""
    return {
        name: np.array([row.get(key, np.nan) for row in history], dtype=float)
        for name, key in keys.items()
        if any(key in row for row in history)
    }


def plot_task_weights(estimator, ax=None):
    """Plot the weights of the tasks' losses, or gradients, over the epochs.

    Parameters
    ----------
    estimator : MultiTaskCTRCVRClassifier
        A fitted estimator. Its `history_` contains the mean weights per epoch as
        `train_weight_<task>`.
    ax : matplotlib Axes, default=None
        The axes to draw on; None creates a new figure.

    Returns
    -------
    matplotlib Axes
        The axes, with one line per task.

    Raises
    ------
    NotFittedError
        If the estimator is not fitted.
    ValueError
        If the history contains no weights.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.inspection import plot_task_weights
    >>> data = make_ctr_cvr(1_000, ctr=0.3, random_state=0)
    >>> model = MultiTaskCTRCVRClassifier(weighting="ema", max_epochs=3)
    >>> ax = plot_task_weights(model.fit(data.data, data.target))
    >>> [line.get_label() for line in ax.get_lines()]
    ['click', 'conversion']
    """
    import_pyplot("plot_task_weights")
    check_is_fitted(estimator)
    epochs, weights = _weights_by_epoch(estimator)
    ax = axes_or_new(ax, "plot_task_weights")
    for k, (task, of_task) in enumerate(weights.items()):
        ax.plot(epochs, of_task, marker=".", color=task_color(k), label=task)
    ax.set(xlabel="Epoch", ylabel="Weight")
    whole_ticks(ax.xaxis)
    ax.legend(title="Task")
    return ax


def _weights_by_epoch(estimator):
    """Return the epoch numbers and the weights by task, NaN if an epoch has none."""
    history = list(estimator.history_)
    weights = {
        task: [row.get(f"train_weight_{task}", np.nan) for row in history]
        for task in estimator.task_names_
    }
    if np.isnan(list(weights.values())).all():
        raise ValueError(
            "history_ of the estimator must contain the weights of the tasks, such as "
            f"'train_weight_{estimator.task_names_[0]}'; its columns are "
            f"{sorted(set().union(*history))}."
        )
    return [row["epoch"] for row in history], weights

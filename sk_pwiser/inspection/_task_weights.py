"""The weights of the tasks over the epochs."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sk_pwiser.inspection._axes import (
    axes_or_new,
    import_pyplot,
    task_color,
    whole_ticks,
)


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

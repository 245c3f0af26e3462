"""Plots of the training history. They need matplotlib, the extra "plot"."""

from sk_pwiser.inspection._task_weights import plot_task_weights

__all__ = ["plot_task_weights"]

"""Early stopping: the figure that it monitors, and the best epoch."""

import re
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet

from sk_pwiser._rows._encoded_rows import TrainingRows
from sk_pwiser._training import _callbacks
from sk_pwiser._training._stateful_callback import StatefulCallback
from sk_pwiser._training._validation_figures import (
    FIGURES,
    GROUPED,
    grouped_aucs,
    task_aucs,
)
from sk_pwiser._utils._checks import did_you_mean
from sk_pwiser._utils._warnings import warn_user


def check_early_stopping(early_stopping: Any, task_names: tuple[str, ...]) -> str:
    """Return the column of the history that this value of the parameter monitors."""
    if callable(early_stopping):
        try:
            signature(early_stopping).bind(None, None, None)
        except TypeError as error:
            raise TypeError(
                "early_stopping must be callable as a scorer, with (estimator, X, Y), "
                f"such as those of metrics.make_task_scorer; got {early_stopping!r}."
            ) from error
        return "valid_score"
    columns = {"loss": "valid_loss"}
    # Of all tasks.
    summary = "mean" if len(task_names) > 1 else task_names[0]
    for figure in FIGURES:
        columns[figure] = f"valid_{figure}_{summary}"
        for task in dict.fromkeys((*task_names, summary)):
            columns[f"{figure}_{task}"] = f"valid_{figure}_{task}"
    if early_stopping == "auto" or not isinstance(early_stopping, str):
        early_stopping = "loss"
    if early_stopping not in columns:
        raise ValueError(
            "early_stopping must be True, False, 'auto', a scorer or one of "
            f"{list(columns)}; got {early_stopping!r}."
            f"{did_you_mean(early_stopping, columns)}"
        )
    return columns[early_stopping]


def check_unmonitored(
    callbacks: Any,
    reason: str = (
        "there are no validation rows. Set early_stopping to True, or pass an eval_set "
        "to fit; partial_fit has none."
    ),
) -> None:
    """Raise if a callback monitors figures of validation rows, which there are not."""
    for callback, kind in _callbacks.with_kinds(callbacks):
        monitor = getattr(callback, "monitor", "")
        parameters = signature(kind).parameters
        if callback is kind and "monitor" in parameters:
            monitor = parameters["monitor"].default
        figures = (*LOWER_IS_BETTER, "valid_auc", GROUPED)
        if isinstance(monitor, str) and monitor.startswith(figures):
            raise ValueError(
                f"callbacks holds {kind.__name__}, whose monitor is {monitor!r}, but "
                f"{reason}"
            )


def usable_monitor(
    monitor: str | None, valid: TrainingRows | None, task_names: tuple[str, ...]
) -> str | None:
    """Return the column to monitor: the loss, with a warning, if the figure is useless.

    The AUC of a task needs rows with both labels. So does its log loss: with one label,
    it is lowest for the most extreme predictions. For a mean of log losses, one task
    with both labels suffices.
    """
    prefix = re.match(f"valid_({'|'.join(FIGURES)})_", monitor or "")
    if monitor is None or prefix is None or valid is None:
        return monitor
    figure = prefix[1]
    monitored = monitor[prefix.end() :]
    y = valid.column("y")
    scores = torch.zeros_like(y)
    if figure == "grouped_auc":
        needs = "a group with both labels"
        aucs = grouped_aucs(valid, scores)
    else:
        needs = "both labels"
        aucs = task_aucs(y, scores, valid.column("sample_weight"))
    is_mean = monitored == "mean" or len(task_names) == 1
    # An AUC is NaN without both labels.
    lacking = [
        task
        for task, auc in zip(task_names, aucs, strict=True)
        if np.isnan(auc) and monitored in (task, "mean")
    ]
    suffices = is_mean and figure == "log_loss" and len(lacking) < len(task_names)
    if not lacking or suffices:
        return monitor
    value = figure if is_mean else f"{figure}_{monitored}"
    warn_user(
        f"early_stopping={value!r} needs {needs} of each task among the validation "
        f"rows; the {len(y)} rows lack them for {', '.join(map(repr, lacking))}. The "
        "validation loss decides instead. A larger validation_fraction, or an eval_set "
        "with both labels, makes the figure available."
    )
    return "valid_loss"


@dataclass(frozen=True, kw_only=True)
class FirstStage:
    """What early stopping has found, for a second training on all rows.

    The epochs lead to the best weights of the first stage: those at the full rate that
    came to nothing are not among them.
    """

    n_epochs: int  # in all
    n_held: int  # at the full learning rate
    n_decay: int  # from the full rate to 0, of which training may use the first ones
    stop_reason: str
    level: list[float] | None  # log-odds that the last rows in time have added
    log_moves: list[float] | None = None  # the same of the logarithms of amounts
    n_amount_epochs: int = 0  # of the network of values, after those of the events

    @classmethod
    def of(
        cls,
        stopping: "BestEpochStopping",
        best_epoch: int,
        *,
        stop_reason: str,
        level: list[float] | None,
        log_moves: list[float] | None = None,
        n_amount_epochs: int = 0,
    ) -> "FirstStage":
        """Return what the early stopping of a new net has found."""
        n_epochs = best_epoch
        n_held = best_epoch
        n_decay = 0
        if stopping.n_decay and best_epoch > stopping.n_held:
            # Without an epoch that could be judged, the decay began at the last one.
            n_held = stopping.n_best_held or stopping.n_held
            n_epochs = n_held + best_epoch - stopping.n_held
            n_decay = stopping.n_decay
        return cls(
            n_epochs=n_epochs,
            n_held=n_held,
            n_decay=n_decay,
            stop_reason=stop_reason,
            level=level,
            log_moves=log_moves,
            n_amount_epochs=n_amount_epochs,
        )


# Figures whose lower values are better. Early stopping and the schedule compare the
# other ones with the opposite sign.
LOWER_IS_BETTER = "valid_loss", "valid_log_loss"


@dataclass(eq=False)
class BestEpochStopping(StatefulCallback):
    """Early stopping after some epochs, whose best weights are always restored."""

    monitor: str
    patience: int
    n_unjudged_: int  # epochs that cannot be the best, so far
    lowest_: float = np.inf
    misses_: int = 0  # epochs since the best one
    best_epoch_: int = 0
    # Whether a schedule has yet to lower the learning rate; the last epoch before.
    is_waiting: bool = False
    n_held: int = 0
    n_best_held: int = 0  # the best epoch until then
    n_decay: int = 0  # epochs until the learning rate is 0
    # The best weights, during training only.
    best: dict[str, Any] | None = field(default=None, repr=False)

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Judge an epoch, unless it is among the first ones.

        If a scorer is undefined there, the validation loss decides from then on.
        """
        if self.n_unjudged_:
            self.n_unjudged_ -= 1
            return
        value = net.history[-1, self.monitor]
        is_first = self.monitor == "valid_score" and not self.best_epoch_
        if is_first and np.isnan(value):
            warn_user(
                f"early_stopping={net.settings.early_stopping!r} is nan on the "
                "validation rows. The validation loss decides instead. Use a larger "
                "validation_fraction, or an eval_set on which the score is defined."
            )
            self.monitor = "valid_loss"
            value = net.history[-1, self.monitor]
        value = value if self.monitor.startswith(LOWER_IS_BETTER) else -value
        if value < self.lowest_:
            self.lowest_ = value
            self.misses_ = 0
            self.best_epoch_ = net.history[-1, "epoch"]
            self.best = _callbacks.copy_states(net, "network")
        elif not self.is_waiting:
            self.misses_ += 1
            net.stop_training_ |= self.misses_ == self.patience

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Restore the weights of the best epoch, and free the memory of their copy."""
        if self.best is not None:
            _callbacks.set_states(net, self.best)
            net.kept_epoch_ = self.best_epoch_
        self.best = None

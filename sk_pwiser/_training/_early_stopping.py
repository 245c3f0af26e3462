"""How long to train: early stopping."""

import re
from collections.abc import Mapping
from inspect import signature
from typing import Any, ClassVar

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback

from sk_pwiser._training import _figures
from sk_pwiser._training._batches import TrainingRows
from sk_pwiser._training._callbacks import (
    Snapshot,
    callback_kinds,
    without_name,
)
from sk_pwiser._training._settings import Settings
from sk_pwiser._utils import did_you_mean, warn_user

# With at most `MIN_ROWS` rows, a tenth of them says less about the best epoch than a
# number of steps that grows with the rows; see the page of benchmarks. With more rows,
# the best epoch has at least the number of steps of a fit to `MIN_ROWS` rows.
MIN_ROWS = 1_000
FIRST_STEPS, ROWS_PER_STEP = 4, 200


def check_early_stopping(early_stopping: Any, task_names: tuple[str, ...]) -> str:
    """Return the column of the history that this value of the parameter monitors."""
    if callable(early_stopping):
        try:
            signature(early_stopping).bind(None, None, None)
        except TypeError as error:
            raise TypeError(
                "early_stopping must be callable as a scorer, with (estimator, X, Y); "
                f"got {early_stopping!r}. metrics.make_task_scorer makes a scorer of a "
                "metric."
            ) from error
        return "valid_score"
    columns = {"loss": "valid_loss"}
    summary = _figures.summary_name(task_names)
    for figure in _figures.FIGURES:
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


def check_monitored(
    monitor: str | None, callbacks: Any, has_eval_set: bool, has_groups: bool
) -> None:
    """Raise if early stopping or a callback monitors figures that do not exist."""
    if monitor is not None and monitor.startswith(_figures.GROUPED) and not has_groups:
        figure = monitor.removeprefix("valid_").removesuffix("_mean")
        raise ValueError(
            f"early_stopping={figure!r} needs the group of each validation row: pass "
            "groups to fit, groups_val with X_val, or groups to ParquetImpressions."
        )
    if monitor is not None or has_eval_set:
        return
    for entry, kind in zip(callbacks or [], callback_kinds(callbacks), strict=True):
        monitor = getattr(without_name(entry), "monitor", "")
        known = signature(kind).parameters
        if without_name(entry) is kind and "monitor" in known:
            monitor = known["monitor"].default
        names = ("valid_loss", "valid_log_loss", "valid_auc", _figures.GROUPED)
        if isinstance(monitor, str) and monitor.startswith(names):
            raise ValueError(
                f"callbacks holds {kind.__name__}, whose monitor is {monitor!r}, but "
                "there are no validation rows. Set early_stopping to True, or pass an "
                "eval_set to fit; partial_fit has none."
            )


def plan_epochs(
    settings: Settings, n_rows: int, task_names: tuple[str, ...], has_eval_set: bool
) -> tuple[str | None, int, int]:
    """Return the monitored column, the first epoch that may be best, and the last."""
    first, most = 1, settings.max_epochs
    if settings.early_stopping == "auto" and not has_eval_set:
        n_steps = FIRST_STEPS + min(n_rows, MIN_ROWS) // ROWS_PER_STEP
        first = min(most, -(-n_steps // -(-n_rows // settings.batch_size)))
        if n_rows <= MIN_ROWS:
            return None, first, first
    monitor = None
    if settings.early_stopping:
        monitor = check_early_stopping(settings.early_stopping, task_names)
    return monitor, first, most


def usable_monitor(
    monitor: str | None, valid: TrainingRows | None, task_names: tuple[str, ...]
) -> str | None:
    """Return the column to monitor: the loss, with a warning, if the figure is useless.

    The AUC of a task needs rows with both labels. So does its log loss: with one label,
    it is lowest for the most extreme predictions. For a mean of log losses, one task
    with both labels suffices.
    """
    if monitor is None or valid is None:
        return monitor
    found = re.match(f"valid_({'|'.join(_figures.FIGURES)})_", monitor)
    if found is None:
        return monitor
    figure, monitored = found[1], monitor[found.end() :]
    y, weights = valid.labels(), valid.column("sample_weight")
    scores = torch.zeros_like(y)
    needs, aucs = "both labels", _figures.task_aucs(y, scores, weights)
    if figure == "grouped_auc":
        needs, aucs = "a group with both labels", _figures.grouped_aucs(valid, scores)
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


class BestEpochStopping(Callback):  # type: ignore[misc]
    """Early stopping from `first_epoch` on, whose best weights are always restored."""

    best: Snapshot | None = None  # during training only
    misses_, best_epoch_ = 0, 0  # epochs since the best one, and its number
    # Whether a schedule has yet to lower the learning rate; the last epoch before that.
    is_waiting, n_held = False, 0
    # Attributes with a state, by their names in checkpoints.
    STATE: ClassVar = {
        "monitor": "monitor",
        "is_waiting": "is_waiting",
        "n_held": "n_held",
        "unjudged": "n_unjudged_",
        "misses": "misses_",
        "threshold": "best_value_",
        "best_epoch": "best_epoch_",
    }

    def __init__(self, monitor: str, patience: int, first_epoch: int) -> None:
        self.monitor, self.patience, self.first_epoch = monitor, patience, first_epoch

    @property
    def lower_is_better(self) -> bool:
        """Whether a lower figure is a better one."""
        return self.monitor.startswith(("valid_loss", "valid_log_loss"))

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Reset the counters."""
        self.is_waiting, self.n_held, self.best = False, 0, None
        self.n_unjudged_, self.misses_, self.best_epoch_ = self.first_epoch - 1, 0, 0
        self.best_value_ = np.inf if self.lower_is_better else -np.inf

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
                "validation rows. The validation loss decides instead. A larger "
                "validation_fraction, or an eval_set on which the score is defined, "
                "makes it available."
            )
            self.monitor, self.best_value_ = "valid_loss", np.inf
            value = net.history[-1, self.monitor]
        sign = 1 if self.lower_is_better else -1
        if sign * value < sign * self.best_value_:
            self.best_value_, self.misses_ = value, 0
            self.best_epoch_ = net.history[-1, "epoch"]
            self.best = Snapshot.take(net, "network")
        elif not self.is_waiting:
            self.misses_ += 1
            net.stop_training_ |= self.misses_ == self.patience

    def state_dict(self) -> dict[str, Any]:
        """Return the best epoch so far with its weights, and the counters."""
        state = {key: getattr(self, name) for key, name in self.STATE.items()}
        return state | {"best_weights": None if self.best is None else self.best.states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for key, name in self.STATE.items():
            setattr(self, name, state[key])
        weights = state["best_weights"]
        self.best = None if weights is None else Snapshot(weights)

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Restore the weights of the best epoch, and free the memory of their copy."""
        if self.best is not None:
            self.best.restore(net)
        self.best = None

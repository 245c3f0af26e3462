"""Early stopping: the validation rows, the monitored figure, the best epoch."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping
from skorch.utils import noop

from sk_pwiser._training._batches import TrainingRows
from sk_pwiser._training._settings import Settings
from sk_pwiser._utils import warn_user
from sk_pwiser.model_selection import funnel_holdout

# As in HistGradientBoostingClassifier: with fewer rows, the rows held out are worth
# more in training.
MIN_ROWS = 1_000


def monitored_column(
    early_stopping: bool | str,
    n_rows: int,
    task_names: tuple[str, ...],
    has_eval_set: bool = False,
) -> str | None:
    """Return the column of the history that early stopping monitors, or None."""
    if early_stopping == "auto":
        early_stopping = has_eval_set or n_rows > MIN_ROWS
    if not early_stopping:
        return None
    if early_stopping != "auc":
        return "valid_loss"
    return f"valid_auc_{task_names[0]}" if len(task_names) == 1 else "valid_auc_mean"


def hold_out(
    settings: Settings,
    rows: Any,
    split: np.random.RandomState,
    times: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return sorted training and validation rows, in whole groups.

    They are the last rows in time, or drawn by funnel depth without times.
    """
    if times is not None:
        is_held = held_by_time(times, settings.validation_fraction, rows.groups)
        if is_held.any():
            return np.flatnonzero(~is_held), np.flatnonzero(is_held)
    parts: tuple[np.ndarray, np.ndarray] = funnel_holdout(  # type: ignore[no-untyped-call]
        rows.targets.with_nan(),
        test_size=settings.validation_fraction,
        random_state=split,
        groups=rows.groups,
    )
    return parts


def held_by_time(
    times: np.ndarray, share: float, groups: np.ndarray | None = None
) -> np.ndarray:
    """Return whether each row is among a share of the last ones in time.

    Rows of equal time stay together, and so do groups, whose time is that of their last
    row. If all rows are of one time, none is held.
    """
    if groups is not None:
        _, number = np.unique(groups, return_inverse=True)
        latest = np.full(number.max() + 1, -np.inf)
        np.maximum.at(latest, number, times)
        times = latest[number]
    if times.min() == times.max():
        return np.zeros(len(times), dtype=bool)
    return times >= last_edge(times, share)


def last_edge(times: np.ndarray, share: float) -> float:
    """Return the time, after the first, from which on a share of the rows comes."""
    edge = np.quantile(times, 1 - share, method="higher")
    return float(max(edge, times[times > times.min()].min()))


def usable_monitor(
    monitor: str | None, valid: TrainingRows | None, task_names: tuple[str, ...]
) -> str | None:
    """Return the column to monitor; the loss, with a warning, for an undefined AUC."""
    if monitor is None or not monitor.startswith("valid_auc") or valid is None:
        return monitor
    y, weights = valid.labels(), valid.weights()
    is_known = torch.ones_like(y) if weights is None else weights.view(len(y), -1)
    is_known = is_known.expand_as(y) > 0
    has_both = ((y > 0) & is_known).any(dim=0) & ((y < 1) & is_known).any(dim=0)
    single = [task for task, both in zip(task_names, has_both, strict=True) if not both]
    if not single:
        return monitor
    warn_user(
        f"early_stopping='auc' needs both labels of each task among the {len(y)} "
        f"validation rows; {', '.join(map(repr, single))} has one label there. The "
        "validation loss decides instead. A larger validation_fraction, or an eval_set "
        "with both labels, makes the AUC available."
    )
    return "valid_loss"


def early_stopping_callback(monitor: str, patience: int) -> tuple[str, Callback]:
    """Make the callback that stops training and restores the best epoch's weights."""
    stopping = BestEpochStopping(
        monitor,
        patience=patience,
        threshold=0.0,
        lower_is_better=monitor == "valid_loss",
        load_best=True,
        sink=noop,
    )
    return "early_stopping", stopping


def best_epoch(net: NeuralNet) -> int:
    """Return the epoch whose weights a trained net has, as numbered in its history."""
    if net.kept_epoch_ is not None:
        return int(net.kept_epoch_)
    for _, callback in net.callbacks_:
        # 0 if no epoch was better than another, for example if all figures are NaN.
        if isinstance(callback, BestEpochStopping) and callback.best_epoch_:
            return int(callback.best_epoch_)
    return int(net.history[-1, "epoch"])


class BestEpochStopping(EarlyStopping):  # type: ignore[misc]
    """Early stopping that restores the best epoch's weights in any case."""

    best_epoch_: int
    best_model_weights_: dict[str, Any] | None

    def state_dict(self) -> dict[str, Any]:
        """Return the best epoch so far with its weights, and the counters."""
        return {
            "misses": self.misses_,
            "threshold": self.dynamic_threshold_,
            "best_epoch": self.best_epoch_,
            "best_weights": self.best_model_weights_,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.misses_, self.dynamic_threshold_ = state["misses"], state["threshold"]
        self.best_epoch_ = state["best_epoch"]
        self.best_model_weights_ = state["best_weights"]

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Restore the weights of the best epoch, and free the memory of their copy."""
        if self.best_model_weights_ is not None:
            net.module_.load_state_dict(self.best_model_weights_)
        self.best_model_weights_ = None

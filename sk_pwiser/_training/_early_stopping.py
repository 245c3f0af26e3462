"""Early stopping on the validation rows."""

from collections.abc import Mapping
from typing import Any

from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping
from skorch.utils import noop

# As in HistGradientBoostingClassifier: with fewer rows, holding some out costs more
# than early stopping gains.
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

"""What a net records in its history: figures per epoch, none per batch."""

import numpy as np
from skorch import NeuralNet
from torch import Tensor

from sk_pwiser._training._auc import task_aucs
from sk_pwiser._training._history import EpochHistory
from sk_pwiser._training._schedules import Position
from sk_pwiser._training._streamed import TrainingRows


class RecordingNet(NeuralNet):  # type: ignore[misc]
    """A skorch net whose history has the figures of epochs, and the best of each.

    A subclass has the names of the tasks as `task_names`.
    """

    task_names: tuple[str, ...]

    def initialize_history(self) -> "RecordingNet":
        """Initialize the history, the best values of its columns, and schedules."""
        self.best_: dict[str, float] = {}
        self.schedules_: list[Position] = []
        self.history_ = EpochHistory()
        return self

    def _record_loss(self, prefix: str, loss: float) -> None:
        self._record_best(f"{prefix}_loss", loss, lower_is_better=True)
        for name, value in self.criterion_.pop_epoch_record().items():
            self.history.record(f"{prefix}_{name}", value)

    def _record_missing(self, prefix: str, impressions: TrainingRows) -> None:
        """Record how many rows lack the label of a task, if any does."""
        if impressions.n_missing is not None:
            for task, count in zip(
                self.task_names[1:], impressions.n_missing, strict=True
            ):
                self.history.record(f"{prefix}_missing_{task}", count)

    def _record_auc(self, impressions: TrainingRows, logits: Tensor) -> None:
        aucs = list(task_aucs(impressions.labels(), logits, impressions.weights()))
        for task, auc in zip(self.task_names, aucs, strict=True):
            self._record_best(f"valid_auc_{task}", auc, lower_is_better=False)
        if len(aucs) > 1:
            known = [auc for auc in aucs if not np.isnan(auc)]
            mean = float(np.mean(known)) if known else np.nan
            self._record_best("valid_auc_mean", mean, lower_is_better=False)

    def _record_best(self, key: str, value: float, lower_is_better: bool) -> None:
        """Record a figure, and whether it is the best so far, which PrintLog marks."""
        sign = 1 if lower_is_better else -1
        is_best = sign * value < sign * self.best_.get(key, sign * np.inf)
        if is_best:
            self.best_[key] = value
        self.history.record(key, value)
        self.history.record(f"{key}_best", is_best)

    def _drop_rows(self, n_epochs: int) -> None:
        """Leave an incomplete epoch out of the history and of the next figures."""
        if len(self.history) > n_epochs:
            del self.history[n_epochs:]
            self.criterion_.train().pop_epoch_record()

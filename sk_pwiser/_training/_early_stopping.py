"""Early stopping: the validation rows, the monitored figure, the best epoch."""

from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from skorch import NeuralNet
from skorch.callbacks import EarlyStopping
from skorch.utils import noop
from torch import Tensor

from sk_pwiser._training._batches import TrainingRows
from sk_pwiser._training._callbacks import find_callback, without_name
from sk_pwiser._training._settings import Settings
from sk_pwiser._training._snapshot import Snapshot
from sk_pwiser._utils import did_you_mean, warn_user
from sk_pwiser.metrics import auc_within

# With at most `MIN_ROWS` rows, a tenth of them says less about the best epoch than a
# number of steps that grows with the rows; see the page of benchmarks. With more rows,
# the best epoch has at least the number of steps of a fit to `MIN_ROWS` rows.
MIN_ROWS = 1_000
FIRST_STEPS, ROWS_PER_STEP = 3, 250
# Figures of the validation rows per task. Larger values are better, except for the log
# loss. The history contains "grouped_auc" only if it is monitored.
AUCS = "auc", "grouped_auc"
FIGURES = "log_loss", *AUCS
GROUPED = "valid_grouped_auc_"


def summary_name(task_names: Sequence[str]) -> str:
    """Return the last part of the names of figures of all tasks: "mean" or a task."""
    return "mean" if len(task_names) > 1 else task_names[0]


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
    summary = summary_name(task_names)
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


def check_monitored(
    monitor: str | None, callbacks: Any, has_eval_set: bool, has_groups: bool
) -> None:
    """Raise if early stopping or a callback monitors figures that do not exist."""
    if monitor is not None and monitor.startswith(GROUPED) and not has_groups:
        figure = monitor.removeprefix("valid_").removesuffix("_mean")
        raise ValueError(
            f"early_stopping={figure!r} needs the group of each validation row: pass "
            "groups to fit, groups_val with X_val, or groups to ParquetImpressions."
        )
    if monitor is not None or has_eval_set:
        return
    for entry in map(without_name, callbacks or []):
        monitor = _monitor_of(entry)
        if monitor.startswith(("valid_loss", "valid_log_loss", "valid_auc", GROUPED)):
            kind = entry if isinstance(entry, type) else type(entry)
            raise ValueError(
                f"callbacks holds {kind.__name__}, whose monitor is {monitor!r}, but "
                "there are no validation rows. Set early_stopping to True, or pass an "
                "eval_set to fit; partial_fit has none."
            )


def _monitor_of(callback: Any) -> str:
    """Return the column of the history that a callback of skorch reads, or ""."""
    if not isinstance(callback, type):
        monitor = getattr(callback, "monitor", "")
    else:
        parameter = signature(callback).parameters.get("monitor")
        monitor = "" if parameter is None else parameter.default
    return monitor if isinstance(monitor, str) else ""


def plan_epochs(
    settings: Settings,
    n_rows: int,
    task_names: tuple[str, ...],
    has_eval_set: bool,
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


def grouped_aucs(rows: TrainingRows, logits: Tensor) -> Iterator[float]:
    """Yield the mean AUC within groups per task, NaN if no group has both labels."""
    y, weights, groups = (
        rows.labels().round(),
        rows.column("sample_weight"),
        rows.column("groups"),
    )
    assert groups is not None
    for k in range(y.shape[1]):
        labels, scores, codes = y[:, k], logits[:, k], groups
        if weights is not None and weights.dim() == 2:
            known = weights[:, k] > 0  # other weights are not read
            labels, scores, codes = labels[known], scores[known], codes[known]
        if not len(labels):
            yield float("nan")
            continue
        _, codes = torch.unique(codes, return_inverse=True)
        arrays = (part.cpu().numpy() for part in (labels, scores, codes))
        yield auc_within(*arrays)[0]  # type: ignore[no-untyped-call]


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
    figure = next((f for f in FIGURES if monitor.startswith(f"valid_{f}_")), None)
    if figure is None:
        return monitor
    y, weights = valid.labels(), valid.column("sample_weight")
    if figure == "grouped_auc":
        aucs = grouped_aucs(valid, torch.zeros_like(y))
        has_both = ~torch.tensor(list(aucs)).isnan()
        needs, found = "a group with both labels of each task", "has no such group"
    else:
        known = torch.ones_like(y) if weights is None else weights.view(len(y), -1)
        is_known = known.expand_as(y) > 0
        has_both = ((y > 0) & is_known).any(dim=0) & ((y < 1) & is_known).any(dim=0)
        needs, found = "both labels of each task", "has one label"
        if not is_known.any(dim=0).all():
            found = "has one label or none"
    monitored = monitor.removeprefix(f"valid_{figure}_")
    is_mean = monitored == "mean" or len(task_names) == 1
    single = [
        task
        for task, both in zip(task_names, has_both, strict=True)
        if not both and monitored in (task, "mean")
    ]
    if not single or (is_mean and figure == "log_loss" and len(single) < len(has_both)):
        return monitor
    value = figure if is_mean else f"{figure}_{monitored}"
    warn_user(
        f"early_stopping={value!r} needs {needs} among the {len(y)} validation rows; "
        f"{', '.join(map(repr, single))} {found} there. The validation loss decides "
        "instead. A larger validation_fraction, or an eval_set with both labels, makes "
        "the figure available."
    )
    return "valid_loss"


class KnownProbabilities(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Stands for an estimator in a scorer of rows whose probabilities are known."""

    missing_labels = "ignore"

    def __init__(
        self, probabilities: np.ndarray, task_parents: Mapping[str, str | None]
    ) -> None:
        self.probabilities = probabilities
        self.task_parents = self.task_parents_ = dict(task_parents)
        self.task_names_ = list(task_parents)
        self.classes_ = np.array([0, 1])
        if len(task_parents) > 1:
            self.classes_ = np.tile(self.classes_, (len(task_parents), 1))

    def predict_proba(self, _X: Any) -> np.ndarray:
        """Return the probabilities, in the form of the estimator's."""
        p = self.probabilities
        return np.hstack([1 - p, p]) if self.classes_.ndim == 1 else p

    def predict(self, _X: Any) -> np.ndarray:
        """Return 1 where the probability is at least 0.5."""
        labels = (self.probabilities >= 0.5).astype(int)
        return labels[:, 0] if self.classes_.ndim == 1 else labels


def score_validation(
    scorer: Any,
    rows: TrainingRows,
    logits: Tensor,
    task_parents: Mapping[str, str | None],
    negative_rate: float = 1.0,
) -> float:
    """Return the score of the validation rows, without weights and without a table.

    The probabilities are those of the log that holds a share of the rows without click:
    the inverse of `full_log_logits`.
    """
    y, weights = rows.labels().round(), rows.column("sample_weight")
    if weights is not None and weights.dim() == 2:
        y[:, 1:] = y[:, 1:].where(weights[:, 1:] > 0, torch.nan)
    # In double: those near 1 would be equal, and 1 minus them would have few digits.
    probabilities = logits.cpu().double().sigmoid()
    if negative_rate < 1:
        click = probabilities[:, :1]
        probabilities = probabilities / (click + negative_rate * (1 - click))
        probabilities = probabilities.clamp(max=1.0)
    estimator = KnownProbabilities(probabilities.numpy(), task_parents)
    labels = y.cpu().numpy()
    labels = labels[:, 0].astype(int) if len(task_parents) == 1 else labels
    return float(scorer(estimator, np.empty((len(y), 0)), labels))


def best_epoch(net: NeuralNet) -> int:
    """Return the number in the history of the epoch whose weights a trained net has."""
    if net.kept_epoch_ is not None:
        return int(net.kept_epoch_)
    stopping = find_callback(net, BestEpochStopping)
    # 0 if no epoch was better than another, for example if all figures are NaN.
    if stopping is not None and stopping.best_epoch_:
        return int(stopping.best_epoch_)
    return int(net.history[-1, "epoch"])


def stop_reason(net: NeuralNet, n_epochs: int) -> str:
    """Say where and why a training of `n_epochs` ended, and whose weights it kept."""
    last = int(net.history[-1, "epoch"])
    stopping = find_callback(net, BestEpochStopping)
    reason = f"Stopped at epoch {last}"
    if stopping is not None and stopping.misses_ == stopping.patience:
        is_loss = stopping.monitor == "valid_loss"
        reason += (
            f": {'the validation loss' if is_loss else stopping.monitor} has not "
            f"improved for {stopping.patience} epochs"
        )
    elif n_epochs == net.max_epochs:
        reason = f"Ended at epoch {last}, the last one planned"
    elif stopping is not None and stopping.n_held:
        reason = (
            f"Ended at epoch {last}: the learning rate, held until epoch "
            f"{stopping.n_held}, has decayed to 0"
        )
    return f"{reason}; the weights are those of epoch {best_epoch(net)}."


class BestEpochStopping(EarlyStopping):  # type: ignore[misc]
    """Early stopping from `first_epoch` on, whose best weights are always restored."""

    best_epoch_: int
    best: Snapshot | None = None  # during training only
    # Whether a schedule has yet to lower the learning rate; the last epoch before that.
    is_waiting, n_held = False, 0

    def __init__(self, monitor: str, patience: int, first_epoch: int) -> None:
        super().__init__(monitor, patience=patience, threshold=0.0, sink=noop)
        self.first_epoch = first_epoch
        self._monitor(monitor)

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Reset the counters."""
        super().on_train_begin(net, **kwargs)
        self.is_waiting, self.n_held, self.best = False, 0, None
        self.n_unjudged_ = self.first_epoch - 1

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Judge an epoch, unless it is among the first ones.

        If a scorer is undefined there, the validation loss decides from then on.
        """
        if self.n_unjudged_:
            self.n_unjudged_ -= 1
            return
        is_first = self.monitor == "valid_score" and not self.best_epoch_
        if is_first and np.isnan(net.history[-1, self.monitor]):
            warn_user(
                f"early_stopping={net.scorer!r} is nan on the validation rows. The "
                "validation loss decides instead. A larger validation_fraction, or an "
                "eval_set on which the score is defined, makes it available."
            )
            self._monitor("valid_loss")
            self.dynamic_threshold_ = np.inf
        if self.is_waiting:
            self.misses_ = -self.patience  # which does not reach the patience
        super().on_epoch_end(net, **kwargs)  # which raises to end the training
        if self.best_epoch_ == net.history[-1, "epoch"]:
            self.best = Snapshot.take(net, "network")

    def _monitor(self, name: str) -> None:
        self.monitor = name
        self.lower_is_better = name.startswith(("valid_loss", "valid_log_loss"))

    def state_dict(self) -> dict[str, Any]:
        """Return the best epoch so far with its weights, and the counters."""
        return {
            "monitor": self.monitor,
            "is_waiting": self.is_waiting,
            "n_held": self.n_held,
            "unjudged": self.n_unjudged_,
            "misses": self.misses_,
            "threshold": self.dynamic_threshold_,
            "best_epoch": self.best_epoch_,
            "best_weights": None if self.best is None else self.best.states,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._monitor(state["monitor"])
        self.is_waiting, self.n_held = state["is_waiting"], state["n_held"]
        self.n_unjudged_ = state["unjudged"]
        self.misses_, self.dynamic_threshold_ = state["misses"], state["threshold"]
        self.best_epoch_ = state["best_epoch"]
        weights = state["best_weights"]
        self.best = None if weights is None else Snapshot(weights)

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Restore the weights of the best epoch, and free the memory of their copy."""
        if self.best is not None:
            self.best.restore(net)
        self.best = None

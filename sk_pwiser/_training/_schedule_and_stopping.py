"""How long to train, and at which learning rates: early stopping, and the schedule."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from inspect import signature
from math import ceil, sqrt
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback

from sk_pwiser._rows._batches import TrainingRows
from sk_pwiser._training import _callbacks
from sk_pwiser._training._evaluation import FIGURES, GROUPED, grouped_aucs, task_aucs
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
        known = signature(kind).parameters
        if callback is kind and "monitor" in known:
            monitor = known["monitor"].default
        names = *LOSSES, "valid_auc", GROUPED
        if isinstance(monitor, str) and monitor.startswith(names):
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
    found = re.match(f"valid_({'|'.join(FIGURES)})_", monitor or "")
    if monitor is None or found is None or valid is None:
        return monitor
    figure, monitored = found[1], monitor[found.end() :]
    y, weights = valid.column("y"), valid.column("sample_weight")
    scores = torch.zeros_like(y)
    needs, aucs = "both labels", task_aucs(y, scores, weights)
    if figure == "grouped_auc":
        needs, aucs = "a group with both labels", grouped_aucs(valid, scores)
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


class StatefulCallback(Callback):  # type: ignore[misc]
    """A callback whose attributes are in checkpoints."""

    def state_dict(self) -> dict[str, Any]:
        """Return the attributes."""
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        if state.keys() != vars(self).keys():
            raise ValueError(f"its {type(self).__name__} is that of another version")
        self.__dict__.update(state)


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

    @classmethod
    def of(
        cls,
        stopping: "BestEpochStopping",
        best_epoch: int,
        *,
        stop_reason: str,
        level: list[float] | None,
    ) -> "FirstStage":
        """Return what the early stopping of a new net has found."""
        n_epochs, n_held, n_decay = best_epoch, best_epoch, 0
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
        )


# Lower values of these figures are better. Early stopping and the schedule compare the
# other ones with the opposite sign.
LOSSES = "valid_loss", "valid_log_loss"


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
        value = value if self.monitor.startswith(LOSSES) else -value
        if value < self.lowest_:
            self.lowest_, self.misses_ = value, 0
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


# Steps until the rate is at its full height, at most this share of all steps: Adam's
# first steps are too long for new embeddings.
WARM_UP_STEPS, WARM_UP_SHARE = 50, 0.1
# The constant rate ends if the validation loss has not fallen by this share of itself
# for this number of steps, so that small and large tables are judged alike, ...
SMALLEST_GAIN, PATIENCE_STEPS = 1e-3, 75
# ... or if it has lasted for both of these numbers: the decay then gains most of what
# is left.
MOST_STEPS, MOST_EPOCHS = 500, 10
# In small tables a few epochs are a dozen steps, in which narrow embeddings may still
# be near 0. After a best epoch in the warm-up, the patience has at least these steps.
WARM_UP_PATIENCE_STEPS = 30
# The decay takes this share of the steps before it, at least this number.
DECAY_RATIO, LEAST_DECAY_STEPS = 0.5, 40
# In updates, the share of the full rate after n steps is at least LAST_SHARE, otherwise
# FIRST_SHARE / sqrt(1 + n). A new model needs long steps: twenty calls of 1,000
# rows take twenty steps only. A fitted one loses AUC by them.
FIRST_SHARE = 3.0
LAST_SHARE = 0.3


class Schedule(Callback):  # type: ignore[misc]
    """Sets the learning rates of each step to a share of the full ones."""

    n_steps: float
    rates: list[float]  # the full ones

    def on_batch_begin(
        self, net: NeuralNet, training: bool = False, **kwargs: Any
    ) -> None:
        """Set the learning rates of a step."""
        if training:
            share = self._share(net)
            groups = net.optimizer_.param_groups
            for group, rate in zip(groups, self.rates, strict=True):
                group["lr"] = share * rate
            self.n_steps += 1
            net.history.record("lr", share * net.lr)  # of the epoch's last step

    def _share(self, net: NeuralNet) -> float:
        """Return the share of the full rates in the next step."""
        raise NotImplementedError

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Let a later training begin at the full rates."""
        for group, rate in zip(net.optimizer_.param_groups, self.rates, strict=True):
            group["lr"] = rate


class UpdateRate(Schedule):
    """Lowers the learning rate over the first steps of a model, for `partial_fit`."""

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Count the steps of earlier trainings."""
        self.rates = [group["lr"] for group in net.optimizer_.param_groups]
        states = net.optimizer_.state.values()
        counted = (float(state["step"]) for state in states if "step" in state)
        # SGD does not count its steps: there was at least one per epoch or update.
        self.n_steps = max(counted, default=float(len(net.history)))

    def _share(self, net: NeuralNet) -> float:
        share = max(LAST_SHARE, FIRST_SHARE / sqrt(1 + self.n_steps))
        optimizer = net.optimizer_
        if isinstance(optimizer, torch.optim.RMSprop):
            # Its mean of squared gradients starts at 0, which Adam corrects: without
            # this factor, the first step would be ten times too long at alpha = 0.99.
            alpha = max(group["alpha"] for group in optimizer.param_groups)
            share *= sqrt(1 - alpha ** (1 + self.n_steps))
        return share


class WarmupStableDecay(Schedule, StatefulCallback):
    """Raises the learning rate linearly, holds it, and lowers it linearly to 0.

    With early stopping, the rate is held as long as the monitored figure of the
    validation rows improves. Training then goes back to the best epoch and decays from
    there. A second stage on all rows holds it, and lowers it, for the epochs that have
    led to the best weights of the first stage. Otherwise, the number of epochs is
    known, and the last third decays.

    References
    ----------
    Hu et al. (2024). "MiniCPM: Unveiling the potential of small language models with
    scalable training strategies." arXiv 2404.06395, section 4.
    """

    # The first and the last step of the decay, once early stopping has begun it.
    decay: tuple[float, float] | None

    def on_train_begin(self, net: NeuralNet, X: Any = None, **kwargs: Any) -> None:
        """Reset the schedule."""
        self.rates = [group["lr"] for group in net.optimizer_.param_groups]
        self.n_steps, self.n_epochs, self.decay = 0, 0, None
        # The steps of an epoch are estimated until one is complete.
        self.epoch_steps = max(1.0, ceil(len(X.train) / net.batch_size))
        # A second stage warms up as the first one, whose length was not known yet.
        n_epochs = net.max_epochs
        if net.first_stage is not None:
            n_epochs = net.settings.max_epochs
        n_steps = n_epochs * self.epoch_steps
        self.warm_up: float = min(WARM_UP_STEPS, WARM_UP_SHARE * n_steps)
        # The best monitored figure so far, with the sign that makes lower better.
        self.best, self.best_step = np.inf, 0.0
        if net.stopping is not None:
            net.stopping.is_waiting = True

    def _share(self, net: NeuralNet) -> float:
        step = self.n_steps + 0.5  # its middle, so that no step has the rate 0
        rising, falling, decay = step / self.warm_up, 1.0, self.decay
        first_stage = net.first_stage
        if first_stage is not None:
            begin = first_stage.n_held * self.epoch_steps
            if first_stage.n_decay:
                decay = begin, begin + first_stage.n_decay * self.epoch_steps
        elif net.stopping is None:  # the number of epochs is known
            total = net.max_epochs * self.epoch_steps
            decay = total / (1 + DECAY_RATIO), total
        if decay is not None:
            begin, end = decay
            falling = max(0.0, (end - step) / (end - begin))
        return min(1.0, rising, falling)

    def _restart_average(self, net: NeuralNet) -> None:
        """Let the decay of a second stage begin as that of the first one."""
        first_stage = net.first_stage
        if first_stage is None or not first_stage.n_decay or net.average_ is None:
            return
        if self.n_epochs == first_stage.n_held:
            net.average_.restart()

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """End the constant rate if it no longer helps, or if the epochs run out.

        After the decay, end the training.
        """
        self.n_epochs += 1
        stopping = net.stopping
        if stopping is not None and self.decay is not None:
            net.stop_training_ |= self.n_steps >= self.decay[1]
            return
        self.epoch_steps = self.n_steps / self.n_epochs
        if stopping is None:
            self._restart_average(net)
            return
        value, least_gain = net.history[-1, stopping.monitor], 0.0
        if not stopping.monitor.startswith(LOSSES):
            value = -value
        elif np.isfinite(self.best):
            least_gain = SMALLEST_GAIN * abs(self.best)
        if value < self.best - least_gain:
            self.best, self.best_step = value, self.n_steps
        n_left = net.max_epochs - self.n_epochs
        patience = min(PATIENCE_STEPS, stopping.patience * self.epoch_steps)
        if self.best_step <= self.warm_up:
            patience = max(patience, WARM_UP_PATIENCE_STEPS)
        # A gain that is too small in one epoch may be large enough over two.
        if stopping.best_epoch_ == net.history[-1, "epoch"]:
            patience = max(patience, 2 * self.epoch_steps)
        is_stuck = self.n_steps - self.best_step >= patience
        is_long = self.n_steps >= MOST_STEPS and self.n_epochs >= MOST_EPOCHS
        is_late = n_left <= max(1, DECAY_RATIO * self.n_epochs)
        if stopping.n_unjudged_ or not (is_stuck or is_long or is_late):
            return
        # The decay begins with the weights of the best epoch, and takes whole epochs.
        if stopping.best is not None:
            _callbacks.set_states(net, stopping.best)
            if net.average_ is not None:
                net.average_.restart()
        # From here on, epochs without improvement count.
        stopping.is_waiting, stopping.misses_ = False, 0
        stopping.n_held = int(net.history[-1, "epoch"])
        stopping.n_best_held = stopping.best_epoch_
        n_steps = max(LEAST_DECAY_STEPS, DECAY_RATIO * self.best_step)
        n_epochs = min(n_left, max(1, round(n_steps / self.epoch_steps)))
        stopping.n_decay = n_epochs
        self.decay = self.n_steps, self.n_steps + n_epochs * self.epoch_steps

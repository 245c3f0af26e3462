"""The learning rates of the steps: of a fit, and of updates."""

from math import ceil, sqrt
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback

from sk_pwiser._training import _callbacks
from sk_pwiser._training._early_stopping import LOWER_IS_BETTER
from sk_pwiser._training._stateful_callback import StatefulCallback

# Steps until the rate is at its full height: Adam's first steps are too long for new
# embeddings.
WARM_UP_STEPS = 50

# They are at most this share of all steps.
WARM_UP_SHARE = 0.1

# The constant rate ends if the validation loss has not fallen by this share of itself
SMALLEST_GAIN = 1e-3

# for this number of steps, so that small and large tables are judged alike, ...
PATIENCE_STEPS = 75

# ... or if it has lasted for so many steps
MOST_STEPS = 500

# and epochs: the decay then gains most of what is left.
MOST_EPOCHS = 10

# In small tables a few epochs are a dozen steps, in which narrow embeddings may still
# be near 0. After a best epoch in the warm-up, the patience has at least these steps.
WARM_UP_PATIENCE_STEPS = 30

# The decay takes this share of the steps before it, ...
DECAY_RATIO = 0.5

# ... and at least this number.
LEAST_DECAY_STEPS = 40

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
        self.n_steps = 0
        self.n_epochs = 0
        self.decay = None
        # The steps of an epoch are estimated until one is complete.
        self.epoch_steps = max(1.0, ceil(len(X.train) / net.batch_size))
        # A second stage warms up as the first one, whose length was not known yet.
        n_epochs = net.max_epochs
        if net.first_stage is not None:
            n_epochs = net.settings.max_epochs
        n_steps = n_epochs * self.epoch_steps
        self.warm_up: float = min(WARM_UP_STEPS, WARM_UP_SHARE * n_steps)
        # The best monitored figure so far, with the sign that makes lower better.
        self.best = np.inf
        self.best_step = 0.0
        if net.stopping is not None:
            net.stopping.is_waiting = True

    def _share(self, net: NeuralNet) -> float:
        step = self.n_steps + 0.5  # its middle, so that no step has the rate 0
        rising = step / self.warm_up
        falling = 1.0
        decay = self.decay
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
        value = net.history[-1, stopping.monitor]
        least_gain = 0.0
        if not stopping.monitor.startswith(LOWER_IS_BETTER):
            value = -value
        elif np.isfinite(self.best):
            least_gain = SMALLEST_GAIN * abs(self.best)
        if value < self.best - least_gain:
            self.best = value
            self.best_step = self.n_steps
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
        stopping.is_waiting = False
        stopping.misses_ = 0
        stopping.n_held = int(net.history[-1, "epoch"])
        stopping.n_best_held = stopping.best_epoch_
        n_steps = max(LEAST_DECAY_STEPS, DECAY_RATIO * self.best_step)
        n_epochs = min(n_left, max(1, round(n_steps / self.epoch_steps)))
        stopping.n_decay = n_epochs
        self.decay = self.n_steps, self.n_steps + n_epochs * self.epoch_steps

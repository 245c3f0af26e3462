"""The schedule of the learning rate, in `fit` and in updates."""

from collections.abc import Mapping
from math import ceil, sqrt
from typing import Any

import numpy as np
from skorch import NeuralNet
from skorch.callbacks import Callback

from sk_pwiser._training._callbacks import find_callback
from sk_pwiser._training._early_stopping import BestEpochStopping

# Steps until the rate is at its full height, at most this share of all steps: Adam's
# first steps are too long for new embeddings.
WARM_UP_STEPS, WARM_UP_SHARE = 50, 0.1
# The constant rate ends if the validation loss has not fallen by this share of itself
# for this number of steps, so that small and large tables are judged alike, ...
SMALLEST_GAIN, PATIENCE_STEPS = 1e-3, 75
# ... or if it has lasted for both of these numbers: the decay then gains most of what
# is left.
MOST_STEPS, MOST_EPOCHS = 500, 10
# The decay takes this share of the steps before it, at least this number.
DECAY_RATIO, LEAST_DECAY_STEPS = 0.5, 40
# In updates, the share of the full rate after n steps is at least LAST_SHARE, otherwise
# FIRST_SHARE / sqrt(1 + n). A new model needs long steps: twenty calls of 1,000
# rows take twenty steps only. A fitted one loses AUC by them.
FIRST_SHARE, LAST_SHARE = 3.0, 0.3


class Schedule(Callback):  # type: ignore[misc]
    """Sets the learning rates of each step to a share of the full ones."""

    n_steps: float

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Note the full rates."""
        self.rates = [group["lr"] for group in net.optimizer_.param_groups]

    def on_batch_begin(
        self, net: NeuralNet, training: bool = False, **kwargs: Any
    ) -> None:
        """Set the learning rates of a step."""
        if training:
            share = self._share()
            groups = net.optimizer_.param_groups
            for group, rate in zip(groups, self.rates, strict=True):
                group["lr"] = share * rate
            self.n_steps += 1
            net.history.record("lr", share * net.lr)  # of the epoch's last step

    def _share(self) -> float:
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
        super().on_train_begin(net, **kwargs)
        states = net.optimizer_.state.values()
        counted = (float(state["step"]) for state in states if "step" in state)
        # SGD does not count its steps: there was at least one per epoch or update.
        self.n_steps = max(counted, default=float(len(net.history)))

    def _share(self) -> float:
        return max(LAST_SHARE, FIRST_SHARE / sqrt(1 + self.n_steps))


class WarmupStableDecay(Schedule):
    """Raises the learning rate linearly, holds it, and lowers it linearly to 0.

    With early stopping, the rate is held as long as the monitored figure of the
    validation rows improves. Training then goes back to the best epoch and decays from
    there. Otherwise, the number of epochs is known, and the last third decays.

    References
    ----------
    Hu et al. (2024). "MiniCPM: Unveiling the potential of small language models with
    scalable training strategies." arXiv 2404.06395, section 4.
    """

    # The first and the last step of the decay, once they are known.
    decay: tuple[float, float] | None
    epoch_steps: float
    best_step: float
    warm_up: float  # steps

    def on_train_begin(self, net: NeuralNet, X: Any = None, **kwargs: Any) -> None:
        """Reset the schedule."""
        super().on_train_begin(net, **kwargs)
        self.n_steps, self.n_epochs, self.decay = 0, 0, None
        # The steps of an epoch are estimated until one is complete.
        self.epoch_steps = max(1, ceil(len(X.train) / net.batch_size))
        self.warm_up = min(
            WARM_UP_STEPS, WARM_UP_SHARE * net.max_epochs * self.epoch_steps
        )
        # The best monitored figure so far, with the sign that makes lower better.
        self.best, self.best_step = np.inf, 0
        stopping = find_callback(net, BestEpochStopping)
        if stopping is not None:
            stopping.is_waiting = True

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Plan the decay if the number of epochs is known.

        A fit that goes on from a checkpoint may have more epochs than it had before.
        """
        if find_callback(net, BestEpochStopping) is None:
            total = net.max_epochs * self.epoch_steps
            self.decay = total / (1 + DECAY_RATIO), float(total)

    def _share(self) -> float:
        step = self.n_steps + 0.5  # its middle, so that no step has the rate 0
        rising, falling = step / self.warm_up, 1.0
        if self.decay is not None:
            begin, end = self.decay
            falling = max(0.0, (end - step) / (end - begin))
        return min(1.0, rising, falling)

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """End the constant rate or, after the decay, the training."""
        self.n_epochs += 1
        stopping = find_callback(net, BestEpochStopping)
        if stopping is not None and self.decay is not None:
            net.stop_training_ |= self.n_steps >= self.decay[1]
            return
        self.epoch_steps = self.n_steps / self.n_epochs
        if stopping is not None:
            self._judge(net, stopping)

    def _judge(self, net: NeuralNet, stopping: BestEpochStopping) -> None:
        """End the constant rate if it no longer helps, or if the epochs run out."""
        value, least_gain = net.history[-1, stopping.monitor], 0.0
        if not stopping.lower_is_better:
            value = -value
        elif np.isfinite(self.best):
            least_gain = SMALLEST_GAIN * abs(self.best)
        if value < self.best - least_gain:
            self.best, self.best_step = value, self.n_steps
        n_left = net.max_epochs - self.n_epochs
        patience = min(PATIENCE_STEPS, stopping.patience * self.epoch_steps)
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
            stopping.best.restore(net)
            if net.average_ is not None:
                net.average_.restart()
        # From here on, epochs without improvement count.
        stopping.is_waiting, stopping.misses_ = False, 0
        stopping.n_held = int(net.history[-1, "epoch"])
        n_steps = max(LEAST_DECAY_STEPS, DECAY_RATIO * self.best_step)
        n_epochs = min(n_left, max(1, round(n_steps / self.epoch_steps)))
        self.decay = self.n_steps, self.n_steps + n_epochs * self.epoch_steps

    def state_dict(self) -> dict[str, Any]:
        """Return where the schedule is."""
        return {name: getattr(self, name) for name in STATE}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name in STATE:
            setattr(self, name, state[name])


STATE = ("warm_up", "n_steps", "n_epochs", "epoch_steps", "decay", "best", "best_step")

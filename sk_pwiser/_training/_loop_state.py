"""What the training loop holds beside the net, for checkpoints."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from skorch import NeuralNet
from skorch.callbacks import LRScheduler

from sk_pwiser._training._divergence import LossCheck
from sk_pwiser._training._weight_average import WeightAverage


@dataclass
class LoopState:
    """State of a training loop between two epochs, beside that of the net.

    Parameters
    ----------
    average : WeightAverage or None
        The average of the weights.
    check : LossCheck or None
        Compares losses with those that training started from.
    n_complete : int, default=0
        Number of epochs of this training that are complete.
    """

    average: WeightAverage | None
    check: LossCheck | None
    n_complete: int = 0

    def state_dict(self, net: NeuralNet) -> dict[str, Any]:
        """Return the state at the end of an epoch.

        The state of a callback is included if it is a schedule of the learning rate,
        or has the methods `state_dict` and `load_state_dict`.
        """
        return {
            "n_complete": self.n_complete,
            "is_stopped": bool(net.stop_training_),
            "average": None if self.average is None else self.average.state_dict(),
            "check": None if self.check is None else self.check.state_dict(),
            "callbacks": {
                name: _stateful(callback).state_dict()
                for name, callback in net.callbacks_
                if has_state(callback)
            },
        }

    def load_state_dict(self, state: Mapping[str, Any], net: NeuralNet) -> None:
        """Restore what `state_dict` returned, after the state of the net."""
        self.n_complete = state["n_complete"]
        net.stop_training_ = state["is_stopped"]
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if self.check is not None:
            self.check.load_state_dict(state["check"])
        for name, callback in net.callbacks_:
            if name in state["callbacks"] and has_state(callback):
                _stateful(callback).load_state_dict(state["callbacks"][name])


class LoopObserver(Protocol):
    """What saves the state of a training loop, and may restore it."""

    def begin(self, net: Any, loop: LoopState) -> None:
        """Restore an earlier state, if there is one, before the first epoch."""

    def save(self, net: Any, loop: LoopState) -> None:
        """Save the state at the end of an epoch."""


def has_state(callback: Any) -> bool:
    """Return whether the state of a callback is in checkpoints."""
    if isinstance(callback, LRScheduler):
        return True
    return hasattr(callback, "state_dict") and hasattr(callback, "load_state_dict")


def _stateful(callback: Any) -> Any:
    """Return what has the state of a callback: itself, or its schedule."""
    return callback.lr_scheduler_ if isinstance(callback, LRScheduler) else callback

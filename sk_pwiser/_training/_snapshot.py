"""Copies of the state of a net, to which training or a later fit goes back."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

# Parts of a net with a state, by their names in snapshots and files.
PARTS = {"network": "module_", "criterion": "criterion_", "optimizer": "optimizer_"}


@dataclass(frozen=True)
class Snapshot:
    """The states of some of the `PARTS` of a net, as they were after an epoch."""

    states: dict[str, Any]
    epoch: int = 0

    @classmethod
    def take(cls, net: Any, *parts: str, copies: bool = True) -> "Snapshot":
        """Return the states of a net; without copies, training changes them."""
        states = {part: getattr(net, PARTS[part]).state_dict() for part in parts}
        # A user's modules may have a state that is no tensor.
        return cls(deepcopy(states) if copies else states, len(net.history))

    def restore(self, net: Any) -> None:
        """Set the states of a net that has the same parameters."""
        for part, state in self.states.items():
            getattr(net, PARTS[part]).load_state_dict(state)

"""A callback whose attributes are in checkpoints."""

from collections.abc import Mapping
from typing import Any

from skorch.callbacks import Callback


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

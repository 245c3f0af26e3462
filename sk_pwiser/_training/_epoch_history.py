"""The history of a training: one row per epoch."""

from typing import Any

import numpy as np
from skorch.history import History


class EpochHistory(History):  # type: ignore[misc]
    """A history with one row per epoch, which contains one row for all batches.

    skorch's own history adds a row per batch: its memory and time grow with the steps.
    """

    def new_batch(self) -> None:
        """Add the row of the batches, if the epoch has none yet."""
        batches = self[-1]["batches"]
        if not batches:
            batches.append({})

    def record_batch(self, attr: str, value: Any) -> None:
        """Record a figure of a batch; the epoch's figure is that of its last batch."""
        super().record_batch(attr, value)
        self.record(attr, value)


def record_best(
    history: History, key: str, value: float, *, lower_is_better: bool = True
) -> None:
    """Record a figure of an epoch, and whether it is the best so far, for PrintLog."""
    # The epoch of the best figure so far, or -1. It is looked for only if it was taken
    # back: each of thousands of updates would read the rows of all others.
    places: dict[str, int] = history.__dict__.setdefault("_places_of_bests", {})
    last = len(history) - 1
    is_best_key = f"{key}_best"
    place = places.get(key, last)
    if place >= last:
        backwards = range(last - 1, -1, -1)
        place = next((k for k in backwards if history[k].get(is_best_key)), -1)
    sign = 1 if lower_is_better else -1
    is_best = sign * value < (sign * history[place][key] if place >= 0 else np.inf)
    places[key] = last if is_best else place
    history.record(key, value)
    history.record(is_best_key, is_best)

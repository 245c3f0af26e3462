"""The history of a training: figures per epoch."""

from typing import Any

from skorch.history import History


class EpochHistory(History):  # type: ignore[misc]
    """A history with a row per epoch, and in it one row for all batches.

    skorch's own adds a row per batch, whose memory and time grow with the steps of
    training. Callbacks that record a figure of a batch, or read the last batch, find
    the one row.
    """

    def new_batch(self) -> None:
        """Add the row of the batches, if the epoch has none yet."""
        batches = self[-1]["batches"]
        if not batches:
            batches.append({})

    def record_batch(self, attr: str, value: Any) -> None:
        """Record a figure of a batch; the epoch keeps that of the last one."""
        super().record_batch(attr, value)
        self.record(attr, value)

"""A progress bar over the batches of an epoch."""

from typing import Any

from skorch import NeuralNet
from skorch.callbacks import ProgressBar


class BatchProgressBar(ProgressBar):  # type: ignore[misc]
    """A progress bar without figures of single batches.

    skorch's own class reads these from the history, which has rows per epoch only.
    """

    def on_batch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Advance by one batch."""
        self.pbar_.update()

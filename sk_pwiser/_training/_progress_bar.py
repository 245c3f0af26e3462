"""A progress bar over the batches of an epoch."""

import sys
from typing import Any

from skorch import NeuralNet
from skorch.callbacks import ProgressBar


class BatchProgressBar(ProgressBar):  # type: ignore[misc]
    """A progress bar without figures of single batches.

    skorch's own class reads these from the history, which has rows per epoch only. The
    bar is erased at the end of the epoch. Where it cannot be, since the output is
    neither a terminal nor a notebook, there is none.
    """

    pbar_: Any = None

    def on_epoch_begin(self, net: NeuralNet, *args: Any, **kwargs: Any) -> None:
        """Show a new bar."""
        if self._use_notebook() or sys.stderr.isatty():
            super().on_epoch_begin(net, *args, **kwargs)

    def on_batch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Advance by one batch."""
        if self.pbar_ is not None:
            self.pbar_.update()

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Erase the bar."""
        self.close()

    def close(self) -> None:
        """Erase the bar, if there is one; also of an epoch that was not completed."""
        if self.pbar_ is not None:
            self.pbar_.close()
            self.pbar_ = None


def close_bars(net: NeuralNet) -> None:
    """Erase the progress bars of a net whose training was interrupted."""
    for _, callback in getattr(net, "callbacks_", []):
        if isinstance(callback, BatchProgressBar):
            callback.close()

"""Where and why a training ended."""

from typing import Any


def stop_reason(net: Any, n_epochs: int, kept_epoch: int) -> str:
    """Say where and why a training of `n_epochs` ended, and whose weights it kept."""
    last = int(net.history[-1, "epoch"])
    stopping = net.stopping
    reason = f"Stopped at epoch {last}"
    if stopping is not None and stopping.misses_ == stopping.patience:
        is_loss = stopping.monitor == "valid_loss"
        reason += (
            f": {'the validation loss' if is_loss else stopping.monitor} has not "
            f"improved for {stopping.patience} epochs"
        )
    elif n_epochs == net.max_epochs:
        reason = f"Ended at epoch {last}, the last one planned"
    elif stopping is not None and stopping.n_held:
        reason = (
            f"Ended at epoch {last}: the learning rate, held until epoch "
            f"{stopping.n_held}, has decayed to 0"
        )
    return f"{reason}; the weights are those of epoch {kept_epoch}."

"""Callbacks: which can run, and which of them end training on an interrupt."""

import inspect
from copy import deepcopy
from typing import Any

from skorch import NeuralNet
from skorch.callbacks import (
    BatchScoring,
    Callback,
    EarlyStopping,
    GradientNormClipping,
    PassthroughScoring,
)


class KeepOnInterrupt(Callback):  # type: ignore[misc]
    """Let Ctrl-C end training and keep the epochs trained so far.

    Without this callback, a `KeyboardInterrupt` propagates out of `fit`, and an earlier
    fit stays. With it in `callbacks`, an interrupt ends training, `fit` returns, and a
    warning says so. The network then has the weights of the last complete epoch, with
    early stopping those of the best one. If no epoch is complete, and in `partial_fit`,
    the interrupt propagates all the same.

    Each epoch copies the weights, so that memory for a second copy is needed. A search
    continues with its next candidate after an interrupt of this kind.

    Attributes
    ----------
    weights_ : dict or None
        The weights of the last complete epoch, during training only.

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.callbacks import KeepOnInterrupt
    >>> model = MultiTaskCTRCVRClassifier(callbacks=[KeepOnInterrupt()])
    """

    weights_: dict[str, Any] | None = None

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Forget the weights of an earlier training.

        Parameters
        ----------
        net : NeuralNet
            The net that is trained.
        **kwargs : dict
            What skorch passes further.
        """
        self.weights_ = None

    def keep(self, net: NeuralNet) -> None:
        """Copy the weights at the end of an epoch.

        Parameters
        ----------
        net : NeuralNet
            The net that is trained.
        """
        self.weights_ = deepcopy(net.module_.state_dict())

    def restore(self, net: NeuralNet) -> bool:
        """Restore the weights of the last complete epoch.

        Parameters
        ----------
        net : NeuralNet
            The net that is trained.

        Returns
        -------
        bool
            Whether there is a complete epoch.
        """
        if self.weights_ is None:
            return False
        net.module_.load_state_dict(self.weights_)
        return True

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Free the memory of the copy.

        Parameters
        ----------
        net : NeuralNet
            The net that is trained.
        **kwargs : dict
            What skorch passes further.
        """
        self.weights_ = None


def asks_to_stop(callback: Callback) -> bool:
    """Return whether a callback of skorch has raised KeyboardInterrupt to end training.

    skorch's early stopping does so if its patience is at an end.
    """
    is_stopping = isinstance(callback, EarlyStopping)
    return is_stopping and callback.misses_ == callback.patience


def check_callbacks(callbacks: Any) -> None:
    """Raise a TypeError for what is not a skorch callback that the net can run."""
    for entry in callbacks or []:
        if _is_named(entry) and not isinstance(entry[0], str):
            raise TypeError(
                f"callbacks must name callbacks by strings; got {entry[0]!r}."
            )
        callback = _without_name(entry)
        kind = callback if isinstance(callback, type) else type(callback)
        if not issubclass(kind, Callback):
            raise TypeError(f"callbacks must hold callbacks of skorch; got {entry!r}.")
        if issubclass(kind, BatchScoring | PassthroughScoring):
            raise TypeError(
                f"callbacks holds a {kind.__name__}, which averages figures of single "
                "batches; the history has figures per epoch only. Use EpochScoring."
            )
        if getattr(callback, "log_on_batch_end", False):
            raise TypeError(
                f"callbacks holds a {kind.__name__} with log_on_batch_end=True, which "
                "logs figures of single batches; the history has figures per epoch "
                "only. Set log_on_batch_end=False."
            )


def check_monitors(callbacks: Any) -> None:
    """Raise for callbacks that read validation figures, if there are none.

    Raises
    ------
    ValueError
        If the `monitor` of a callback is such a figure.
    """
    for entry in map(_without_name, callbacks or []):
        monitor = _monitor_of(entry)
        if monitor.startswith(("valid_loss", "valid_auc")):
            kind = entry if isinstance(entry, type) else type(entry)
            raise ValueError(
                f"callbacks holds {kind.__name__}, whose monitor is {monitor!r}, but "
                "there are no validation rows. Set early_stopping to True, or pass an "
                "eval_set to fit; partial_fit has none."
            )


def clips_gradients(callbacks: Any) -> bool:
    """Return whether one of the callbacks clips gradients, which must be dense then."""
    return any(
        isinstance(callback, GradientNormClipping) or callback is GradientNormClipping
        for callback in map(_without_name, callbacks or [])
    )


def _is_named(entry: Any) -> bool:
    return isinstance(entry, tuple) and len(entry) == 2


def _without_name(entry: Any) -> Any:
    return entry[1] if _is_named(entry) else entry


def _monitor_of(callback: Any) -> str:
    """Return the column of the history that a callback of skorch reads, or ""."""
    if not isinstance(callback, type):
        monitor = getattr(callback, "monitor", "")
    else:
        parameter = inspect.signature(callback).parameters.get("monitor")
        monitor = "" if parameter is None else parameter.default
    return monitor if isinstance(monitor, str) else ""

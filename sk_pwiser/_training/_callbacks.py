"""Callbacks of skorch and of scikit-learn, and copies of what a net has learnt."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from functools import partial, wraps
from traceback import walk_tb
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import torch
from skorch import NeuralNet
from skorch.callbacks import (
    BatchScoring,
    Callback,
    LRScheduler,
    PassthroughScoring,
    PrintLog,
    ProgressBar,
)
from skorch.callbacks import Freezer as Freezer  # for `transfer`

try:
    from sklearn.callback import CallbackSupportMixin as CallbackSupportMixin
    from sklearn.callback import with_callbacks
except ImportError:  # scikit-learn before 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """A mixin class without `set_callbacks`."""

    def with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
        """Return the method unchanged."""
        return method


# Parts of a net with a state, by their names in copies and files.
PARTS = {"network": "module_", "criterion": "criterion_", "optimizer": "optimizer_"}


def copy_states(net: Any, *parts: str) -> dict[str, Any]:
    """Return copies of the states of some of the `PARTS` of a net."""
    # A user's modules may have a state that is no tensor.
    return deepcopy({part: getattr(net, PARTS[part]).state_dict() for part in parts})


def set_states(net: Any, states: Mapping[str, Any]) -> None:
    """Set the states of parts of a net that has the same parameters."""
    for part, state in states.items():
        if part == "optimizer":
            net.optimize_new_parameters()  # a loaded network may have more
        getattr(net, PARTS[part]).load_state_dict(state)


class KeepOnInterrupt(Callback):  # type: ignore[misc]
    """Let Ctrl-C end training and keep the epochs trained so far.

    Without this callback, a `KeyboardInterrupt` propagates out of `fit`, and an earlier
    fit stays. With it in `callbacks`, an interrupt ends training, `fit` returns, and a
    warning is issued. The network then has the weights of the last complete epoch or,
    with early stopping, of the best epoch. If no epoch is complete, and in
    `partial_fit`, the interrupt propagates nevertheless.

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


def check_callbacks(callbacks: Any) -> None:
    """Raise a TypeError for an entry that is not a callback that the net can run."""
    callbacks_and_kinds = with_kinds(callbacks)
    for entry, (callback, kind) in zip(
        callbacks or [], callbacks_and_kinds, strict=True
    ):
        is_named = callback is entry or isinstance(entry[0], str)
        if not (is_named and issubclass(kind, Callback)):
            raise TypeError(
                "callbacks must hold callbacks of skorch, or pairs of a string and a "
                f"callback; got {entry!r}."
            )
        averages = issubclass(kind, BatchScoring | PassthroughScoring)
        if averages or getattr(callback, "log_on_batch_end", False):
            raise TypeError(
                f"callbacks holds a {kind.__name__}, which reads figures of single "
                "batches, not epochs. Use EpochScoring, or set log_on_batch_end=False."
            )


def with_kinds(callbacks: Any) -> list[tuple[Any, type]]:
    """Return the callbacks, which may be named or classes, each with its class."""
    callbacks_and_kinds = []
    for entry in callbacks or []:
        callback = entry[1] if isinstance(entry, tuple) and len(entry) == 2 else entry
        kind = callback if isinstance(callback, type) else type(callback)
        callbacks_and_kinds.append((callback, kind))
    return callbacks_and_kinds


# A callback, and the state of its schedule at the end of a training.
Position = tuple[LRScheduler, dict[str, Any]]


def begin_schedule(net: Any, callback: LRScheduler) -> None:
    """Create the schedule of a callback, at its position if it has one."""
    # With the history, skorch would begin at the number of its epochs.
    optimizer = net.optimizer_
    current_arguments = group_arguments(optimizer)
    callback.on_train_begin(SimpleNamespace(history=[], optimizer_=optimizer))
    for positioned, state in net.schedules_:
        if positioned is callback:
            callback.lr_scheduler_.load_state_dict(deepcopy(state))
            pairs = zip(optimizer.param_groups, current_arguments, strict=True)
            for group, arguments in pairs:
                group.update(arguments)


def release(callbacks: Iterable[tuple[str, Any]]) -> list[Position]:
    """Return the positions of the schedules among the named callbacks of a net.

    The callbacks forget the optimiser and the copied weights of the training.
    """
    positions: list[Position] = []
    # Otherwise a pickle of the estimator would contain the optimiser a second time, in
    # a form that only a machine with its device can read.
    for _, callback in callbacks:
        if isinstance(callback, KeepOnInterrupt):
            callback.weights_ = None
        if isinstance(callback, TrainingProgressBar):  # of an interrupted training
            callback.close()
        if isinstance(callback, LRScheduler) and callback.lr_scheduler_ is not None:
            schedule: Any = callback.lr_scheduler_
            positions.append((callback, deepcopy(schedule.state_dict())))
            inner_schedules = getattr(schedule, "_schedulers", [])
            for with_optimizer in (schedule, *inner_schedules):
                with_optimizer.optimizer = None
    return positions


def group_arguments(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Return the arguments of each group of parameters."""
    return [
        {key: value for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]


class FitTask(Callback):  # type: ignore[misc]
    """A task of a fit for scikit-learn's callbacks: all of it, or an epoch.

    Callbacks may read `data`: `X`, `y` and `metadata`.
    """

    def __init__(
        self, estimator: Any, data: dict[str, Any], new_context: Callable[..., Any]
    ) -> None:
        self.estimator = estimator
        self.data = data
        self.new_context = new_context

    @classmethod
    def for_fit(cls, estimator: Any, given_rows: Any) -> "FitTask":
        """Return the task of a fit to `GivenRows`, of an estimator with callbacks."""
        weight = given_rows.sample_weight
        metadata = None if weight is None else {"sample_weight": weight}
        data = {"X": given_rows.X, "y": given_rows.Y, "metadata": metadata}
        return cls(estimator, data, estimator._init_callback_context)

    def begin(self, max_subtasks: int | None) -> None:
        """Create the context, of None or more subtasks, and call the callbacks."""
        self.context = self.new_context(max_subtasks=max_subtasks)
        self.context.call_on_fit_task_begin(estimator=self.estimator, **self.data)

    def end(self, result: Callable[[], Any]) -> Any:
        """Call the callbacks with the result; return whether one stops training."""
        return self.context.call_on_fit_task_end(
            estimator=self.estimator,
            **self.data,
            reconstruction_attributes=lambda: self.estimator._attributes(result()),
        )

    @contextmanager
    def epochs(self, net: NeuralNet, result: Callable[[], Any]) -> Iterator[None]:
        """Make the epochs of a net subtasks, while it is trained in this context."""
        self.result = result
        named_task = ("fit_task", self)
        net.callbacks_.append(named_task)
        try:
            yield
        finally:
            net.callbacks_.remove(named_task)

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Begin the task of an epoch."""
        new_context = partial(self.context.subcontext, "epoch")
        self.epoch = FitTask(self.estimator, self.data, new_context)
        self.epoch.begin(0)

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """End the task of the epoch, and training if a callback asks for it."""
        if self.epoch.end(self.result):
            net.stop_training_ = True


class StageTask(FitTask):
    """A stage of a fit, whose epochs are subtasks of the fit itself."""

    def __init__(self, fit: FitTask) -> None:
        super().__init__(fit.estimator, fit.data, fit.new_context)
        self.context = fit.context

    def begin(self, max_subtasks: int | None) -> None:
        """Do nothing: the fit has begun."""

    def end(self, result: Callable[[], Any]) -> bool:
        """Do nothing: the fit ends after its last stage."""
        return False


Method = TypeVar("Method", bound=Callable[..., Any])


def runs_callbacks(method: Method) -> Method:
    """Tear down scikit-learn's callbacks after a method; name those that raise."""
    managed = with_callbacks(method)

    @wraps(method)
    def call(estimator: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return managed(estimator, *args, **kwargs)
        except Exception as error:
            for raised in getattr(error, "exceptions", [error]):
                _name_callback(raised, getattr(estimator, "_skl_callbacks", ()))
            raise

    return cast(Method, call)


def _name_callback(error: Exception, callbacks: Any) -> None:
    """Add a note with the callback that raised an error, if one did."""
    for frame, _ in walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if isinstance(owner, FitTask):
            continue
        is_registered = any(owner is callback for callback in callbacks)
        if isinstance(owner, Callback) or is_registered:
            error.add_note(
                f"The callback {type(owner).__name__} raised this error in "
                f"{frame.f_code.co_name}. An earlier fit stays usable."
            )
            return


# Columns of the printed table, by the names of their figures in the history.
HEADERS = {
    "train_loss": "train loss",
    "valid_loss": "valid loss",
    "valid_log_loss_mean": "log loss",
    "dur": "seconds",
}
# The AUC of a task, and the loss of a value, on the validation rows.
VALID_AUC = "valid_auc_"
VALID_LOSS = "valid_loss_"


class EpochTable(PrintLog):  # type: ignore[misc]
    """skorch's table of the epochs, with the tasks in their order, in plain words."""

    def __init__(self, task_names: Sequence[str], keys_ignored: Iterable[str]) -> None:
        super().__init__(keys_ignored=keys_ignored)
        self.task_names = task_names

    def _sorted_keys(self, keys: Iterable[str]) -> list[str]:
        """Return the columns: losses, AUC per task and mean, then all others."""
        names = (*self.task_names, "mean")
        log_losses = [f"valid_log_loss_{name}" for name in names]
        aucs = [f"valid_auc_{name}" for name in names]
        first = ["epoch", "train_loss", "valid_loss", *log_losses, *aucs]
        sorted_keys: list[str] = super()._sorted_keys(keys)
        first_keys = [key for key in dict.fromkeys(first) if key in sorted_keys]
        return [*first_keys, *(key for key in sorted_keys if key not in first_keys)]

    def _yield_keys_formatted(
        self, row: dict[str, Any]
    ) -> Iterator[tuple[str, str | None]]:
        """Yield the header and the text of each column."""
        for key, text in super()._yield_keys_formatted(row):
            header = HEADERS.get(key, key)
            if key.startswith(VALID_AUC):
                header = f"AUC {key.removeprefix(VALID_AUC)}"
            elif key.startswith(VALID_LOSS):
                header = f"loss {key.removeprefix(VALID_LOSS)}"
            yield header, text

    def table(self, row: dict[str, Any]) -> Any:
        """Return the table of one epoch."""
        if not sys.stdout.isatty():
            # These mark figures by colours, whose codes do not belong in a log file.
            row = {k: v for k, v in row.items() if not k.endswith("_best")}
        return super().table(row)


class TrainingProgressBar(ProgressBar):  # type: ignore[misc]
    """A progress bar over the rows of all epochs, with the remaining time.

    Training may end before its last epoch, so the time is the longest one. The bar is
    erased after each epoch, for its line of the table, and at the end. Output that
    cannot be erased, such as a log file, gets no bar.
    """

    bar_: Any = None

    def on_epoch_begin(
        self, net: NeuralNet, dataset_train: Any = None, **kwargs: Any
    ) -> None:
        """Show the bar, from the first epoch of this call on."""
        n_rows = len(dataset_train)
        if self.bar_ is None:
            if not (self._use_notebook() or sys.stderr.isatty()):
                return
            self.bar_ = self._new_bar(
                total=n_rows * net.max_epochs,
                # Epochs of a checkpoint took no time in this call.
                initial=n_rows * net.n_complete_,
                unit=" rows",
                unit_scale=True,
                leave=False,
            )
        # As training counts them: a batch of several workers has the rows of one.
        self.bar_.n = n_rows * net.n_complete_
        self.bar_.set_description(f"Epoch {net.n_complete_ + 1} of {net.max_epochs}")

    def on_batch_end(
        self, net: NeuralNet, batch: Any = None, training: bool = False, **kwargs: Any
    ) -> None:
        """Advance by the rows of one batch."""
        if self.bar_ is not None and training:
            self.bar_.update(len(batch[1]))

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Erase the bar, which the next epoch shows again."""
        if self.bar_ is not None:
            self.bar_.clear()

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Erase the bar for good."""
        self.close()

    def close(self) -> None:
        """Erase the bar if there is one, also after an incomplete epoch."""
        if self.bar_ is not None:
            self.bar_.close()
            self.bar_ = None

    def _new_bar(self, **options: Any) -> Any:
        """Return a bar of tqdm, which skorch requires."""
        import tqdm

        if self._use_notebook():
            with suppress(ImportError):  # without ipywidgets, the bar is text
                from tqdm import notebook

                return notebook.tqdm(**options)
        return tqdm.tqdm(**options)

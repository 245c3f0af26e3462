"""Callbacks of scikit-learn: a fit and its epochs as tasks, at whose ends they run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from traceback import walk_tb
from typing import Any

from skorch import NeuralNet
from skorch.callbacks import Callback

from sk_pwiser._training._encode import GivenRows

try:
    from sklearn.callback import CallbackSupportMixin as CallbackSupportMixin
    from sklearn.callback import with_callbacks
except ImportError:  # scikit-learn before 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """A mixin class without `set_callbacks`."""

    def with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
        """Return the method unchanged."""
        return method


class FitTask:
    """A task of a fit: all of it, one of its trainings, or an epoch.

    Callbacks may read `data`: `X`, `y` and `metadata`.
    """

    def __init__(
        self, estimator: Any, data: dict[str, Any], new_context: Callable[..., Any]
    ) -> None:
        self.estimator = estimator
        self.data = data
        self.new_context = new_context

    def begin(self, max_subtasks: int | None) -> None:
        """Make the context, and tell the callbacks; None for an unknown number."""
        self.context = self.new_context(max_subtasks=max_subtasks)
        self.context.call_on_fit_task_begin(estimator=self.estimator, **self.data)

    def subtask(self, name: str) -> "FitTask":
        """Return a task within this one."""
        new_context = partial(self.context.subcontext, name)
        return FitTask(self.estimator, self.data, new_context)

    def end(self, result: Callable[[], Any]) -> bool:
        """Tell the callbacks, which may read the result; return whether one stops."""
        stops: bool = self.context.call_on_fit_task_end(
            estimator=self.estimator,
            **self.data,
            reconstruction_attributes=lambda: self.estimator._attributes(result()),
        )
        return stops

    @contextmanager
    def epochs(self, net: NeuralNet, result: Callable[[], Any]) -> Iterator[None]:
        """Make the epochs of a net subtasks, while it is trained in this context."""
        watching = ("fit_task", EpochTasks(self, result))
        net.callbacks_.append(watching)
        try:
            yield
        finally:
            net.callbacks_.remove(watching)


class EpochTasks(Callback):  # type: ignore[misc]
    """Begins and ends the task of each epoch."""

    def __init__(self, task: FitTask, result: Callable[[], Any]) -> None:
        self.task = task
        self.result = result

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Begin the task of an epoch."""
        self.epoch = self.task.subtask("epoch")
        self.epoch.begin(0)

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """End the task of the epoch, and training if a callback asks for it."""
        if self.epoch.end(self.result):
            net.stop_training_ = True


def fit_task(estimator: Any, given: GivenRows) -> FitTask | None:
    """Return the task of a fit, None for an estimator without such callbacks."""
    if not hasattr(estimator, "_skl_callbacks"):
        return None
    weight = given.sample_weight
    metadata = None if weight is None else {"sample_weight": weight}
    data = {"X": given.X, "y": given.Y, "metadata": metadata}
    return FitTask(estimator, data, estimator._init_callback_context)


def runs_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
    """Tear down scikit-learn's callbacks after a method, and name all that raise."""
    managed = with_callbacks(method)

    @wraps(method)
    def call(estimator: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return managed(estimator, *args, **kwargs)
        except Exception as error:
            for each in getattr(error, "exceptions", [error]):
                _name_callback(each, getattr(estimator, "_skl_callbacks", ()))
            raise

    return call


def _name_callback(error: Exception, callbacks: Any) -> None:
    """Add a note with the callback that raised an error, if one did."""
    for frame, _ in walk_tb(error.__traceback__):
        found = frame.f_locals.get("self")
        if isinstance(found, EpochTasks):
            continue
        if isinstance(found, Callback) or any(found is each for each in callbacks):
            error.add_note(
                f"The callback {type(found).__name__} raised this error in "
                f"{frame.f_code.co_name}. An earlier fit stays usable."
            )
            return

"""A training step as a graph: the host launches all its kernels with one call.

A graph executes the kernels of one recorded step again, on the same memory. Python code
does not run again, so that a step can be recorded only if its kernels, their shapes and
the numbers that the host passes to them are the same in each step.
"""

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import ismethod
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from skorch.callbacks import Callback, GradientNormClipping
from torch import Tensor, nn

from sk_pwiser._rows._encoded_rows import CPU, Batch
from sk_pwiser._training._callbacks import group_arguments
from sk_pwiser._training._embedding_tables import sparse_tables
from sk_pwiser._training._lr_schedule import Schedule
from sk_pwiser._utils._random import generator_on
from sk_pwiser._utils._warnings import warn_user

# Number of ordinary steps before a recording: libraries and optimisers create what they
# keep in the first steps, and the last of these steps is watched.
WARM_UP = 3

# Each shape of batches has a graph of its own; the sizes of the batches of a table
# differ by at most one row.
MAX_GRAPHS = 8

# torch can record one graph at a time.
_RECORDING = Lock()

Step = Callable[..., dict[str, Tensor]]


@contextmanager
def graphed_steps(net: Any) -> Iterator[Step]:
    """Yield the training step of a net, as graphs if the step can be recorded."""
    obstacle = next(_obstacles(net), None)
    if obstacle is not None:
        _warn(obstacle)
        yield net.train_step
        return
    steps = _GraphedSteps(net)
    current = steps.tools.current_stream(steps.device)
    # A graph cannot be recorded in the default stream: all steps run in another one.
    steps.stream.wait_stream(current)
    try:
        with _capturable(net.optimizer_), steps.tools.stream(steps.stream):
            yield steps
    finally:
        current.wait_stream(steps.stream)


def _warn(obstacle: str) -> None:
    warn_user(
        f"compile='graph' is not possible with {obstacle}. Steps run without a graph."
    )


def _obstacles(net: Any) -> Iterator[str]:
    """Yield what is known to prevent a graph, before the first step."""
    tools: Any = getattr(torch, torch.device(net.device).type, None)
    if not hasattr(tools, "CUDAGraph"):
        yield f"device={str(net.device)!r}: graphs require CUDA"
    if net.is_joint:
        yield "weights that several workers train"
    weighting = net.criterion_.weighting
    optimizer = net.optimizer_
    if weighting.needs_task_gradients:
        name = type(weighting).__name__
        yield f"weighting={name}, which needs the gradient per task"
    if net.iterator_train__sampler == "grouped":
        yield "batches of whole groups, whose sizes differ"
    if net.module_.spec.bags:
        yield "columns of lists, whose numbers of entries differ"
    if getattr(optimizer, "logs", None) is not None and sparse_tables(net.module_):
        yield "updates of large embedding tables, which are undone if they fail"
    if not all("capturable" in g or g.get("fused") for g in optimizer.param_groups):
        name = type(optimizer).__name__
        yield f"optimizer={name}, which counts its steps on the host"
    for _, callback in net.callbacks_:
        # These act on the gradients by kernels, and on the learning rates, which graphs
        # read from the device.
        if isinstance(callback, GradientNormClipping | Schedule):
            continue
        if _overrides(callback, "on_batch_begin", "on_grad_computed"):
            name = type(callback).__name__
            yield f"the callback {name}, which acts within a step"


def _overrides(callback: Callback, *methods: str) -> bool:
    kind = type(callback)
    return any(getattr(kind, name) is not getattr(Callback, name) for name in methods)


@contextmanager
def _capturable(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Let an optimiser count its steps on the device in a `with` block."""
    groups = [g for g in optimizer.param_groups if "capturable" in g]
    usual_values = [group["capturable"] for group in groups]
    for group in groups:
        group["capturable"] = True
        for state in _counted(optimizer, group):
            state["step"] = state["step"].to(group["params"][0].device)
    try:
        yield
    finally:
        for group, value in zip(groups, usual_values, strict=True):
            group["capturable"] = value
            if not (value or group.get("fused")):
                for state in _counted(optimizer, group):
                    state["step"] = state["step"].cpu()


def _counted(
    optimizer: torch.optim.Optimizer, group: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield the states of a group's parameters that count their steps by a tensor."""
    for parameter in group["params"]:
        state = optimizer.state.get(parameter, {})
        if isinstance(state.get("step"), Tensor):
            yield state


class _Graph(NamedTuple):
    """A recorded step, and the tensors that it reads and writes."""

    graph: Any
    inputs: dict[str, Tensor]
    y: Tensor
    result: dict[str, Tensor]


class _GraphedSteps:
    """The training step of a net, with a graph for each shape of its batches.

    If a step does what a graph cannot repeat, all further steps are ordinary ones.
    """

    def __init__(self, net: Any) -> None:
        self.net = net
        self.device = next(net.module_.parameters()).device  # with its number
        self.tools: Any = getattr(torch, self.device.type)
        self.stream = self.tools.Stream(self.device)
        self.pool = self.tools.graph_pool_handle()
        self.graphs: dict[Any, _Graph] = {}
        self.n_seen: dict[Any, int] = {}
        self.arguments: list[list[dict[str, Any]]] = []  # all that were seen
        self.is_possible = True
        self.epoch = -1
        self.attributes: dict[tuple[str, ...], Any] = {}  # when last watched
        # Graphs read the learning rates from the device, since they change.
        groups = net.optimizer_.param_groups
        self.lrs = [group["lr"] for group in groups]
        self.lr_tensors = [torch.full((), lr, device=self.device) for lr in self.lrs]
        # Results are overwritten by the next step.
        self.copies = any(
            _overrides(callback, "on_batch_end") for _, callback in net.callbacks_
        )

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Take a training step."""
        if not self.is_possible:
            return self.net.train_step(batch)
        self._begin_epoch()
        key = self._key(batch)
        recorded = self.graphs.get(key)
        if recorded is None:
            n_seen = self.n_seen.get(key, 0) + 1
            self.n_seen[key] = n_seen
            if len(self.n_seen) > MAX_GRAPHS:
                self._give_up(
                    f"more than {MAX_GRAPHS} sizes of batches, or arguments of the "
                    "optimiser, that change"
                )
            if not self.is_possible or n_seen < WARM_UP:
                return self.net.train_step(batch)
            if n_seen == WARM_UP:
                return self._watched(batch)
            recorded = self._record(batch)
            if recorded is None:
                return self.net.train_step(batch)
            self.graphs[key] = recorded
        return self._replay(recorded, batch)

    def _give_up(self, obstacle: str) -> None:
        self.is_possible = False
        self.graphs.clear()
        _warn(obstacle)

    def _begin_epoch(self) -> None:
        """Record anew if attributes have changed between two epochs."""
        epoch = len(self.net.history)
        if epoch == self.epoch:
            return
        self.epoch = epoch
        attributes = self._attributes()
        if attributes != self.attributes:
            self.attributes = attributes
            self.graphs.clear()
            self.n_seen = {k: min(n, WARM_UP - 1) for k, n in self.n_seen.items()}

    def _key(self, batch: Batch) -> tuple[Any, int]:
        """Return what a graph is for: the shapes, and the optimiser's arguments."""
        shapes = tuple((n, t.shape, t.dtype) for n, t in batch[0].items())
        arguments = group_arguments(self.net.optimizer_)
        for group in arguments:
            del group["lr"]
        if arguments not in self.arguments:
            self.arguments.append(arguments)
        return shapes, self.arguments.index(arguments)

    def _watched(self, batch: Batch) -> dict[str, Tensor]:
        """Take an ordinary step, and find out what a graph would not repeat."""
        self.attributes = self._attributes()
        numbers = _states_on_host()
        mode = self.tools.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught_warnings:
            warnings.simplefilter("always")
            self.tools.set_sync_debug_mode("warn")
            try:
                step = self.net.train_step(batch)
            finally:
                self.tools.set_sync_debug_mode(mode)
        obstacles = self._changes()
        if numbers != _states_on_host():
            obstacles.append("random numbers that are drawn on the host")
        for warning in caught_warnings:
            message = str(warning.message)
            if "called a synchronizing" in message:
                obstacles.append(
                    f"line {warning.lineno} of {Path(warning.filename).name}, where "
                    "the host waits for the device"
                )
            elif not message.startswith("Synchronization debug mode"):
                warnings.warn_explicit(
                    message, warning.category, warning.filename, warning.lineno
                )
        if obstacles:
            self._give_up(obstacles[0])
        return step

    def _changes(self) -> list[str]:
        """Name the attributes that have changed, and keep the new ones."""
        earlier_attributes = self.attributes
        self.attributes = self._attributes()
        return [
            f"{key[-1]}, which changes in each step"
            for key, value in self.attributes.items()
            if earlier_attributes.get(key, value) != value
        ]

    def _attributes(self) -> dict[tuple[str, ...], Any]:
        """Return the Python attributes of the net, and where its tensors are stored."""
        optimizer = self.net.optimizer_
        name = f"{type(optimizer).__name__}.state"
        attributes: dict[tuple[str, ...], Any] = {
            (name,): _frozen([*optimizer.state.values()], set())
        }
        for root in ("module_", "criterion_"):
            for place, module in getattr(self.net, root).named_modules():
                for attribute, value in vars(module).items():
                    name = f"{type(module).__name__}.{attribute}"
                    if attribute != "training":
                        attributes[root, place, name] = _frozen(value, set())
        return attributes

    def _record(self, batch: Batch) -> _Graph | None:
        """Record a step without computing it; return None if this is not possible."""
        net = self.net
        if obstacles := self._changes():
            self._give_up(obstacles[0])
            return None
        inputs = {name: tensor.clone() for name, tensor in batch[0].items()}
        y = batch[1].clone()
        generator = generator_on(self.device)
        self._update_lrs()
        groups = net.optimizer_.param_groups
        try:
            graph = self.tools.CUDAGraph()
            if generator is not None:
                graph.register_generator_state(generator)
            for group, lr in zip(groups, self.lr_tensors, strict=True):
                group["lr"] = lr
            recording = self.tools.graph(
                graph,
                pool=self.pool,
                stream=self.stream,
                capture_error_mode="thread_local",
            )
            with _RECORDING, recording:
                step = net.train_step((inputs, y))
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            self._give_up(f"a step that cannot be recorded: {reason}")
            return None
        finally:
            for group, value in zip(groups, self.lrs, strict=True):
                group["lr"] = value
        return _Graph(graph, inputs, y, {k: v.detach() for k, v in step.items()})

    def _replay(self, recorded: _Graph, batch: Batch) -> dict[str, Tensor]:
        for name, tensor in recorded.inputs.items():
            tensor.copy_(batch[0][name])
        recorded.y.copy_(batch[1])
        self._update_lrs()
        self.net._set_training(True)
        recorded.graph.replay()
        if not self.copies:
            return recorded.result
        return {name: tensor.clone() for name, tensor in recorded.result.items()}

    def _update_lrs(self) -> None:
        for number, group in enumerate(self.net.optimizer_.param_groups):
            if group["lr"] != self.lrs[number]:
                self.lrs[number] = group["lr"]
                self.lr_tensors[number].fill_(group["lr"])


def _states_on_host() -> list[Any]:
    """Return the states of the generators that a step may draw from on the host."""
    generators = torch.default_generator, generator_on(CPU)
    numpy_state = np.random.get_state()  # noqa: NPY002
    return [_frozen([*generators, numpy_state], set()), random.getstate()]


# The values of larger tensors and arrays on the host are not compared.
_COMPARED = 10_000


def _frozen(value: Any, visited: set[int]) -> Any:
    """Return an object that equals a later one if the value has not changed.

    Objects that are `visited`, by their ids, are not entered again.
    """
    if isinstance(value, torch.Generator):
        return value.get_state().tolist() if value.device == CPU else None
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, Tensor):
        if value.device == CPU and value.numel() <= _COMPARED:
            return id(value), value.tolist()
        address = None if value.is_sparse else value.data_ptr()
        return id(value), value.shape, value.requires_grad, address
    if isinstance(value, np.ndarray) and value.size <= _COMPARED:
        return value.tolist()
    if value is None or isinstance(value, bool | int | float | str | np.generic):
        return repr(value)
    if isinstance(value, nn.Module | type) or id(value) in visited:
        return id(value)
    visited.add(id(value))
    if isinstance(value, dict):
        return [(_frozen(k, visited), _frozen(v, visited)) for k, v in value.items()]
    if isinstance(value, list | tuple | set | frozenset):
        return [_frozen(element, visited) for element in value]
    if ismethod(value):  # a hook
        return _frozen(value.__self__, visited)
    return id(value), _frozen(getattr(value, "__dict__", None), visited)

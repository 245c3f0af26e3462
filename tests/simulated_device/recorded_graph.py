"""Graphs of the simulated device: operators that are recorded, and executed again.

As on CUDA, a recording changes nothing, and raises where the host waits, copies to the
device or draws from a generator that it does not know. What it returns is NaN until it
is replayed. What runs on the host runs once, at the recording: a Python number or
a tensor on the CPU has the same value in every replay.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten


class RecordedGraph:
    """The operators of a step with their tensors, in the order of their execution."""

    device: Any  # the compiled module
    n_replays = 0  # of all graphs

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []
        self.generators: dict[int, torch.Generator] = {}
        self.register_generator_state(self.device.default_generator())

    def register_generator_state(self, generator: torch.Generator) -> None:
        """Let operators draw from a generator."""
        self.generators[self.device.generator_id(generator)] = generator

    def replay(self) -> None:
        """Execute the operators again, on the same memory."""
        assert self.calls, "nothing was recorded"
        RecordedGraph.n_replays += 1
        with torch.no_grad(), torch._C._AutoDispatchBelowAutograd():
            for call in self.calls:
                call()

    def reset(self) -> None:
        """Forget the operators."""
        self.calls = []


@contextmanager
def recording(graph: RecordedGraph) -> Iterator[None]:
    """Record the operators of a `with` block, in all threads of autograd."""
    recorder = Recorder(graph)
    states = [(each, each.get_state()) for each in graph.generators.values()]
    graph.device.forbid_synchronisation(True)
    try:
        with recorder:
            yield
    finally:
        graph.device.forbid_synchronisation(False)
        recorder.undo()
        for generator, state in states:
            generator.set_state(state)


class Recorder(TorchDispatchMode):
    """Executes operators, and records those that compute on the device."""

    def __init__(self, graph: RecordedGraph) -> None:
        super().__init__()
        self.graph = graph
        self.made: dict[int, Tensor] = {}  # by the address of the memory
        self.before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = tensors_in((args, kwargs))
        written = written_tensors(func, args, kwargs)
        self._check(func, (args, kwargs), given, written)
        for tensor in written:
            self._keep(tensor)
        result = func(*args, **kwargs)
        results = [t for t in tensors_in(result) if is_on_device(t)]
        known = {address(tensor) for tensor in given}
        new = [t for t in results if address(t) not in known]
        self.made.update({address(t): t for t in new if t.numel()})
        if new or any(map(is_on_device, written)):
            # Numbers on the host are parts of a kernel's launch.
            fixed = tree_map(
                lambda x: x.clone() if is_on_host(x) else x, (args, kwargs)
            )
            self.graph.calls.append(repeated(func, *fixed, results, new))
        return result

    def _check(self, func, arguments, given, written) -> None:
        """Raise for what a graph cannot hold."""
        for value in tree_leaves(arguments):
            is_drawn = isinstance(value, torch.Generator) and value.device.type != "cpu"
            known = self.graph.generators
            if is_drawn and self.graph.device.generator_id(value) not in known:
                raise RuntimeError("the generator is not registered to the graph")
        is_copy = func._schema.name in ("aten::copy_", "aten::_to_copy")
        places = {t.device for t in given} | {arguments[1].get("device")} - {None}
        if is_copy and len({torch.device(place).type for place in places}) > 1:
            raise RuntimeError("operation not permitted when recording: a copy")

    def _keep(self, tensor: Tensor) -> None:
        """Copy the memory of a tensor, if it is older than the recording."""
        place = address(tensor)
        if is_on_device(tensor) and place not in {**self.made, **self.before}:
            whole = memory_of(tensor)
            self.before[place] = whole, whole.clone()

    def undo(self) -> None:
        """Leave nothing of the recording but its tensors, filled with NaN."""
        for whole, copy in self.before.values():
            whole.copy_(copy)
        for tensor in self.made.values():
            memory_of(tensor).fill_(255)


def repeated(func, args, kwargs, results, new) -> Callable[[], None]:
    """Return a call that executes an operator again, into its first results."""
    places = [number for number, t in enumerate(results) if any(t is n for n in new)]
    targets = [results[number].detach() for number in places]

    def call() -> None:
        found = [t for t in tensors_in(func(*args, **kwargs)) if is_on_device(t)]
        for number, target in zip(places, targets, strict=True):
            assert found[number].shape == target.shape, f"{func}: another shape"
            target.copy_(found[number])

    return call


def tensors_in(values: Any) -> list[Tensor]:
    """Return the tensors within arguments or results; those that a sparse one holds."""
    found = []
    for leaf in tree_leaves(values):
        if isinstance(leaf, Tensor) and leaf.is_sparse:
            found += [leaf._indices(), leaf._values()]
        elif isinstance(leaf, Tensor):
            found.append(leaf)
    return found


def written_tensors(func, args, kwargs) -> list[Tensor]:
    """Return the tensors that an operator writes into."""
    # Its schema does not mark the running statistics.
    found = tensors_in(args[3:5]) if func is aten.native_batch_norm.default else []
    for number, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = kwargs.get(argument.name)
            found += tensors_in(args[number] if number < len(args) else value)
    return found


def is_on_device(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type != "cpu"


def is_on_host(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == "cpu"


def address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def memory_of(tensor: Tensor) -> Tensor:
    """Return the whole memory of a tensor as bytes."""
    return tensor.new_empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())

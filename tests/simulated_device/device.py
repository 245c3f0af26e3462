"""A simulated accelerator, "sim", which finds and counts what a GPU would not forgive.

Its memory is not the CPU's, so that mixed devices, generators of another device and
NumPy on its tensors raise. It counts the kernels and synchronisations of a call, and it
has graphs as CUDA has.
"""

import hashlib
import types
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from simulated_device.recorded_graph import RecordedGraph, recording

NAME = "sim"
# Bytes that the device reports as free.
FREE_MEMORY = 2**40
SOURCE = Path(__file__).with_name("device.cpp")


class CannotBuild(RuntimeError):
    """The device cannot be built on this machine."""


@cache
def simulated_device() -> torch.device:
    """Build and register the device, once per process, and return it."""
    built = _built()
    torch.utils.rename_privateuse1_backend(NAME)
    built.install()
    generator = built.default_generator()
    RecordedGraph.device = built
    stream = types.SimpleNamespace(wait_stream=lambda other: None)
    module = types.ModuleType(f"torch.{NAME}")
    functions = {
        "CUDAGraph": RecordedGraph,
        "Stream": lambda device=None: stream,
        "_is_in_bad_fork": lambda: False,
        "_lazy_init": lambda: None,
        "current_device": lambda: 0,
        "current_stream": lambda device=None: stream,
        "device": lambda device: nullcontext(),
        "device_count": lambda: 1,
        "get_amp_supported_dtype": lambda: [torch.bfloat16],
        "get_sync_debug_mode": lambda: "default",
        "graph": lambda graph, **options: recording(graph),
        "graph_pool_handle": lambda: (0, 0),
        "get_rng_state": lambda device=NAME: generator.get_state(),
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "mem_get_info": lambda device=None: (FREE_MEMORY, 2**40),
        "memory_allocated": lambda device=None: 0,
        "memory_reserved": lambda device=None: 0,
        "manual_seed_all": lambda seed: generator.manual_seed(seed) and None,
        "set_rng_state": lambda state, device=NAME: generator.set_state(state) and None,
        "set_sync_debug_mode": lambda mode: built.warn_of_synchronisation(
            mode == "warn"
        ),
        "stream": lambda stream: nullcontext(),
    }
    module.__dict__.update(functions)
    torch._register_device_module(NAME, module)
    torch.utils.generate_methods_for_privateuse1_backend(for_storage=True)
    return torch.device(NAME)


@cache
def _built() -> Any:
    """Return the compiled module; its name holds what its code depends on."""
    digest = hashlib.sha256(SOURCE.read_bytes() + torch.__version__.encode())
    try:
        from torch.utils.cpp_extension import load

        return load(
            f"sk_pwiser_sim_{digest.hexdigest()[:12]}",
            [str(SOURCE)],
            extra_cflags=["-O1", "-g0"],
        )
    except (ImportError, OSError, RuntimeError) as error:
        raise CannotBuild(f"the simulated device cannot be built: {error}") from error


class Counts(NamedTuple):
    """Calls by name that launch a kernel, and that make the host wait."""

    kernels: Counter[str]
    synchronisations: Counter[str]

    def __sub__(self, earlier: "Counts") -> "Counts":
        """Return the calls since an earlier count."""
        return Counts(
            *(now - before for now, before in zip(self, earlier, strict=True))
        )


def counts() -> Counts:
    """Return the calls of this process so far."""
    return Counts(*map(Counter, _built().counts()))


@contextmanager
def no_synchronisation() -> Iterator[None]:
    """Raise RuntimeError at a synchronisation, with the line that causes it."""
    _built().forbid_synchronisation(True)
    try:
        yield
    finally:
        _built().forbid_synchronisation(False)


@contextmanager
def no_float64() -> Iterator[None]:
    """Let the device have no float64, as on Apple's GPUs, in a `with` block."""
    _built().set_float64(False)
    try:
        yield
    finally:
        _built().set_float64(True)


@contextmanager
def free_memory(n_bytes: int) -> Iterator[None]:
    """Let the device report this number of free bytes, in a `with` block."""
    global FREE_MEMORY
    before, FREE_MEMORY = FREE_MEMORY, n_bytes
    try:
        yield
    finally:
        FREE_MEMORY = before

"""Random numbers of a fit.

The global generators of torch belong to the whole process: two fits in two threads
would draw from the same sequence. A fit therefore activates its own generators, and the
layers of this package draw random numbers from these.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import chain
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn

# Seeds are drawn below this limit, which every generator takes.
LARGEST_SEED = 2**31 - 1


@dataclass(eq=False)
class Generators:
    """One generator per device, which is created on first use, all of one seed."""

    seed: int
    _by_device: dict[torch.device, torch.Generator] = field(default_factory=dict)

    def on(self, device: torch.device) -> torch.Generator:
        if device not in self._by_device:
            self._by_device[device] = torch.Generator(device).manual_seed(self.seed)
        return self._by_device[device]

    def __getstate__(self) -> dict[str, Any]:
        # Arrays: a pickle of a tensor contains its address, so that no two are equal.
        states = {str(d): g.get_state().numpy() for d, g in self._by_device.items()}
        return {"seed": self.seed, "states": states}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the generators of the devices that are available."""
        self.__init__(state["seed"])  # type: ignore[misc]
        for name, values in state["states"].items():
            try:
                generator = self.on(torch.device(name))
            except RuntimeError:  # this machine lacks the device
                continue
            # A copy: joblib may have mapped the array to a file that is only read.
            generator.set_state(torch.as_tensor(deepcopy(values)))


_active: ContextVar[Generators | None] = ContextVar("generators", default=None)


@contextmanager
def active(generators: Generators) -> Iterator[None]:
    """Draw random numbers from `generators` inside a `with` block."""
    token = _active.set(generators)
    try:
        yield
    finally:
        _active.reset(token)


def generator_on(device: torch.device) -> torch.Generator | None:
    """Return the active generator; None, the global one, in compiled code."""
    if torch.compiler.is_compiling():
        return None
    generators = _active.get()
    return None if generators is None else generators.on(device)


# Packages whose components need no seeded global generators.
PACKAGES_WITH_GENERATORS = ("sk_pwiser.", "torch.nn.", "torch.optim.")

_GLOBAL = RLock()


@contextmanager
def seeded_globally(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators for code that takes none, and restore them."""
    with _GLOBAL:
        outer_states = global_states(device)
        # Not torch.manual_seed, which seeds the generators of all devices.
        seeded = [torch.Generator().manual_seed(seed).get_state()]
        if len(outer_states) > 1:
            seeded.append(torch.Generator(device).manual_seed(seed).get_state())
        set_global_states(seeded, device)
        try:
            yield
        finally:
            set_global_states(outer_states, device)


def global_states(device: torch.device) -> list[Tensor]:
    states = [torch.random.get_rng_state()]
    module: Any = getattr(torch, device.type, None)
    if hasattr(module, "get_rng_state"):  # the CPU is no such device
        states.append(module.get_rng_state(*_place(device)))
    return states


def set_global_states(states: Sequence[Tensor], device: torch.device) -> None:
    torch.random.set_rng_state(states[0])
    if len(states) > 1:
        getattr(torch, device.type).set_rng_state(states[1], *_place(device))


def _place(device: torch.device) -> list[torch.device]:
    """Return the argument for the device that all devices but Apple's take."""
    return [] if device.type == "mps" else [device]


def draws_globally(*components: object) -> bool:
    """Return whether components of other packages may draw from global generators."""
    modules = chain.from_iterable(
        component.modules() if isinstance(component, nn.Module) else [component]
        for component in components
    )
    return any(
        not type(module).__module__.startswith(PACKAGES_WITH_GENERATORS)
        for module in modules
    )

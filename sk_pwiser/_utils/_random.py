"""Random numbers of a fit, from generators of its own.

torch's global generators belong to the whole process: two fits in two threads would
draw from one sequence. A fit therefore activates generators of its own in its context,
and the layers of this package draw from these.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.nn import functional as F


class Generators:
    """One generator per device, each created when it is first asked for.

    Parameters
    ----------
    seed : int
        Seed of every generator.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._by_device: dict[torch.device, torch.Generator] = {}

    def on(self, device: torch.device) -> torch.Generator:
        """Return the generator of a device."""
        if device not in self._by_device:
            generator = torch.Generator(device)
            self._by_device[device] = generator.manual_seed(self.seed)
        return self._by_device[device]


_active: ContextVar[Generators | None] = ContextVar("generators", default=None)


@contextmanager
def active(generators: Generators) -> Iterator[None]:
    """Let random numbers come from `generators` inside a `with` block."""
    token = _active.set(generators)
    try:
        yield
    finally:
        _active.reset(token)


def generator_on(device: torch.device) -> torch.Generator | None:
    """Return the active generator of a device.

    Returns
    -------
    torch.Generator or None
        None, which stands for torch's global generator, outside of `active` and in
        code that is being compiled: torch.compile takes no generators.
    """
    if torch.compiler.is_compiling():
        return None
    generators = _active.get()
    return None if generators is None else generators.on(device)


def dropout(inputs: Tensor, p: float, training: bool) -> Tensor:
    """Set a share `p` of the entries to 0 in training, and scale up the others."""
    if not training or p == 0:
        return inputs
    generator = generator_on(inputs.device)
    if generator is None:
        return F.dropout(inputs, p)
    is_kept = torch.empty_like(inputs).bernoulli_(1 - p, generator=generator)
    return inputs * is_kept.div_(1 - p)

"""A simulated accelerator for tests, and the counts of what it was asked to do."""

from simulated_device.device import (
    NAME,
    CannotBuild,
    Counts,
    counts,
    free_memory,
    no_float64,
    no_synchronisation,
    simulated_device,
)

__all__ = [
    "NAME",
    "CannotBuild",
    "Counts",
    "counts",
    "free_memory",
    "no_float64",
    "no_synchronisation",
    "simulated_device",
]

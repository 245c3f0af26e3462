"""Exchanges that tell a lost worker from other errors."""

from collections.abc import Callable
from typing import Any


class LostWorkerError(RuntimeError):
    """Another worker does not answer; training can resume without an error."""


def exchange(collective: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Call a collective operation of :mod:`torch.distributed`.

    Raises
    ------
    LostWorkerError
        If it fails, since another process has ended.
    """
    try:
        collective(*args, **kwargs)
    except RuntimeError as error:
        raise LostWorkerError(str(error)) from error

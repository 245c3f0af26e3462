"""Exchanges that tell a lost worker from other errors."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


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


def gather_rows(own: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Return the rows of all processes, by rank.

    Parameters
    ----------
    own : Tensor of shape (n_rows, ...)
        Rows of this process.
    sizes : sequence of int
        Numbers of rows by rank.
    """
    padded = own.new_zeros(max(sizes), *own.shape[1:])
    padded[: len(own)] = own
    found = [torch.empty_like(padded) for _ in sizes]
    exchange(dist.all_gather, found, padded)
    return [part[:n] for part, n in zip(found, sizes, strict=True)]

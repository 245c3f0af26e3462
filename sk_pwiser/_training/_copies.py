"""Batches on their way to a CUDA device while the step before them runs."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

from sk_pwiser._training._dataset import Batch

Item = TypeVar("Item")
Started = TypeVar("Started")


def copied_ahead(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Copy batches from the host to a CUDA device, each one step ahead.

    The copies run in a stream of their own, from pinned memory, so that neither the
    host nor the computation waits for them.

    Parameters
    ----------
    batches : iterable of Batch
        Batches in the memory of the host.
    device : torch.device
        The CUDA device.
    """
    stream = torch.cuda.Stream(device)

    def copy(batch: Batch) -> Batch:
        with torch.cuda.stream(stream):
            inputs = {name: _copy(t, device) for name, t in batch[0].items()}
            return inputs, _copy(batch[1], device)

    for inputs, y in one_ahead(batches, copy):
        current = torch.cuda.current_stream(device)
        current.wait_stream(stream)
        for tensor in (*inputs.values(), y):
            # Its memory is not reused before the computation has read it.
            tensor.record_stream(current)
        yield inputs, y


def _copy(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    return tensor.pin_memory().to(device, non_blocking=True)


def one_ahead(
    items: Iterable[Item], start: Callable[[Item], Started]
) -> Iterator[Started]:
    """Yield what `start` returns for each item, once the next one was started.

    Parameters
    ----------
    items : iterable
        The items.
    start : callable
        Called once per item, in their order.
    """
    waiting: list[Started] = []
    for item in items:
        waiting.append(start(item))
        if len(waiting) == 2:
            yield waiting.pop(0)
    yield from waiting

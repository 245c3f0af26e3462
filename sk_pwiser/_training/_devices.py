"""Devices of torch, and batches on their way to one."""

from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from typing import Any, TypeVar

import torch
from skorch.exceptions import DeviceWarning
from torch import Tensor
from torch.nn import functional as F

from sk_pwiser._utils import warn_user


def find_device(name: str | torch.device) -> torch.device:
    """Return the torch device, after a check; "auto" is an accelerator if present."""
    if name == "auto":
        return _accelerator() or torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"device={name!r} is not a device of torch: {error}"
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device={str(name)!r}, but torch finds no CUDA on this machine; "
            "device='auto' uses an accelerator if one is present."
        )
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ValueError(
            f"device={str(name)!r} cannot be used on this machine: {error}"
        ) from error
    return device


def device_or_cpu(name: str | torch.device) -> torch.device:
    """Return the torch device; if it is not present, warn and return the CPU."""
    try:
        return find_device(name)
    except ValueError as error:
        warn_user(f"{error} Loading on the CPU instead.", DeviceWarning)
        return torch.device("cpu")


def _accelerator() -> torch.device | None:
    """Return CUDA if it is present, or another accelerator that torch finds."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    # Before 2.6 torch has no common name for the others, and "auto" leaves them out.
    module: Any = getattr(torch, "accelerator", None)
    if module is None or not module.is_available():
        return None
    device: torch.device = module.current_accelerator()
    try:
        _check_operators(device)
    except (RuntimeError, TypeError) as error:
        warn_user(
            f"device='auto' uses the CPU: {str(device)!r} lacks an operator that "
            f"training needs: {str(error).strip().partition(chr(10))[0]}"
        )
        return None
    return device


def _check_operators(device: torch.device) -> None:
    """Raise if a device lacks an operator of every fit; some devices lack these."""
    x, rows = torch.linspace(0, 1, 4, device=device), torch.arange(4, device=device)
    x = torch.zeros_like(x).index_add_(0, rows, x).lerp_(x, 0.5).cumprod(0)
    matrix = x.view(1, 4, 1)
    torch.baddbmm(matrix, matrix, F.hardshrink(F.logsigmoid(matrix[:, :1])))
    x.uniform_(generator=torch.Generator(device))


@cache
def has_sparse_gradients(device: torch.device) -> bool:
    """Return whether a device has the operators on sparse gradients of tables."""
    try:
        # No module: its first weights would be drawn from torch's global generator.
        table = torch.zeros(2, 1, device=device, requires_grad=True)
        rows = torch.zeros(1, dtype=torch.int64, device=device)
        total = F.embedding(rows, table, sparse=True).sum()
        total.backward()  # type: ignore[no-untyped-call]
        assert table.grad is not None
        table.grad.coalesce()
    except RuntimeError:
        return False
    return True


def check_compiler(device: torch.device, compile: bool | str) -> None:
    """Raise ValueError if torch cannot compile for the device."""
    try:
        torch.compile(torch.square)(torch.zeros(2, device=device))
    except (RuntimeError, ImportError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"compile={compile!r}, but torch cannot compile for {str(device)!r} on "
            f"this machine: {reason}"
        ) from error


Batch = tuple[dict[str, Tensor], Tensor]
Item = TypeVar("Item")
Started = TypeVar("Started")


@cache
def pins_memory(device: torch.device) -> bool:
    """Return whether the host need not wait for copies to a device of pinned memory."""
    if device.type in ("cpu", "mps"):  # which share memory
        return False
    try:
        return torch.zeros(1).pin_memory().is_pinned()
    except RuntimeError:
        return False


def moved(batch: Batch, copy: Callable[[Tensor], Tensor]) -> Batch:
    """Copy the tensors of a batch, each once: numeric inputs may stand for labels."""
    inputs, y = batch
    copies = {name: copy(tensor) for name, tensor in inputs.items()}
    return copies, copies["numeric"] if y is inputs.get("numeric") else copy(y)


def copied_ahead(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Copy batches from the host to a CUDA device, each one step ahead.

    The copies run in a stream of their own, from pinned memory, so that neither the
    host nor the computation waits for them.
    """
    stream = _copy_stream(device)

    def copy(batch: Batch) -> tuple[Batch, torch.cuda.Event]:
        with torch.cuda.stream(stream):
            copies = moved(batch, partial(_copy, device=device))
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(stream)
        return copies, copied

    for (inputs, y), copied in one_ahead(batches, copy):
        current = torch.cuda.current_stream(device)
        # Not for the whole stream, which also copies the next batch.
        current.wait_event(copied)
        for tensor in (*inputs.values(), y):
            # Its memory is not reused before the computation has read it.
            tensor.record_stream(current)
        yield inputs, y


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream of copies, one per device: every stream keeps memory."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _copy(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.pin_memory().to(device, non_blocking=True)


def one_ahead(
    items: Iterable[Item], start: Callable[[Item], Started]
) -> Iterator[Started]:
    """Call `start` for each item in order, and yield its result after the next call."""
    waiting: list[Started] = []
    for item in items:
        waiting.append(start(item))
        if len(waiting) == 2:
            yield waiting.pop(0)
    yield from waiting

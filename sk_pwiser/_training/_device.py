"""The device of a training."""

from typing import Any

import torch
from skorch.exceptions import DeviceWarning
from torch.nn import functional as F

from sk_pwiser._utils import _warnings


def find_device(name: str | torch.device) -> torch.device:
    """Return the torch device, after a check; "auto" is an accelerator if present."""
    if name != "auto":
        try:
            device = torch.device(name)
            torch.zeros(1, device=device).item()
        except (RuntimeError, AssertionError, ImportError) as error:
            raise ValueError(
                f"device={str(name)!r} cannot be used on this machine; device='auto' "
                f"uses an accelerator if one is present. {error}"
            ) from error
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    # Before 2.6 torch has no common name for the others, and "auto" leaves them out.
    module: Any = getattr(torch, "accelerator", None)
    if module is None or not module.is_available():
        return torch.device("cpu")
    accelerator: torch.device = module.current_accelerator()
    try:
        _check_operators(accelerator)
    except (RuntimeError, TypeError) as error:
        _warnings.warn_user(
            f"device='auto' uses the CPU: {str(accelerator)!r} lacks an operator that "
            f"training needs: {str(error).strip().partition(chr(10))[0]}"
        )
        return torch.device("cpu")
    return accelerator


def device_or_cpu(name: str | torch.device) -> torch.device:
    """Return the torch device; if it is not present, warn and return the CPU."""
    try:
        return find_device(name)
    except ValueError as error:
        _warnings.warn_user(f"{error} Loading on the CPU instead.", DeviceWarning)
        return torch.device("cpu")


def _check_operators(device: torch.device) -> None:
    """Raise if a device lacks an operator of every fit; some devices lack these."""
    x = torch.linspace(0, 1, 4, device=device)
    rows = torch.arange(4, device=device)
    x = torch.zeros_like(x).index_add_(0, rows, x).lerp_(x, 0.5).cumprod(0)
    matrix = x.view(1, 4, 1)
    torch.baddbmm(matrix, matrix, F.hardshrink(F.logsigmoid(matrix[:, :1])))
    x.uniform_(generator=torch.Generator(device))

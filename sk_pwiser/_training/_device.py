"""What the machine can do: its devices, and whether torch can compile for them."""

import torch


def find_device(name: str | torch.device) -> torch.device:
    """Return the torch device; "auto" is CUDA where present.

    Raises
    ------
    ValueError
        If there is no such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device={name!r} is no device of torch: {error}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device={str(name)!r}, but torch finds no CUDA here; device='auto' takes "
            "CUDA where it is present."
        )
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ValueError(
            f"device={str(name)!r} cannot be used on this machine: {error}"
        ) from error
    return device


def check_compiler(device: torch.device) -> None:
    """Compile something small.

    Raises
    ------
    ValueError
        If torch cannot compile for the device, for want of a compiler say.
    """
    try:
        torch.compile(torch.square)(torch.zeros(2, device=device))
    except (RuntimeError, ImportError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"compile=True, but torch cannot compile for {str(device)!r} on this "
            f"machine: {reason}"
        ) from error


def can_fuse(optimizer: type[torch.optim.Optimizer], device: torch.device) -> bool:
    """Tell whether torch has the optimiser's step as one kernel on the device."""
    parameter = torch.nn.Parameter(torch.zeros(1, device=device))
    parameter.grad = torch.zeros_like(parameter)
    try:
        optimizer([parameter], fused=True).step()  # type: ignore[call-arg]
    except (TypeError, RuntimeError):
        return False
    return True


def evaluation_batch_size(device: torch.device) -> int:
    """Return the number of rows of a batch where no gradient is kept.

    On a CPU its activations should stay in the cache; other devices want to be kept
    busy.
    """
    return 2_048 if device.type == "cpu" else 32_768

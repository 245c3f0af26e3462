"""The machine's devices, and whether torch can compile for them."""

import torch


def find_device(name: str | torch.device) -> torch.device:
    """Return the torch device; "auto" is CUDA if it is present.

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
        raise ValueError(
            f"device={name!r} is not a device of torch: {error}"
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device={str(name)!r}, but torch finds no CUDA on this machine; "
            "device='auto' uses CUDA if it is present."
        )
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ValueError(
            f"device={str(name)!r} cannot be used on this machine: {error}"
        ) from error
    return device


def check_compiler(device: torch.device, compile: bool | str) -> None:
    """Compile a small function.

    Raises
    ------
    ValueError
        If torch cannot compile for the device, for example without a compiler.
    """
    try:
        torch.compile(torch.square)(torch.zeros(2, device=device))
    except (RuntimeError, ImportError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"compile={compile!r}, but torch cannot compile for {str(device)!r} on "
            f"this machine: {reason}"
        ) from error


def evaluation_batch_size(device: torch.device) -> int:
    """Return the number of rows per batch if no gradient is kept.

    On a CPU the activations of a batch should stay in the cache; on other devices
    larger batches use the device better.
    """
    return 2_048 if device.type == "cpu" else 32_768

"""The checkpoints of a training: written after every epoch, and resumed from."""

import json
import re
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sk_pwiser._files import write_file
from sk_pwiser._training._checkpoint import FILES, FORM, KIND, Checkpoint, Start
from sk_pwiser._training._loop_state import LoopState, has_state
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._net_state import load_net_state, net_state, to_arrays
from sk_pwiser._utils import Generators, global_states, set_global_states, warn_user

N_KEPT = 2  # the last one, and one before it in case that the last one is damaged
TEMPORARY = ".checkpoint-*.tmp"


def check_folder(checkpoint_dir: Any) -> Path:
    """Create the folder, and check that files can be written to it.

    Raises
    ------
    ValueError
        If it is no folder, or if files cannot be written to it.
    ImportError
        If safetensors is not installed.
    """
    folder = Path(checkpoint_dir)
    probe = folder / f".probe-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_file(probe, None, {})
        probe.unlink()
    except OSError as error:
        raise ValueError(
            "checkpoint_dir must be a folder to which files can be written; got "
            f"{str(folder)!r}: {error}"
        ) from error
    return folder


class Checkpoints:
    """Writes the checkpoints of a training, and restores it from an earlier one.

    Parameters
    ----------
    folder : Path
        Where the files are.
    start : Start
        What the training starts from.
    saved : Checkpoint or None
        The checkpoint to resume from.
    callbacks : sequence of skorch.callbacks.Callback
        Callbacks of the user.

    Raises
    ------
    TypeError
        If the encoding of the table has values that a file cannot hold.
    """

    def __init__(
        self,
        folder: Path,
        start: Start,
        saved: Checkpoint | None,
        callbacks: Any = (),
    ) -> None:
        self.folder = folder
        self.n_earlier = start.n_earlier
        self.saved = saved
        self.callbacks = callbacks
        # The same in all files: converted once, and checked before training.
        values, self.fixed = FORM.encode(start, "start")
        text = json.dumps(values).encode("ascii")
        self.fixed["start"] = np.frombuffer(text, dtype=np.uint8)
        self.generators: Generators | None = None
        self.global_device: torch.device | None = None

    def use(self, generators: Generators, global_device: torch.device | None) -> None:
        """Set the random generators, which checkpoints include.

        Parameters
        ----------
        generators : Generators
            Those of the fit.
        global_device : torch.device or None
            The device on which the fit draws from torch's global generators; None if it
            does not.
        """
        self.generators, self.global_device = generators, global_device

    def begin(self, net: MultiTaskNet, loop: LoopState) -> None:
        """Restore the earlier state; without one, remove the files of other fits."""
        if self.saved is not None:
            self._restore(self.saved, net, loop)
        elif self.n_earlier == 0:
            self._remove(FILES)
        self._remove(TEMPORARY)

    def save(self, net: MultiTaskNet, loop: LoopState) -> None:
        """Write the state at the end of an epoch, and remove files no longer needed."""
        assert self.generators is not None
        device = self.global_device
        state = {
            "net": net_state(net),
            "loop": loop.state_dict(net),
            "generators": self.generators.__getstate__(),
            "global": [] if device is None else global_states(device),
        }
        values, arrays = FORM.encode(to_arrays(state), "state")
        n_epochs = len(net.history)
        kept = [_name(n_epochs - age) for age in range(N_KEPT)]
        path = self.folder / kept[0]
        write_file(path, {"kind": KIND, "state": values}, {**self.fixed, **arrays})
        self._remove(FILES, kept)

    def _restore(self, saved: Checkpoint, net: MultiTaskNet, loop: LoopState) -> None:
        assert self.generators is not None
        state = saved.state
        try:
            load_net_state(net, state["net"])
            loop.load_state_dict(state["loop"], net)
            self.generators.__setstate__(state["generators"])
            if self.global_device is not None and state["global"]:
                set_global_states(state["global"], self.global_device)
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(
                f"Training cannot resume from {str(saved.path)!r}: {error}"
            ) from error
        callbacks = [c[1] if isinstance(c, tuple) else c for c in self.callbacks]
        names = [type(each).__name__ for each in callbacks if _restarts(each)]
        if names:
            warn_user(
                f"callbacks holds {', '.join(names)}, whose state is not in the "
                "checkpoint and starts anew: the result may differ from that of an "
                "uninterrupted fit."
            )

    def _remove(self, pattern: str, kept: Any = ()) -> None:
        for path in self.folder.glob(pattern):
            if path.name not in kept:
                path.unlink(missing_ok=True)


def _name(n_epochs: int) -> str:
    return FILES.replace("*", f"{n_epochs:08d}")


def _restarts(callback: Any) -> bool:
    """Return whether a callback has a state, by its attributes, but cannot save it."""
    is_ours = type(callback).__module__.startswith("sk_pwiser.")
    attributes = [name for name in vars(callback) if re.fullmatch(r"[^_].*[^_]_", name)]
    return bool(attributes) and not is_ours and not has_state(callback)

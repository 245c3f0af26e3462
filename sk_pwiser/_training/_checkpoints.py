"""Checkpoints of a training: written after every epoch, and resumed from."""

import hashlib
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import LRScheduler

from sk_pwiser._model_files import DamagedFileError, PlainForm, read_file, write_file
from sk_pwiser._settings import Settings, describe
from sk_pwiser._training._callbacks import with_kinds
from sk_pwiser._training._early_stopping import FirstStage
from sk_pwiser._training._net_state import (
    load_net_state,
    net_state,
    to_arrays,
    to_tensors,
)
from sk_pwiser._training._schema import STATE_CLASSES, Schema, encode_plain
from sk_pwiser._utils import _equality, _random
from sk_pwiser._utils._warnings import warn_user

# The argument of `fit` from which a tensor is made, if it is not X.
_SOURCES = {
    "y": "Y",
    "amounts": "Y",
    "sample_weight": "sample_weight",
    "groups": "groups",
    "rows": "the validation rows",
}


def fingerprint(train: Any, valid: Any) -> dict[str, str]:
    """Return a digest of the rows, on the CPU, for each argument of `fit`.

    Rows are `Impressions`: rows that are read in parts have no checkpoints.
    """
    names = ("X", *_SOURCES.values())
    digests = {name: hashlib.blake2b(digest_size=16) for name in names}
    tensors = [(_SOURCES.get(k, "X"), t) for k, t in train.tensors().items()]
    if valid is not None:
        # Selected rows of the same tensors, or other ones.
        valid_tensors = [valid.rows]
        if valid.rows is None:
            valid_tensors = list(valid.tensors().values())
        tensors += [("the validation rows", tensor) for tensor in valid_tensors]
    for name, tensor in tensors:
        digests[name].update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            flat = tensor.contiguous().view(-1).numpy()
            digests[name].update(flat.view(np.uint8).data)
    return {name: digest.hexdigest() for name, digest in digests.items()}


KIND = "checkpoint"
FILES = "checkpoint-*.safetensors"

# Settings that may differ between the parts of a training.
FREE_SETTINGS = (
    "callbacks",
    "checkpoint_dir",
    "device",
    "max_epochs",
    "verbose",
    "warm_start",
)


@dataclass(frozen=True, kw_only=True)
class Start:
    """The start of a training, which is part of each of its checkpoints."""

    settings: dict[str, Any]  # without `FREE_SETTINGS`
    random_state: dict[str, Any]  # before the first draw
    n_earlier: int  # epochs of earlier fits
    digests: dict[str, str]  # of the encoded rows, by argument
    schema: Schema
    split_state: dict[str, Any] | None = None  # that drew the validation rows
    split_rows: dict[str, Any] | None = None  # as `find_split` returns them
    first_stage: FirstStage | None = None  # if this is the second one


FORM = PlainForm([*STATE_CLASSES, Start, FirstStage])


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read, with the state of net, loop and random generators."""

    path: Path
    start: Start
    state: dict[str, Any]

    def check_settings(self, settings: Settings) -> None:
        """Raise a ValueError that names the parameters that differ."""
        values = compared(settings)
        saved_values = self.start.settings
        differences = [
            f"{name}={values.get(name)!r}, where the checkpoint has "
            f"{saved_values.get(name)!r}"
            for name in sorted(values.keys() | saved_values.keys())
            if not _equality.equal(values.get(name), saved_values.get(name))
        ]
        if differences:
            raise self._refusal(f"has other parameters: {'; '.join(differences)}")

    def check_data(self, digests: Mapping[str, str]) -> None:
        """Raise a ValueError that names the arguments of `fit` that differ."""
        saved_digests = self.start.digests
        changed = [name for name in digests if digests[name] != saved_digests.get(name)]
        if changed:
            raise self._refusal(
                f"has other data: after encoding, {', '.join(changed)} differ from the "
                "data of the checkpoint"
            )

    def _refusal(self, reason: str) -> ValueError:
        return ValueError(
            f"Training cannot resume from {str(self.path)!r}: this fit {reason}. Pass "
            "the parameters and data of the interrupted fit, or set warm_start=False "
            "to start anew, which removes the checkpoints."
        )


def compared(settings: Settings) -> dict[str, Any]:
    """Return the settings that the parts of a training must share."""
    values: dict[str, Any] = describe(vars(settings))
    return {name: values[name] for name in values if name not in FREE_SETTINGS}


def find_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the last checkpoint of a folder that is not damaged, or None."""
    damaged: list[DamagedFileError] = []
    for path in sorted(folder.glob(FILES), reverse=True):
        try:
            checkpoint = _read(path)
        except DamagedFileError as error:
            damaged.append(error)
            continue
        if damaged:
            reasons = " ".join(map(str, damaged))
            warn_user(f"{reasons} Training resumes from {str(path)!r} instead.")
        return checkpoint
    if damaged:
        raise ValueError(
            f"Training cannot resume: {' '.join(map(str, damaged))} Set "
            "warm_start=False to start anew, which removes these files."
        )
    return None


def _read(path: Path) -> Checkpoint:
    values, arrays = read_file(path)
    try:
        if values["kind"] != KIND:
            raise ValueError(f"it is a {values['kind']!r}")
        start = FORM.decode(json.loads(arrays.pop("start").tobytes()), arrays)
        return Checkpoint(path, start, to_tensors(FORM.decode(values["state"], arrays)))
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is not a valid checkpoint: {error}") from error


N_KEPT = 2  # the last one, and one before it in case that the last one is damaged
TEMPORARY = ".checkpoint-*.tmp"


def check_folder(checkpoint_dir: Any) -> None:
    """Create the folder, and raise ValueError if files cannot be written to it."""
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


class Checkpoints:
    """Writes the checkpoints of a training, and restores it from `saved`, if given."""

    # Set before training: the generators in checkpoints, and the device of torch's own
    # ones, if these are used.
    generators: _random.Generators
    global_device: torch.device | None

    def __init__(
        self, folder: Path, start: Start, saved: Checkpoint | None = None
    ) -> None:
        self.folder = folder
        self.n_earlier = start.n_earlier
        self.saved = saved
        # The same in all files: converted once, and checked before training.
        values, self.fixed = encode_plain(FORM, start, "start", start.schema)
        text = json.dumps(values).encode("ascii")
        self.fixed["start"] = np.frombuffer(text, dtype=np.uint8)

    def begin(self, net: NeuralNet) -> None:
        """Restore the state to resume from; without one, remove files of other fits."""
        if self.saved is not None:
            self._restore(self.saved, net)
        elif self.n_earlier == 0:
            self._remove(FILES)
        self._remove(TEMPORARY)

    def save(self, net: NeuralNet) -> None:
        """Write the state at the end of an epoch, and remove files no longer needed."""
        device = self.global_device
        callback_states = {}
        for name, callback in net.callbacks_:
            stateful = _stateful(callback)
            if stateful is not None:
                callback_states[name] = stateful.state_dict()
        loop = {
            "n_complete": net.n_complete_,
            "is_stopped": bool(net.stop_training_),
            "average": None if net.average_ is None else net.average_.state_dict(),
            "callbacks": callback_states,
        }
        state = {
            "net": net_state(net),
            "loop": loop,
            "generators": self.generators.__getstate__(),
            "global": [] if device is None else _random.global_states(device),
        }
        values, arrays = FORM.encode(to_arrays(state), "state")
        n_epochs = len(net.history)
        numbers = [f"{n_epochs - age:08d}" for age in range(N_KEPT)]
        file_names = [FILES.replace("*", number) for number in numbers]
        path = self.folder / file_names[0]
        write_file(path, {"kind": KIND, "state": values}, {**self.fixed, **arrays})
        self._remove(FILES, file_names)

    def _restore(self, saved: Checkpoint, net: NeuralNet) -> None:
        state = saved.state
        try:
            load_net_state(net, state["net"])
            loop = state["loop"]
            net.n_complete_ = loop["n_complete"]
            net.stop_training_ = loop["is_stopped"]
            if net.average_ is not None:
                net.average_.load_state_dict(loop["average"])
            for name, callback in net.callbacks_:
                stateful = _stateful(callback)
                if name in loop["callbacks"] and stateful is not None:
                    stateful.load_state_dict(loop["callbacks"][name])
            self.generators.__setstate__(state["generators"])
            if self.global_device is not None and state["global"]:
                _random.set_global_states(state["global"], self.global_device)
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(
                f"Training cannot resume from {str(saved.path)!r}: {error}"
            ) from error
        names = [
            kind.__name__
            for callback, kind in with_kinds(net.callbacks)
            if _restarts(callback)
        ]
        if names:
            warn_user(
                f"callbacks holds {', '.join(names)}, whose state is not in the "
                "checkpoint: the result may differ from that of an uninterrupted fit."
            )

    def _remove(self, pattern: str, but: Sequence[str] = ()) -> None:
        for path in self.folder.glob(pattern):
            if path.name not in but:
                path.unlink(missing_ok=True)


def _stateful(callback: Any) -> Any:
    """Return the object with the state of a callback, or None if it has no state.

    This is the schedule of a callback for schedules, or the callback itself.
    """
    if isinstance(callback, LRScheduler):
        return callback.lr_scheduler_
    methods = ("state_dict", "load_state_dict")
    return callback if all(hasattr(callback, name) for name in methods) else None


def _restarts(callback: Any) -> bool:
    """Return whether a callback has a state, by its attributes, but cannot save it."""
    is_ours = type(callback).__module__.startswith("sk_pwiser.")
    attributes = [name for name in vars(callback) if re.fullmatch(r"[^_].*[^_]_", name)]
    return bool(attributes) and not is_ours and _stateful(callback) is None

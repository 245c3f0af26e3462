"""A checkpoint: the state of a training in a file, and what may resume from it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sk_pwiser._files import DamagedFileError, PlainForm, read_file
from sk_pwiser._training._data import STATE_CLASSES, Schema
from sk_pwiser._training._net_state import (
    to_tensors,
)
from sk_pwiser._training._settings import Settings, describe, equal
from sk_pwiser._utils import warn_user

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


@dataclass(frozen=True)
class Start:
    """What a training started from, which is in each of its checkpoints.

    Parameters
    ----------
    settings : dict
        The estimator's parameters, but for `FREE_SETTINGS`.
    random_state : dict
        State of the estimator's random state before the first draw.
    n_earlier : int
        Number of epochs of earlier fits.
    n_rows : int
        Number of rows.
    digests : dict of str to str
        Digests of the encoded rows.
    schema : Schema
        The encoding of the table, and the tasks.
    """

    settings: dict[str, Any]
    random_state: dict[str, Any]
    n_earlier: int
    n_rows: int
    digests: dict[str, str]
    schema: Schema


FORM = PlainForm([*STATE_CLASSES, Schema, Start])


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read.

    Parameters
    ----------
    path : Path
        The file.
    start : Start
        What the training started from.
    state : dict
        The state of net, loop and random generators.
    """

    path: Path
    start: Start
    state: dict[str, Any]

    @property
    def random_state(self) -> np.random.RandomState:
        """The estimator's random state at the start of the training."""
        random_state = np.random.RandomState()
        random_state.set_state(self.start.random_state)
        return random_state

    def check_settings(self, settings: Settings) -> None:
        """Raise a ValueError that names the parameters that differ."""
        now, before = compared(settings), self.start.settings
        found = [
            f"{name}={now.get(name)!r}, where the checkpoint has {before.get(name)!r}"
            for name in sorted(now.keys() | before.keys())
            if not equal(now.get(name), before.get(name))
        ]
        if found:
            raise self._refusal(f"has other parameters: {'; '.join(found)}")

    def check_n_rows(self, n_rows: int) -> None:
        """Raise a ValueError if the number of rows differs."""
        if n_rows != self.start.n_rows:
            raise self._refusal(
                f"has other data: X has {n_rows} rows, where the checkpoint has "
                f"{self.start.n_rows}"
            )

    def check_data(self, digests: Mapping[str, str]) -> None:
        """Raise a ValueError that names the arguments of `fit` that differ."""
        before = self.start.digests
        found = [name for name in digests if digests[name] != before.get(name)]
        if found:
            raise self._refusal(
                f"has other data: {', '.join(found)} differ, as encoded, from those of "
                "the checkpoint"
            )

    def _refusal(self, reason: str) -> ValueError:
        return ValueError(
            f"Training cannot resume from {str(self.path)!r}: this fit {reason}. Pass "
            "what the interrupted fit had; or set warm_start=False to start anew, "
            "which removes the checkpoints."
        )


def compared(settings: Settings) -> dict[str, Any]:
    """Return the settings that the parts of a training must share."""
    found: dict[str, Any] = describe(vars(settings))
    return {name: found[name] for name in found if name not in FREE_SETTINGS}


def find_checkpoint(folder: Path) -> Checkpoint | None:
    """Read the last checkpoint of a folder; if it is damaged, the one before it.

    Returns
    -------
    Checkpoint or None
        None if the folder has none.

    Raises
    ------
    ValueError
        If all are damaged, or if one has a newer format or is no checkpoint.
    """
    damaged: list[DamagedFileError] = []
    for path in sorted(folder.glob(FILES), reverse=True):
        try:
            found = _read(path)
        except DamagedFileError as error:
            damaged.append(error)
            continue
        if damaged:
            reasons = " ".join(map(str, damaged))
            warn_user(f"{reasons} Training resumes from {str(path)!r} instead.")
        return found
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
        state = to_tensors(FORM.decode(values["state"], arrays))
        return Checkpoint(path, start, state)
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is no valid checkpoint: {error}") from error

"""One file of values and arrays, in the format of safetensors with a checksum."""

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = "sk_pwiser"
BLANK = "0" * 64


def write_file(
    path: str | PathLike[str], values: Any, arrays: Mapping[str, np.ndarray]
) -> None:
    """Write a file so that it is complete or absent, whatever happens meanwhile.

    Parameters
    ----------
    path : str or path-like
        The file. One that exists is replaced at the end.
    values : object
        What JSON can represent.
    arrays : dict of str to ndarray
        Arrays of numbers; none is named "json".

    Raises
    ------
    OSError
        If the file cannot be written, for example on a full disk. The error names it.
    """
    write_bytes(path, to_bytes(values, arrays))


def write_bytes(path: str | PathLike[str], content: bytes) -> None:
    """Write a file so that it is complete or, after an error, as it was before.

    Raises
    ------
    OSError
        If the file cannot be written. The error names it.
    """
    path = Path(path)
    # In the same folder: a rename is atomic within a file system only.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        # Errors of writing, unlike those of opening, name no file.
        reason = error.strerror or str(error)
        raise type(error)(error.errno, reason, str(path)) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def to_bytes(values, arrays):
    """Return the content of a file."""
    safetensors, _ = _import_safetensors()
    metadata = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "checksum": BLANK,
    }
    content = safetensors.save(join(values, arrays), metadata=metadata)
    field = _checksum_field(BLANK)
    return content.replace(field, _checksum_field(_digest(content)), 1)


def read_file(path: str | PathLike[str]) -> tuple[Any, dict[str, np.ndarray]]:
    """Read a file and check that it is whole.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    values : object
        What was passed to `write_file`.
    arrays : dict of str to ndarray

    Raises
    ------
    DamagedFileError
        If the file is not of this format, or was damaged or altered.
    ValueError
        If the version of its format is newer than that of this package.
    """
    safetensors, error_class = _import_safetensors()
    content = Path(path).read_bytes()
    metadata = _read_metadata(content, path)
    found = metadata.get("checksum")
    check_version(metadata.get("version"), repr(str(path)))
    blank = content
    if isinstance(found, str):
        blank = content.replace(_checksum_field(found), _checksum_field(BLANK), 1)
    if found != _digest(blank):
        raise DamagedFileError(
            f"{str(path)!r} is damaged or was altered: its checksum does not match its "
            "content."
        )
    try:
        return split(safetensors.load(content))
    except (error_class, ValueError) as error:
        raise DamagedFileError(f"{str(path)!r} cannot be read: {error}") from error


def _read_metadata(content, path):
    """Return the metadata of the header, if it is one of this format."""
    size = int.from_bytes(content[:8], "little")
    try:
        if len(content) < 8 or size > len(content) - 8:
            raise ValueError("it is truncated")
        metadata = json.loads(content[8 : 8 + size])["__metadata__"]
        if metadata["format"] != FORMAT:
            raise ValueError(f"its format is {metadata['format']!r}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedFileError(
            f"{str(path)!r} is no file of sk_pwiser, or damaged: {error}."
        ) from error
    return metadata


def _checksum_field(digest):
    return f'"checksum":"{digest}"'.encode()


def _digest(content):
    return hashlib.sha256(content).hexdigest()


def _sync_folder(folder):
    """Make a rename last: on POSIX the folder itself must be written."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _import_safetensors():
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            'Model files need safetensors: pip install "sk_pwiser[files]"'
        ) from error
    return safetensors.numpy, safetensors.SafetensorError


FORMAT_VERSION = "1"
# Name of the JSON among the arrays. It is an array itself, since the header of
# safetensors may not be larger than 100 MB.
VALUES = "json"


class DamagedFileError(ValueError):
    """A file that is truncated, damaged, altered, or of another kind."""


def join(values, arrays):
    """Return arrays that include the values, as text of JSON.

    Parameters
    ----------
    values : object
        What JSON can represent.
    arrays : dict of str to ndarray
        Arrays of numbers; none is named "json".
    """
    text = np.frombuffer(json.dumps(values).encode("ascii"), dtype=np.uint8)
    return {**arrays, VALUES: text}


def split(joined):
    """Return the values and the arrays from which `join` made arrays.

    Raises
    ------
    ValueError
        If these are no arrays of numbers, or the values are not among them.
    """
    try:
        arrays = dict(joined)
        values = json.loads(arrays.pop(VALUES).tobytes())
    except (AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"the values cannot be read: {error!r}") from error
    for name, array in arrays.items():
        if type(array) is not np.ndarray or array.dtype.kind not in "biuf":
            raise ValueError(f"{name!r} is no array of numbers")
    return values, arrays


def check_version(version, name):
    """Raise if a format did not exist when this version of the package was written.

    Parameters
    ----------
    version : object
        The version that a file states.
    name : str
        What has this version, for the message.

    Raises
    ------
    DamagedFileError
        If it is no version.
    ValueError
        If it is newer.
    """
    if not (isinstance(version, str) and version.isdecimal()):
        raise DamagedFileError(
            f"{name} is damaged or was altered: the version of its format is "
            f"{version!r}."
        )
    if int(version) > int(FORMAT_VERSION):
        raise ValueError(
            f"{name} has version {version!r} of the format; this version of sk_pwiser "
            f"reads versions up to {FORMAT_VERSION!r}."
        )

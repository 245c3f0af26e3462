"""Values and arrays as arrays alone, which containers of several kinds can hold."""

import json

import numpy as np

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

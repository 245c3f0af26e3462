"""Files of fitted models: plain values and arrays, checked, without code."""

import datetime
import hashlib
import json
import math
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from io import BufferedReader
from os import PathLike
from pathlib import Path
from typing import IO, Any

import numpy as np

from sk_pwiser._utils._extras import import_extra

FORMAT = "sk_pwiser"
# What a user can do about a damaged file.
ADVICE = "Copy it again from where it was saved, or save it again."
# What reading content of another form raises.
READING_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
# Stands for the checksum in the header that the checksum itself includes.
BLANK = "0" * 64
# The dtypes of the format, by their names in a header.
_KINDS = ("I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64", "F16", "F32", "F64")
_DTYPES = {kind: np.dtype(f"<{kind[0].lower()}{int(kind[1:]) // 8}") for kind in _KINDS}
_DTYPES["BOOL"] = np.dtype(bool)
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def write_file(
    path: str | PathLike[str], values: Any, arrays: Mapping[str, np.ndarray]
) -> None:
    """Write values of JSON and arrays to a file that is complete or absent."""
    joined = join(values, arrays)
    # Items of the largest size first, so that every array is aligned.
    names = sorted(joined, key=lambda name: (-joined[name].itemsize, name))
    header = _header({name: joined[name] for name in names})
    digest = hashlib.sha256(header)
    with replacing(path) as file:
        file.write(header)
        for name in names:
            # In the byte order of the format; copied only if that changes anything.
            little = joined[name].dtype.newbyteorder("<")
            array = np.ascontiguousarray(joined[name], dtype=little)
            content = array.reshape(-1).view(np.uint8).data
            digest.update(content)
            file.write(content)
        file.seek(0)
        field = _checksum_field(digest.hexdigest())
        file.write(header.replace(_checksum_field(BLANK), field, 1))


def write_bytes(path: str | PathLike[str], content: bytes) -> None:
    """Write a file so that it is complete or, after an error, as it was before."""
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: str | PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a temporary file that replaces another one when it is complete."""
    path = Path(path)
    # In the same folder: a rename is atomic within a file system only.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        # Errors of writing, unlike those of opening, do not name the file.
        reason = error.strerror or str(error)
        raise type(error)(error.errno, reason, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _header(arrays: Mapping[str, np.ndarray]) -> bytes:
    metadata = {"format": FORMAT, "version": FORMAT_VERSION, "checksum": BLANK}
    entries: dict[str, dict[str, Any]] = {"__metadata__": metadata}
    start = 0
    for name, array in arrays.items():
        dtype = array.dtype.newbyteorder("<")
        if dtype not in _NAMES:
            raise TypeError(f"{name!r} has the dtype {dtype}, which cannot be saved.")
        end = start + array.nbytes
        entries[name] = {
            "dtype": _NAMES[dtype],
            "shape": array.shape,
            "data_offsets": (start, end),
        }
        start = end
    text = json.dumps(entries, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)  # so that the arrays are aligned
    return len(text).to_bytes(8, "little") + text


def read_file(path: str | PathLike[str]) -> tuple[Any, dict[str, np.ndarray]]:
    """Read what `write_file` wrote, each array into its own memory; or raise."""
    with open(path, "rb") as file:
        with refusing(path, "is not a file of sk_pwiser, or is damaged", ADVICE):
            header, entries = _read_header(file)
        metadata = entries.pop("__metadata__")
        check_version(metadata.get("version"), repr(str(path)))
        with refusing(path, "is damaged or was altered", ADVICE):
            checksum = metadata.get("checksum")
            if isinstance(checksum, str):
                field = _checksum_field(checksum)
                header = header.replace(field, _checksum_field(BLANK), 1)
            digest = hashlib.sha256(header)
            joined = _read_arrays(file, entries, len(header), digest)
            if checksum != digest.hexdigest():
                raise ValueError("its checksum does not match its content")
            return split(joined)


@contextmanager
def refusing(
    path: str | PathLike[str], reason: str, advice: str = ""
) -> Iterator[None]:
    """Raise errors in the content of a file as one that names the file.

    `advice` says what to do, as a sentence.
    """
    try:
        yield
    except READING_ERRORS as error:
        message = f"{str(path)!r} {reason}: {error}. {advice}".rstrip()
        raise DamagedFileError(message) from error


def _read_header(file: IO[bytes]) -> tuple[bytes, dict[str, Any]]:
    start = file.read(8)
    size = int.from_bytes(start, "little")
    if len(start) < 8 or size > _size(file) - 8:
        raise ValueError("it is truncated, or not a model file")
    text = file.read(size)
    entries = json.loads(text)
    if entries["__metadata__"]["format"] != FORMAT:
        raise ValueError(f"its format is {entries['__metadata__']['format']!r}")
    return start + text, entries


def _read_arrays(
    file: BufferedReader, entries: Mapping[str, Any], start: int, digest: Any
) -> dict[str, np.ndarray]:
    """Read the arrays, whose entries are checked before memory is allocated."""
    forms = {}
    end_of_last = 0
    order = sorted(entries.items(), key=lambda item: item[1]["data_offsets"])
    for name, entry in order:
        dtype = _DTYPES[entry["dtype"]]
        shape = entry["shape"]
        if not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"{name!r} has the shape {shape}")
        first, end = entry["data_offsets"]
        n_bytes = dtype.itemsize * math.prod(shape)
        if first != end_of_last or end != end_of_last + n_bytes:
            raise ValueError(f"{name!r} is not at its place")
        forms[name] = (shape, dtype)
        end_of_last = end
    if start + end_of_last != _size(file):
        raise ValueError(f"it should have {start + end_of_last} bytes")
    arrays = {}
    for name, (shape, dtype) in forms.items():
        arrays[name] = np.empty(shape, dtype)
        content = arrays[name].reshape(-1).view(np.uint8).data
        file.readinto(content)  # all of it, as the size is right; or the digest differs
        digest.update(content)
    return arrays


def _size(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size


def _checksum_field(digest: str) -> bytes:
    return f'"checksum":"{digest}"'.encode()


FORMAT_VERSION = "1"
# Name of the JSON among the arrays. It is an array itself, since other readers of the
# format refuse headers of more than 100 MB.
VALUES = "json"


class DamagedFileError(ValueError):
    """A file that is truncated, damaged, altered, or of another kind."""


def join(values: Any, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays with one more, which has the values as the text of JSON."""
    text = np.frombuffer(json.dumps(values).encode("ascii"), dtype=np.uint8)
    return {**arrays, VALUES: text}


def split(joined: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """Return the values and the arrays that `join` was called with."""
    try:
        arrays = dict(joined)
        values = json.loads(arrays.pop(VALUES).tobytes())
    except READING_ERRORS as error:
        raise ValueError(f"the values cannot be read: {error!r}") from error
    for name, array in arrays.items():
        if type(array) is not np.ndarray or array.dtype.kind not in "biuf":
            raise ValueError(f"{name!r} is not an array of numbers")
    return values, arrays


def check_version(version: object, name: str) -> None:
    """Raise if a file or state has a format that this version cannot read."""
    if not (isinstance(version, str) and version.isdecimal()):
        raise DamagedFileError(
            f"{name} is damaged or was altered: its format is {version!r}. {ADVICE}"
        )
    if int(version) > int(FORMAT_VERSION):
        raise ValueError(
            f"{name} has version {version!r} of the format; this version of sk_pwiser "
            f"reads versions up to {FORMAT_VERSION!r}. Install a later version, or "
            "save it with this one."
        )


# Key of a dictionary that stands for an object without a form in JSON.
TAG = "~"


# Values of categories with a form in JSON: to it, and back.
_VALUES: dict[type, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    bytes: (bytes.hex, bytes.fromhex),
    datetime.date: (datetime.date.isoformat, datetime.date.fromisoformat),
    datetime.datetime: (datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    datetime.timedelta: (
        lambda value: [value.days, value.seconds, value.microseconds],
        lambda items: datetime.timedelta(*items),
    ),
    Decimal: (str, Decimal),
}
_DECODERS = {cls.__name__.lower(): decode for cls, (_, decode) in _VALUES.items()}
_DECODERS |= {cls.__name__: cls for cls in (tuple, set, frozenset)}
# The same of pandas, which is imported if such values are read.
_PANDAS_VALUES = {
    "Interval": (lambda v: [v.left, v.right, v.closed], lambda cls, v: cls(*v)),
    "Timedelta": (lambda v: v.isoformat(), lambda cls, v: cls(v)),
    "Timestamp": (lambda v: v.isoformat(), lambda cls, v: cls(v)),
}


class PlainForm:
    """Converts objects to values of JSON and arrays, and back, and calls no class."""

    def __init__(self, classes: Iterable[type]) -> None:
        self.classes = {cls.__name__: cls for cls in classes}

    def encode(self, value: object, name: str) -> tuple[Any, dict[str, np.ndarray]]:
        """Return values of JSON, and the arrays that they refer to by name."""
        arrays: dict[str, np.ndarray] = {}
        return self._encode(value, name, arrays), arrays

    def decode(self, values: Any, arrays: Mapping[str, np.ndarray]) -> Any:
        """Return the object of a plain form, which holds the arrays, not copies."""
        try:
            return self._decode(values, dict(arrays))
        except ValueError:
            raise
        except READING_ERRORS as error:
            raise ValueError(f"values cannot be restored: {error!r}") from error

    def _encode(self, value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
        if value is None or type(value) in (bool, int, float, str):
            return value
        if hasattr(value, "to_numpy") and hasattr(value, "__len__"):
            value = value.to_numpy()  # an Index or a Series, such as of column names
        if isinstance(value, np.ndarray):
            return self._encode_array(value, name, arrays)
        if is_tensor(value):
            array = value.detach().cpu().numpy()
            return {TAG: "tensor", "items": self._encode(array, name, arrays)}
        if isinstance(value, np.generic) and value.dtype.kind in "biufU":
            return {TAG: "scalar", "dtype": value.dtype.str, "items": value.item()}
        cls = type(value)
        if isinstance(value, np.datetime64 | np.timedelta64):
            number = int(value.astype(np.int64))
            return {TAG: "datetime64", "dtype": value.dtype.str, "items": number}
        if cls in _VALUES:
            return {TAG: cls.__name__.lower(), "items": _VALUES[cls][0](value)}
        if cls.__name__ in _PANDAS_VALUES and cls.__module__.startswith("pandas"):
            items = _PANDAS_VALUES[cls.__name__][0](value)
            return {TAG: cls.__name__, "items": self._encode(items, name, arrays)}
        if self.classes.get(cls.__name__) is cls:
            is_named_tuple = isinstance(value, tuple)
            fields = value._asdict() if is_named_tuple else vars(value)
            plain = self._encode(dict(fields), name, arrays)
            return {TAG: "object", "class": cls.__name__, "items": plain}
        if isinstance(value, Mapping):
            plain = {
                k: self._encode(v, f"{name}.{k}", arrays) for k, v in value.items()
            }
            if TAG not in plain and all(type(key) is str for key in plain):
                return plain
            pairs = [[self._encode(k, name, arrays), v] for k, v in plain.items()]
            return {TAG: "dict", "items": pairs}
        if cls in (list, tuple, set, frozenset):
            items = enumerate(sorted(value) if cls in (set, frozenset) else value)
            plain = [self._encode(item, f"{name}.{i}", arrays) for i, item in items]
            return plain if cls is list else {TAG: cls.__name__, "items": plain}
        raise TypeError(
            f"{name} holds {value!r} of class {cls.__name__}, which cannot be saved."
        )

    def _encode_array(
        self, value: np.ndarray, name: str, arrays: dict[str, np.ndarray]
    ) -> dict[str, Any]:
        if value.dtype.kind in "biuf":
            name = f"{name}#{len(arrays)}" if name in arrays else name
            # In the byte order of the format; a copy only if one is needed.
            array = value.astype(value.dtype.newbyteorder("<"), order="C", copy=False)
            arrays[name] = array
            return {TAG: "array", "name": name}
        if value.dtype.kind not in "OU":
            raise TypeError(
                f"{name} has the dtype {value.dtype}, which cannot be saved."
            )
        items = [self._encode(item, name, arrays) for item in value.ravel().tolist()]
        return {
            TAG: "objects",
            "dtype": value.dtype.str,
            "shape": list(value.shape),
            "items": items,
        }

    def _decode(self, value: Any, arrays: dict[str, np.ndarray]) -> Any:
        if isinstance(value, list):
            return [self._decode(item, arrays) for item in value]
        if not isinstance(value, dict):
            return value
        kind = value.get(TAG)
        if kind is None:
            return {key: self._decode(item, arrays) for key, item in value.items()}
        if kind == "array":
            return arrays.pop(value["name"])  # no two parts share memory
        items = self._decode(value["items"], arrays)
        if kind == "dict":
            return dict(items)
        if kind == "tensor":
            import torch  # histories, which need no torch, have no tensors

            return torch.from_numpy(items)
        if kind == "scalar":
            return _dtype(value["dtype"]).type(items)
        if kind == "objects":
            dtype = _dtype(value["dtype"])
            if dtype.kind == "U":
                # The width of a file may be any number, at no cost of bytes there.
                longest = max(map(len, items), default=0)
                dtype = np.dtype((np.str_, min(longest, dtype.itemsize // 4)))
            array = np.empty(len(items), dtype=dtype)
            array[:] = items
            return array.reshape(value["shape"])
        if kind == "object":
            return self._restore(value["class"], items)
        if kind == "datetime64":
            number = np.array(items, dtype=np.int64)
            return number.view(_dtype(value["dtype"], "mM"))[()]
        if kind in _PANDAS_VALUES:
            pandas = import_extra("pandas", f"A file with categories of type {kind}")
            return _PANDAS_VALUES[kind][1](getattr(pandas, kind), items)
        return _DECODERS[kind](items)

    def _restore(self, name: str, attributes: dict[str, Any]) -> Any:
        if name not in self.classes:
            raise ValueError(f"{name!r} is not a class that a file may have.")
        cls = self.classes[name]
        if issubclass(cls, tuple):
            return cls(**attributes)
        restored = cls.__new__(cls)
        restored.__dict__.update(attributes)
        return restored


def is_tensor(value: object) -> bool:
    """Return whether a value is a tensor of torch, which need not be imported."""
    return type(value).__name__ == "Tensor" and type(value).__module__ == "torch"


def _dtype(text: str, kinds: str = "biufOU") -> np.dtype:
    dtype = np.dtype(text)
    if dtype.kind not in kinds:
        raise ValueError(f"{text!r} is not a dtype that a file may have.")
    return dtype

"""Objects as plain values and arrays, and back, without executing anything."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import numpy as np

# Key of a dictionary that stands for an object without a form in JSON.
TAG = "~"


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
        except (
            KeyError,
            TypeError,
            AttributeError,
            ArithmeticError,
            RecursionError,
        ) as error:
            raise ValueError(f"values cannot be restored: {error!r}") from error

    def _encode(self, value, name, arrays):
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, np.ndarray):
            return self._encode_array(value, name, arrays)
        if isinstance(value, np.generic) and value.dtype.kind in "biufU":
            return {TAG: "scalar", "dtype": value.dtype.str, "items": value.item()}
        if isinstance(value, Decimal):
            return {TAG: "decimal", "items": str(value)}
        cls = type(value)
        if self.classes.get(cls.__name__) is cls:
            fields = value._asdict() if isinstance(value, tuple) else vars(value)
            plain = self._encode(dict(fields), name, arrays)
            return {TAG: "object", "class": cls.__name__, "items": plain}
        if isinstance(value, Mapping):
            return self._encode_dict(value, name, arrays)
        if cls in (list, tuple, set, frozenset):
            items = sorted(value) if cls in (set, frozenset) else value
            plain = [
                self._encode(item, f"{name}.{i}", arrays)
                for i, item in enumerate(items)
            ]
            return plain if cls is list else {TAG: cls.__name__, "items": plain}
        raise TypeError(
            f"{name} holds {value!r} of class {cls.__name__}, which cannot be saved."
        )

    def _encode_dict(self, value, name, arrays):
        items = {
            key: self._encode(item, f"{name}.{key}", arrays)
            for key, item in value.items()
        }
        if TAG not in items and all(type(key) is str for key in items):
            return items
        pairs = [[self._encode(key, name, arrays), item] for key, item in items.items()]
        return {TAG: "dict", "items": pairs}

    def _encode_array(self, value, name, arrays):
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
        shape, dtype = list(value.shape), value.dtype.str
        return {TAG: "objects", "dtype": dtype, "shape": shape, "items": items}

    def _decode(self, value, arrays):
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
        if kind == "scalar":
            return _dtype(value["dtype"]).type(items)
        if kind == "objects":
            array = np.empty(len(items), dtype=_dtype(value["dtype"]))
            array[:] = items
            return array.reshape(value["shape"])
        if kind == "object":
            return self._restore(value["class"], items)
        return {"tuple": tuple, "set": set, "frozenset": frozenset, "decimal": Decimal}[
            kind
        ](items)

    def _restore(self, name, attributes):
        if name not in self.classes:
            raise ValueError(f"{name!r} is not a class that a file may have.")
        cls = self.classes[name]
        if issubclass(cls, tuple):
            return cls(**attributes)
        restored = cls.__new__(cls)
        restored.__dict__.update(attributes)
        return restored


def _dtype(text):
    dtype = np.dtype(text)
    if dtype.kind not in "biufOU":
        raise ValueError(f"{text!r} is not a dtype that a file may have.")
    return dtype

"""Values of single rows and small batches, which a server encodes without tables."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def as_column(values: Any) -> np.ndarray:
    """Return a list of values as an array of objects; arrays are returned unchanged."""
    if isinstance(values, np.ndarray):
        return values
    return np.fromiter(values, dtype=object, count=len(values))


def as_list(values: Any) -> list[Any]:
    """Return an array as a list of Python numbers, as in `fit`; lists unchanged."""
    return values.tolist() if isinstance(values, np.ndarray) else values


def repeat(values: Any, n_rows: int) -> Any:
    """Return the values of all rows; a list of one value holds for all of them."""
    return values * n_rows if len(values) == 1 < n_rows else values


class Field:
    """Encodes values of a column as its tables do, with the row in error messages.

    Subclasses are faster, or encode codes and bags. Those of bags have the method
    `encode_bag` in place of `encode`.
    """

    def __init__(self, column: Any) -> None:
        self.name = column.name
        self.holds_lists = column.holds_lists
        self.column = column

    def encode_one(self, value: Any) -> Any:
        """Return the code or the numeric inputs of a value."""
        return [values[0] for values in self.encode([value])]

    def encode(self, values: Sequence[Any] | np.ndarray) -> Iterable[Any]:
        """Return the codes of values or their numeric inputs, one array per input."""
        try:
            return self._encode(values)
        except (TypeError, ValueError):
            for row, value in enumerate(values):
                try:
                    self._encode([value])
                except (TypeError, ValueError) as error:
                    message = f"Row {row}, field {self.name!r}: {error}"
                    raise type(error)(message) from error
            raise

    def _encode(self, values: Sequence[Any] | np.ndarray) -> Iterable[Any]:
        return self.column.transform(as_column(values))

"""Columns with the weights or ages of the elements of lists."""

from dataclasses import dataclass
from typing import Any, Self

from sk_pwiser._columns._base import Column
from sk_pwiser._columns._choice import Choice


@dataclass(eq=False)
class ListWeights(Column):
    """A column with the weights of a list column, which is not an input itself."""

    name: Any

    kind = "weights of a list"
    not_an_input = "only belongs to a column of lists"
    holds_lists = True
    encoding = "read with its list"

    @classmethod
    def claim(cls, choice: Choice, name: Any) -> Self | None:
        """Return a column if it is named in `list_weights`."""
        return cls(name) if name in choice.list_weights.values() else None

    def onnx_obstacle(self) -> str | None:
        """Return why an ONNX graph cannot take the raw values."""
        return 'it contains lists; use inputs="encoded"'


class ListAges(ListWeights):
    """A column with the ages of the elements of a list column."""

    kind = "ages of a list"

    @classmethod
    def claim(cls, choice: Choice, name: Any) -> Self | None:
        """Return a column if it is named in `list_ages`."""
        return cls(name) if name in choice.list_ages.values() else None

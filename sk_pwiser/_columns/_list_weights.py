"""Columns with the weights or ages of the elements of lists."""

from dataclasses import dataclass
from typing import Any


@dataclass(eq=False)
class ListWeights:
    """A column with the weights of a list column, which is not an input itself."""

    name: Any

    kind = "weights of a list"
    not_an_input = "only belongs to a column of lists"
    encoding = "read with its list"


class ListAges(ListWeights):
    """A column with the ages of the elements of a list column."""

    kind = "ages of a list"

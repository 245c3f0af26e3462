"""The column that orders the rows of a fit."""

from dataclasses import dataclass
from typing import Any


@dataclass(eq=False)
class TimeColumn:
    """A column that orders the rows of a fit, and is no input of the network.

    Later tables may lack it.
    """

    name: Any

    kind = "time"
    not_an_input = "is the time_column, and with time_feature=False no input"
    encoding = "orders the rows"

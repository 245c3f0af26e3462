"""The column that orders the rows of a fit."""

from dataclasses import dataclass
from typing import Any, Self

from sk_pwiser._columns._base import Column
from sk_pwiser._columns._choice import Choice


@dataclass(eq=False)
class TimeColumn(Column):
    """A column that orders the rows of a fit, and is no input of the network.

    Later tables may lack it.
    """

    name: Any

    kind = "time"
    not_an_input = "is the time_column, and with time_feature=False no input"
    is_read = False
    encoding = "orders the rows"

    @classmethod
    def claim(cls, choice: Choice, name: Any) -> Self | None:
        """Return a column if it is the `time_column` and no feature."""
        return cls(name) if name == choice.time_column else None

"""The columns of a table, each of the first kind that claims it."""

from collections.abc import Mapping, Sequence
from typing import Any

from sk_pwiser._columns._base import Column
from sk_pwiser._columns._choice import Choice
from sk_pwiser._columns._registry import KINDS


def make_columns(
    params: Mapping[str, Any], cells: Sequence[Any], names: Sequence[Any]
) -> list[Column]:
    """Return an unfitted column for each of a table's, of the first kind that fits.

    `params` are those of the encoder.
    """
    choice = Choice(params, cells, names)
    columns = [_make_column(choice, name) for name in names]
    for column in columns:
        if column.name in choice.parents:
            column.parent_name = choice.parents[column.name]
    return columns


def _make_column(choice: Choice, name: Any) -> Column:
    for kind in KINDS:
        column = kind.claim(choice, name)
        if column is not None:
            return column
    raise TypeError(f"No kind of column can read column {name!r}.")

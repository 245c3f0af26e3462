"""Checks of the parameters that networks share."""

from collections.abc import Iterable, Sequence
from numbers import Integral

from sk_pwiser._utils import check_number


def check_units(name: str, units: Sequence[int]) -> tuple[int, ...]:
    """Return layer widths as a tuple.

    Raises
    ------
    TypeError
        If they are not a sequence.
    ValueError
        If a width is not an integer >= 1.
    """
    if isinstance(units, str) or not isinstance(units, Iterable):
        raise TypeError(f"{name} must be a sequence of layer widths; got {units!r}.")
    widths = tuple(units)
    for width in widths:
        if not isinstance(width, Integral) or isinstance(width, bool) or width < 1:
            raise ValueError(f"{name} must hold integers >= 1; got {units!r}.")
    return tuple(int(width) for width in widths)


def check_dropout(dropout: float) -> float:
    """Return the dropout rate; raise a ValueError if it is not in [0, 1)."""
    return check_number("dropout", dropout, at_least=0, below=1)

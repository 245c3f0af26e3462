"""Checks of parameters that several networks have."""

from collections.abc import Sequence

from sk_pwiser._utils import check_integer, check_number, is_iterable


def check_units(name: str, units: Sequence[int]) -> tuple[int, ...]:
    """Return layer widths as a tuple.

    Raises
    ------
    TypeError
        If they are not a sequence of integers.
    ValueError
        If a width is below 1.
    """
    if not is_iterable(units):
        raise TypeError(f"{name} must be a sequence of layer widths; got {units!r}.")
    return tuple(
        check_integer(f"{name}[{index}]", width, at_least=1)
        for index, width in enumerate(units)
    )


def check_dropout(dropout: float) -> float:
    """Return the dropout rate; raise an error if it is not a number in [0, 1)."""
    return check_number("dropout", dropout, at_least=0, below=1)

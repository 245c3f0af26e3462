"""Checks of parameters that several networks have."""

from collections.abc import Iterable, Sequence

from sk_pwiser._utils import check_integer, check_number


def check_units(name: str, units: Sequence[int]) -> tuple[int, ...]:
    """Return layer widths as a tuple.

    Raises
    ------
    TypeError
        If they are not a sequence of integers.
    ValueError
        If a width is below 1.
    """
    rule = f"{name} must be a sequence of layer widths; got {units!r}."
    if isinstance(units, str) or not isinstance(units, Iterable):
        raise TypeError(rule)
    try:
        widths = list(units)
    except TypeError as error:  # an array or tensor without dimensions
        raise TypeError(rule) from error
    return tuple(
        check_integer(f"{name}[{index}]", width, at_least=1)
        for index, width in enumerate(widths)
    )


def check_dropout(dropout: float) -> float:
    """Return the dropout rate; raise an error if it is not a number in [0, 1)."""
    return check_number("dropout", dropout, at_least=0, below=1)

"""Checks of the parameters that networks share."""

from collections.abc import Iterable, Sequence
from numbers import Integral, Real


def check_units(name: str, units: Sequence[int]) -> tuple[int, ...]:
    """Return layer widths as a tuple; a ValueError names what is wrong."""
    if isinstance(units, str) or not isinstance(units, Iterable):
        raise TypeError(f"{name} must be a sequence of layer widths; got {units!r}.")
    widths = tuple(units)
    for width in widths:
        if not isinstance(width, Integral) or isinstance(width, bool) or width < 1:
            raise ValueError(f"{name} must hold integers >= 1; got {units!r}.")
    return tuple(int(width) for width in widths)


def check_dropout(dropout: float) -> float:
    """Return the dropout rate; a ValueError where it is not in [0, 1)."""
    is_number = isinstance(dropout, Real) and not isinstance(dropout, bool)
    if not is_number or not 0 <= dropout < 1:
        raise ValueError(f"dropout must be a number in [0, 1); got {dropout!r}.")
    return float(dropout)


def check_count(name: str, count: int) -> int:
    """Return a count; a ValueError where it is not an integer >= 1."""
    if not isinstance(count, Integral) or isinstance(count, bool) or count < 1:
        raise ValueError(f"{name} must be an integer >= 1; got {count!r}.")
    return int(count)


def check_number(name: str, value: float) -> float:
    """Return a weight; a ValueError where it is not a finite number >= 0."""
    if not isinstance(value, Real) or not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be a finite number >= 0; got {value!r}.")
    return float(value)


def check_choice(name: str, value: str, choices: Sequence[str]) -> str:
    """Return a choice; a ValueError where it is none of those there are."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {list(choices)}; got {value!r}.")
    return value

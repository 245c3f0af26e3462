"""Checks of parameters, and messages that name the nearest choice."""

import inspect
import math
import operator
from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from functools import wraps
from numbers import Integral, Rational, Real
from typing import Any, TypeGuard, TypeVar, cast

Method = TypeVar("Method", bound=Callable[..., Any])


def check_number(
    name: str,
    value: object,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> float:
    """Return a parameter as a float; a bool, and a fraction, raises TypeError."""
    is_fraction = isinstance(value, Rational) and not isinstance(value, Integral)
    if not isinstance(value, Real) or isinstance(value, bool) or is_fraction:
        raise TypeError(f"{name} must be a number; got {value!r}.")
    try:
        number = float(value)
    except OverflowError:  # an int
        number = math.inf
    rules = [
        (">", operator.gt, above),
        (">=", operator.ge, at_least),
        ("<", operator.lt, below),
        ("<=", operator.le, at_most),
    ]
    limits = [(sign, holds, limit) for sign, holds, limit in rules if limit is not None]
    is_within = all(holds(number, limit) for _, holds, limit in limits)
    if not math.isfinite(number) or not is_within:
        allowed = ["finite", *(f"{sign} {limit:g}" for sign, _, limit in limits)]
        raise ValueError(f"{name} must be {' and '.join(allowed)}; got {value!r}.")
    return number


def is_iterable(value: object) -> TypeGuard[Iterable[Any]]:
    """Return whether a value has entries, unlike text and arrays without axes."""
    has_axes = getattr(value, "ndim", 1) > 0
    return isinstance(value, Iterable) and not isinstance(value, str) and has_axes


def check_integer(name: str, value: object, *, at_least: int) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer >= {at_least}; got {value!r}.")
    if value < at_least:
        raise ValueError(f"{name} must be an integer >= {at_least}; got {value!r}.")
    return int(value)


def check_boolean(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False; got {value!r}.")
    return value


def nearest(name: object, choices: Iterable[object]) -> str:
    """Return the most similar of some names, or ""."""
    if not isinstance(name, str):
        return ""
    names = [choice for choice in choices if isinstance(choice, str)]
    matches = get_close_matches(name, names, 1)
    return matches[0] if matches else ""


def did_you_mean(name: object, choices: Iterable[object]) -> str:
    """Return a question for the end of a message, or "" if no name is similar."""
    meant = nearest(name, choices)
    return f" Did you mean {meant!r}?" if meant else ""


def check_choice(name: str, value: object, choices: Collection[str | None]) -> str:
    if isinstance(value, str | None) and value in choices:
        return value  # type: ignore[return-value]
    kind = ValueError if isinstance(value, str) else TypeError
    hint = did_you_mean(value, choices)
    raise kind(f"{name} must be one of {list(choices)}; got {value!r}.{hint}")


def accept_any_case_of_y(function: Method) -> Method:
    """Let a function be called with either keyword, `y` as in scikit-learn or `Y`."""
    parameters = inspect.signature(function).parameters
    names = [name for name in parameters if name[:1] in ("Y", "y")]

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        for name in names:
            other_case = name[0].swapcase() + name[1:]
            if other_case in kwargs and name not in kwargs:
                kwargs[name] = kwargs.pop(other_case)
        return function(*args, **kwargs)

    return cast(Method, call)

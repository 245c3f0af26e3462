"""Checks of the weightings' parameters."""

from numbers import Real


def check_number(
    name: str,
    value: float,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> float:
    """Return a parameter as a float, or say what it must be.

    Parameters
    ----------
    name : str
        Name of the parameter, for the message.
    value : float
        What was given.
    above, at_least, below, at_most : float, default=None
        Limits; `above` and `below` are out of range themselves.

    Raises
    ------
    TypeError
        If it is no number.
    ValueError
        If it is not finite, or out of range.
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number; got {value!r}.")
    number = float(value)
    limits = {
        "> {}": (above, above is None or number > above),
        ">= {}": (at_least, at_least is None or number >= at_least),
        "< {}": (below, below is None or number < below),
        "<= {}": (at_most, at_most is None or number <= at_most),
    }
    is_finite = abs(number) < float("inf")
    if not is_finite or not all(holds for _, holds in limits.values()):
        rules = [
            rule.format(f"{limit:g}")
            for rule, (limit, _) in limits.items()
            if limit is not None
        ]
        raise ValueError(
            f"{name} must be {' and '.join(['finite', *rules])}; got {value!r}."
        )
    return number

"""Arithmetic of integers."""


def ceil_div(a: int, b: int) -> int:
    """Return the quotient, rounded up, without the rounding of floats."""
    return -(-a // b)

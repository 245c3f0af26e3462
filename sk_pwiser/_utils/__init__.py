"""What every room may use: parameter checks, the registry, random generators."""

from sk_pwiser._utils._checks import check_choice, check_integer, check_number
from sk_pwiser._utils._random import Generators, active, dropout, generator_on
from sk_pwiser._utils._registry import build, check_names, resolve

__all__ = [
    "Generators",
    "active",
    "build",
    "check_choice",
    "check_integer",
    "check_names",
    "check_number",
    "dropout",
    "generator_on",
    "resolve",
]

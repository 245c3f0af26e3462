"""What every room may use: parameter checks, the registry, random generators."""

from sk_pwiser._utils._background import in_background
from sk_pwiser._utils._checks import (
    check_boolean,
    check_choice,
    check_integer,
    check_number,
    is_iterable,
)
from sk_pwiser._utils._conditional_labels import conditional_labels
from sk_pwiser._utils._interrupts import uninterrupted
from sk_pwiser._utils._precision import at_least_float32
from sk_pwiser._utils._random import (
    Generators,
    active,
    draws_globally,
    dropout,
    generator_on,
    global_states,
    seeded_globally,
    set_global_states,
)
from sk_pwiser._utils._registry import build, check_names, resolve
from sk_pwiser._utils._threads import limited_threads, num_threads
from sk_pwiser._utils._warn import warn_user
from sk_pwiser._utils._y_keyword import accept_any_case_of_y

__all__ = [
    "Generators",
    "accept_any_case_of_y",
    "active",
    "at_least_float32",
    "build",
    "check_boolean",
    "check_choice",
    "check_integer",
    "check_names",
    "check_number",
    "conditional_labels",
    "draws_globally",
    "dropout",
    "generator_on",
    "global_states",
    "in_background",
    "is_iterable",
    "limited_threads",
    "num_threads",
    "resolve",
    "seeded_globally",
    "set_global_states",
    "uninterrupted",
    "warn_user",
]

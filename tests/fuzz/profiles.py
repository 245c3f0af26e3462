"""How much the fuzzer runs: a short profile in every run of the tests, or a long one.

The variable SK_PWISER_FUZZ selects it: "short", the default, is the same in every run;
"long" draws new examples each time, and prints how a failure can be repeated.
"""

import os

from hypothesis import HealthCheck, Phase, settings

PROFILE = os.environ.get("SK_PWISER_FUZZ", "short")
if PROFILE not in ("short", "long"):
    raise ValueError(f"SK_PWISER_FUZZ must be 'short' or 'long'; got {PROFILE!r}.")


def examples(short, long):
    """Return a decorator that sets the number of examples by the profile."""
    is_short = PROFILE == "short"
    phases = set(Phase)
    if is_short:
        phases -= {Phase.explain}
    return settings(
        max_examples=short if is_short else long,
        deadline=None,  # a slow machine is not a defect
        derandomize=is_short,
        database=None,
        print_blob=True,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )

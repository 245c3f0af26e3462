"""Which parameters of a test run in the fast suite."""

import pytest


def fast_for(fast, values):
    """Return the values as parameters; those not in `fast` run in the full suite."""
    return [
        pytest.param(value, marks=() if value in fast else pytest.mark.slow)
        for value in values
    ]

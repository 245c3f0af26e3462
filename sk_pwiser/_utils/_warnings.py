"""Warnings that refer to the line of the user's call."""

import sys
import warnings

# Packages whose frames may come between the user's call and a warning.
_CALLING_PACKAGES = ("sk_pwiser", "sklearn", "skorch", "joblib")


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Issue a warning that refers to the line of the user's call."""
    frame = sys._getframe(0)
    level = 1
    while frame.f_back is not None:
        package, *_ = frame.f_globals.get("__name__", "").split(".")
        if package not in _CALLING_PACKAGES:
            break
        frame = frame.f_back
        level += 1
    warnings.warn(message, category, stacklevel=level)

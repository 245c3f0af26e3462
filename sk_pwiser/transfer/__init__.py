"""Functions over fitted estimators, for traffic that comes from several markets.

A market is a part of the traffic with its own habits: a country, a season, a surface of
an app. The functions take fitted estimators, leave them unchanged and return new ones.
"""

from sk_pwiser.transfer._compatible import check_compatible, named_parts
from sk_pwiser.transfer._fine_tune import fine_tune, fit_like
from sk_pwiser.transfer._merge import merge_estimators, merge_interference
from sk_pwiser.transfer._pool import distill, select_estimators

__all__ = [
    "check_compatible",
    "distill",
    "fine_tune",
    "fit_like",
    "merge_estimators",
    "merge_interference",
    "named_parts",
    "select_estimators",
]

"""Functions over fitted estimators, for traffic that comes from several markets.

A market is a part of the traffic with its own habits: a country, a season, a surface of
an app. The functions take fitted estimators and return new ones; those passed stay
unchanged.
"""

from sk_pwiser.transfer._compatible import check_compatible, named_parts

__all__ = ["check_compatible", "named_parts"]

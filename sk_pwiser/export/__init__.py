"""Fitted estimators in forms that serve: single rows, without tables.

The functions take fitted estimators, which stay unchanged.
"""

from sk_pwiser.export._scorer import Scorer

__all__ = ["Scorer"]

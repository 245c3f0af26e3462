"""Fitted estimators in forms that serve: single rows without tables, and ONNX files.

The functions take fitted estimators, which stay unchanged.
"""

from sk_pwiser.export._onnx import to_onnx
from sk_pwiser.export._scorer import Scorer

__all__ = ["Scorer", "to_onnx"]

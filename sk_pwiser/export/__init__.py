"""Fitted estimators in forms that serve: single rows without tables, and files.

The functions take fitted estimators, which stay unchanged. `TRUSTED_TYPES` is a list of
str, for `skops.io.load(file, trusted=TRUSTED_TYPES)`: the classes that files of skops
have for estimators of this package; see :ref:`files`.
"""

from sk_pwiser.export._onnx import to_onnx
from sk_pwiser.export._scorer import Scorer
from sk_pwiser.export._trusted_types import TRUSTED_TYPES

__all__ = ["TRUSTED_TYPES", "Scorer", "to_onnx"]

"""X and Y become tensors' arrays: columns, encodings, labels and row weights."""

from sk_pwiser._table._categories import MISSING, UNSEEN
from sk_pwiser._table._encoder import TableEncoder
from sk_pwiser._table._labels import (
    Targets,
    check_groups,
    check_row_weights,
    check_targets,
    takes_lower_case_y,
)
from sk_pwiser._table._numeric import NUMERIC_ENCODINGS

__all__ = [
    "MISSING",
    "NUMERIC_ENCODINGS",
    "UNSEEN",
    "TableEncoder",
    "Targets",
    "check_groups",
    "check_row_weights",
    "check_targets",
    "takes_lower_case_y",
]

"""Tables and labels become arrays: column encodings, labels, row weights, groups."""

from sk_pwiser._table._categories import UNSEEN
from sk_pwiser._table._encoder import TableEncoder
from sk_pwiser._table._labels import Targets, check_targets
from sk_pwiser._table._numeric import NUMERIC_ENCODINGS
from sk_pwiser._table._rows import check_groups, check_row_weights, n_rows

__all__ = [
    "NUMERIC_ENCODINGS",
    "UNSEEN",
    "TableEncoder",
    "Targets",
    "check_groups",
    "check_row_weights",
    "check_targets",
    "n_rows",
]

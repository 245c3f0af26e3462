"""Tables and labels become arrays: column encodings, labels, row weights, groups."""

from sk_pwiser._table._categories import UNSEEN
from sk_pwiser._table._encoder import TableEncoder
from sk_pwiser._table._labels import Targets, check_targets
from sk_pwiser._table._numeric import NUMERIC_ENCODINGS
from sk_pwiser._table._rows import check_groups, check_row_weights, n_rows
from sk_pwiser._table._target_encoding import (
    check_target_encoding,
    make_target_statistics,
    read_times,
)
from sk_pwiser._table._target_statistics import TargetStatistics, assign_blocks

__all__ = [
    "NUMERIC_ENCODINGS",
    "UNSEEN",
    "TableEncoder",
    "TargetStatistics",
    "Targets",
    "assign_blocks",
    "check_groups",
    "check_row_weights",
    "check_target_encoding",
    "check_targets",
    "make_target_statistics",
    "n_rows",
    "read_times",
]

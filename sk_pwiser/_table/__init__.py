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
from sk_pwiser._table._task_names import choose_task_names, names_of_columns
from sk_pwiser._table._vocabulary import check_vocabulary

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
    "check_vocabulary",
    "choose_task_names",
    "make_target_statistics",
    "n_rows",
    "names_of_columns",
    "read_times",
]

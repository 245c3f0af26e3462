"""Tables and labels become arrays: column encodings, labels, row weights, groups."""

from sk_pwiser._table import _in_parts as in_parts
from sk_pwiser._table._arrays import ArrayColumn
from sk_pwiser._table._awakening import awaken_columns
from sk_pwiser._table._base_rates import base_rates
from sk_pwiser._table._categories import UNSEEN, CategoryColumn
from sk_pwiser._table._column_kinds import column_kinds, vector_counts
from sk_pwiser._table._columns import check_encoding_params
from sk_pwiser._table._containers import as_table, reads_in_parts, refuse_parts
from sk_pwiser._table._dataframe import to_float
from sk_pwiser._table._encoder import TableEncoder
from sk_pwiser._table._extended_statistics import ExtendedStatistics
from sk_pwiser._table._factorize import factorize
from sk_pwiser._table._growth import grow_encoder
from sk_pwiser._table._labels import Targets, check_targets
from sk_pwiser._table._lists import ListColumn, ListWeights
from sk_pwiser._table._new_values import warn_about_new_values
from sk_pwiser._table._numeric import NUMERIC_ENCODINGS, NumericColumn
from sk_pwiser._table._rows import check_groups, n_rows
from sk_pwiser._table._soft_targets import SoftTargets
from sk_pwiser._table._sparse import SparseColumns
from sk_pwiser._table._target_encoding import (
    check_target_encoding,
    make_target_statistics,
    read_times,
)
from sk_pwiser._table._target_statistics import TargetStatistics, assign_blocks
from sk_pwiser._table._task_names import choose_task_names
from sk_pwiser._table._vocabulary import Vocabulary, check_vocabulary
from sk_pwiser._table._weights import combine_weights, row_weights, scale_weights

# What an encoding consists of, for files.
STATE_CLASSES = (
    ArrayColumn,
    CategoryColumn,
    ExtendedStatistics,
    ListColumn,
    ListWeights,
    SoftTargets,
    SparseColumns,
    TableEncoder,
    Targets,
    TargetStatistics,
    Vocabulary,
    *NUMERIC_ENCODINGS.values(),
)

__all__ = [
    "NUMERIC_ENCODINGS",
    "STATE_CLASSES",
    "UNSEEN",
    "CategoryColumn",
    "ExtendedStatistics",
    "NumericColumn",
    "SoftTargets",
    "TableEncoder",
    "TargetStatistics",
    "Targets",
    "as_table",
    "assign_blocks",
    "awaken_columns",
    "base_rates",
    "check_encoding_params",
    "check_groups",
    "check_target_encoding",
    "check_targets",
    "check_vocabulary",
    "choose_task_names",
    "column_kinds",
    "combine_weights",
    "factorize",
    "grow_encoder",
    "in_parts",
    "make_target_statistics",
    "n_rows",
    "read_times",
    "reads_in_parts",
    "refuse_parts",
    "row_weights",
    "scale_weights",
    "to_float",
    "vector_counts",
    "warn_about_new_values",
]
